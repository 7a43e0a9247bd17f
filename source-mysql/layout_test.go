package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// plainServers are servers as they come: their logs do not name the columns of rows, MariaDB's not even which numbers have a sign.
// They end with the process, because no test knows that it is the last one.
var plainServers struct {
	mysql, mariadb struct {
		once   sync.Once
		server *mysqld.Server
		err    error
	}
}

func plainDatabase(t testing.TB, flavor string) *database {
	t.Helper()
	if testing.Short() {
		t.Skip("it needs a server")
	}
	p := &plainServers.mysql
	metadata := "MINIMAL"
	if flavor == mysqld.MariaDB {
		p, metadata = &plainServers.mariadb, "NO_LOG"
	}
	p.once.Do(func() {
		p.server, p.err = mysqld.Start(context.Background(), mysqld.Options{Flavor: flavor, Settings: map[string]string{"binlog-row-metadata": metadata}})
	})
	if errors.Is(p.err, mysqld.ErrNotInstalled) {
		need.Missing(t, "%s is not on this machine; scripts/services install fetches it", flavor)
	}
	require.NoError(t, p.err)
	return databaseOn(t, &server.MySQLServer{Server: p.server})
}

// What a layout says of a table agrees with what the log does, for every type, and survives being stored.
func TestTypesByPlace(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) { testTypes(t, plainDatabase(t, flavor), flavor) })
}

func TestStoredTypes(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"tinyint", "int unsigned", "bigint unsigned", "decimal(65,30)", "bit(64)", "year", "float", "double", "char(5) utf8mb4", "varchar(20) latin1", "mediumtext ucs2",
		"binary(4)", "varbinary(10)", "longblob", "enum('a','it''s (x) y','') utf8mb4", "set('a,b','c d') latin1", "date", "datetime(3)", "timestamp", "time(6)", "json",
		"geometry", "vector", "uuid", "inet4", "inet6",
	} {
		typ, err := parseType(text)
		require.NoError(t, err, text)
		require.Equal(t, text, typ.text())
	}
	l := layout{{Name: "a", Type: "enum('x','y') utf8mb4", Nullable: true}, {Name: "DB_ROW_HASH_1", Type: "bigint unsigned", Own: true}}
	again, err := parseLayout(l.encode())
	require.NoError(t, err)
	require.Equal(t, l.encode(), again.encode())
	require.Equal(t, []string{"x", "y"}, again[0].typ.members)
	for _, text := range []string{"[{", `[{"n":"a","t":"no such type"}]`} {
		_, err = parseLayout(text)
		require.ErrorContains(t, err, "reading a stored layout")
	}
}

