package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// newDatabaseFrom makes a database on a server of this version or newer.
func newDatabaseFrom(t *testing.T, major int) *database {
	t.Helper()
	if db := newDatabase(t); db.driver().server.major() >= major {
		return db
	}
	return databaseOn(t, server.Postgres(t, server.WithAtLeast(major)))
}

// A publication that the user made sends some rows and some columns: the backfill brings the same. An update that moves a
// row across the filter is an insert or a delete, also where the log leaves out an unchanged value of the row that appears.
func TestPublicationWithFilterAndList(t *testing.T) {
	t.Parallel()
	db := newDatabaseFrom(t, 15)
	big := strings.Repeat("x", 3000)
	db.cfg.Advanced.PublicationName, db.cfg.Advanced.RediscoverEvery = "mine", "1s"
	db.exec("CREATE TABLE f (id int PRIMARY KEY, region text)", "ALTER TABLE f REPLICA IDENTITY FULL",
		"INSERT INTO f VALUES (1, 'eu'), (2, 'us'), (3, 'eu'), (4, NULL)",
		"CREATE TABLE k (id int PRIMARY KEY, big text)", "ALTER TABLE k ALTER big SET STORAGE EXTERNAL",
		"INSERT INTO k VALUES (1, '"+big+"'), (2, '"+big+"'), (4, '4')",
		"CREATE TABLE l (id int PRIMARY KEY, a text, secret text)", "INSERT INTO l VALUES (1, 'a', 'secret')",
		"CREATE PUBLICATION mine FOR TABLE f WHERE (region = 'eu'), k WHERE (id % 2 = 0), l (id, a)")
	c := newCapture(t, db, frame.JSON)
	docs := c.untilAll(map[string][]string{
		"f": {`{"id":1,"region":"eu"}`, `{"id":3,"region":"eu"}`}, "l": {`{"a":"a","id":1}`},
		"k": {`{"big":"` + big + `","id":2}`, `{"big":"4","id":4}`},
	})
	db.exec("UPDATE f SET region = 'us' WHERE id = 1", "UPDATE f SET region = 'eu' WHERE id = 2", "DELETE FROM f WHERE id = 4",
		"UPDATE k SET id = 10 WHERE id = 1", "UPDATE k SET id = 5 WHERE id = 4", "UPDATE l SET a = 'b', secret = 'secret'", "INSERT INTO l VALUES (2, 'c', 'secret')")
	docs = append(docs, c.untilAll(map[string][]string{
		"f": {`{"id":2,"region":"eu"}`, `{"id":3,"region":"eu"}`}, "l": {`{"a":"b","id":1}`, `{"a":"c","id":2}`},
		"k": {`{"big":"` + big + `","id":2}`, `{"big":"` + big + `","id":10}`},
	})...)
	require.NotContains(t, strings.Join(docs, "\n"), "secret")

	// The administrator lets more of it out: the capture notices, and reads the table again.
	db.exec("ALTER PUBLICATION mine SET TABLE f WHERE (region IN ('eu', 'us')), k WHERE (id % 2 = 0), l (id, a)")
	c.untilAll(map[string][]string{"f": {`{"id":1,"region":"us"}`, `{"id":2,"region":"eu"}`, `{"id":3,"region":"eu"}`}})
}

// Within one publication a schema that has the table outdoes a filter of the table.
func TestPublicationOfSchemaAndTable(t *testing.T) {
	t.Parallel()
	db := newDatabaseFrom(t, 15)
	db.cfg.Advanced.PublicationName = "mine"
	db.exec("CREATE TABLE f (id int PRIMARY KEY)", "INSERT INTO f VALUES (1), (2)", "CREATE PUBLICATION mine FOR TABLE f WHERE (id = 1), TABLES IN SCHEMA public")
	c := newCapture(t, db, frame.JSON)
	c.until("f", `{"id":1}`, `{"id":2}`)
	db.exec("INSERT INTO f VALUES (3)")
	c.until("f", `{"id":1}`, `{"id":2}`, `{"id":3}`)
}

