package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// choose changes the resource of a table.
func (c *captured) choose(table string, change func(*cdc.Resource)) {
	c.t.Helper()
	for _, b := range c.spec.Bindings {
		if b.ResourcePath[1] != table {
			continue
		}
		var r cdc.Resource
		require.NoError(c.t, json.Unmarshal(b.ResourceConfigJson, &r))
		change(&r)
		raw, err := json.Marshal(r)
		require.NoError(c.t, err)
		b.ResourceConfigJson = raw
		return
	}
	require.Fail(c.t, "no table "+table)
}

// onTruncate changes a policy in the capture's configuration.
func (c *captured) onTruncate(policy string) {
	c.t.Helper()
	c.advanced("onTruncate", policy)
}

// advanced changes an option in the capture's configuration.
func (c *captured) advanced(name string, value any) {
	c.t.Helper()
	var cfg map[string]any
	require.NoError(c.t, json.Unmarshal(c.spec.ConfigJson, &cfg))
	options, ok := cfg["advanced"].(map[string]any)
	require.True(c.t, ok)
	options[name] = value
	raw, err := json.Marshal(cfg)
	require.NoError(c.t, err)
	c.spec.ConfigJson = raw
}

// until runs a session until the table's rows are these, and keeps all documents.
func (c *captured) until(table string, rows ...string) (docs []string) {
	c.t.Helper()
	return c.untilAll(map[string][]string{table: rows})
}

// untilAll does so for several tables.
func (c *captured) untilAll(tables map[string][]string) (docs []string) {
	c.t.Helper()
	reached := false
	c.run(frame.JSON, func(tx *session.Transaction) bool {
		if tx != nil {
			for _, doc := range tx.Documents {
				docs = append(docs, string(doc.Doc))
			}
			for _, s := range tx.Schemas {
				c.schemas[s.Binding] = append(c.schemas[s.Binding], string(s.Schema))
			}
		}
		reached = false
		for table, rows := range tables {
			if !slices.Equal(slices.Sorted(slices.Values(rows)), c.texts(table)) || !c.live(table) {
				return false
			}
		}
		reached = true
		return true
	})
	require.True(c.t, reached, "the capture ended with %v; tables: %v", c.ended, c.rows)
	return docs
}

// texts are the rows of a table as JSON, sorted.
func (c *captured) texts(table string) []string {
	out := []string{}
	for _, row := range c.rows[table] {
		text, err := json.Marshal(row)
		require.NoError(c.t, err)
		out = append(out, string(text))
	}
	slices.Sort(out)
	return out
}

// live reports whether the table's backfill has ended.
func (c *captured) live(table string) bool {
	return regexp.MustCompile(`public%2F` + table + `[^"]*":\{"phase":"live"|` + table + `[^"]*": *\{[^{}]*"phase":"live"`).Match(c.state)
}

