package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// simDriver is the driver of the simulated database. Its scans run step by step between everything else that happens.
type simDriver struct {
	s *sim
}

// simPass is a table that is read in one pass.
type simPass struct {
	table *simTable
	snap  *simSnapshot
	epoch int
}

// begin takes the pass's snapshot. The server keeps what it sees.
func (p *simPass) begin(db *simDB) { db.snapshots = append(db.snapshots, p.snap) }

// end lets the server forget it.
func (p *simPass) end(db *simDB) {
	if p != nil && p.epoch == db.epoch {
		db.snapshots = slices.DeleteFunc(db.snapshots, func(o *simSnapshot) bool { return o == p.snap })
	}
}

var errSimStopped = errors.New("stopped")

// pause lets other things happen, if it is called from a job.
func (d *simDriver) pause(ctx context.Context) error { return d.s.pool.pause(ctx) }

func (d *simDriver) Check(context.Context, []TableID) []error { return nil }
func (d *simDriver) Close() error                             { d.s.pass.end(d.s.db); d.s.pass = nil; return nil }

func (d *simDriver) Discover(ctx context.Context, only ...TableID) ([]*Table, error) {
	if err := d.pause(ctx); err != nil {
		return nil, err
	}
	var found []*Table
	for _, t := range d.s.db.sortedTables() {
		if len(only) == 0 || slices.Contains(only, t.id) {
			s := t.shape()
			if d.s.mutation == mutateParts {
				s.Parts = nil
			}
			found = append(found, s)
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
	if db.cfg.once && len(want.Key) == 0 {
		p.Unseen, p.Ranges = nil, []Range{pageRange(t.relfile, 0, -1)}
	} else if db.cfg.physical || len(want.Key) == 0 {
		pages := (len(t.slots) + db.cfg.pageRows - 1) / db.cfg.pageRows
		step := 1 + db.rnd.IntN(pages+1)
		from := t.firstPage(want.Parts, db.cfg.pageRows)
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

// firstPage is where the parts that are asked for begin.
func (t *simTable) firstPage(parts []string, pageRows int) int {
	if len(parts) == 0 || t.parts == nil {
		return 0
	}
	first := len(t.slots)
	for _, p := range parts {
		n, _ := strconv.Atoi(p)
		if slot, ok := t.parts[n]; ok {
			first = min(first, slot)
		}
	}
	return first / pageRows
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
	snap := db.snapshot()
	if db.cfg.once && len(c.Table.Key) == 0 && d.s.mutation != mutateOnce {
		if d.s.pass == nil || d.s.pass.table != t || d.s.pass.epoch != db.epoch {
			return nil, fmt.Errorf("the snapshot is gone: %w", ErrInterrupted)
		}
		snap = d.s.pass.snap
	}
	t.scans++
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
	if d.s.pass != nil && snap == d.s.pass.snap && rest == "" {
		d.s.pass.end(db)
		d.s.pass = nil
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
		if !w.d.s.db.cfg.once && !parseOrigin(w.chunk.Table.Origin).seesNum(v.xmin.num) {
			return nil // the stream has it
		}
	}
	w.read = append(w.read, v.key)
	return w.yield(&simRow{shape: w.chunk.Table, vals: v.vals, v: v.v, large: largeOf(w.chunk.Table, v.vals, nil, nil)})
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
