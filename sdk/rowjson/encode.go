package rowjson

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// AppendString appends s as a JSON string. Quotes, backslashes and control characters are escaped; everything else,
// HTML's characters too, is kept as it is. A byte that is not part of UTF-8 becomes U+FFFD. What needs no escape is found
// eight bytes at a time and copied in one piece.
func AppendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	for {
		n, ascii := plainRun(s)
		if ascii || utf8.Valid(s[:n]) {
			dst = append(dst, s[:n]...)
		} else {
			dst = appendRepaired(dst, s[:n])
		}
		if n == len(s) {
			return append(dst, '"')
		}
		dst = appendEscape(dst, s[n])
		s = s[n+1:]
	}
}

// appendRepaired appends text with U+FFFD for each byte that is not part of UTF-8.
func appendRepaired(dst, s []byte) []byte {
	for len(s) > 0 {
		r, size := utf8.DecodeRune(s)
		dst = utf8.AppendRune(dst, r)
		s = s[size:]
	}
	return dst
}

// AppendUTF8 is AppendString for those who refuse bytes that are not UTF-8: it then returns dst as it was, and false. The text is looked at
// once, while a check before AppendString would look at it twice.
func AppendUTF8(dst, s []byte) (out []byte, ok bool) {
	out = append(dst, '"')
	for {
		n, ascii := plainRun(s)
		if !ascii && !utf8.Valid(s[:n]) { // what follows is ASCII, which no character's bytes are
			return dst, false
		}
		out = append(out, s[:n]...)
		if n == len(s) {
			return append(out, '"'), true
		}
		out = appendEscape(out, s[n])
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

// plainRun is the number of leading bytes that need no escape, and whether all of them are ASCII. Eight bytes at a time
// are tested by arithmetic: a zero byte of x is where (x - ones) &^ x has its highest bit set, up to the first such byte
// exactly, and a byte below 0x20 likewise.
func plainRun(s []byte) (n int, ascii bool) {
	var seen uint64
	for ; n+8 <= len(s); n += 8 {
		w := binary.LittleEndian.Uint64(s[n:])
		quote, slash := w^ones*'"', w^ones*'\\'
		special := ((w-ones*' ')&^w | (quote-ones)&^quote | (slash-ones)&^slash) & highs
		if special != 0 {
			// What stands behind the special byte only costs a needless check of the text before it.
			return n + bits.TrailingZeros64(special)/8, (seen|w)&highs == 0
		}
		seen |= w
	}
	for ; n < len(s) && s[n] >= ' ' && s[n] != '"' && s[n] != '\\'; n++ {
		seen |= uint64(s[n])
	}
	return n, seen&highs == 0
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
func AppendFloat(dst []byte, v float64, size int) []byte {
	if size == 64 {
		if thousandths, ok := decimal(v); ok {
			return appendThousandths(dst, thousandths)
		}
	}
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
	return strconv.AppendFloat(dst, v, format, -1, size)
}

// decimal finds numbers of at most three digits behind the point, as most are, and tells how many thousandths they are. That those are
// the shortest notation holds because of two things: a division is exact but for the last rounding, so that v is what reading n/1000
// gives; and no two numbers of up to fifteen digits are read as the same, so that none with less digits is read as v.
func decimal(v float64) (thousandths int64, ok bool) {
	const fifteenDigits = 1e15
	scaled := v * 1000
	if !(scaled > -fifteenDigits && scaled < fifteenDigits) || v == 0 { // NaN is none, and zero has a sign
		return 0, false
	}
	n := math.RoundToEven(scaled)
	return int64(n), n/1000 == v
}

func appendThousandths(dst []byte, n int64) []byte {
	if n < 0 {
		dst, n = append(dst, '-'), -n
	}
	dst = strconv.AppendInt(dst, n/1000, 10)
	part := n % 1000
	if part == 0 {
		return dst
	}
	dst = append(dst, '.', byte('0'+part/100), byte('0'+part/10%10), byte('0'+part%10))
	switch {
	case part%100 == 0:
		return dst[:len(dst)-2]
	case part%10 == 0:
		return dst[:len(dst)-1]
	}
	return dst
}

// AppendBase64 appends bytes as a JSON string in standard base64.
func AppendBase64(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}

// AppendUUID appends the 16 bytes of a UUID in its usual notation.
func AppendUUID(dst, b []byte) ([]byte, error) {
	if len(b) != 16 {
		return dst, fmt.Errorf("encoding a UUID: it has %d bytes, not 16", len(b))
	}
	text := [38]byte{0: '"', 9: '-', 14: '-', 19: '-', 24: '-', 37: '"'}
	binary.BigEndian.PutUint64(text[1:], hexDigits(binary.BigEndian.Uint32(b)))
	middle := hexDigits(binary.BigEndian.Uint32(b[4:]))
	binary.BigEndian.PutUint32(text[10:], uint32(middle>>32))
	binary.BigEndian.PutUint32(text[15:], uint32(middle))
	middle = hexDigits(binary.BigEndian.Uint32(b[8:]))
	binary.BigEndian.PutUint32(text[20:], uint32(middle>>32))
	binary.BigEndian.PutUint32(text[25:], uint32(middle))
	binary.BigEndian.PutUint64(text[29:], hexDigits(binary.BigEndian.Uint32(b[12:])))
	return append(dst, text[:]...), nil
}

// hexDigits is the eight digits of a number, one in each byte: its halves of bytes are moved apart, and what is beyond 9 is
// lifted to the letters.
func hexDigits(v uint32) uint64 {
	x := uint64(v)
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = (x | x<<4) & 0x0f0f0f0f0f0f0f0f
	letters := (x + ones*6) >> 4 & ones
	return x + ones*'0' + letters*('a'-'9'-1)
}
