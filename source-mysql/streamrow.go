package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// streamed is a bound table as the log has it.
type streamed struct {
	id    cdc.TableID
	table *cdc.Table // its present version

	layout  layout   // where its columns are in the log, if that does not say so; nil if that is not certain
	derived *derived // what it is like after statements since it was certain; nil if these were not understood
	gone    bool     // it was dropped, and nothing has its name
	join    *join    // nil if the stream carries it
	owed    bool     // rows were left out, so the table is to be backfilled
	blindTo place    // … once the stream is here
	last    *mapping
}

// mapping is one number that the log gives to a table, with how its rows become documents.
type mapping struct {
	raw   []byte // the body of the table map, to tell that nothing has changed
	table *streamed
	log   *binlog.Table
	rows  *rowPlan

	types  []*columnType // of the columns, where the log does not name them
	silent bool          // the table changed without a word in the log
	blind  bool          // its rows cannot be read
}

// streamRow is a row of the log. It implements cdc.Row.
type streamRow struct {
	plan    *rowPlan
	vals    [][]byte
	s       *stream
	ordinal int64
	part    bool // it need not have all columns
	lacks   []string
}

// AppendFields implements cdc.Row.
func (r *streamRow) AppendFields(dst []byte) ([]byte, error) {
	if r.part {
		return r.plan.shape.AppendFields(dst, r.vals, binlog.IsAbsent)
	}
	return r.plan.shape.AppendFields(dst, r.vals, nil)
}

// AppendKey implements cdc.Row.
func (r *streamRow) AppendKey(dst []byte) ([]byte, error) { return r.plan.appendKey(dst, r.vals) }

// AppendSource implements cdc.Row.
func (r *streamRow) AppendSource(dst []byte) ([]byte, error) {
	dst = append(dst, r.s.txn.source...)
	dst = append(strconv.AppendUint(dst, r.s.at.at, 10), ',')
	dst = append(strconv.AppendInt(dst, r.ordinal, 10), ']', ',')
	return append(dst, r.plan.source...), nil
}

// Omitted implements cdc.Row.
func (r *streamRow) Omitted() []string {
	if !r.part {
		return nil
	}
	r.lacks = r.lacks[:0]
	for i, v := range r.vals {
		if r.plan.kept[i] && binlog.IsAbsent(v) {
			r.lacks = append(r.lacks, r.plan.names[i])
		}
	}
	return r.lacks
}

// rowsEvent begins to read the rows of an event.
func (s *stream) rowsEvent(typ binlog.Type, body []byte) error {
	id, err := binlog.TableID(body)
	if err != nil {
		return err
	}
	m := s.mapped[id]
	switch {
	case m == nil:
		return fmt.Errorf("%w: rows of a table %d that was not described, at %s", binlog.ErrFormat, id, s.at)
	case m.table == nil || m.blind:
		return nil
	case !s.txn.open:
		return fmt.Errorf("%w: rows outside of a transaction, at %s", binlog.ErrFormat, s.at)
	case m.table.join != nil:
		s.leaveOut(m.table)
		return nil
	}
	if s.rows, err = binlog.ParseRows(typ, body); err != nil {
		return err
	}
	s.rowsOf, s.txn.touched, s.part = m, true, !s.rows.Whole()
	switch typ {
	case binlog.WriteRows, binlog.WriteRowsV1, binlog.WriteRowsCompressed:
		s.op = cdc.Insert
	case binlog.DeleteRows, binlog.DeleteRowsV1, binlog.DeleteRowsCompressed:
		s.op = cdc.Delete
	default:
		s.op = cdc.Update
	}
	return nil
}

