package avro

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"

	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/schema"
)

// logical is what a value means beyond its kind.
type logical uint8

const (
	logicalNone logical = iota
	logicalDecimal
	logicalBigDecimal
	logicalUUID
	logicalDuration
	logicalDate
	logicalTimeMillis
	logicalTimeMicros
	logicalMillis
	logicalMicros
	logicalNanos
	logicalLocalMillis
	logicalLocalMicros
	logicalLocalNanos
)

// Logical types by the kind that they stand on; on any other kind Avro has them ignored.
//
//nolint:gochecknoglobals // a lookup table
var logicals = map[kind]map[string]logical{
	kindInt: {"date": logicalDate, "time-millis": logicalTimeMillis},
	kindLong: {
		"time-micros":      logicalTimeMicros,
		"timestamp-millis": logicalMillis, "timestamp-micros": logicalMicros, "timestamp-nanos": logicalNanos,
		"local-timestamp-millis": logicalLocalMillis, "local-timestamp-micros": logicalLocalMicros,
		"local-timestamp-nanos": logicalLocalNanos,
	},
	kindBytes: {"decimal": logicalDecimal, "big-decimal": logicalBigDecimal},
	kindFixed: {"decimal": logicalDecimal, "uuid": logicalUUID, "duration": logicalDuration},
}

// setLogical gives t the logical type of its schema. Avro has invalid ones ignored: the value is then what it is without.
func setLogical(t *typ, v map[string]any) {
	name, _ := v["logicalType"].(string)
	l := logicals[t.kind][name]
	switch {
	case l == logicalDecimal:
		precision, ok := integer(v["precision"])
		scale, scaled := integer(v["scale"])
		if !ok || precision < 1 || (v["scale"] != nil && !scaled) || scale < 0 || scale > precision {
			return
		}
		t.digits = schema.DecimalOf(precision, scale)
	case l == logicalUUID && t.size != 16, l == logicalDuration && t.size != 12:
		return
	}
	t.logical = l
}

// appendBytes appends bytes and fixed.
func appendBytes(dst []byte, t *typ, b []byte) ([]byte, error) {
	switch t.logical {
	case logicalDecimal:
		return appendDecimal(dst, b, t.digits.Scale), nil
	case logicalBigDecimal:
		return appendBigDecimal(dst, b)
	case logicalUUID:
		return rowjson.AppendUUID(dst, b)
	case logicalDuration:
		return appendDuration(dst, b), nil
	default:
		return rowjson.AppendBase64(dst, b), nil
	}
}

// appendDecimal appends a two's complement number, highest byte first, with scale digits behind the point, as a string:
// every digit is kept.
func appendDecimal(dst, b []byte, scale int) []byte {
	dst = append(dst, '"')
	var digits []byte
	var room [24]byte
	negative := len(b) > 0 && b[0] >= 0x80
	if len(b) <= 8 {
		var v int64
		if negative {
			v = -1
		}
		for _, c := range b {
			v = v<<8 | int64(c)
		}
		u := uint64(v)
		if negative {
			u = -u
		}
		digits = strconv.AppendUint(room[:0], u, 10)
	} else {
		v := new(big.Int).SetBytes(b)
		if negative {
			v.Sub(new(big.Int).Lsh(big.NewInt(1), uint(len(b))*8), v)
		}
		digits = v.Append(nil, 10)
	}
	if negative {
		dst = append(dst, '-')
	}
	whole := len(digits) - scale
	if whole <= 0 {
		dst = append(dst, '0')
	} else {
		dst = append(dst, digits[:whole]...)
		digits = digits[whole:]
	}
	if scale > 0 {
		dst = append(dst, '.')
		for range -whole {
			dst = append(dst, '0')
		}
		dst = append(dst, digits...)
	}
	return append(dst, '"')
}

// The scale of a big decimal comes with the value; more digits than this nobody has, and a few bytes could claim any number.
const maxScale = 100_000

// appendBigDecimal appends a decimal that carries its scale: length, number, scale.
func appendBigDecimal(dst, b []byte) ([]byte, error) {
	d := decoder{data: b}
	number, err := d.sized()
	if err != nil {
		return dst, err
	}
	scale, err := d.long()
	if err != nil {
		return dst, err
	}
	if scale < -maxScale || scale > maxScale || d.pos != len(b) {
		return dst, errors.New("a big-decimal in it is none")
	}
	if scale >= 0 {
		return appendDecimal(dst, number, int(scale)), nil
	}
	dst = appendDecimal(dst, number, 0)
	return append(strconv.AppendInt(append(dst[:len(dst)-1], 'e'), -scale, 10), '"'), nil
}

// appendDuration appends months, days and milliseconds, which none can be counted in each other, in the notation of ISO 8601.
func appendDuration(dst, b []byte) []byte {
	part := func(b []byte) uint64 {
		return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24
	}
	months, days, millis := part(b), part(b[4:]), part(b[8:])
	dst = append(dst, '"', 'P')
	dst = append(strconv.AppendUint(dst, months, 10), 'M')
	dst = append(strconv.AppendUint(dst, days, 10), 'D', 'T')
	dst = strconv.AppendUint(dst, millis/1000, 10)
	if m := millis % 1000; m != 0 {
		dst = append(dst, '.', byte('0'+m/100), byte('0'+m/10%10), byte('0'+m%10))
	}
	return append(dst, 'S', '"')
}

