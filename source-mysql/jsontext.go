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
	text, from := false, 0
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '"':
			text = !text
		case text && c == '\\':
			i++ // what it escapes
		case c == ' ' && !text:
			dst = append(dst, v[from:i]...)
			from = i + 1
		}
	}
	return append(dst, v[from:]...)
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
	if depth > maxJSONDepth {
		return dst, errJSON(v)
	}
	sizes := [...]int{jsonLiteral: 1, jsonInt16: 2, jsonUint16: 2, jsonInt32: 4, jsonUint32: 4, jsonInt64: 8, jsonUint64: 8, jsonDouble: 8}
	if int(typ) < len(sizes) {
		if len(v) < sizes[typ] {
			return dst, errJSON(v)
		}
		if n := sizes[typ]; n > 0 {
			v = v[:n]
		}
	}
	switch typ {
	case jsonSmallObject, jsonSmallArray:
		return jsonContainer(dst, typ == jsonSmallObject, 2, v, depth)
	case jsonLargeObject, jsonLargeArray:
		return jsonContainer(dst, typ == jsonLargeObject, 4, v, depth)
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
		text, ok := jsonBytes(v)
		if ok {
			return rowjson.AppendString(dst, text), nil
		}
	case jsonOpaque:
		return jsonOpaqueValue(dst, v)
	}
	return dst, errJSON(v)
}

// jsonBytes reads bytes behind their length, seven bits a byte.
func jsonBytes(v []byte) ([]byte, bool) {
	n, size := 0, 0
	for {
		if size >= len(v) || size > 4 {
			return nil, false
		}
		b := v[size]
		n |= int(b&0x7f) << (7 * size)
		size++
		if b&0x80 == 0 {
			break
		}
	}
	if n > len(v)-size {
		return nil, false
	}
	return v[size : size+n], true
}

// jsonContainer appends an object or an array:
//
//	count  size  (key offset, key length)… (type, offset or value)…  keys…  values…
//
// Offsets are from the front, and of the given width; key lengths have two bytes.
func jsonContainer(dst []byte, object bool, width int, v []byte, depth int) ([]byte, error) {
	read := func(at int) int {
		if at < 0 || at+width > len(v) {
			return -1
		}
		return int(unsigned(v[at : at+width])) //nolint:gosec // four bytes at most
	}
	count, size := read(0), read(width)
	if count < 0 || size < 0 || size > len(v) || count > size {
		return dst, errJSON(v)
	}
	v = v[:size]
	at := 2 * width
	keys := at
	if object {
		at += count * (width + 2)
	}
	open, end := byte('['), byte(']')
	if object {
		open, end = '{', '}'
	}
	dst = append(dst, open)
	for i := range count {
		if i > 0 {
			dst = append(dst, ',')
		}
		if object {
			entry := keys + i*(width+2)
			from := read(entry)
			if from < 0 || entry+width+2 > len(v) {
				return dst, errJSON(v)
			}
			to := from + int(binary.LittleEndian.Uint16(v[entry+width:]))
			if to > len(v) {
				return dst, errJSON(v)
			}
			dst = append(rowjson.AppendString(dst, v[from:to]), ':')
		}
		entry := at + i*(width+1)
		if entry+1+width > len(v) {
			return dst, errJSON(v)
		}
		typ := v[entry]
		value := v[entry+1 : entry+1+width]
		if !jsonInline(typ, width) {
			offset := read(entry + 1)
			if offset < 0 || offset > len(v) {
				return dst, errJSON(v)
			}
			value = v[offset:]
		}
		var err error
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
	data, ok := jsonBytes(v[1:])
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