// A change of shape is followed by a log that does not name columns as it is by one that does, as long as the catalog is not
// ahead by another one.
func TestShapesByPlace(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := plainDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(5), w INT, x INT)", "CREATE TABLE other (id INT PRIMARY KEY)")
		d := db.driver()
		s := db.open(d, db.tables(d, "a")...)
		const before, after = "id int, v varchar(5) utf8mb4, w int, x int", "id int, v varchar(5) utf8mb4, x int, w int"
		for _, step := range []struct{ sql, want []string }{
			{[]string{"INSERT INTO a VALUES (1, 'x', 2, 3)", "UPDATE a SET v = NULL", "INSERT INTO other VALUES (1)"}, []string{
				"shape a (" + before + ") rescan false", `c a {"id":1,"v":"x","w":2,"x":3}`, `u a {"id":1,"v":null,"w":2,"x":3} before {"id":1,"v":"x","w":2,"x":3}`,
			}},
			{[]string{"ALTER TABLE a RENAME COLUMN w TO x, RENAME COLUMN x TO w", "UPDATE a SET v = 'y'"}, []string{ // as long as before, and of the same types
				"shape a (" + before + ") rescan true look", "shape a (" + after + ") rescan true", `u a {"id":1,"v":"y","w":3,"x":2} before {"id":1,"v":null,"w":3,"x":2}`,
			}},
			{[]string{"ALTER TABLE a MODIFY x INT AFTER id", "UPDATE a SET v = 'z'"}, []string{
				"shape a (" + after + ") rescan false look", "shape a (id int, x int, v varchar(5) utf8mb4, w int) rescan true",
				`u a {"id":1,"v":"z","w":3,"x":2} before {"id":1,"v":"y","w":3,"x":2}`,
			}},
			{[]string{"ALTER TABLE a COMMENT 'nothing', ENGINE = InnoDB", "DELETE FROM a"}, []string{`d a before {"id":1,"v":"z","w":3,"x":2}`}},
			{[]string{"ALTER TABLE a DROP COLUMN v", "ALTER TABLE a ADD COLUMN u TINYINT UNSIGNED", "INSERT INTO a VALUES (4, 5, 6, 255)"}, []string{
				"shape a (id int, x int, w int) rescan false look", "shape a (id int, x int, w int) rescan false look",
				"shape a (id int, x int, w int, u tinyint unsigned) rescan false", `c a {"id":4,"u":255,"w":6,"x":5}`,
			}},
			{[]string{"CREATE TABLE _a_new (w INT, id INT PRIMARY KEY)", "INSERT INTO _a_new VALUES (1, 2)", "RENAME TABLE a TO _a_old, _a_new TO a", "UPDATE a SET w = 3"}, []string{
				"shape a (w int, id int) rescan true",
				"shape a (w int, id int) rescan false", `u a {"id":2,"w":3} before {"id":2,"w":1}`,
			}},
		} {
			db.exec(step.sql...)
			require.Equal(t, step.want, s.fence(), step.sql[0])
		}
	})
}

// While a capture is down a table is altered, so that its rows look the same to the log but are not.
func TestAlteredWhileDown(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := plainDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT, w INT)", "CREATE TABLE b (id INT PRIMARY KEY, v INT, w INT)")
		d := db.driver()
		tables := db.tables(d, "a", "b")
		s := db.open(d, tables...)
		db.exec("INSERT INTO a VALUES (1, 10, 20)", "INSERT INTO b VALUES (1, 10, 20)")
		known := s.shapes(tables)
		stopped := cdc.Position{Cursor: s.cursor, Identity: s.Start().Identity}
		s.close()
		const swap = " RENAME COLUMN v TO w, RENAME COLUMN w TO v"
		db.exec("INSERT INTO a VALUES (2, 10, 20)", "ALTER TABLE a"+swap, "INSERT INTO a VALUES (3, 20, 10)",
			"INSERT INTO b VALUES (2, 10, 20)", "ALTER TABLE b"+swap+", COMMENT 'a\\\\b'", "INSERT INTO b VALUES (3, 20, 10)", "ALTER TABLE b"+swap, "INSERT INTO b VALUES (4, 10, 20)", "DELETE FROM b WHERE id = 1")
		const shape = " (id int, v int, w int) rescan "
		want := []string{
			`c a {"id":2,"v":10,"w":20}`, "shape a" + shape + "true look", "shape a (id int, w int, v int) rescan true", `c a {"id":3,"v":10,"w":20}`,
			// What b was like between its two changes nobody knows: the first is not understood. Everything else is certain.
			`c b {"id":2,"v":10,"w":20}`, "shape b" + shape + "true look", "shape b" + shape + "false", "shape b" + shape + "true look", "shape b" + shape + "true look",
			"shape b" + shape + "false", `c b {"id":4,"v":10,"w":20}`, `d b before {"id":1,"v":10,"w":20}`,
		}
		again := db.resume(d, stopped, known...)
		require.Equal(t, want, again.fence())

		// Where statements are understood, and explain what the catalog says, nothing is left out.
		at := cdc.Position{Cursor: again.cursor, Identity: again.Start().Identity}
		again.close()
		db.exec("ALTER TABLE a"+swap, "UPDATE a SET v = 11 WHERE id = 3", "ALTER TABLE a ADD COLUMN n INT FIRST", "DELETE FROM a WHERE id = 3")
		next := slices.Clone(known)
		swapped := *known[0]
		swapped.Columns = []cdc.Column{known[0].Columns[0], known[0].Columns[2], known[0].Columns[1]}
		l, err := parseLayout(known[0].Layout)
		require.NoError(t, err)
		swapped.Layout = layout{l[0], l[2], l[1]}.encode()
		next[0] = &swapped
		require.Equal(t, []string{
			"shape a (id int, w int, v int) rescan true look", "shape a (id int, v int, w int) rescan true", `u a {"id":3,"v":11,"w":10} before {"id":3,"v":20,"w":10}`,
			"shape a (id int, v int, w int) rescan false look", "shape a (n int, id int, v int, w int) rescan false", `d a before {"id":3,"n":null,"v":11,"w":10}`,
		}, db.resume(d, at, next...).fence())

		// What is owed is still owed after a crash in between.
		owed := slices.Clone(known)
		b := *known[1]
		b.Layout = layoutOwed
		owed[1] = &b
		require.Equal(t, "shape b"+shape+"true look", db.resume(d, stopped, owed...).fence()[0])

		// Nothing makes up for rows that are left out of a table of which only changes are captured.
		unread := slices.Clone(known)
		b = *known[1]
		b.Unread = true
		unread[1] = &b
		err = db.resume(d, stopped, unread...).each(func(*cdc.Event) {})
		require.ErrorContains(t, err, "The table "+db.name+".b was altered more than once since the place in the log where the capture is")
		require.ErrorContains(t, err, "SET GLOBAL binlog_row_metadata = FULL")
		stop := db.driver(func(c *config) { c.Advanced.OnPositionLoss = onLossStop })
		err = db.resume(stop, stopped, known...).each(func(*cdc.Event) {})
		require.ErrorContains(t, err, "or set onPositionLoss to backfill")
	})
}

