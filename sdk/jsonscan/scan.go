// Package jsonscan walks JSON texts that are known to be valid, without building values from them.
//
// Documents are checked once, when a capture hands them over (Valid). From then on the runtime asks for members and
// pointers by the million, so these functions trust the text: on invalid text they give a wrong answer or none, but
// they never read beyond it.
package jsonscan

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/bits"
)

// Trim returns the text without the white space around it.
func Trim(text []byte) []byte {
	for len(text) > 0 && isSpace(text[0]) {
		text = text[1:]
	}
	for len(text) > 0 && isSpace(text[len(text)-1]) {
		text = text[:len(text)-1]
	}
	return text
}

// Kind is the first byte of a value: '{', '[', '"', 't', 'f', 'n', or '0' for every number; 0 for an empty text.
func Kind(value []byte) byte {
	for _, c := range value {
		switch {
		case isSpace(c):
		case c == '-' || c >= '0' && c <= '9':
			return '0'
		default:
			return c
		}
	}
	return 0
}

// IsNull tells whether the value is null.
func IsNull(value []byte) bool { return Kind(value) == 'n' }

// Members iterates over the members of an object. The zero value has none.
type Members struct {
	text []byte
	pos  int
}

// NewMembers starts before the first member. Of a value that is no object there are none.
func NewMembers(object []byte) Members {
	pos := Space(object, 0)
	if pos >= len(object) || object[pos] != '{' {
		return Members{}
	}
	return Members{text: object, pos: pos + 1}
}

// Next returns the next member: its key as it is written between the quotes, escapes unresolved (see Name), and its
// value. Both alias the object.
func (m *Members) Next() (key, value []byte, ok bool) {
	if key, ok = m.key(); ok {
		value = m.value()
	}
	return key, value, ok
}

// key goes to the next member's value and returns its key.
func (m *Members) key() (key []byte, ok bool) {
	pos := Space(m.text, m.pos)
	if pos < len(m.text) && m.text[pos] == ',' {
		pos = Space(m.text, pos+1)
	}
	if pos >= len(m.text) || m.text[pos] != '"' {
		m.pos = len(m.text)
		return nil, false
	}
	end := skipString(m.text, pos)
	key = m.text[pos+1 : max(end-1, pos+1)]
	pos = Space(m.text, end)
	if pos >= len(m.text) || m.text[pos] != ':' {
		m.pos = len(m.text)
		return nil, false
	}
	m.pos = Space(m.text, pos+1)
	return key, true
}

// expect is key where the next member begins with this one, quotes and colon included; otherwise it goes nowhere.
func (m *Members) expect(key []byte) bool {
	pos := m.pos
	if pos < len(m.text) && m.text[pos] == ',' {
		pos++
	}
	end := pos + len(key)
	if end > len(m.text) || !bytes.Equal(m.text[pos:end], key) {
		return false
	}
	m.pos = Space(m.text, end)
	return true
}

// value passes over the value to which key or expect went, and returns it.
func (m *Members) value() []byte {
	pos := m.pos
	m.pos = Skip(m.text, pos)
	return m.text[pos:m.pos]
}

// Elements iterates over the elements of an array. The zero value has none.
type Elements struct {
	text []byte
	pos  int
}

// NewElements starts before the first element. Of a value that is no array there are none.
func NewElements(array []byte) Elements {
	pos := Space(array, 0)
	if pos >= len(array) || array[pos] != '[' {
		return Elements{}
	}
	return Elements{text: array, pos: pos + 1}
}

// Next returns the next element, which aliases the array.
func (e *Elements) Next() ([]byte, bool) {
	pos := Space(e.text, e.pos)
	if pos < len(e.text) && e.text[pos] == ',' {
		pos = Space(e.text, pos+1)
	}
	if pos >= len(e.text) || e.text[pos] == ']' {
		e.pos = len(e.text)
		return nil, false
	}
	end := Skip(e.text, pos)
	if e.pos = end; end == pos { // no valid text, and no way on
		e.pos = len(e.text)
		return nil, false
	}
	return e.text[pos:end], true
}

// Name resolves the escapes of a key or string given without its quotes. Without escapes it returns raw itself.
func Name(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	quoted := append(append([]byte{'"'}, raw...), '"')
	var s string
	if json.Unmarshal(quoted, &s) != nil {
		return raw
	}
	return []byte(s)
}

// Member returns the value of the last member called name, or nil.
func Member(object []byte, name string) []byte {
	var found []byte
	members := NewMembers(object)
	for {
		key, value, ok := members.Next()
		if !ok {
			return found
		}
		// Escapes only make a name longer.
		if string(key) == name || len(key) > len(name) && string(Name(key)) == name {
			found = value
		}
	}
}

// Text returns the string in value, with its escapes resolved; false if value is no string.
func Text(value []byte) (string, bool) {
	value = Trim(value)
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	return string(Name(value[1 : len(value)-1])), true
}

// Skip returns the index behind the value that begins at pos.
func Skip(text []byte, pos int) int {
	if pos >= len(text) {
		return len(text)
	}
	switch text[pos] {
	case '"':
		return skipString(text, pos)
	case '{', '[':
		return skipNested(text, pos)
	}
	for pos < len(text) && !behind[text[pos]] {
		pos++
	}
	return pos
}

// behind tells the bytes that end a number or a word.
var behind = [256]bool{',': true, '}': true, ']': true, ' ': true, '\t': true, '\n': true, '\r': true} //nolint:gochecknoglobals // a lookup table

// outside tells the bytes by which skipNested finds its way: quotes and brackets.
var outside = [256]bool{'"': true, '{': true, '[': true, '}': true, ']': true} //nolint:gochecknoglobals // a lookup table

func skipNested(text []byte, pos int) int {
	depth := 0
	for pos < len(text) {
		c := text[pos]
		if !outside[c] {
			pos++
			continue
		}
		switch c {
		case '"':
			pos = skipString(text, pos)
			continue
		case '{', '[':
			depth++
		default:
			depth--
			if depth == 0 {
				return pos + 1
			}
		}
		pos++
	}
	return len(text)
}

// Eight bytes at a time: a byte of the result has its highest bit set where w has that byte; the lowest one that is set is right,
// those above it may be wrong.
const (
	everyByte = 0x0101010101010101
	everyTop  = 0x8080808080808080
)

func equal(w uint64, c byte) uint64 {
	w ^= everyByte * uint64(c)
	return (w - everyByte) &^ w & everyTop
}

func quoteOrSlash(w uint64) uint64 { return equal(w, '"') | equal(w, '\\') }

// skipString stands on the opening quote and returns the index behind the closing one.
func skipString(text []byte, pos int) int {
	pos++
	for {
		for pos+8 <= len(text) {
			if hit := quoteOrSlash(binary.LittleEndian.Uint64(text[pos:])); hit != 0 {
				pos += bits.TrailingZeros64(hit) / 8
				break
			}
			pos += 8
		}
		switch {
		case pos >= len(text):
			return len(text)
		case text[pos] == '"':
			return pos + 1
		case text[pos] == '\\':
			pos++ // what it escapes is not looked at
		}
		pos++
	}
}

// Space returns the index of the first byte at or after pos that is not white space of JSON; len(text) if there is none.
func Space(text []byte, pos int) int {
	if pos < len(text) && text[pos] > ' ' { // nearly always; what follows is apart so that this is inlined everywhere
		return pos
	}
	return space(text, pos)
}

func space(text []byte, pos int) int {
	for pos < len(text) && isSpace(text[pos]) {
		pos++
	}
	return pos
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }
