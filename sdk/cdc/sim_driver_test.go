package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/tuple"
)

// simDriver is the driver of the simulated database. Its scans run step by step between everything else that happens.
type simDriver struct {
	s *sim
}

var errSimStopped = errors.New("stopped")

// pause lets other things happen, if it is called from a job.
func (d *simDriver) pause(ctx context.Context) error { return d.s.pool.pause(ctx) }

func (d *simDriver) Check(context.Context, []TableID) []error { return nil }
func (d *simDriver) Close() error                             { return nil }

func (d *simDriver) Discover(ctx context.Context, only ...TableID) ([]*Table, error) {
	if err := d.pause(ctx); err != nil {
		return nil, err
	}
	var found []*Table
	for _, t := range d.s.db.sortedTables() {
		if len(only) == 0 || slices.Contains(only, t.id) {
			found = append(found, t.shape())
		}
	}
	return found, d.pause(ctx)
}

// Ranges are "p:relfile:from:to" in pages, to is -1 where the end is open, or "k:from:to" in keys.

func (d *simDriver) Plan(ctx context.Context, want *Table) (*Plan, error) {
	if err := d.pause(ctx); err != nil {
		return nil, err
	}
	db := d.s.db
	t := db.tables[want.ID]
	if t == nil || db.chance(5) {
		return nil, ErrInterrupted
	}
	d.s.scans = slices.DeleteFunc(d.s.scans, func(scan simScan) bool { return scan.table == t })
	p := &Plan{Fixed: !db.cfg.physical || d.s.mutation == mutateFixed}
	for _, num := range db.snapshot().inProgress {
		if d.s.mutation != mutatePlanUnseen {
			p.Unseen = append(p.Unseen, TxnID(strconv.Itoa(num)))
		}
	}
	if db.cfg.physical || len(want.Key) == 0 {
		pages := (len(t.slots) + db.cfg.pageRows - 1) / db.cfg.pageRows
		step := 1 + db.rnd.IntN(pages+1)
		from := 0
		for ; from+step < pages; from += step {
			p.Ranges = append(p.Ranges, pageRange(t.relfile, from, from+step))
		}
		p.Ranges = append(p.Ranges, pageRange(t.relfile, from, -1))
	} else {
		mid := strconv.Itoa(db.rnd.IntN(10))
		p.Ranges = []Range{Range("k::" + mid), Range("k:" + mid + ":")}
	}
	d.s.trace("driver: plans %s: %v, unseen %v", t.id, p.Ranges, p.Unseen)
	return p, d.pause(ctx)
}

func pageRange(relfile, from, to int) Range {
	return Range(fmt.Sprintf("p:%d:%d:%d", relfile, from, to))
}

// simScan is one scan, for the checks: what it read of the table, as a part of a range.
type simScan struct {
	table *simTable
	part  Range // what was read
	keys  []string
}

// record keeps a scan in the place of earlier ones of the same part, which were in vain.
func (s *sim) record(scan simScan) {
	s.scans = slices.DeleteFunc(s.scans, func(o simScan) bool { return o.table == scan.table && overlap(o.part, scan.part) })
	s.scans = append(s.scans, scan)
}

func (d *simDriver) Scan(ctx context.Context, c Chunk, yield func(Row) error) (*Scanned, error) {
	return d.scan(ctx, c, nil, yield)
}

func (d *simDriver) ScanKeys(ctx context.Context, c Chunk, keys [][]byte, yield func(Row) error) (*Scanned, error) {
	set := map[string]bool{}
	for _, k := range keys {
		set[string(k)] = true
	}
	return d.scan(ctx, c, set, yield)
}

