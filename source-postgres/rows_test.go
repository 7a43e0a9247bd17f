package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Whatever the log has of old rows, the capture ends with what the table holds: out-of-line values that updates and changes
// of the key leave out, and partial unique indexes that are no key, included.
func TestReplicaIdentities(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	big := strings.Repeat("y", 3000)
	names := []string{"by_default", "by_full", "by_index"}
	for _, name := range names {
		db.exec("CREATE TABLE "+name+" (id int PRIMARY KEY, other int NOT NULL, a text, big text)", "ALTER TABLE "+name+" ALTER big SET STORAGE EXTERNAL",
			"CREATE UNIQUE INDEX "+name+"_partial ON "+name+" (a) WHERE a IS NOT NULL", "CREATE UNIQUE INDEX "+name+"_other ON "+name+" (other)")
	}
	db.exec("ALTER TABLE by_full REPLICA IDENTITY FULL", "ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_other")
	for _, name := range names {
		db.exec("INSERT INTO " + name + " SELECT g, g, NULL, '" + big + "' FROM generate_series(1, 4) g")
	}
	c := newCapture(t, db, frame.JSON)
	row := func(id, other, a string) string {
		return `{"a":` + a + `,"big":"` + big + `","id":` + id + `,"other":` + other + `}`
	}
	want := map[string][]string{}
	for _, name := range names {
		want[name] = []string{row("1", "1", "null"), row("2", "2", "null"), row("3", "3", "null"), row("4", "4", "null")}
	}
	c.untilAll(want)
	for _, name := range names {
		db.exec("UPDATE "+name+" SET a = 'a' WHERE id = 1", "UPDATE "+name+" SET id = 20, other = 20 WHERE id = 2", "DELETE FROM "+name+" WHERE id = 3",
			"BEGIN; DELETE FROM "+name+" WHERE id = 4; INSERT INTO "+name+" VALUES (4, 4, 'again', '"+big+"'); UPDATE "+name+" SET a = 'b' WHERE id = 4; COMMIT")
		want[name] = []string{row("1", "1", `"a"`), row("20", "20", "null"), row("4", "4", `"b"`)}
	}
	c.untilAll(want)
}

// Columns are added, dropped, renamed and retyped while the table is being backfilled and written to.
func TestAltersWhileBackfilling(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.cfg.Advanced.BackfillChunkRows, db.cfg.Advanced.BackfillWorkers, db.cfg.Advanced.RediscoverEvery = 100, 2, "1s"
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text, n int, old text)", "INSERT INTO t SELECT g, 'a' || g, g, 'o' FROM generate_series(1, 5000) g")
	c := newCapture(t, db, frame.JSON)
	steps := [][]string{
		{"ALTER TABLE t ADD added int DEFAULT 7", "UPDATE t SET added = 8 WHERE id % 100 = 0"},
		{"ALTER TABLE t DROP old", "UPDATE t SET added = 9 WHERE id % 100 = 1"},
		{"ALTER TABLE t RENAME a TO b", "UPDATE t SET b = 'new' WHERE id % 100 = 2"},
		{"ALTER TABLE t ALTER n TYPE text USING 'n' || n", "DELETE FROM t WHERE id % 100 = 3"},
		{"ALTER TABLE t ADD old int", "UPDATE t SET id = -id WHERE id % 100 = 4"},
	}
	next := 0
	equal := func() bool {
		for key, row := range c.rows["t"] {
			delete(row, "a") // a destination keeps columns that are gone
			if string(row["old"]) == `"o"` {
				delete(row, "old")
			}
			c.rows["t"][key] = row
		}
		return c.live("t") && c.equals(db, "t")
	}
	for next < len(steps) {
		c.run(frame.JSON, func(tx *session.Transaction) bool {
			if tx != nil && len(tx.Documents) > 0 && next < len(steps) {
				db.exec(steps[next]...)
				next++
				return next%2 == 0
			}
			return next == len(steps) || equal()
		})
	}
	c.run(frame.JSON, func(*session.Transaction) bool { return equal() })
	require.True(t, c.equalsTable(db, "t"), "the capture ended with %v", c.ended)
}

