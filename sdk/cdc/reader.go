package cdc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/capture"
)

const (
	// linger is how long it waits for more before it ends, longest how long it goes on while there is more.
	linger, longest = 2 * time.Millisecond, 50 * time.Millisecond
	// poll is how long the log may be waited for while workers are busy, calm while nothing is to be done.
	poll, calm = 3 * time.Millisecond, time.Second
	// idleCheckpoint is how often a position that moved without documents is stored.
	idleCheckpoint = 5 * time.Second
)

// documents is what a capture.Tx takes of documents, checkpoint what it takes besides. The simulation has its own.
type documents interface {
	Append(b capture.Target, enc func(dst []byte) ([]byte, error)) error
	AppendDoc(b capture.Target, doc []byte) error
	Size() int
}

type checkpoint interface {
	Schema(b capture.Target, schema json.RawMessage)
	Save(b capture.Target)
	SetShared(v any)
	Forget(stateKey string)
	OnAck(f func(context.Context) error)
}

type output interface {
	documents
	checkpoint
}

// reader is the one loop: it alone reads the log and emits documents. Workers read chunks beside it and are never waited
// for. All of it but acks belongs to the goroutine that calls read.
type reader struct {
	driver Driver
	opts   Options
	limits limits
	log    *logrus.Entry
	pool   pool
	now    func() time.Time
	rand   *rand.Rand

	tables []*table // in the order of the bindings
	byID   map[TableID]*table
	last   *table // that byID was asked for last
	work   []*table
	rework bool // work is to be made anew
	shared sharedState
	forget []string      // state keys of bindings that are gone
	lostAt time.Time     // when the log was last lost; zero if it never was
	kept   chan struct{} // closed when the runtime has that

	stream   Stream // nil before the first Read
	acks     acks
	out      output // during a read
	inTxn    bool   // a source transaction has begun and not ended
	rescoped bool   // the log carries a table otherwise than before
	reopen   bool   // the stream is to be opened again, for other tables

	latest  Visibility // the snapshot that was got last
	fences  map[Mark][]*chunk
	fenced  []*chunk // waiting for their turn to be emitted
	spare   []*chunk
	running int // jobs
	chunks  int // in memory
	turns   int64
	heavy   chan struct{} // full while a chunk has rows of more than HeavyRow
	passing []*table      // are read in one pass: no checkpoint before that has ended

	doc       document
	encode    func([]byte) ([]byte, error) // doc.append
	key, old  []byte
	patch     []byte
	announced map[*table]string

	saved         bool // something is to be committed besides documents
	moved         bool // the cursor has moved since the last checkpoint
	since         time.Time
	lastEnd       time.Time
	nextDiscovery time.Time
	discovering   bool
	ask           []*table // to be discovered before that
	nextProgress  time.Time

	goal      goal
	wholeRows bool // capture.Env.Whole

	// What is said of it to those who watch.
	progress                                *progress
	connecting                              bool // the log is being opened again
	transactions, changes, documents, bytes uint64
	changesBefore                           uint64 // changes before the transaction at hand
	committed                               time.Time
	done                                    int64 // rows of finished backfills
	tally                                   tally
}

// session is what a reader is made of.
type session struct {
	driver   Driver
	opts     Options
	limits   limits
	env      capture.Env
	bindings []*capture.Binding[Resource, TableState]
	pool     pool
	now      func() time.Time
	rand     *rand.Rand
}

// read fills one capture transaction: source transactions, whole, and chunks between them; or it says in one that the log
// is lost.
func (r *reader) read(ctx context.Context, out output) error {
	r.out = out
	defer func() { r.out = nil }()
	err := r.fill(ctx)
	if errors.Is(err, ErrPositionLost) && r.shared.Cursor != "" && len(r.passing) == 0 { // else the next session finds it lost
		return r.lose(err)
	}
	return err
}

func (r *reader) fill(ctx context.Context) error {
	if r.stream == nil {
		return r.begin(ctx)
	}
	r.since = time.Time{}
	for {
		if !r.inTxn {
			if err := r.between(ctx); err != nil {
				return err
			}
			if r.caughtUp() {
				return r.end()
			}
			if r.complete() {
				return r.finish()
			}
		}
		ev, err := r.stream.Next(ctx, r.wait())
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		if err := r.handle(ev); err != nil {
			return err
		}
		if ev.Op == Idle && !r.inTxn && len(r.passing) == 0 && r.holdsSomething() {
			return r.finish()
		}
	}
}

