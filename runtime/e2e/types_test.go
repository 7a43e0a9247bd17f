package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/pgtypes"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// Every type of Postgres, captured and materialized, gives back an equal table, whether its rows came from the backfill, were
// streamed, or updated; and as a key. What is different is listed with its reason (lost), and really is. Source and copy are
// in one database, so that SQL can compare them.
func TestEveryTypeComesBack(t *testing.T) {
	t.Parallel()
	for _, exact := range []bool{false, true} {
		t.Run(fmt.Sprintf("lossless=%t", exact), func(t *testing.T) {
			t.Parallel()
			b := newTypeBed(t, exact)
			b.fill(0)
			b.start("copy", "native")
			b.write()
			for _, schema := range []string{"copy", "native"} {
				b.copy.prints(t, "1", "SELECT count(*) FROM "+schema+".kinds WHERE id = 9999")
				b.compareColumns(schema)
			}
			b.compareKeys("copy")
		})
	}
}

// typeBed is a world with a table of all types, and one for each type that can be a key.
type typeBed struct {
	*world
	t     *testing.T
	conn  *pgx.Conn
	exact bool
	cases []pgtypes.Case
	rows  int // that the values of one filling make
	keyed map[string]pgtypes.Case
}

func newTypeBed(t *testing.T, exact bool) *typeBed {
	t.Helper()
	bins := binaries(t)
	pg := server.SharedPostgres(t)
	database := newSide(t, pg)
	b := &typeBed{world: newWorldOn(t, bins, database, database), t: t, conn: database.connect(t), exact: exact, keyed: map[string]pgtypes.Case{}}
	b.do(pgtypes.Setup, "ANALYZE seen")
	b.do(pgtypes.SetupExtensions(b.ask("SELECT name FROM pg_available_extensions"))...)
	b.do("SET TimeZone = 'UTC'; SET search_path = public, ext")
	cases, lists := pgtypes.Available(pg.Major(), func(typ string) bool {
		return b.ask("SELECT coalesce(to_regtype($1)::text, '')", typ)[0] != ""
	})
	b.cases = slices.Concat(cases, lists)
	b.do(pgtypes.Table("kinds", b.cases), jsonFunctions)
	for i, c := range cases {
		if c.NoKey == "" && (exact || isTime(c.Type)) { // only keys that are times differ by the option
			b.do(fmt.Sprintf("DO $$ BEGIN CREATE TABLE k%d (k %s PRIMARY KEY, n int); EXCEPTION WHEN undefined_object THEN NULL; END $$", i, c.Type))
		}
	}
	found := b.ask(`SELECT relname FROM pg_class WHERE relname ~ '^k\d+$' AND relkind = 'r'`)
	require.Greater(t, len(found), map[bool]int{true: 60, false: 4}[exact])
	for i, c := range cases {
		if name := fmt.Sprintf("k%d", i); slices.Contains(found, name) {
			b.keyed[name] = c
		}
	}
	return b
}

func (b *typeBed) do(sql ...string) {
	b.t.Helper()
	for _, s := range sql {
		_, err := b.conn.Exec(b.t.Context(), s)
		require.NoError(b.t, err, s)
	}
}

// ask runs a query of one column.
func (b *typeBed) ask(sql string, args ...any) []string {
	b.t.Helper()
	rows, err := b.conn.Query(b.t.Context(), sql, args...)
	require.NoError(b.t, err, sql)
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(b.t, err, sql)
	return out
}

// fill inserts all values, from an id on, and in its first call the rows of the keyed tables, but those that a capture refuses.
func (b *typeBed) fill(id int) {
	b.t.Helper()
	statements := pgtypes.Rows("kinds", b.cases, id)
	b.rows = len(statements)
	b.do(statements...)
	if id > 0 {
		return
	}
	for name, c := range b.keyed {
		for n, v := range c.Values {
			if b.exact || v.Exact == "" || !isTime(c.Type) {
				b.do(fmt.Sprintf("INSERT INTO %s VALUES (%s, %d) ON CONFLICT DO NOTHING", name, v.SQL, n))
			}
		}
	}
}