// Generated columns come the same both ways: where the publication sends them (Postgres 18, stored ones only), and not at
// all elsewhere.
func TestGeneratedColumns(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	major := db.driver().server.major()
	virtual, stored := "", `,"s":2`
	if major >= 18 {
		virtual = ", v int GENERATED ALWAYS AS (n * 3) VIRTUAL"
	} else {
		stored = ""
	}
	db.exec("CREATE TABLE t (id int PRIMARY KEY, n int, s int GENERATED ALWAYS AS (n + n) STORED"+virtual+")", "INSERT INTO t VALUES (1, 1)")
	c := newCapture(t, db, frame.JSON)
	c.until("t", `{"id":1,"n":1`+stored+`}`)
	db.exec("INSERT INTO t VALUES (2, 1)", "UPDATE t SET n = 7", "UPDATE t SET n = 1")
	c.until("t", `{"id":1,"n":1`+stored+`}`, `{"id":2,"n":1`+stored+`}`)
	if major < 18 {
		return
	}
	for options, want := range map[string]string{
		"TABLE g": "id n", "TABLE g (id, s)": "id s", "TABLE g WITH (publish_generated_columns = stored)": "id n s", "ALL TABLES": "id n",
	} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			db.cfg.Advanced.PublicationName = "mine"
			db.exec("CREATE TABLE g (id int PRIMARY KEY, n int, s int GENERATED ALWAYS AS (n + n) STORED, v int GENERATED ALWAYS AS (n * 3) VIRTUAL)",
				"INSERT INTO g VALUES (1, 1)", "CREATE PUBLICATION mine FOR "+options)
			d := db.driver()
			table := db.tables(d, "g")[0]
			var names []string
			for _, c := range table.Columns {
				names = append(names, c.Name)
			}
			require.Equal(t, want, strings.Join(names, " "))
			s := db.open(d, table)
			rows, _ := db.scanAll(d, table, 10)
			db.exec("UPDATE g SET n = 1")
			require.Equal(t, []string{"u g " + rows[0]}, s.fence(), "and no change of shape")
		})
	}
}

// What a publication leaves out would be missing without a word: it is refused, and not only by the check.
func TestPublicationOptions(t *testing.T) {
	t.Parallel()
	db := newDatabaseFrom(t, 13)
	db.exec("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id)", "CREATE TABLE plain (id int PRIMARY KEY)", "CREATE PUBLICATION mine FOR TABLE p, plain")
	d := db.driver(func(c *config) { c.Advanced.PublicationName = "mine" })
	want := `The publication "mine" sends changes of public.p under the names of its partitions. Have its owner run: ALTER PUBLICATION "mine" SET (publish_via_partition_root = true);`
	require.Equal(t, []string{want}, checkMessages(t, d, "p"))
	require.Empty(t, checkMessages(t, d, "plain"))
	_, err := d.Stream(t.Context(), cdc.Position{}, db.tables(d, "p", "plain"))
	require.Equal(t, want, usererr.Message(err))
	db.exec(`ALTER PUBLICATION "mine" SET (publish_via_partition_root = true)`, "ALTER PUBLICATION mine SET (publish = 'insert, update, delete')")
	require.Empty(t, checkMessages(t, d, "p"))
	d.cfg.Advanced.OnTruncate = "backfill"
	want = `The publication "mine" leaves out truncations, which onTruncate is about. Have its owner run: ALTER PUBLICATION "mine" SET (publish = 'insert, update, delete, truncate');`
	require.Equal(t, []string{want}, checkMessages(t, d, "p"))
	_, err = d.Stream(t.Context(), cdc.Position{}, db.tables(d, "plain"))
	require.Equal(t, want, usererr.Message(err))
	db.exec("ALTER PUBLICATION mine SET (publish = 'insert')")
	_, err = d.Stream(t.Context(), cdc.Position{}, db.tables(d, "plain"))
	require.ErrorContains(t, err, `The publication "mine" leaves out some kinds of changes.`)
}

// What is taken out of a publication while the capture runs is noticed: the table is published and read again, or the
// capture ends with what is lacking, and makes up for it later.
func TestPublicationChangedMeanwhile(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.cfg.Advanced.RediscoverEvery = "1s"
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t VALUES (1, 'a')")
	c := newCapture(t, db, frame.JSON)
	c.until("t", `{"a":"a","id":1}`)
	name := db.exec("SELECT pubname FROM pg_publication")
	db.exec("ALTER PUBLICATION "+name+" DROP TABLE t", "UPDATE t SET a = 'b'", "INSERT INTO t VALUES (2, 'c')")
	c.until("t", `{"a":"b","id":1}`, `{"a":"c","id":2}`)
	db.exec("ALTER PUBLICATION "+name+" SET (publish = 'insert')", "UPDATE t SET a = 'd'")
	require.ErrorContains(t, c.fails(frame.JSON), "leaves out some kinds of changes")
	db.exec("UPDATE t SET a = 'e'", "ALTER PUBLICATION "+name+" SET (publish = 'insert, update, delete, truncate')")
	c.until("t", `{"a":"e","id":1}`, `{"a":"e","id":2}`)
	s := session.Start(t, connector(), frame.JSON)
	s.Open(c.spec, c.state)
	_, err := s.Transaction()
	require.NoError(t, err)
	db.exec("ALTER PUBLICATION "+name+" SET (publish = 'insert')", "UPDATE t SET a = 'f'")
	for err == nil {
		var tx *session.Transaction
		if tx, err = s.Transaction(); err == nil {
			c.commit(tx)
			s.Ack(1)
		}
	}
	require.ErrorContains(t, s.Wait(), "leaves out some kinds of changes")
	db.exec("ALTER PUBLICATION " + name + " SET (publish = 'insert, update, delete, truncate')")
	c.until("t", `{"a":"f","id":1}`, `{"a":"f","id":2}`)
}
