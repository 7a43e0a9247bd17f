package frame

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

const (
	// strayHint is the usual reason for bytes that are not a frame.
	strayHint = "only messages of the protocol belong here, and what a connector prints belongs on stderr"
	// codecHint is the other one.
	codecHint = "this looks like the codec json where proto is expected: SLUICE_CODEC or FLOW_RUNTIME_CODEC chooses, in the connector's environment"
)

// notAFrame is the error for text where a Proto frame should begin.
func (r *Reader) notAFrame(waiting []byte) error {
	hint := strayHint
	if waiting[0] == '{' {
		hint = codecHint
	}
	return fmt.Errorf("message %d at byte %d is text and not a frame: it begins %s; %s",
		r.count+1, r.offset, excerpt(waiting), hint)
}

// isText tells whether a Proto stream holds text where a frame should begin. The length's four bytes are printable, so
// they claim 150 MB or more; and so is all that has arrived behind them. A real message of that size begins with
// a field whose length takes several bytes above 127.
func isText(waiting []byte) bool {
	return len(waiting) > headerSize && printable(waiting)
}

// printable tells whether b holds nothing but ASCII text.
func printable(b []byte) bool {
	for _, c := range b[:min(len(b), 64)] {
		if (c < ' ' || c > '~') && c != '\n' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}

// isWritten tells whether b looks like what somebody wrote, in any script. Its end may be cut within a character.
func isWritten(b []byte) bool {
	for i, c := range string(b) {
		switch {
		case c == utf8.RuneError && i >= len(b)-utf8.UTFMax+1:
		case c == utf8.RuneError, !unicode.IsPrint(c) && !unicode.IsSpace(c):
			return false
		}
	}
	return true
}

// excerpt shows the beginning of a stream's bytes in an error. Of what may be a message it shows only a few, since
// messages carry passwords.
func excerpt(b []byte) string {
	const few, many = 8, 64
	if !isWritten(b[:min(len(b), many)]) {
		return cut("% x", b, few)
	}
	if len(b) > 0 && b[0] == '{' {
		return cut("%q", b, few)
	}
	return cut("%q", b, many)
}

func cut(format string, b []byte, most int) string {
	if len(b) <= most {
		return fmt.Sprintf(format, b)
	}
	return fmt.Sprintf(format, b[:most]) + "…"
}
