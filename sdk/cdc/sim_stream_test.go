package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/tuple"
)

// simRow is a row, or what the log has of it.
type simRow struct {
	shape   *Table
	vals    map[string]string
	v       int
	omitted []string
	only    []string // columns that the row has; nil for all
	large   []LargeValue
}

func (r *simRow) Oversized() []LargeValue { return r.large }

// simHuge is what values begin with that are too large for a document; a number follows, which passes for their size.
const simHuge = "huge."

func hugeSize(value string) (n int64) {
	if digits, ok := strings.CutPrefix(value, simHuge); ok {
		_, _ = fmt.Sscanf(digits, "%d", &n)
	}
	return n
}

// largeOf lists the columns of a row that are too large for a document.
func largeOf(shape *Table, vals map[string]string, omitted, only []string) (large []LargeValue) {
	for _, c := range shape.Columns {
		if n := hugeSize(vals[c.Name]); n > 0 && !slices.Contains(omitted, c.Name) && (only == nil || slices.Contains(only, c.Name)) {
			large = append(large, LargeValue{c.Name, n})
		}
	}
	return large
}

func (r *simRow) has(name string) bool {
	return !slices.Contains(r.omitted, name) && !slices.ContainsFunc(r.large, func(v LargeValue) bool { return v.Column == name }) && (r.only == nil || slices.Contains(r.only, name))
}

func (r *simRow) AppendFields(dst []byte) ([]byte, error) {
	first := true
	for _, c := range r.shape.Columns {
		if !r.has(c.Name) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(append(append(dst, '"'), c.Name...), `":`...)
		if x, ok := r.vals[c.Name]; ok {
			dst = append(append(append(dst, '"'), x...), '"')
		} else {
			dst = append(dst, "null"...)
		}
	}
	return dst, nil
}

func (r *simRow) AppendKey(dst []byte) ([]byte, error) {
	for _, k := range r.shape.Key {
		x, ok := r.vals[k]
		if !ok || !r.has(k) {
			return dst, fmt.Errorf("no key column %s", k)
		}
		dst = tuple.AppendString(dst, x)
	}
	return dst, nil
}

func (r *simRow) AppendSource(dst []byte) ([]byte, error) {
	return append(strconv.AppendInt(append(dst, `"v":"`...), int64(r.v), 10), '"'), nil
}

func (r *simRow) Omitted() []string { return r.omitted }

// simStream is the log as it is read. It uses one event and its rows again and again, as drivers do.
type simStream struct {
	d       *simDriver
	epoch   int
	start   Position
	slot    string
	origins map[TableID]*simSnapshot
	joins   map[TableID]*simJoin
	known   map[TableID]*Table
	cursor  int // entries delivered
	entry   *simTxn
	at      int // writes of the entry delivered
	fences  []Mark
	idle    int // cursor that was told last
	ev      Event
	row     simRow
	before  simRow
	acked   *int
}

func (d *simDriver) Stream(_ context.Context, from Position, tables []*Table) (Stream, error) {
	db := d.s.db
	d.s.pass.end(db)
	d.s.pass = nil
	st := &simStream{d: d, epoch: db.epoch, origins: map[TableID]*simSnapshot{}, joins: map[TableID]*simJoin{}, known: map[TableID]*Table{}, acked: &d.s.acked}
	if from.Cursor != "" && string(from.Identity) != d.s.slot.identity() {
		if d.s.mutation != mutateLoss {
			return nil, fmt.Errorf("the log is another one: %w", ErrPositionLost)
		}
		from.Cursor = ""
	}
	st.publish(tables)
	if from.Cursor == "" {
		if err := d.s.slot.create(d.s); err != nil {
			return nil, err
		}
		st.cursor = db.flushed
		d.s.acked = st.cursor
	} else {
		n, err := strconv.Atoi(string(from.Cursor))
		if err != nil || n < d.s.acked || n > db.flushed {
			return nil, fmt.Errorf("the log cannot be read from %q: it has %d to %d", from.Cursor, d.s.acked, db.flushed)
		}
		st.cursor = n
	}
	st.idle = st.cursor
	st.slot = d.s.slot.identity()
	st.start = Position{Cursor: Cursor(strconv.Itoa(st.cursor)), Identity: json.RawMessage(st.slot)}
	d.s.trace("driver: streams from %d", st.cursor)
	return st, nil
}

