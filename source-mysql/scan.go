package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// scanRange is a part of a table: the rows whose keys lie behind After, up to UpTo. Values are SQL literals. They are made of
// digits only, or by us of hexadecimal digits.
type scanRange struct {
	After []string `json:"after,omitempty"`
	UpTo  []string `json:"upTo,omitempty"`
	Open  bool     `json:"open,omitempty"` // up to the last key that there is when the range is first read
	Once  bool     `json:"once,omitempty"` // all of a table without a key, in one pass
}

func (r scanRange) encode() cdc.Range {
	text, _ := json.Marshal(r) // texts always encode
	return cdc.Range(text)
}

// The server's errors that say something about a table.
const (
	errUnknownDatabase = 1049
	errUnknownColumn   = 1054
	errUnknownVariable = 1193
	errUnknownTable    = 1146
	errTimedOut        = 3024
	errTimedOutMaria   = 1969
	errInterrupted     = 1317
	errDeadlock        = 1213
	errLockWait        = 1205
	errTableChanged    = 1412
	errDiscarded       = 1814
)

// inScan runs f with a session and the table's plan, and sorts its errors into what the core does about them. heavy is Chunk.Heavy, or nil.
func (d *driver) inScan(ctx context.Context, t *cdc.Table, heavy func(context.Context) error, f func(*session, *scanPlan) error) error {
	large, err := d.mayBeLarge(ctx, t.ID, heavy)
	if err != nil {
		return err
	}
	s, _, err := d.conns.get(ctx)
	if err != nil {
		return err
	}
	defer d.conns.put(s)
	if large {
		s.wire.limit = maxEvent
		defer func() { s.wire.limit = cdc.MaxRow }()
	}
	p, err := d.cachedPlan(ctx, s, t)
	if err == nil {
		err = f(s, p)
	}
	if err == nil {
		return nil
	}
	d.plans.mu.Lock()
	delete(d.plans.plans, t.ID)
	d.plans.mu.Unlock()
	if ctx.Err() != nil {
		s.broken = true
		return ctx.Err()
	}
	if !s.broken && s.exec(ctx, "ROLLBACK") != nil {
		s.broken = true
	}
	what := fmt.Sprintf("scanning table %s", t.ID)
	switch code(err) {
	case errUnknownTable, errUnknownDatabase:
		return fmt.Errorf("%s: %w: %w", what, cdc.ErrRewritten, err)
	case errUnknownColumn:
		return fmt.Errorf("%s: %w: %w", what, cdc.ErrReshaped, err)
	case errTimedOut, errTimedOutMaria, errInterrupted, errDeadlock, errLockWait, errTableChanged:
		return fmt.Errorf("%s: %w: %w", what, cdc.ErrInterrupted, err)
	case errDiscarded: // mostly until the other one is imported
		return usererr.New(fmt.Errorf("%s: %w: %w", what, cdc.ErrInterrupted, err), "The table %s has no rows that could be read: its tablespace was discarded. "+
			"Import another one (ALTER TABLE %s.%s IMPORT TABLESPACE), or leave the table out.", t.ID, quoteName(t.ID.Schema), quoteName(t.ID.Name))
	case errNoTableRight, errNoColumnRight, errNoDatabaseRight:
		return d.noSelect(t.ID, err)
	}
	switch {
	case errors.Is(err, cdc.ErrRewritten), errors.Is(err, cdc.ErrReshaped), errors.Is(err, cdc.ErrInterrupted):
		return err
	case errors.Is(err, errLargePacket):
		return d.tooLarge(t.ID, what, large, err)
	case isLost(err):
		return fmt.Errorf("%s: %w: %w", what, cdc.ErrInterrupted, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// mayBeLarge reports whether a table's rows may be larger than a document. Such rows are held whole, and what becomes of them the core
// decides, so only one chunk at a time has any.
func (d *driver) mayBeLarge(ctx context.Context, id cdc.TableID, heavy func(context.Context) error) (bool, error) {
	d.plans.mu.Lock()
	large := d.plans.large[id]
	d.plans.mu.Unlock()
	if !large || heavy == nil {
		return large, nil
	}
	return true, heavy(ctx)
}

// tooLarge is what becomes of a chunk with a row that is larger than the session takes: where a policy is to decide, it is read again.
func (d *driver) tooLarge(id cdc.TableID, what string, known bool, err error) error {
	const advice = "Make its values smaller, or leave out the column with them (excludeColumns)"
	switch policy := cdc.OversizePolicy(d.cfg.Advanced.OnOversizedRow); {
	case policy != cdc.OversizePlaceholder && policy != cdc.OversizeSkip:
		return usererr.New(err, "The table %s has a row of more than %d MiB, which fits into no document. %s; "+
			"or set onOversizedRow to placeholder to go on with null for such values, or to skip to go on without such rows.", id, cdc.MaxRow>>20, advice)
	case known:
		return usererr.New(err, "The table %s has a row of more than %d MiB, which cannot be read. %s.", id, maxEvent>>20, advice)
	}
	d.plans.mu.Lock()
	if d.plans.large == nil {
		d.plans.large = map[cdc.TableID]bool{}
	}
	d.plans.large[id] = true
	d.plans.mu.Unlock()
	return fmt.Errorf("%s: %w: %w", what, cdc.ErrInterrupted, err)
}

func (d *driver) noSelect(id cdc.TableID, err error) error {
	return usererr.New(err, "User %q may not read table %s. Have an administrator run: GRANT SELECT ON %s.%s TO %s;", d.cfg.User, id, quoteName(id.Schema), quoteName(id.Name), d.grantee())
}

// Plan implements cdc.Driver.
func (d *driver) Plan(ctx context.Context, t *cdc.Table) (*cdc.Plan, error) {
	out := &cdc.Plan{Fixed: true}
	if len(t.Key) == 0 {
		_, err := d.passOf(t.ID)
		out.Ranges = []cdc.Range{scanRange{Once: true}.encode()}
		return out, err
	}
	if live := d.live.Load(); live != nil {
		out.Unseen = live.delivered()
	}
	err := d.inScan(ctx, t, nil, func(s *session, p *scanPlan) error {
		var err error
		out.Ranges, err = p.ranges(ctx, s, min(p.table.Rows/d.rangeRows+1, maxRanges))
		return err
	})
	return out, err
}

// rangeRows is about how many rows are worth a range of their own, maxRanges how many a table has at most.
const rangeRows, maxRanges = 200_000, 16

// ranges divides a table by its first key column (divide). A table whose key begins with another type is one range.
func (p *scanPlan) ranges(ctx context.Context, s *session, parts int64) ([]cdc.Range, error) {
	if parts < 2 || !p.key[0].divisible() {
		return []cdc.Range{scanRange{Open: true}.encode()}, nil
	}
	return p.divide(ctx, s, parts)
}

// Scan implements cdc.Driver.
func (d *driver) Scan(ctx context.Context, c cdc.Chunk, yield func(cdc.Row) error) (*cdc.Scanned, error) {
	var r scanRange
	if err := json.Unmarshal([]byte(c.Range), &r); err != nil {
		return nil, fmt.Errorf("reading a stored range: %w", err)
	}
	if r.Once {
		return d.scanPass(ctx, c, r, yield)
	}
	var out *cdc.Scanned
	err := d.inScan(ctx, c.Table, c.Heavy, func(s *session, p *scanPlan) (err error) {
		out, err = d.scan(ctx, s, p, c, r, yield)
		return err
	})
	return out, err
}

func (d *driver) scan(ctx context.Context, s *session, p *scanPlan, c cdc.Chunk, r scanRange, yield func(cdc.Row) error) (*cdc.Scanned, error) {
	return d.snapshot(ctx, s, func(out *cdc.Scanned) error {
		if r.Open {
			var empty bool
			var err error
			if r.UpTo, empty, err = p.last(ctx, s); err != nil || empty {
				return err
			}
			r.Open = false
		}
		if err := p.read(ctx, s, c, &r, yield); err != nil {
			return err
		}
		if r.After != nil {
			out.Rest = r.encode()
		}
		return nil
	})
}

// snapshot runs f within one snapshot, and says what that sees. f may break the session.
func (d *driver) snapshot(ctx context.Context, s *session, f func(*cdc.Scanned) error) (*cdc.Scanned, error) {
	out := &cdc.Scanned{}
	var err error
	if d.server.mariadb {
		out.Snapshot, err = d.mariaSnapshot(ctx, s)
	} else {
		out.Snapshot, err = d.mysqlSnapshot(ctx, s)
	}
	if err != nil {
		return nil, err
	}
	if err := f(out); err != nil {
		return nil, err
	}
	if d.server.mariadb && !s.broken {
		if err := s.exec(ctx, "COMMIT"); err != nil {
			return nil, err
		}
	}
	ask := func(s *session) error {
		end, err := d.end(ctx, s)
		out.High = cdc.Mark(end.String())
		return err
	}
	if s.broken {
		return out, d.conns.with(ctx, ask)
	}
	return out, ask(s)
}

// last is the last key that there is.
func (p *scanPlan) last(ctx context.Context, s *session) (key []string, empty bool, err error) {
	descending := make([]string, len(p.key))
	for i, k := range p.key {
		descending[i] = k.name + " DESC"
	}
	err = s.query(ctx, "SELECT "+p.list+p.from()+" ORDER BY "+strings.Join(descending, ", ")+" LIMIT 1", p.asPlanned, func(vals [][]byte) error {
		key = p.keyOf(vals)
		return nil
	})
	return key, key == nil, err
}

// read reads a chunk's rows. r becomes what is left; without After nothing is.
func (p *scanPlan) read(ctx context.Context, s *session, c cdc.Chunk, r *scanRange, yield func(cdc.Row) error) error {
	limit := p.sizes.rows(c)
	sql := "SELECT " + p.list + p.from()
	var conditions []string
	if len(r.After) > 0 {
		conditions = append(conditions, p.after(r.After))
	}
	if len(r.UpTo) > 0 {
		conditions = append(conditions, p.upTo(r.UpTo))
	}
	if filter := p.table.Selection.Filter; filter != "" {
		conditions = append(conditions, filtered(filter))
	}
	if len(conditions) > 0 {
		sql += " WHERE " + strings.Join(conditions, " AND ")
	}
	sql += " ORDER BY " + p.keyAll + " LIMIT " + strconv.Itoa(limit)
	row := scanRow{plan: p.rows}
	rows, size, sent := 0, 0, 0
	r.After = nil
	s.socket.Expect(p.sizes.surely(limit))
	defer s.socket.Expect(0)
	err := s.query(ctx, sql, p.asPlanned, func(vals [][]byte) error {
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
		if err := yield(&row); err != nil {
			return err
		}
		rows++
		size += rowSize
		sent += 4 + len(vals) + rowSize // a packet's head, and the lengths of values
		tooMuch := size >= 2*c.MaxBytes
		if rows == limit || tooMuch {
			r.After = p.keyOf(vals)
		}
		if tooMuch && rows < limit {
			return errFull
		}
		return nil
	})
	p.sizes.observe(rows, size, sent)
	if errors.Is(err, errFull) {
		return nil // the session is given up: the server would send the rest
	}
	return err
}

// errFull says that a chunk has as many bytes as it may have.
var errFull = errors.New("the chunk is full")
