package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// table is a table as the catalog has it now.
type table struct {
	oid      uint32
	id       cdc.TableID
	root     bool // partitioned: its rows are in its partitions
	identity byte // relreplident: 'd'efault, 'n'othing, 'f'ull, 'i'ndex
	rows     int64
	columns  []column
	key      []string
	sent     sent
	parts    []string // of a partitioned table: itself and the partitions that hold its rows, by object identifier
}

// column is a column that can be captured.
type column struct {
	name      string
	number    int32
	typ       uint32
	typeText  string
	notNull   bool
	filled    bool   // older rows may have a value in it
	generated string // attgenerated: 's'tored, 'v'irtual, or empty
}

func (t *table) column(name string) *column {
	for i := range t.columns {
		if t.columns[i].name == name {
			return &t.columns[i]
		}
	}
	return nil
}

// called is the name of the column of this incarnation; empty if there is none.
func (t *table) called(incarnation string) string {
	for _, c := range t.columns {
		if strconv.Itoa(int(c.number)) == incarnation {
			return c.name
		}
	}
	return ""
}

// Tables that can be published: ordinary and partitioned ones that are logged, no partitions (they come as their root),
// nothing of the system's, of well-known extensions' own, or of a destination that writes here (a loop otherwise).
const queryTables = `
	SELECT c.oid, n.nspname, c.relname, c.relkind = 'p', c.relreplident::text,
		CASE WHEN c.relkind = 'p' THEN
			(SELECT coalesce(sum(greatest(l.reltuples, 0)), 0)::bigint FROM pg_catalog.pg_partition_tree(c.oid) p
				JOIN pg_catalog.pg_class l ON l.oid = p.relid WHERE p.isleaf)
		ELSE c.reltuples::bigint END
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
		AND n.nspname NOT LIKE 'pg\_%'
		AND n.nspname NOT IN ('information_schema', 'catalog_history', 'cron', 'pglogical', 'topology', 'tiger')
		AND c.relname NOT IN ('sluice_checkpoints_v1', 'sluice_tables_v1', 'flow_checkpoints_v1', 'flow_materializations_v2', 'spatial_ref_sys')
		AND ($1::text[] IS NULL OR (n.nspname, c.relname) IN (SELECT * FROM unnest($1::text[], $2::text[])))
	ORDER BY n.nspname, c.relname`

const queryColumns = `
	SELECT a.attrelid, a.attname, a.attnum::int4, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
		a.atthasdef OR a.atthasmissing OR a.attidentity <> '' OR a.attnotnull, a.attgenerated::text
	FROM pg_catalog.pg_attribute a
	WHERE a.attrelid = ANY($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
	ORDER BY a.attrelid, a.attnum`

// Indexes that can be a key: unique at once, valid, of whole columns that are never null, of all rows (hard case 32). The
// first of a table wins: what deletes carry if the owner chose an index for that, else the primary key.
const queryKeys = `
	SELECT i.indrelid, array_agg(a.attname::text ORDER BY k.n), array_agg(a.attgenerated::text ORDER BY k.n)
	FROM pg_catalog.pg_index i
		JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
		JOIN pg_catalog.pg_class r ON r.oid = i.indrelid
		CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
		JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
	WHERE i.indrelid = ANY($1::oid[]) AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL
		AND i.indexprs IS NULL AND k.n <= i.indnkeyatts
	GROUP BY i.indrelid, i.indexrelid, i.indisprimary, i.indisreplident, i.indnkeyatts, c.relname, r.relreplident
	HAVING bool_and(a.attnotnull)
	ORDER BY i.indrelid, i.indisreplident AND r.relreplident = 'i' DESC, i.indisprimary DESC, i.indnkeyatts, c.relname`

// detailsAtOnce bounds how much one catalog query answers.
const detailsAtOnce = 1000

// readTables reads the named tables, or with no names all, from the catalog: as it is at one moment, since a table that is
// dropped between two queries would pass for one without columns, or without a key.
func (d *driver) readTables(ctx context.Context, conn *pgx.Conn, only []cdc.TableID) (tables []*table, err error) {
	if conn.PgConn().TxStatus() != 'I' {
		return d.readCatalog(ctx, conn, only)
	}
	moment := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, conn, moment, func(pgx.Tx) error {
		tables, err = d.readCatalog(ctx, conn, only)
		return err
	})
	return tables, err
}

