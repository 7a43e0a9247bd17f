package cdc

import (
	"context"
	"errors"
	"fmt"
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
	notes   []note // of rows that are too large
	heavy   bool   // has a place in the reader's
	doc     document
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

// waitHeavy is Chunk.Heavy. It runs on the worker; the place is given back when the reader is done with the chunk.
func (c *chunk) waitHeavy(place chan struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		if c.heavy {
			return nil
		}
		select {
		case place <- struct{}{}:
			c.heavy = true
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// add encodes one row.
func (c *chunk) add(row Row) (err error) {
	c.doc.row = row
	if c.docs, err = c.doc.append(c.docs); err != nil {
		return c.skip(row, err)
	}
	if c.doc.large != nil {
		c.notes = append(c.notes, note{doc: len(c.ends), row: rowName(c.doc.rules, row), large: c.doc.large})
	}
	if len(c.ask.Table.Key) > 0 {
		if c.keyData, err = row.AppendKey(c.keyData); err != nil {
			return err
		}
		c.keyEnds = append(c.keyEnds, len(c.keyData))
	}
	c.ends = append(c.ends, len(c.docs))
	if c.span == nil && len(c.docs) > 2*c.ask.MaxBytes && len(c.ends) > 1 {
		return errManyBytes // a range ends where it becomes too large, a list of keys does not
	}
	return nil
}

// skip leaves out a row that could not be encoded because it is too large, if that is the policy. Otherwise it returns the error.
func (c *chunk) skip(row Row, err error) error {
	e, ok := errors.AsType[*oversizedError](err)
	if !ok {
		return err
	}
	n := note{skipped: true, row: rowName(c.doc.rules, row), large: e.values}
	if c.doc.rules.policy != OversizeSkip {
		return n.err(c.ask.Table.ID, e)
	}
	c.notes = append(c.notes, n)
	return nil
}

// noteOf is what is to be said of the i-th row, if anything is.
func (c *chunk) noteOf(i int) (note, bool) {
	for _, n := range c.notes {
		if n.doc == i && !n.skipped {
			return n, true
		}
	}
	return note{}, false
}

// errManyBytes says that rows with the given keys are too large together. Fewer of them are read next time.
var errManyBytes = fmt.Errorf("reading rows by key: they are too large together: %w", ErrInterrupted)

// text is the i-th row's document.
func (c *chunk) text(i int) []byte { return part(c.docs, c.ends, i) }

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

// keepDocs is the largest buffer of a chunk that is used again; a larger one was made by a huge row.
const keepDocs = 16 << 20

// reuse empties the chunk and keeps its memory.
func (c *chunk) reuse() {
	docs := c.docs[:0]
	if cap(docs) > keepDocs {
		docs = nil
	}
	*c = chunk{docs: docs, ends: c.ends[:0], keyData: c.keyData[:0], keyEnds: c.keyEnds[:0]}
}