// shapes reads up to the log's end and gives the tables as the log has told them.
func (s *testStream) shapes(tables []*cdc.Table) []*cdc.Table {
	s.t.Helper()
	out := slices.Clone(tables)
	require.NoError(s.t, s.each(func(ev *cdc.Event) {
		if ev.Op == cdc.Shape {
			i := slices.IndexFunc(out, func(t *cdc.Table) bool { return t.ID == ev.Table })
			out[i] = ev.Shape
		}
	}))
	return out
}

// MariaDB may log an ALTER where it begins, and again where it ends.
func TestAlteredInHalves(t *testing.T) {
	t.Parallel()
	db := plainDatabase(t, mysqld.MariaDB)
	db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)")
	d := db.driver()
	s := db.open(d, db.tables(d, "a")...)
	s.fence()
	db.exec("SET binlog_alter_two_phase = ON", "ALTER TABLE a ADD COLUMN w INT FIRST", "INSERT INTO a VALUES (1, 2, 3)")
	require.Equal(t, []string{
		"shape a (id int, v int) rescan false look", "shape a (w int, id int, v int) rescan false", `c a {"id":2,"v":3,"w":1}`,
	}, s.fence())
}

// A table that was altered without a word in the log is noticed where its rows look otherwise.
func TestAlteredSilently(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := plainDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)")
		d := db.driver()
		s := db.open(d, db.tables(d, "a")...)
		db.exec("INSERT INTO a VALUES (1, 2)")
		require.Equal(t, []string{"shape a (id int, v int) rescan false", `c a {"id":1,"v":2}`}, s.fence())
		db.exec("SET sql_log_bin = 0", "ALTER TABLE a ADD COLUMN w INT FIRST", "SET sql_log_bin = 1", "INSERT INTO a VALUES (3, 4, 5)")
		require.Equal(t, []string{"shape a (w int, id int, v int) rescan true", `c a {"id":4,"v":5,"w":3}`}, s.fence())
		// Also where the catalog is ahead of the rows.
		db.exec("INSERT INTO a VALUES (4, 5, 6)", "SET sql_log_bin = 0", "ALTER TABLE a DROP COLUMN w, ADD COLUMN w BIGINT", "SET sql_log_bin = 1", "INSERT INTO a VALUES (6, 7, 8)")
		require.Equal(t, []string{
			`c a {"id":5,"v":6,"w":4}`, "shape a (id int, v int, w bigint) rescan true", `c a {"id":6,"v":7,"w":8}`,
		}, s.fence())
	})
}

