package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/rowjson"
)

// An encoder appends one value as JSON. The stream gives every value as text; a scan gives some types in binary, where
// that is cheaper for the server. Both must append the same bytes for the same value: TestTypesThroughBothPaths.
type encoder = rowjson.Encoder[[]byte]

var errValue = errors.New("not a value of the column's type")

// Result formats of the extended protocol.
const (
	formatText   int16 = 0
	formatBinary int16 = 1
)

// textEncoder is the encoder of what the server prints for the type. A nil value is SQL's null.
//
// In a key every value must be its own: two rows that became one document would be one row lost. So there a value is the
// server's text where JSON's form could be shared (arrays, JSON values, floats), and a time that is beyond RFC 3339 is
// refused rather than replaced by the nearest one.
func (t *dataType) textEncoder(asKey bool) encoder {
	edge := nearest
	switch {
	case t.exact:
		edge = asPrinted
	case asKey:
		edge = refused
	}
	switch t.kind {
	case kindChar:
		return appendChar
	case kindBool:
		return appendBoolText
	case kindInt:
		return appendRaw
	case kindNumeric, kindUUID:
		return appendQuoted
	case kindFloat:
		if asKey {
			return appendQuoted
		}
		return appendFloatText
	case kindBytea:
		return appendByteaText
	case kindDate:
		return dateEncoder(edge)
	case kindTimestamp, kindTimestamptz:
		return timestampEncoder(edge)
	case kindTime:
		return timeEncoder(edge)
	case kindTimetz:
		return timetzEncoder(edge)
	case kindJSON, kindJSONB, kindArray:
		return t.nestedEncoder(asKey)
	default:
		return appendText
	}
}

// nestedEncoder is the textEncoder of types whose JSON is more than one value.
func (t *dataType) nestedEncoder(asKey bool) encoder {
	switch {
	case asKey, t.exact && t.kind != kindArray:
		return appendText
	case t.kind == kindJSON:
		return appendJSON
	case t.kind == kindJSONB:
		return appendRaw
	default:
		return newArrayPlan(t).append
	}
}

// scanEncoder is the format in which a scan asks for the type's values, and their encoder.
//
// Binary where printing costs the server more than the few bytes it saves: timestamps, dates, UUIDs and bytea. Integers
// cost about the same either way, and numeric, json and text are printed anyway. What may have to be kept as printed, and
// keys, which come back to the server in queries, are read as text.
func (t *dataType) scanEncoder(asKey bool) (format int16, enc encoder) {
	if enc := t.binaryEncoder(); enc != nil && (t.kind == kindInt || !asKey) && !t.exact {
		return formatBinary, enc
	}
	return formatText, t.textEncoder(asKey)
}

// binaryEncoder is the encoder of the type's binary form, nil if that is not asked for.
func (t *dataType) binaryEncoder() encoder {
	switch t.kind {
	case kindInt:
		switch t.bytes {
		case 2:
			return appendInt2
		case 4:
			return appendInt4
		case 8:
			return appendInt8
		}
	case kindUUID:
		return appendUUID
	case kindBytea:
		return appendBytea
	case kindTimestamp, kindTimestamptz:
		return appendTimestamp
	case kindDate:
		return appendDate
	default:
	}
	return nil
}

func appendNull(dst []byte) []byte { return append(dst, "null"...) }

// appendJSON appends a json value, which keeps its author's white space, on one line and without halves of characters.
func appendJSON(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	return jsonscan.AppendLine(dst, v), nil
}

func appendText(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	return rowjson.AppendString(dst, v), nil
}

// appendRaw is for values that are JSON as they are.
func appendRaw(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	return append(dst, v...), nil
}

// appendQuoted is for values that never need escaping.
func appendQuoted(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	dst = append(dst, '"')
	dst = append(dst, v...)
	return append(dst, '"'), nil
}

// appendChar is for the type "char", a single byte. Servers before version 16 send one that is not ASCII as it is, though
// no text may hold it; later ones, and we, write it as a backslash and three octal digits.
func appendChar(dst, v []byte) ([]byte, error) {
	if len(v) == 1 && v[0] >= 0x80 {
		return append(dst, '"', '\\', '\\', digit(int(v[0]>>6)), digit(int(v[0]>>3&7)), digit(int(v[0]&7)), '"'), nil
	}
	return appendText(dst, v)
}

func appendBoolText(dst, v []byte) ([]byte, error) {
	switch {
	case v == nil:
		return appendNull(dst), nil
	case len(v) == 1 && v[0] == 't':
		return append(dst, "true"...), nil
	case len(v) == 1 && v[0] == 'f':
		return append(dst, "false"...), nil
	}
	return dst, errValue
}

// appendFloatText keeps the server's shortest exact notation, which is a JSON number unless it is NaN or an infinity.
func appendFloatText(dst, v []byte) ([]byte, error) {
	if n := len(v); n > 0 && (v[n-1] == 'N' || v[n-1] == 'y') {
		return appendQuoted(dst, v)
	}
	return appendRaw(dst, v)
}

func appendInt2(dst, v []byte) ([]byte, error) {
	if len(v) != 2 {
		return nullOr(dst, v)
	}
	return strconv.AppendInt(dst, int64(int16(binary.BigEndian.Uint16(v))), 10), nil
}

func appendInt4(dst, v []byte) ([]byte, error) {
	if len(v) != 4 {
		return nullOr(dst, v)
	}
	return strconv.AppendInt(dst, int64(int32(binary.BigEndian.Uint32(v))), 10), nil
}

func appendInt8(dst, v []byte) ([]byte, error) {
	if len(v) != 8 {
		return nullOr(dst, v)
	}
	return strconv.AppendInt(dst, int64(binary.BigEndian.Uint64(v)), 10), nil
}

// nullOr is null for nil, and an error for a value of a wrong length.
func nullOr(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	return dst, fmt.Errorf("%w: %d bytes", errValue, len(v))
}

func appendUUID(dst, v []byte) ([]byte, error) {
	if len(v) != 16 {
		return nullOr(dst, v)
	}
	return rowjson.AppendUUID(dst, v)
}

func appendBytea(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	return rowjson.AppendBase64(dst, v), nil
}

// appendByteaText reads the server's hex notation (all our sessions ask for it) three bytes at a time, which base64
// writes as four characters.
func appendByteaText(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	if !bytes.HasPrefix(v, []byte(`\x`)) || len(v)%2 != 0 {
		return dst, errValue
	}
	dst = append(dst, '"')
	var block [192]byte
	for v = v[2:]; len(v) > 0; {
		n := min(len(v), 2*len(block))
		size, err := hex.Decode(block[:], v[:n])
		if err != nil {
			return dst, fmt.Errorf("%w: %w", errValue, err)
		}
		dst = base64.StdEncoding.AppendEncode(dst, block[:size])
		v = v[n:]
	}
	return append(dst, '"'), nil
}
