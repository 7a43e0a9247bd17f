package main

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// The stream tells what happens to tables, in the order of the log.
func TestShapes(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(5), w INT)", "CREATE TABLE b (id INT PRIMARY KEY)", "CREATE TABLE other (id INT PRIMARY KEY)")
		d := db.driver()
		s := db.open(d, db.tables(d, "a", "b")...)
		for _, step := range []struct{ sql, want []string }{
			{[]string{"INSERT INTO a VALUES (1, 'x', 2)", "UPDATE a SET v = NULL", "DELETE FROM a", "INSERT INTO other VALUES (1)"}, []string{
				`c a {"id":1,"v":"x","w":2}`, `u a {"id":1,"v":null,"w":2} before {"id":1,"v":"x","w":2}`, `d a before {"id":1,"v":null,"w":2}`,
			}},
			{[]string{"ALTER TABLE a ADD COLUMN n INT, MODIFY v VARCHAR(50)", "INSERT INTO a VALUES (2, 'y', 3, 4)"}, []string{
				`shape a (id int, v varchar(5) utf8mb4, w int) rescan false look`,
				`shape a (id int, v varchar(50) utf8mb4, w int, n int) rescan false`, `c a {"id":2,"n":4,"v":"y","w":3}`,
			}},
			{[]string{"ALTER TABLE a ADD COLUMN f INT DEFAULT 1", "INSERT INTO a VALUES (3, 'y', 3, 4, 5)"}, []string{
				`shape a (id int, v varchar(50) utf8mb4, w int, n int) rescan false look`,
				`shape a (id int, v varchar(50) utf8mb4, w int, n int, f int) rescan true`, `c a {"f":5,"id":3,"n":4,"v":"y","w":3}`,
			}},
			{[]string{"ALTER TABLE a DROP COLUMN w /* not b */, DROP COLUMN f", "INSERT INTO a VALUES (4, 'z', 5)"}, []string{
				`shape a (id int, v varchar(50) utf8mb4, n int) rescan false look`, `c a {"id":4,"n":5,"v":"z"}`,
			}},
			{[]string{"ALTER TABLE a RENAME COLUMN v TO n, RENAME COLUMN n TO v", "INSERT INTO a VALUES (5, 'z', 5)"}, []string{
				`shape a (id int, v varchar(50) utf8mb4, n int) rescan true look`,
				`shape a (id int, n varchar(50) utf8mb4, v int) rescan true`, `c a {"id":5,"n":"z","v":5}`,
			}},
			{[]string{"TRUNCATE TABLE b", "CREATE INDEX i ON a (v)", "RENAME TABLE b TO c", "DROP TABLE IF EXISTS nothing, a"}, []string{
				`truncate b`, `drop b: The table ` + db.name + `.b was renamed to ` + db.name + `.c.`, `drop a: The table ` + db.name + `.a was dropped.`,
			}},
			{[]string{"RENAME TABLE c TO b", "INSERT INTO b VALUES (7)"}, []string{`shape b (id int) rescan true`, `c b {"id":7}`}},
		} {
			db.exec(step.sql...)
			require.Equal(t, step.want, s.fence(), step.sql[0])
		}
	})
}