const (
	secondsPerDay = 24 * 60 * 60
	// The first and the last second that RFC 3339 can write, since 1970, of the years that destinations take.
	firstSecond = -62135596800 // 0001-01-01T00:00:00Z
	lastSecond  = 253402300799 // 9999-12-31T23:59:59Z
)

// appendTime appends the logical types of numbers. A local time is the same without zone: it is written as if it were UTC, as other
// sources write times without zone.
func (d *decoder) appendTime(dst []byte, t *typ, v int64) ([]byte, error) {
	// Divisors are constants, by which a processor need not divide.
	switch t.logical {
	case logicalDate:
		return d.appendInstant(dst, v*secondsPerDay, 0, -1)
	case logicalTimeMillis:
		return appendTimeOfDay(dst, v, 1e3, 3)
	case logicalTimeMicros:
		return appendTimeOfDay(dst, v, 1e6, 6)
	case logicalMillis, logicalLocalMillis:
		second, part := below(v/1e3, v%1e3, 1e3)
		return d.appendInstant(dst, second, part, 3)
	case logicalMicros, logicalLocalMicros:
		second, part := below(v/1e6, v%1e6, 1e6)
		return d.appendInstant(dst, second, part, 6)
	default:
		second, part := below(v/1e9, v%1e9, 1e9)
		return d.appendInstant(dst, second, part, 9)
	}
}

// below makes of a second and a part of it, which may be negative, the second before and a part that is not.
func below(second, part, perSecond int64) (int64, int64) {
	if part < 0 {
		return second - 1, part + perSecond
	}
	return second, part
}

// appendInstant appends a second since 1970 with a part of it in the given digits, or the day alone if digits is negative.
// Beyond the years that RFC 3339 has, it is the nearest time that it has, or in a key an error.
func (d *decoder) appendInstant(dst []byte, second, part int64, digits int) ([]byte, error) {
	if second < firstSecond || second > lastSecond {
		if d.key {
			return dst, errors.New("a time in it lies beyond the years 1 to 9999, which no key can hold")
		}
		part = 0
		if second < firstSecond {
			second = firstSecond
		} else {
			second = lastSecond
		}
	}
	day, rest := second/secondsPerDay, second%secondsPerDay
	if rest < 0 {
		day--
		rest += secondsPerDay
	}
	dst = appendDay(append(dst, '"'), day)
	if digits >= 0 {
		dst = appendClock(append(dst, 'T'), rest)
		dst = appendPart(dst, part, digits)
		dst = append(dst, 'Z')
	}
	return append(dst, '"'), nil
}

func appendTimeOfDay(dst []byte, v, perSecond int64, digits int) ([]byte, error) {
	if v < 0 || v >= secondsPerDay*perSecond {
		return dst, fmt.Errorf("a time of day in it is %d, which no day has", v)
	}
	dst = appendClock(append(dst, '"'), v/perSecond)
	dst = appendPart(dst, v%perSecond, digits)
	return append(dst, 'Z', '"'), nil
}

// appendDay appends a day since 1970, of the years 1 to 9999, as YYYY-MM-DD. The calendar is counted from a first of March, so that the day
// that some years have more is their last (http://howardhinnant.github.io/date_algorithms.html#civil_from_days).
func appendDay(dst []byte, day int64) []byte {
	const (
		sinceMarch0  = 719468 // days from 0000-03-01 to 1970-01-01
		daysPer400   = 146097
		daysPer100   = 36524
		daysPer4     = 1461
		daysPer5mons = 153 // of months of 31 and 30 days in turns, from March and from August
	)
	z := uint32(day + sinceMarch0) //nolint:gosec // not negative: no year lies before the first
	era, inEra := z/daysPer400, z%daysPer400
	yearOfEra := (inEra - inEra/(daysPer4-1) + inEra/daysPer100 - inEra/(daysPer400-1)) / 365
	inYear := inEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	y, m := era*400+yearOfEra, (5*inYear+2)/daysPer5mons
	d := inYear - (daysPer5mons*m+2)/5 + 1
	if m += 3; m > 12 {
		m -= 12
		y++
	}
	return append(dst, byte('0'+y/1000), byte('0'+y/100%10), byte('0'+y/10%10), byte('0'+y%10), '-',
		byte('0'+m/10), byte('0'+m%10), '-', byte('0'+d/10), byte('0'+d%10))
}

// appendClock appends a second of a day as HH:MM:SS.
func appendClock(dst []byte, second int64) []byte {
	s := uint32(second) //nolint:gosec // of a day
	h, m := s/3600, s/60%60
	s %= 60
	return append(dst, byte('0'+h/10), byte('0'+h%10), ':', byte('0'+m/10), byte('0'+m%10), ':', byte('0'+s/10), byte('0'+s%10))
}

// appendPart appends a part of a second, nothing if it is zero.
func appendPart(dst []byte, part int64, digits int) []byte {
	if part == 0 {
		return dst
	}
	text := [10]byte{'.'}
	rest := uint32(part) //nolint:gosec // less than a thousand million
	for i := digits; i > 0; i-- {
		text[i] = byte('0' + rest%10)
		rest /= 10
	}
	return append(dst, text[:digits+1]...)
}
