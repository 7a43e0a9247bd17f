package cdc

import (
	"context"
)

// chunk is a part of a table on its way from a worker to the transaction: rows that were read in one snapshot, as encoded
// documents. A worker fills it; when its job has ended it belongs to the reader. Chunks are used again.
type chunk struct {
	table *table
	span  *span    // nil if it is read by key
	keys  [][]byte // to be read, if span is nil
	ask   Chunk
	// base is a snapshot that was known before the scan began: what it sees, the chunk's snapshot sees.
	base Visibility

	docs    []byte // one after the other
	ends    []int
	keyData []byte // the rows' keys; none for a table without
	keyEnds []int
	scanned *Scanned
	err     error

	snapshot Visibility // once the reader has it
	fenced   bool       // the stream has passed scanned.High
	void     bool       // to be thrown away
}

// run reads the chunk.
func (c *chunk) run(ctx context.Context, d Driver) {
	if c.span != nil {
		c.scanned, c.err = d.Scan(ctx, c.ask, c.add)
	} else {
		c.scanned, c.err = d.(KeyScanner).ScanKeys(ctx, c.ask, c.keys, c.add) //nolint:errcheck // holes are only made with one
	}
	if c.err == nil && (c.scanned == nil || c.scanned.Snapshot == nil) {
		c.err = errNoSnapshot
	}
}

// add encodes one row.
func (c *chunk) add(row Row) (err error) {
	if c.docs, err = appendSnapshot(c.docs, row); err != nil {
		return err
	}
	if len(c.ask.Table.Key) > 0 {
		if c.keyData, err = row.AppendKey(c.keyData); err != nil {
			return err
		}
		c.keyEnds = append(c.keyEnds, len(c.keyData))
	}
	c.ends = append(c.ends, len(c.docs))
	return nil
}

// doc is the i-th row's document.
func (c *chunk) doc(i int) []byte { return part(c.docs, c.ends, i) }

// key is the i-th row's key.
func (c *chunk) key(i int) []byte { return part(c.keyData, c.keyEnds, i) }

func part(data []byte, ends []int, i int) []byte {
	start := 0
	if i > 0 {
		start = ends[i-1]
	}
	return data[start:ends[i]:ends[i]]
}

// view is the newest snapshot of which it is known that the chunk sees all it sees; nil if none is.
func (c *chunk) view() Visibility {
	if c.snapshot != nil {
		return c.snapshot
	}
	return c.base
}

// reuse empties the chunk and keeps its memory.
func (c *chunk) reuse() {
	*c = chunk{docs: c.docs[:0], ends: c.ends[:0], keyData: c.keyData[:0], keyEnds: c.keyEnds[:0]}
}