// What sessions may change about the log of their own transactions (hard cases 36 to 38, 50 and 52).
func TestSessionsWithOtherLogs(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		for _, c := range []struct {
			name, flavor string
			sql          []string
			want         string // of the event, or of the error
			fails        bool
		}{
			{"compressed transaction", mysqld.MySQL, []string{"SET binlog_transaction_compression = ON", "INSERT INTO a VALUES (1, REPEAT('x', 300))"}, `c a {"id":1,"v":"` + strings.Repeat("x", 300) + `"}`, false},
			{"statements", "", []string{"SET binlog_format = STATEMENT", "INSERT INTO a VALUES (1, 'x')"}, "has a change of table|.a as a statement", true},
			{"a file", "", []string{"INSERT INTO j VALUES (1, '{}')", "SELECT * FROM j INTO OUTFILE 'rows'", "SET binlog_format = STATEMENT", "LOAD DATA INFILE 'rows' INTO TABLE a"}, "has a change of table|.a as a statement", true},
			{"a file for another database", "", []string{"CREATE DATABASE IF NOT EXISTS elsewhere", "CREATE TABLE elsewhere.a (id INT)", "SELECT 1 INTO OUTFILE 'rows'", "SET binlog_format = STATEMENT", "LOAD DATA INFILE 'rows' INTO TABLE elsewhere.a", "SET binlog_format = ROW", "DROP DATABASE elsewhere", "INSERT INTO a VALUES (1, 'x')"}, `c a {"id":1,"v":"x"}`, false},
			{"partial JSON of others", mysqld.MySQL, []string{"CREATE TABLE other (id INT PRIMARY KEY, v JSON)", `INSERT INTO other VALUES (1, '{"a": "long enough to be worth a part", "b": 1}')`, "SET binlog_row_value_options = PARTIAL_JSON", "UPDATE other SET v = JSON_SET(v, '$.b', 2)", "INSERT INTO a VALUES (1, 'x')"}, `c a {"id":1,"v":"x"}`, false},
		} {
			if c.flavor != "" && c.flavor != flavor {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				db := newDatabase(t, flavor)
				db.exec("CREATE TABLE a (id INT PRIMARY KEY, v TEXT)", "CREATE TABLE j (id INT PRIMARY KEY, v JSON)")
				d := db.driver()
				s := db.open(d, db.tables(d, "a", "j")...)
				db.exec(c.sql...)
				var events []string
				err := s.each(func(ev *cdc.Event) { events = append(events, s.text(ev)) })
				if !c.fails {
					require.NoError(t, err)
					require.Equal(t, []string{c.want}, events)
					return
				}
				require.Error(t, err)
				for part := range strings.SplitSeq(strings.TrimPrefix(c.want, "have "), "|") {
					require.Contains(t, err.Error(), part)
				}
			})
		}
	})
}

// A capture goes on exactly behind the last commit, and a transaction is delivered whole.
func TestResume(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY)")
		d := db.driver()
		tables := db.tables(d, "a")
		s := db.open(d, tables...)
		db.exec("BEGIN", "INSERT INTO a VALUES (1), (2)", "INSERT INTO a VALUES (3)", "COMMIT")
		require.Equal(t, []string{`c a {"id":1}`, `c a {"id":2}`, `c a {"id":3}`}, s.fence())
		require.NotEmpty(t, s.cursor)
		db.exec("INSERT INTO a VALUES (4)")
		require.Equal(t, []string{`c a {"id":4}`}, s.fence())
		after := cdc.Position{Cursor: s.cursor, Identity: s.Start().Identity}
		s.close()
		db.exec("INSERT INTO a VALUES (5)")
		again := db.resume(d, after, tables...)
		require.Equal(t, []string{`c a {"id":5}`}, again.fence())
		require.Empty(t, again.fence())
	})
}

// Positions that a server cannot continue from are named (hard cases 33, 34 and 54).
func TestLostPositions(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		own := server.MySQL(t, flavor, map[string]string{"log-bin": "binlog"})
		db := databaseOn(t, own)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY)", "INSERT INTO a VALUES (0)")
		d := db.driver()
		tables := db.tables(d, "a")
		s := db.open(d, tables...)
		start := s.Start()
		db.exec("INSERT INTO a VALUES (1)", "FLUSH BINARY LOGS", "INSERT INTO a VALUES (2)", "FLUSH BINARY LOGS", "INSERT INTO a VALUES (3)")
		require.Equal(t, []string{`c a {"id":1}`, `c a {"id":2}`, `c a {"id":3}`}, s.fence(), "the stream follows from file to file")
		end := cdc.Position{Cursor: s.cursor, Identity: start.Identity}
		s.close()
		eventuallyPurged(t, db)

		_, err := d.Stream(t.Context(), start, tables)
		require.ErrorIs(t, err, cdc.ErrPositionLost)
		require.Contains(t, err.Error(), "has thrown away a part of its binary log that was not captured yet: the transactions")
		again := db.resume(d, end, tables...)
		require.Empty(t, again.fence())
		again.close()

		other := newDatabase(t, flavor)
		od := other.driver()
		_, err = od.Stream(t.Context(), end, nil)
		require.Error(t, err)
		require.NotErrorIs(t, err, cdc.ErrPositionLost, "it is another server")
		require.Contains(t, err.Error(), "is not the one that was captured, nor a replica of it")
		db.exec(map[string]string{mysqld.MySQL: "RESET BINARY LOGS AND GTIDS", mysqld.MariaDB: "RESET MASTER"}[flavor], "INSERT INTO a VALUES (4)")
		d.behindPatience = 300 * time.Millisecond
		_, err = d.Stream(t.Context(), end, tables)
		require.ErrorContains(t, err, "lacks transactions that were captured already")
		require.NotErrorIs(t, err, cdc.ErrPositionLost)
	})
}