// Columns that are left out are in no document, whichever way the row came, and whatever the replica identity; and where the
// publication is ours and the server can, they are not even sent.
func TestExcludedColumnsNeverLeave(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	secret := strings.Repeat("secret", 1000)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text, ssn text)", "ALTER TABLE t ALTER ssn SET STORAGE EXTERNAL",
		"CREATE TABLE whole (id int PRIMARY KEY, a text, ssn text)", "ALTER TABLE whole REPLICA IDENTITY FULL",
		"CREATE TABLE listed (id int PRIMARY KEY, a text, ssn text)",
		"CREATE TABLE keyless (id int, ssn text)", "ALTER TABLE keyless REPLICA IDENTITY FULL")
	tables := []string{"t", "whole", "listed", "keyless"}
	for _, name := range tables {
		db.exec("INSERT INTO " + name + " (id, ssn) VALUES (1, '" + secret + "'), (2, '" + secret + "')")
	}
	c := newCapture(t, db, frame.JSON)
	for _, name := range tables {
		c.choose(name, func(r *cdc.Resource) { r.ExcludeColumns = []string{"ssn"} })
	}
	c.choose("listed", func(r *cdc.Resource) { r.ExcludeColumns, r.Columns = nil, []string{"id"} })
	want := map[string][]string{"listed": {`{"id":1}`, `{"id":2}`}}
	for _, name := range []string{"t", "whole"} {
		want[name] = []string{`{"a":null,"id":1}`, `{"a":null,"id":2}`}
	}
	docs := c.untilAll(want)
	for _, name := range tables {
		db.exec("UPDATE "+name+" SET id = 3 WHERE id = 2", "UPDATE "+name+" SET ssn = ssn || 'secret'", "INSERT INTO "+name+" (id, ssn) VALUES (4, 'secret')", "DELETE FROM "+name+" WHERE id = 1")
	}
	for _, name := range []string{"t", "whole"} {
		want[name] = []string{`{"a":null,"id":3}`, `{"a":null,"id":4}`}
	}
	want["listed"] = []string{`{"id":3}`, `{"id":4}`}
	docs = append(docs, c.untilAll(want)...)
	require.NotEmpty(t, docs)
	for _, doc := range docs {
		require.NotContains(t, doc, "secret")
		require.NotContains(t, doc, "ssn")
	}
	require.Len(t, c.schemas, len(tables))
	for _, schemas := range c.schemas {
		require.NotContains(t, strings.Join(schemas, ""), "ssn", "not announced either")
	}
	if db.driver().server.major() >= 15 {
		require.Equal(t, "keyless {id,ssn}\nlisted {id}\nt {id,a}\nwhole {id,a,ssn}",
			db.exec("SELECT tablename || ' ' || attnames::text FROM pg_publication_tables WHERE pubname LIKE 'sluice%' ORDER BY tablename"))
	}
}

// A column that is left out stays so under another name, also when that happens while the capture is stopped.
func TestExcludedColumnRenamed(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, ssn text)", "INSERT INTO t VALUES (1, 'secret')", "CREATE PUBLICATION mine FOR ALL TABLES"+db.viaRoot())
	db.cfg.Advanced.PublicationName = "mine"
	c := newCapture(t, db, frame.JSON)
	c.choose("t", func(r *cdc.Resource) { r.ExcludeColumns = []string{"ssn"} })
	docs := c.until("t", `{"id":1}`)
	db.exec("INSERT INTO t VALUES (2, 'secret')", "ALTER TABLE t RENAME ssn TO social", "INSERT INTO t VALUES (3, 'secret')", "ALTER TABLE t ADD note text", "UPDATE t SET note = 'x', social = 'secret'")
	docs = append(docs, c.until("t", `{"id":1,"note":"x"}`, `{"id":2,"note":"x"}`, `{"id":3,"note":"x"}`)...)
	db.exec("ALTER TABLE t ADD ssn text", "UPDATE t SET ssn = 'secret', note = 'y'", "ALTER TABLE t RENAME social TO again", "UPDATE t SET again = 'secret', note = 'z'")
	docs = append(docs, c.until("t", `{"id":1,"note":"z"}`, `{"id":2,"note":"z"}`, `{"id":3,"note":"z"}`)...)
	require.NotContains(t, strings.Join(docs, "\n"), "secret")
	require.NotContains(t, strings.Join(c.schemas[0], "\n"), "ssn")
	require.NotContains(t, strings.Join(c.schemas[0], "\n"), "social")
	require.NotContains(t, strings.Join(c.schemas[0], "\n"), "again")
	require.Contains(t, strings.Join(c.schemas[0], "\n"), "note")
}

