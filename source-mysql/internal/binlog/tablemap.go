package binlog

import (
	"fmt"
)

// The types of columns in the log, where they are told apart here.
const (
	TypeTiny       = 1
	TypeShort      = 2
	TypeLong       = 3
	TypeFloat      = 4
	TypeDouble     = 5
	TypeNull       = 6
	TypeLongLong   = 8
	TypeInt24      = 9
	TypeDate       = 10
	TypeYear       = 13
	TypeVarchar    = 15
	TypeBit        = 16
	TypeTimestamp2 = 17
	TypeDatetime2  = 18
	TypeTime2      = 19
	TypeVector     = 242
	TypeJSON       = 245
	TypeDecimal    = 246
	TypeEnum       = 247
	TypeSet        = 248
	TypeBlob       = 252
	TypeVarString  = 253
	TypeString     = 254
	TypeGeometry   = 255
)

// MariaDB's types of compressed columns.
const (
	typeBlobCompressed    = 140
	typeVarcharCompressed = 141
)

// Column is a column as the log describes it.
type Column struct {
	Name string // empty unless the log has full metadata
	// Type is the column's real type: strings in fixed columns that are enumerations or sets have these types.
	Type byte
	// Meta is, by type: the number of bytes that a value's length takes (blobs, JSON, geometry), the longest value in bytes
	// (strings), the number of bytes of a value (enumerations, sets), precision<<8|scale (decimal), bits (bit), digits of a
	// fraction of a second (temporal types).
	Meta     int
	Unsigned bool
	Nullable bool
	// Compressed says that MariaDB keeps the column's values compressed, in the log too. Type and Meta are as without that.
	Compressed bool
	// Collation is the server's number of the collation, of columns with text; 63 is that of bytes.
	Collation int
	// Members are those of an enumeration or a set, in its character set; nil unless the log has full metadata.
	Members [][]byte
	InKey   bool // part of the primary key
}

// Table is a table map event: what the rows that follow are like. It keeps nothing of the event.
type Table struct {
	ID           uint64
	Schema, Name string
	Columns      []Column
	Named        bool // the log has the columns' names: binlog_row_metadata = FULL
	Signs        bool // the log says which numbers have no sign: binlog_row_metadata = MINIMAL or FULL
	Collated     bool // the log has the collations of columns with text: the same

	mariadb bool
}

// TableID reads the number of the table from the body of a table map or a rows event.
func TableID(body []byte) (uint64, error) {
	c := cursor{b: body}
	id := c.uint(6)
	if c.failed {
		return 0, fmt.Errorf("%w: a table's event of %d bytes", ErrFormat, len(body))
	}
	return id, nil
}

// TableName reads the names of schema and table from the body of a table map event, without copying.
func TableName(body []byte) (schema, name []byte, err error) {
	c := cursor{b: body}
	c.skip(8)
	schema = c.take(int(c.byte()))
	c.skip(1)
	name = c.take(int(c.byte()))
	if c.failed {
		return nil, nil, fmt.Errorf("%w: a table map of %d bytes", ErrFormat, len(body))
	}
	return schema, name, nil
}

// ParseTable reads the body of a table map event of MySQL or MariaDB: these differ in which columns have a collation.
func ParseTable(body []byte, mariadb bool) (*Table, error) {
	c := cursor{b: body}
	t := &Table{ID: c.uint(6), mariadb: mariadb}
	c.skip(2)
	t.Schema = string(c.take(int(c.byte())))
	c.skip(1)
	t.Name = string(c.take(int(c.byte())))
	c.skip(1)
	count := c.packed()
	if count > 4096 {
		return nil, fmt.Errorf("%w: a table of %d columns", ErrFormat, count)
	}
	types := c.take(int(count))
	meta := cursor{b: c.packedBytes()}
	nullable := c.take((int(count) + 7) / 8)
	t.Columns = make([]Column, count)
	for i, typ := range types {
		t.Columns[i].Nullable = i/8 < len(nullable) && nullable[i/8]&(1<<(i%8)) != 0
		if err := t.Columns[i].parseMeta(typ, &meta); err != nil {
			return nil, fmt.Errorf("reading the description of table %s.%s: %w", t.Schema, t.Name, err)
		}
	}
	if c.failed || meta.failed {
		return nil, fmt.Errorf("%w: a table map of %d bytes", ErrFormat, len(body))
	}
	return t, t.parseOptional(c)
}

// maxDigits is how many digits a decimal has at most, by the server's format; it allows fewer.
const maxDigits = 81