// start runs a pipeline with a materialization into each of the schemas; the one called native has arrays as such.
func (b *typeBed) start(schemas ...string) {
	b.t.Helper()
	config := b.source.login()
	if b.exact {
		config["advanced"] = map[string]any{"lossless": []string{"times", "arrays", "json"}}
	}
	var err error
	b.catalog, err = launch.Discover(b.t.Context(), b.bins, launch.SourcePostgres, "e2e/"+b.source.database, config, b.folder)
	require.NoError(b.t, err)
	require.NoError(b.t, b.catalog.Keep(append(slices.Sorted(maps.Keys(b.keyed)), "kinds")...))
	for _, schema := range schemas {
		b.materialize(b.t, "e2e/"+schema, map[string]any{
			"schema": schema, "hardDelete": true, "advanced": map[string]any{"nativeArrays": schema == "native"},
		}, func(table string, _ *launch.MaterializationBinding) bool { return schema == "copy" || table == "kinds" })
	}
	b.world.start(b.t)
	b.copy.prints(b.t, fmt.Sprint(b.rows), "SELECT count(*) FROM copy.kinds")
}

// write streams inserts, updates of everything, and deletes. The row 9999 is the last one.
func (b *typeBed) write() {
	b.t.Helper()
	b.fill(1000)
	columns := make([]string, len(b.cases))
	for i := range columns {
		columns[i] = fmt.Sprintf("c%d", i)
	}
	list := strings.Join(columns, ", ")
	b.do("INSERT INTO kinds (id) SELECT id + 1000 FROM kinds WHERE id >= 1000",
		"UPDATE kinds t SET ("+list+") = (SELECT "+list+" FROM kinds s WHERE s.id = t.id - 1000) WHERE id >= 2000",
		"INSERT INTO kinds SELECT id + 3000, "+list+" FROM kinds WHERE id < 1000", "DELETE FROM kinds WHERE id >= 3000")
	for name := range b.keyed {
		b.do("UPDATE " + name + " SET n = n + 1")
	}
	b.do("INSERT INTO kinds (id) VALUES (9999)")
}

// compareColumns compares every column with its copy, and its type with what is documented.
func (b *typeBed) compareColumns(schema string) {
	b.t.Helper()
	require.Equal(b.t, []string{fmt.Sprint(3*b.rows + 1)}, b.ask("SELECT count(*)::text FROM kinds JOIN "+schema+".kinds d USING (id)"), "the rows that both have")
	require.Equal(b.t, []string{fmt.Sprint(3*b.rows + 1)}, b.ask("SELECT count(*)::text FROM kinds FULL JOIN "+schema+".kinds d USING (id)"), "all rows")
	var wrong []string
	for i, c := range b.cases {
		column := fmt.Sprintf("c%d", i)
		stored := b.typeOf(schema+".kinds", column)
		require.Equal(b.t, storedAs(c.Type, b.exact, schema == "native"), stored, c.Type)
		want := []string{}
		for n, v := range c.Values {
			if lost(c.Type, v, b.exact) {
				want = append(want, fmt.Sprint(n), fmt.Sprint(1000+n), fmt.Sprint(2000+n))
			}
		}
		got := b.ask(fmt.Sprintf("SELECT id::text FROM kinds s JOIN %s.kinds d USING (id) WHERE (%s) IS NOT TRUE", schema, same(c, b.exact, "s."+column, "d."+column)))
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			wrong = append(wrong, fmt.Sprintf("%s as %s: the rows %v differ instead of %v", c.Type, stored, got, want))
		}
	}
	require.Empty(b.t, wrong, strings.Join(wrong, "\n"))
}

func (b *typeBed) typeOf(table, column string) string {
	b.t.Helper()
	return b.ask("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = $1::regclass AND attname = $2", table, column)[0]
}

