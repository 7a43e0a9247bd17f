package wal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Commit is what the log keeps of a capture's commit in one journal, so that a time finds its place. The counts are of all
// commits of the journal up to and including this one.
type Commit struct {
	Start, End int64     // offsets: its blocks stand between them
	Time       time.Time // never before the commit in front of it, whatever the clock did
	Commits    int64
	Documents  int64
}

// Span is what the log has of a journal.
type Span struct {
	Journal
	Start, Head int64
	// First and Last are when the oldest and the newest documents that it has were committed.
	First, Last time.Time
	// Commits and Documents are how many it has; where Uncounted is not zero, without the oldest so many bytes, which
	// a version of sluice wrote that did not count.
	Commits, Documents, Uncounted int64
}

// A commit is stored by its end: start · time (Unix nanoseconds) · commits · documents, 8 bytes each, big-endian.
const commitSize = 32

func commitKey(number uint32, end int64) []byte { return placeKey(keyCommit, number, end) }

func appendCommit(dst []byte, c Commit) []byte {
	for _, v := range []int64{c.Start, c.Time.UnixNano(), c.Commits, c.Documents} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(v))
	}
	return dst
}

func parseCommit(key, value []byte) (c Commit, err error) {
	if len(value) != commitSize {
		return c, fmt.Errorf("reading a commit: %w", errDamaged)
	}
	at := func(i int) int64 { return int64(binary.BigEndian.Uint64(value[8*i:])) }
	return Commit{Start: at(0), End: keyOffset(key), Time: time.Unix(0, at(1)), Commits: at(2), Documents: at(3)}, nil
}

// commits reads the commits of a journal. It is for one goroutine, and must be closed.
type commits struct{ iter *pebble.Iterator }

func (e *Embedded) commits(number uint32) (commits, error) {
	iter, err := e.db.NewIter(&pebble.IterOptions{LowerBound: commitKey(number, 0), UpperBound: commitKey(number+1, 0)})
	return commits{iter}, err
}

// last, through (the one that ends at an offset or before) and beyond (the first that ends behind it) find one; ok is false
// if there is none.
func (c commits) last() (Commit, bool, error) { return c.at(c.iter.Last()) }

func (c commits) through(number uint32, offset int64) (Commit, bool, error) {
	return c.at(c.iter.SeekLT(commitKey(number, offset+1)))
}

func (c commits) beyond(number uint32, offset int64) (Commit, bool, error) {
	return c.at(c.iter.SeekGE(commitKey(number, offset+1)))
}

func (c commits) at(valid bool) (Commit, bool, error) {
	if !valid {
		return Commit{}, false, c.iter.Error()
	}
	found, err := parseCommit(c.iter.Key(), c.iter.Value())
	return found, err == nil, err
}

// place is a journal's number and extent.
func (e *Embedded) place(name Journal) (journal, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j := e.journals[name]
	if j == nil {
		return journal{}, fmt.Errorf("reading the journal %s: it does not exist", name)
	}
	return journal{number: j.number, start: j.start, head: j.head}, nil
}

// Journals lists the journals that have been committed to, by collection and capture.
func (e *Embedded) Journals() []Journal {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []Journal
	for name, j := range e.journals {
		if j.head > 0 {
			list = append(list, name)
		}
	}
	slices.SortFunc(list, Journal.Compare)
	return list
}

// Span describes what the log has of a journal.
func (e *Embedded) Span(name Journal) (s Span, err error) {
	j, err := e.place(name)
	if err != nil {
		return s, err
	}
	s = Span{Journal: name, Start: j.start, Head: j.head}
	list, err := e.commits(j.number)
	if err != nil {
		return s, fmt.Errorf("reading the commits of %s: %w", name, err)
	}
	defer list.iter.Close() //nolint:errcheck // every step asks for its error
	last, counted, err := list.last()
	if err != nil {
		return s, err
	}
	first := Commit{Start: j.head} // the oldest that was counted
	if counted {
		s.Last, s.Commits, s.Documents = last.Time, last.Commits, last.Documents
		oldest, left, err := list.beyond(j.number, j.start)
		if err != nil {
			return s, err
		}
		if left {
			first = oldest
		}
		before, dropped, err := list.through(j.number, j.start)
		if err != nil {
			return s, err
		}
		if dropped {
			s.Commits, s.Documents = s.Commits-before.Commits, s.Documents-before.Documents
		}
	}
	s.First, s.Uncounted = first.Time, first.Start-j.start
	if s.Uncounted > 0 {
		if s.First, err = e.sealedAt(name, j.start, j.head); err != nil {
			return s, err
		}
	}
	if !counted && j.head > j.start {
		s.Last = s.First
	}
	return s, nil
}

