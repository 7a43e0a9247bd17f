// Package tuple encodes keys as FoundationDB tuples: bytes whose order is the order of the values they hold, so that keys
// compare, sort and join as plain bytes. Nested tuples are not used.
//
//	null    00
//	bytes   01 … 00          a 00 inside is written 00 FF
//	string  02 … 00          UTF-8, escaped alike
//	integer 0C..1C           14 is zero; 14+n or 14-n says that n bytes follow, big-endian, complemented when negative
//	double  21 + 8 bytes     IEEE big-endian; the sign bit is flipped, of negative numbers every bit
//	false   26
//	true    27
//
// The format is specified at https://github.com/apple/foundationdb/blob/main/design/tuple.md. All Append functions append
// one element to dst and return the extended slice; they keep none of their arguments and may be called from any goroutine.
package tuple

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
)

const (
	codeNil    = 0x00
	codeBytes  = 0x01
	codeString = 0x02
	codeIntMin = 0x0c // minus, 8 bytes
	codeZero   = 0x14
	codeIntMax = 0x1c // plus, 8 bytes
	codeDouble = 0x21
	codeFalse  = 0x26
	codeTrue   = 0x27
	escape     = 0xff
)

// AppendNil appends null, which sorts before everything else.
func AppendNil(dst []byte) []byte { return append(dst, codeNil) }

// AppendBytes appends a byte string.
func AppendBytes(dst, b []byte) []byte { return appendEscaped(append(dst, codeBytes), b) }

// AppendString appends a text. It should be UTF-8; other bytes are kept as they are.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, codeString)
	for i := range len(s) {
		if s[i] == 0 {
			dst = append(dst, 0, escape)
			continue
		}
		dst = append(dst, s[i])
	}
	return append(dst, 0)
}

// AppendStringBytes is AppendString of a text held in bytes.
func AppendStringBytes(dst, s []byte) []byte { return appendEscaped(append(dst, codeString), s) }

func appendEscaped(dst, b []byte) []byte {
	for {
		i := bytes.IndexByte(b, 0)
		if i < 0 {
			return append(append(dst, b...), 0)
		}
		dst = append(append(dst, b[:i]...), 0, escape)
		b = b[i+1:]
	}
}

// AppendInt appends a signed integer.
func AppendInt(dst []byte, v int64) []byte {
	if v >= 0 {
		return AppendUint(dst, uint64(v))
	}
	// -(v+1)+1 is the magnitude also of the smallest integer.
	return appendNegative(dst, uint64(-(v+1))+1)
}

// appendNegative appends the integer of the given magnitude below zero.
func appendNegative(dst []byte, magnitude uint64) []byte {
	n := byteLen(magnitude)
	dst = append(dst, byte(codeZero-n))
	return appendBigEndian(dst, ^magnitude, n)
}

// AppendUint appends an unsigned integer. It equals AppendInt where both can hold the value.
func AppendUint(dst []byte, v uint64) []byte {
	n := byteLen(v)
	dst = append(dst, byte(codeZero+n))
	return appendBigEndian(dst, v, n)
}

func byteLen(v uint64) int { return (bits.Len64(v) + 7) / 8 }

// appendBigEndian appends the low n bytes of v.
func appendBigEndian(dst []byte, v uint64, n int) []byte {
	end := len(dst) + n
	return binary.BigEndian.AppendUint64(dst, v<<(8*(8-n)))[:end]
}

// AppendFloat appends a double. Minus zero sorts before zero, NaN after (or, with its sign bit set, before) all others.
func AppendFloat(dst []byte, v float64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, codeDouble), flipFloat(math.Float64bits(v)))
}

func flipFloat(bits uint64) uint64 {
	if bits>>63 != 0 {
		return ^bits
	}
	return bits | 1<<63
}

// AppendBool appends a boolean; false sorts before true.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, codeTrue)
	}
	return append(dst, codeFalse)
}
