package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// layout is how the log lays out the rows of one version of a table: which column is at which place. It is for logs that do not
// name the columns themselves (binlog_row_metadata is not FULL), and immutable.
type layout []placed

// placed is a column at its place. The names are short because the state has them for every table.
type placed struct {
	Name string `json:"n"`
	// Type is columnType.text.
	Type     string `json:"t"`
	Nullable bool   `json:"null,omitempty"`
	// Own says that the server has made the column for itself: it is in the log, but in no catalog.
	Own bool `json:"own,omitempty"`

	typ *columnType
}

// The notations of layouts that are not known. A table is as good as new; or rows of it were left out, and all of it is owed.
const (
	layoutUnknown = ""
	layoutOwed    = "owed"
)

// layoutOf is the layout of a table as it is now.
func layoutOf(t *table) layout {
	var out layout
	for _, c := range t.columns {
		out = append(out, placed{Name: c.name, Type: c.typ.text(), Nullable: c.nullable, typ: c.typ})
	}
	for i := range t.hashes {
		typ := &columnType{kind: kindUint, name: "bigint", size: 8}
		out = append(out, placed{Name: "DB_ROW_HASH_" + strconv.Itoa(i+1), Type: typ.text(), Own: true, typ: typ})
	}
	return out
}

func (l layout) encode() string {
	text, _ := json.Marshal(l) // texts always encode
	return string(text)
}

// parseLayout reads a stored layout; nil if it is not known, or only derived.
func parseLayout(text string) (layout, error) {
	if !strings.HasPrefix(text, "[") {
		return nil, nil
	}
	var l layout
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return nil, fmt.Errorf("reading a stored layout: %w", err)
	}
	for i := range l {
		var err error
		if l[i].typ, err = parseType(l[i].Type); err != nil {
			return nil, fmt.Errorf("reading a stored layout: %w", err)
		}
	}
	return l, nil
}

// parseType reads what columnType.text has written.
func parseType(text string) (*columnType, error) {
	name := text
	if i := strings.IndexAny(text, " ("); i >= 0 {
		name = text[:i]
	}
	charset := ""
	switch name {
	case "char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set":
		if before, after, ok := cutLast(text, ' '); ok {
			text, charset = before, after
		}
	}
	return catalogType(name, text, charset)
}

// fits reports whether rows that the log describes so may be laid out so: as far as the log tells, nothing differs.
func (l layout) fits(m *binlog.Table, charsets *charsets) bool {
	if len(l) != len(m.Columns) {
		return false
	}
	for i := range l {
		c := &m.Columns[i]
		typ, meta := l[i].typ.logged(charsets)
		if c.Type != typ || meta >= 0 && c.Meta != meta || !l[i].Own && c.Nullable != l[i].Nullable {
			return false
		}
		switch k := l[i].typ.kind; k {
		case kindInt, kindUint:
			if m.Signs && c.Unsigned != (k == kindUint) {
				return false
			}
		case kindText:
			if m.Collated && !charsets.has(c.Collation, l[i].typ.charset) {
				return false
			}
		case kindBinary, kindBytes:
			if m.Collated && c.Collation != binaryCollation {
				return false
			}
		default:
		}
	}
	return true
}

// binaryCollation is the collation of bytes.
const binaryCollation = 63

// has reports whether a collation is one of a character set.
func (c *charsets) has(collation int, name string) bool {
	cs, err := c.of(collation)
	return err == nil && cs.name == name
}

// logged is how a table map describes a column of the type: its type there, and what stands beside it; below zero for nothing
// that would matter.
func (t *columnType) logged(charsets *charsets) (typ byte, meta int) {
	switch t.kind {
	case kindInt, kindUint:
		return map[int]byte{1: binlog.TypeTiny, 2: binlog.TypeShort, 3: binlog.TypeInt24, 4: binlog.TypeLong, 8: binlog.TypeLongLong}[t.size], 0
	case kindBit:
		return binlog.TypeBit, t.size
	case kindYear:
		return binlog.TypeYear, 0
	case kindDecimal:
		return binlog.TypeDecimal, t.size<<8 | t.scale
	case kindFloat:
		return binlog.TypeFloat, 4
	case kindDouble:
		return binlog.TypeDouble, 8
	case kindDate:
		return binlog.TypeDate, 0
	case kindDatetime:
		return binlog.TypeDatetime2, t.scale
	case kindTimestamp:
		return binlog.TypeTimestamp2, t.scale
	case kindTime:
		return binlog.TypeTime2, t.scale
	case kindText, kindBinary, kindBytes:
		return t.loggedText(charsets)
	case kindEnum:
		return binlog.TypeEnum, 1 + len(t.members)/256
	case kindSet:
		return binlog.TypeSet, setBytes(len(t.members))
	case kindJSON:
		return binlog.TypeJSON, -1
	case kindGeometry:
		return binlog.TypeGeometry, -1
	case kindVector:
		return binlog.TypeVector, -1
	default: // MariaDB's, which are strings of bytes to the log
		return binlog.TypeString, t.fixed()
	}
}

// loggedText is logged for text and bytes.
func (t *columnType) loggedText(charsets *charsets) (typ byte, meta int) {
	longest := 1
	if t.kind == kindText {
		if cs, err := charsets.named(t.charset); err == nil {
			longest = cs.longest
		}
	}
	switch t.name {
	case "char", "binary":
		return binlog.TypeString, t.size * longest
	case "varchar", "varbinary":
		return binlog.TypeVarchar, t.size * longest
	}
	for n, name := range blobNames {
		if name == strings.ReplaceAll(t.name, "text", "blob") {
			return binlog.TypeBlob, n
		}
	}
	return binlog.TypeBlob, 0
}

// setBytes is how many bytes a set of that many members takes.
func setBytes(members int) int {
	if n := (members + 7) / 8; n <= 4 {
		return max(n, 1)
	}
	return 8
}

// name gives the columns of a table map the names at their places, and returns their types.
func (l layout) name(m *binlog.Table) []*columnType {
	types := make([]*columnType, len(l))
	for i := range l {
		m.Columns[i].Name, m.Columns[i].Unsigned = l[i].Name, l[i].typ.kind == kindUint
		types[i] = l[i].typ
	}
	m.Named = true
	return types
}
