package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/usererr"
)

const (
	checkpointsTable = "sluice_checkpoints_v1"
	tablesTable      = "sluice_tables_v1"
)

// tableName is the name of a table with its schema.
type tableName struct{ schema, table string }

func nameOf(path []string) tableName { return tableName{schema: path[0], table: path[len(path)-1]} }

func (n tableName) String() string { return n.schema + "." + n.table }

// sql is the name as it is written in statements.
func (n tableName) sql() string { return quote(n.schema) + "." + quote(n.table) }

// catalog is what exists in the destination.
type catalog struct {
	// meta says that the connector's own tables exist.
	meta    bool
	schemas map[string]bool
	tables  map[tableName]*existing
	// vanished are tables that we created and that are there no more, with their materialization and backfill counter.
	vanished map[tableName]*existing
	// chosen are the types that users chose for fields, by what they wrote.
	chosen map[string]wanted
	// infiniteIntervals says that the server knows such.
	infiniteIntervals bool
}

// existing is a table in the destination.
type existing struct {
	relkind string
	columns []existingColumn
	key     []string // columns of the primary key, in order; none if it is not checked at once
	// uniques are the columns of other indexes by which a row can be found.
	uniques [][]string
	// meta says that the table is one of the connector's own.
	meta bool
	// owner is the materialization that created or adopted the table, empty if none of ours did.
	owner    string
	backfill uint32
	delta    bool
	history  string // of which kind, empty if the table is none
	// adopted says that the table was there before, made are the columns that the connector made.
	adopted bool
	made    []string
	// loadAll says that the table may hold rows that its present binding has not stored.
	loadAll bool
}

type existingColumn struct {
	name     string
	oid      uint32
	typeName string // as people write it
	castName string // without a length, to which casts would cut
	modifier int32  // the length or precision in the server's form, -1 if there is none
	array    bool
	equals   string // the operator
	// notNull says that the column is NOT NULL, hasDefault that the server fills in what nobody says, generated that nobody may.
	notNull, hasDefault, generated bool
}

// kind is how values travel to the column, and whether it is of that type itself.
func (c existingColumn) kind() (k kind, native bool) { return kindOfType(c.oid, c.array) }

func (t *existing) column(name string) (existingColumn, bool) {
	i := slices.IndexFunc(t.columns, func(c existingColumn) bool { return c.name == name })
	if i < 0 {
		return existingColumn{}, false
	}
	return t.columns[i], true
}

// sameMode refuses to fill a table in another way than the one that it was created for.
func (t *existing) sameMode(name tableName, r resource) error {
	if t.delta == (r.DeltaUpdates || r.History != "") && t.history == r.History {
		return nil
	}
	mode := func(delta bool, history string) string {
		switch {
		case history != "":
			return "a history of versions"
		case delta:
			return "delta updates"
		default:
			return "one row per key"
		}
	}
	return usererr.New(nil, "Table %s is to take %s, but holds %s. Increase the binding's backfill counter to rebuild the table, or choose another one.",
		name, mode(r.DeltaUpdates, r.History), mode(t.delta, t.history))
}

// primaryKey is the key that the table should have for these columns of the collection's key; nil if it needs none.
func (t *existing) primaryKey(columns []string) []string {
	switch {
	case t.history != "":
		return slices.Concat(columns, []string{versionNumber})
	case t.delta:
		return nil
	default:
		return columns
	}
}

// mayCreate refuses to create a table anew whose rows were stored already: the position is beyond them, so they would be
// missing for good.
func (cat *catalog) mayCreate(name tableName, task string, backfill uint32) error {
	t := cat.vanished[name]
	if t == nil || t.owner != task {
		return nil
	}
	if t.backfill == backfill {
		return missingTable(name)
	}
	return t.notBefore(name, backfill)
}

