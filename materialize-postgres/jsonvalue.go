package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/tuple"
)

func encodeJSONB(dst []byte, e tuple.Element) ([]byte, error) {
	if e.Kind == tuple.Nil {
		return appendNull(dst), nil
	}
	return measured(dst, func(dst []byte) ([]byte, error) {
		return appendStorable(append(dst, 1), e), nil // 1 is the version of the format
	})
}

var errNotJSON = errors.New("it is not JSON, although its media type says so")

// encodeJSONText stores a string that holds JSON, to the letter.
func encodeJSONText(dst []byte, e tuple.Element) ([]byte, error) {
	switch {
	case e.Kind == tuple.Nil:
		return appendNull(dst), nil
	case e.Kind != tuple.String || !json.Valid(e.Bytes):
		return dst, errNotJSON
	default:
		return appendBytes(dst, e.Bytes), nil
	}
}

// encodeJSONBText stores what a string that holds JSON means.
func encodeJSONBText(dst []byte, e tuple.Element) ([]byte, error) {
	switch {
	case e.Kind == tuple.Nil:
		return appendNull(dst), nil
	case e.Kind != tuple.String || !json.Valid(e.Bytes):
		return dst, errNotJSON
	default:
		return encodeJSONB(dst, tuple.Element{Kind: tuple.Bytes, Bytes: e.Bytes})
	}
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
