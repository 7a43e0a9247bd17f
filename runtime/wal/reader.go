package wal

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicedata/sluice/sdk/usererr"
)

type reader struct {
	log     *Embedded
	iter    *pebble.Iterator
	journal Journal
	offset  int64
	to      int64
	started bool
}

// Reader implements Log.
func (e *Embedded) Reader(journal Journal, from, to int64) (Reader, error) {
	j, err := e.place(journal)
	if err != nil {
		return nil, err
	}
	if from < j.start {
		return nil, usererr.New(nil, "the log has dropped what stood at byte %d of the collection %s: it begins at %d", from, journal.Collection, j.start)
	}
	iter, err := e.db.NewIter(&pebble.IterOptions{LowerBound: blockKey(j.number, from), UpperBound: blockKey(j.number, to)})
	if err != nil {
		return nil, fmt.Errorf("reading the journal %s: %w", journal, err)
	}
	return &reader{log: e, iter: iter, journal: journal, offset: from, to: to}, nil
}

// Next implements Reader.
func (r *reader) Next() (Block, int64, bool, error) {
	if r.offset >= r.to {
		return Block{}, r.offset, false, nil
	}
	valid := r.advance()
	if err := r.iter.Error(); err != nil {
		return Block{}, 0, false, fmt.Errorf("reading the journal %s: %w", r.journal, err)
	}
	if !valid || keyOffset(r.iter.Key()) != r.offset {
		return Block{}, 0, false, usererr.New(nil, "the log has no block at byte %d of the collection %s: the data folder is damaged, or was put back from a backup that is older than what the destination has committed",
			r.offset, r.journal.Collection)
	}
	value, err := r.iter.ValueAndErr()
	if err != nil {
		return Block{}, 0, false, fmt.Errorf("reading the journal %s: %w", r.journal, err)
	}
	block, err := parseBlock(append([]byte(nil), value...))
	if err != nil {
		return Block{}, 0, false, fmt.Errorf("reading the journal %s at byte %d: %w", r.journal, r.offset, err)
	}
	block.Schema = max(block.Schema, r.required())
	r.offset += int64(len(value))
	return block, r.offset, true, nil
}

// required is what the log's marks say of the block at hand.
func (r *reader) required() uint32 {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	return r.log.journals[r.journal].version(r.offset)
}

func (r *reader) advance() bool {
	if r.started {
		return r.iter.Next()
	}
	r.started = true
	return r.iter.First()
}

// Close implements Reader.
func (r *reader) Close() error { return r.iter.Close() }
