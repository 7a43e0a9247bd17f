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

	"github.com/sluicedata/sluice/sdk/testkit/pgtypes"
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
	cases []pgtypes.Case // those of this server
	lists []pgtypes.Case // arrays of their values
}

func newTypeBed(t testing.TB, pg *server.PostgresServer) *typeBed {
	t.Helper()
	b := &typeBed{database: databaseOn(t, pg)}
	b.conn = b.connect()
	b.do(pgtypes.Setup)
	b.do("ANALYZE seen")
	b.extensions()
	// What a user may have set for all sessions must not show in any value.
	for _, setting := range []string{
		"search_path TO public, ext", "DateStyle TO 'German'", "IntervalStyle TO 'postgres_verbose'", "TimeZone TO 'Asia/Kolkata'",
		"extra_float_digits TO 0", "bytea_output TO 'escape'", "quote_all_identifiers TO on",
	} {
		b.do("ALTER DATABASE " + b.cfg.Database + " SET " + setting)
	}
	b.cases, b.lists = pgtypes.Available(pg.Major(), func(typ string) bool {
		return b.ask("SELECT coalesce(to_regtype($1)::text, '')", typ)[0] != ""
	})
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

// extensions makes the extensions' types, with stand-ins for those that this server lacks.
func (b *typeBed) extensions() {
	b.t.Helper()
	for _, sql := range pgtypes.SetupExtensions(b.ask("SELECT name FROM pg_available_extensions")) {
		b.do(sql)
	}
}

func (b *typeBed) all() []pgtypes.Case { return slices.Concat(b.cases, b.lists) }

// makeKinds makes a table with a column of each case's type.
func (b *typeBed) makeKinds() {
	b.t.Helper()
	b.do(pgtypes.Table("kinds", b.all()))
	b.do("ALTER TABLE kinds REPLICA IDENTITY FULL")
}

// fillKinds inserts rows with all values, and one of nulls. The first one has the given id.
func (b *typeBed) fillKinds(id int) int {
	b.t.Helper()
	statements := pgtypes.Rows("kinds", b.all(), id)
	for _, sql := range statements {
		b.do(sql)
	}
	return len(statements)
}

// keyed is a table whose key is of a case's type.
type keyed struct {
	pgtypes.Case
	table string
	time  bool // some of the values are refused in keys by default
}

// refused reports whether a value cannot be in a key.
func (k keyed) refused(v pgtypes.Value, exact bool) bool { return k.time && !exact && v.Exact != "" }

// makeKeyed makes a table for every type that the server lets be a key.
func (b *typeBed) makeKeyed() []keyed {
	b.t.Helper()
	var names []string
	for i, c := range b.cases {
		names = append(names, fmt.Sprintf("k%d", i))
		if c.NoKey != "" {
			continue
		}
		b.do(fmt.Sprintf("DO $$ BEGIN CREATE TABLE %s (k %s PRIMARY KEY, n int); EXCEPTION WHEN undefined_object THEN NULL; END $$", names[i], c.Type))
	}
	found := b.ask("SELECT relname FROM pg_class WHERE relname = ANY($1) AND relkind = 'r'", names)
	times := b.ask(`SELECT table_name FROM information_schema.columns WHERE table_name = ANY($1) AND column_name = 'k'
		AND (data_type = 'date' OR data_type LIKE 'time%')`, names)
	var out []keyed
	for i, c := range b.cases {
		if slices.Contains(found, names[i]) {
			out = append(out, keyed{Case: c, table: names[i], time: slices.Contains(times, names[i])})
		}
	}
	return out
}

// fill inserts a row for every value, or for every one that can be in a key by default.
func (k keyed) fill(b *typeBed, exact bool) {
	b.t.Helper()
	for n, v := range k.Values {
		if !k.refused(v, exact) {
			b.do(fmt.Sprintf("INSERT INTO %s VALUES (%s, %d) ON CONFLICT DO NOTHING", k.table, v.SQL, n))
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
