package main

import (
	"encoding/binary"
	"errors"
	"math"
)

// Signs of a numeric in binary form.
const (
	numericPositive = 0x0000
	numericNegative = 0x4000
	numericNaN      = 0xC000
	numericPosInf   = 0xD000
	numericNegInf   = 0xF000
)

var errNotNumeric = errors.New("it is not a number that numeric can hold")

// appendNumeric appends the length and the binary form of a numeric, given as decimal text: an optional sign, digits
// with or without a point, an optional exponent; or NaN, Infinity, -Infinity.
//
//	i16 number of base-10000 digits │ i16 weight of the first │ u16 sign │ u16 digits after the point │ i16 digits…
func appendNumeric(dst, text []byte) ([]byte, error) {
	switch string(text) {
	case "NaN":
		return appendNumericHeader(dst, numericNaN, 0), nil
	case "Infinity", "+Infinity", "inf":
		return appendNumericHeader(dst, numericPosInf, 0x20), nil
	case "-Infinity", "-inf":
		return appendNumericHeader(dst, numericNegInf, 0x20), nil
	}
	d, err := scanDecimal(text)
	if err != nil {
		return dst, err
	}
	// The first digit's weight is point-1; groups of four digits have weights that are multiples of four.
	weight := floorDiv(d.point-1, 4)
	size := d.point - 4*weight // digits of the first group, one to four
	start := len(dst)
	dst = appendNumericHeader(dst, d.sign, d.scale)
	groups := 0
	for rest := d; rest.count > 0; size = 4 {
		v := 0
		for range size {
			v = v*10 + rest.next()
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(v))
		groups++
	}
	// Zero groups at either end are not part of the normal form.
	for groups > 0 && dst[len(dst)-1] == 0 && dst[len(dst)-2] == 0 {
		dst = dst[:len(dst)-2]
		groups--
	}
	for groups > 0 && dst[start+12] == 0 && dst[start+13] == 0 {
		dst = append(dst[:start+12], dst[start+14:]...)
		groups--
		weight--
	}
	if groups == 0 {
		weight = 0
		if d.sign == numericNegative {
			binary.BigEndian.PutUint16(dst[start+8:], numericPositive)
		}
	}
	if weight > math.MaxInt16 || weight < math.MinInt16 || groups > math.MaxInt16 {
		return dst[:start], errNotNumeric
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(8+2*groups))
	binary.BigEndian.PutUint16(dst[start+4:], uint16(groups))
	binary.BigEndian.PutUint16(dst[start+6:], uint16(int16(weight)))
	return dst, nil
}

// appendNumericHeader appends what comes before the digits, for a number that has none.
func appendNumericHeader(dst []byte, sign uint16, scale int) []byte {
	dst = append(dst, 0, 0, 0, 8, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, sign)
	return binary.BigEndian.AppendUint16(dst, uint16(scale))
}

// decimal is the text of a number, taken apart: its digits without leading zeros, and where its point is.
type decimal struct {
	digits []byte // may contain one point, which next skips
	count  int    // digits left
	point  int    // digits before the decimal point, after the exponent is applied
	scale  int    // digits after it
	sign   uint16
}

// next takes the next digit; beyond the last one there are zeros.
func (d *decimal) next() int {
	if d.count == 0 {
		return 0
	}
	if d.digits[0] == '.' {
		d.digits = d.digits[1:]
	}
	v := int(d.digits[0] - '0')
	d.digits = d.digits[1:]
	d.count--
	return v
}

func scanDecimal(text []byte) (decimal, error) {
	d := decimal{}
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		if text[0] == '-' {
			d.sign = numericNegative
		}
		text = text[1:]
	}
	end, point, digits := 0, -1, 0
	for ; end < len(text); end++ {
		switch c := text[end]; {
		case c >= '0' && c <= '9':
			digits++
		case c == '.' && point < 0:
			point = digits
		default:
			goto exponent
		}
	}
exponent:
	if digits == 0 {
		return d, errNotNumeric
	}
	exp, err := scanExponent(text[end:])
	if err != nil {
		return d, err
	}
	if point < 0 {
		point = digits
	}
	d.digits, d.count = text[:end], digits
	d.point = point + exp
	d.scale = max(0, digits-point-exp)
	if d.scale > 16383 || d.point > 131072 {
		return d, errNotNumeric
	}
	for d.count > 0 {
		skip := d
		if skip.next() != 0 {
			break
		}
		d.digits, d.count = skip.digits, skip.count
		d.point--
	}
	return d, nil
}

func scanExponent(text []byte) (int, error) {
	if len(text) == 0 {
		return 0, nil
	}
	if text[0] != 'e' && text[0] != 'E' {
		return 0, errNotNumeric
	}
	text = text[1:]
	negative := false
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		negative = text[0] == '-'
		text = text[1:]
	}
	if len(text) == 0 || len(text) > 6 {
		return 0, errNotNumeric
	}
	exp := 0
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, errNotNumeric
		}
		exp = exp*10 + int(c-'0')
	}
	if negative {
		exp = -exp
	}
	return exp, nil
}

// sameDecimal says whether two decimal texts are the same number, however many zeros they end with.
func sameDecimal(a, b []byte) bool {
	x, errX := scanDecimal(a)
	y, errY := scanDecimal(b)
	if errX != nil || errY != nil || x.sign != y.sign || (x.count > 0) != (y.count > 0) || (x.count > 0 && x.point != y.point) {
		return false
	}
	for x.count > 0 || y.count > 0 {
		if x.next() != y.next() {
			return false
		}
	}
	return true
}
