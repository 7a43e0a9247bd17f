package cdc

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// change emits one changed row. In a live table it looks at nothing but what is emitted.
func (r *reader) change(t *table, ev *Event) error {
	if without, err := r.withoutKey(t, ev); without {
		return err
	}
	switch ev.Op {
	case Insert:
		return r.inserted(t, ev)
	case Update:
		return r.updated(t, ev)
	default:
		return r.deleted(t, ev)
	}
}

func (r *reader) inserted(t *table, ev *Event) error {
	if ev.Row == nil {
		return fmt.Errorf("reading the log: insert into %s without a row", t.id)
	}
	if lacks := ev.Row.Omitted(); !t.keyless && (t.watching || len(lacks) > 0) {
		var err error
		if r.key, err = ev.Row.AppendKey(r.key[:0]); err != nil {
			return r.encoding(t, err)
		}
		if err := r.appeared(t, ev, r.key, lacks); err != nil {
			return err
		}
		if r.wholeRows && len(lacks) > 0 {
			return nil // the row follows, as a snapshot sees it
		}
	}
	return r.emit(t, opCreate, ev.Row, nil)
}

func (r *reader) updated(t *table, ev *Event) (err error) {
	if ev.Row == nil {
		return fmt.Errorf("reading the log: update of %s without a row", t.id)
	}
	partial := r.wholeRows && !t.keyless && len(ev.Row.Omitted()) > 0
	if t.keyless || ev.Before == nil && !t.watching && !partial && !ev.Unlogged {
		return r.emit(t, opUpdate, ev.Row, ev.Before)
	}
	if r.key, err = ev.Row.AppendKey(r.key[:0]); err != nil {
		return r.encoding(t, err)
	}
	if ev.Before != nil {
		if r.old, err = ev.Before.AppendKey(r.old[:0]); err != nil {
			return r.encoding(t, err)
		}
		if !bytes.Equal(r.key, r.old) {
			return r.rekeyed(t, ev)
		}
	}
	if ev.Unlogged {
		if err := r.appeared(t, ev, r.key, ev.Row.Omitted()); err != nil || r.wholeRows {
			return err // the row follows, as a snapshot sees it
		}
		return r.emit(t, opUpdate, ev.Row, ev.Before)
	}
	if partial {
		// Whoever reads cannot keep the values it has: instead of the change it gets the row as a snapshot sees it after this.
		if err := r.hole(t, r.key, ev.Txn); err != nil {
			return err
		}
		if t.watching {
			r.note(t, ev.Txn, r.key, ev.Row.Omitted())
		}
		return nil
	}
	if t.watching {
		lacks := ev.Row.Omitted()
		if len(lacks) > 0 && t.moving() {
			if err := r.hole(t, r.key, ""); err != nil {
				return err
			}
		}
		r.note(t, ev.Txn, r.key, lacks)
	}
	return r.emit(t, opUpdate, ev.Row, ev.Before)
}

// rekeyed emits an update that moved a row to another key: the old key ends, the new one begins.
func (r *reader) rekeyed(t *table, ev *Event) error {
	if t.watching {
		r.note(t, ev.Txn, r.old, nil)
	}
	if err := r.appeared(t, ev, r.key, ev.Row.Omitted()); err != nil {
		return err
	}
	if err := r.emit(t, opDelete, ev.Before, nil); err != nil {
		return err
	}
	if r.wholeRows && len(ev.Row.Omitted()) > 0 {
		return nil // the row follows, as a snapshot sees it
	}
	return r.emit(t, opCreate, ev.Row, nil)
}

// appeared notes that a row came to be under a key, or got values that the log does not have. What the log leaves out of it no document
// has brought, nor will any: the row that a chunk may hold under this key is another one.
func (r *reader) appeared(t *table, ev *Event, key []byte, lacks []string) error {
	if len(lacks) > 0 {
		if err := r.hole(t, key, ev.Txn); err != nil {
			return err
		}
	}
	if t.watching {
		r.note(t, ev.Txn, key, nil)
	}
	return nil
}

func (r *reader) deleted(t *table, ev *Event) (err error) {
	if ev.Before == nil {
		return usererr.New(nil, "A row of table %s was deleted, but the log does not say which. "+
			"Make the server log the key of deleted rows (for Postgres: ALTER TABLE %s REPLICA IDENTITY DEFAULT, or FULL).", t.id, t.id)
	}
	if t.watching {
		if r.key, err = ev.Before.AppendKey(r.key[:0]); err != nil {
			return r.encoding(t, err)
		}
		r.note(t, ev.Txn, r.key, nil)
	}
	return r.emit(t, opDelete, ev.Before, nil)
}

// note remembers a change for the chunks that may not see it.
func (r *reader) note(t *table, txn TxnID, key []byte, lacks []string) {
	if t.notedFor != txn {
		t.notedFor, t.noted = txn, nil
		if r.matters(t, txn) {
			t.noted = t.window.begin(txn)
		}
	}
	if t.noted == nil {
		return
	}
	t.window.add(t.noted, key, lacks)
	if t.window.bytes <= r.limits.windowBytes {
		return
	}
	t.window.collapse()
	if len(t.window.txns) > r.limits.windowTxns {
		r.unsettle(t)
	}
}

