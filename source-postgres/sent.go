package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// sent is what of a table the publication sends. The backfill reads the same columns and rows (or a key's last document would
// depend on which of the two brought it).
type sent struct {
	// scope is how the publication has the table: as one of all, as one of a schema, or by an entry of its own, which gets
	// another number when it is made anew. Empty if it does not have it.
	scope string
	// listed are the only columns that are sent; nil for all. foreign says that the list is not ours to change.
	listed  []string
	foreign bool
	// where is the row filter, an SQL expression. Of an update that moves a row across the filter, the server sends an
	// insert or a delete.
	where string
	// generated says that stored generated columns are sent (of a table without a list).
	generated bool
	// lacking says that the publication sends not all kinds of changes, or partitions under their own names.
	lacking bool
	// behind says that the stream has to be opened again, which puts our list in order, or says what is lacking.
	behind bool
}

// has reports whether the column is in what is sent, or will be once the stream has put our list in order. Virtual columns
// are in no log.
func (s *sent) has(c column) bool {
	listed := slices.Contains(s.listed, c.name)
	switch {
	case c.generated == "v":
		return false
	case c.generated != "" && !s.generated && !listed:
		return false
	}
	return listed || s.listed == nil || !s.foreign
}

// What the publication says of tables. Before version 15 it has neither lists nor filters nor schemas; before 18 it sends no
// generated columns.
const (
	querySent = `
	SELECT r.oid, coalesce(pg_catalog.obj_description(p.oid, 'pg_publication'), ''),
		CASE WHEN p.puballtables THEN 'all' WHEN n.oid IS NOT NULL THEN 'schema' ELSE coalesce(e.oid::text, '') END,
		CASE WHEN n.oid IS NULL THEN (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
			WHERE a.attrelid = r.oid AND a.attnum = ANY (e.prattrs::int2[])) END,
		CASE WHEN n.oid IS NULL THEN coalesce(pg_catalog.pg_get_expr(e.prqual, e.prrelid), '') ELSE '' END,
		coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 'n') = 's',
		NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND (p.pubviaroot OR c.relkind <> 'p'))
	FROM pg_catalog.unnest($1::oid[]) AS r(oid) JOIN pg_catalog.pg_class c ON c.oid = r.oid
		JOIN pg_catalog.pg_publication p ON p.pubname = $2
		LEFT JOIN pg_catalog.pg_publication_rel e ON e.prpubid = p.oid AND e.prrelid = r.oid
		LEFT JOIN pg_catalog.pg_publication_namespace n ON n.pnpubid = p.oid AND n.pnnspid = c.relnamespace`
	querySentBefore15 = `
	SELECT r.oid, coalesce(pg_catalog.obj_description(p.oid, 'pg_publication'), ''),
		CASE WHEN p.puballtables THEN 'all' ELSE coalesce(e.oid::text, '') END, NULL::text[], '', false,
		NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND (coalesce((pg_catalog.to_jsonb(p) ->> 'pubviaroot')::bool, true) OR c.relkind <> 'p'))
	FROM pg_catalog.unnest($1::oid[]) AS r(oid) JOIN pg_catalog.pg_class c ON c.oid = r.oid JOIN pg_catalog.pg_publication p ON p.pubname = $2
		LEFT JOIN pg_catalog.pg_publication_rel e ON e.prpubid = p.oid AND e.prrelid = r.oid`
)