// handle takes one event.
func (r *reader) handle(ev *Event) error {
	switch ev.Op {
	case Insert, Update, Delete:
		r.inTxn = true
		if r.changes++; r.changes%publishEvery == 0 {
			r.publish()
		}
		t := r.table(ev.Table)
		if t == nil {
			return nil
		}
		return r.change(t, ev)
	case Commit:
		r.inTxn = false
		r.transactions++
		r.committed, r.changesBefore = ev.CommitTime, r.changes
		r.advance(ev)
	case Idle:
		if !r.inTxn {
			r.advance(ev)
		}
		r.publish()
	case Fence:
		r.passed(ev.Mark)
	case Joined:
		if t := r.table(ev.Table); t != nil {
			r.joined(t, ev)
		}
	case Truncate, Shape, Drop:
		if t := r.table(ev.Table); t != nil {
			return r.altered(t, ev)
		}
	default:
		return fmt.Errorf("reading the log: unknown event %d", ev.Op)
	}
	return nil
}

// table finds a bound table; nil if it is not one. Changes of one table mostly come together.
func (r *reader) table(id TableID) *table {
	if r.last != nil && r.last.id == id {
		return r.last
	}
	t := r.byID[id]
	if t != nil {
		r.last = t
	}
	return t
}

// advance notes that everything up to the event's cursor was emitted.
func (r *reader) advance(ev *Event) {
	if ev.Cursor == "" {
		return
	}
	if ev.Identity != nil {
		r.shared.Identity = bytes.Clone(ev.Identity)
		r.moved = true
	}
	if ev.Cursor != r.shared.Cursor {
		r.shared.Cursor = ev.Cursor
		r.moved = true
	}
	r.goal.moved = !r.goal.reached.IsZero()
}

// holdsSomething reports whether there is something to commit.
func (r *reader) holdsSomething() bool { return r.saved || r.out.Size() > 0 }

// complete reports, between source transactions, whether the capture transaction should end.
func (r *reader) complete() bool {
	if len(r.passing) > 0 {
		return false
	}
	if !r.holdsSomething() {
		return r.moved && r.now().Sub(r.lastEnd) >= idleCheckpoint
	}
	if r.out.Size() >= r.limits.enough || r.reopen {
		return true
	}
	now := r.now()
	if r.since.IsZero() {
		r.since = now
	}
	return now.Sub(r.since) >= longest
}

// wait is how long the next event may take to come.
func (r *reader) wait() time.Duration {
	switch {
	case r.inTxn:
		return calm
	case r.holdsSomething():
		return linger
	case r.running > 0 || r.chunks > 0 || len(r.work) > 0:
		return poll
	case !r.goal.reached.IsZero():
		return longest
	default:
		return calm
	}
}

// finish ends the capture transaction: documents, states and the position are committed together.
func (r *reader) finish() error {
	for _, t := range r.tables {
		if t.announce {
			r.announceShape(t)
		}
	}
	for _, t := range r.work {
		if t.persist(r.latest, r.limits) {
			r.out.Save(t.binding)
		}
	}
	r.out.SetShared(&r.shared)
	cursor := r.shared.Cursor
	r.out.OnAck(func(context.Context) error {
		r.acks.ack(cursor)
		r.progress.acked(cursor, r.now())
		return nil
	})
	if r.saved {
		r.tally = r.count()
	}
	r.publish()
	r.bytes += uint64(r.out.Size()) //nolint:gosec // a size
	r.saved, r.moved = false, false
	r.lastEnd = r.now()
	r.progress.emitted(cursor, r.lastEnd)
	return nil
}

// save has a table's state committed with the transaction.
func (r *reader) save(t *table) {
	r.out.Save(t.binding)
	r.saved = true
}

func (r *reader) announceShape(t *table) {
	t.announce = false
	s := sourcedSchema(t.shape, r.opts.placeholders())
	if r.announced[t] != string(s) {
		r.announced[t] = string(s)
		r.out.Schema(t.binding, s)
	}
}

// close ends the workers, then the stream, then the driver.
func (r *reader) close() error {
	r.pool.close()
	var err error
	if s := r.acks.set(nil); s != nil {
		err = s.Close()
	}
	return errors.Join(err, r.driver.Close())
}

// acks hands acknowledged cursors to the stream, from another goroutine than the reader's.
type acks struct {
	mu     sync.Mutex
	stream Stream
}

// set changes the stream and returns the one before.
func (a *acks) set(s Stream) Stream {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.stream
	a.stream = s
	return before
}

// heard is when the stream got something; the zero time if there is none, or none that can tell.
func (a *acks) heard() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h, ok := a.stream.(Heard); ok {
		return h.Heard()
	}
	return time.Time{}
}

func (a *acks) ack(c Cursor) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stream != nil && c != "" {
		a.stream.Ack(c)
	}
}
