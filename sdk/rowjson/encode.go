package rowjson

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// AppendString appends s as a JSON string. Quotes, backslashes and control characters are escaped; everything else,
// HTML's characters too, is kept as it is. A byte that is not part of UTF-8 becomes U+FFFD. A string without anything to
// escape is copied in one piece after a scan of eight bytes at a time.
func AppendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	for {
		n := plainPrefix(s)
		dst = append(dst, s[:n]...)
		if n == len(s) {
			return append(dst, '"')
		}
		c := s[n]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(s[n:])
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, "\ufffd"...)
			} else {
				dst = append(dst, s[n:n+size]...)
			}
			s = s[n+size:]
			continue
		}
		dst = appendEscape(dst, c)
		s = s[n+1:]
	}
}

// AppendText is AppendString of a string.
func AppendText(dst []byte, s string) []byte {
	return AppendString(dst, unsafe.Slice(unsafe.StringData(s), len(s)))
}

func appendEscape(dst []byte, c byte) []byte {
	const hex = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\t':
		return append(dst, '\\', 't')
	case '\r':
		return append(dst, '\\', 'r')
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	default:
		return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
	}
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plainPrefix is the number of leading bytes that a JSON string holds as they are: printable ASCII and valid UTF-8. Eight
// bytes at a time are tested by arithmetic: the sign bit of a byte of special is set if that byte is below 0x20, a quote
// or a backslash (or follows one, which only costs a second look), or not ASCII.
func plainPrefix(s []byte) int {
	i := 0
	for {
		for ; i+8 <= len(s); i += 8 {
			w := binary.LittleEndian.Uint64(s[i:])
			quote := w ^ (ones * '"')
			slash := w ^ (ones * '\\')
			special := (w - ones*' ') | (quote - ones) | (slash - ones) | w
			if special&highs != 0 {
				break
			}
		}
		stop := min(i+8, len(s))
		for i < stop && s[i] >= ' ' && s[i] < utf8.RuneSelf && s[i] != '"' && s[i] != '\\' {
			i++
		}
		switch {
		case i == len(s):
			return i
		case s[i] >= utf8.RuneSelf:
			_, size := utf8.DecodeRune(s[i:])
			if size == 1 {
				return i
			}
			i += size
		case i < stop:
			return i
		}
	}
}

// AppendInt appends an integer.
func AppendInt(dst []byte, v int64) []byte { return strconv.AppendInt(dst, v, 10) }

// AppendUint appends an unsigned integer.
func AppendUint(dst []byte, v uint64) []byte { return strconv.AppendUint(dst, v, 10) }

// AppendBool appends a boolean.
func AppendBool(dst []byte, v bool) []byte { return strconv.AppendBool(dst, v) }

// AppendNull appends null.
func AppendNull(dst []byte) []byte { return append(dst, "null"...) }

// AppendFloat appends a number with as many digits as distinguish it from its neighbours of the given size in bits, 32 or
// 64. JSON has no NaN and no infinities: these are written as the strings "NaN", "Infinity" and "-Infinity", and the
// column's schema must allow them.
func AppendFloat(dst []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(dst, `"-Infinity"`...)
	}
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, v, format, -1, bits)
}

// AppendBase64 appends bytes as a JSON string in standard base64.
func AppendBase64(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}

// AppendUUID appends the 16 bytes of a UUID in its usual notation.
func AppendUUID(dst, b []byte) ([]byte, error) {
	const hex = "0123456789abcdef"
	if len(b) != 16 {
		return dst, fmt.Errorf("encoding a UUID: it has %d bytes, not 16", len(b))
	}
	dst = append(dst, '"')
	for i, c := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hex[c>>4], hex[c&15])
	}
	return append(dst, '"'), nil
}
