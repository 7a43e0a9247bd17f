package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// everythingExact is a configuration under which nothing is lost.
func everythingExact(c *config) {
	c.Advanced.Lossless = []string{losslessTimes, losslessArrays, losslessJSON}
	c.Advanced.SlotName += "_exact"
}

// bothOptions are the changes of a configuration that decide how values are written.
func bothOptions() map[string]func(*config) {
	return map[string]func(*config){"default": func(*config) {}, "lossless": everythingExact}
}

// withTypes runs a test on the server that all tests share and on the newest one of the machine, in a database that has all
// types of the cases.
func withTypes(t *testing.T, test func(t *testing.T, bed *typeBed)) {
	t.Parallel()
	shared := server.SharedPostgres(t)
	servers := []*server.PostgresServer{shared}
	if versions := server.Versions(); versions[len(versions)-1] > shared.Major() {
		servers = append(servers, server.Postgres(t, server.WithVersion(versions[len(versions)-1])))
	}
	for _, pg := range servers {
		t.Run(fmt.Sprint(pg.Major()), func(t *testing.T) {
			test(t, newTypeBed(t, pg))
		})
	}
}

// typeBed is a database with the cases' types.
type typeBed struct {
	*database
	conn  *pgx.Conn
	cases []typeCase // those of this server
	lists []typeCase // arrays of their values
}

func newTypeBed(t testing.TB, pg *server.PostgresServer) *typeBed {
	t.Helper()
	b := &typeBed{database: databaseOn(t, pg)}
	b.conn = b.connect()
	b.do(typeSetup)
	b.do("ANALYZE seen")
	b.extensions()
	// What a user may have set for all sessions must not show in any value.
	for _, setting := range []string{
		"search_path TO public, ext", "DateStyle TO 'German'", "IntervalStyle TO 'postgres_verbose'", "TimeZone TO 'Asia/Kolkata'",
		"extra_float_digits TO 0", "bytea_output TO 'escape'", "quote_all_identifiers TO on",
	} {
		b.do("ALTER DATABASE " + b.cfg.Database + " SET " + setting)
	}
	for _, c := range slices.Concat(builtInTypes(), madeTypes(), extensionTypes()) {
		if c.since > pg.Major() {
			continue
		}
		b.cases = append(b.cases, c)
		// Types of the server's own that are not for tables have no arrays, and a constructor takes no arrays or vectors.
		if array := arrayOf(c); !slices.Contains([]string{"deep", "int2vector", "oidvector"}, c.typ) && b.ask("SELECT coalesce(to_regtype($1)::text, '')", array.typ)[0] != "" {
			b.lists = append(b.lists, array)
		}
	}
	b.cases = append(b.cases, arrayShapes()...)
	return b
}

