package main

import (
	"bytes"
	"encoding/binary"
)

// Dates and times as JSON strings of RFC 3339. What that notation cannot hold becomes the nearest value that it, and
// every common destination, can: infinity and everything behind the year 9999 the first text of these pairs, minus
// infinity and everything before the year 1 the second, and the hour 24 the last microsecond of the day.
const (
	lastTimestamp  = `"9999-12-31T23:59:59Z"`
	firstTimestamp = `"0001-01-01T00:00:00Z"`
	lastDate       = `"9999-12-31"`
	firstDate      = `"0001-01-01"`
	lastTime       = `"23:59:59.999999Z"`
)

const (
	microsPerDay = 24 * 60 * 60 * 1_000_000
	// The server counts from 2000-01-01. These are the limits of the years 1 to 9999.
	firstDay = -730_119
	lastDay  = 2_921_939
)

// appendTimestamp reads the binary form of timestamp and timestamptz: microseconds since 2000-01-01, UTC for both.
func appendTimestamp(dst, v []byte) ([]byte, error) {
	if len(v) != 8 {
		return nullOr(dst, v)
	}
	micros := int64(binary.BigEndian.Uint64(v))
	day := micros / microsPerDay
	if micros %= microsPerDay; micros < 0 {
		micros += microsPerDay
		day--
	}
	switch {
	case day < firstDay:
		return append(dst, firstTimestamp...), nil
	case day > lastDay:
		return append(dst, lastTimestamp...), nil
	}
	dst = appendDay(append(dst, '"'), int(day))
	dst = appendClock(append(dst, 'T'), micros)
	return append(dst, 'Z', '"'), nil
}

// appendDate reads the binary form of date: days since 2000-01-01.
func appendDate(dst, v []byte) ([]byte, error) {
	if len(v) != 4 {
		return nullOr(dst, v)
	}
	day := int32(binary.BigEndian.Uint32(v))
	switch {
	case day < firstDay:
		return append(dst, firstDate...), nil
	case day > lastDay:
		return append(dst, lastDate...), nil
	}
	return append(appendDay(append(dst, '"'), int(day)), '"'), nil
}

// appendDay appends the civil date of a day counted from 2000-01-01. The arithmetic counts from 0000-03-01, so that the
// leap day is the last of its year (Howard Hinnant, "chrono-compatible low-level date algorithms").
func appendDay(dst []byte, day int) []byte {
	z := day + 730_425 // days from 0000-03-01 to 2000-01-01; never negative for the years 1 to 9999
	era := z / 146_097
	doe := z - era*146_097
	yoe := (doe - doe/1460 + doe/36_524 - doe/146_096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	year, month, dom := yoe+era*400, mp+3, doy-(153*mp+2)/5+1
	if month > 12 {
		month -= 12
		year++
	}
	return append(dst, digit(year/1000), digit(year/100), digit(year/10), digit(year), '-',
		digit(month/10), digit(month), '-', digit(dom/10), digit(dom))
}

func digit(n int) byte { return byte('0' + n%10) }

// appendClock appends a time of day, with as many digits of the fraction as it needs, like the server.
func appendClock(dst []byte, micros int64) []byte {
	seconds, fraction := int(micros/1_000_000), int(micros%1_000_000)
	h, m, s := seconds/3600, seconds/60%60, seconds%60
	dst = append(dst, digit(h/10), digit(h), ':', digit(m/10), digit(m), ':', digit(s/10), digit(s))
	if fraction == 0 {
		return dst
	}
	dst = append(dst, '.', digit(fraction/100_000), digit(fraction/10_000), digit(fraction/1000), digit(fraction/100),
		digit(fraction/10), digit(fraction))
	return bytes.TrimRight(dst, "0")
}

// appendTimestampText reads "2024-01-02 03:04:05.6" and "2024-01-02 03:04:05.6+00": the session's style is ISO and its
// zone UTC.
func appendTimestampText(dst, v []byte) ([]byte, error) {
	if n := len(v); n >= 22 && n <= 29 && v[4] == '-' && v[10] == ' ' && v[13] == ':' && string(v[n-3:]) == "+00" && (n == 22 || v[19] == '.') {
		dst = append(append(dst, '"'), v[:n-3]...) // nearly all there are
		dst[len(dst)-(n-3)+10] = 'T'
		return append(dst, 'Z', '"'), nil
	}
	if v == nil {
		return appendNull(dst), nil
	}
	if edge := outOfYears(v, ' '); edge != 0 {
		return append(dst, pick(edge, firstTimestamp, lastTimestamp)...), nil
	}
	v = bytes.TrimSuffix(v, []byte("+00"))
	if len(v) < 19 || v[10] != ' ' || bytes.IndexByte(v[11:], '+') >= 0 || bytes.IndexByte(v[11:], '-') >= 0 {
		return dst, errValue
	}
	dst = append(append(dst, '"'), v[:10]...)
	dst = append(append(dst, 'T'), v[11:]...)
	return append(dst, 'Z', '"'), nil
}

func appendDateText(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	if edge := outOfYears(v, 0); edge != 0 {
		return append(dst, pick(edge, firstDate, lastDate)...), nil
	}
	if len(v) != 10 {
		return dst, errValue
	}
	return appendQuoted(dst, v)
}

// outOfYears is below zero for a date before the year 1, above zero for one behind the year 9999, else zero. The date ends
// at the separator.
func outOfYears(v []byte, separator byte) int {
	switch {
	case bytes.HasSuffix(v, []byte("BC")) || bytes.Equal(v, []byte("-infinity")):
		return -1
	case bytes.Equal(v, []byte("infinity")):
		return 1
	}
	end := len(v)
	if i := bytes.IndexByte(v, separator); separator != 0 && i >= 0 {
		end = i
	}
	if end > len("9999-12-31") {
		return 1
	}
	return 0
}

func pick(edge int, first, last string) string {
	if edge < 0 {
		return first
	}
	return last
}

func appendTimeText(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	if bytes.HasPrefix(v, []byte("24:")) {
		return append(dst, lastTime...), nil
	}
	dst = append(append(dst, '"'), v...)
	return append(dst, 'Z', '"'), nil
}

// appendTimetzText reads "03:04:05.6+02", "…-03:30" and, from times long ago, "…+00:53:28", whose seconds RFC 3339 cannot
// hold.
func appendTimetzText(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	i := bytes.LastIndexAny(v, "+-")
	if i < len("00:00:00") {
		return dst, errValue
	}
	clock, zone := v[:i], v[i:]
	if bytes.HasPrefix(clock, []byte("24:")) {
		clock = []byte(lastTime[1 : len(lastTime)-2])
	}
	dst = append(append(dst, '"'), clock...)
	switch {
	case len(zone) == 3:
		dst = append(append(dst, zone...), ":00"...)
	case len(zone) >= 6:
		dst = append(dst, zone[:6]...)
	default:
		return dst, errValue
	}
	return append(dst, '"'), nil
}

// unixMillis turns the server's microseconds since 2000-01-01 into milliseconds since 1970-01-01.
func unixMillis(micros int64) int64 { return micros/1000 + 946_684_800_000 }
