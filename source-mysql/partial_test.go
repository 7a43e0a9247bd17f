package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// Rows that lack columns, as sessions may log them (hard case 37).
func TestPartialImages(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(5), w INT NOT NULL DEFAULT 7, b TEXT)",
			"CREATE TABLE u (k INT NOT NULL, l INT NOT NULL, v INT, PRIMARY KEY (k, l))", "INSERT INTO a VALUES (1, 'x', 2, 'long')", "INSERT INTO u VALUES (1, 2, 3)")
		d := db.driver()
		tables := db.tables(d, "a", "u")
		s := db.open(d, tables...)
		db.exec("SET binlog_row_image = MINIMAL", "UPDATE a SET v = 'y'", "UPDATE a SET id = 5", "UPDATE u SET l = 9", "UPDATE a SET v = NULL", "DELETE FROM a")
		require.Equal(t, []string{
			`u a {"id":1,"v":"y"} before {"id":1} omitted [w b]`, `u a {"id":5} before {"id":1} omitted [v w b]`,
			`u u {"k":1,"l":9} before {"k":1,"l":2} omitted [v]`, `u a {"id":5,"v":null} before {"id":5} omitted [w b]`, `d a before {"id":5}`,
		}, s.fence())
		db.exec("SET binlog_row_image = NOBLOB", "INSERT INTO a VALUES (1, 'x', 2, 'long')", "UPDATE a SET v = 'z'", "DELETE FROM a")
		require.Equal(t, []string{
			`c a {"b":"long","id":1,"v":"x","w":2}`, `u a {"id":1,"v":"z","w":2} before {"id":1,"v":"x","w":2} omitted [b]`, `d a before {"id":1,"v":"z","w":2}`,
		}, s.fence())
		db.exec("SET binlog_row_image = MINIMAL", "INSERT INTO a (id) VALUES (8)")
		inserted := s.fence()
		require.Len(t, inserted, 1)
		if flavor == mysqld.MySQL { // which leaves out what the statement does
			require.Equal(t, `c a {"id":8} omitted [v w b]`, inserted[0])
		}
		// What is missing is read by key.
		var key []byte
		db.exec("SET binlog_row_image = MINIMAL", "UPDATE a SET v = 'k'")
		require.NoError(t, s.each(func(ev *cdc.Event) {
			var err error
			key, err = ev.Row.AppendKey(nil)
			require.NoError(t, err)
		}))
		require.Equal(t, []string{`{"b":null,"id":8,"v":"k","w":7}`}, db.scanKeys(d, tables[0], [][]byte{key, {0x15, 99}}))
	})
}

// Where the key cannot be told from a row that is not whole, the capture ends.
func TestPartialImagesWithoutKey(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, k INT NOT NULL, v INT, UNIQUE (k))", "INSERT INTO a VALUES (1, 2, 3)")
		d := db.driver()
		table := *db.tables(d, "a")[0]
		table.Key = []string{"k"} // as of a collection that was made when the table had no primary key
		s := db.open(d, &table)
		db.exec("SET binlog_row_image = MINIMAL", "UPDATE a SET v = 4")
		err := s.each(func(*cdc.Event) {})
		require.ErrorContains(t, err, "The log has rows of table "+db.name+".a (at ")
		require.ErrorContains(t, err, `that lack a column of its key, "k"`)
		require.ErrorContains(t, err, "Have an administrator set binlog_row_image to FULL")
	})
}

// imageDatabase is a database whose sessions do not log whole rows.
type imageDatabase struct {
	suiteDatabase
	image string
}

func (x imageDatabase) Exec(t testing.TB, sql string) {
	t.Helper()
	s := x.Connect(t)
	s.Exec(t, sql)
	s.Close(t)
}

func (x imageDatabase) Connect(t testing.TB) cdctest.Session {
	t.Helper()
	s := x.suiteDatabase.Connect(t)
	s.Exec(t, "SET binlog_row_image = "+x.image)
	return s
}

// The conformance suite with rows that lack columns.
func TestConformanceOfPartialImages(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		for image, parts := range map[string][]string{"MINIMAL": {"killed at random", "changes of keys"}, "NOBLOB": {"changes of keys"}} {
			t.Run(image, func(t *testing.T) {
				t.Parallel()
				cdctest.Run(t, cdctest.Backend{
					Open: func(t testing.TB) cdctest.Database {
						return imageDatabase{suiteDatabase{plainDatabase(t, flavor)}, image}
					},
					Only: parts,
				})
			})
		}
	})
}