// publish has the log carry the tables. Transactions that are in progress straddle that moment.
func (st *simStream) publish(tables []*Table) {
	db := st.d.s.db
	var add []*simTable
	for _, t := range tables {
		st.known[t.ID] = t
		if t.Origin != "" {
			st.origins[t.ID] = parseOrigin(t.Origin)
		}
		if now := db.tables[t.ID]; now != nil && t.Origin == "" {
			add = append(add, now)
		}
	}
	if len(add) == 0 {
		return
	}
	txn := db.ddlTxn("publishing tables", nil, func(*simTxn) {
		for _, t := range add {
			t.published = true
		}
	})
	for _, t := range add {
		switch {
		case len(t.key) > 0 || st.d.s.mutation == mutateJoin:
			st.origins[t.id] = &simSnapshot{next: txn.num + 1}
		case st.known[t.id].Unread:
			st.origins[t.id] = &simSnapshot{}
		default:
			st.joins[t.id] = &simJoin{before: db.snapshot().inProgress}
		}
	}
}

// simJoin is a table without a key that the stream does not carry yet: these have to be visible first.
type simJoin struct {
	before  []int // may have written to it before it was published
	dropped []int // wrote to it since, and were left out
}

// Joining implements Joiner.
func (st *simStream) Joining(id TableID) bool { return st.joins[id] != nil }

// join carries a table that nobody straddles any more. What divides it must not be lost in a crash.
func (st *simStream) join() *Event {
	s := st.d.s
	for _, t := range s.db.sortedTables() {
		j := st.joins[t.id]
		if j == nil {
			continue
		}
		now := s.db.snapshot()
		waits := slices.Clone(j.before)
		if s.mutation != mutateJoinDropped {
			waits = append(waits, j.dropped...)
		}
		if slices.ContainsFunc(waits, func(num int) bool { return !now.seesNum(num) }) || s.db.flushed < len(s.db.log) {
			continue
		}
		once := s.db.cfg.once && s.mutation != mutateOnce
		if once && s.pass != nil && s.pass.epoch == s.db.epoch {
			continue // one pass at a time
		}
		if once {
			s.pass = &simPass{t, now, s.db.epoch}
			s.pass.begin(s.db)
		}
		delete(st.joins, t.id)
		st.origins[t.id] = now
		st.ev = Event{Op: Joined, Table: t.id, Origin: now.origin(), Once: once}
		s.trace("stream: carries %s from %s", t.id, st.ev.Origin)
		return &st.ev
	}
	return nil
}

func (st *simStream) Start() Position { return st.start }

func (st *simStream) Origin(id TableID) string {
	if at := st.origins[id]; at != nil {
		return at.origin()
	}
	return ""
}

func (st *simStream) Next(ctx context.Context, wait time.Duration) (*Event, error) {
	s := st.d.s
	if err := s.happen(); err != nil {
		return nil, err
	}
	if s.db.epoch != st.epoch {
		return nil, errors.New("the server closed the connection")
	}
	if st.slot != s.slot.identity() && s.db.chance(50) {
		if s.mutation == mutateLoss || s.db.chance(30) {
			return nil, errors.New("the server closed the connection")
		}
		return nil, fmt.Errorf("the log ended: %w", ErrPositionLost)
	}
	st.ev = Event{}
	if st.entry == nil {
		if ev := st.between(wait); ev != nil {
			return ev, nil
		}
	}
	for st.at < len(st.entry.writes) {
		w := st.entry.writes[st.at]
		ev, done := st.deliver(w)
		if done {
			st.at++
		}
		if ev != nil {
			return ev, nil
		}
	}
	st.ev = Event{Op: Commit, Txn: st.entry.id, Cursor: Cursor(strconv.Itoa(st.cursor))}
	s.trace("stream: commit of txn %s, cursor %d", st.entry.id, st.cursor)
	st.entry = nil
	return &st.ev, nil
}

