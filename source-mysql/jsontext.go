package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

// compactJSON appends JSON that the server printed without the spaces that it puts behind commas and colons.
func compactJSON(dst, v []byte) []byte {
	if len(v) == 0 {
		return rowjson.AppendNull(dst) // INSERT IGNORE leaves nothing where null is not allowed
	}
	from := 0
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '"':
			i = textEnd(v, i)
		case ' ':
			dst = append(dst, v[from:i]...)
			from = i + 1
		}
	}
	return append(dst, v[from:]...)
}

// textEnd is where a text of JSON ends that begins at a quote.
func textEnd(v []byte, i int) int {
	for i++; i < len(v) && v[i] != '"'; i++ {
		if v[i] == '\\' {
			i++ // what it escapes
		}
	}
	return i
}

// The types of values in MySQL's binary JSON,
// https://dev.mysql.com/doc/dev/mysql-server/latest/json__binary_8h.html.
const (
	jsonSmallObject = 0
	jsonLargeObject = 1
	jsonSmallArray  = 2
	jsonLargeArray  = 3
	jsonLiteral     = 4
	jsonInt16       = 5
	jsonUint16      = 6
	jsonInt32       = 7
	jsonUint32      = 8
	jsonInt64       = 9
	jsonUint64      = 10
	jsonDouble      = 11
	jsonString      = 12
	jsonOpaque      = 15
)

// maxJSONDepth is the server's own limit.
const maxJSONDepth = 100

// appendJSONB appends a value of a JSON column of the log as JSON, as the server prints it but without spaces.
func appendJSONB(dst, v []byte) ([]byte, error) {
	if len(v) == 0 {
		return rowjson.AppendNull(dst), nil
	}
	return jsonValue(dst, v[0], v[1:], 0)
}

func errJSON(v []byte) error { return fmt.Errorf("%w: binary JSON %s", errValue, hexText(v)) }

func jsonValue(dst []byte, typ byte, v []byte, depth int) ([]byte, error) {
	size, err := jsonSize(typ, v)
	if err != nil || depth > maxJSONDepth {
		return dst, errJSON(v)
	}
	v = v[:size]
	switch typ {
	case jsonSmallObject, jsonSmallArray, jsonLargeObject, jsonLargeArray:
		return appendJSONContainer(dst, typ, v, depth)
	case jsonLiteral:
		switch v[0] {
		case 0:
			return append(dst, "null"...), nil
		case 1:
			return append(dst, "true"...), nil
		case 2:
			return append(dst, "false"...), nil
		}
	case jsonInt16, jsonInt32, jsonInt64:
		return strconv.AppendInt(dst, signed(v), 10), nil
	case jsonUint16, jsonUint32, jsonUint64:
		return strconv.AppendUint(dst, unsigned(v), 10), nil
	case jsonDouble:
		f := math.Float64frombits(binary.LittleEndian.Uint64(v))
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return dst, errJSON(v)
		}
		return appendJSONDouble(dst, f), nil
	case jsonString:
		text, _, _ := jsonBytes(v)
		return rowjson.AppendString(dst, text), nil
	case jsonOpaque:
		return jsonOpaqueValue(dst, v)
	}
	return dst, errJSON(v)
}

// jsonSize is how many bytes the value at the front of v takes. It is at most len(v).
func jsonSize(typ byte, v []byte) (int, error) {
	size := -1
	switch typ {
	case jsonLiteral:
		size = 1
	case jsonInt16, jsonUint16:
		size = 2
	case jsonInt32, jsonUint32:
		size = 4
	case jsonInt64, jsonUint64, jsonDouble:
		size = 8
	case jsonString:
		if _, end, ok := jsonBytes(v); ok {
			size = end
		}
	case jsonOpaque:
		if len(v) > 0 {
			if _, end, ok := jsonBytes(v[1:]); ok {
				size = 1 + end
			}
		}
	case jsonSmallObject, jsonSmallArray:
		if len(v) >= 4 {
			size = int(binary.LittleEndian.Uint16(v[2:]))
		}
	case jsonLargeObject, jsonLargeArray:
		if len(v) >= 8 {
			size = int(binary.LittleEndian.Uint32(v[4:]))
		}
	}
	if size < 0 || size > len(v) {
		return 0, errJSON(v)
	}
	return size, nil
}

