package binlog

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrColumnType says that the log has a column of a type that is not known here.
var ErrColumnType = errors.New("a column's type is not known")

// ErrPartialImage says that rows lack columns: binlog_row_image is not FULL.
var ErrPartialImage = errors.New("rows lack columns")

// Rows are those of one rows event. The zero value has none.
type Rows struct {
	TableID  uint64
	rest     []byte
	columns  int
	present  []byte // bits of the columns that (old) rows have
	presentN []byte // … that new rows have, in updates
	update   bool
	diffs    []byte // bits of the columns for which the last new row has changes of the old value; nil unless there may be such
	second   bool   // the next row is the new one of an update; only kept up by NextPart
}

// ParseRows reads the body of a rows event of any of the types, whose rows it keeps a reference to; those of compressed ones are
// new memory.
func ParseRows(typ Type, body []byte) (Rows, error) {
	c := cursor{b: body}
	r := Rows{TableID: c.uint(6)}
	c.skip(2)
	switch typ {
	case WriteRows, UpdateRows, DeleteRows, PartialUpdateRows:
		extra := int(c.uint(2))
		c.skip(extra - 2)
	default:
	}
	n := c.packed()
	if n > 4096 {
		return Rows{}, fmt.Errorf("%w: rows of %d columns", ErrFormat, n)
	}
	r.columns = int(n)
	r.present = c.take((r.columns + 7) / 8)
	switch typ {
	case UpdateRows, UpdateRowsV1, UpdateRowsCompressed, PartialUpdateRows:
		r.update = true
		r.presentN = c.take((r.columns + 7) / 8)
		if typ == PartialUpdateRows {
			r.diffs = make([]byte, (r.columns+7)/8)
		}
	default:
	}
	if c.failed {
		return Rows{}, fmt.Errorf("%w: a rows event of %d bytes", ErrFormat, len(body))
	}
	r.rest = c.b
	switch typ {
	case WriteRowsCompressed, UpdateRowsCompressed, DeleteRowsCompressed:
		var err error
		r.rest, err = Decompress(c.b)
		return r, err
	default:
		return r, nil
	}
}

// Whole reports whether the rows have all columns, with their values.
func (r *Rows) Whole() bool {
	return r.diffs == nil && all(r.present, r.columns) && (!r.update || all(r.presentN, r.columns))
}

func all(bits []byte, n int) bool {
	for i := range n {
		if bits[i/8]&(1<<(i%8)) == 0 {
			return false
		}
	}
	return true
}

// More reports whether there is another row.
func (r *Rows) More() bool { return len(r.rest) > 0 }

// Next takes the next row apart. Of an update, the old row comes first, then the new one. The values are slices of the event,
// appended to vals: without their length where they have one; nil is null.
func (r *Rows) Next(t *Table, vals [][]byte) ([][]byte, error) {
	if len(t.Columns) != r.columns {
		return vals, fmt.Errorf("%w: a row of table %s.%s has %d columns instead of %d", ErrFormat, t.Schema, t.Name, r.columns, len(t.Columns))
	}
	bitmap := (r.columns + 7) / 8
	if len(r.rest) < bitmap {
		return vals, fmt.Errorf("%w: a row of table %s.%s ends early", ErrFormat, t.Schema, t.Name)
	}
	nulls, b := r.rest[:bitmap], r.rest[bitmap:]
	for i := range t.Columns {
		if nulls[i>>3]&(1<<(i&7)) != 0 {
			vals = append(vals, nil)
			continue
		}
		from, to := t.Columns[i].extent(b)
		if to > len(b) || from > to {
			return vals, fmt.Errorf("%w: a row of table %s.%s ends in column %d", ErrFormat, t.Schema, t.Name, i+1)
		}
		v, err := t.Columns[i].value(b[from:to:to])
		if err != nil {
			return vals, fmt.Errorf("reading a row of table %s.%s, column %d: %w", t.Schema, t.Name, i+1, err)
		}
		vals = append(vals, v)
		b = b[to:]
	}
	r.rest = b
	return vals, nil
}

// tooShort is an extent that no row has.
const tooShort = int(^uint(0) >> 1)

// extent is where the value at the front of b begins, behind its length, and where it ends.
func (col *Column) extent(b []byte) (from, to int) {
	switch col.Type {
	case TypeTiny, TypeYear:
		return 0, 1
	case TypeShort:
		return 0, 2
	case TypeInt24, TypeDate:
		return 0, 3
	case TypeLong, TypeFloat:
		return 0, 4
	case TypeLongLong, TypeDouble:
		return 0, 8
	case TypeVarchar, TypeVarString, TypeString:
		longest := col.Meta
		if col.Compressed {
			longest++ // the byte that says how
		}
		if longest < 256 {
			return prefixed(b, 1)
		}
		return prefixed(b, 2)
	case TypeBlob, TypeGeometry, TypeVector, TypeJSON:
		return prefixed(b, col.Meta)
	case TypeDatetime2:
		return 0, 5 + (col.Meta+1)/2
	case TypeTimestamp2:
		return 0, 4 + (col.Meta+1)/2
	case TypeTime2:
		return 0, 3 + (col.Meta+1)/2
	case TypeDecimal:
		return 0, DecimalSize(col.Meta>>8, col.Meta&0xff)
	case TypeBit:
		return 0, (col.Meta + 7) / 8
	case TypeEnum, TypeSet:
		return 0, col.Meta
	case TypeNull:
		return 0, 0
	default:
		return 0, tooShort
	}
}

func prefixed(b []byte, n int) (from, to int) {
	if len(b) < n {
		return 0, tooShort
	}
	switch n {
	case 1:
		return 1, 1 + int(b[0])
	case 2:
		return 2, 2 + int(binary.LittleEndian.Uint16(b))
	case 3:
		return 3, 3 + int(b[0]) + int(b[1])<<8 + int(b[2])<<16
	case 4:
		return 4, 4 + int(binary.LittleEndian.Uint32(b))
	default:
		return 0, tooShort
	}
}

// digitBytes is how many bytes up to nine decimal digits take.
var digitBytes = [...]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4} //nolint:gochecknoglobals // a table

// DecimalSize is how many bytes a decimal takes.
func DecimalSize(precision, scale int) int {
	whole := precision - scale
	if whole < 0 {
		return tooShort
	}
	return whole/9*4 + digitBytes[whole%9] + scale/9*4 + digitBytes[scale%9]
}