// eventuallyPurged has the server throw away all files but the last one, as soon as it lets go of them.
func eventuallyPurged(t *testing.T, db *database) {
	t.Helper()
	conn := db.session("")
	require.Eventually(t, func() bool {
		files, err := conn.texts(t.Context(), "SHOW BINARY LOGS")
		require.NoError(t, err)
		require.NoError(t, conn.exec(t.Context(), "PURGE BINARY LOGS TO '"+files[len(files)-1][0]+"'"))
		return len(files) == 1
	}, patience, 50*time.Millisecond)
}

// MariaDB compresses events by itself, each on its own, if it is told to (hard case 36).
func TestCompressedEvents(t *testing.T) {
	t.Parallel()
	db := databaseOn(t, server.MySQL(t, mysqld.MariaDB, map[string]string{"log-bin-compress": "ON", "log-bin-compress-min-len": "10"}))
	long := strings.Repeat("long and dull ", 1000)
	db.exec("CREATE TABLE a (id INT PRIMARY KEY, v TEXT)")
	d := db.driver()
	s := db.open(d, db.tables(d, "a")...)
	db.exec("INSERT INTO a VALUES (1, '"+long+"'), (2, 'x')", "UPDATE a SET v = 'y' WHERE id = 1", "DELETE FROM a WHERE id = 1", "SET binlog_row_image = MINIMAL", "UPDATE a SET v = '"+long+"'",
		"ALTER TABLE a ADD COLUMN "+strings.Repeat("n", 60)+" INT COMMENT 'a statement that is long enough to be compressed, too'")
	require.Equal(t, []string{
		`c a {"id":1,"v":"` + long + `"}`, `c a {"id":2,"v":"x"}`, `u a {"id":1,"v":"y"} before {"id":1,"v":"` + long + `"}`, `d a before {"id":1,"v":"y"}`,
		`u a {"id":2,"v":"` + long + `"} before {"id":2}`, `shape a (id int, v text utf8mb4) rescan false look`,
	}, s.fence())
}

// A transaction that was compressed as a whole is read event by event: what is held does not grow with it.
func TestCompressedTransaction(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, mysqld.MySQL)
	db.exec("CREATE TABLE a (id BIGINT PRIMARY KEY, v VARCHAR(500))")
	d := db.driver()
	s := db.open(d, db.tables(d, "a")...)
	const rows = 1 << 16
	sql := []string{"SET binlog_transaction_compression = ON, cte_max_recursion_depth = 1000000", "BEGIN"}
	sql = append(sql, "INSERT INTO a WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "+strconv.Itoa(rows)+") SELECT i, REPEAT('v', 500) FROM n", "UPDATE a SET v = 'w' WHERE id = 7", "COMMIT")
	db.exec(sql...)
	var before, peak runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n := 0
	require.NoError(t, s.each(func(ev *cdc.Event) {
		if n++; n == rows/2 {
			runtime.GC()
			runtime.ReadMemStats(&peak)
		}
	}))
	require.Equal(t, rows+1, n)
	// 36 MB of rows. Other tests share the heap, so the bound is not tight.
	require.Less(t, peak.HeapAlloc, before.HeapAlloc+24<<20)
}
