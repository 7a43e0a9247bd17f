package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// The key is what deletes carry, and nothing that is not a key (hard case 32).
func TestKeys(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(`CREATE TABLE pk (a int, b int, "C c" text, PRIMARY KEY ("C c", a))`,
		"CREATE TABLE included (a int PRIMARY KEY, b int)", "CREATE UNIQUE INDEX ON included (b) INCLUDE (a)",
		"CREATE TABLE fallback (a int NOT NULL, b int NOT NULL, c int NOT NULL)", "CREATE UNIQUE INDEX z ON fallback (a, b)", "CREATE UNIQUE INDEX a ON fallback (c) INCLUDE (a)",
		"CREATE TABLE chosen (a int PRIMARY KEY, b int NOT NULL)", "CREATE UNIQUE INDEX chosen_b ON chosen (b)", "ALTER TABLE chosen REPLICA IDENTITY USING INDEX chosen_b",
		"CREATE TABLE partial (a int NOT NULL)", "CREATE UNIQUE INDEX ON partial (a) WHERE a > 0",
		"CREATE TABLE nullable (a int)", "CREATE UNIQUE INDEX ON nullable (a)",
		"CREATE TABLE expression (a int NOT NULL)", "CREATE UNIQUE INDEX ON expression ((a + 1))",
		"CREATE TABLE later (a int PRIMARY KEY DEFERRABLE)",
		"CREATE TABLE deferred (a int NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED)",
		"CREATE TABLE generated (a int, b int GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY)",
		"CREATE TABLE invalid (a int NOT NULL)", "CREATE UNIQUE INDEX invalid_a ON invalid (a)", "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'invalid_a'::regclass")
	d := db.driver()
	found, err := d.Discover(t.Context())
	require.NoError(t, err)
	keys := map[string]string{}
	for _, table := range found {
		keys[table.ID.Name] = strings.Join(table.Key, ",")
	}
	require.Equal(t, map[string]string{
		"pk": "C c,a", "included": "a", "fallback": "c", "chosen": "b", "partial": "", "nullable": "", "expression": "", "later": "",
		"deferred": "", "generated": "", "invalid": "",
	}, keys)
}

// What cannot be captured is not discovered; names are taken as they are.
func TestDiscover(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	generated := ", g int GENERATED ALWAYS AS (1) STORED"
	if db.pg.Major() >= 18 {
		generated = "" // such a server sends it
	}
	db.exec(`CREATE SCHEMA "Odd ""schema"`, `CREATE TABLE "Odd ""schema"."Täble ."" '1" ("a ""b" int PRIMARY KEY, "select" text NOT NULL`+generated+`)`,
		`INSERT INTO "Odd ""schema"."Täble ."" '1" VALUES (1, 'x')`,
		`CREATE TABLE foo (id int PRIMARY KEY)`, `CREATE TABLE "Foo" (id int PRIMARY KEY)`,
		"CREATE VIEW v AS SELECT 1", "CREATE MATERIALIZED VIEW m AS SELECT 1", "CREATE UNLOGGED TABLE u (id int)",
		"CREATE TABLE p (id int) PARTITION BY LIST (id)", "CREATE TABLE p1 PARTITION OF p DEFAULT", "CREATE TABLE sluice_checkpoints_v1 (id int)",
		"CREATE TABLE parent (id int PRIMARY KEY)", "CREATE TABLE child (extra int) INHERITS (parent)", "ALTER TABLE child ADD PRIMARY KEY (id)",
		"INSERT INTO parent VALUES (1)", "INSERT INTO child VALUES (2)", "CREATE TABLE empty ()")
	d := db.driver()
	found, err := d.Discover(t.Context())
	require.NoError(t, err)
	var names []string
	byName := map[string]*cdc.Table{}
	for _, table := range found {
		names = append(names, table.ID.Name)
		byName[table.ID.Name] = table
	}
	require.ElementsMatch(t, []string{`Täble ." '1`, "foo", "Foo", "p", "parent", "child", "empty"}, names)
	odd := byName[`Täble ." '1`]
	require.Equal(t, cdc.Table{
		ID: cdc.TableID{Schema: `Odd "schema`, Name: `Täble ." '1`}, Incarnation: odd.Incarnation, Key: []string{`a "b`}, Rows: odd.Rows,
		Columns: []cdc.Column{
			{Name: `a "b`, Small: true, Incarnation: "1", Schema: []byte(`{"type":"integer"}`), Type: "integer", Filled: true},
			{Name: "select", Incarnation: "2", Schema: []byte(`{"type":"string"}`), Type: "text", Filled: true},
		},
	}, *odd)

	s := db.open(d, odd, byName["parent"])
	rows, _ := db.scanAll(d, odd, 10)
	require.Equal(t, []string{`{"a \"b":1,"select":"x"}`}, rows)
	rows, _ = db.scanAll(d, byName["parent"], 10)
	require.Equal(t, []string{`{"id":1}`}, rows, "not those of a table that inherits")
	db.exec(`UPDATE "Odd ""schema"."Täble ."" '1" SET "select" = 'y'`, "INSERT INTO child VALUES (3)", "INSERT INTO parent VALUES (4)")
	require.Equal(t, []string{`u Täble ." '1 {"a \"b":1,"select":"y"}`, `c parent {"id":4}`}, s.fence())

	none, err := d.Discover(t.Context(), cdc.TableID{Schema: "public", Name: "gone"})
	require.NoError(t, err)
	require.Empty(t, none)
}

