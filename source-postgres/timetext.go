package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Dates and times as JSON strings of RFC 3339. What that notation cannot hold becomes, unless the user or a key wants more
// (beyond), the nearest value that it, and every common destination, can: infinity and everything behind the year 9999 the first text of these pairs, minus
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
	var text [len("2006-01-02")]byte
	putPair(text[0:], year/100)
	putPair(text[2:], year%100)
	text[4], text[7] = '-', '-'
	putPair(text[5:], month)
	putPair(text[8:], dom)
	return append(dst, text[:]...)
}

func digit(n int) byte { return byte('0' + n%10) }

// putPair puts the two digits of a number below 100.
func putPair(dst []byte, n int) {
	const pairs = "00010203040506070809" + "10111213141516171819" + "20212223242526272829" + "30313233343536373839" + "40414243444546474849" +
		"50515253545556575859" + "60616263646566676869" + "70717273747576777879" + "80818283848586878889" + "90919293949596979899"
	dst[0], dst[1] = pairs[2*n], pairs[2*n+1]
}

// appendClock appends a time of day, with as many digits of the fraction as it needs, like the server.
func appendClock(dst []byte, micros int64) []byte {
	seconds, fraction := int(micros/1_000_000), int(micros%1_000_000)
	text := [len("15:04:05.999999")]byte{2: ':', 5: ':', 8: '.'}
	putPair(text[0:], seconds/3600)
	putPair(text[3:], seconds/60%60)
	putPair(text[6:], seconds%60)
	if fraction == 0 {
		return append(dst, text[:8]...)
	}
	putPair(text[9:], fraction/10_000)
	putPair(text[11:], fraction/100%100)
	putPair(text[13:], fraction%100)
	n := len(text)
	for text[n-1] == '0' {
		n--
	}
	return append(dst, text[:n]...)
}

// beyond is what becomes of a value that RFC 3339 cannot hold.
type beyond uint8

const (
	nearest   beyond = iota // the nearest value that it can hold
	asPrinted               // the server's text
	refused                 // an error
)

// errBeyond is the refusal. rowPlan says of which column.
var errBeyond = errors.New("a value that RFC 3339 cannot hold")

// append appends a value that RFC 3339 cannot hold.
func (b beyond) append(dst, v []byte, near string) ([]byte, error) {
	switch b {
	case nearest:
		return append(dst, near...), nil
	case asPrinted:
		return appendQuoted(dst, v)
	default:
		return dst, fmt.Errorf("%w: %s", errBeyond, v)
	}
}

// timestampEncoder reads "2024-01-02 03:04:05.6" and "2024-01-02 03:04:05.6+00": the session's style is ISO and its zone
// UTC.
func timestampEncoder(b beyond) encoder {
	return func(dst, v []byte) ([]byte, error) {
		n := len(v)
		if n >= 22 && n <= 29 && v[4] == '-' && v[10] == ' ' && v[13] == ':' && string(v[n-3:]) == "+00" && (n == 22 || v[19] == '.') {
			dst = append(append(dst, '"'), v[:n-3]...) // nearly all there are
			dst[len(dst)-(n-3)+10] = 'T'
			return append(dst, 'Z', '"'), nil
		}
		if n < len("2006-01-02 15:04:05") || v[4] != '-' || v[10] != ' ' || v[n-1] == 'C' {
			if v == nil {
				return appendNull(dst), nil
			}
			return appendBeyondYears(dst, v, b, firstTimestamp, lastTimestamp)
		}
		for _, c := range v[19:n] {
			if c != '.' && (c < '0' || c > '9') {
				return dst, errValue // a zone other than UTC
			}
		}
		dst = append(append(dst, '"'), v[:10]...)
		dst = append(append(dst, 'T'), v[11:n]...)
		return append(dst, 'Z', '"'), nil
	}
}

func dateEncoder(b beyond) encoder {
	return func(dst, v []byte) ([]byte, error) {
		if len(v) == len("2006-01-02") && v[4] == '-' {
			return appendQuoted(dst, v)
		}
		if v == nil {
			return appendNull(dst), nil
		}
		return appendBeyondYears(dst, v, b, firstDate, lastDate)
	}
}

// appendBeyondYears appends a date or timestamp before the year 1 or behind the year 9999, which are the infinities, those
// that end with BC, and those with more than four digits before the first hyphen.
func appendBeyondYears(dst, v []byte, b beyond, first, last string) ([]byte, error) {
	switch {
	case bytes.HasSuffix(v, []byte(" BC")), bytes.Equal(v, []byte("-infinity")):
		return b.append(dst, v, first)
	case bytes.Equal(v, []byte("infinity")), bytes.IndexByte(v, '-') > 4:
		return b.append(dst, v, last)
	}
	return dst, errValue
}

func timeEncoder(b beyond) encoder {
	return func(dst, v []byte) ([]byte, error) {
		if len(v) < len("15:04:05") {
			return nullOr(dst, v)
		}
		if v[0] == '2' && v[1] == '4' {
			return b.append(dst, v, lastTime)
		}
		dst = append(append(dst, '"'), v...)
		return append(dst, 'Z', '"'), nil
	}
}

// timetzEncoder reads "03:04:05.6+02", "…-03:30" and, from times long ago, "…+00:53:28", whose seconds RFC 3339 cannot
// hold: the nearest value is that without them.
func timetzEncoder(b beyond) encoder {
	return func(dst, v []byte) ([]byte, error) {
		i := bytes.LastIndexAny(v, "+-")
		if i < len("15:04:05") || len(v)-i < 3 {
			return nullOr(dst, v)
		}
		clock, zone := v[:i], v[i:]
		hour24 := v[0] == '2' && v[1] == '4'
		if b != nearest && (hour24 || len(zone) > 6) {
			return b.append(dst, v, "")
		}
		if hour24 {
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
}

// unixMillis turns the server's microseconds since 2000-01-01 into milliseconds since 1970-01-01.
func unixMillis(micros int64) int64 { return micros/1000 + 946_684_800_000 }
