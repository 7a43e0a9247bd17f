package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// between does what may only be done between source transactions: it takes over what workers have ended, emits chunks that
// the stream has passed, and hands out new work.
func (r *reader) between(ctx context.Context) error {
	for j := r.pool.next(); j != nil; j = r.pool.next() {
		r.running--
		if err := j.done(ctx, r); err != nil {
			return err
		}
	}
	if len(r.fenced) > 0 {
		if err := r.emitFenced(); err != nil {
			return err
		}
	}
	if err := r.whole(); err != nil {
		return err
	}
	if r.reopen && !r.holdsSomething() { // what made it so is committed first
		if err := r.reconnect(ctx); err != nil {
			return err
		}
	}
	if err := r.seek(); err != nil {
		return err
	}
	if r.rework {
		r.planWork()
	}
	if len(r.work) > 0 && (!r.reopen || len(r.passing) > 0) {
		r.dispatch()
	}
	r.timers()
	return nil
}

// planJob plans a table, or finds out again what its chunks must see.
type planJob struct {
	table  *table
	known  *Table
	at     int // the table's revision then
	settle bool
	parts  []string // to be planned, of a table that is read or was; nil for all
	found  *Table   // as it was discovered; nil if it was not, or there is no such table
	shape  *Table   // as it was planned; nil if there is no such table
	plan   *Plan
	err    error
	void   bool
}

func (j *planJob) run(ctx context.Context, d Driver) {
	j.shape = j.known
	if !j.settle {
		found, err := d.Discover(ctx, j.known.ID)
		if err != nil || len(found) == 0 {
			j.shape, j.err = nil, err
			return
		}
		j.found = found[0]
		c := *j.found.selected(&j.known.Selection, len(j.known.Key) == 0)
		c.Origin = j.known.Origin
		if j.parts != nil {
			c.Parts = slices.DeleteFunc(slices.Clone(j.parts), func(p string) bool { return !slices.Contains(c.Parts, p) })
		}
		j.shape = &c
	}
	j.plan, j.err = d.Plan(ctx, j.shape)
}

func (j *planJob) done(_ context.Context, r *reader) error {
	t := j.table
	if j.void {
		return nil
	}
	t.plan = nil
	defer t.watch()
	switch {
	case errors.Is(j.err, ErrInterrupted), errors.Is(j.err, ErrRewritten), errors.Is(j.err, ErrReshaped):
		if j.settle && !errors.Is(j.err, ErrInterrupted) {
			r.backfill(t) // it is another table by now, which a plan discovers
		}
		return r.again(t, j.err)
	case j.err != nil:
		return fmt.Errorf("planning the backfill of %s: %w", t.id, j.err)
	case t.revision != j.at:
		return nil // it was planned as another table, or in another shape
	case j.shape == nil:
		r.miss(t, nil)
		return nil
	}
	if j.settle {
		t.unsettled = false
		t.window.require(j.plan.Unseen)
		return nil
	}
	if j.parts != nil {
		return r.extend(t, j)
	}
	before := t.shape
	if taken, err := r.take(t, j.found); err != nil || !taken {
		return err
	}
	t.adopted = t.adopted || refilled(before, t.shape) || t.state.returns(before, t.shape)
	t.window.require(j.plan.Unseen)
	r.planned(t, j.plan)
	return nil
}

// planned begins to read a table.
func (r *reader) planned(t *table, p *Plan) {
	s := t.state
	s.Phase, s.Fixed, s.Rows, s.Estimate = Scanning, p.Fixed, 0, t.shape.Rows
	s.Parts = t.shape.Parts
	t.chunkRows = r.opts.ChunkRows
	t.spans = nil
	for _, rest := range p.Ranges {
		if rest != "" {
			t.spans = append(t.spans, &span{rest: rest, ahead: rest})
		}
	}
	if p.Fixed {
		// What was noted before it was known that rows do not move needs no mending, except rows that appeared.
		t.holes.drop(func(by TxnID) bool { return by == "" })
	}
	t.saveRanges()
	t.started = r.now()
	r.save(t)
	r.logProgress(t, "backfill started")
	r.finished(t)
}

// done takes over a chunk that was read. It is emitted when the stream has passed it.
func (c *chunk) done(ctx context.Context, r *reader) error {
	t := c.table
	if c.void {
		r.recycle(c)
		return nil
	}
	if c.span != nil {
		c.span.busy = false
	}
	if c.err != nil {
		err := c.err
		if errors.Is(err, errManyBytes) {
			t.keyRows = max(len(c.keys)/2, 1)
		}
		t.tornBy = err
		t.retract(c)
		r.recycle(c)
		return r.scanFailed(t, err)
	}
	c.snapshot = c.scanned.Snapshot
	r.latest = c.snapshot
	for _, w := range r.work {
		r.prune(w)
	}
	if _, blocked := t.window.judge(c.snapshot); len(blocked) > 0 {
		r.reject(c, blocked)
		return nil
	}
	if c.span != nil {
		c.span.ahead = c.scanned.Rest
	}
	if err := r.stream.Fence(ctx, c.scanned.High); err != nil {
		return fmt.Errorf("asking for a fence: %w", err)
	}
	r.fences[c.scanned.High] = append(r.fences[c.scanned.High], c)
	return nil
}

// prune forgets what no chunk can miss any more.
func (r *reader) prune(t *table) {
	if len(t.window.txns) > 0 {
		t.window.prune(func(txn TxnID) bool { return r.matters(t, txn) })
		t.notedFor, t.noted = "", nil
	}
}

