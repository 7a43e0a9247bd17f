package cdc

import (
	"context"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// backfill has the table read from the beginning.
func (r *reader) backfill(t *table) {
	if t.plan != nil {
		t.plan.void = true
	}
	t.restart(Pending)
	r.rework = true
	r.save(t)
}

// rescan has the table read again because its rows may have changed without a word in the log; anew says that it is
// another table than before.
func (r *reader) rescan(t *table, anew bool) {
	log := r.log.WithField("table", t.id.String())
	switch {
	case t.changesOnly:
		if t.state.Phase != Live {
			r.live(t)
		}
		log.Warn("table changed as a whole; only changes are captured, so rows that were there before stay as they are in the collection")
	case t.keyless && !anew:
		log.Warn("table changed as a whole; it has no key, so rows that were captured before keep their form in the collection")
	case t.state.Phase == Pending && t.plan == nil:
	default:
		log.Info("backfilling the table again because it changed as a whole")
		r.backfill(t)
	}
}

// live makes the table one of which only changes are captured from here on.
func (r *reader) live(t *table) {
	if t.plan != nil {
		t.plan.void = true
	}
	t.restart(Live)
	r.rework = true
	r.save(t)
}

// miss notes that the table is gone.
func (r *reader) miss(t *table, reason error) {
	if t.state.Phase == Missing {
		return
	}
	r.leave(t)
	fields := logrus.Fields{"table": t.id.String(), "eventType": statusEvent, "phase": string(Missing)}
	if reason != nil {
		fields["err"] = reason
	}
	r.log.WithFields(fields).Warn("table is missing: it is captured again when a table of this name appears; remove its binding if it was dropped for good")
}

// leave makes the table one that is missing.
func (r *reader) leave(t *table) {
	if t.plan != nil {
		t.plan.void = true
	}
	t.restart(Missing)
	t.revision++
	r.rework = true
	r.save(t)
}

// halt gives up a table that is there, because rows came to it that nothing brings. Others go on.
func (r *reader) halt(t *table, reason error) {
	t.state.Halted = reason.Error()
	r.leave(t)
	r.sayHalted(t)
}

// sayHalted says in the log, in every session, that the table is not captured.
func (r *reader) sayHalted(t *table) {
	r.log.WithFields(logrus.Fields{"table": t.id.String(), "eventType": statusEvent, "phase": string(Missing), "err": t.state.Halted}).
		Error("table is not captured any more: backfill its binding into an empty collection")
}

// discoverJob looks at tables' shapes.
type discoverJob struct {
	ids   []TableID
	known []int // the tables' revisions when they were asked for
	found []*Table
	err   error
}

// rediscover has a table's shape looked at soon, before it is time.
func (r *reader) rediscover(t *table) {
	if !slices.Contains(r.ask, t) {
		r.ask = append(r.ask, t)
	}
}

// discover looks at shapes, one job at a time.
func (r *reader) discover(tables []*table) {
	r.discovering = true
	j := &discoverJob{}
	for _, t := range tables {
		j.ids, j.known = append(j.ids, t.id), append(j.known, t.revision)
	}
	r.start(j)
}

func (j *discoverJob) run(ctx context.Context, d Driver) { j.found, j.err = d.Discover(ctx, j.ids...) }

func (j *discoverJob) done(_ context.Context, r *reader) error {
	r.discovering = false
	if j.err != nil {
		// Nothing depends on it: the log says what rows look like, and scans notice what does not fit.
		r.log.WithField("err", j.err).Warn("could not look at the tables' shapes; trying again later")
		return nil //nolint:nilerr // see above
	}
	found := make(map[TableID]*Table, len(j.found))
	for _, t := range j.found {
		found[t.ID] = t
	}
	for i, id := range j.ids {
		t := r.byID[id]
		if t.revision != j.known[i] {
			continue
		}
		if found[id] == nil {
			r.miss(t, nil)
			continue
		}
		if err := r.adopt(t, found[id]); err != nil {
			return err
		}
	}
	return nil
}

// adopt takes a shape from discovery, which may be ahead of the log. Chunks are read by it at once; the stored shape stays
// that of the log, so that nothing the log will say of it is missed.
func (r *reader) adopt(t *table, found *Table) error {
	if t.state.Halted != "" {
		return nil
	}
	before := t.shape
	taken, err := r.take(t, found)
	if err != nil || !taken || sameShape(before, t.shape) {
		return err
	}
	t.void()
	if refilled(before, t.shape) || t.state.returns(before, t.shape) {
		t.adopted = t.state.Phase == Live || t.state.Phase == Scanning
		r.rescan(t, false)
	}
	return nil
}

// take makes a shape from discovery the one that chunks are read by. It returns false if it is that of another table than
// the one that was captured, which is then captured from the beginning.
func (r *reader) take(t *table, found *Table) (bool, error) {
	replaced := t.state.Phase == Missing || found.Incarnation != t.shape.Incarnation && found.Incarnation != "" && t.shape.Incarnation != ""
	if replaced {
		t.forget()
	}
	if t.withhold(found) {
		r.save(t)
	}
	now := t.bound(found)
	if err := t.fits(now); err != nil {
		return false, err
	}
	if replaced {
		r.replaced(t, now)
		return false, nil
	}
	if !sameShape(now, t.shape) {
		t.announce = true
		r.saved = true
	}
	t.shape = now
	if t.state.identify(now) {
		r.save(t)
	}
	if err := r.scoped(t, found); err != nil {
		return false, err
	}
	return true, r.parted(t, found)
}

// scoped follows how the log carries the table.
func (r *reader) scoped(t *table, found *Table) error {
	if (found.Behind || found.Scope == "" && t.state.Scope != "") && !r.reopen {
		r.log.WithField("table", t.id.String()).Info("opening the log again because it does not carry the table as it should")
		r.reopen = true
	}
	before := t.state.Scope
	if found.Scope == "" || found.Scope == before {
		return nil
	}
	t.state.Scope = found.Scope
	r.save(t)
	if before == "" {
		return nil
	}
	r.rescoped = true
	if (t.keyless || t.changesOnly) && t.selection.Whole() {
		return usererr.New(nil, "The log did not carry table %s for a while, because it was taken out of what is published, or that was made anew. "+
			"Changes are missing, and cannot be made up for by reading the table again (it has no key, or only changes are captured). Backfill it into an empty collection.", t.id)
	}
	r.rescan(t, false)
	return nil
}

// fits checks that the table's documents can be those of its collection.
func (t *table) fits(now *Table) error {
	if !t.keyless && !sameKey(collectionKey(now), t.binding.Collection.Key) {
		return errKey(t.id, t.binding.Collection.Name, t.binding.Collection.Key, now.Key)
	}
	if hasMetaColumn(now) {
		return errMetaColumn(t.id)
	}
	return nil
}

// replaced begins to capture another table of the same name. The log is opened again, to carry it.
func (r *reader) replaced(t *table, now *Table) {
	t.state.setShape(now)
	t.state.Origin = ""
	t.shape, t.adopted, t.announce = now, false, true
	t.revision++
	r.reopen = true
	if t.changesOnly {
		r.live(t)
	} else {
		r.backfill(t)
	}
	r.log.WithField("table", t.id.String()).Info("capturing another table of this name")
}

// timers does what is due.
func (r *reader) timers() {
	if len(r.tables) == 0 {
		return
	}
	now := r.now()
	if !r.discovering && !now.Before(r.nextDiscovery) {
		r.scheduleDiscovery(now)
		r.discover(r.tables)
		r.ask = nil
	}
	if !r.discovering && len(r.ask) > 0 {
		r.discover(r.ask)
		r.ask = nil
	}
	if len(r.work) > 0 && !now.Before(r.nextProgress) {
		r.nextProgress = now.Add(progressInterval)
		for _, t := range r.work {
			if t.state.Phase == Scanning {
				r.logProgress(t, "backfill in progress")
			}
		}
	}
}

func (r *reader) scheduleDiscovery(now time.Time) {
	d := r.opts.Rediscovery
	r.nextDiscovery = now.Add(d/2 + time.Duration(r.rand.Int64N(int64(d))))
}

const (
	progressInterval = 10 * time.Second
	explainInterval  = 30 * time.Second
	// statusEvent marks log lines that say how far a table has come.
	statusEvent = "connectorStatus"
)

// logProgress logs how far the backfill of a table has come.
func (r *reader) logProgress(t *table, message string) {
	fields := logrus.Fields{
		"eventType": statusEvent, "table": t.id.String(), "phase": "backfill",
		"rows": t.state.Rows, "took": r.now().Sub(t.started).Round(time.Millisecond).String(),
	}
	if t.state.Estimate >= 0 {
		fields["of"] = t.state.Estimate
	}
	if len(t.spans) == 0 && t.holes.len() == 0 && t.state.Phase == Scanning {
		fields["phase"] = "streaming"
	}
	r.log.WithFields(fields).Info(message)
}

// explainJob asks the driver what a transaction waits for.
type explainJob struct {
	table *table
	txn   TxnID
	more  int
	text  string
}

func (j *explainJob) run(ctx context.Context, d Driver) {
	if w, ok := d.(Waiter); ok {
		j.text = w.Explain(ctx, j.txn)
	}
}

func (j *explainJob) done(_ context.Context, r *reader) error {
	r.progress.change(func(v *view) {
		v.waits, v.waitsAt = "the backfill of "+j.table.id.String()+" waits for a transaction to become visible", r.now()
		if j.text != "" {
			v.waits = "the backfill of " + j.table.id.String() + " waits for " + j.text
		}
	})
	r.log.WithFields(logrus.Fields{
		"table": j.table.id.String(), "txn": string(j.txn), "more": j.more, "waitsFor": j.text,
	}).Info("backfill waits for a transaction that is not visible yet")
	return nil
}

// explain says in the log, now and then, what a table's backfill waits for. The first attempts are not worth a line.
func (r *reader) explain(t *table, blocked []TxnID) {
	now := r.now()
	if t.rejected < 6 || now.Sub(t.explained) < explainInterval {
		return
	}
	t.explained = now
	r.start(&explainJob{table: t, txn: blocked[0], more: len(blocked) - 1})
}