// A column that comes while others are left out is captured, also what was written to it before the publication had it; and
// columns that are no longer left out bring their values by themselves.
func TestSelectionChanges(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.cfg.Advanced.RediscoverEvery = "1s"
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text, ssn text)", "INSERT INTO t SELECT g, 'a', 's' FROM generate_series(1, 3) g")
	c := newCapture(t, db, frame.JSON)
	c.choose("t", func(r *cdc.Resource) { r.ExcludeColumns = []string{"ssn"} })
	c.until("t", `{"a":"a","id":1}`, `{"a":"a","id":2}`, `{"a":"a","id":3}`)
	db.exec("ALTER TABLE t ADD n int", "UPDATE t SET n = id WHERE id < 3")
	third := `{"a":"a","id":3,"n":null}`
	if db.pg.Major() < 15 {
		third = `{"a":"a","id":3}` // without lists of columns the publication has the new one at once, and no row is read again for a null
	}
	c.until("t", `{"a":"a","id":1,"n":1}`, `{"a":"a","id":2,"n":2}`, third)
	require.NotContains(t, strings.Join(c.schemas[0], ""), `"ssn"`)
	clear(c.schemas)
	c.choose("t", func(r *cdc.Resource) { r.ExcludeColumns = []string{"a"} })
	c.until("t", `{"a":"a","id":1,"n":1,"ssn":"s"}`, `{"a":"a","id":2,"n":2,"ssn":"s"}`, `{"a":"a","id":3,"n":null,"ssn":"s"}`)
	require.Contains(t, strings.Join(c.schemas[0], ""), `"ssn"`)
	require.NotContains(t, strings.Join(c.schemas[0], ""), `"a"`, "what is left out from now on is not announced again")
	db.exec("UPDATE t SET ssn = 't', a = 'b' WHERE id = 1")
	c.until("t", `{"a":"a","id":1,"n":1,"ssn":"t"}`, `{"a":"a","id":2,"n":2,"ssn":"s"}`, `{"a":"a","id":3,"n":null,"ssn":"s"}`)
	// The owner changes what the log has of old rows: a list of columns would have the server refuse updates.
	db.exec("ALTER TABLE t REPLICA IDENTITY FULL", "INSERT INTO t VALUES (4, 'x', 's')")
	if db.driver().server.major() >= 15 {
		c.run(frame.JSON, func(*session.Transaction) bool {
			return db.exec("SELECT 'a' = ANY (attnames) FROM pg_publication_tables WHERE pubname LIKE 'sluice%'") == "t"
		})
	}
	db.exec("UPDATE t SET a = 'c', n = 7")
	c.until("t", `{"a":"a","id":1,"n":7,"ssn":"t"}`, `{"a":"a","id":2,"n":7,"ssn":"s"}`, `{"a":"a","id":3,"n":7,"ssn":"s"}`, `{"id":4,"n":7,"ssn":"s"}`)
}

// What advanced.lossless writes in another form than before is read again, so that a collection has one form; other tables go on,
// and so does the next session.
func TestLosslessChanges(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, at timestamptz, j json, a int[])", `INSERT INTO t VALUES (1, 'infinity', '{"a": 1}', '[0:0]={7}'), (2, '2026-01-01Z', NULL, NULL)`,
		"CREATE TABLE k (at timestamptz PRIMARY KEY, n int)", "INSERT INTO k VALUES ('2026-01-01Z', 1)", "CREATE TABLE other (id int PRIMARY KEY, n numeric)", "INSERT INTO other VALUES (1, 1)")
	c := newCapture(t, db, frame.JSON)
	second := `{"a":null,"at":"2026-01-01T00:00:00Z","id":2,"j":null}`
	c.untilAll(map[string][]string{
		"t": {`{"a":[7],"at":"9999-12-31T23:59:59Z","id":1,"j":{"a":1}}`, second},
		"k": {`{"at":"2026-01-01T00:00:00Z","n":1}`}, "other": {`{"id":1,"n":"1"}`},
	})
	c.advanced("lossless", []string{losslessTimes, losslessArrays})
	docs := c.until("t", `{"a":"[0:0]={7}","at":"infinity","id":1,"j":{"a":1}}`, second)
	require.Len(t, docs, 2, "the rows of this table, and of no other")
	db.exec("UPDATE t SET at = '-infinity' WHERE id = 1", "ALTER TABLE t ADD n int", "UPDATE t SET n = 2 WHERE id = 2")
	second = `{"a":null,"at":"2026-01-01T00:00:00Z","id":2,"j":null,"n":2}`
	require.Len(t, c.until("t", `{"a":"[0:0]={7}","at":"-infinity","id":1,"j":{"a":1}}`, second), 2, "what the log describes has the form too")
	db.exec("UPDATE t SET n = 1 WHERE id = 1")
	require.Len(t, c.until("t", `{"a":"[0:0]={7}","at":"-infinity","id":1,"j":{"a":1},"n":1}`, second), 1, "nothing is read again")
	c.advanced("lossless", []string{losslessJSON})
	c.until("t", `{"a":[7],"at":"0001-01-01T00:00:00Z","id":1,"j":"{\"a\": 1}","n":1}`, second)
}

