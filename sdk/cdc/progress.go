package cdc

import (
	"sync"
	"time"
)

// progress is what the reader says of itself, for those who watch it. The reader writes it now and then, not for every
// event; it may be read from any goroutine, also when the reader hangs.
type progress struct {
	mu  sync.Mutex
	now view
}

// view is the progress at one moment.
type view struct {
	open   bool // the log is open
	tables tally

	transactions, changes, documents, bytes uint64 // delivered in this session
	inTxn                                   bool   // a transaction has begun and not ended
	txnChanges                              uint64 // of that transaction

	delivered, checkpointed, acknowledged Cursor
	committed                             time.Time // when the last transaction committed, by the server's clock

	owed      int       // checkpoints that are not acknowledged
	owedSince time.Time // when the first of them was emitted, or the last one before was acknowledged

	waits   string    // what a backfill waits for,
	waitsAt time.Time // and when that was found out
}

// tally is how far the tables are.
type tally struct {
	tables, backfilling, missing int
	rows, of                     int64 // of all backfills that this session has seen; of is below zero if no table has an estimate
}

// percent is how much of the backfills is done; below zero if unknown.
func (t tally) percent() float64 {
	if t.of <= 0 {
		return -1
	}
	return min(100*float64(t.rows)/float64(max(t.of, t.rows)), 100)
}

func (p *progress) look() view {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *progress) change(f func(v *view)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.now)
}

// emitted notes a checkpoint that is to be acknowledged.
func (p *progress) emitted(c Cursor, at time.Time) {
	p.change(func(v *view) {
		v.checkpointed = c
		if v.owed == 0 {
			v.owedSince = at
		}
		v.owed++
	})
}

// acked notes that the oldest of those was acknowledged.
func (p *progress) acked(c Cursor, at time.Time) {
	p.change(func(v *view) {
		v.acknowledged = c
		v.owed--
		v.owedSince = at
	})
}

// publish brings the progress up to date.
func (r *reader) publish() {
	bytes := r.bytes
	if r.out != nil {
		bytes += uint64(r.out.Size()) //nolint:gosec // a size
	}
	r.progress.change(func(v *view) {
		v.open = r.stream != nil && !r.connecting
		v.tables = r.tally
		v.transactions, v.changes, v.documents, v.bytes = r.transactions, r.changes, r.documents, bytes
		v.inTxn, v.txnChanges = r.inTxn, r.changes-r.changesBefore
		v.delivered, v.committed = r.shared.Cursor, r.committed
	})
}

// publishEvery is after how many changes of one transaction the progress is published.
const publishEvery = 1024

// count looks at how far the tables are.
func (r *reader) count() tally {
	n := tally{tables: len(r.tables), rows: r.done, of: r.done}
	known := r.done > 0
	for _, t := range r.tables {
		switch t.state.Phase {
		case Missing:
			n.missing++
		case Pending:
			n.backfilling++
			if t.shape != nil && t.shape.Rows >= 0 {
				known = true
				n.of += t.shape.Rows
			}
		case Scanning:
			n.backfilling++
			n.rows += t.state.Rows
			known = known || t.state.Estimate >= 0
			n.of += max(t.state.Estimate, t.state.Rows, 0)
		case Live:
		}
	}
	if !known {
		n.of = -1
	}
	return n
}
