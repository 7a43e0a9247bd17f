package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// An encoder appends one value in the form of binary COPY: its length in four bytes, then its bytes. Null is the
// length -1. It must leave dst as it was if it fails.
type encoder func(dst []byte, e tuple.Element) ([]byte, error)

var (
	errNotInteger   = errors.New("it is not an integer between -9223372036854775808 and 9223372036854775807")
	errNotInt4      = errors.New("it is not an integer between -2147483648 and 2147483647")
	errNotInt2      = errors.New("it is not an integer between -32768 and 32767")
	errNotBoolean   = errors.New("it is not a boolean")
	errNotFloat     = errors.New("it is not a number")
	errNotFloat4    = errors.New("it is beyond the range of a real")
	errInexactFloat = errors.New("it has more digits than a double can hold")
	errNotUUID      = errors.New("it is not a UUID")
	errNotBase64    = errors.New("it is not base64")
	errNulInKey     = errors.New("it contains a NUL character, which Postgres cannot store in a text")
	errInexactKey   = errors.New("it is finer than a microsecond, so that two keys could become one")
)

// encoderOf returns the encoder of a field's values for a column of a kind. Values of keys must be kept to the letter, so key
// encoders refuse what others would adapt.
func encoderOf(k kind, f materialize.Field, key bool) encoder {
	if key {
		switch k {
		case kindText:
			return encodeTextKey
		case kindTimestamptz, kindTimestamp:
			return encodeTimestampKey
		case kindTime:
			return exactTime(encodeTime)
		case kindTimetz:
			return exactTime(encodeTimetz)
		default:
		}
	}
	if jsonText(f) && k == kindJSON {
		return encodeJSONText
	}
	if jsonText(f) && k == kindJSONB {
		return encodeJSONBText
	}
	return [...]encoder{
		kindText:        encodeText,
		kindBool:        encodeBool,
		kindInt2:        encodeInt2,
		kindInt4:        encodeInt4,
		kindInt8:        encodeInt8,
		kindFloat4:      encodeFloat4,
		kindFloat8:      encodeFloat8,
		kindNumeric:     encodeNumeric,
		kindDate:        encodeDate,
		kindTime:        encodeTime,
		kindTimetz:      encodeTimetz,
		kindTimestamp:   encodeTimestamp,
		kindTimestamptz: encodeTimestamp,
		kindInterval:    encodeInterval,
		kindUUID:        encodeUUID,
		kindInet:        encodeInet,
		kindCidr:        encodeCidr,
		kindMacaddr:     encodeMacaddr,
		kindMacaddr8:    encodeMacaddr8,
		kindBytea:       encodeBytea,
		kindJSONB:       encodeJSONB,
		kindJSON:        encodeJSON,
		kindArray:       encodeArray,
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
