package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Check tells whether text is exactly one JSON value; white space around it is allowed.
func Check(text []byte) error {
	s := NewScanner(text)
	if _, err := s.Value(); err != nil {
		return err
	}
	return s.End()
}

// AppendLine appends a JSON value so that it cannot break a line: text without a line break is copied as it is,
// text with one is compacted. It does not check text. Whatever text holds, no line break is appended,
// so that a bad value can spoil its own message but not the framing of those behind it.
func AppendLine(dst, text []byte) []byte {
	if bytes.IndexByte(text, '\n') < 0 && bytes.IndexByte(text, '\r') < 0 {
		return append(dst, text...)
	}
	return appendCompact(dst, text)
}

// FixLine does for dst[from:] in place what AppendLine does for a value which it copies.
func FixLine(dst []byte, from int) []byte {
	text := dst[from:]
	if bytes.IndexByte(text, '\n') < 0 && bytes.IndexByte(text, '\r') < 0 {
		return dst
	}
	return appendCompact(dst[:from], text) // never longer than what it reads, so it cannot overtake itself
}

func appendCompact(dst, text []byte) []byte {
	quoted := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\n' || c == '\r': // inside a string it is not JSON anyway
			continue
		case !quoted && (c == ' ' || c == '\t'):
			continue
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\' && i+1 < len(text) && text[i+1] >= ' ':
			dst = append(dst, c)
			i++
			c = text[i]
		}
		dst = append(dst, c)
	}
	return dst
}

// Unquote decodes a string's text, quotes included. The result is a copy.
func Unquote(text []byte) (string, error) {
	if len(text) < 2 || text[0] != '"' {
		return "", errors.New("expected a string")
	}
	if inner := text[1 : len(text)-1]; bytes.IndexByte(inner, '\\') < 0 {
		if !utf8.Valid(inner) {
			return "", errors.New("string is not valid UTF-8")
		}
		return string(inner), nil
	}
	var out string
	if err := json.Unmarshal(text, &out); err != nil {
		return "", fmt.Errorf("decoding a string: %w", err)
	}
	return out, nil
}

// AppendString appends s in quotes, with the escapes that JSON requires and no others. s has to be valid UTF-8.
func AppendString(dst []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return dst, errors.New("string is not valid UTF-8")
	}
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case !special[c]:
			dst = append(dst, c)
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(dst, '"'), nil
}
