package cdc

import (
	"math"
	"slices"
	"time"

	"github.com/sluicedata/sluice/sdk/capture"
)

// table is one bound table during a session. It belongs to the reader's goroutine.
type table struct {
	binding     *capture.Binding[Resource, TableState]
	state       *TableState // binding.State: what is stored, and true at the position in the log
	id          TableID
	keyless     bool // its collection is keyed by the place in the log
	changesOnly bool
	joining     bool // the stream does not carry it yet (Joiner)
	pass        bool // it is read in one pass,
	torn        bool // which cannot be ended
	tornBy      error
	selection   Selection
	added       []string // columns that the selection left out in the session before, until the first Read
	reformed    []string // columns of which documents have values in another form, until the first Read

	// shape is the newest version of the table that is known, by which chunks are read. The stored one is as of the
	// position in the log.
	shape      *Table
	discovered *Table // as the session opened, until its first Read
	adopted    bool   // shape was found by discovery before the log mentioned it, and the table is backfilled for it
	revision   int    // counts what the log and discovery said of the table as a whole: what was found before is outdated
	announce   bool   // the shape is still to be announced

	plan     *planJob // in progress
	fresh    []string // parts that have come to the table, to be planned
	spans    []*span  // of a table that is scanning: what is left to be read
	inflight []*chunk
	holes    holes
	keyChunk *chunk // in flight, for holes

	window    window
	unsettled bool     // chunks must see transactions that the driver has to be asked for
	watching  bool     // changes are noted in the window
	notedFor  TxnID    // the transaction that noted belongs to
	noted     *changes // nil if no chunk can miss that transaction

	rules     *rules
	chunkRows int       // of the next chunk
	keyRows   int       // read by key at once
	failures  int       // scans that failed since one was emitted
	rejected  int       // chunks that had to be thrown away since one was emitted
	retryAt   time.Time // no chunk before this
	explained time.Time // when the log last said what the table waits for
	turn      int64     // when the table last got a worker: the lowest is next
	started   time.Time // when the backfill began in this session

	given, givenOf *Table // what current gave last, and of which shape
}

// span is one range of a plan that is being read.
type span struct {
	rest   Range    // what is left once everything emitted is committed; empty when it is done
	ahead  Range    // what is left to be read
	chunks []*chunk // in flight, in order: at most one that is being read, and one before it
	busy   bool     // the last of them is being read
}

// A table of which more scans than this fail in a row ends the capture.
const maxFailures = 20

// limits bound what is remembered, in memory and in the state. The simulation has small ones.
type limits struct {
	document        int // bytes of a document
	enough          int // bytes of a capture transaction, after which it ends at the next commit
	windowBytes     int // of a table's window; beyond it the window forgets which keys were changed,
	windowTxns      int // and beyond this many transactions also by whom
	holesBytes      int // of keys to be read; beyond it the table is read again as a whole
	storedTxns      int // listed in the state; beyond it the next session asks the driver
	storedHoleBytes int // of keys listed in the state; beyond it the next session backfills the table from the beginning
	minChunkRows    int // how far a chunk shrinks when it had to be thrown away
}

func defaultLimits() limits {
	return limits{
		document: capture.MaxDocument - 1<<10, // without what the protocol puts around it
		enough:   1 << 20, windowBytes: 8 << 20, windowTxns: 16 << 10, holesBytes: 8 << 20,
		storedTxns: 256, storedHoleBytes: 64 << 10, minChunkRows: 500,
	}
}

// bound returns the table as its binding has it.
func (t *table) bound(s *Table) *Table { return s.selected(&t.selection, t.keyless) }

// current is the shape for the driver, with what the driver wants to be reminded of. It stays the same as long as nothing of
// it changes, so that a driver can tell by the pointer.
func (t *table) current(s *Table) *Table {
	if t.givenOf == s && t.given.Origin == t.state.Origin && len(t.given.Selection.Withheld) == len(t.selection.Withheld) {
		return t.given
	}
	c := *t.bound(s)
	c.Origin, c.Unread = t.state.Origin, t.changesOnly
	t.given, t.givenOf = &c, s
	return &c
}

// moving reports whether an update that leaves out unchanged values may have moved its row from a part of the table that
// is still to be read to one that was read.
func (t *table) moving() bool {
	return t.plan != nil && !t.plan.settle || t.state.Phase == Scanning && !t.state.Fixed && len(t.spans) > 0
}

// watch decides whether changes have to be noted.
func (t *table) watch() {
	t.watching = !t.keyless && (t.plan != nil || t.state.Phase == Scanning || t.holes.len() > 0)
	if !t.watching && t.state.Phase != Scanning {
		t.window.reset()
		t.unsettled = false
	}
	t.notedFor, t.noted = "", nil
}

// void throws away what is in flight. The ranges are read again from where they are committed.
func (t *table) void() {
	t.tear()
	for _, c := range t.inflight {
		c.void = true
	}
	t.inflight, t.keyChunk = nil, nil
	for _, s := range t.spans {
		s.ahead, s.chunks, s.busy = s.rest, nil, false
	}
}

