package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// An encoder appends one value in the form of binary COPY: its length in four bytes, then its bytes. Null is the
// length -1. It must leave dst as it was if it fails.
type encoder func(dst []byte, e tuple.Element) ([]byte, error)

var (
	errNotInteger = errors.New("it is not an integer between -9223372036854775808 and 9223372036854775807")
	errNotBoolean = errors.New("it is not a boolean")
	errNotFloat   = errors.New("it is not a number")
	errNotUUID    = errors.New("it is not a UUID")
	errNotBase64  = errors.New("it is not base64")
	errNulInKey   = errors.New("it contains a NUL character, which Postgres cannot store in a text")
	errInexactKey = errors.New("it is finer than a microsecond, so that two keys could become one")
)

// encoderOf returns the encoder of a kind. Values of keys must be kept to the letter, so key encoders refuse what others
// would adapt.
func encoderOf(k kind, key bool) encoder {
	if key {
		switch k {
		case kindText:
			return encodeTextKey
		case kindTimestamptz:
			return encodeTimestampKey
		default:
		}
	}
	return [...]encoder{
		kindText:        encodeText,
		kindBool:        encodeBool,
		kindInt8:        encodeInt8,
		kindFloat8:      encodeFloat8,
		kindNumeric:     encodeNumeric,
		kindDate:        encodeDate,
		kindTimestamptz: encodeTimestamp,
		kindUUID:        encodeUUID,
		kindBytea:       encodeBytea,
		kindJSONB:       encodeJSONB,
		kindJSON:        encodeJSON,
	}[k]
}

func appendNull(dst []byte) []byte { return append(dst, 0xff, 0xff, 0xff, 0xff) }

// appendBytes appends a length and bytes.
func appendBytes(dst, b []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(b)))
	return append(dst, b...)
}

// measured fills in the length of what f appends.
func measured(dst []byte, f func([]byte) ([]byte, error)) ([]byte, error) {
	start := len(dst)
	out, err := f(append(dst, 0, 0, 0, 0))
	if err != nil {
		return dst[:start], err
	}
	binary.BigEndian.PutUint32(out[start:], uint32(len(out)-start-4))
	return out, nil
}

func encodeBool(dst []byte, e tuple.Element) ([]byte, error) {
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), nil
	case tuple.Bool:
		if e.Bool {
			return append(dst, 0, 0, 0, 1, 1), nil
		}
		return append(dst, 0, 0, 0, 1, 0), nil
	default:
		return dst, errNotBoolean
	}
}

func appendInt8(dst []byte, v int64) []byte {
	dst = append(dst, 0, 0, 0, 8)
	return binary.BigEndian.AppendUint64(dst, uint64(v))
}

func encodeInt8(dst []byte, e tuple.Element) ([]byte, error) {
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), nil
	case tuple.Int:
		return appendInt8(dst, e.Int), nil
	case tuple.Float:
		// JSON does not tell 1 from 1.0.
		if e.Float == math.Trunc(e.Float) && e.Float >= -(1<<63) && e.Float < 1<<63 {
			return appendInt8(dst, int64(e.Float)), nil
		}
	case tuple.String:
		if v, err := strconv.ParseInt(string(e.Bytes), 10, 64); err == nil {
			return appendInt8(dst, v), nil
		}
	default:
	}
	return dst, errNotInteger
}

func encodeFloat8(dst []byte, e tuple.Element) ([]byte, error) {
	v := e.Float
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), nil
	case tuple.Float:
	case tuple.Int:
		v = float64(e.Int)
	case tuple.Uint:
		v = float64(e.Uint)
	case tuple.String:
		var err error
		if v, err = strconv.ParseFloat(string(e.Bytes), 64); err != nil {
			return dst, errNotFloat
		}
	default:
		return dst, errNotFloat
	}
	dst = append(dst, 0, 0, 0, 8)
	return binary.BigEndian.AppendUint64(dst, math.Float64bits(v)), nil
}

func encodeNumeric(dst []byte, e tuple.Element) ([]byte, error) {
	var scratch [32]byte
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), nil
	case tuple.Int:
		return appendNumeric(dst, strconv.AppendInt(scratch[:0], e.Int, 10))
	case tuple.Uint:
		return appendNumeric(dst, strconv.AppendUint(scratch[:0], e.Uint, 10))
	case tuple.Float:
		return appendNumeric(dst, rowjson.AppendFloat(scratch[:0], e.Float, 64))
	case tuple.String:
		return appendNumeric(dst, e.Bytes)
	default:
		return dst, errNotNumeric
	}
}

// encodeText stores strings as they are, other values as their JSON text. Postgres has no text with a NUL character: in
// values it becomes U+FFFD, the sign for what cannot be shown.
func encodeText(dst []byte, e tuple.Element) ([]byte, error) {
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), nil
	case tuple.String:
		if bytes.IndexByte(e.Bytes, 0) < 0 {
			return appendBytes(dst, e.Bytes), nil
		}
		return appendBytes(dst, bytes.ReplaceAll(e.Bytes, []byte{0}, []byte("\uFFFD"))), nil
	default:
		return measured(dst, func(dst []byte) ([]byte, error) { return appendJSONValue(dst, e), nil })
	}
}

// encodeTextKey refuses what encodeText would replace: two keys must never become one.
func encodeTextKey(dst []byte, e tuple.Element) ([]byte, error) {
	if e.Kind == tuple.String && bytes.IndexByte(e.Bytes, 0) >= 0 {
		return dst, errNulInKey
	}
	return encodeText(dst, e)
}

