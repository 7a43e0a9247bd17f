package parquet

import "errors"

const (
	microsPerSecond = 1_000_000
	secondsPerDay   = 86400
)

var (
	errNotDate  = errors.New("it is not a date of the form 2006-01-02")
	errNotTime  = errors.New("it is not a time of the form 15:04:05Z")
	errNotStamp = errors.New("it is not a point in time of the form 2006-01-02T15:04:05Z")
	errTooFine  = errors.New("it is finer than a microsecond")
)

// parseDate returns days since 1970-01-01. Years have four digits, as RFC 3339 has it.
func parseDate(s []byte) (int64, error) {
	if len(s) != len("2006-01-02") {
		return 0, errNotDate
	}
	days, ok := scanDate(s)
	if !ok {
		return 0, errNotDate
	}
	return days, nil
}

// parseTime returns microseconds since midnight. An offset is applied and not kept, so the result is a time of day in UTC.
func parseTime(s []byte) (int64, error) {
	seconds, rest, ok := scanClock(s)
	if !ok || seconds == secondsPerDay { // a leap second at the end of a day would become its beginning
		return 0, errNotTime
	}
	micros, rest, exact := scanFraction(rest)
	offset, ok := scanOffset(rest)
	switch {
	case !ok:
		return 0, errNotTime
	case !exact:
		return 0, errTooFine
	}
	seconds = (seconds - offset + secondsPerDay) % secondsPerDay
	return seconds*microsPerSecond + micros, nil
}

// parseTimestamp returns microseconds since 1970-01-01 UTC.
func parseTimestamp(s []byte) (int64, error) {
	const date = len("2006-01-02")
	if len(s) <= date || (s[date] != 'T' && s[date] != 't' && s[date] != ' ') {
		return 0, errNotStamp
	}
	days, ok := scanDate(s[:date])
	seconds, rest, ok2 := scanClock(s[date+1:])
	if !ok || !ok2 {
		return 0, errNotStamp
	}
	micros, rest, exact := scanFraction(rest)
	offset, ok := scanOffset(rest)
	switch {
	case !ok:
		return 0, errNotStamp
	case !exact:
		return 0, errTooFine
	}
	return (days*secondsPerDay+seconds-offset)*microsPerSecond + micros, nil
}

// scanDate reads the ten bytes of a date as days since 1970-01-01.
func scanDate(s []byte) (int64, bool) {
	century, ok1 := twoDigits(s)
	years, ok2 := twoDigits(s[2:])
	month, ok3 := twoDigits(s[5:])
	day, ok4 := twoDigits(s[8:])
	year := century*100 + years
	if !ok1 || !ok2 || !ok3 || !ok4 || s[4] != '-' || s[7] != '-' || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, false
	}
	return daysFromCivil(year, month, day), true
}

// scanClock reads hh:mm:ss as seconds; a leap second is the next minute's first.
func scanClock(s []byte) (seconds int64, rest []byte, ok bool) {
	if len(s) < len("15:04:05") || s[2] != ':' || s[5] != ':' {
		return 0, nil, false
	}
	h, ok1 := twoDigits(s)
	m, ok2 := twoDigits(s[3:])
	sec, ok3 := twoDigits(s[6:])
	return h*3600 + m*60 + sec, s[8:], ok1 && ok2 && ok3 && h < 24 && m < 60 && sec <= 60
}

// scanFraction reads an optional fraction of a second as microseconds.
func scanFraction(s []byte) (micros int64, rest []byte, exact bool) {
	if len(s) == 0 || s[0] != '.' {
		return 0, s, true
	}
	scale := int64(microsPerSecond)
	i := 1
	exact = true
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		scale /= 10
		micros += int64(s[i]-'0') * scale
		exact = exact && (scale > 0 || s[i] == '0')
	}
	if i == 1 {
		return 0, s, true // a point without digits: the offset's reader refuses it
	}
	return micros, s[i:], exact
}

// scanOffset reads Z or ±hh:mm as seconds east of UTC.
func scanOffset(s []byte) (int64, bool) {
	if len(s) == 1 && (s[0] == 'Z' || s[0] == 'z') {
		return 0, true
	}
	if len(s) != len("+01:00") || (s[0] != '+' && s[0] != '-') || s[3] != ':' {
		return 0, false
	}
	h, ok1 := twoDigits(s[1:])
	m, ok2 := twoDigits(s[4:])
	if !ok1 || !ok2 || h > 23 || m > 59 {
		return 0, false
	}
	if s[0] == '-' {
		return -(h*3600 + m*60), true
	}
	return h*3600 + m*60, true
}

func twoDigits(s []byte) (int64, bool) {
	if s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9' {
		return 0, false
	}
	return int64(s[0]-'0')*10 + int64(s[1]-'0'), true
}

func daysIn(year, month int64) int64 {
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

// daysFromCivil counts days from 1970-01-01 in the proleptic Gregorian calendar. The year begins in March, so that the leap
// day is its last.
func daysFromCivil(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	year += 400 // keeps divisions away from negative numbers
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	return year*365 + year/4 - year/100 + year/400 + dayOfYear - 719468 - 146097
}