// notBefore refuses a backfill counter that went back. Runtimes remember how far an earlier backfill came, so a table that was
// emptied for it would not be filled again.
func (t *existing) notBefore(name tableName, backfill uint32) error {
	if backfill >= t.backfill {
		return nil
	}
	return usererr.New(nil, "The binding's backfill counter is %d, but table %s was filled with %d before. Set it to %[3]d to go on, or to %[4]d to fill the table anew.",
		backfill, name, t.backfill, t.backfill+1)
}

func missingTable(name tableName) error {
	return usererr.New(nil, "Table %s does not exist. If it was dropped by hand, increase the binding's backfill counter to create it anew.", name)
}

// readCatalog reads what exists under the given names. metaSchema holds the connector's own tables.
func readCatalog(ctx context.Context, c *conn, metaSchema string, names []tableName) (*catalog, error) {
	cat := &catalog{schemas: map[string]bool{}, tables: map[tableName]*existing{}, vanished: map[tableName]*existing{}, chosen: map[string]wanted{}}
	major, _, _ := strings.Cut(c.pg.ParameterStatus("server_version"), ".")
	version, _ := strconv.Atoi(major) // that of a release still to come is no number
	cat.infiniteIntervals = version == 0 || version >= 17
	meta := []tableName{{metaSchema, checkpointsTable}, {metaSchema, tablesTable}}
	if err := cat.readTables(ctx, c, slices.Concat(names, meta)); err != nil {
		return nil, fmt.Errorf("reading the catalog: %w", err)
	}
	cat.meta = cat.tables[meta[0]] != nil && cat.tables[meta[1]] != nil
	for _, name := range meta {
		if t := cat.tables[name]; t != nil {
			t.meta = true
		} else if slices.Contains(names, name) {
			cat.tables[name] = &existing{meta: true}
		}
	}
	if cat.meta {
		if err := cat.readOwners(ctx, c, metaSchema); err != nil {
			return nil, fmt.Errorf("reading %s: %w", meta[1], err)
		}
	}
	return cat, nil
}

// uniqueIndexes lists the columns of a table's unique indexes, other than the primary key's, that hold every row and are
// checked at once.
const uniqueIndexes = `SELECT json_agg(columns) FROM (
	SELECT (SELECT json_agg(k.attname) FROM pg_attribute k WHERE k.attrelid = u.indrelid AND k.attnum = ANY (u.indkey::int2[])) AS columns
	FROM pg_index u WHERE u.indrelid = c.oid AND u.indisunique AND u.indisvalid AND u.indimmediate AND NOT u.indisprimary
		AND u.indpred IS NULL AND u.indexprs IS NULL AND u.indnkeyatts = u.indnatts) x`

// equality finds the operator by which indexes compare values of a type that has one of its own.
const equality = `SELECT format('OPERATOR(%I.%s)', n.nspname, p.oprname) FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree'
	JOIN pg_amop e ON e.amopfamily = o.opcfamily AND e.amoplefttype = o.opcintype AND e.amoprighttype = o.opcintype AND e.amopstrategy = 3
	JOIN pg_operator p ON p.oid = e.amopopr JOIN pg_namespace n ON n.oid = p.oprnamespace
	WHERE o.opcdefault AND o.opcintype = COALESCE(NULLIF(y.typbasetype, 0), y.oid)`

