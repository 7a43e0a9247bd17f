package main

import "bytes"

// appendJSON puts a json value, which keeps its author's white space, onto one line, and replaces halves of surrogate
// pairs by U+FFFD: they are no characters, and readers of JSON refuse them.
func appendJSON(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	if bytes.IndexByte(v, '\\') < 0 && bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, '\r') < 0 {
		return append(dst, v...), nil
	}
	quoted := false
	for i := 0; i < len(v); i++ {
		c := v[i]
		switch {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\' && i+1 < len(v):
			n := escapeLen(v[i:])
			if n == 0 {
				dst = append(dst, `\ufffd`...)
				i += 5
				continue
			}
			dst = append(dst, v[i:i+n]...)
			i += n - 1
			continue
		case !quoted && (c == '\n' || c == '\r' || c == '\t' || c == ' '):
			continue
		}
		dst = append(dst, c)
	}
	return dst, nil
}

// escapeLen is the length of the escape at the front of s, a surrogate pair counting as one; 0 if it is half a pair.
func escapeLen(s []byte) int {
	if s[1] != 'u' || len(s) < 6 {
		return 2
	}
	if s[2]|0x20 != 'd' || s[3] < '8' {
		return 6
	}
	low := s[3]|0x20 >= 'c' && s[3] > '9'
	if low || len(s) < 12 || s[6] != '\\' || s[7] != 'u' || s[8]|0x20 != 'd' || s[9]|0x20 < 'c' || s[9] <= '9' {
		return 0
	}
	return 12
}
