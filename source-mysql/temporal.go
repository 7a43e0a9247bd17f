package main

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// moment is a date, or a date with a time, which need not exist.
type moment struct {
	year, month, day, hour, minute, second, micro int
}

func (m moment) exists() bool {
	return m.month >= 1 && m.month <= 12 && m.day >= 1 && (m.day <= 28 || m.day <= daysIn(m.year, m.month))
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// nearest is the nearest moment that exists: the first one of what is not said.
func (m moment) nearest() moment {
	if m.year == 0 && m.month == 0 && m.day == 0 {
		return moment{year: 1, month: 1, day: 1, hour: m.hour, minute: m.minute, second: m.second, micro: m.micro}
	}
	m.month = min(max(m.month, 1), 12)
	m.day = min(max(m.day, 1), daysIn(m.year, m.month))
	return m
}

// parseMoment reads what the server prints: 2024-01-02, with 03:04:05 and a fraction or without.
func parseMoment(v []byte) (moment, error) {
	var m moment
	if len(v) < 10 || v[4] != '-' || v[7] != '-' {
		return m, fmt.Errorf("%w: date %q", errValue, v)
	}
	m.year, m.month, m.day = digits(v[:4]), digits(v[5:7]), digits(v[8:10])
	if len(v) == 10 {
		return m, nil
	}
	if len(v) < 19 {
		return m, fmt.Errorf("%w: date %q", errValue, v)
	}
	m.hour, m.minute, m.second = digits(v[11:13]), digits(v[14:16]), digits(v[17:19])
	if len(v) > 20 {
		fraction := v[20:]
		m.micro = digits(fraction)
		for range 6 - len(fraction) {
			m.micro *= 10
		}
	}
	return m, nil
}

// scannedMoment is the encoder of what the server prints. Mostly that has all the digits that are wanted.
func (c *codec) scannedMoment() encoder {
	asPrinted, width := c.zero != zeroText && (c.typ.kind != kindDatetime || c.location == time.UTC), 19
	switch {
	case c.typ.kind == kindDate:
		width = 10
	case c.typ.scale > 0:
		width += 1 + c.typ.scale
	}
	return func(dst, v []byte) ([]byte, error) {
		m, err := parseMoment(v)
		if err != nil {
			return dst, err
		}
		if !asPrinted || len(v) != width || !m.exists() {
			return c.moment(dst, m)
		}
		dst = append(append(dst, '"'), v[:10]...)
		if width > 10 {
			dst = append(append(append(dst, 'T'), v[11:]...), 'Z')
		}
		return append(dst, '"'), nil
	}
}

func digits(v []byte) int {
	n := 0
	for _, c := range v {
		n = n*10 + int(c-'0')
	}
	return n
}

// momentOf reads what the log has.
func (c *codec) momentOf(v []byte) moment {
	switch c.typ.kind {
	case kindDate:
		n := int(v[0]) | int(v[1])<<8 | int(v[2])<<16
		return moment{year: n >> 9, month: n >> 5 & 15, day: n & 31}
	case kindTimestamp:
		seconds, micro := int64(binary.BigEndian.Uint32(v)), fraction(v[4:])
		if seconds == 0 && micro == 0 {
			return moment{}
		}
		t := time.Unix(seconds, 0).UTC()
		return moment{t.Year(), int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second(), micro}
	default:
		// One bit for the sign, 17 for year*13+month, 5 day, 5 hour, 6 minute, 6 second.
		n := int64(v[0])<<32 | int64(binary.BigEndian.Uint32(v[1:]))
		n -= 1 << 39
		ym := int(n >> 22 & 0x1ffff)
		return moment{
			year: ym / 13, month: ym % 13, day: int(n >> 17 & 31), hour: int(n >> 12 & 31), minute: int(n >> 6 & 63), second: int(n & 63),
			micro: fraction(v[5:]),
		}
	}
}

// fraction reads the microseconds behind the seconds: hundredths in one byte, and so on.
func fraction(v []byte) int {
	switch len(v) {
	case 1:
		return int(v[0]) * 10000
	case 2:
		return int(binary.BigEndian.Uint16(v)) * 100
	case 3:
		return int(v[0])<<16 | int(v[1])<<8 | int(v[2])
	default:
		return 0
	}
}

// moment appends a date, or a date with a time: in UTC as RFC 3339 has it, or as the server prints it.
func (c *codec) moment(dst []byte, m moment) ([]byte, error) {
	if c.zero == zeroText {
		return append(c.appendMoment(append(dst, '"'), m, ' '), '"'), nil
	}
	if !m.exists() {
		switch {
		case c.asKey:
			return dst, usererr.New(errValue, "A row has %s in a column of its key. There is no such date, and the nearest one may be another row's key. "+
				"Set advanced.zeroDates to text, so that dates are kept as the server prints them, and discover again.", c.appendMoment(nil, m, ' '))
		case c.zero == zeroNull:
			return append(dst, "null"...), nil
		}
		m = m.nearest()
	}
	dst = append(dst, '"')
	if c.typ.kind == kindDate {
		return append(c.appendMoment(dst, m, 'T'), '"'), nil
	}
	if c.typ.kind == kindDatetime && c.location != time.UTC {
		t := time.Date(m.year, time.Month(m.month), m.day, m.hour, m.minute, m.second, 0, c.location).UTC()
		if t.Year() >= 0 && t.Year() <= 9999 {
			m = moment{t.Year(), int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second(), m.micro}
		}
	}
	return append(c.appendMoment(dst, m, 'T'), 'Z', '"'), nil
}

// appendMoment appends a moment with as many digits of a second as the column has.
func (c *codec) appendMoment(dst []byte, m moment, separator byte) []byte {
	dst = padded(dst, m.year, 4)
	dst = padded(append(dst, '-'), m.month, 2)
	dst = padded(append(dst, '-'), m.day, 2)
	if c.typ.kind == kindDate {
		return dst
	}
	dst = padded(append(dst, separator), m.hour, 2)
	dst = padded(append(dst, ':'), m.minute, 2)
	dst = padded(append(dst, ':'), m.second, 2)
	return appendFraction(dst, m.micro, c.typ.scale)
}

// padded appends a number with at least so many digits.
func padded(dst []byte, n, width int) []byte {
	if width == 2 && n < 100 { // as mostly
		return append(dst, byte('0'+n/10), byte('0'+n%10))
	}
	if n >= pow10[width] {
		return strconv.AppendInt(dst, int64(n), 10)
	}
	end := len(dst) + width
	dst = append(dst, "000000"[:width]...)
	for i := end - 1; n > 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

var pow10 = [...]int{1, 10, 100, 1000, 10000, 100000, 1000000} //nolint:gochecknoglobals // a table

// appendFraction appends the digits of microseconds that the column has.
func appendFraction(dst []byte, micro, scale int) []byte {
	if scale == 0 {
		return dst
	}
	dst = padded(append(dst, '.'), micro, 6)
	return dst[:len(dst)-6+min(scale, 6)]
}

// appendTime appends a time of the log as the server prints it. It is stored with an offset, so that it sorts as bytes: one bit
// for the sign, one that is not used, 10 for hours, 6 minutes, 6 seconds, and the fraction; as one number.
func appendTime(dst, v []byte, scale int) []byte {
	whole := len(v) - 3
	n := int64(0)
	for _, b := range v {
		n = n<<8 | int64(b)
	}
	n -= 1 << (8*len(v) - 1)
	if n < 0 {
		dst = append(dst, '-')
		n = -n
	}
	units := n & (1<<(8*whole) - 1)
	n >>= 8 * whole
	dst = padded(dst, int(n>>12&0x3ff), 2)
	dst = padded(append(dst, ':'), int(n>>6&63), 2)
	dst = padded(append(dst, ':'), int(n&63), 2)
	micro := int(units)
	switch whole {
	case 1:
		micro *= 10000
	case 2:
		micro *= 100
	}
	return appendFraction(dst, micro, scale)
}