// compareKeys compares the tables whose keys are of all types.
func (b *typeBed) compareKeys(schema string) {
	b.t.Helper()
	for name, c := range b.keyed {
		rows := b.ask("SELECT count(*)::text FROM " + name)[0]
		b.copy.prints(b.t, rows+"|"+rows, fmt.Sprintf("SELECT count(*), count(*) FILTER (WHERE n > 0) FROM %s.%s", schema, name))
		require.Equal(b.t, keyStoredAs(c.Type, b.exact), b.typeOf(schema+"."+name, "k"), c.Type)
		equal := "s.k::text = (" + cast("d.k", c.Type) + ")::text"
		if c.Type == "real" || c.Type == "double precision" { // numeric has no negative zero
			equal = "s.k = d.k::" + c.Type
		}
		require.Equal(b.t, rows, b.ask(fmt.Sprintf("SELECT count(*)::text FROM %s s JOIN %s.%s d ON %s AND s.n = d.n", name, schema, name, equal))[0], "%s as a key", c.Type)
	}
}

// storedAs is the type of a column's copy, by the type in the source. Whatever is not listed is text.
func storedAs(typ string, exact, native bool) string {
	base, _, _ := strings.Cut(typ, "(")
	if element, ok := strings.CutSuffix(typ, "[]"); ok {
		return arrayStoredAs(element, exact, native)
	} else if typ == "deep" {
		return arrayStoredAs("int", exact, native)
	}
	kept := map[string]string{
		"boolean": "boolean", "smallint": "bigint", "integer": "bigint", "bigint": "bigint", "oid": "bigint", "percent": "bigint", "percent2": "bigint",
		"real": "double precision", "double precision": "double precision", "numeric": "numeric",
		"date": "date", "time": "time with time zone", "timetz": "time with time zone",
		"timestamp": "timestamp with time zone", "timestamptz": "timestamp with time zone", "moment": "timestamp with time zone",
		"uuid": "uuid", "bytea": "bytea", "json": "jsonb", "jsonb": "jsonb", "document": "jsonb",
	}[base]
	switch {
	case kept == "", exact && isTime(typ):
		return "text"
	case exact && kept == "jsonb":
		return "json"
	}
	return kept
}

// arrayStoredAs is storedAs for arrays, which are native only if asked for, and only where the schema of their elements is
// that of one type. Lossless arrays may be strings as well.
func arrayStoredAs(element string, exact, native bool) string {
	base, _, _ := strings.Cut(element, "(")
	switch {
	case !native || exact:
		return "jsonb"
	case slices.Contains([]string{"smallint", "integer", "int", "bigint", "oid", "percent", "percent2"}, base):
		return "bigint[]"
	case base == "boolean":
		return "boolean[]"
	case slices.Contains([]string{"real", "double precision", "float8", "json", "jsonb", "document", "deep"}, base):
		return "jsonb"
	}
	return "text[]"
}

// keyStoredAs is storedAs for a column of the key, where floats are decimal text, and arrays and JSON values the server's.
func keyStoredAs(typ string, exact bool) string {
	switch kept := storedAs(typ, exact, false); kept {
	case "double precision":
		return "numeric"
	case "json", "jsonb":
		return "text"
	default:
		return kept
	}
}

func isTime(typ string) bool {
	return strings.HasPrefix(typ, "time") && typ != "timerange" || typ == "date" || typ == "moment"
}

// lost says whether a value is not equal in the copy: JSON, or the notation that it has for times, does not tell it from
// another one, unless the source's advanced.lossless is set. Then nothing is lost.
//
//   - times beyond RFC 3339 (infinity, years before 1 and after 9999, the hour 24, seconds of a zone): the nearest time that
//     there is, as the source documents it;
//   - arrays with bounds of their own, or several dimensions of what is an array itself in JSON: JSON has neither;
//   - JSON's null is a null; halves of surrogate pairs and NUL characters, which jsonb refuses, are U+FFFD.
func lost(typ string, v pgtypes.Value, exact bool) bool {
	if exact || v.Exact == "" || v.Exact == v.JSON {
		return false
	}
	switch strings.TrimSuffix(typ, "[]") {
	case "json", "jsonb", "document":
		return strings.Contains(v.SQL, "'null'") || strings.Contains(v.SQL, `\ud800`) || strings.Contains(v.SQL, `\u0000`) || strings.Contains(v.SQL, "ARRAY[ARRAY")
	}
	return true
}

