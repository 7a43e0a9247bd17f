package parquet

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math"
	"strconv"

	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/tuple"
)

var (
	errNull      = errors.New("it is null or absent, although the collection's schema says that it never is")
	errNotBool   = errors.New("it is not a boolean")
	errNotInt    = errors.New("it is not an integer between -9223372036854775808 and 9223372036854775807")
	errNotDouble = errors.New("it is not a number that a double holds")
	errNotUUID   = errors.New("it is not a UUID")
	errNotBase64 = errors.New("it is not base64")
	errNotString = errors.New("it is not a string")
	errNotList   = errors.New("it is not an array")
)

// longOf encodes a value of a kind that is kept as an integer.
func longOf(c *column, k kind, e *tuple.Element) (int64, error) {
	switch k {
	case kindBool:
		if e.Kind != tuple.Bool {
			return 0, errNotBool
		}
		if e.Bool {
			return 1, nil
		}
		return 0, nil
	case kindInt:
		return integer(e)
	case kindDouble:
		v, err := double(e)
		return int64(math.Float64bits(v)), err
	case kindDecimal:
		v, err := decimalOf(e, c.digits, c.scale)
		return v.long(), err
	default:
	}
	if e.Kind != tuple.String {
		return 0, errNotString
	}
	switch k {
	case kindDate:
		return parseDate(e.Bytes)
	case kindTime:
		return parseTime(e.Bytes)
	default:
		return parseTimestamp(e.Bytes)
	}
}

// appendBytesOf encodes a value of a kind that is kept as bytes. On an error dst may hold a part of it.
func appendBytesOf(dst []byte, c *column, k kind, e *tuple.Element) ([]byte, error) {
	switch k {
	case kindString, kindText:
		if e.Kind == tuple.String {
			return append(dst, e.Bytes...), nil
		}
		if k == kindString {
			return dst, errNotString
		}
		return appendJSON(dst, e), nil
	case kindJSON:
		return appendJSON(dst, e), nil
	case kindDecimal:
		v, err := decimalOf(e, c.digits, c.scale)
		return v.appendBytes(dst), err
	default:
	}
	if e.Kind != tuple.String {
		return dst, errNotString
	}
	switch k {
	case kindUUID:
		return appendUUID(dst, e.Bytes)
	case kindBinary:
		out, err := base64.StdEncoding.AppendDecode(dst, e.Bytes)
		if err != nil {
			return dst, errNotBase64
		}
		return out, nil
	default: // kindJSONText
		return append(dst, e.Bytes...), nil
	}
}

func integer(e *tuple.Element) (int64, error) {
	switch e.Kind {
	case tuple.Int:
		return e.Int, nil
	case tuple.Float: // JSON does not tell 1 from 1.0
		if e.Float == math.Trunc(e.Float) && e.Float >= -(1<<63) && e.Float < 1<<63 {
			return int64(e.Float), nil
		}
	default:
	}
	return 0, errNotInt
}

// double is for numbers and for what JSON has no number for. A text with more digits than a double keeps is refused rather
// than rounded.
func double(e *tuple.Element) (float64, error) {
	switch e.Kind {
	case tuple.Float:
		return e.Float, nil
	case tuple.Int:
		if v := float64(e.Int); int64(v) == e.Int && v < 1<<63 {
			return v, nil
		}
	case tuple.Uint:
		if v := float64(e.Uint); v < 1<<64 && uint64(v) == e.Uint {
			return v, nil
		}
	case tuple.String:
		switch string(e.Bytes) {
		case "NaN":
			return math.NaN(), nil
		case "Infinity":
			return math.Inf(1), nil
		case "-Infinity":
			return math.Inf(-1), nil
		}
		const exactly = 17
		d, ok := scanDecimal(e.Bytes)
		if !ok || d.count > exactly {
			return 0, errNotDouble
		}
		if v, err := strconv.ParseFloat(string(e.Bytes), 64); err == nil && (v != 0 || d.count == 0) {
			return v, nil
		}
	default:
	}
	return 0, errNotDouble
}

func appendUUID(dst, s []byte) ([]byte, error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return dst, errNotUUID
	}
	for _, part := range [...][]byte{s[:8], s[9:13], s[14:18], s[19:23], s[24:]} {
		var err error
		if dst, err = hex.AppendDecode(dst, part); err != nil {
			return dst, errNotUUID
		}
	}
	return dst, nil
}

// appendJSON appends an element as JSON. Arrays and objects are elements of kind Bytes that hold it already.
func appendJSON(dst []byte, e *tuple.Element) []byte {
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

// describe shows a value in a message, cut if it is long.
func describe(e *tuple.Element) string {
	const enough = 60
	text := string(appendJSON(nil, e))
	if len(text) > enough {
		text = text[:enough] + "…"
	}
	return text
}

func floatOf(bits int64) float64 { return math.Float64frombits(uint64(bits)) }