// The server may begin to name columns, and stop doing so, at any time.
func TestMetadataChanges(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		metadata := []string{"MINIMAL", "FULL", "MINIMAL", "FULL"}
		if flavor == mysqld.MariaDB {
			metadata = []string{"NO_LOG", "MINIMAL", "FULL", "NO_LOG", "FULL", "MINIMAL"}
		}
		db := databaseOn(t, server.MySQL(t, flavor, nil))
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(5) CHARACTER SET latin1, u TINYINT UNSIGNED, e ENUM('é', 'x') CHARACTER SET latin1, s INT AS (id + 1) STORED, g INT AS (id + 2) VIRTUAL)")
		if flavor == mysqld.MariaDB {
			db.exec("ALTER TABLE a ADD COLUMN l TEXT UNIQUE", "ALTER TABLE a MODIFY COLUMN u TINYINT UNSIGNED INVISIBLE")
		} else {
			db.exec("ALTER TABLE a ADD COLUMN l TEXT", "CREATE INDEX i ON a ((id * 2))", "ALTER TABLE a MODIFY COLUMN u TINYINT UNSIGNED INVISIBLE")
		}
		if flavor == mysqld.MySQL { // a key that the server has made, and keeps out of the catalog
			db.exec("SET GLOBAL show_gipk_in_create_table_and_information_schema = OFF", "SET sql_generate_invisible_primary_key = ON", "CREATE TABLE gipk (v INT)")
			d := db.driver()
			tables := db.tables(d, "gipk")
			require.Equal(t, []string{"my_row_id"}, tables[0].Key)
			s := db.open(d, tables...)
			db.exec("INSERT INTO gipk VALUES (5)", "UPDATE gipk SET v = 6")
			require.Equal(t, []string{`c gipk {"my_row_id":1,"v":5}`, `u gipk {"my_row_id":1,"v":6} before {"my_row_id":1,"v":5}`}, s.fence())
			rows, _ := db.scanAll(d, tables[0], 1)
			require.Equal(t, []string{`{"my_row_id":1,"v":6}`}, rows)
		}
		d := db.driver()
		s := db.open(d, db.tables(d, "a")...)
		for i, m := range metadata {
			db.exec("SET GLOBAL binlog_row_metadata = "+m, "FLUSH TABLES a", fmt.Sprintf("INSERT INTO a (id, v, u, e) VALUES (%d, 'é', 255, 'é')", i))
			events := s.fence()
			require.Equal(t, fmt.Sprintf(`c a {"e":"é","g":%d,"id":%d,"l":null,"s":%d,"u":255,"v":"é"}`, i+2, i, i+1), events[len(events)-1], m)
			for _, event := range events {
				require.NotContains(t, event, "rescan true", m)
			}
		}
	})
}

// The conformance suite with servers as they come.
func TestConformanceByPlace(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		cdctest.Run(t, cdctest.Backend{
			Open: func(t testing.TB) cdctest.Database { return suiteDatabase{plainDatabase(t, flavor)} },
			Only: []string{"killed at random", "changes of shape", "dropped and created again"},
		})
	})
}

func FuzzLayout(f *testing.F) {
	f.Add(`[{"n":"a","t":"enum('x','y') utf8mb4","null":true}]`)
	f.Add(`[{"n":"a","t":"decimal(5"}]`)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseLayout(text)
		if err != nil || l == nil {
			return
		}
		for _, c := range l {
			require.NotNil(t, c.typ)
			_ = c.typ.text()
		}
		require.False(t, strings.Contains(l.encode(), "\n"))
	})
}
