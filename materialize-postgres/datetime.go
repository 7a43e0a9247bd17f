package main

import (
	"errors"
	"math"
)

const (
	daysFrom1970To2000 = 10957
	microsPerSecond    = 1_000_000
	microsPerDay       = 86400 * microsPerSecond

	dateInfinity     = math.MaxInt32
	dateNegInfinity  = math.MinInt32
	stampInfinity    = math.MaxInt64
	stampNegInfinity = math.MinInt64
)

var (
	errNotDate = errors.New("it is not a date of the form 2006-01-02")
	errNotTime = errors.New("it is not a point in time of the form 2006-01-02T15:04:05Z")

	errNotClock = errors.New("it is not a time of the form 15:04:05Z")
)

// parseDate returns days since 2000-01-01. The text is an RFC 3339 full-date, with more digits for years beyond 9999
// and a sign for years before 1, or infinity.
func parseDate(s []byte) (int32, error) {
	switch string(s) {
	case "infinity":
		return dateInfinity, nil
	case "-infinity":
		return dateNegInfinity, nil
	}
	days, rest, ok := scanDate(s)
	if !ok || len(rest) > 0 {
		return 0, errNotDate
	}
	return int32(days - daysFrom1970To2000), nil
}

// parseTimestamp returns microseconds since 2000-01-01 UTC. The text is an RFC 3339 date-time, with the freedoms of
// parseDate. exact is false if a fraction finer than a microsecond was rounded.
func parseTimestamp(s []byte) (micros int64, exact bool, err error) {
	switch string(s) {
	case "infinity":
		return stampInfinity, true, nil
	case "-infinity":
		return stampNegInfinity, true, nil
	}
	days, rest, ok := scanDate(s)
	if !ok || len(rest) < 9 || (rest[0] != 'T' && rest[0] != 't' && rest[0] != ' ') || rest[3] != ':' || rest[6] != ':' {
		return 0, false, errNotTime
	}
	h, ok1 := twoDigits(rest[1:])
	m, ok2 := twoDigits(rest[4:])
	sec, ok3 := twoDigits(rest[7:])
	if !ok1 || !ok2 || !ok3 || h > 24 || m > 59 || sec > 60 || (h == 24 && m+sec > 0) {
		return 0, false, errNotTime
	}
	fraction, rest, exact := scanFraction(rest[9:])
	offset, ok := scanOffset(rest)
	if !ok {
		return 0, false, errNotTime
	}
	seconds := int64(days-daysFrom1970To2000)*86400 + int64(h*3600+m*60+sec) - int64(offset)
	return seconds*microsPerSecond + fraction, exact, nil
}

// clock is a time of day in some zone.
type clock struct {
	micros int64 // since midnight
	east   int   // seconds
}

// inUTC is the time of day that it is in Greenwich.
func (c clock) inUTC() int64 {
	if c.east == 0 {
		return c.micros // which may be 24:00
	}
	return ((c.micros-int64(c.east)*microsPerSecond)%microsPerDay + microsPerDay) % microsPerDay
}

// parseTime reads an RFC 3339 full-time. A fraction finer than a microsecond is rounded.
func parseTime(s []byte) (clock, error) {
	if len(s) < 9 || s[2] != ':' || s[5] != ':' {
		return clock{}, errNotClock
	}
	h, ok1 := twoDigits(s)
	m, ok2 := twoDigits(s[3:])
	sec, ok3 := twoDigits(s[6:])
	fraction, rest, _ := scanFraction(s[8:])
	east, ok4 := scanOffset(rest)
	micros := int64(h*3600+m*60+sec)*microsPerSecond + fraction
	if !ok1 || !ok2 || !ok3 || !ok4 || m > 59 || sec > 60 || micros > microsPerDay {
		return clock{}, errNotClock
	}
	return clock{micros, east}, nil
}

// scanDate returns days since 1970-01-01 and what follows the date.
func scanDate(s []byte) (days int, rest []byte, ok bool) {
	negative := false
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		negative = s[0] == '-'
		s = s[1:]
	}
	year, n := 0, 0
	for n < len(s) && n < 6 && s[n] >= '0' && s[n] <= '9' {
		year = year*10 + int(s[n]-'0')
		n++
	}
	if n < 4 || len(s) < n+6 || s[n] != '-' || s[n+3] != '-' {
		return 0, nil, false
	}
	month, ok1 := twoDigits(s[n+1:])
	day, ok2 := twoDigits(s[n+4:])
	if negative {
		year = -year
	}
	if !ok1 || !ok2 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || year > 294276 || year < -4712 {
		return 0, nil, false
	}
	return daysFromCivil(year, month, day), s[n+6:], true
}

func twoDigits(s []byte) (int, bool) {
	if len(s) < 2 || s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9' {
		return 0, false
	}
	return int(s[0]-'0')*10 + int(s[1]-'0'), true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	default:
		return 31
	}
}

