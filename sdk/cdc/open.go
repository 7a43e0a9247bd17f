package cdc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// open makes the reader of a session. The log is not opened before the first Read.
func open(ctx context.Context, s session) (*reader, error) {
	shared, err := parseShared(s.env.Shared)
	if err != nil {
		return nil, usererr.New(err, "The stored position of this capture cannot be read, so it was not written by this connector. Backfill all of its bindings.")
	}
	r := &reader{
		driver: s.driver, opts: s.opts, limits: s.limits, log: s.env.Log, pool: s.pool, now: s.now, rand: s.rand,
		byID: map[TableID]*table{}, shared: shared, forget: s.env.Dormant,
		goal: goal{wanted: s.env.CatchUp}, wholeRows: s.env.Whole, fences: map[Mark][]*chunk{}, announced: map[*table]string{}, rework: true, progress: &progress{}, heavy: make(chan struct{}, 1),
	}
	r.encode = r.doc.append
	for _, b := range s.bindings {
		t := &table{
			binding: b, state: &b.State, id: b.Resource.Table(),
			keyless:     sameKey(b.Collection.Key, fallbackKey()),
			changesOnly: b.Resource.Mode == OnlyChanges || s.opts.skips(b.Resource.Table()),
			selection:   b.Resource.selection(),
		}
		r.tables, r.byID[t.id] = append(r.tables, t), t
		r.follow(t)
	}
	if len(r.tables) == 0 {
		return r, nil
	}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// load compares what is stored of the tables with what the server has.
func (r *reader) load(ctx context.Context) error {
	discovered, err := r.look(ctx)
	if err != nil {
		return err
	}
	var errs []error
	anew := true
	for _, t := range r.tables {
		errs = append(errs, t.load(discovered[t.id]), r.sayLeftOver(t, discovered[t.id]))
		t.started = r.now()
		anew = anew && t.binding.New
	}
	if anew {
		// Nothing carries on, so nothing needs the old log.
		r.shared.Cursor = ""
	}
	if anew && len(discovered) == 0 {
		return usererr.New(nil, "None of the tables to capture exists (%s is the first). Check the names of schemas and tables, or discover again.", r.tables[0].id)
	}
	now := r.now()
	r.lastEnd, r.nextProgress = now, now.Add(progressInterval)
	r.scheduleDiscovery(now)
	r.tally = r.count()
	r.publish()
	return usererr.Join("The capture cannot go on:", errs)
}

// look finds out what the server has of the bound tables.
func (r *reader) look(ctx context.Context) (map[TableID]*Table, error) {
	ids := make([]TableID, len(r.tables))
	for i, t := range r.tables {
		ids[i] = t.id
	}
	tables, err := r.driver.Discover(ctx, ids...)
	if err != nil {
		return nil, fmt.Errorf("looking at the tables' shapes: %w", err)
	}
	discovered := make(map[TableID]*Table, len(tables))
	for _, d := range tables {
		discovered[d.ID] = d
	}
	return discovered, nil
}

// load makes the table what its stored state says.
func (t *table) load(discovered *Table) error {
	s := t.state
	if t.binding.New {
		*s = TableState{Phase: Pending}
	}
	if s.Lossy || s.Phase == "" {
		s.begin(Pending)
	}
	if t.changesOnly && (s.Phase == Pending || s.Phase == Scanning) {
		s.begin(Live)
	}
	t.discovered = discovered
	t.selection.Withheld = s.Withheld
	if discovered != nil && !t.binding.New {
		t.added = t.widened(discovered)
		if err := t.reform(discovered); err != nil {
			return err
		}
	}
	t.shape = s.shape(t.id, discovered)
	if discovered == nil {
		if t.shape == nil {
			t.shape = &Table{ID: t.id, Rows: -1}
		}
		return nil
	}
	if err := usererr.Join("", errsOfSelection(discovered, &t.selection, t.keyless)); err != nil {
		return err
	}
	t.withhold(discovered)
	if err := t.fits(t.bound(discovered)); err != nil {
		return err
	}
	t.shape = t.bound(t.shape)
	for _, rest := range s.Ranges {
		t.spans = append(t.spans, &span{rest: rest, ahead: rest})
	}
	for _, k := range s.Holes {
		t.holes.add(k, "")
	}
	t.window.require(s.Unseen)
	t.unsettled = s.Unsettled
	t.watch()
	return nil
}

// begin opens the log and stores where, before anything else: a crash from here on finds the same log again.
func (r *reader) begin(ctx context.Context) error {
	for _, key := range r.forget {
		r.out.Forget(key)
	}
	r.forget = nil
	if len(r.tables) == 0 {
		return r.idle(ctx)
	}
	if !r.lostAt.IsZero() {
		if err := r.startAnew(ctx); err != nil {
			return err
		}
	}
	if done, err := r.reconcileAll(); err != nil || done {
		return err
	}
	given := r.shared.Cursor
	if err := r.connect(ctx); err != nil {
		return err
	}
	if r.goal.wanted {
		r.acks.ack(given) // so it is stored; what this session finds, also before it opens the log again, may never be said to be
	}
	for _, t := range r.tables {
		t.announce = t.state.Phase != Missing
		r.save(t)
	}
	return r.finish()
}

// reconcileAll makes the tables what the server has now. That the log did not carry a table for a while is committed before
// the log is opened, because the opening may be refused, and what was wrong be mended until the next one: then done is true,
// and the log is opened by the next Read.
func (r *reader) reconcileAll() (done bool, err error) {
	if r.rescoped {
		r.rescoped = false
		return false, nil
	}
	for _, t := range r.tables {
		if err := r.reconcile(t); err != nil {
			return false, err
		}
	}
	r.rescoped = r.rescoped && r.shared.Cursor != ""
	if !r.rescoped {
		return false, nil
	}
	return true, r.finish()
}

// idle is the session of a capture without bindings: it forgets the log once, and waits to be stopped.
func (r *reader) idle(ctx context.Context) error {
	if r.shared.Cursor != "" {
		r.shared.Cursor = ""
		r.out.SetShared(&r.shared)
		return nil
	}
	if r.goal.wanted {
		return io.EOF
	}
	<-ctx.Done()
	return ctx.Err()
}

// reconcile makes a table what the server has now.
func (r *reader) reconcile(t *table) error {
	found := t.discovered
	t.discovered = nil
	if t.state.Halted != "" {
		r.sayHalted(t)
		return nil
	}
	if found == nil {
		r.miss(t, nil)
		return nil
	}
	if len(t.state.Columns) == 0 {
		t.state.setShape(t.shape)
	}
	if added := t.added; len(added) > 0 {
		t.added = nil
		r.log.WithFields(logrus.Fields{"table": t.id.String(), "columns": join(added)}).Info("columns are captured that were left out before")
		r.rescan(t, false)
	}
	if reformed := t.reformed; len(reformed) > 0 {
		t.reformed = nil
		r.log.WithFields(logrus.Fields{"table": t.id.String(), "columns": join(reformed)}).
			Info("columns are written in another form than before, because the configuration says so; discover again, so that the collection's schema says so too")
		r.rescan(t, false)
	}
	return r.adopt(t, found)
}

// connect opens the log at the stored position.
func (r *reader) connect(ctx context.Context) error {
	var tables []*Table
	for _, t := range r.tables {
		if t.state.Phase != Missing {
			tables = append(tables, t.current(t.state.shape(t.id, t.shape)))
		}
	}
	stream, err := r.driver.Stream(ctx, r.shared.Position, tables)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	r.stream, r.reopen, r.rescoped, r.connecting = stream, false, false, false
	r.forgetGoal()
	r.acks.set(stream)
	r.started(stream.Start())
	for _, t := range r.tables {
		if t.state.Scope != "" {
			r.rediscover(t) // opening may have changed how the log carries it
		}
	}
	for _, t := range r.tables {
		if t.state.Phase != Missing && t.state.Origin == "" {
			t.state.Origin = stream.Origin(t.id)
			r.save(t)
		}
		t.joining = r.joins(t)
	}
	return nil
}

// joined notes that the stream carries a table from here on. What came before is the backfill's.
func (r *reader) joined(t *table, ev *Event) {
	if t.joining {
		t.joining, t.state.Origin = false, ev.Origin
		r.save(t)
		if ev.Once {
			r.passes(t)
		}
	}
}

// joins reports whether the stream does not carry a table yet.
func (r *reader) joins(t *table) bool {
	joiner, ok := r.stream.(Joiner)
	return ok && t.state.Phase != Missing && joiner.Joining(t.id)
}

// started notes where a log begins, or that a resumed one has another identity now.
func (r *reader) started(at Position) {
	if r.shared.Cursor == "" {
		r.shared.Position = at
		r.saved = true
	} else if len(at.Identity) > 0 && !bytes.Equal(at.Identity, r.shared.Identity) {
		r.shared.Identity = at.Identity
		r.saved = true
	}
}

// reconnect opens the log again, for other tables, where it has been read to.
func (r *reader) reconnect(ctx context.Context) error {
	for _, t := range r.tables {
		t.void()
	}
	r.unfence()
	r.connecting = true
	r.publish()
	if err := r.acks.set(nil).Close(); err != nil {
		return fmt.Errorf("closing the log: %w", err)
	}
	return r.connect(ctx)
}

// unfence throws away the chunks that wait for the stream. They must be void.
func (r *reader) unfence() {
	for _, chunks := range r.fences {
		r.fenced = append(r.fenced, chunks...)
	}
	clear(r.fences)
	for _, c := range r.fenced {
		r.recycle(c)
	}
	r.fenced = nil
}

// sameKey compares keys of collections; the order of their parts is up to the user.
func sameKey(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// errKey is the answer to a table whose key is not that of its collection.
func errKey(id TableID, collection string, key, now []string) error {
	return usererr.New(nil, "The key of table %s is %s, but the documents of collection %s are keyed by %s. "+
		"Discover the table again, so that its collection gets this key, and backfill it.", id, keyText(now), collection, keyText(key))
}

func keyText(key []string) string {
	if len(key) == 0 {
		return "(none)"
	}
	return "(" + join(key) + ")"
}

var errNoSnapshot = errors.New("the driver gave no snapshot")