func (d *simDriver) scan(ctx context.Context, c Chunk, keys map[string]bool, yield func(Row) error) (*Scanned, error) {
	low := d.mark()
	if err := d.pause(ctx); err != nil {
		return nil, err
	}
	db := d.s.db
	t := db.tables[c.Table.ID]
	switch {
	case t == nil, t.locks[""] != nil, db.chance(3):
		return nil, fmt.Errorf("scanning: %w", ErrInterrupted)
	case strconv.Itoa(t.incarnation) != c.Table.Incarnation:
		return nil, ErrRewritten
	case !columnsExist(c.Table, t):
		return nil, ErrReshaped
	}
	epoch := db.epoch
	t.scans++
	snap := db.snapshot()
	db.snapshots = append(db.snapshots, snap)
	defer func() {
		if db.epoch == epoch {
			t.scans--
			db.snapshots = slices.DeleteFunc(db.snapshots, func(o *simSnapshot) bool { return o == snap })
		}
	}()
	w := &simWalk{d: d, chunk: c, table: t, snap: snap, yield: yield, epoch: epoch}
	var rest Range
	var err error
	switch {
	case keys != nil:
		err = w.keys(ctx, keys)
	case strings.HasPrefix(string(c.Range), "p:"):
		rest, err = w.pages(ctx)
	default:
		rest, err = w.order(ctx)
	}
	if err != nil {
		return nil, err
	}
	high := d.mark()
	if d.s.mutation == mutateLowFence {
		high = low
	}
	if d.s.mutation == mutateByLog {
		snap = &simSnapshot{next: snap.next, inProgress: snap.inProgress, byLog: d.s.loggedBefore(low)}
	}
	d.s.trace("driver: scanned %s %q %d rows, rest %q, high %s, in progress %v from %d", t.id, c.Range, len(w.read), rest, high, snap.inProgress, snap.next)
	return &Scanned{Rest: rest, Snapshot: snap, High: high}, d.pause(ctx)
}

func (d *simDriver) mark() Mark { return Mark(strconv.Itoa(len(d.s.db.log))) }

// columnsExist reports whether a query of the shape's columns would work.
func columnsExist(s *Table, t *simTable) bool {
	for _, c := range s.Columns {
		if !slices.ContainsFunc(t.cols, func(x simColumn) bool { return x.name == c.Name && x.typ == c.Type }) {
			return false
		}
	}
	return true
}

// simWalk is a scan in progress.
type simWalk struct {
	d     *simDriver
	chunk Chunk
	table *simTable
	snap  *simSnapshot
	yield func(Row) error
	epoch int
	read  []string
}

// wait lets things happen in the middle of the scan.
func (w *simWalk) wait(ctx context.Context) error {
	if err := w.d.pause(ctx); err != nil {
		return err
	}
	if w.d.s.db.epoch != w.epoch {
		return fmt.Errorf("the server has gone away: %w", ErrInterrupted)
	}
	return nil
}

func (w *simWalk) give(v *simVersion) error {
	if len(w.chunk.Table.Key) == 0 {
		if origin, _ := strconv.Atoi(w.chunk.Table.Origin); v.xmin.num >= origin {
			return nil // the stream has it
		}
	}
	w.read = append(w.read, v.key)
	return w.yield(&simRow{shape: w.chunk.Table, vals: v.vals, v: v.v})
}

func (w *simWalk) pages(ctx context.Context) (Range, error) {
	var relfile, from, to int
	if _, err := fmt.Sscanf(string(w.chunk.Range), "p:%d:%d:%d", &relfile, &from, &to); err != nil {
		return "", err
	}
	if relfile != w.table.relfile {
		return "", ErrRewritten
	}
	size := w.d.s.db.cfg.pageRows
	if to < 0 {
		to = max(from, (len(w.table.slots)+size-1)/size)
	}
	page := from
	for ; page < to && (page == from || len(w.read) < w.chunk.MaxRows); page++ {
		for i := page * size; i < min((page+1)*size, len(w.table.slots)); i++ {
			if v := w.table.slots[i]; v != nil && w.snap.sees(v) {
				if err := w.give(v); err != nil {
					return "", err
				}
			}
		}
		if err := w.wait(ctx); err != nil {
			return "", err
		}
	}
	w.d.s.record(simScan{w.table, pageRange(relfile, from, page), w.read})
	if page >= to {
		return "", nil
	}
	return pageRange(relfile, page, to), nil
}

// visible lists the rows of the snapshot in the order of their keys.
func (w *simWalk) visible() []*simVersion {
	var vs []*simVersion
	for _, v := range w.table.slots {
		if v != nil && w.snap.sees(v) {
			vs = append(vs, v)
		}
	}
	slices.SortFunc(vs, func(a, b *simVersion) int { return strings.Compare(a.key, b.key) })
	return vs
}