func encodeJSONB(dst []byte, e tuple.Element) ([]byte, error) {
	if e.Kind == tuple.Nil {
		return appendNull(dst), nil
	}
	return measured(dst, func(dst []byte) ([]byte, error) {
		return appendStorable(append(dst, 1), e), nil // 1 is the version of the format
	})
}

func encodeJSON(dst []byte, e tuple.Element) ([]byte, error) {
	if e.Kind == tuple.Nil {
		return appendNull(dst), nil
	}
	return measured(dst, func(dst []byte) ([]byte, error) { return appendJSONValue(dst, e), nil })
}

// appendJSONValue appends an element as JSON. Arrays and objects are elements of kind Bytes that hold it already.
func appendJSONValue(dst []byte, e tuple.Element) []byte {
	switch e.Kind {
	case tuple.Bytes:
		return append(dst, e.Bytes...)
	case tuple.String:
		return rowjson.AppendString(dst, e.Bytes)
	case tuple.Int:
		return rowjson.AppendInt(dst, e.Int)
	case tuple.Uint:
		return rowjson.AppendUint(dst, e.Uint)
	case tuple.Float:
		return rowjson.AppendFloat(dst, e.Float, 64)
	case tuple.Bool:
		return rowjson.AppendBool(dst, e.Bool)
	default:
		return rowjson.AppendNull(dst)
	}
}

// appendStorable is appendJSONValue for jsonb, which has neither NUL characters nor halves of surrogate pairs: their
// escapes become that of U+FFFD.
func appendStorable(dst []byte, e tuple.Element) []byte {
	start := len(dst)
	dst = appendJSONValue(dst, e)
	text := dst[start:]
	for i := bytes.Index(text, []byte(`\u`)); i >= 0; {
		if precedingBackslashes(text, i)%2 == 0 {
			i += replaceEscape(text[i:])
		} else {
			i += 2
		}
		next := bytes.Index(text[i:], []byte(`\u`))
		if next < 0 {
			break
		}
		i += next
	}
	return dst
}

func precedingBackslashes(text []byte, i int) int {
	n := 0
	for n < i && text[i-n-1] == '\\' {
		n++
	}
	return n
}

// replaceEscape looks at the escape \uXXXX at the start of s, overwrites it if jsonb would refuse it, and says how many
// bytes it spans. A pair of surrogates is one escape of twelve bytes.
func replaceEscape(s []byte) int {
	unit, ok := codeUnit(s)
	switch {
	case !ok:
		return 2
	case unit == 0:
		copy(s, `\ufffd`)
	case unit >= 0xD800 && unit < 0xDC00:
		if low, ok := codeUnit(s[6:]); ok && low >= 0xDC00 && low < 0xE000 {
			return 12
		}
		copy(s, `\ufffd`)
	case unit >= 0xDC00 && unit < 0xE000:
		copy(s, `\ufffd`)
	}
	return 6
}

func codeUnit(s []byte) (uint16, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	return uint16(v), err == nil
}

func encodeBytea(dst []byte, e tuple.Element) ([]byte, error) {
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), nil
	case tuple.String:
		return measured(dst, func(dst []byte) ([]byte, error) {
			out, err := base64.StdEncoding.AppendDecode(dst, e.Bytes)
			if err != nil {
				return dst, errNotBase64
			}
			return out, nil
		})
	default:
		return dst, errNotBase64
	}
}

func encodeUUID(dst []byte, e tuple.Element) ([]byte, error) {
	if e.Kind == tuple.Nil {
		return appendNull(dst), nil
	}
	s := e.Bytes
	if e.Kind != tuple.String || len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return dst, errNotUUID
	}
	start := len(dst)
	dst = append(dst, 0, 0, 0, 16)
	for _, part := range [...][]byte{s[:8], s[9:13], s[14:18], s[19:23], s[24:]} {
		var err error
		if dst, err = hex.AppendDecode(dst, part); err != nil {
			return dst[:start], errNotUUID
		}
	}
	return dst, nil
}

func encodeDate(dst []byte, e tuple.Element) ([]byte, error) {
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), nil
	case tuple.String:
		days, err := parseDate(e.Bytes)
		if err != nil {
			return dst, err
		}
		return binary.BigEndian.AppendUint32(append(dst, 0, 0, 0, 4), uint32(days)), nil
	default:
		return dst, errNotDate
	}
}

func encodeTimestamp(dst []byte, e tuple.Element) ([]byte, error) {
	dst, _, err := appendStamp(dst, e)
	return dst, err
}

func encodeTimestampKey(dst []byte, e tuple.Element) ([]byte, error) {
	out, exact, err := appendStamp(dst, e)
	if err == nil && !exact {
		return dst, errInexactKey
	}
	return out, err
}

func appendStamp(dst []byte, e tuple.Element) ([]byte, bool, error) {
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), true, nil
	case tuple.String:
		micros, exact, err := parseTimestamp(e.Bytes)
		if err != nil {
			return dst, false, err
		}
		return appendInt8(dst, micros), exact, nil
	default:
		return dst, false, errNotTime
	}
}

// describe shows a value in a message, cut if it is long.
func describe(e tuple.Element) string {
	text := string(appendJSONValue(nil, e))
	if len(text) > 60 {
		text = text[:60] + "…"
	}
	return text
}

// describeKey shows a row's key, for finding it.
func describeKey(key []tuple.Element) string {
	parts := make([]string, len(key))
	for i := range key {
		parts[i] = describe(key[i])
	}
	return "[" + strings.Join(parts, ", ") + "]"
}
