package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-postgres/internal/pgoutput"
)

// streamed is a bound table as the log has it.
type streamed struct {
	id      cdc.TableID
	table   *cdc.Table // its present version
	keyless bool
	origin  *snapshot // of a table without a key: what the backfill reads, and the stream leaves out
	join    *join     // of a table without a key that is still to get one
	oid     uint32    // 0 until the log has described it
	rows    *rowPlan

	described   []byte    // by which description the rows are read
	describedAt time.Time // when the catalog was last asked about it
}

// describeAgain is how soon the catalog is asked about a table again of which a transaction in pieces brings the description
// that is in force already. The server sends one to each such transaction, whether or not anything has changed, and to ask
// takes some milliseconds. (What only the catalog tells, such as a partition that was attached, is noticed a moment later.)
const describeAgain = time.Second

// inForce reports whether rows are read by this description, and the catalog was asked about it just now.
func (s *stream) inForce(id uint32, m []byte) bool {
	t := s.relations[id]
	return t != nil && t.oid == id && bytes.Equal(t.described, m) && time.Since(t.describedAt) < s.describeAgain
}

// bind makes the tables known to the stream. Those without a key are divided: with a new slot by the snapshot that it was made
// with; on a stream that was there before, once they have joined it.
func (s *stream) bind(ctx context.Context, tables []*cdc.Table, fresh *snapshot) error {
	for _, t := range tables {
		b := &streamed{id: t.ID, table: t, keyless: isKeyless(t)}
		s.tables[t.ID] = b
		if !b.keyless {
			continue
		}
		var err error
		switch {
		case t.Origin != "" && fresh == nil:
			b.origin, err = parseSnapshot(t.Origin)
		case t.Unread:
			b.origin = &snapshot{}
		case fresh != nil:
			b.origin = fresh
		default:
			err = s.join(ctx, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// leftOut reports whether the changes that the transaction at hand makes to the table are not the stream's.
func (s *stream) leftOut(t *streamed) bool {
	switch {
	case !t.keyless:
		return false
	case t.join != nil:
		t.join.note(s.xid)
		return true
	default:
		return t.origin.sees(s.xid)
	}
}

// relation handles the description of a table, which the log has before the table's first change in a session and after
// every change of its shape. It is what rows are decoded by; the catalog, which may be ahead of the log, only adds what the
// log does not say (hard cases 19 to 21).
func (s *stream) relation(ctx context.Context, m []byte) (*cdc.Event, error) {
	r, err := pgoutput.ParseRelation(m)
	if err != nil {
		return nil, err
	}
	id := cdc.TableID{Schema: r.Schema, Name: r.Name}
	if old := s.relations[r.ID]; old != nil && old.id != id && old.oid == r.ID {
		s.queue = append(s.queue, cdc.Event{Op: cdc.Drop, Table: old.id, Txn: s.txn, Err: usererr.New(nil,
			"The table %s was renamed to %s. Capture it under its new name.", old.id, id)})
	}
	t := s.tables[id]
	s.relations[r.ID] = t
	if t == nil {
		if err := s.partOf(ctx, r.ID); err != nil {
			return nil, err
		}
		return s.queued(), nil
	}
	next, types, err := s.d.describeRelation(ctx, r, t)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(r.Columns))
	for i, c := range r.Columns {
		names[i] = c.Name
	}
	if slices.ContainsFunc(next.Key, func(k string) bool { return !slices.Contains(names, k) }) {
		s.queue = append(s.queue, cdc.Event{Op: cdc.Drop, Table: id, Txn: s.txn, Err: usererr.New(nil,
			"The table %s lost a column of its key (%s). Backfill it again into a new collection.", id, strings.Join(next.Key, ", "))})
		s.relations[r.ID] = nil
		return s.queued(), nil
	}
	changed, rescan := shapeChange(t.table, next)
	look := next.Behind || !slices.Equal(next.Parts, t.table.Parts)
	if t.keyless && next.Incarnation != t.table.Incarnation && t.table.Incarnation != "" {
		// All that the new table has came over the stream.
		t.origin, t.join = &snapshot{}, nil
		next.Origin = t.origin.String()
	}
	t.oid, t.table, t.rows = r.ID, next, newRowPlan(id, next.Key, names, types, false)
	t.described, t.describedAt = bytes.Clone(m), time.Now()
	if changed || look {
		s.queue = append(s.queue, cdc.Event{Op: cdc.Shape, Table: id, Txn: s.txn, Shape: next, Rescan: rescan, Look: look})
	}
	return s.queued(), nil
}

// describeRelation is the version of a table that the log describes. What the catalog says of a column counts only if it
// speaks of the same table, and then only to the cautious side: a column is never null only if it was so before and is so
// now.
func (d *driver) describeRelation(ctx context.Context, r *pgoutput.Relation, t *streamed) (*cdc.Table, []*dataType, error) {
	oids := make([]uint32, len(r.Columns))
	modifiers := make([]int32, len(r.Columns))
	for i, c := range r.Columns {
		oids[i], modifiers[i] = c.Type, c.Modifier
	}
	var (
		now   *table
		texts []string
	)
	err := d.conns.with(ctx, func(conn *pgx.Conn) error {
		found, err := d.readTables(ctx, conn, []cdc.TableID{t.id})
		if err != nil {
			return err
		}
		if now = nil; len(found) > 0 && found[0].oid == r.ID {
			now = found[0]
			if err := d.compareLists(ctx, conn, found); err != nil {
				return err
			}
		}
		if err := d.types.load(ctx, conn, oids); err != nil {
			return err
		}
		rows, err := conn.Query(ctx, "SELECT pg_catalog.format_type(t, m) FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY AS c(t, m, n) ORDER BY n", oids, modifiers)
		if err == nil {
			texts, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			return fmt.Errorf("naming the types of table %s: %w", t.id, err)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	before := make(map[string]cdc.Column, len(t.table.Columns))
	for _, c := range t.table.Columns {
		before[c.Name] = c
	}
	out := &cdc.Table{
		ID: t.id, Incarnation: incarnation(r.ID), Key: t.table.Key, Origin: t.table.Origin, Rows: t.table.Rows, Selection: t.table.Selection,
		Parts: t.table.Parts,
	}
	if t.keyless && t.join == nil {
		out.Origin = t.origin.String()
	}
	if now != nil {
		out.Scope, out.Behind, out.Parts = now.sent.scope, now.sent.behind, now.parts
	}
	types := make([]*dataType, len(r.Columns))
	hidden := d.hidden(r, t, now)
	for i, c := range r.Columns {
		if hidden != nil && hidden[i] {
			continue
		}
		types[i] = d.types.get(c.Type)
		col := cdc.Column{Name: c.Name, Type: texts[i], Nullable: true, Filled: true, Small: types[i].small()}
		col.Form = types[i].form(slices.Contains(out.Key, c.Name) || !t.keyless && now != nil && slices.Contains(now.key, c.Name))
		old, had := before[c.Name]
		if now != nil {
			if present := now.column(c.Name); present != nil {
				col.Nullable = !present.notNull || !had || old.Nullable
				col.Filled = present.filled
			}
		}
		col.Schema = types[i].jsonSchema(col.Nullable, slices.Contains(out.Key, c.Name), texts[i])
		out.Columns = append(out.Columns, col)
	}
	return out, types, nil
}

// shapeChange compares two versions of a table: whether they differ, and whether existing rows may have got other values
// by it without the log saying so.
func shapeChange(old, next *cdc.Table) (changed, rescan bool) {
	if old.Incarnation != "" && old.Incarnation != next.Incarnation {
		return true, true
	}
	before := make(map[string]cdc.Column, len(old.Columns))
	for _, c := range old.Columns {
		before[c.Name] = c
	}
	added := false
	for _, c := range next.Columns {
		was, had := before[c.Name]
		delete(before, c.Name)
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
	if len(before) > 0 {
		changed = true
		// A column went and another came: it may be the same one under a new name.
		rescan = rescan || added
	}
	return changed, rescan
}

// sameValues reports whether a change between two types leaves every value as it was: a character column that only got
// another limit. (A smaller one must fit the values that are there.)
func sameValues(a, b string) bool {
	base := func(s string) string { name, _, _ := strings.Cut(s, "("); return name }
	return base(a) == base(b) && base(a) == "character varying"
}
