package parquet

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"strconv"

	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/tuple"
)

var errNotDecimal = errors.New("it is not a number with so few digits before and behind the point")

// number128 is an integer of up to 38 digits, without its sign.
type number128 struct {
	high, low uint64
	negative  bool
}

// decimalOf is a value as a whole number of units of the last digit behind the point.
func decimalOf(e *tuple.Element, digits, scale int) (number128, error) {
	var scratch [32]byte
	var text []byte
	switch e.Kind {
	case tuple.Int:
		text = strconv.AppendInt(scratch[:0], e.Int, 10)
	case tuple.Uint:
		text = strconv.AppendUint(scratch[:0], e.Uint, 10)
	case tuple.Float:
		text = rowjson.AppendFloat(scratch[:0], e.Float, 64)
	case tuple.String:
		text = e.Bytes
	default:
		return number128{}, errNotDecimal
	}
	d, ok := scanDecimal(text)
	// What is behind the last place must be zeros, which scanDecimal has cut off.
	if !ok || d.count-d.point > scale || (d.count > 0 && d.point+scale > digits) {
		return number128{}, errNotDecimal
	}
	return d.shifted(scale), nil
}

func (n number128) long() int64 {
	if n.negative {
		return -int64(n.low)
	}
	return int64(n.low)
}

// appendBytes appends the number as 16 bytes in two's complement, big-endian.
func (n number128) appendBytes(dst []byte) []byte {
	high, low := n.high, n.low
	if n.negative {
		var borrow uint64
		low, borrow = bits.Sub64(0, low, 0)
		high, _ = bits.Sub64(0, high, borrow)
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, high), low)
}

// decimal is the text of a number, taken apart: its digits from the first to the last that is not zero.
type decimal struct {
	text     []byte // begins with the first digit; may contain one point
	count    int    // digits
	point    int    // digits before the decimal point once the exponent is applied; may be negative
	negative bool
}

// shifted is the number times ten to the power of scale, which makes it an integer of at most 38 digits.
func (d decimal) shifted(scale int) number128 {
	n := number128{negative: d.negative && d.count > 0}
	push := func(digit uint64) {
		carry, low := bits.Mul64(n.low, 10)
		_, high := bits.Mul64(n.high, 10)
		var over uint64
		n.low, over = bits.Add64(low, digit, 0)
		n.high = high + carry + over
	}
	left := d.count
	for _, c := range d.text {
		if left == 0 {
			break
		}
		if c != '.' {
			push(uint64(c - '0'))
			left--
		}
	}
	if d.count > 0 {
		for range d.point + scale - d.count {
			push(0)
		}
	}
	return n
}

// scanDecimal takes the text of a number apart: a sign, digits with or without a point, an exponent.
func scanDecimal(text []byte) (decimal, bool) {
	d := decimal{}
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		d.negative = text[0] == '-'
		text = text[1:]
	}
	first, seen, last, point, end := -1, 0, 0, -1, 0 // seen counts digits from the first that is not zero
	digits := 0
	for ; end < len(text); end++ {
		c := text[end]
		if c == '.' && point < 0 {
			point = digits
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		digits++
		if c != '0' && first < 0 {
			first = end
			d.point = -(digits - 1) // leading zeros
		}
		if first >= 0 {
			seen++
			if c != '0' {
				last = seen
			}
		}
	}
	exponent, ok := scanExponent(text[end:])
	if digits == 0 || !ok {
		return d, false
	}
	if point < 0 {
		point = digits
	}
	if first < 0 {
		return decimal{negative: d.negative}, true // zero
	}
	d.text, d.count = text[first:end], last
	d.point += point + exponent
	return d, true
}

func scanExponent(text []byte) (int, bool) {
	if len(text) == 0 {
		return 0, true
	}
	const most = 6
	if text[0] != 'e' && text[0] != 'E' || len(text) == 1 {
		return 0, false
	}
	digits := text[1:]
	if digits[0] == '+' || digits[0] == '-' {
		digits = digits[1:]
	}
	exponent := 0
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		exponent = exponent*10 + int(c-'0')
	}
	if len(digits) == 0 || len(digits) > most {
		return 0, false
	}
	if text[1] == '-' {
		exponent = -exponent
	}
	return exponent, true
}