// jsonBytes reads bytes behind their length, seven bits a byte, and gives where they end.
func jsonBytes(v []byte) (text []byte, end int, ok bool) {
	n, size := 0, 0
	for {
		if size >= len(v) || size > 4 {
			return nil, 0, false
		}
		b := v[size]
		n |= int(b&0x7f) << (7 * size)
		size++
		if b&0x80 == 0 {
			break
		}
	}
	if n > len(v)-size {
		return nil, 0, false
	}
	return v[size : size+n], size + n, true
}

// jsonContainer is an object or an array:
//
//	count  size  (key offset, key length)… (type, offset or value)…  keys…  values…
//
// Offsets are from the front, and of the given width; key lengths have two bytes.
type jsonContainer struct {
	v      []byte
	object bool
	width  int
	count  int
	values int // where the list of values begins
}

// parseJSONContainer reads the head of a value of one of the four types of containers.
func parseJSONContainer(typ byte, v []byte) (jsonContainer, error) {
	c := jsonContainer{object: typ == jsonSmallObject || typ == jsonLargeObject, width: 2}
	if typ == jsonLargeObject || typ == jsonLargeArray {
		c.width = 4
	}
	size, err := jsonSize(typ, v)
	if err != nil || size < 2*c.width {
		return c, errJSON(v)
	}
	c.v = v[:size]
	c.count, c.values = c.number(0), 2*c.width
	if c.count > size {
		return c, errJSON(v)
	}
	if c.object {
		c.values += c.count * (c.width + 2)
	}
	if c.values+c.count*(1+c.width) > size {
		return c, errJSON(v)
	}
	return c, nil
}

// number reads a number that is known to be there.
func (c *jsonContainer) number(at int) int {
	return int(unsigned(c.v[at : at+c.width])) //nolint:gosec // four bytes at most
}

// name is that of an object's i-th member.
func (c *jsonContainer) name(i int) ([]byte, error) {
	entry := 2*c.width + i*(c.width+2)
	from := c.number(entry)
	to := from + int(binary.LittleEndian.Uint16(c.v[entry+c.width:]))
	if to > len(c.v) {
		return nil, errJSON(c.v)
	}
	return c.v[from:to], nil
}

// value is the i-th one, and maybe more bytes behind it.
func (c *jsonContainer) value(i int) (typ byte, v []byte, err error) {
	entry := c.values + i*(1+c.width)
	typ = c.v[entry]
	if jsonInline(typ, c.width) {
		return typ, c.v[entry+1 : entry+1+c.width], nil
	}
	at := c.number(entry + 1)
	if at > len(c.v) {
		return typ, nil, errJSON(c.v)
	}
	return typ, c.v[at:], nil
}

