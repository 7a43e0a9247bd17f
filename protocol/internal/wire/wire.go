// Package wire holds what the hand-written encoders and parsers of the hot messages share: protobuf fields with tags of
// one byte, and the same fields in JSON. Nothing in it allocates except by appending.
package wire

import (
	"encoding/base64"
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Tags of fields 1 to 15 are one byte: the number, and below it three bits of wire type.
const (
	typeVarint = 0
	typeBytes  = 2
)

// VarintTag is the tag of a number or bool field.
func VarintTag(field byte) byte { return field<<3 | typeVarint }

// BytesTag is the tag of a bytes or message field.
func BytesTag(field byte) byte { return field<<3 | typeBytes }

// FrameSize is the length in front of a frame, in bytes.
const FrameSize = 4

// AppendFrameHead appends a frame's length and the tag and length of the one field, a message of inner bytes, that is its body.
func AppendFrameHead(dst []byte, field byte, inner int) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(1+protowire.SizeVarint(uint64(inner))+inner))
	return protowire.AppendVarint(append(dst, BytesTag(field)), uint64(inner))
}

// SizeUint is the size of a number field: nothing for 0, as in all of proto3.
func SizeUint(v uint32) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(uint64(v))
}

// SizeBytes is the size of a bytes field.
func SizeBytes(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(uint64(n)) + n
}

// SizeBool is the size of a bool field.
func SizeBool(v bool) int {
	if v {
		return 2
	}
	return 0
}

// AppendUint appends a number field.
func AppendUint(dst []byte, field byte, v uint32) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(append(dst, VarintTag(field)), uint64(v))
}

// AppendBytes appends a bytes field.
func AppendBytes(dst []byte, field byte, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	return append(protowire.AppendVarint(append(dst, BytesTag(field)), uint64(len(v))), v...)
}

// AppendBool appends a bool field.
func AppendBool(dst []byte, field byte, v bool) []byte {
	if !v {
		return dst
	}
	return append(dst, VarintTag(field), 1)
}

// Inner returns the message in the field which is all of body.
func Inner(body []byte, field byte) (inner []byte, ok bool) {
	if len(body) == 0 || body[0] != BytesTag(field) {
		return nil, false
	}
	inner, rest, ok := Bytes(body[1:])
	return inner, ok && len(rest) == 0
}

// Uint takes a number field's value from behind its tag.
func Uint(b []byte) (v uint32, rest []byte, ok bool) {
	n, size := protowire.ConsumeVarint(b)
	if size < 0 || n > math.MaxUint32 {
		return 0, nil, false
	}
	return uint32(n), b[size:], true
}

// Bool takes a bool field's value from behind its tag.
func Bool(b []byte) (v bool, rest []byte, ok bool) {
	if len(b) == 0 || b[0] > 1 {
		return false, nil, false
	}
	return b[0] == 1, b[1:], true
}

// Bytes takes a bytes field's value from behind its tag. The value aliases b, and has no capacity beyond its end.
func Bytes(b []byte) (v, rest []byte, ok bool) {
	n, size := protowire.ConsumeVarint(b)
	if size < 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	end := size + int(n)
	return b[size:end:end], b[end:], true
}

// IsBase64 tells whether DecodeBase64 can decode text: standard alphabet, padded.
func IsBase64(text []byte) bool {
	if len(text)%4 != 0 {
		return false
	}
	for i, c := range text {
		switch {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '+', c == '/':
		case c == '=' && i >= len(text)-2 && text[len(text)-1] == '=':
		default:
			return false
		}
	}
	return true
}

// DecodeBase64 decodes text, which IsBase64 has accepted, over itself.
func DecodeBase64(text []byte) []byte {
	n, err := base64.StdEncoding.Decode(text, text) // reads ahead of where it writes
	if err != nil {
		return nil // IsBase64 accepts nothing that could fail
	}
	return text[:n:n]
}
