package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// pass is the reading of a table without a key: one query in one snapshot (see join.go). It belongs to one goroutine at a time: the
// stream's until the table has joined, then the worker's that scans.
type pass struct {
	id      cdc.TableID
	s       *session
	seen    cdc.Visibility
	at      place  // no transaction behind it is seen, and all before it are
	file    uint64 // of at, for documents
	columns int    // of the result that is being read; 0 before
	rows    int64  // read
}

// close gives the snapshot up.
func (p *pass) close() { _ = p.s.close() } // it is of no use any more, whatever closing says

// dropPass ends the pass that is going on, if there is one.
func (d *driver) dropPass() {
	if p := d.pass.Swap(nil); p != nil {
		p.close()
	}
}

var errNoPass = fmt.Errorf("the table's snapshot is gone: %w", cdc.ErrInterrupted)

// passOf is the pass of a table.
func (d *driver) passOf(id cdc.TableID) (*pass, error) {
	p := d.pass.Load()
	if p == nil || p.id != id {
		return nil, errNoPass
	}
	return p, nil
}

// scanPass reads the next rows of a pass.
func (d *driver) scanPass(ctx context.Context, c cdc.Chunk, r scanRange, yield func(cdc.Row) error) (*cdc.Scanned, error) {
	p, err := d.passOf(c.Table.ID)
	if err != nil {
		return nil, err
	}
	out := &cdc.Scanned{Snapshot: p.seen, High: cdc.Mark(p.at.String())}
	err = d.inScan(ctx, c.Table, c.Heavy, func(_ *session, plan *scanPlan) error {
		if policy := cdc.OversizePolicy(d.cfg.Advanced.OnOversizedRow); policy == cdc.OversizePlaceholder || policy == cdc.OversizeSkip {
			p.s.wire.limit = maxEvent // the row could not be read a second time
		}
		more, err := p.read(ctx, plan, c, yield)
		if more {
			out.Rest = r.encode()
		}
		return err
	})
	if err != nil || out.Rest == "" {
		d.dropPass()
	}
	return out, err
}

// read reads a chunk's rows, and reports whether there may be more.
func (p *pass) read(ctx context.Context, plan *scanPlan, c cdc.Chunk, yield func(cdc.Row) error) (more bool, err error) {
	if p.columns == 0 {
		sql := "SELECT " + plan.list + plan.from()
		if filter := plan.table.Selection.Filter; filter != "" {
			sql += " WHERE " + filtered(filter)
		}
		if p.columns, err = p.s.start(ctx, sql, plan.asPlanned); err != nil {
			return false, err
		}
	}
	row := scanRow{plan: plan.rows, pass: p}
	rows, size, sent := 0, 0, 0
	p.s.socket.Expect(plan.sizes.surely(c.MaxRows))
	defer p.s.socket.Expect(0)
	err = p.s.rest(ctx, p.columns, func(vals [][]byte) error {
		row.vals = vals
		rowSize := 0
		for _, v := range vals {
			rowSize += len(v)
		}
		if rowSize > cdc.HeavyRow && c.Heavy != nil {
			if err := c.Heavy(ctx); err != nil {
				return err //nolint:wrapcheck // the context's
			}
		}
		p.rows++
		if err := yield(&row); err != nil {
			return err
		}
		rows++
		sent += 4 + len(vals) + rowSize
		if size += rowSize; rows >= c.MaxRows || size >= c.MaxBytes {
			return errFull
		}
		return nil
	})
	plan.sizes.observe(rows, size, sent)
	if errors.Is(err, errFull) {
		return true, nil
	}
	return false, err
}

// appendLoc appends where the row is: no place in the log, but by the negative number of the file one that no other row has.
func (p *pass) appendLoc(dst []byte) []byte {
	dst = strconv.AppendUint(append(dst, `"loc":[-`...), p.file, 10)
	dst = strconv.AppendUint(append(dst, ','), p.at.at, 10)
	return append(strconv.AppendInt(append(dst, ','), p.rows, 10), ']', ',')
}
