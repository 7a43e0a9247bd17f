package parquet

import (
	"bytes"

	pq "github.com/parquet-go/parquet-go"
	pqformat "github.com/parquet-go/parquet-go/format"
)

// pageIndex is the page index of a column of bytes for which the library writes a wrong one. Of a column without bounds it
// says of every page that it holds the empty value only, or has fewer bounds than pages, and so it has of UUIDs where a page
// is all null: readers that skip pages would miss rows, or fail. Every page has bounds here, if need be such that any
// value is within.
type pageIndex struct {
	least, most []byte // bounds of pages whose own are not known

	nullPages  []bool
	nullCounts []int64
	mins, maxs [][]byte
}

// pageIndex returns the index that a column needs; ok is false if the library's own will do.
func (c *column) pageIndex() (index pageIndex, ok bool) {
	const decimal, long = 16, 256
	switch {
	case c.kind == kindUUID:
		return pageIndex{}, !c.required
	case c.kind == kindDecimal && c.boundless(): // signed
		least, most := make([]byte, decimal), bytes.Repeat([]byte{0xff}, decimal)
		least[0], most[0] = 0x80, 0x7f
		return pageIndex{least: least, most: most}, true
	case c.kind == kindBinary: // nothing is greater than all bytes; what begins with that many of the greatest is no data
		return pageIndex{most: bytes.Repeat([]byte{0xff}, long)}, true
	case c.boundless():
		return pageIndex{most: []byte{0xff}}, true // no text has that byte
	}
	return pageIndex{}, false
}

// indexed is a type with such an index.
type indexed struct {
	pq.Type
	index pageIndex
}

func (t indexed) NewColumnIndexer(int) pq.ColumnIndexer {
	index := t.index
	return &index
}

// Reset implements pq.ColumnIndexer. What ColumnIndex returned is still in use.
func (x *pageIndex) Reset() { *x = pageIndex{least: x.least, most: x.most} }

// IndexPage implements pq.ColumnIndexer.
func (x *pageIndex) IndexPage(values, nulls int64, least, most pq.Value) {
	lo, hi := x.least, x.most
	switch {
	case values == nulls:
		lo, hi = nil, nil
	case !least.IsNull():
		lo, hi = bytes.Clone(least.ByteArray()), bytes.Clone(most.ByteArray())
	}
	x.nullPages, x.nullCounts = append(x.nullPages, values == nulls), append(x.nullCounts, nulls)
	x.mins, x.maxs = append(x.mins, lo), append(x.maxs, hi)
}

// ColumnIndex implements pq.ColumnIndexer.
func (x *pageIndex) ColumnIndex() pqformat.ColumnIndex {
	return pqformat.ColumnIndex{NullPages: x.nullPages, NullCounts: x.nullCounts, MinValues: x.mins, MaxValues: x.maxs, BoundaryOrder: pqformat.Unordered}
}
