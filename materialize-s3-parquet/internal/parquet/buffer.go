package parquet

import (
	pq "github.com/parquet-go/parquet-go"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// buffer gathers one column's values of a row group.
type buffer struct {
	c     *column
	index int
	item  kind // the kind of a single value: the column's, or that of a list's items
	wide  bool
	// levels has an entry for every value, null and empty list of columns that are not simply required. In Parquet's terms
	// it is the definition level, plus nextInList for what continues a list.
	levels []byte
	// full is the level of a value.
	full byte
	// longs are values of fixed size, bytes and ends those of others; nulls are in neither.
	longs []int64
	bytes []byte
	ends  []uint32
	pack  []byte // scratch for a list's items
}

const nextInList = 0x80

func newBuffer(c *column, index int) *buffer {
	b := &buffer{c: c, index: index, item: c.kind}
	if c.kind == kindList {
		b.item = c.item
		b.full = 2
	}
	if !c.required {
		b.full++
	}
	b.wide = wide(b.item, c.digits)
	return b
}

// append takes the value of the next row and says by how many bytes the buffer grew.
func (b *buffer) append(e *tuple.Element) (int, error) {
	switch {
	case e.Kind == tuple.Nil && b.c.required:
		return 0, errNull
	case e.Kind == tuple.Nil:
		b.levels = append(b.levels, 0)
		return 1, nil
	case b.c.kind == kindList:
		return b.appendList(e)
	}
	n, err := b.appendValue(e)
	if err == nil && b.full > 0 {
		b.levels = append(b.levels, b.full)
		n++
	}
	return n, err
}

func (b *buffer) appendValue(e *tuple.Element) (int, error) {
	const long, end = 8, 4
	if !b.wide {
		v, err := longOf(b.c, b.item, e)
		if err == nil {
			b.longs = append(b.longs, v)
		}
		return long, err
	}
	before := len(b.bytes)
	out, err := appendBytesOf(b.bytes, b.c, b.item, e)
	if err != nil {
		return 0, err
	}
	b.bytes = out
	b.ends = append(b.ends, uint32(len(out)))
	return len(out) - before + end, nil
}

// appendList takes a JSON array of scalars.
func (b *buffer) appendList(e *tuple.Element) (int, error) {
	if e.Kind != tuple.Bytes || jsonscan.Kind(e.Bytes) != '[' {
		return 0, errNotList
	}
	items := jsonscan.NewElements(e.Bytes)
	grown := 0
	var next byte
	for {
		item, ok := items.Next()
		if !ok {
			break
		}
		element, err := b.element(item)
		if err != nil {
			return grown, err
		}
		n := 0
		if element.Kind == tuple.Nil {
			b.levels = append(b.levels, (b.full-1)|next)
		} else {
			if n, err = b.appendValue(&element); err != nil {
				return grown, err
			}
			b.levels = append(b.levels, b.full|next)
		}
		grown += n + 1
		next = nextInList
	}
	if next == 0 {
		b.levels = append(b.levels, b.full-2)
		grown++
	}
	return grown, nil
}

// element is an item of a list as the element that it is packed to. Most are short whole numbers, which are not worth the way through
// a tuple.
func (b *buffer) element(item []byte) (e tuple.Element, err error) {
	const safe = 18 // digits always fit
	if len(item) <= safe && (item[0] != '0' || len(item) == 1) {
		v, i := int64(0), 0
		for ; i < len(item) && item[i]-'0' <= 9; i++ {
			v = v*10 + int64(item[i]-'0')
		}
		if i == len(item) {
			return tuple.Element{Kind: tuple.Int, Int: v}, nil
		}
	}
	if b.pack, err = tuple.AppendJSON(b.pack[:0], item); err != nil {
		return e, err
	}
	e, _, err = tuple.Next(b.pack)
	return e, err
}

// appendNames takes a list of texts; which says which of them.
func (b *buffer) appendNames(names []absentField, which func(i int) bool) int {
	grown := 0
	var next byte
	for i := range names {
		if !which(i) {
			continue
		}
		b.bytes = append(b.bytes, names[i].name...)
		b.ends = append(b.ends, uint32(len(b.bytes)))
		b.levels = append(b.levels, b.full|next)
		grown += len(names[i].name) + 5
		next = nextInList
	}
	if next == 0 {
		b.levels = append(b.levels, b.full-2)
		grown++
	}
	return grown
}

func (b *buffer) reset() {
	b.levels, b.longs, b.bytes, b.ends = b.levels[:0], b.longs[:0], b.bytes[:0], b.ends[:0]
}

// entries is how many values, nulls and empty lists there are.
func (b *buffer) entries() int {
	switch {
	case b.full > 0:
		return len(b.levels)
	case b.wide:
		return len(b.ends)
	default:
		return len(b.longs)
	}
}

// drain hands the buffer's values to the library, in portions that end with a row, and ends a page whenever it has bytes or
// rows enough. scratch is used for the portions.
func (b *buffer) drain(into *pq.ColumnWriter, scratch []pq.Value, pageBytes int) error {
	const pageRows = 20_000 // what page indexes are useful for
	n := b.entries()
	value, rows, bytes := 0, 0, 0
	for at := 0; at < n; {
		portion := scratch[:0]
		size := 0
		for ; at < n && (len(portion) < cap(scratch) && size < pageBytes || b.continues(at)); at++ {
			var v pq.Value
			level, repetition := b.level(at)
			if level == b.full {
				v = b.value(value)
				size += b.size(value)
				value++
			}
			portion = append(portion, v.Level(repetition, int(level), b.index))
		}
		wrote, err := into.WriteRowValues(portion)
		if err != nil {
			return err
		}
		rows += wrote
		if bytes += size; bytes >= pageBytes || rows >= pageRows {
			if err := into.Flush(); err != nil {
				return err
			}
			rows, bytes = 0, 0
		}
	}
	return into.Flush()
}

// continues reports whether an entry belongs to the same row as the one before.
func (b *buffer) continues(at int) bool { return b.full > 0 && b.levels[at]&nextInList != 0 }

func (b *buffer) size(value int) int {
	const long = 8
	if !b.wide {
		return long
	}
	return len(b.slice(value))
}

func (b *buffer) slice(value int) []byte {
	start := uint32(0)
	if value > 0 {
		start = b.ends[value-1]
	}
	return b.bytes[start:b.ends[value]]
}

// level is an entry's definition level, and its repetition level.
func (b *buffer) level(at int) (definition byte, repetition int) {
	if b.full == 0 {
		return 0, 0
	}
	level := b.levels[at]
	return level &^ nextInList, int(level >> 7)
}

func (b *buffer) value(i int) pq.Value {
	switch b.item {
	case kindBool:
		return pq.BooleanValue(b.longs[i] != 0)
	case kindDate:
		return pq.Int32Value(int32(b.longs[i]))
	case kindDouble:
		return pq.DoubleValue(floatOf(b.longs[i]))
	case kindDecimal:
		switch {
		case b.wide:
			return pq.FixedLenByteArrayValue(b.slice(i))
		case b.c.digits <= shortDigits:
			return pq.Int32Value(int32(b.longs[i]))
		}
		return pq.Int64Value(b.longs[i])
	case kindInt, kindTime, kindTimestamp:
		return pq.Int64Value(b.longs[i])
	case kindUUID:
		return pq.FixedLenByteArrayValue(b.slice(i))
	default:
		return pq.ByteArrayValue(b.slice(i))
	}
}
