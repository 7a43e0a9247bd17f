package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

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
func (t *dataType) textEncoder(asKey bool) encoder {
	switch t.kind {
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
	case kindJSON:
		return appendJSON
	case kindJSONB:
		return appendRaw
	case kindDate:
		return appendDateText
	case kindTimestamp, kindTimestamptz:
		return appendTimestampText
	case kindTime:
		return appendTimeText
	case kindTimetz:
		return appendTimetzText
	case kindArray:
		return arrayEncoder(t)
	default:
		return appendText
	}
}

// scanEncoder is the format in which a scan asks for the type's values, and their encoder.
//
// Binary where printing costs the server more than the few bytes it saves: timestamps, dates, UUIDs and bytea. Integers
// cost about the same either way, and numeric, json and text are printed anyway.
func (t *dataType) scanEncoder(asKey bool) (format int16, enc encoder) {
	switch t.kind {
	case kindInt:
		switch t.bytes {
		case 2:
			return formatBinary, appendInt2
		case 4:
			return formatBinary, appendInt4
		case 8:
			return formatBinary, appendInt8
		}
	case kindUUID:
		if !asKey {
			return formatBinary, appendUUID
		}
	case kindBytea:
		if !asKey {
			return formatBinary, appendBytea
		}
	case kindTimestamp, kindTimestamptz:
		if !asKey {
			return formatBinary, appendTimestamp
		}
	case kindDate:
		if !asKey {
			return formatBinary, appendDate
		}
	default:
	}
	return formatText, t.textEncoder(asKey)
}

func appendNull(dst []byte) []byte { return append(dst, "null"...) }

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
	var b [38]byte
	b[0], b[9], b[14], b[19], b[24], b[37] = '"', '-', '-', '-', '-', '"'
	hex.Encode(b[1:], v[:4])
	hex.Encode(b[10:], v[4:6])
	hex.Encode(b[15:], v[6:8])
	hex.Encode(b[20:], v[8:10])
	hex.Encode(b[25:], v[10:])
	return append(dst, b[:]...), nil
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

// appendJSON puts a json value, which keeps its author's white space, onto one line, and replaces halves of surrogate
// pairs by U+FFFD: they are no characters, and readers of JSON refuse them.
func appendJSON(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	if bytes.IndexByte(v, '\\') < 0 && bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, '\r') < 0 {
		return append(dst, v...), nil
	}
	quoted := false
	for i := 0; i < len(v); i++ {
		c := v[i]
		switch {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\' && i+1 < len(v):
			n := escapeLen(v[i:])
			if n == 0 {
				dst = append(dst, `\ufffd`...)
				i += 5
				continue
			}
			dst = append(dst, v[i:i+n]...)
			i += n - 1
			continue
		case !quoted && (c == '\n' || c == '\r' || c == '\t' || c == ' '):
			continue
		}
		dst = append(dst, c)
	}
	return dst, nil
}

// escapeLen is the length of the escape at the front of s, a surrogate pair counting as one; 0 if it is half a pair.
func escapeLen(s []byte) int {
	if s[1] != 'u' || len(s) < 6 {
		return 2
	}
	if s[2]|0x20 != 'd' || s[3] < '8' {
		return 6
	}
	low := s[3]|0x20 >= 'c' && s[3] > '9'
	if low || len(s) < 12 || s[6] != '\\' || s[7] != 'u' || s[8]|0x20 != 'd' || s[9]|0x20 < 'c' || s[9] <= '9' {
		return 0
	}
	return 12
}
