// Package rawjson checks and walks JSON text without building values from it.
//
// Two things need it: fields which carry JSON through untouched (the text is checked, and copied or
// aliased as it is), and the hot messages' parsers, which must not allocate.
package rawjson

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// MaxDepth is how deeply arrays and objects may be nested, as in encoding/json. It bounds the stack that
// hostile text can make a reader use.
const MaxDepth = 10000

// SyntaxError says where a text stops being JSON, and why.
type SyntaxError struct {
	Offset int // in bytes from the start of the scanned text
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("invalid JSON at byte %d: %s", e.Offset, e.Reason)
}

// Scanner walks a JSON text from left to right. It is a value without resources: copy it to look ahead.
// The text is never changed, and what the methods return aliases it.
type Scanner struct {
	text []byte
	pos  int
}

// NewScanner starts at the beginning of text.
func NewScanner(text []byte) Scanner { return Scanner{text: text} }

// Peek skips white space and returns the next byte without taking it; 0 at the end of the text.
func (s *Scanner) Peek() byte {
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c
		}
		s.pos++
	}
	return 0
}

// Accept takes the next byte behind white space if it is c, and tells whether it was.
func (s *Scanner) Accept(c byte) bool {
	if s.Peek() != c || s.pos == len(s.text) {
		return false
	}
	s.pos++
	return true
}

// Expect takes the next byte behind white space, which has to be c.
func (s *Scanner) Expect(c byte, where string) error {
	if s.Accept(c) {
		return nil
	}
	return s.fail(fmt.Sprintf("expected %q %s", c, where))
}

// End checks that nothing but white space is left.
func (s *Scanner) End() error {
	s.Peek()
	if s.pos < len(s.text) {
		return s.fail("expected the end")
	}
	return nil
}

// Value takes one JSON value of any kind, checks it whole, and returns its text without the white space around it.
func (s *Scanner) Value() ([]byte, error) {
	s.Peek()
	start := s.pos
	if err := s.skip(MaxDepth); err != nil {
		return nil, err
	}
	return s.text[start:s.pos], nil
}

// Key takes an object's key and the colon behind it, and returns the key's text with its quotes.
func (s *Scanner) Key() ([]byte, error) {
	if s.Peek() != '"' {
		return nil, s.fail("expected a key in quotes")
	}
	start := s.pos
	if err := s.skipString(); err != nil {
		return nil, err
	}
	key := s.text[start:s.pos]
	return key, s.Expect(':', "after a key")
}

func (s *Scanner) skip(depth int) error {
	c := s.Peek()
	if depth == 0 && (c == '{' || c == '[') {
		return s.fail(fmt.Sprintf("nested more than %d levels deep", MaxDepth))
	}
	switch c {
	case '{':
		return s.skipObject(depth)
	case '[':
		return s.skipArray(depth)
	case '"':
		return s.skipString()
	case 't':
		return s.skipWord("true")
	case 'f':
		return s.skipWord("false")
	case 'n':
		return s.skipWord("null")
	default:
		if c == '-' || isDigit(c) {
			return s.skipNumber()
		}
		return s.fail("expected a value")
	}
}

func (s *Scanner) skipObject(depth int) error {
	s.pos++
	if s.Accept('}') {
		return nil
	}
	for {
		if _, err := s.Key(); err != nil {
			return err
		}
		if err := s.skip(depth - 1); err != nil {
			return err
		}
		if s.Accept('}') {
			return nil
		}
		if err := s.Expect(',', "or '}' after an object's value"); err != nil {
			return err
		}
	}
}

func (s *Scanner) skipArray(depth int) error {
	s.pos++
	if s.Accept(']') {
		return nil
	}
	for {
		if err := s.skip(depth - 1); err != nil {
			return err
		}
		if s.Accept(']') {
			return nil
		}
		if err := s.Expect(',', "or ']' after an array's element"); err != nil {
			return err
		}
	}
}

func (s *Scanner) skipString() error {
	for s.pos++; s.pos < len(s.text); s.pos++ {
		if s.pos += plain(s.text[s.pos:]); s.pos == len(s.text) {
			break
		}
		c := s.text[s.pos]
		if c == '"' {
			s.pos++
			return nil
		}
		if c < ' ' {
			return s.fail("control character in a string")
		}
		if err := s.skipEscape(); err != nil {
			return err
		}
	}
	return s.fail("a string without its closing quote")
}

// skipEscape stands on the backslash and leaves the scanner on the escape's last byte.
func (s *Scanner) skipEscape() error {
	s.pos++
	if s.pos == len(s.text) {
		return s.fail("a string without its closing quote")
	}
	switch s.text[s.pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
		for range 4 {
			s.pos++
			if s.pos == len(s.text) || !isHex(s.text[s.pos]) {
				return s.fail("expected four hexadecimal digits after \\u")
			}
		}
		return nil
	}
	return s.fail("unknown escape in a string")
}

func (s *Scanner) skipWord(word string) error {
	if len(s.text)-s.pos < len(word) || string(s.text[s.pos:s.pos+len(word)]) != word {
		return s.fail("expected " + word)
	}
	s.pos += len(word)
	return nil
}

func (s *Scanner) skipNumber() error {
	if s.text[s.pos] == '-' {
		s.pos++
	}
	if s.next() == '0' {
		s.pos++
	} else if err := s.digits(); err != nil {
		return err
	}
	if s.next() == '.' {
		s.pos++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if c := s.next(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.next(); c == '+' || c == '-' {
			s.pos++
		}
		return s.digits()
	}
	return nil
}

func (s *Scanner) digits() error {
	i := s.pos
	for i < len(s.text) && isDigit(s.text[i]) {
		i++
	}
	if i == s.pos {
		return s.fail("expected a digit")
	}
	s.pos = i
	return nil
}

// next is the next byte, white space included; 0 at the end.
func (s *Scanner) next() byte {
	if s.pos == len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

func (s *Scanner) fail(reason string) error {
	if s.pos >= len(s.text) {
		return &SyntaxError{Offset: s.pos, Reason: reason + ", found the end of the text"}
	}
	return &SyntaxError{Offset: s.pos, Reason: fmt.Sprintf("%s, found %q", reason, s.text[s.pos])}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// plain is how many bytes at the beginning of b a string's scan can pass without looking. It takes eight at a time: a byte's
// top bit is set in what is subtracted below exactly if the byte is less than a bound, or was made zero. Only bytes behind
// the first such byte can be marked wrongly.
func plain(b []byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; len(b)-n >= 8; n += 8 {
		x := binary.LittleEndian.Uint64(b[n:])
		quote, backslash := x^(ones*'"'), x^(ones*'\\')
		stop := ((x-ones*' ')&^x | (quote-ones)&^quote | (backslash-ones)&^backslash) & tops
		if stop != 0 {
			return n + bits.TrailingZeros64(stop)/8
		}
	}
	for n < len(b) && !special[b[n]] {
		n++
	}
	return n
}

// special marks the bytes at which a string's scan has to stop and look.
//
//nolint:gochecknoglobals // lookup table
var special = func() (table [256]bool) {
	for c := range ' ' {
		table[c] = true
	}
	table['"'], table['\\'] = true, true
	return table
}()