func (d *driver) readCatalog(ctx context.Context, conn *pgx.Conn, only []cdc.TableID) ([]*table, error) {
	var schemas, names []string
	for _, id := range only {
		schemas, names = append(schemas, id.Schema), append(names, id.Name)
	}
	rows, err := conn.Query(ctx, queryTables, schemas, names)
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*table, error) {
		t, identity := &table{}, ""
		err := row.Scan(&t.oid, &t.id.Schema, &t.id.Name, &t.root, &identity, &t.rows)
		if len(identity) == 1 {
			t.identity = identity[0]
		}
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	for part := range slices.Chunk(tables, detailsAtOnce) {
		if err := d.readDetails(ctx, conn, part); err != nil {
			return nil, err
		}
	}
	return tables, nil
}

// readDetails adds columns and keys to tables.
func (d *driver) readDetails(ctx context.Context, conn *pgx.Conn, tables []*table) error {
	byOID := make(map[uint32]*table, len(tables))
	oids := make([]uint32, len(tables))
	for i, t := range tables {
		byOID[t.oid], oids[i] = t, t.oid
	}
	if err := d.readSent(ctx, conn, byOID, oids); err != nil {
		return err
	}
	if err := readParts(ctx, conn, tables); err != nil {
		return err
	}
	var (
		oid   uint32
		c     column
		types []uint32
	)
	rows, err := conn.Query(ctx, queryColumns, oids)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&oid, &c.name, &c.number, &c.typ, &c.typeText, &c.notNull, &c.filled, &c.generated}, func() error {
			if t := byOID[oid]; t.sent.has(c) {
				t.columns = append(t.columns, c)
				types = append(types, c.typ)
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("reading columns: %w", err)
	}
	var names, generated []string
	rows, err = conn.Query(ctx, queryKeys, oids)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&oid, &names, &generated}, func() error {
			t := byOID[oid]
			lacks := func(name string) bool { return t.column(name) == nil }
			if t.key == nil && !slices.ContainsFunc(generated, func(s string) bool { return s != "" }) && !slices.ContainsFunc(names, lacks) {
				t.key = slices.Clone(names)
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("reading keys: %w", err)
	}
	slices.Sort(types)
	return d.types.load(ctx, conn, slices.Compact(types))
}

// describe is a table in the core's words.
func (d *driver) describe(t *table) *cdc.Table {
	out := &cdc.Table{ID: t.id, Key: t.key, Rows: t.rows, Incarnation: incarnation(t.oid), Parts: t.parts, Scope: t.sent.scope, Behind: t.sent.behind}
	for _, c := range t.columns {
		col := d.column(c, false)
		if slices.Contains(t.key, c.name) {
			col = cdc.Keyed(d.column(c, true), col)
		}
		out.Columns = append(out.Columns, col)
	}
	return out
}

func (d *driver) column(c column, asKey bool) cdc.Column {
	t := d.types.get(c.typ)
	return cdc.Column{
		Name: c.name,
		// A column that was dropped and added again has another number.
		Incarnation: strconv.FormatInt(int64(c.number), 10),
		Schema:      t.jsonSchema(!c.notNull, asKey, c.typeText),
		Nullable:    !c.notNull,
		Type:        c.typeText,
		Filled:      c.filled,
		Small:       t.small(),
		Form:        t.form(asKey),
	}
}

// incarnation tells tables of one name apart.
func incarnation(oid uint32) string { return strconv.FormatUint(uint64(oid), 10) }

// Discover implements cdc.Driver.
func (d *driver) Discover(ctx context.Context, only ...cdc.TableID) ([]*cdc.Table, error) {
	var out []*cdc.Table
	err := d.conns.with(ctx, func(conn *pgx.Conn) error {
		// Besides, this keeps the extension of transaction identifiers up to date on a stream without changes.
		if _, err := d.takeSnapshot(ctx, conn); err != nil {
			return err
		}
		tables, err := d.readTables(ctx, conn, only)
		if err != nil {
			return err
		}
		if err := d.compareLists(ctx, conn, tables); err != nil {
			return err
		}
		out = make([]*cdc.Table, 0, len(tables))
		for _, t := range tables {
			out = append(out, d.describe(t))
		}
		return nil
	})
	return out, err
}