// nextRow gives the next row of the event at hand. It is the hot path.
func (s *stream) nextRow() (*cdc.Event, error) {
	if s.part {
		return s.nextPart()
	}
	m := s.rowsOf
	s.txn.ordinal++
	s.event = cdc.Event{Op: s.op, Table: m.table.id, Txn: s.txn.id}
	var err error
	if s.op != cdc.Insert {
		s.before.plan, s.before.s, s.before.ordinal, s.before.part = m.rows, s, s.txn.ordinal, false
		if s.before.vals, err = s.rows.Next(m.log, s.before.vals[:0]); err != nil {
			return nil, err
		}
		s.event.Before = &s.before
	}
	if s.op != cdc.Delete {
		s.row.plan, s.row.s, s.row.ordinal, s.row.part = m.rows, s, s.txn.ordinal, false
		if s.row.vals, err = s.rows.Next(m.log, s.row.vals[:0]); err != nil {
			return nil, err
		}
		s.event.Row = &s.row
	}
	return &s.event, nil
}

// tableMap takes the description of a table, which precedes its rows in every transaction.
func (s *stream) tableMap(ctx context.Context, body []byte) error {
	id, err := binlog.TableID(body)
	if err != nil {
		return err
	}
	known := s.mapped[id]
	if known != nil && bytes.Equal(known.raw, body) {
		return nil
	}
	schema, name, err := binlog.TableName(body)
	if err != nil {
		return err
	}
	m := &mapping{raw: bytes.Clone(body), table: s.tables[cdc.TableID{Schema: string(schema), Name: string(name)}]}
	switch t := m.table; {
	case t == nil, t.join != nil:
	case t.gone: // what has its name is nothing that can be captured
		m.table = nil
	case t.last != nil && bytes.Equal(t.last.raw[tableIDSize:], body[tableIDSize:]):
		// The server opened the table anew, and no statement has changed it.
		m.log, m.rows = t.last.log, t.last.rows
	default:
		if err := s.describe(ctx, m); err != nil {
			return err
		}
	}
	s.mapped[id] = m
	return nil
}

// tableIDSize is the length of the number at the front of a table map: the server may give another one to the same table.
const tableIDSize = 6

// hiddenColumn tells the columns that the server has made for itself: of hashes (MariaDB) and of indexes over expressions (MySQL).
var hiddenColumn = regexp.MustCompile(`^(DB_ROW_HASH_\d+|!hidden!.*)$`)

