package frame

import "fmt"

// strayHint is the usual reason for bytes that are not a frame.
const strayHint = "only protocol messages may be written to stdout, logs belong on stderr"

// isText tells whether a Proto stream holds text where a frame should begin. The length's four bytes are printable, so
// they claim 150 MB or more; and so is all that has arrived behind them. A real message of that size begins with
// a field whose length takes several bytes above 127.
func isText(waiting []byte) bool {
	if len(waiting) <= headerSize {
		return false
	}
	for _, c := range waiting[:min(len(waiting), 64)] {
		printable := ' ' <= c && c <= '~' || c == '\n' || c == '\t' || c == '\r'
		if !printable {
			return false
		}
	}
	return true
}

func (r *Reader) notAFrame(waiting []byte) error {
	hint := strayHint
	if waiting[0] == '{' {
		hint = "this looks like the codec json, while proto is being read"
	}
	return fmt.Errorf("message %d at byte %d is text and not a frame: %s; %s", r.count+1, r.offset, excerpt(waiting), hint)
}

// excerpt shows the beginning of bytes in an error.
func excerpt(b []byte) string {
	const most = 48
	if len(b) > most {
		return fmt.Sprintf("%q…", b[:most])
	}
	return fmt.Sprintf("%q", b)
}