// parseMeta reads what the log says of a column's type beyond its number.
func (col *Column) parseMeta(typ byte, c *cursor) error {
	col.Type = typ
	switch typ {
	case TypeTiny, TypeShort, TypeLong, TypeNull, TypeLongLong, TypeInt24, TypeDate, TypeYear:
	case TypeFloat, TypeDouble, TypeBlob, TypeGeometry, TypeVector, TypeJSON:
		col.Meta = int(c.byte())
	case TypeTimestamp2, TypeDatetime2, TypeTime2:
		if col.Meta = int(c.byte()); col.Meta > 6 {
			return fmt.Errorf("%w: %d digits of a fraction of a second", ErrFormat, col.Meta)
		}
	case TypeVarchar, TypeVarString:
		col.Meta = int(c.uint(2))
	case typeBlobCompressed:
		col.Type, col.Meta, col.Compressed = TypeBlob, int(c.byte()), true
	case typeVarcharCompressed:
		col.Type, col.Meta, col.Compressed = TypeVarchar, int(c.uint(2))-1, true
	case TypeBit:
		bits := int(c.byte())
		col.Meta = 8*int(c.byte()) + bits
	case TypeDecimal:
		precision, scale := int(c.byte()), int(c.byte())
		if precision > maxDigits || scale > precision {
			return fmt.Errorf("%w: a decimal of %d digits, %d of them behind the point", ErrFormat, precision, scale)
		}
		col.Meta = precision<<8 | scale
	case TypeString:
		// The first byte is the real type; two of its bits, inverted, are the upper ones of a length above 255.
		actual, length := c.byte(), int(c.byte())
		if actual == TypeEnum || actual == TypeSet {
			col.Type = actual
		} else {
			length |= int(^actual&0x30) << 4
		}
		col.Meta = length
	default:
		return fmt.Errorf("%w: column type %d", ErrColumnType, typ)
	}
	return nil
}

// The kinds of optional metadata.
const (
	optSignedness = iota + 1
	optDefaultCharset
	optColumnCharset
	optNames
	optSetMembers
	optEnumMembers
	_ // geometry types
	optPrimaryKey
	optPrimaryKeyPrefix
	optEnumDefaultCharset
	optEnumColumnCharset
)

// parseOptional reads what follows the columns' types.
func (t *Table) parseOptional(c cursor) error {
	for len(c.b) > 0 && !c.failed {
		kind := c.byte()
		v := cursor{b: c.packedBytes()}
		if err := t.optional(kind, &v); err != nil {
			return err
		}
		c.failed = c.failed || v.failed
	}
	if c.failed {
		return fmt.Errorf("%w: the description of table %s.%s", ErrFormat, t.Schema, t.Name)
	}
	return nil
}

func (t *Table) optional(kind byte, v *cursor) error {
	switch kind {
	case optSignedness:
		t.Signs = true
		t.signedness(v.b)
	case optDefaultCharset:
		t.Collated = true
		t.defaultCollation(v, t.isText)
	case optColumnCharset:
		t.Collated = true
		t.collations(v, t.isText)
	case optEnumDefaultCharset:
		t.defaultCollation(v, isChoice)
	case optEnumColumnCharset:
		t.collations(v, isChoice)
	case optNames:
		for i := range t.Columns {
			t.Columns[i].Name = string(v.take(int(v.byte())))
		}
		t.Named = !v.failed
	case optSetMembers:
		t.members(v, TypeSet)
	case optEnumMembers:
		t.members(v, TypeEnum)
	case optPrimaryKey, optPrimaryKeyPrefix:
		for len(v.b) > 0 && !v.failed {
			i := v.packed()
			if kind == optPrimaryKeyPrefix {
				v.packed()
			}
			if i >= uint64(len(t.Columns)) {
				return fmt.Errorf("%w: column %d of table %s.%s", ErrFormat, i, t.Schema, t.Name)
			}
			t.Columns[i].InKey = true
		}
	default: // made to be passed over
	}
	return nil
}

// signedness has a bit for each numeric column, the first one highest.
func (t *Table) signedness(bits []byte) {
	n := 0
	for i := range t.Columns {
		switch t.Columns[i].Type {
		case TypeTiny, TypeShort, TypeInt24, TypeLong, TypeLongLong, TypeDecimal, TypeFloat, TypeDouble, TypeYear:
		default:
			continue
		}
		if n/8 < len(bits) {
			t.Columns[i].Unsigned = bits[n/8]&(0x80>>(n%8)) != 0
		}
		n++
	}
}

func (t *Table) isText(col *Column) bool {
	switch col.Type {
	case TypeVarchar, TypeVarString, TypeString, TypeBlob:
		return true
	case TypeGeometry:
		return t.mariadb
	default:
		return false
	}
}

func isChoice(col *Column) bool { return col.Type == TypeEnum || col.Type == TypeSet }

// defaultCollation reads the collation of most columns with text, and the others by their number among these.
func (t *Table) defaultCollation(v *cursor, has func(*Column) bool) {
	usual := int(v.packed()) //nolint:gosec // a small number
	others := map[uint64]int{}
	for len(v.b) > 0 && !v.failed {
		i := v.packed()
		others[i] = int(v.packed()) //nolint:gosec // a small number
	}
	n := uint64(0)
	for i := range t.Columns {
		if !has(&t.Columns[i]) {
			continue
		}
		t.Columns[i].Collation = usual
		if other, ok := others[n]; ok {
			t.Columns[i].Collation = other
		}
		n++
	}
}

// collations reads the collation of every column with text.
func (t *Table) collations(v *cursor, has func(*Column) bool) {
	for i := range t.Columns {
		if has(&t.Columns[i]) {
			t.Columns[i].Collation = int(v.packed()) //nolint:gosec // a small number
		}
	}
}

func (t *Table) members(v *cursor, typ byte) {
	for i := range t.Columns {
		if t.Columns[i].Type != typ {
			continue
		}
		n := v.packed()
		members := make([][]byte, 0, min(n, 65535))
		for range n {
			if v.failed {
				return
			}
			members = append(members, append([]byte{}, v.packedBytes()...))
		}
		t.Columns[i].Members = members
	}
}