// matters reports whether a chunk that is in flight, or one to come, may not see a transaction that is emitted now. Once
// it has become visible to one snapshot, every later snapshot sees it.
func (r *reader) matters(t *table, txn TxnID) bool {
	if r.latest == nil || !r.latest.Sees(txn) {
		return true
	}
	for _, c := range t.inflight {
		if v := c.view(); v == nil || !v.Sees(txn) {
			return true
		}
	}
	return false
}

// unsettle forgets what was emitted. Which transactions chunks must see is asked from the driver anew: whatever was
// emitted is visible by then, or still in progress.
func (r *reader) unsettle(t *table) {
	if t.state.Phase == Pending {
		r.backfill(t) // the plan that is being made may not know of them
		return
	}
	t.void()
	t.window.reset()
	t.notedFor, t.noted = "", nil
	t.unsettled = true
	if t.plan != nil {
		t.plan.void = true
		t.plan = nil
	}
}

// hole has a row read by key, because its document left something out that no other document brings.
func (r *reader) hole(t *table, key []byte, by TxnID) error {
	if _, ok := r.driver.(KeyScanner); !ok {
		return usererr.New(nil, "A row of table %s changed in a way of which the log leaves out unchanged values, and this server's rows cannot be read by key. "+
			"Make the server log whole rows (for Postgres: ALTER TABLE %s REPLICA IDENTITY FULL), then backfill the table.", t.id, t.id)
	}
	if t.state.Phase == Missing || t.state.Phase == Pending && t.plan == nil {
		return nil // all of it will be read anyway
	}
	t.holes.add(key, by)
	if t.holes.bytes > r.limits.holesBytes {
		r.log.WithField("table", t.id.String()).Warn("reading the table again because too many rows were logged without their unchanged values")
		r.backfill(t)
		return nil
	}
	if !t.watching {
		t.watch()
		r.rework = true
	}
	return nil
}

// emit appends one document of a change.
func (r *reader) emit(t *table, op byte, row, before Row) error {
	r.doc.op, r.doc.row, r.doc.before, r.doc.rules = op, row, before, t.rules
	if err := r.out.Append(t.binding, r.encode); err != nil {
		return r.oversized(t, row, err)
	}
	if r.doc.large != nil {
		r.placed(t, note{row: rowName(t.rules, row), large: r.doc.large})
	}
	r.documents++
	return nil
}

func (r *reader) encoding(t *table, err error) error {
	return fmt.Errorf("encoding the key of a row of %s: %w", t.id, err)
}

// altered takes an event that concerns a table as a whole.
func (r *reader) altered(t *table, ev *Event) error {
	if ev.Txn != "" {
		r.inTxn = true
	}
	if t.state.Halted != "" {
		return nil
	}
	switch ev.Op {
	case Truncate:
		return r.truncated(t, ev)
	case Drop:
		if ev.Halt {
			r.halt(t, ev.Err)
			return nil
		}
		r.miss(t, ev.Err)
		r.rediscover(t) // another one may have taken its name at the same moment
		return nil
	default:
		return r.reshaped(t, ev)
	}
}

// reshaped takes a new shape of a table from the log.
func (r *reader) reshaped(t *table, ev *Event) error {
	replaced := ev.Shape.Incarnation != t.state.Incarnation && ev.Shape.Incarnation != "" && t.state.Incarnation != ""
	if replaced {
		t.forget()
	}
	if !replaced && !ev.Rescan && t.state.Phase != Missing && r.nothingNew(t, ev) {
		return nil
	}
	now := complete(complete(t.bound(ev.Shape), t.state.shape(t.id, t.shape)), t.shape)
	if err := t.fits(now); err != nil {
		return err
	}
	known := t.adopted && sameColumns(now, t.shape) && !replaced
	if replaced && now.Origin != "" {
		t.state.Origin, t.joining = now.Origin, false
	}
	if !sameShape(now, t.shape) {
		t.void()
	}
	if replaced || t.state.Phase == Missing {
		r.returned(t)
	}
	returned := t.state.returns(t.state.shape(t.id, t.shape), now)
	t.state.setShape(now)
	t.shape, t.adopted, t.announce = now, false, true
	t.revision++
	r.save(t)
	if slices.ContainsFunc(now.Columns, func(c Column) bool { return c.Incarnation == "" }) || ev.Look {
		r.rediscover(t) // to know which columns of these names they are, before others replace them
	}
	if replaced || t.state.Phase == Missing || (ev.Rescan || returned) && !known || ev.Owed {
		r.rescan(t, replaced || t.state.Phase == Missing)
	}
	return nil
}

// returned notes a table that has the name of one that is gone.
func (r *reader) returned(t *table) {
	if joiner, ok := r.stream.(Joiner); ok && joiner.Joining(t.id) {
		t.joining, t.state.Origin = true, ""
	}
}

// nothingNew reports whether a shape from the log is the one that was known, but for how the log lays it out, which it stores.
func (r *reader) nothingNew(t *table, ev *Event) bool {
	known, now := t.bound(t.state.shape(t.id, t.shape)), t.bound(ev.Shape)
	relaid := ev.Shape.Layout != t.state.Layout
	if (!ev.Look || !sameColumns(now, known)) && (!relaid || !sameShape(now, known)) {
		return false
	}
	if relaid {
		t.state.Layout = ev.Shape.Layout
		r.save(t)
	}
	if ev.Look {
		r.rediscover(t)
	}
	return true
}

// join writes a list of columns for people.
func join(names []string) string { return strings.Join(names, ", ") }
