package codec

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

// appendCSV appends the fields of one line (RFC 4180) as an array of strings. A line break at the end is left out, one
// within quotes is text; more than one line is no line.
func appendCSV(dst, data []byte) ([]byte, error) {
	if !utf8.Valid(data) {
		return dst, errUTF8
	}
	if n := len(data); n > 0 && data[n-1] == '\n' {
		data = data[:n-1]
		data = bytes.TrimSuffix(data, []byte{'\r'})
	}
	dst = append(dst, '[')
	for n := 1; ; n++ {
		field, rest, err := csvField(data)
		if err != nil {
			return dst, fmt.Errorf("it is no line of CSV: field %d %w", n, err)
		}
		dst = rowjson.AppendString(dst, field)
		if rest == nil {
			return append(dst, ']'), nil
		}
		dst = append(dst, ',')
		data = rest
	}
}

// csvField cuts the first field off a line. rest is nil behind the last one.
func csvField(line []byte) (field, rest []byte, err error) {
	if len(line) == 0 || line[0] != '"' {
		end := bytes.IndexByte(line, ',')
		if end < 0 {
			field = line
		} else {
			field, rest = line[:end], line[end+1:]
		}
		if bytes.ContainsAny(field, "\"\r\n") {
			return nil, nil, errors.New("holds a quote or a line break, but is not in quotes")
		}
		return field, rest, nil
	}
	line = line[1:]
	// Quotes are doubled within quotes: a field without them is a piece of the line.
	copied := false
	for {
		end := bytes.IndexByte(line, '"')
		if end < 0 {
			return nil, nil, errors.New("has no closing quote")
		}
		doubled := end+1 < len(line) && line[end+1] == '"'
		switch {
		case doubled:
			field = append(field, line[:end+1]...)
			copied = true
			line = line[end+2:]
			continue
		case copied:
			field = append(field, line[:end]...)
		default:
			field = line[:end]
		}
		line = line[end+1:]
		break
	}
	switch {
	case len(line) == 0:
		return field, nil, nil
	case line[0] == ',':
		return field, line[1:], nil
	default:
		return nil, nil, errors.New("goes on behind its closing quote")
	}
}