func (cat *catalog) readTables(ctx context.Context, c *conn, names []tableName) error {
	type pair struct {
		S string `json:"s"`
		T string `json:"t"`
	}
	pairs := make([]pair, len(names))
	for i, n := range names {
		pairs[i] = pair{n.schema, n.table}
	}
	asked, err := json.Marshal(pairs)
	if err != nil {
		return err
	}
	rows, err := c.rows(ctx, `
		SELECT n.nspname, c.relname, c.relkind, a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1), a.attnotnull,
			array_position((i.indkey::int2[])[0:i.indnkeyatts - 1], a.attnum), y.typoutput = 'array_out'::regproc, a.atthasdef OR a.attidentity <> '',
			a.attgenerated <> '' OR a.attidentity = 'a', CASE WHEN a.attnum = (SELECT min(attnum) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) THEN (`+uniqueIndexes+`) END, a.atttypmod,
			CASE WHEN y.typnamespace <> 'pg_catalog'::regnamespace THEN (`+equality+`) END
		FROM (SELECT DISTINCT s, t FROM json_to_recordset($1::json) AS x(s text, t text)) x
		JOIN pg_namespace n ON n.nspname = x.s
		LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = x.t AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
		LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		LEFT JOIN pg_type y ON y.oid = a.atttypid
		LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary AND i.indimmediate
		ORDER BY n.nspname, c.relname, a.attnum`, string(asked))
	if err != nil {
		return err
	}
	keys := map[tableName]map[int]string{}
	for _, r := range rows {
		cat.schemas[string(r[0])] = true
		if r[1] == nil {
			continue
		}
		name := tableName{string(r[0]), string(r[1])}
		t := cat.tables[name]
		if t == nil {
			t = &existing{relkind: string(r[2])}
			cat.tables[name] = t
			keys[name] = map[int]string{}
		}
		if r[3] == nil {
			continue
		}
		oid, err := strconv.ParseUint(string(r[4]), 10, 32)
		if err != nil {
			return fmt.Errorf("reading the type of column %q: %w", r[3], err)
		}
		modifier, err := strconv.ParseInt(string(r[13]), 10, 32)
		if err != nil {
			return fmt.Errorf("reading the length of column %q: %w", r[3], err)
		}
		t.columns = append(t.columns, existingColumn{
			name: string(r[3]), oid: uint32(oid), typeName: string(r[5]), castName: string(r[6]), modifier: int32(modifier), notNull: string(r[7]) == "t",
			array: string(r[9]) == "t", hasDefault: string(r[10]) == "t", generated: string(r[11]) == "t", equals: cmp.Or(string(r[14]), "="),
		})
		if r[12] != nil {
			if err := json.Unmarshal(r[12], &t.uniques); err != nil {
				return fmt.Errorf("reading the indexes of %s: %w", name, err)
			}
		}
		if r[8] != nil {
			position, err := strconv.Atoi(string(r[8]))
			if err != nil {
				return fmt.Errorf("reading the key position of column %q: %w", r[3], err)
			}
			keys[name][position] = string(r[3])
		}
	}
	for name, byPosition := range keys {
		positions := make([]int, 0, len(byPosition))
		for p := range byPosition {
			positions = append(positions, p)
		}
		slices.Sort(positions)
		for _, p := range positions {
			cat.tables[name].key = append(cat.tables[name].key, byPosition[p])
		}
	}
	return nil
}

func (cat *catalog) readOwners(ctx context.Context, c *conn, metaSchema string) error {
	rows, err := c.rows(ctx, `SELECT table_schema, table_name, materialization, backfill, delta_updates, load_all, history, adopted, made FROM `+
		tableName{metaSchema, tablesTable}.sql())
	if err != nil {
		return err
	}
	for _, r := range rows {
		name := tableName{string(r[0]), string(r[1])}
		t := cat.tables[name]
		if t == nil {
			t = &existing{}
			cat.vanished[name] = t
		}
		backfill, err := strconv.ParseUint(string(r[3]), 10, 32)
		if err != nil {
			return fmt.Errorf("reading the backfill counter of %s.%s: %w", r[0], r[1], err)
		}
		t.owner, t.backfill = string(r[2]), uint32(backfill)
		t.delta, t.loadAll, t.history = string(r[4]) == "t", string(r[5]) == "t", string(r[6])
		t.adopted = string(r[7]) == "t"
		if err := json.Unmarshal(r[8], &t.made); err != nil {
			return fmt.Errorf("reading the columns of %s: %w", name, err)
		}
	}
	return nil
}
