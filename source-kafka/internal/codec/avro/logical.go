package avro

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"time"

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

// appendTime appends the logical types of numbers.
func (d *decoder) appendTime(dst []byte, t *typ, v int64) ([]byte, error) {
	switch t.logical {
	case logicalDate:
		return d.appendInstant(dst, v*secondsPerDay, 0, -1)
	case logicalTimeMillis:
		return appendTimeOfDay(dst, v, 1e3, 3)
	case logicalTimeMicros:
		return appendTimeOfDay(dst, v, 1e6, 6)
	case logicalMillis, logicalLocalMillis:
		return d.appendFraction(dst, v, 1e3, 3)
	case logicalMicros, logicalLocalMicros:
		return d.appendFraction(dst, v, 1e6, 6)
	default:
		return d.appendFraction(dst, v, 1e9, 9)
	}
}

// appendFraction appends a time of v parts of a second since 1970. A local one is the same without zone: it is written as
// if it were UTC, as other sources write times without zone.
func (d *decoder) appendFraction(dst []byte, v, perSecond int64, digits int) ([]byte, error) {
	second, part := v/perSecond, v%perSecond
	if part < 0 {
		second--
		part += perSecond
	}
	return d.appendInstant(dst, second, part, digits)
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

// appendDay appends a day since 1970 as YYYY-MM-DD.
func appendDay(dst []byte, day int64) []byte {
	y, m, d := time.Unix(day*secondsPerDay, 0).UTC().Date()
	dst = append(dst, byte('0'+y/1000), byte('0'+y/100%10), byte('0'+y/10%10), byte('0'+y%10), '-')
	return append(dst, byte('0'+int(m)/10), byte('0'+int(m)%10), '-', byte('0'+d/10), byte('0'+d%10))
}

func appendClock(dst []byte, second int64) []byte {
	two := func(dst []byte, v int64) []byte { return append(dst, byte('0'+v/10), byte('0'+v%10)) }
	dst = append(two(dst, second/3600), ':')
	dst = append(two(dst, second/60%60), ':')
	return two(dst, second%60)
}

// appendPart appends a part of a second, nothing if it is zero.
func appendPart(dst []byte, part int64, digits int) []byte {
	if part == 0 {
		return dst
	}
	dst = append(dst, '.')
	at := len(dst) + digits
	for range digits {
		dst = append(dst, '0')
	}
	for i := at - 1; part > 0; i-- {
		dst[i] = byte('0' + part%10)
		part /= 10
	}
	return dst
}
