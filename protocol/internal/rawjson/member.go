package rawjson

import (
	"iter"
	"math"
	"slices"
)

// Enter takes `{"name":{`, the beginning of an object in the first member of another.
func (s *Scanner) Enter(name string) bool {
	if !s.Accept('{') {
		return false
	}
	key, err := s.Key()
	return err == nil && string(key[1:len(key)-1]) == name && s.Accept('{')
}

// Leave takes what closes the two objects of Enter, and tells whether nothing else was there.
func (s *Scanner) Leave() bool {
	return s.Accept('}') && s.End() == nil
}

// Member takes the key of an object's next member with the colon behind it, and returns it without its quotes. At the
// object's end, which it takes, the key is nil.
func (s *Scanner) Member(first bool) (key []byte, ok bool) {
	if s.Accept('}') {
		return nil, true
	}
	if !first && !s.Accept(',') {
		return nil, false
	}
	key, err := s.Key()
	if err != nil {
		return nil, false
	}
	return key[1 : len(key)-1], true
}

// Members yields the members of an object of valid text, from behind its opening brace to its end, which it takes: the keys' text with
// their quotes, and the values.
func (s *Scanner) Members() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for !s.Accept('}') {
			s.Accept(',')
			key, err := s.Key()
			if err != nil {
				return
			}
			value, err := s.Value()
			if err != nil || !yield(key, value) {
				return
			}
		}
	}
}

// Uint32 takes a number that is written as plain digits.
func (s *Scanner) Uint32() (uint32, bool) {
	text, err := s.Value()
	if err != nil || len(text) > len("4294967295") {
		return 0, false
	}
	n := uint64(0)
	for _, c := range text {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return uint32(n), n <= math.MaxUint32
}

// Bool takes true or false.
func (s *Scanner) Bool() (v, ok bool) {
	text, err := s.Value()
	if err != nil {
		return false, false
	}
	return string(text) == "true", string(text) == "true" || string(text) == "false"
}

// Raw takes any value but null, without capacity beyond its end.
func (s *Scanner) Raw() ([]byte, bool) {
	text, err := s.Value()
	if err != nil || text[0] == 'n' {
		return nil, false
	}
	return slices.Clip(text), true
}

// Quoted takes a string and returns what stands between its quotes.
func (s *Scanner) Quoted() ([]byte, bool) {
	text, err := s.Value()
	if err != nil || text[0] != '"' {
		return nil, false
	}
	return text[1 : len(text)-1], true
}
