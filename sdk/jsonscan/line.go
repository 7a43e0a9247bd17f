package jsonscan

import "bytes"

// AppendLine appends a valid text on one line and with whole characters: white space around values is left out if the text has
// line breaks, and halves of surrogate pairs become U+FFFD, since they are no characters and readers of JSON refuse them. What
// needs neither is copied as it is.
func AppendLine(dst, text []byte) []byte {
	if bytes.IndexByte(text, '\n') < 0 && bytes.IndexByte(text, '\r') < 0 && !mayHoldSurrogates(text) {
		return append(dst, text...)
	}
	quoted := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\' && i+1 < len(text):
			n := escapeLen(text[i:])
			if n == 0 {
				dst = append(dst, `\ufffd`...)
				i += 5
				continue
			}
			dst = append(dst, text[i:i+n]...)
			i += n - 1
			continue
		case !quoted && isSpace(c):
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// mayHoldSurrogates finds every escape of a surrogate, and now and then something that only looks like one.
func mayHoldSurrogates(text []byte) bool {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 || i+2 >= len(text) {
			return false
		}
		if text[i+1] == 'u' && text[i+2]|0x20 == 'd' {
			return true
		}
		text = text[i+2:]
	}
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