// A filter leaves rows out of the backfill, by any kind of scan, and nothing out of the log.
func TestBackfillFilter(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, n int)", "INSERT INTO t SELECT g, g % 10 FROM generate_series(1, 1000) g", "ANALYZE t",
		"CREATE TABLE big (id text PRIMARY KEY, n int, big text)", "ALTER TABLE big ALTER big SET STORAGE EXTERNAL",
		"INSERT INTO big SELECT g, g % 10, repeat('x', 3000) FROM generate_series(1, 100) g", "ANALYZE big")
	d := db.driver()
	for _, table := range db.tables(d, "big", "t") {
		whole := *table
		table.Selection.Filter = "n = 3 OR n = 4 -- or so"
		rows, keys := db.scanAll(d, table, 7)
		want := map[string]int{"t": 200, "big": 20}[table.ID.Name]
		require.Len(t, rows, want)
		slices.Sort(rows)
		require.Len(t, slices.Compact(rows), want)
		whole.Selection.Filter = "false"
		rows, _ = db.scanAll(d, &whole, 7)
		require.Empty(t, rows)
		require.Len(t, db.scanKeys(d, &whole, keys), want, "rows that the log could not complete are read whatever the filter")
	}
	s := db.open(d, db.tables(d, "t")...)
	db.exec("UPDATE t SET n = 0 WHERE id = 1")
	require.Equal(t, []string{`u t {"id":1,"n":0}`}, s.fence())
}

// What is wrong with a selection is said by the check, and by the scan that would use it.
func TestSelectionErrors(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, n int)", "CREATE TABLE other (id int PRIMARY KEY)")
	c := newCapture(t, db, frame.JSON)
	for _, bad := range []struct{ filter, want string }{
		{"n >", `syntax error at or near ")". It was: n >`},
		{"m = 1", `column "m" does not exist. It was: m = 1`},
		{"n", `argument of WHERE must be type boolean, not type integer. It was: n`},
		{"true; DROP TABLE t", `syntax error at or near ";". It was: true; DROP TABLE t`},
		{"true) OR (true", `syntax error at or near ")". It was: true) OR (true`},
		{"true) UNION SELECT FROM other WHERE (true", `syntax error at or near ")". It was: true) UNION SELECT FROM other WHERE (true`},
		{"true])[1] OR (ARRAY[true", `syntax error at or near "]". It was: true])[1] OR (ARRAY[true`},
		{"true /* and", `unterminated /* comment at or near "/* and`},
		{"n = $1", `has parameters such as $1; write the values. It was: n = $1`},
		{"count(*) > 1", `aggregate functions are not allowed in WHERE. It was: count(*) > 1`},
	} {
		c.choose("t", func(r *cdc.Resource) { r.BackfillFilter = bad.filter })
		err := c.check(db.cfg)
		require.Error(t, err, bad.filter)
		require.Contains(t, err.Error(), "The backfillFilter of table public.t ")
		require.Contains(t, err.Error(), bad.want)
	}
	err := c.fails(frame.JSON)
	require.ErrorContains(t, err, "The backfillFilter of table public.t is not a condition that the server understands: aggregate functions")
	c.choose("t", func(r *cdc.Resource) {
		r.BackfillFilter, r.ExcludeColumns, r.Columns = "", []string{"id", "nn"}, []string{"n"}
	})
	require.EqualError(t, c.check(db.cfg), `1. Table public.t has no column "nn", which excludeColumns names. Its columns are: id, n.
2. The column "id" is part of the key of table public.t, by which its documents are told apart, so it cannot be left out. Take it out of excludeColumns, or add it to columns.`)
	require.Equal(t, "t", db.exec("SELECT to_regclass('t')"))
}

// check validates the capture's resources.
func (c *captured) check(cfg config) error {
	c.t.Helper()
	checker, ok := cdc.New(spec(), connect).(capture.Checker[config, cdc.Resource])
	require.True(c.t, ok)
	var resources []cdc.Resource
	for _, b := range c.spec.Bindings {
		var r cdc.Resource
		require.NoError(c.t, json.Unmarshal(b.ResourceConfigJson, &r))
		resources = append(resources, r)
	}
	return checker.Check(c.t.Context(), testEnv(c.t), cfg, resources)
}