// Two tables swap their names in one transaction, and both go on: the capture is of the one that has the name now, whole.
func TestTablesSwapped(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprintf("all tables %v", all), func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			db.cfg.Advanced.RediscoverEvery = "1s"
			db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t VALUES (1, 'old'), (2, 'old')")
			if all {
				db.cfg.Advanced.PublicationName = "mine"
				db.exec("CREATE PUBLICATION mine FOR ALL TABLES")
			}
			c := newCapture(t, db, frame.JSON)
			c.until("t", `{"a":"old","id":1}`, `{"a":"old","id":2}`)
			db.exec("CREATE TABLE t_new (id int PRIMARY KEY, a text, b int)", "INSERT INTO t_new VALUES (1, 'new', 1), (2, 'new', 1), (3, 'new', 1)",
				"BEGIN; ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t; COMMIT", "INSERT INTO t_old VALUES (9, 'old')", "UPDATE t SET b = 2 WHERE id = 2", "INSERT INTO t VALUES (4, 'newer', 4)")
			c.until("t", `{"a":"new","b":1,"id":1}`, `{"a":"new","b":2,"id":2}`, `{"a":"new","b":1,"id":3}`, `{"a":"newer","b":4,"id":4}`)
			db.exec("INSERT INTO t VALUES (5, 'x', 5)", "DELETE FROM t WHERE id < 5")
			c.until("t", `{"a":"x","b":5,"id":5}`)
		})
	}
}

// Any name goes, and tables that differ only in case have collections of their own.
func TestAnyName(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	names := []string{"orders", "Orders", "ORDERS", `a "b" 'c'`, "dot.dot..", "таблица №1", `back\slash`, "select", strings.Repeat("ü", 31), strings.Repeat("x", 63), "new\nline", "$1", "semi;colon--"}
	want := map[string][]string{}
	for _, name := range names {
		q := quoteIdent(name)
		db.exec("CREATE TABLE "+q+" ("+q+" int PRIMARY KEY, \"Big\" text)", "ALTER TABLE "+q+` ALTER "Big" SET STORAGE EXTERNAL`, "INSERT INTO "+q+" VALUES (1, repeat('z', 3000))")
	}
	db.cfg.Advanced.BackfillWorkers = 2
	c := newCapture(t, db, frame.JSON)
	collections := map[string]bool{}
	for _, b := range c.spec.Bindings {
		collections[b.Collection.Name] = true
	}
	require.Len(t, collections, len(names))
	for _, name := range names {
		q := quoteIdent(name)
		db.exec("UPDATE " + q + " SET " + q + " = 2")
		want[name] = []string{}
	}
	c.run(frame.JSON, func(*session.Transaction) bool {
		for _, name := range names {
			if len(c.rows[name]) != 1 || c.rows[name]["2|"] == nil || len(c.rows[name]["2|"]["Big"]) != 3002 {
				return false
			}
		}
		return true
	})
	for _, name := range names {
		require.Len(t, c.rows[name], 1, "%q: %v", name, c.ended)
	}
}

// Row-level security would make a table look smaller than it is: it is refused, also where it comes while the capture runs;
// on a partition alone it hides nothing, because the table is read as a whole then.
func TestRowLevelSecurity(t *testing.T) {
	t.Parallel()
	db := newDatabaseFrom(t, 13)
	role := "reader_" + db.cfg.Database
	db.exec("CREATE ROLE "+role+" LOGIN REPLICATION PASSWORD 'secret'", "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)",
		"CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id)", "CREATE TABLE p1 PARTITION OF p DEFAULT", "INSERT INTO p VALUES (1), (2)",
		"ALTER TABLE p1 ENABLE ROW LEVEL SECURITY", "CREATE PUBLICATION mine FOR TABLE t, p WITH (publish_via_partition_root)",
		"GRANT SELECT ON ALL TABLES IN SCHEMA public TO "+role)
	t.Cleanup(func() { db.exec("DROP OWNED BY "+role, "DROP ROLE "+role) })
	d := db.driver(func(c *config) { c.User, c.Advanced.PublicationName = role, "mine" })
	require.Empty(t, checkMessages(t, d, "p", "t"))
	tables := db.tables(d, "p", "t")
	rows, _ := db.scanAll(d, tables[0], 10)
	require.ElementsMatch(t, []string{`{"id":1}`, `{"id":2}`}, rows)
	db.exec("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
	want := fmt.Sprintf(`Row-level security hides rows of table public.t from user %q, while the log has all of them. Have an administrator run: ALTER ROLE "%s" BYPASSRLS;`, role, role)
	require.Equal(t, []string{want}, checkMessages(t, d, "t"))
	plan, err := d.Plan(t.Context(), tables[1])
	require.NoError(t, err)
	_, err = d.Scan(t.Context(), cdc.Chunk{Table: tables[1], Range: plan.Ranges[0], MaxRows: 10, MaxBytes: 1 << 20}, func(cdc.Row) error { return nil })
	require.Equal(t, want, usererr.Message(err))
	db.exec("ALTER ROLE " + role + " BYPASSRLS")
	rows, _ = db.scanAll(db.driver(func(c *config) { c.User, c.Advanced.PublicationName = role, "mine" }), tables[1], 10)
	require.Equal(t, []string{`{"id":1}`}, rows)
}
