package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// charset is a character set: how its bytes become UTF-8. Both the log and scans give a column's own bytes, so whatever this does
// is the same for both. It is immutable.
type charset struct {
	name    string
	longest int // bytes of a character
	// decode appends text as UTF-8. Bytes that are no character become U+FFFD.
	decode func(dst, text []byte) ([]byte, error)
	utf8   bool // decode only copies
}

// charsets are those of the server, by collation. Their methods may be called from many goroutines.
type charsets struct {
	mu          sync.Mutex
	byCollation map[int]*charset
	byName      map[string]*charset
}

// errCharset says that a column's character set is not known.
var errCharset = errors.New("the character set is not known")

func (c *charsets) of(collation int) (*charset, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cs := c.byCollation[collation]; cs != nil {
		return cs, nil
	}
	return nil, usererr.New(errCharset, "The log has text in a collation (number %d) that this server does not list.", collation)
}

func (c *charsets) named(name string) (*charset, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cs := c.byName[name]; cs != nil {
		return cs, nil
	}
	return nil, usererr.New(errCharset, "Text in the character set %q cannot be captured.", name)
}

// load reads which collations and character sets the server has. The characters of single bytes are asked from the server, so
// that its idea of them counts (its latin1 is Windows' code page 1252, and more).
func (c *charsets) load(ctx context.Context, s *session, mariadb bool) error {
	names, err := s.texts(ctx, "SELECT CHARACTER_SET_NAME, MAXLEN FROM information_schema.CHARACTER_SETS")
	if err != nil {
		return fmt.Errorf("listing character sets: %w", err)
	}
	byName := map[string]*charset{}
	for _, row := range names {
		longest, err := strconv.Atoi(row[1])
		if err != nil || longest < 1 {
			return fmt.Errorf("listing character sets: %q has characters of %q bytes", row[0], row[1])
		}
		cs := &charset{name: row[0], longest: longest}
		switch {
		case row[0] == "utf8" || row[0] == "utf8mb3" || row[0] == "utf8mb4" || row[0] == "ascii" || row[0] == "binary":
			cs.decode, cs.utf8 = func(dst, text []byte) ([]byte, error) { return append(dst, text...), nil }, true
		case longest == 1:
			if cs.decode, err = singleBytes(ctx, s, row[0]); err != nil {
				return err
			}
		default:
			cs.decode = manyBytes(row[0])
		}
		byName[row[0]] = cs
	}
	query := "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS WHERE ID IS NOT NULL"
	if mariadb {
		query += " AND CHARACTER_SET_NAME IS NOT NULL UNION SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY"
	}
	rows, err := s.texts(ctx, query)
	if err != nil && mariadb { // before 10.10 the second list has no numbers
		rows, err = s.texts(ctx, "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS")
	}
	if err != nil {
		return fmt.Errorf("listing collations: %w", err)
	}
	byCollation := map[int]*charset{}
	for _, row := range rows {
		id, err := strconv.Atoi(row[0])
		if err != nil {
			return fmt.Errorf("listing collations: %w", err)
		}
		byCollation[id] = byName[row[1]]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byName, c.byCollation = byName, byCollation
	return nil
}

// singleBytes makes a decoder of the server's own table.
func singleBytes(ctx context.Context, s *session, name string) (func(dst, text []byte) ([]byte, error), error) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	// One by one, because the server may write several bytes for one, and leaves the boundaries out.
	var table [256][]byte
	sql := []byte("SELECT ")
	for i, b := range all {
		if i > 0 {
			sql = append(sql, ',')
		}
		sql = fmt.Appendf(sql, "HEX(CONVERT(_%s X'%02x' USING utf8mb4))", name, b)
	}
	row, err := s.row(ctx, string(sql))
	if err != nil || len(row) != 256 {
		return nil, fmt.Errorf("reading the characters of %s: %w", name, err)
	}
	for i, h := range row {
		if table[i], err = fromHex(h); err != nil {
			return nil, fmt.Errorf("reading the characters of %s: %w", name, err)
		}
		if i >= 0x80 && string(table[i]) == "?" {
			table[i] = []byte("\ufffd")
		}
	}
	return func(dst, text []byte) ([]byte, error) {
		for _, b := range text {
			if b < 0x80 && len(table[b]) == 1 {
				dst = append(dst, table[b][0])
				continue
			}
			dst = append(dst, table[b]...)
		}
		return dst, nil
	}, nil
}

func fromHex(text string) ([]byte, error) {
	out := make([]byte, 0, len(text)/2)
	for i := 0; i+1 < len(text); i += 2 {
		b, err := strconv.ParseUint(text[i:i+2], 16, 8)
		if err != nil {
			return nil, fmt.Errorf("reading hexadecimal digits: %w", err)
		}
		out = append(out, byte(b))
	}
	return out, nil
}

// manyBytes is the decoder of a character set with characters of several bytes; one for sets that are not known refuses all text
// beyond ASCII.
func manyBytes(name string) func(dst, text []byte) ([]byte, error) {
	var e encoding.Encoding
	switch name {
	case "ucs2", "utf16":
		return func(dst, text []byte) ([]byte, error) { return fromUTF16(dst, text, 0), nil }
	case "utf16le":
		return func(dst, text []byte) ([]byte, error) { return fromUTF16(dst, text, 1), nil }
	case "utf32":
		return func(dst, text []byte) ([]byte, error) { return fromUTF32(dst, text), nil }
	case "gbk", "gb2312":
		e = simplifiedchinese.GBK
	case "gb18030":
		e = simplifiedchinese.GB18030
	case "big5":
		e = traditionalchinese.Big5
	case "sjis", "cp932":
		e = japanese.ShiftJIS
	case "ujis", "eucjpms":
		e = japanese.EUCJP
	case "euckr":
		e = korean.EUCKR
	}
	return func(dst, text []byte) ([]byte, error) {
		if isASCII(text) {
			return append(dst, text...), nil
		}
		if e == nil {
			return dst, usererr.New(errCharset, "Text in the character set %q cannot be captured.", name)
		}
		out, err := e.NewDecoder().Bytes(text)
		if err != nil {
			return dst, fmt.Errorf("decoding text in %s: %w", name, err)
		}
		return append(dst, out...), nil
	}
}

func isASCII(text []byte) bool {
	for _, b := range text {
		if b >= 0x80 {
			return false
		}
	}
	return true
}

// fromUTF16 decodes pairs of bytes, the higher one at the place high.
func fromUTF16(dst, text []byte, high int) []byte {
	for ; len(text) >= 2; text = text[2:] {
		r := rune(text[high])<<8 | rune(text[1-high])
		if utf16.IsSurrogate(r) && len(text) >= 4 {
			if pair := utf16.DecodeRune(r, rune(text[2+high])<<8|rune(text[3-high])); pair != utf8.RuneError {
				dst = utf8.AppendRune(dst, pair)
				text = text[2:]
				continue
			}
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

func fromUTF32(dst, text []byte) []byte {
	for ; len(text) >= 4; text = text[4:] {
		dst = utf8.AppendRune(dst, rune(uint32(text[0])<<24|uint32(text[1])<<16|uint32(text[2])<<8|uint32(text[3]))) //nolint:gosec // what is no character becomes U+FFFD
	}
	return dst
}