// describe makes a table's rows readable by what the log says of it, and tells the core where that differs from what was known.
func (s *stream) describe(ctx context.Context, m *mapping) error {
	t := m.table
	var err error
	if m.log, err = binlog.ParseTable(m.raw, s.d.server.mariadb); err != nil {
		if errors.Is(err, binlog.ErrColumnType) {
			return usererr.New(err, "The table %s has a column of an old or unknown type (%s), which cannot be captured. Have an administrator rebuild it: ALTER TABLE %s.%s FORCE;",
				t.id, lastCause(err), quoteName(t.id.Schema), quoteName(t.id.Name))
		}
		return err
	}
	if !m.log.Named {
		if ok, err := s.lay(ctx, m); err != nil || !ok {
			m.blind = true
			return err
		}
	}
	var now *table
	err = s.d.conns.with(ctx, func(q *session) error {
		found, err := s.d.readTables(ctx, q, []cdc.TableID{t.id})
		if now = nil; len(found) > 0 {
			now = found[0]
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.describedAs(m, now)
}

// describedAs takes the version of a table that the log describes; now is what the catalog has. A table that lost a column of its key is
// one that is gone: what becomes of one with another key, the core decides.
func (s *stream) describedAs(m *mapping, now *table) error {
	t := m.table
	next, err := s.shapeOf(m, now)
	if errors.Is(err, cdc.ErrReshaped) {
		m.blind = true
		s.dropped(t.id, "The table "+t.id.String()+" lost a column of its key ("+strings.Join(t.table.Key, ", ")+"). Backfill it again into a new collection.")
		return nil
	}
	if err != nil {
		return err
	}
	changed, rescan := shapeChange(t.table, next)
	if m.silent {
		changed, rescan = true, true
	}
	changed = changed || next.Layout != t.table.Layout
	t.table, t.last = next, m
	if changed {
		s.queue = append(s.queue, cdc.Event{Op: cdc.Shape, Table: t.id, Txn: s.txn.id, Shape: next, Rescan: rescan})
		s.txn.touched = true
	}
	return nil
}

// shapeOf is the version of a table that the log describes, and the plan of its rows. What the catalog says of a column, which may
// be ahead of the log, counts only to the cautious side.
func (s *stream) shapeOf(m *mapping, now *table) (*cdc.Table, error) {
	old := m.table.table
	out := &cdc.Table{ID: old.ID, Key: old.Key, Rows: old.Rows, Selection: old.Selection, Unread: old.Unread}
	if m.types != nil {
		out.Layout = m.table.layout.encode()
	}
	names := make([]string, len(m.log.Columns))
	codecs := make([]*codec, len(m.log.Columns))
	for i := range m.log.Columns {
		c := &m.log.Columns[i]
		names[i] = c.Name
		before := slices.IndexFunc(old.Columns, func(o cdc.Column) bool { return o.Name == c.Name })
		var present *column
		if now != nil {
			present = now.column(c.Name)
		}
		if present == nil && before < 0 && hiddenColumn.MatchString(c.Name) {
			continue
		}
		if !out.Selection.Has(cdc.Column{Name: c.Name}) {
			continue
		}
		typ, err := s.typeOf(m, i, knownType(old.Columns, before, present))
		if err != nil {
			return nil, fmt.Errorf("reading the description of table %s: column %q: %w", old.ID, c.Name, err)
		}
		asKey := slices.Contains(out.Key, c.Name)
		if codecs[i], err = s.d.codec(typ, asKey); err != nil {
			return nil, err
		}
		col := column{name: c.Name, typ: typ, nullable: true, filled: true}
		if present != nil {
			col.filled = present.filled
			col.nullable = present.nullable || before < 0 || old.Columns[before].Nullable
		}
		out.Columns = append(out.Columns, s.d.column(col, asKey))
	}
	var err error
	if m.rows, err = newRowPlan(old.ID, out.Key, names, codecs, true); err != nil {
		return nil, err // the table lost a column of its key
	}
	return out, nil
}

// typeOf is the type of a column: as the log describes it, or as it is known by its place.
func (s *stream) typeOf(m *mapping, i int, known *columnType) (*columnType, error) {
	if m.types != nil {
		return m.types[i], nil
	}
	return s.d.logType(&m.log.Columns[i], known)
}

// knownType is the type that a column of this name had or has, if it is one that the log does not tell from others.
func knownType(old []cdc.Column, before int, present *column) *columnType {
	if before >= 0 {
		if k, ok := plainKinds[old[before].Type]; ok && (k == kindUUID || k == kindInet4 || k == kindInet6) {
			return &columnType{kind: k, name: old[before].Type}
		}
	}
	if present != nil {
		return present.typ
	}
	return nil
}

// shapeChange compares two versions of a table: whether they differ, and whether existing rows may have got other values by it
// without the log saying so.
func shapeChange(old, next *cdc.Table) (changed, rescan bool) {
	before := make(map[string]cdc.Column, len(old.Columns))
	var order []string
	for _, c := range old.Columns {
		before[c.Name] = c
		order = append(order, c.Name)
	}
	added := false
	var kept []string
	for _, c := range next.Columns {
		was, had := before[c.Name]
		delete(before, c.Name)
		if had {
			kept = append(kept, c.Name)
		}
		switch {
		case !had:
			added, changed = true, true
			rescan = rescan || c.Filled
		case was.Type != c.Type:
			changed = true
			rescan = rescan || !sameValues(was.Type, c.Type)
		case was.Nullable != c.Nullable:
			changed = true
		}
	}
	order = slices.DeleteFunc(order, func(name string) bool { _, gone := before[name]; return gone })
	if !slices.Equal(order, kept) {
		changed, rescan = true, true // columns changed their places, or their names
	}
	if len(before) > 0 {
		changed = true
		rescan = rescan || added // it may be the same column under a new name
	}
	return changed, rescan
}
