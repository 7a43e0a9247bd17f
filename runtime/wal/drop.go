package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Drop forgets the documents of a journal in front of an offset, for good: one at which a commit begins. Whoever reads them now
// finishes undisturbed. Their room on the disk is free soon after.
func (e *Embedded) Drop(ctx context.Context, name Journal, offset int64) error {
	j, err := e.place(name)
	if err != nil {
		return err
	}
	if offset <= j.start || offset > j.head {
		return nil
	}
	batch := e.db.NewBatch()
	err = errors.Join(
		batch.Set(startKey(j.number), binary.BigEndian.AppendUint64(nil, uint64(offset)), nil),
		batch.DeleteRange(blockKey(j.number, j.start), blockKey(j.number, offset), nil),
		// The commit that ends here stays: from its counts those of the next are told.
		batch.DeleteRange(commitKey(j.number, 0), commitKey(j.number, offset), nil),
	)
	if err == nil {
		err = e.apply(batch, pebble.Sync)
	}
	if err != nil {
		return fmt.Errorf("dropping documents of %s: %w", name, err)
	}
	e.mu.Lock()
	e.journals[name].start = offset
	e.mu.Unlock()
	// The engine gives files back when it merges the tables that refer to them, which it does seldom by itself. Tables are small:
	// the blocks are not in them.
	if err := e.db.Compact(ctx, blockKey(j.number, 0), blockKey(j.number, offset), false); err != nil {
		return fmt.Errorf("making room after dropping documents of %s: %w", name, err)
	}
	return nil
}

// Start is where the oldest document of a journal stands; zero if there is none.
func (e *Embedded) Start(name Journal) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if j := e.journals[name]; j != nil {
		return j.start
	}
	return 0
}