// Fifty tables are discovered within two seconds, thousands in bounded time.
func TestDiscoverManyTables(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	const tables = 2000
	for i := range tables / 500 {
		db.exec(fmt.Sprintf("DO $$ BEGIN FOR i IN 1..500 LOOP EXECUTE format('CREATE TABLE t_%%s_%%s (id int PRIMARY KEY, a text, b timestamptz)', %d, i); END LOOP; END $$", i))
	}
	d := db.driver()
	started := time.Now()
	found, err := d.Discover(t.Context())
	require.NoError(t, err)
	require.Len(t, found, tables)
	require.Less(t, time.Since(started), time.Minute)
}

// A table that is dropped and created again all the time is there, whole, or not.
func TestDiscoverWhileTablesGo(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	d := db.driver()
	conn := db.connect()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				run(t, conn, "CREATE TABLE t (id int PRIMARY KEY, a text)", "DROP TABLE t")
			}
		}
	}()
	there := 0
	for range 300 {
		found, err := d.Discover(t.Context(), cdc.TableID{Schema: "public", Name: "t"})
		if err != nil {
			t.Errorf("discovering: %v", err)
		}
		for _, table := range found {
			there++
			if len(table.Columns) != 2 || len(table.Key) != 1 {
				t.Errorf("table %s has %d columns and the key %v", table.ID, len(table.Columns), table.Key)
			}
		}
	}
	close(stop)
	<-done
	require.NotZero(t, there)
}

// How many digits a column's numbers have is in its schema, where the type says so.
func TestDigitsOfNumbers(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	columns := "a numeric(10,2) PRIMARY KEY, b numeric, c numeric(5) NOT NULL, d price, e discount, f numeric(9,3)[], g amount"
	want := map[string]string{"a": "10,2", "c": "5,0", "d": "18,4", "e": "18,4"}
	if db.pg.Major() >= 15 {
		columns += ", h numeric(2,-3), i numeric(3,5)"
		want["h"], want["i"] = "5,0", "5,5"
	}
	db.exec("CREATE DOMAIN price AS numeric(18,4)", "CREATE DOMAIN discount AS price CHECK (value > 0)", "CREATE DOMAIN amount AS numeric", "CREATE TABLE t ("+columns+")")
	tables, err := db.driver().Discover(t.Context())
	require.NoError(t, err)
	got := map[string]string{}
	for _, c := range tables[0].Columns {
		var s struct {
			Decimal *struct{ Precision, Scale int } `json:"x-decimal"`
		}
		require.NoError(t, json.Unmarshal(c.Schema, &s))
		if s.Decimal != nil {
			got[c.Name] = fmt.Sprintf("%d,%d", s.Decimal.Precision, s.Decimal.Scale)
		}
	}
	require.Equal(t, want, got)
}