func appendJSONContainer(dst []byte, typ byte, v []byte, depth int) ([]byte, error) {
	c, err := parseJSONContainer(typ, v)
	if err != nil {
		return dst, err
	}
	open, end := byte('['), byte(']')
	if c.object {
		open, end = '{', '}'
	}
	dst = append(dst, open)
	for i := range c.count {
		if i > 0 {
			dst = append(dst, ',')
		}
		if c.object {
			name, err := c.name(i)
			if err != nil {
				return dst, err
			}
			dst = append(rowjson.AppendString(dst, name), ':')
		}
		typ, value, err := c.value(i)
		if err != nil {
			return dst, err
		}
		if dst, err = jsonValue(dst, typ, value, depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, end), nil
}

// jsonInline tells the values that stand in the place of an offset.
func jsonInline(typ byte, width int) bool {
	switch typ {
	case jsonLiteral, jsonInt16, jsonUint16:
		return true
	case jsonInt32, jsonUint32:
		return width == 4
	default:
		return false
	}
}

// The server's types of values that JSON does not have.
const (
	opaqueTimestamp = 7
	opaqueDate      = 10
	opaqueTime      = 11
	opaqueDatetime  = 12
	opaqueDecimal   = 246
)

func jsonOpaqueValue(dst, v []byte) ([]byte, error) {
	if len(v) == 0 {
		return dst, errJSON(v)
	}
	typ := v[0]
	data, _, ok := jsonBytes(v[1:])
	if !ok {
		return dst, errJSON(v)
	}
	switch typ {
	case opaqueDecimal:
		if len(data) < 3 {
			return dst, errJSON(v)
		}
		precision, scale := int(data[0]), int(data[1])
		if scale > precision || precision > 81 || decimalSize(precision, scale) > len(data)-2 {
			return dst, errJSON(v)
		}
		return appendDecimal(dst, data[2:], precision, scale), nil
	case opaqueDate, opaqueTime, opaqueDatetime, opaqueTimestamp:
		if len(data) != 8 {
			return dst, errJSON(v)
		}
		return jsonTemporal(dst, typ, int64(binary.LittleEndian.Uint64(data))), nil //nolint:gosec // the sign is meant
	}
	dst = append(append(append(dst, `"base64:type`...), strconv.Itoa(int(typ))...), ':')
	return append(base64.StdEncoding.AppendEncode(dst, data), '"'), nil
}

func decimalSize(precision, scale int) int {
	whole := precision - scale
	return whole/9*4 + digitBytes[whole%9] + scale/9*4 + digitBytes[scale%9]
}

// jsonTemporal appends a temporal value as the server packs it in memory: as in the log, with six digits of a second.
func jsonTemporal(dst []byte, typ byte, n int64) []byte {
	dst = append(dst, '"')
	if typ == opaqueTime {
		if n < 0 {
			dst, n = append(dst, '-'), -n
		}
		dst = padded(dst, int(n>>36&0x3ff), 2)
		dst = padded(append(dst, ':'), int(n>>30&63), 2)
		dst = padded(append(dst, ':'), int(n>>24&63), 2)
		return append(appendFraction(dst, int(n&(1<<24-1)), 6), '"')
	}
	whole := n >> 24
	ym := int(whole >> 22 & 0x1ffff)
	m := moment{
		year: ym / 13, month: ym % 13, day: int(whole >> 17 & 31), hour: int(whole >> 12 & 31), minute: int(whole >> 6 & 63), second: int(whole & 63),
		micro: int(n & (1<<24 - 1)),
	}
	c := codec{typ: &columnType{kind: kindDatetime, scale: 6}}
	if typ == opaqueDate {
		c.typ.kind = kindDate
	}
	return append(c.appendMoment(dst, m, ' '), '"')
}

// appendJSONDouble appends a double as the server prints those of JSON: the fewest digits, with an exponent beyond fifteen places,
// and so that it is never taken for an integer.
func appendJSONDouble(dst []byte, f float64) []byte {
	e := strconv.AppendFloat(nil, f, 'e', -1, 64)
	mantissa, digits, _ := bytes.Cut(e, []byte{'e'})
	exponent, err := strconv.Atoi(string(digits))
	if err == nil && f != 0 && (exponent+1 > 15 || exponent+1 < -14) {
		return strconv.AppendInt(append(append(dst, mantissa...), 'e'), int64(exponent), 10)
	}
	text := strconv.AppendFloat(e[:0], f, 'f', -1, 64)
	dst = append(dst, text...)
	if bytes.IndexByte(text, '.') < 0 {
		dst = append(dst, '.', '0')
	}
	return dst
}