// passed notes that the stream has passed a mark.
func (r *reader) passed(m Mark) {
	for _, c := range r.fences[m] {
		c.fenced = true
		r.fenced = append(r.fenced, c)
	}
	delete(r.fences, m)
	if m == r.goal.mark && m != "" && r.goal.reached.IsZero() {
		r.goal.reached = r.now()
	}
}

// emitFenced emits the chunks that the stream has passed, those of one range in order, until the transaction is full, unless it
// has to go on for a pass.
func (r *reader) emitFenced() error {
	for progress := true; progress; {
		progress = false
		for i := 0; i < len(r.fenced); i++ {
			c := r.fenced[i]
			if !c.void && c.span != nil && c.span.chunks[0] != c {
				continue
			}
			if !c.void && len(r.passing) == 0 && r.out.Size() >= r.limits.enough {
				return nil
			}
			r.fenced = slices.Delete(r.fenced, i, i+1)
			i--
			progress = true
			if c.void {
				r.recycle(c)
				continue
			}
			if err := r.emitChunk(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// emitChunk emits a chunk and notes its progress, in one capture transaction. Rows that are older than what was emitted
// are left out, except for the columns that nothing else brings.
func (r *reader) emitChunk(c *chunk) error {
	t := c.table
	clean, blocked := t.window.judge(c.snapshot)
	if len(blocked) > 0 {
		r.reject(c, blocked)
		return nil
	}
	for i := range c.ends {
		raw := c.text(i)
		var patched []string
		drop := false
		if !clean && !t.keyless {
			if drop, patched = t.window.fate(c.key(i)); drop {
				var err error
				if r.wholeRows {
					patched = nil // a change that left something out was not sent; the row will be, by a later snapshot
				}
				if r.patch, err = appendPatch(r.patch[:0], raw, t.shape.Key, patched); err != nil {
					return err
				}
				raw = r.patch
			}
		}
		if n, ok := c.noteOf(i); ok && !drop {
			r.placed(t, n)
		} else if ok {
			r.patched(t, n, patched)
		}
		if len(raw) == 0 {
			continue
		}
		if err := r.out.AppendDoc(t.binding, raw); err != nil {
			return err
		}
		r.documents++
	}
	for _, n := range c.notes {
		if n.skipped {
			n.log(r.log, t.id, "left out a row because it is too large for a document (onOversizedRow is skip)")
		}
	}
	t.state.Rows += int64(len(c.ends))
	t.free(c)
	if c.span != nil {
		c.span.rest = c.scanned.Rest
		t.saveRanges()
	} else {
		t.holes.fill(c.keys, c.snapshot)
		t.keyRows = min(2*t.keyRows, maxKeys)
	}
	t.succeeded(r.opts.ChunkRows)
	r.progress.change(func(v *view) { v.waits = "" })
	r.prune(t)
	r.recycle(c)
	r.save(t)
	r.finished(t)
	return nil
}

// finished makes the table live once nothing of it is left to be read.
func (r *reader) finished(t *table) {
	if t.state.Phase == Scanning && len(t.spans) == 0 && t.holes.len() == 0 {
		r.logProgress(t, "backfill finished")
		r.done += t.state.Rows
		t.state.begin(Live)
		r.passEnded(t)
	}
	if !t.busy() {
		t.watch()
		t.state.Unseen, t.state.Unsettled, t.state.Holes, t.state.Lossy = nil, false, nil, false
		r.rework = true
	}
}

// reject throws away a chunk whose snapshot does not see what it must. The next one is small, and the first of the table.
func (r *reader) reject(c *chunk, blocked []TxnID) {
	t := c.table
	t.retract(c)
	r.recycle(c)
	t.chunkRows = max(min(r.limits.minChunkRows, r.opts.ChunkRows), t.chunkRows/8)
	t.rejected++
	t.retryAt = r.now().Add(r.delay(t.rejected))
	r.explain(t, blocked)
	if t.rejected == patience || t.rejected%(16*patience) == 0 {
		r.unsettle(t)
	}
}

// patience is how many chunks in a row are thrown away for the same reason before the driver is asked again what they must
// see; then it grows. A transaction that was in progress when the server crashed may never have been, and would be waited
// for in vain.
const patience = 10

// delay grows from about ten milliseconds to about ten seconds.
func (r *reader) delay(attempts int) time.Duration {
	d := 10 * time.Millisecond << min(attempts-1, 10)
	return d/2 + time.Duration(r.rand.Int64N(int64(d)))
}

// scanFailed decides what a failed scan means.
func (r *reader) scanFailed(t *table, err error) error {
	switch {
	case errors.Is(err, ErrRewritten):
		log := r.log.WithField("table", t.id.String())
		if t.keyless && t.state.Rows > 0 {
			log.Warn("reading the table from the beginning because it was rewritten; it has no key, so rows that were read before come twice: " +
				"backfill it into an empty collection to have each once")
		} else {
			log.Info("planning the backfill anew because the table was rewritten")
		}
		failures := t.failures
		r.backfill(t)
		t.failures = failures
		return r.again(t, err)
	case errors.Is(err, ErrReshaped):
		r.rediscover(t)
		return r.again(t, err)
	case errors.Is(err, ErrInterrupted):
		return r.again(t, err)
	default:
		return fmt.Errorf("reading rows of %s: %w", t.id, err)
	}
}

// again has the table tried again after a while, unless that has failed many times.
func (r *reader) again(t *table, err error) error {
	t.failures++
	t.retryAt = r.now().Add(r.delay(t.failures))
	if t.failures > maxFailures {
		return usererr.New(err, "The rows of table %s could not be read, %d times in a row.", t.id, t.failures)
	}
	r.log.WithFields(logrus.Fields{"table": t.id.String(), "err": err, "attempt": t.failures}).Info("reading rows again")
	return nil
}