// sealedAt is when the block at an offset was made; zero if there is none.
func (e *Embedded) sealedAt(name Journal, offset, head int64) (at time.Time, err error) {
	err = e.blocks(name, offset, head, func(_ int64, b Block) bool {
		at = b.Sealed
		return false
	})
	return at, err
}

// blocks visits blocks with their offsets until visit says that it has enough.
func (e *Embedded) blocks(name Journal, from, to int64, visit func(offset int64, b Block) (more bool)) (err error) {
	r, err := e.Reader(name, from, to)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := r.Close(); err == nil {
			err = closeErr
		}
	}()
	for offset := from; ; {
		b, next, ok, err := r.Next()
		if err != nil || !ok || !visit(offset, b) {
			return err
		}
		offset = next
	}
}

// At finds where the first commit of a time or later begins in a journal; where the journal ends if there is none. All journals of
// a capture have the same times, so that the places of one time in them belong together.
func (e *Embedded) At(name Journal, t time.Time) (int64, error) {
	j, err := e.place(name)
	if err != nil {
		return 0, err
	}
	list, err := e.commits(j.number)
	if err != nil {
		return 0, fmt.Errorf("reading the commits of %s: %w", name, err)
	}
	defer list.iter.Close() //nolint:errcheck // every step asks for its error
	oldest, ok, err := list.beyond(j.number, j.start)
	if err != nil {
		return 0, err
	}
	if !ok {
		oldest = Commit{Start: j.head, End: j.head, Time: t}
	}
	if !oldest.Time.Before(t) {
		// What stands in front of it was written before commits were kept: the times of its blocks are all that is known.
		place := oldest.Start
		err := e.blocks(name, j.start, oldest.Start, func(offset int64, b Block) bool {
			if b.Sealed.Before(t) {
				return true
			}
			place = offset
			return false
		})
		return place, err
	}
	return list.search(j, oldest.End, t)
}

// search finds the place of a time at an offset or behind it.
func (c commits) search(j journal, low int64, t time.Time) (int64, error) {
	high := j.head
	for low < high {
		middle, ok, err := c.beyond(j.number, low+(high-low)/2)
		switch {
		case err != nil:
			return 0, err
		case !ok:
			return 0, fmt.Errorf("reading the commits: %w", errDamaged)
		case middle.Time.Before(t):
			low = middle.End
		default:
			high = middle.Start
		}
	}
	return low, nil
}

// Through returns the last commit that ends at an offset of a journal or before it; the zero Commit if none is known.
func (e *Embedded) Through(name Journal, offset int64) (Commit, error) {
	j, err := e.place(name)
	if err != nil {
		return Commit{}, err
	}
	list, err := e.commits(j.number)
	if err != nil {
		return Commit{}, fmt.Errorf("reading the commits of %s: %w", name, err)
	}
	defer list.iter.Close() //nolint:errcheck // every step asks for its error
	c, _, err := list.through(j.number, offset)
	return c, err
}

// Names lists the names of records that begin with a prefix, in their order.
func (e *Embedded) Names(prefix string) (names []string, err error) {
	low := recordKey(prefix)
	iter, err := e.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: []byte{keyRecord + 1}})
	if err != nil {
		return nil, fmt.Errorf("listing the records: %w", err)
	}
	for iter.First(); iter.Valid() && bytes.HasPrefix(iter.Key(), low); iter.Next() {
		names = append(names, string(iter.Key()[1:]))
	}
	return names, iter.Close()
}