// between gives a fence or an idle event, or begins the next entry and returns nil.
func (st *simStream) between(wait time.Duration) *Event {
	s := st.d.s
	if ev := st.join(); ev != nil {
		return ev
	}
	for i, m := range st.fences {
		if pos, _ := strconv.Atoi(string(m)); pos <= st.cursor || s.mutation == mutateNoFence {
			st.fences = slices.Delete(st.fences, i, i+1)
			st.ev = Event{Op: Fence, Mark: m}
			s.trace("stream: fence %s", m)
			return &st.ev
		}
	}
	if st.cursor < s.db.flushed && (wait > linger || s.db.chance(70)) && !s.db.chance(s.lag) {
		st.entry, st.at = s.db.log[st.cursor], 0
		st.cursor++
		return nil
	}
	s.now = s.now.Add(wait/2 + time.Duration(s.db.rnd.Int64N(int64(wait)+1)))
	st.ev = Event{Op: Idle}
	if s.db.chance(20) {
		st.ev.Cursor = Cursor(strconv.Itoa(st.cursor))
	}
	return &st.ev
}

// deliver gives the event of one log record; a change of shape comes before it. It returns false if the record is still to
// come.
func (st *simStream) deliver(w *simWrite) (*Event, bool) {
	s := st.d.s
	known := st.known[w.table.id]
	if !w.carried || known == nil || older(w.table, known) {
		return nil, true
	}
	if w.op == Drop {
		st.ev = Event{Op: Drop, Table: w.table.id, Txn: st.entry.id, Err: errors.New("dropped")}
		return &st.ev, true
	}
	schema := w.schema.selected(&known.Selection, false)
	if shape := st.told(schema); known.Incarnation != shape.Incarnation || !sameColumns(known, shape) {
		if w.schema.Incarnation != known.Incarnation {
			delete(st.joins, w.table.id)
			if s.db.cfg.once && len(schema.Key) == 0 && !known.Unread && s.mutation != mutateOnce {
				st.joins[w.table.id] = &simJoin{}
			} else {
				// The log carries the new table from its first moment on: nothing is left to the backfill.
				shape.Origin = (&simSnapshot{}).origin()
				st.origins[w.table.id] = &simSnapshot{}
			}
		}
		rescan := refilled(known, shape)
		st.known[w.table.id] = shape
		st.ev = Event{Op: Shape, Table: w.table.id, Txn: st.entry.id, Shape: shape, Rescan: rescan && s.mutation != mutateRescan}
		s.trace("stream: shape of %s, rescan %v", w.table.id, rescan)
		return &st.ev, false
	}
	if j := st.joins[w.table.id]; j != nil {
		j.dropped = append(j.dropped, st.entry.num)
		return nil, true
	}
	if w.op == Truncate {
		st.ev = Event{Op: Truncate, Table: w.table.id, Txn: st.entry.id}
		return &st.ev, true
	}
	if len(schema.Key) == 0 && st.origins[w.table.id].seesNum(st.entry.num) {
		return nil, true // the backfill has it
	}
	st.ev = Event{Op: w.op, Table: w.table.id, Txn: st.entry.id, Unlogged: w.unlogged && s.mutation != mutateUnlogged}
	if w.row != nil {
		omitted := slices.DeleteFunc(slices.Clone(w.omitted), func(name string) bool { return !known.Selection.Has(Column{Name: name}) })
		st.row = simRow{shape: schema, vals: w.vals, v: w.v, omitted: omitted}
		st.row.large = largeOf(schema, w.vals, w.omitted, nil)
		st.ev.Row = &st.row
	}
	if w.before != nil {
		st.before = simRow{shape: schema, vals: w.old, v: w.v}
		full := s.db.cfg.fullRows || len(schema.Key) == 0
		if !full {
			st.before.only = schema.Key
		}
		st.before.large = largeOf(schema, w.old, nil, st.before.only)
		if full || w.op == Delete || w.row.key != w.before.key {
			st.ev.Before = &st.before
		}
	}
	return &st.ev, true
}

// told is what the log tells of a shape.
func (st *simStream) told(schema *Table) *Table {
	c := *schema
	if !st.d.s.db.cfg.logTells {
		c.Columns = slices.Clone(c.Columns)
		for i := range c.Columns {
			c.Columns[i].Incarnation = ""
		}
	}
	return &c
}

// older reports whether a table was there before the one that is known to be captured, and is therefore gone.
func older(t *simTable, known *Table) bool {
	n, err := strconv.Atoi(known.Incarnation)
	return err == nil && t.incarnation < n
}

func (st *simStream) Fence(_ context.Context, m Mark) error {
	st.fences = append(st.fences, m)
	return nil
}

func (st *simStream) Ack(c Cursor) {
	if n, err := strconv.Atoi(string(c)); err == nil && n > *st.acked {
		*st.acked = n
	}
}

func (st *simStream) Close() error { return nil }