func (b *typeBed) do(sql string) {
	b.t.Helper()
	_, err := b.conn.Exec(b.t.Context(), sql)
	require.NoError(b.t, err, sql)
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

// arrayOf is a case with an array of all of a case's values.
func arrayOf(c typeCase) typeCase {
	var (
		list        []string
		json, exact strings.Builder
		unknown     bool
	)
	for _, v := range c.values {
		list = append(list, fmt.Sprintf("(%s)::%s", v.sql, c.typ))
		json.WriteString(v.json + ",")
		exact.WriteString(v.want(true) + ",")
		unknown = unknown || v.json == ""
	}
	out := typeValue{sql: "ARRAY[" + strings.Join(list, ", ") + ", NULL]::" + c.typ + "[]"}
	if !unknown {
		out.json, out.exact = "["+json.String()+"null]", "["+exact.String()+"null]"
	}
	return typeCase{typ: c.typ + "[]", since: c.since, values: []typeValue{out}}
}

// want is what the value becomes; empty if only the server can say.
func (v typeValue) want(exact bool) string {
	if exact && v.exact != "" {
		return v.exact
	}
	return v.json
}

// extensions makes the extensions' types. Those of extensions that this server does not carry get a stand-in of the same
// name, kind, delimiter and notation: a type whose values are what was put in. That is all the connector sees of a type.
func (b *typeBed) extensions() {
	b.t.Helper()
	b.do("CREATE SCHEMA ext")
	here := b.ask("SELECT name FROM pg_available_extensions")
	for _, name := range []string{"citext", "hstore", "ltree", "cube", "seg", "isn"} {
		require.Contains(b.t, here, name)
		b.do("CREATE EXTENSION " + name + " SCHEMA ext")
	}
	for _, e := range []struct{ extension, typ, options string }{
		{"postgis", "geometry", `DELIMITER = ':', ALIGNMENT = double, STORAGE = main`}, {"vector", "vector", "STORAGE = external"},
	} {
		if slices.Contains(here, e.extension) {
			b.do("CREATE EXTENSION " + e.extension + " SCHEMA ext")
			continue
		}
		b.t.Logf("a stand-in for the type %s: this server has no extension %s", e.typ, e.extension)
		name := "ext." + e.typ
		b.do("CREATE TYPE " + name + "; CREATE FUNCTION " + name + "_in(cstring) RETURNS " + name + " LANGUAGE internal IMMUTABLE STRICT AS 'textin';" +
			"CREATE FUNCTION " + name + "_out(" + name + ") RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';" +
			"CREATE TYPE " + name + " (INPUT = " + name + "_in, OUTPUT = " + name + "_out, INTERNALLENGTH = VARIABLE, " + e.options + ")")
	}
	b.do("CREATE DOMAIN shout AS ext.citext COLLATE \"C\"")
}

func (b *typeBed) all() []typeCase { return slices.Concat(b.cases, b.lists) }

// makeKinds makes a table with a column of each case's type, c0, c1 and so on.
func (b *typeBed) makeKinds() {
	b.t.Helper()
	columns := make([]string, len(b.all()))
	for i, c := range b.all() {
		columns[i] = fmt.Sprintf("c%d %s", i, c.typ)
	}
	b.do("CREATE TABLE kinds (id int PRIMARY KEY, " + strings.Join(columns, ", ") + ")")
	b.do("ALTER TABLE kinds REPLICA IDENTITY FULL")
}

// fillKinds inserts a row for the first value of every case, one for the second, and so on, and one of nulls. The first one
// has the given id.
func (b *typeBed) fillKinds(id int) (rows int) {
	b.t.Helper()
	for more := true; more; rows++ {
		columns, values := []string{"id"}, []string{fmt.Sprint(id + rows)}
		for i, c := range b.all() {
			if rows < len(c.values) {
				columns, values = append(columns, fmt.Sprintf("c%d", i)), append(values, c.values[rows].sql)
			}
		}
		more = len(columns) > 1
		b.do("INSERT INTO kinds (" + strings.Join(columns, ", ") + ") VALUES (" + strings.Join(values, ", ") + ")")
	}
	return rows
}

// keyed is a table whose key is of a case's type.
type keyed struct {
	typeCase
	table string
	time  bool // some of the values are refused in keys by default
}

// refused reports whether a value cannot be in a key.
func (k keyed) refused(v typeValue, exact bool) bool { return k.time && !exact && v.exact != "" }

// makeKeyed makes a table for every type that the server lets be a key.
func (b *typeBed) makeKeyed() []keyed {
	b.t.Helper()
	var names []string
	for i, c := range b.cases {
		names = append(names, fmt.Sprintf("k%d", i))
		if c.noKey != "" {
			continue
		}
		b.do(fmt.Sprintf("DO $$ BEGIN CREATE TABLE %s (k %s PRIMARY KEY, n int); EXCEPTION WHEN undefined_object THEN NULL; END $$", names[i], c.typ))
	}
	found := b.ask("SELECT relname FROM pg_class WHERE relname = ANY($1) AND relkind = 'r'", names)
	times := b.ask(`SELECT table_name FROM information_schema.columns WHERE table_name = ANY($1) AND column_name = 'k'
		AND (data_type = 'date' OR data_type LIKE 'time%')`, names)
	var out []keyed
	for i, c := range b.cases {
		if slices.Contains(found, names[i]) {
			out = append(out, keyed{typeCase: c, table: names[i], time: slices.Contains(times, names[i])})
		}
	}
	return out
}

// fill inserts a row for every value, or for every one that can be in a key by default.
func (k keyed) fill(b *typeBed, exact bool) {
	b.t.Helper()
	for n, v := range k.values {
		if !k.refused(v, exact) {
			b.do(fmt.Sprintf("INSERT INTO %s VALUES (%s, %d) ON CONFLICT DO NOTHING", k.table, v.sql, n))
		}
	}
}

// compileSchema compiles a schema whose formats, encodings and media types are asserted.
func compileSchema(t testing.TB, text json.RawMessage) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	compiler.AssertContent()
	require.NoError(t, compiler.AddResource("column.json", doc))
	schema, err := compiler.Compile("column.json")
	require.NoError(t, err, "%s", text)
	return schema
}

func validate(t testing.TB, schema *jsonschema.Schema, text []byte) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	require.NoError(t, err, "%s", text)
	require.NoError(t, schema.Validate(value), "%s", text)
}