// restart makes the table one of which nothing was read, in the given phase.
func (t *table) restart(p Phase) {
	t.void()
	t.state.begin(p)
	t.spans, t.fresh, t.plan, t.holes = nil, nil, nil, holes{}
	t.failures, t.rejected, t.retryAt = 0, 0, time.Time{}
	t.unsettled = false
	t.window.reset()
	t.watch()
}

// free takes a chunk out of flight.
func (t *table) free(c *chunk) {
	t.inflight = slices.DeleteFunc(t.inflight, func(o *chunk) bool { return o == c })
	if t.keyChunk == c {
		t.keyChunk = nil
	}
	if s := c.span; s != nil {
		s.chunks = slices.DeleteFunc(s.chunks, func(o *chunk) bool { return o == c })
	}
}

// retract throws a chunk away, and those behind it in its range.
func (t *table) retract(c *chunk) {
	t.tear()
	s := c.span
	if s == nil {
		t.free(c)
		return
	}
	for _, o := range slices.Clone(s.chunks) {
		o.void = true
		t.free(o)
	}
	s.ahead, s.busy = s.rest, false
}

// succeeded notes that a chunk was emitted.
func (t *table) succeeded(limit int) {
	t.failures, t.rejected = 0, 0
	t.chunkRows = min(t.chunkRows*2, limit)
}

// busy reports whether the table needs a worker, now or later.
func (t *table) busy() bool {
	return t.state.Phase == Pending || t.state.Phase == Scanning || t.holes.len() > 0 || len(t.fresh) > 0
}

// idleSpan returns a range of which the next chunk can be read, or nil.
func (t *table) idleSpan() *span {
	for _, s := range t.spans {
		if !s.busy && s.ahead != "" && len(s.chunks) < 2 {
			return s
		}
	}
	return nil
}

// persist brings the lists of the stored state up to date, and reports whether that changed them. The snapshot is the
// newest that is known: what it sees, every chunk of the next session will see.
func (t *table) persist(latest Visibility, l limits) bool {
	if t.state.Phase != Scanning && (t.state.Phase != Live || t.holes.len() == 0) {
		return false
	}
	s := t.state
	unseen, ok := t.window.unseen(latest, l.storedTxns)
	unsettled := t.unsettled || !ok
	if unsettled {
		unseen = nil
	}
	limit := l.storedHoleBytes
	if t.changesOnly {
		limit = math.MaxInt // no backfill makes up for what is not listed
	}
	keys, ok := t.holes.list(limit)
	same := slices.Equal(unseen, s.Unseen) && unsettled == s.Unsettled && !ok == s.Lossy &&
		slices.EqualFunc(keys, s.Holes, func(a, b []byte) bool { return string(a) == string(b) })
	s.Unseen, s.Unsettled, s.Holes, s.Lossy = unseen, unsettled, keys, !ok
	return !same
}

// saveRanges stores what is left of the ranges.
func (t *table) saveRanges() {
	t.state.Ranges = nil
	t.spans = slices.DeleteFunc(t.spans, func(s *span) bool { return s.rest == "" })
	for _, s := range t.spans {
		t.state.Ranges = append(t.state.Ranges, s.rest)
	}
}

// holes are the keys of rows that were emitted without all of their columns, in a way that no later document is sure to
// mend. They are read by key. The value is the transaction that made the row appear under the key, which the reading must
// see; empty if the row was there before.
type holes struct {
	order []string
	by    map[string]TxnID
	bytes int
}

func (h *holes) len() int { return len(h.order) }

// add notes a hole. If the row was there before (by is empty), a hole that is known already stays as it is.
func (h *holes) add(key []byte, by TxnID) {
	if _, known := h.by[string(key)]; known {
		if by != "" {
			h.by[string(key)] = by
		}
		return
	}
	if h.by == nil {
		h.by = map[string]TxnID{}
	}
	k := string(key)
	h.by[k] = by
	h.order = append(h.order, k)
	h.bytes += len(k) + touchBytes
}

// first returns up to n keys.
func (h *holes) first(n int) [][]byte {
	keys := make([][]byte, 0, min(n, len(h.order)))
	for _, k := range h.order[:min(n, len(h.order))] {
		keys = append(keys, []byte(k))
	}
	return keys
}

// fill removes the keys that a reading with this snapshot has mended.
func (h *holes) fill(keys [][]byte, v Visibility) {
	for _, k := range keys {
		if by, known := h.by[string(k)]; known && (by == "" || v.Sees(by)) {
			h.remove(string(k))
		}
	}
	h.tidy()
}

// drop removes the keys that belong to such transactions.
func (h *holes) drop(which func(by TxnID) bool) {
	for k, by := range h.by {
		if which(by) {
			h.remove(k)
		}
	}
	h.tidy()
}

func (h *holes) remove(key string) {
	delete(h.by, key)
	h.bytes -= len(key) + touchBytes
}

// tidy makes order agree with by.
func (h *holes) tidy() {
	h.order = slices.DeleteFunc(h.order, func(k string) bool { _, known := h.by[k]; return !known })
}

// list returns all keys, or false if they are longer than limit bytes together.
func (h *holes) list(limit int) ([][]byte, bool) {
	n := 0
	for _, k := range h.order {
		if n += len(k); n > limit {
			return nil, false
		}
	}
	if len(h.order) == 0 {
		return nil, true
	}
	return h.first(len(h.order)), true
}