// same is an SQL condition that is true where a value and its copy are equal: both are null, or the copy, cast to the source's
// type, prints the same. (Some types have no equality, and that of others is coarse: boxes are equal by their area.)
func same(c pgtypes.Case, exact bool, source, copied string) string {
	element, isArray := strings.CutSuffix(c.Type, "[]")
	back := cast(copied, c.Type)
	switch {
	case c.NoKey == "has no input":
		back = copied
	case c.Type == "json" || c.Type == "jsonb" || c.Type == "document":
		return fmt.Sprintf("same_json(%s::text, %s::text)", source, copied)
	case isArray || c.Type == "deep":
		mode := "plain"
		switch element {
		case "bytea", "box", "ext.geometry":
			mode = element
		case "json", "jsonb", "document":
			mode = map[bool]string{true: "plain", false: "json"}[exact]
		case "deep":
			mode = map[bool]string{true: "arrays", false: "plain"}[isArray]
		}
		back = fmt.Sprintf("literal(to_jsonb(%s), '%s', 0)", copied, mode)
		if !slices.Contains([]string{"pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list"}, element) { // which have no input
			back += "::" + c.Type
		}
		if element == "json" || element == "xml" {
			return fmt.Sprintf("(%s)::text IS NOT DISTINCT FROM (%s)::text", source, back)
		}
		if element == "real" || element == "double precision" { // jsonb has no negative zero
			return fmt.Sprintf("%s IS NOT DISTINCT FROM (%s)", source, back)
		}
	}
	return fmt.Sprintf("%s::text IS NOT DISTINCT FROM (%s)::text", source, back)
}

// cast reads a copied value as the source's type. Only that of a table reads texts in another way than its input does.
func cast(value, typ string) string {
	if typ == "regclass" {
		return "regclassin(textout(" + value + "))"
	}
	return value + "::" + typ
}

// jsonFunctions compare JSON by what it means, if jsonb can hold it and else to the letter, and write JSON arrays as those of
// Postgres.
const jsonFunctions = `
	CREATE FUNCTION same_json(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		IF a IS NOT DISTINCT FROM b THEN RETURN true; END IF;
		RETURN a::jsonb IS NOT DISTINCT FROM b::jsonb;
	EXCEPTION WHEN data_exception THEN RETURN false;
	END $$;
	CREATE FUNCTION literal(j jsonb, mode text, depth int) RETURNS text LANGUAGE sql AS $$
		SELECT CASE
			WHEN j IS NULL THEN NULL
			WHEN depth = 0 AND jsonb_typeof(j) = 'string' THEN j #>> '{}'
			WHEN jsonb_typeof(j) = 'array' AND (depth = 0 OR mode NOT IN ('json', 'arrays')) THEN (
				SELECT '{' || coalesce(string_agg(literal(e, mode, depth + 1), CASE mode WHEN 'box' THEN ';' WHEN 'ext.geometry' THEN ':' ELSE ',' END ORDER BY n), '') || '}'
				FROM jsonb_array_elements(j) WITH ORDINALITY AS x(e, n))
			WHEN jsonb_typeof(j) = 'null' THEN 'NULL'
			ELSE '"' || replace(replace(CASE
				WHEN mode = 'bytea' THEN '\x' || encode(decode(j #>> '{}', 'base64'), 'hex')
				WHEN mode = 'arrays' THEN literal(j, 'plain', 0)
				WHEN mode = 'json' THEN j::text
				ELSE j #>> '{}' END, '\', '\\'), '"', '\"') || '"'
			END
	$$;`