func (w *simWalk) order(ctx context.Context) (Range, error) {
	parts := strings.SplitN(string(w.chunk.Range), ":", 3)
	from, to := parts[1], parts[2]
	rest := Range("")
	last := to
	for _, v := range w.visible() {
		if v.key < from || to != "" && v.key >= to {
			continue
		}
		if len(w.read) >= w.chunk.MaxRows {
			rest, last = Range("k:"+v.key+":"+to), v.key
			break
		}
		if err := w.give(v); err != nil {
			return "", err
		}
		if w.d.s.db.chance(30) {
			if err := w.wait(ctx); err != nil {
				return "", err
			}
		}
	}
	w.d.s.record(simScan{w.table, Range("k:" + from + ":" + last), w.read})
	return rest, nil
}

func (w *simWalk) keys(ctx context.Context, keys map[string]bool) error {
	for _, v := range w.visible() {
		row := &simRow{shape: w.chunk.Table, vals: v.vals}
		if k, _ := row.AppendKey(nil); !keys[string(k)] || w.d.s.mutation == mutateHoles {
			continue
		}
		if err := w.give(v); err != nil {
			return err
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// simRow is a row, or what the log has of it.
type simRow struct {
	shape   *Table
	vals    map[string]string
	v       int
	omitted []string
	only    []string // columns that the row has; nil for all
}

func (r *simRow) has(name string) bool {
	return !slices.Contains(r.omitted, name) && (r.only == nil || slices.Contains(r.only, name))
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

// Stream

// simStream is the log as it is read. It uses one event and its rows again and again, as drivers do.
type simStream struct {
	d       *simDriver
	epoch   int
	start   Position
	origins map[TableID]int
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
	st := &simStream{d: d, epoch: db.epoch, origins: map[TableID]int{}, known: map[TableID]*Table{}, acked: &d.s.acked}
	st.publish(tables)
	if from.Cursor == "" {
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
	st.start = Position{Cursor: Cursor(strconv.Itoa(st.cursor))}
	d.s.trace("driver: streams from %d", st.cursor)
	return st, nil
}

// publish has the log carry the tables. Transactions that are in progress straddle that moment.
func (st *simStream) publish(tables []*Table) {
	db := st.d.s.db
	var add []*simTable
	for _, t := range tables {
		st.known[t.ID] = t
		if n, err := strconv.Atoi(t.Origin); err == nil {
			st.origins[t.ID] = n
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
		st.origins[t.id] = txn.num + 1
	}
}

func (st *simStream) Start() Position { return st.start }

func (st *simStream) Origin(id TableID) string {
	if n, ok := st.origins[id]; ok {
		return strconv.Itoa(n)
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
	if shape := st.told(w.schema); known.Incarnation != shape.Incarnation || !sameColumns(known, shape) {
		if w.schema.Incarnation != known.Incarnation {
			// The log carries the new table from its first moment on: nothing is left to the backfill.
			shape.Origin = "0"
			st.origins[w.table.id] = 0
		}
		rescan := refilled(known, shape)
		st.known[w.table.id] = shape
		st.ev = Event{Op: Shape, Table: w.table.id, Txn: st.entry.id, Shape: shape, Rescan: rescan && s.mutation != mutateRescan}
		s.trace("stream: shape of %s, rescan %v", w.table.id, rescan)
		return &st.ev, false
	}
	if w.op == Truncate {
		st.ev = Event{Op: Truncate, Table: w.table.id, Txn: st.entry.id}
		return &st.ev, true
	}
	if len(w.schema.Key) == 0 && st.entry.num < st.origins[w.table.id] {
		return nil, true // the backfill has it
	}
	st.ev = Event{Op: w.op, Table: w.table.id, Txn: st.entry.id}
	if w.row != nil {
		st.row = simRow{shape: w.schema, vals: w.vals, v: w.v, omitted: w.omitted}
		st.ev.Row = &st.row
	}
	if w.before != nil {
		st.before = simRow{shape: w.schema, vals: w.old, v: w.v}
		full := s.db.cfg.fullRows || len(w.schema.Key) == 0
		if !full {
			st.before.only = w.schema.Key
		}
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
