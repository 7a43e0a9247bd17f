package cdc

import (
	"slices"
	"time"
)

// planWork lists the tables that need workers, the most urgent first.
func (r *reader) planWork() {
	r.rework = false
	r.work = r.work[:0]
	for _, t := range r.tables {
		if t.busy() {
			r.work = append(r.work, t)
		}
	}
	if len(r.work) == 0 {
		r.spare = nil // a backfill's memory is not needed for long
	}
	slices.SortStableFunc(r.work, func(a, b *table) int {
		return b.binding.Resource.Priority - a.binding.Resource.Priority
	})
}

// dispatch starts as many jobs as there are workers and memory for.
func (r *reader) dispatch() {
	now := r.now()
	for r.running < r.opts.BackfillWorkers && r.chunks < 2*r.opts.BackfillWorkers {
		j := r.nextJob(now)
		if j == nil {
			return
		}
		r.start(j)
	}
}

func (r *reader) start(j job) {
	r.running++
	r.pool.start(j)
}

// nextJob chooses what the next free worker does: of the tables of the highest priority that can use it, the one that had
// a worker longest ago. As many tables as there are workers are in progress at once, so that a small one does not wait for
// a large one.
func (r *reader) nextJob(now time.Time) job {
	for _, t := range r.passing {
		if r.ready(t, now) {
			return r.jobFor(t)
		}
	}
	if len(r.passing) > 0 && r.reopen {
		return nil
	}
	for i := 0; i < len(r.work); {
		end := i
		active := 0
		var next, fresh *table
		for ; end < len(r.work) && r.work[end].binding.Resource.Priority == r.work[i].binding.Resource.Priority; end++ {
			t := r.work[end]
			if t.plan != nil || t.state.Phase == Scanning {
				active++
			}
			if !r.ready(t, now) {
				continue
			}
			if t.state.Phase == Pending {
				if fresh == nil {
					fresh = t
				}
			} else if next == nil || t.turn < next.turn {
				next = t
			}
		}
		if fresh != nil && (next == nil || active < r.opts.BackfillWorkers) {
			next = fresh
		}
		if next != nil {
			r.turns++
			next.turn = r.turns
			return r.jobFor(next)
		}
		i = end
	}
	return nil
}

// ready reports whether the table can use a worker now.
func (r *reader) ready(t *table, now time.Time) bool {
	if t.plan != nil || t.joining || now.Before(t.retryAt) {
		return false
	}
	if t.state.Phase == Pending || t.unsettled || len(t.fresh) > 0 {
		return true
	}
	if t.failures+t.rejected > 0 && len(t.inflight) > 0 {
		return false // one chunk finds out whether the table can be read
	}
	return t.holes.len() > 0 && t.keyChunk == nil || t.idleSpan() != nil
}

// jobFor makes the table's next job.
func (r *reader) jobFor(t *table) job {
	if t.state.Phase == Pending || t.unsettled {
		t.plan = &planJob{table: t, known: t.current(t.shape), at: t.revision, settle: t.state.Phase != Pending}
		t.watch()
		return t.plan
	}
	if len(t.fresh) > 0 {
		t.plan = &planJob{table: t, known: t.current(t.shape), at: t.revision, parts: t.fresh}
		t.watch()
		return t.plan
	}
	c := r.newChunk(t)
	if t.holes.len() > 0 && t.keyChunk == nil {
		if t.keyRows == 0 {
			t.keyRows = maxKeys
		}
		c.keys = t.holes.first(t.keyRows)
		c.ask.MaxRows = len(c.keys)
		t.keyChunk = c
	} else {
		c.span = t.idleSpan()
		c.ask.Range = c.span.ahead
		c.span.chunks = append(c.span.chunks, c)
		c.span.busy = true
	}
	return c
}

// maxKeys is how many rows are read by key at once.
const maxKeys = 1000

func (r *reader) newChunk(t *table) *chunk {
	c := &chunk{}
	if n := len(r.spare); n > 0 {
		c, r.spare = r.spare[n-1], r.spare[:n-1]
	}
	if t.chunkRows == 0 {
		t.chunkRows = r.opts.ChunkRows
	}
	c.table, c.base = t, r.latest
	c.doc = document{op: opCreate, snapshot: true, rules: t.rules}
	c.ask = Chunk{Table: t.current(t.shape), MaxRows: t.chunkRows, MaxBytes: r.opts.ChunkBytes}
	c.ask.Heavy = c.waitHeavy(r.heavy)
	t.inflight = append(t.inflight, c)
	r.chunks++
	return c
}

func (r *reader) recycle(c *chunk) {
	if c.heavy {
		<-r.heavy
	}
	c.reuse()
	r.spare = append(r.spare, c)
	r.chunks--
}
