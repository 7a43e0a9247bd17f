package jsonscan

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// maxDepth is how deep arrays and objects may be nested, as in encoding/json.
const maxDepth = 10000

// Valid tells whether text is one JSON value (RFC 8259), white space around it allowed. It agrees with encoding/json.Valid on
// every text, at a quarter of its cost; a fuzz test holds the two against each other.
func Valid(text []byte) bool { return ValidPlain(text, IsPlain(text)) }

// ValidPlain is Valid for those who know already what IsPlain says of the text.
func ValidPlain(text []byte, plain bool) bool {
	pos := validValue(text, Space(text, 0), 0, plain)
	return pos >= 0 && Space(text, pos) == len(text)
}

// End checks the value that begins at pos, without white space before it, and returns the index behind it; -1 if there is none. It is for
// walks that look at some parts of a text themselves, and know how many arrays and objects those lie in.
func End(text []byte, pos, depth int) int { return validValue(text, pos, depth, false) }

// IsPlain tells whether text is ASCII without backslashes and control characters, line breaks among them. Most JSON is: a string in
// it ends at the next quote, and it can be passed on as it is.
func IsPlain(text []byte) bool {
	var odd uint64
	for ; len(text) >= 32; text = text[32:] {
		odd |= notPlain(binary.LittleEndian.Uint64(text)) | notPlain(binary.LittleEndian.Uint64(text[8:])) |
			notPlain(binary.LittleEndian.Uint64(text[16:])) | notPlain(binary.LittleEndian.Uint64(text[24:]))
	}
	for ; len(text) >= 8; text = text[8:] {
		odd |= notPlain(binary.LittleEndian.Uint64(text))
	}
	for _, c := range text {
		if c < ' ' || c >= 0x80 || c == '\\' {
			return false
		}
	}
	return odd&everyTop == 0
}

// notPlain has the highest bit of some byte set if any of the eight is not plain.
func notPlain(w uint64) uint64 {
	return w | (w - everyByte*' ') | ((w ^ everyByte*'\\') - everyByte)
}

// validValue returns the index behind the value that begins at pos, or -1 if there is none. plain is IsPlain of the text, or false if that is not known.
func validValue(text []byte, pos, depth int, plain bool) int {
	if pos >= len(text) || depth > maxDepth {
		return -1
	}
	switch text[pos] {
	case '"':
		return validString(text, pos+1, plain)
	case '{':
		return validObject(text, pos+1, depth+1, plain)
	case '[':
		return validArray(text, pos+1, depth+1, plain)
	case 't':
		return literal(text, pos, "true")
	case 'f':
		return literal(text, pos, "false")
	case 'n':
		return literal(text, pos, "null")
	default:
		return validNumber(text, pos)
	}
}

func validObject(text []byte, pos, depth int, plain bool) int {
	pos = Space(text, pos)
	if depth > maxDepth || pos >= len(text) {
		return -1
	}
	if text[pos] == '}' {
		return pos + 1
	}
	for {
		if pos >= len(text) || text[pos] != '"' {
			return -1
		}
		if pos = validString(text, pos+1, plain); pos < 0 {
			return -1
		}
		if pos = Space(text, pos); pos >= len(text) || text[pos] != ':' {
			return -1
		}
		if pos = Space(text, pos+1); pos < len(text) && text[pos] == '"' {
			pos = validString(text, pos+1, plain)
		} else {
			pos = validValue(text, pos, depth, plain)
		}
		if pos < 0 {
			return -1
		}
		if pos = Space(text, pos); pos >= len(text) {
			return -1
		}
		switch text[pos] {
		case '}':
			return pos + 1
		case ',':
			pos = Space(text, pos+1)
		default:
			return -1
		}
	}
}

func validArray(text []byte, pos, depth int, plain bool) int {
	pos = Space(text, pos)
	if depth > maxDepth || pos >= len(text) {
		return -1
	}
	if text[pos] == ']' {
		return pos + 1
	}
	for {
		if pos = validValue(text, pos, depth, plain); pos < 0 {
			return -1
		}
		if pos = Space(text, pos); pos >= len(text) {
			return -1
		}
		switch text[pos] {
		case ']':
			return pos + 1
		case ',':
			pos = Space(text, pos+1)
		default:
			return -1
		}
	}
}

// validString begins behind the opening quote. Whether the bytes are UTF-8 is not asked, as in encoding/json.
func validString(text []byte, pos int, plain bool) int {
	if plain {
		if len(text)-pos >= 8 { // most strings are short
			if found := equal(binary.LittleEndian.Uint64(text[pos:]), '"'); found != 0 {
				return pos + bits.TrailingZeros64(found)/8 + 1
			}
			pos += 8
		}
		n := bytes.IndexByte(text[min(pos, len(text)):], '"')
		if n < 0 {
			return -1
		}
		return pos + n + 1
	}
	for pos < len(text) {
		if len(text)-pos >= 8 {
			w := binary.LittleEndian.Uint64(text[pos:])
			found := quoteOrSlash(w) | control(w)
			if found == 0 {
				pos += 8
				continue
			}
			pos += bits.TrailingZeros64(found) / 8
		}
		switch c := text[pos]; {
		case c == '"':
			return pos + 1
		case c < ' ':
			return -1
		case c != '\\':
			pos++
		default:
			if pos = validEscape(text, pos+1); pos < 0 {
				return -1
			}
		}
	}
	return -1
}

// control is quoteOrSlash for control characters, which strings must not hold.
func control(w uint64) uint64 {
	return (w - everyByte*' ') &^ w & everyTop
}

// validEscape begins behind the backslash.
func validEscape(text []byte, pos int) int {
	if pos >= len(text) {
		return -1
	}
	switch text[pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return pos + 1
	case 'u':
		if len(text) < pos+5 {
			return -1
		}
		for _, c := range text[pos+1 : pos+5] {
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
				return -1
			}
		}
		return pos + 5
	}
	return -1
}

func literal(text []byte, pos int, want string) int {
	if len(text)-pos < len(want) || string(text[pos:pos+len(want)]) != want {
		return -1
	}
	return pos + len(want)
}

func validNumber(text []byte, pos int) int {
	if pos < len(text) && text[pos] == '-' {
		pos++
	}
	if pos < len(text) && text[pos] == '0' {
		pos++
	} else if pos = digits(text, pos); pos < 0 {
		return -1
	}
	if pos < len(text) && text[pos] == '.' {
		if pos = digits(text, pos+1); pos < 0 {
			return -1
		}
	}
	if pos < len(text) && text[pos]|0x20 == 'e' {
		pos++
		if pos < len(text) && (text[pos] == '+' || text[pos] == '-') {
			pos++
		}
		return digits(text, pos)
	}
	return pos
}

// digits returns the index behind at least one digit, or -1.
func digits(text []byte, pos int) int {
	start := pos
	for pos < len(text) && text[pos]-'0' <= 9 {
		pos++
	}
	if pos == start {
		return -1
	}
	return pos
}
