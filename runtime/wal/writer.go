package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// earlyBytes is how much a writer gathers before it hands blocks to the engine ahead of their commit, so that a
// transaction of any size needs little memory. They are invisible until the head moves over them. With another block it is what
// the engine lets a batch keep for its next use, 1 MiB.
const earlyBytes = 512 << 10

type writer struct {
	log     *Embedded
	capture string
	batch   *pebble.Batch
	tails   map[string]*tail // by collection
	scratch []byte
}

type tail struct {
	journal Journal
	number  uint32
	offset  int64  // behind what is appended
	fresh   bool   // the journal may have no name in the log yet
	moved   bool   // since the last commit
	last    Commit // the last one
	next    Commit // the one that is being made
	docs    int64  // since the last one
	require uint32
}

// Writer implements Log.
func (e *Embedded) Writer(capture string) (Writer, error) {
	w := &writer{log: e, capture: capture, batch: e.db.NewBatch(), tails: map[string]*tail{}}
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, j := range e.journals {
		if name.Part != capture {
			continue
		}
		last, err := e.lastCommit(j)
		if err != nil {
			return nil, fmt.Errorf("reading the last commit of %s: %w", name, err)
		}
		w.tails[name.Collection] = &tail{journal: name, number: j.number, offset: j.head, last: last, fresh: j.head == 0}
		if err := e.drop(j.number, j.head); err != nil {
			return nil, fmt.Errorf("dropping what was not committed of %s: %w", name, err)
		}
	}
	return w, nil
}

// lastCommit is what is kept of a journal's last commit. The lock must be held.
func (e *Embedded) lastCommit(j *journal) (Commit, error) {
	list, err := e.commits(j.number)
	if err != nil {
		return Commit{}, err
	}
	last, _, err := list.last()
	last.End = j.head // also if nothing is kept, since an older version wrote it
	return last, errors.Join(err, list.iter.Close())
}

// drop removes a journal's blocks from an offset on. Where there are none, as is usual, it leaves nothing behind: the mark of a range
// that was deleted would overlap with all that is appended there, and the engine would write that again and again.
func (e *Embedded) drop(number uint32, from int64) error {
	bounds := pebble.IterOptions{LowerBound: blockKey(number, from), UpperBound: blockKey(number+1, 0)}
	iter, err := e.db.NewIter(&bounds)
	if err != nil {
		return err
	}
	if iter.Last() {
		bounds.UpperBound = append(bytes.Clone(iter.Key()), 0)
		err = e.db.DeleteRange(bounds.LowerBound, bounds.UpperBound, pebble.NoSync)
	}
	return errors.Join(err, iter.Error(), iter.Close())
}

// Append implements Writer.
func (w *writer) Append(collection string, b *Block) error {
	t, err := w.tail(collection)
	if err != nil {
		return err
	}
	if b.Sealed.IsZero() {
		b.Sealed = w.log.opts.Now()
	}
	key := blockKey(t.number, t.offset)
	record := w.batch.SetDeferred(len(key), headerSize+b.Size())
	copy(record.Key, key)
	b.appendTo(record.Value[:0])
	if err := record.Finish(); err != nil {
		return fmt.Errorf("appending to %s: %w", t.journal, err)
	}
	t.offset += int64(len(record.Value))
	t.moved = true
	t.docs += int64(b.Count)
	b.Sealed = time.Time{}
	if w.batch.Len() < earlyBytes {
		return nil
	}
	return w.flush()
}

// Require implements Writer.
func (w *writer) Require(collection string, version uint32) error {
	t, err := w.tail(collection)
	if err == nil && t.moved {
		t.require = version
	}
	return err
}

// flush hands the gathered blocks to the engine, not synced and not visible.
func (w *writer) flush() error {
	if err := w.log.roomLeft(); err != nil {
		return err
	}
	if err := w.log.apply(w.batch, pebble.NoSync); err != nil {
		return fmt.Errorf("appending for %s: %w", w.capture, err)
	}
	w.batch.Reset()
	return nil
}

// Commit implements Writer.
func (w *writer) Commit(ctx context.Context, changes Records) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.log.roomLeft(); err != nil {
		return err
	}
	now := w.now()
	for _, t := range w.tails {
		if !t.moved {
			continue
		}
		t.next = Commit{Start: t.last.End, End: t.offset, Time: now, Commits: t.last.Commits + 1, Documents: t.last.Documents + t.docs}
		w.scratch = appendCommit(w.scratch[:0], t.next)
		if err := w.batch.Set(commitKey(t.number, t.offset), w.scratch, nil); err != nil {
			return fmt.Errorf("marking a commit of %s: %w", t.journal, err)
		}
		if t.fresh {
			number := binary.BigEndian.AppendUint32(nil, t.number)
			if err := w.batch.Set(append([]byte{keyJournal}, t.journal.String()...), number, nil); err != nil {
				return fmt.Errorf("naming the journal %s: %w", t.journal, err)
			}
		}
		if t.require > 0 {
			if err := w.batch.Set(versionKey(t.number, t.last.End), binary.BigEndian.AppendUint32(nil, t.require), nil); err != nil {
				return fmt.Errorf("marking a schema version of %s: %w", t.journal, err)
			}
		}
		if err := w.batch.Set(headKey(t.number), binary.BigEndian.AppendUint64(nil, uint64(t.offset)), nil); err != nil {
			return fmt.Errorf("moving the head of %s: %w", t.journal, err)
		}
	}
	if err := setRecords(w.batch, changes); err != nil {
		return err
	}
	if err := w.log.apply(w.batch, pebble.Sync); err != nil {
		return fmt.Errorf("committing for %s: %w", w.capture, err)
	}
	w.batch.Reset()
	w.publish()
	return nil
}

// now is the time of a commit. The clock may have been put back; the times of a capture's commits, in all of its journals, are not.
func (w *writer) now() time.Time {
	now := w.log.opts.Now()
	for _, t := range w.tails {
		if t.last.Time.After(now) {
			now = t.last.Time
		}
	}
	return now
}

// publish shows the committed heads to readers and wakes them.
func (w *writer) publish() {
	e := w.log
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range w.tails {
		if !t.moved {
			continue
		}
		j := e.journals[t.journal]
		j.head = t.offset
		if t.require > 0 {
			j.versions = append(j.versions, versionMark{t.last.End, t.require})
		}
		t.fresh, t.moved, t.last, t.docs, t.require = false, false, t.next, 0, 0
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

// tail finds or makes the journal of a collection.
func (w *writer) tail(collection string) (*tail, error) {
	if t := w.tails[collection]; t != nil {
		return t, nil
	}
	name := Journal{collection, w.capture}
	e := w.log
	e.mu.Lock()
	defer e.mu.Unlock()
	var number uint32
	for _, j := range e.journals {
		number = max(number, j.number)
	}
	number++
	// A crash may have left blocks under this number whose journal was never committed.
	if err := e.drop(number, 0); err != nil {
		return nil, fmt.Errorf("preparing the journal %s: %w", name, err)
	}
	e.add(name, &journal{number: number})
	t := &tail{journal: name, number: number, fresh: true}
	w.tails[collection] = t
	return t, nil
}

// Close implements Writer: what was not committed is in nobody's way, and goes when the next writer begins.
func (w *writer) Close() error { return nil }
