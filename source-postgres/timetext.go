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
	const form = `"0000-00-00T00:00:00.000000Z"`
	dst = append(dst, form...)
	text := dst[len(dst)-len(form):]
	putDay(text[1:], int(day))
	n := 12 + putClock(text[12:], micros)
	text[n], text[n+1] = 'Z', '"'
	return dst[:len(dst)-len(form)+n+2], nil
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
	const form = `"0000-00-00"`
	dst = append(dst, form...)
	putDay(dst[len(dst)-len(form)+1:], int(day))
	return dst, nil
}

// putDay puts the digits of the civil date of a day counted from 2000-01-01 into "0000-00-00". The arithmetic counts from 0000-03-01, so
// that the leap day is the last of its year, and divides by multiplying (Neri and Schneider, "Euclidean affine functions and their
// application to calendar algorithms").
func putDay(dst []byte, day int) {
	n := 4*uint32(day+730_425) + 3 //nolint:gosec // never negative for the years 1 to 9999
	century := n / 146_097
	p := 2_939_745 * uint64(n%146_097|3)
	year := int(p >> 32) // of the century
	ofYear := uint32(p) / 2_939_745 / 4
	m := 2141*ofYear + 197_913
	month := int(m >> 16)
	if month > 12 {
		month -= 12
		if year++; year == 100 {
			year = 0
			century++
		}
	}
	_ = dst[9]
	putPair(dst[0:], int(century))
	putPair(dst[2:], year)
	putPair(dst[5:], month)
	putPair(dst[8:], int(m&0xffff)/2141+1)
}

func digit(n int) byte { return byte('0' + n%10) }

// putPair puts the two digits of a number below 100.
func putPair(dst []byte, n int) {
	const pairs = "00010203040506070809" + "10111213141516171819" + "20212223242526272829" + "30313233343536373839" + "40414243444546474849" +
		"50515253545556575859" + "60616263646566676869" + "70717273747576777879" + "80818283848586878889" + "90919293949596979899"
	dst[0], dst[1] = pairs[2*n], pairs[2*n+1]
}

// putClock puts the digits of a time of day into "00:00:00.000000", and returns how many of these characters it needs: like the server,
// no more digits of the fraction than there are.
func putClock(dst []byte, micros int64) int {
	seconds, fraction := int(micros/1_000_000), int(micros%1_000_000)
	putPair(dst[0:], seconds/3600)
	putPair(dst[3:], seconds/60%60)
	putPair(dst[6:], seconds%60)
	if fraction == 0 {
		return len("15:04:05")
	}
	putPair(dst[9:], fraction/10_000)
	putPair(dst[11:], fraction/100%100)
	putPair(dst[13:], fraction%100)
	n := len("15:04:05.999999")
	for dst[n-1] == '0' {
		n--
	}
	return n
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
