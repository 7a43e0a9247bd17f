package tuple

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// AppendJSON appends one JSON value as the element that the protocol packs for it: null, booleans and strings as
// themselves; a number without fraction and exponent as an integer if 64 bits hold it, any other as a double; arrays and
// objects as the bytes of their compact text. On an error dst is returned as it was.
//
// Arrays and objects must be valid JSON: of them only strings and brackets are looked at. A document is checked as a whole
// when it is received, and taken apart many times after that.
func AppendJSON(dst, value []byte) ([]byte, error) {
	v := value
	if len(v) == 0 || v[0] <= ' ' || v[len(v)-1] <= ' ' { // seldom
		v = bytes.TrimSpace(value)
	}
	if len(v) == 0 {
		return dst, fmt.Errorf("packing a JSON value: it is empty")
	}
	switch c := v[0]; {
	case c == '"':
		return appendJSONString(dst, v)
	case c == '{' || c == '[':
		return appendCompact(dst, v)
	case c == '-' || (c >= '0' && c <= '9'):
		return appendJSONNumber(dst, v)
	case string(v) == "null":
		return AppendNil(dst), nil
	case string(v) == "true":
		return AppendBool(dst, true), nil
	case string(v) == "false":
		return AppendBool(dst, false), nil
	}
	return dst, fmt.Errorf("packing a JSON value: %.40q is not JSON", v)
}

// structural tells the bytes by which appendCompact finds its way: quotes, brackets and white space.
var structural = [256]bool{'"': true, '{': true, '[': true, '}': true, ']': true, ' ': true, '\t': true, '\n': true, '\r': true} //nolint:gochecknoglobals // a lookup table

// appendCompact appends an array or object without the white space outside its strings. No byte of it is zero, so there is
// nothing to escape.
func appendCompact(dst, v []byte) ([]byte, error) {
	old := len(dst)
	dst = append(dst, codeBytes)
	depth, copied := 0, 0
	for i := 0; i < len(v); i++ {
		c := v[i]
		if !structural[c] {
			continue
		}
		switch c {
		case '"':
			i = stringEnd(v, i)
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		default:
			dst = append(dst, v[copied:i]...)
			copied = i + 1
		}
	}
	if last := v[len(v)-1]; depth != 0 || last != '}' && last != ']' || bytes.IndexByte(v, 0) >= 0 {
		return dst[:old], fmt.Errorf("packing a JSON value: %.40q is not one whole array or object", v)
	}
	return append(append(dst, v[copied:]...), 0), nil
}

// stringEnd returns the index of the quote that closes the string which begins at pos; of one that is cut, the last index.
func stringEnd(v []byte, pos int) int {
	for i := pos + 1; i < len(v); i++ {
		switch v[i] {
		case '"':
			return i
		case '\\':
			i++
		}
	}
	return len(v) - 1
}

func appendJSONNumber(dst, v []byte) ([]byte, error) {
	if u, negative, ok := parseInteger(v); ok {
		switch {
		case !negative:
			return AppendUint(dst, u), nil
		case u != 0 && u <= 1<<63:
			return appendNegative(dst, u), nil
		}
	}
	if !json.Valid(v) {
		return dst, fmt.Errorf("packing a JSON value: %.40q is not a number", v)
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil {
		return dst, fmt.Errorf("packing a JSON value: the number %.40s is beyond the range of a double", v)
	}
	return AppendFloat(dst, f), nil
}

// parseInteger reads a JSON number without fraction and exponent whose magnitude 64 bits hold.
func parseInteger(v []byte) (magnitude uint64, negative, ok bool) {
	if v[0] == '-' {
		negative, v = true, v[1:]
	}
	if len(v) == 0 || (v[0] == '0' && len(v) > 1) {
		return 0, false, false
	}
	const safe = 19 // digits always fit
	for i, c := range v {
		digit := uint64(c - '0')
		if digit > 9 || i >= safe && magnitude > (math.MaxUint64-digit)/10 {
			return 0, false, false
		}
		magnitude = magnitude*10 + digit
	}
	return magnitude, negative, true
}

// appendJSONString unescapes straight into the tuple.
func appendJSONString(dst, v []byte) ([]byte, error) {
	old := len(dst)
	dst = append(dst, codeString)
	for s := v[1:]; ; {
		i := plainRun(s)
		dst = append(dst, s[:i]...)
		switch {
		case i == len(s) || s[i] < ' ':
			return dst[:old], fmt.Errorf("packing a JSON value: the string %.40q is cut or holds a control character", v)
		case s[i] == '"' && i+1 == len(s):
			return append(dst, 0), nil
		case s[i] == '"':
			return dst[:old], fmt.Errorf("packing a JSON value: %.40q is more than one value", v)
		}
		r, n := unescape(s[i:])
		if n == 0 {
			return dst[:old], fmt.Errorf("packing a JSON value: the string %.40q has an invalid escape", v)
		}
		if r == 0 {
			dst = append(dst, 0, escape)
		} else {
			dst = utf8.AppendRune(dst, r)
		}
		s = s[i+n:]
	}
}

// plainRun is the number of leading bytes that stand for themselves in a JSON string: all up to a quote, a backslash or a control
// character. Of eight bytes at a time arithmetic tells whether, and where, the first other one is.
func plainRun(s []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; n+8 <= len(s); n += 8 {
		w := binary.LittleEndian.Uint64(s[n:])
		quote, slash := w^ones*'"', w^ones*'\\'
		if other := ((w-ones*' ')&^w | (quote-ones)&^quote | (slash-ones)&^slash) & highs; other != 0 {
			return n + bits.TrailingZeros64(other)/8
		}
	}
	for n < len(s) && s[n] >= ' ' && s[n] != '"' && s[n] != '\\' {
		n++
	}
	return n
}

// unescape decodes the escape sequence at the start of s, and says how long it is; zero if it is none.
func unescape(s []byte) (rune, int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := hex4(s)
		if !ok {
			return 0, 0
		}
		if utf16.IsSurrogate(r) {
			if low, ok := hex4(s[6:]); ok {
				if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
					return both, 12
				}
			}
			return utf8.RuneError, 6
		}
		return r, 6
	}
	return 0, 0
}

// hex4 reads \uXXXX.
func hex4(s []byte) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	return rune(v), err == nil
}