// readSent finds out what of the tables the publication sends. A publication that does not exist yet will be ours, and send
// all that there is.
func (d *driver) readSent(ctx context.Context, conn *pgx.Conn, tables map[uint32]*table, oids []uint32) error {
	sql := querySent
	if d.server.major() < 15 {
		sql = querySentBefore15
	}
	for _, t := range tables {
		t.sent = sent{generated: d.server.major() >= 18}
	}
	rows, err := conn.Query(ctx, sql, oids, d.publication)
	if err == nil {
		var (
			oid     uint32
			comment string
			s       sent
		)
		_, err = pgx.ForEachRow(rows, []any{&oid, &comment, &s.scope, &s.listed, &s.where, &s.generated, &s.lacking}, func() error {
			if s.lacking && s.scope != "" {
				s.scope += " in part"
			}
			s.foreign = comment != d.owner() || d.server.standby
			tables[oid].sent = s
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("reading what publication %q sends: %w", d.publication, err)
	}
	return nil
}

// compareLists notes which tables of ours have another list of columns than they should.
func (d *driver) compareLists(ctx context.Context, conn *pgx.Conn, tables []*table) error {
	for _, t := range tables {
		sel, streamed := d.selectionOf(t.id)
		t.sent.behind = streamed && t.sent.lacking
		if !streamed || t.sent.lacking || t.sent.foreign || t.sent.scope == "" {
			continue
		}
		list, err := d.columnList(ctx, conn, t, &sel)
		if err != nil {
			return err
		}
		t.sent.behind = !slices.Equal(list, t.sent.listed)
	}
	return nil
}

// selections are those of the tables that are streamed, for looking at what the publication should send of them.
type selections struct {
	mu sync.Mutex
	of map[cdc.TableID]cdc.Selection
}

// selectionOf is the selection of a table that is streamed.
func (d *driver) selectionOf(id cdc.TableID) (cdc.Selection, bool) {
	d.selections.mu.Lock()
	defer d.selections.mu.Unlock()
	s, ok := d.selections.of[id]
	return s, ok
}

// remember keeps the selections of the tables that are streamed.
func (d *driver) remember(tables []*cdc.Table) {
	of := make(map[cdc.TableID]cdc.Selection, len(tables))
	for _, t := range tables {
		of[t.ID] = t.Selection
	}
	d.selections.mu.Lock()
	defer d.selections.mu.Unlock()
	d.selections.of = of
}

// The columns by which a table and its partitions tell rows in the log, and whether one of them logs whole rows.
const queryIdentity = `
	SELECT coalesce(bool_or(c.relreplident = 'f'), false), coalesce(array_agg(DISTINCT a.attname::text) FILTER (WHERE a.attname IS NOT NULL), '{}')
	FROM (SELECT $1::oid AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree($1::oid::regclass)) r
		JOIN pg_catalog.pg_class c ON c.oid = r.oid
		LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
			AND (c.relreplident = 'i' AND i.indisreplident OR c.relreplident = 'd' AND i.indisprimary)
		LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[])`

// columnList is the list of columns that our publication should have for a table, in the order of the table; nil for none.
// Columns that are left out are then not even sent. The server refuses updates and deletes of a table whose list lacks a
// column of its replica identity, and any list where that is the whole row: then the columns are sent, and dropped by us.
// Tables without a key have no list, because remaking one could not be made up for by reading them again.
func (d *driver) columnList(ctx context.Context, conn *pgx.Conn, t *table, sel *cdc.Selection) ([]string, error) {
	if sel.Whole() || d.server.major() < 15 || len(t.key) == 0 {
		return nil, nil
	}
	var (
		whole    bool
		identity []string
	)
	if err := conn.QueryRow(ctx, queryIdentity, t.oid).Scan(&whole, &identity); err != nil {
		return nil, fmt.Errorf("reading the replica identity of table %s: %w", t.id, err)
	}
	if whole {
		return nil, nil
	}
	var list []string
	for _, c := range t.columns {
		if sel.Has(cdc.Column{Name: c.name, Incarnation: strconv.Itoa(int(c.number))}) || slices.Contains(identity, c.name) {
			list = append(list, c.name)
		}
	}
	if len(list) == len(t.columns) {
		return nil, nil // nothing is left out at present
	}
	return list, nil
}

// columnLists are the lists of tables by their names.
func (d *driver) columnLists(ctx context.Context, conn *pgx.Conn, tables []*table) (map[cdc.TableID][]string, error) {
	lists := map[cdc.TableID][]string{}
	for _, t := range tables {
		sel, _ := d.selectionOf(t.id)
		list, err := d.columnList(ctx, conn, t, &sel)
		if err != nil {
			return nil, err
		}
		if list != nil {
			lists[t.id] = list
		}
	}
	return lists, nil
}

// readd takes tables out of the publication and adds them again. The server sees it as one change.
func (d *driver) readd(ctx context.Context, conn *pgx.Conn, tables []cdc.TableID, add string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "ALTER PUBLICATION "+quoteIdent(d.publication)+" DROP TABLE "+onlyTables(tables, nil)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, add)
		return err
	})
}

// relist gives tables of our publication the lists they should have.
func (d *driver) relist(ctx context.Context, conn *pgx.Conn, tables []cdc.TableID) error {
	found, err := d.readTables(ctx, conn, tables)
	if err != nil {
		return err
	}
	if err := d.compareLists(ctx, conn, found); err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(t *table) bool { return !t.sent.behind })
	if len(found) == 0 {
		return nil
	}
	lists, err := d.columnLists(ctx, conn, found)
	if err != nil {
		return err
	}
	ids := make([]cdc.TableID, len(found))
	for i, t := range found {
		ids[i] = t.id
	}
	sql := d.addSQL(ids, lists)
	if err := d.readd(ctx, conn, ids, sql); err != nil {
		return d.publicationAdvice(err, sql, "changed")
	}
	d.log.WithField("publication", d.publication).WithField("tables", fmt.Sprint(slices.Collect(maps.Keys(lists)))).Info("changed which columns the publication sends")
	if d.server.forgetsPublications() {
		return d.remind(ctx, conn, ids, sql)
	}
	return nil
}