// scanFraction reads an optional fraction of a second as microseconds, rounded half up.
func scanFraction(s []byte) (micros int64, rest []byte, exact bool) {
	if len(s) == 0 || s[0] != '.' {
		return 0, s, true
	}
	exact = true
	scale := int64(microsPerSecond)
	i := 1
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		d := int64(s[i] - '0')
		scale /= 10
		micros += d * scale
		if scale == 0 && d != 0 {
			exact = false
			if i == 7 && d >= 5 {
				micros++
			}
		}
	}
	return micros, s[i:], exact
}

// scanOffset reads Z or ±hh:mm as seconds east of UTC.
func scanOffset(s []byte) (int, bool) {
	if len(s) == 1 && (s[0] == 'Z' || s[0] == 'z') {
		return 0, true
	}
	if len(s) != 6 || (s[0] != '+' && s[0] != '-') || s[3] != ':' {
		return 0, false
	}
	h, ok1 := twoDigits(s[1:])
	m, ok2 := twoDigits(s[4:])
	if !ok1 || !ok2 || h > 23 || m > 59 {
		return 0, false
	}
	offset := h*3600 + m*60
	if s[0] == '-' {
		offset = -offset
	}
	return offset, true
}

// daysFromCivil counts days from 1970-01-01 in the proleptic Gregorian calendar, by eras of 400 years.
func daysFromCivil(year, month, day int) int {
	if month <= 2 {
		year--
	}
	era := floorDiv(year, 400)
	yearOfEra := year - era*400
	dayOfYear := (153*((month+9)%12)+2)/5 + day - 1
	dayOfEra := yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear
	return era*146097 + dayOfEra - 719468
}

func civilFromDays(days int) (year, month, day int) {
	days += 719468
	era := floorDiv(days, 146097)
	dayOfEra := days - era*146097
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36524 - dayOfEra/146096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	mp := (5*dayOfYear + 2) / 153
	day = dayOfYear - (153*mp+2)/5 + 1
	month = (mp+2)%12 + 1
	year = yearOfEra + era*400
	if month <= 2 {
		year++
	}
	return year, month, day
}

func floorDiv(a, b int) int {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// appendDate is the reverse of parseDate.
func appendDate(dst []byte, days int32) []byte {
	switch days {
	case dateInfinity:
		return append(dst, "infinity"...)
	case dateNegInfinity:
		return append(dst, "-infinity"...)
	}
	return appendCivil(dst, int(days)+daysFrom1970To2000)
}

func appendCivil(dst []byte, days int) []byte {
	year, month, day := civilFromDays(days)
	if year < 0 {
		dst = append(dst, '-')
		year = -year
	}
	digits := 4
	for n := year; n >= 10000; n /= 10 {
		digits++
	}
	dst = appendPadded(dst, year, digits)
	dst = append(dst, '-')
	dst = appendPadded(dst, month, 2)
	dst = append(dst, '-')
	return appendPadded(dst, day, 2)
}

// appendTimestamp is the reverse of parseTimestamp, in UTC, with as many digits of a fraction as it has.
func appendTimestamp(dst []byte, micros int64) []byte {
	switch micros {
	case stampInfinity:
		return append(dst, "infinity"...)
	case stampNegInfinity:
		return append(dst, "-infinity"...)
	}
	days := micros / microsPerDay
	rest := micros % microsPerDay
	if rest < 0 {
		days--
		rest += microsPerDay
	}
	dst = append(appendCivil(dst, int(days)+daysFrom1970To2000), 'T')
	dst = appendClock(dst, rest)
	return append(dst, 'Z')
}

// appendTime is the reverse of parseTime.
func appendTime(dst []byte, c clock) []byte {
	dst = appendClock(dst, c.micros)
	if c.east == 0 {
		return append(dst, 'Z')
	}
	sign, east := byte('+'), c.east
	if east < 0 {
		sign, east = '-', -east
	}
	dst = append(appendPadded(append(dst, sign), east/3600, 2), ':')
	return appendPadded(dst, east/60%60, 2)
}

// appendClock appends hours, minutes, seconds and as many digits of a fraction as there are.
func appendClock(dst []byte, micros int64) []byte {
	seconds := int(micros / microsPerSecond)
	dst = append(appendPadded(dst, seconds/3600, 2), ':')
	dst = append(appendPadded(dst, seconds/60%60, 2), ':')
	dst = appendPadded(dst, seconds%60, 2)
	if fraction := int(micros % microsPerSecond); fraction > 0 {
		digits := 6
		for ; fraction%10 == 0; fraction /= 10 {
			digits--
		}
		dst = appendPadded(append(dst, '.'), fraction, digits)
	}
	return dst
}

func appendPadded(dst []byte, v, digits int) []byte {
	start := len(dst)
	for range digits {
		dst = append(dst, '0')
	}
	for i := start + digits - 1; i >= start; i-- {
		dst[i] = byte('0' + v%10)
		v /= 10
	}
	return dst
}
