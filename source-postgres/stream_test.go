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

func TestStreamOfChanges(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text, big text)", "ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
		"CREATE TABLE whole (id int PRIMARY KEY, a text, big text)", "ALTER TABLE whole ALTER big SET STORAGE EXTERNAL",
		"ALTER TABLE whole REPLICA IDENTITY FULL", "CREATE TABLE other (id int PRIMARY KEY)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t", "whole")...)
	big := strings.Repeat("x", 4000)
	for _, c := range []struct {
		name, sql string
		want      []string
	}{
		{"insert", "INSERT INTO t VALUES (1, 'a', NULL), (2, 'b', 'short')", []string{
			`c t {"a":"a","big":null,"id":1}`, `c t {"a":"b","big":"short","id":2}`,
		}},
		{"update", "UPDATE t SET a = 'c' WHERE id = 1", []string{`u t {"a":"c","big":null,"id":1}`}},
		{"out-of-line value", "UPDATE t SET big = '" + big + "' WHERE id = 1", []string{`u t {"a":"c","big":"` + big + `","id":1}`}},
		{"unchanged out-of-line value", "UPDATE t SET a = 'd' WHERE id = 1", []string{`u t {"a":"d","id":1} omitted [big]`}},
		{"change of key", "UPDATE t SET id = 9 WHERE id = 2", []string{`u t {"a":"b","big":"short","id":9} before {"id":2}`}},
		{"change of key without the out-of-line value", "UPDATE t SET id = 8 WHERE id = 1", []string{`u t {"a":"d","id":8} before {"id":1} omitted [big]`}},
		{"delete", "DELETE FROM t WHERE id = 9", []string{`d t before {"id":9}`}},
		{"identity full: insert", "INSERT INTO whole VALUES (1, 'a', '" + big + "')", []string{`c whole {"a":"a","big":"` + big + `","id":1}`}},
		{"identity full: update", "UPDATE whole SET a = NULL", []string{`u whole {"a":null,"big":"` + big + `","id":1} before {"a":"a","big":"` + big + `","id":1}`}},
		{"identity full: delete", "DELETE FROM whole", []string{`d whole before {"a":null,"big":"` + big + `","id":1}`}},
		{"a table that is not captured", "INSERT INTO other VALUES (1)", nil},
		{"rolled back", "DO $$ BEGIN INSERT INTO t VALUES (5); RAISE 'no'; EXCEPTION WHEN OTHERS THEN NULL; END $$", nil},
		{"subtransaction", "DO $$ BEGIN INSERT INTO t VALUES (5); BEGIN INSERT INTO t VALUES (6); EXCEPTION WHEN OTHERS THEN NULL; END; END $$", []string{
			`c t {"a":null,"big":null,"id":5}`, `c t {"a":null,"big":null,"id":6}`,
		}},
		{"truncate", "TRUNCATE t, whole", []string{`truncate t`, `truncate whole`}},
		{"another search path and quotes", `DO $$ BEGIN PERFORM set_config('search_path', '', false); INSERT INTO public.t VALUES (7, '"\'); END $$`, []string{`c t {"a":"\"\\","big":null,"id":7}`}},
	} {
		db.exec(c.sql)
		require.Equal(t, c.want, s.fence(), c.name)
	}
}

func TestSourceOfDocuments(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(`CREATE TABLE "T" (id int PRIMARY KEY)`)
	d := db.driver()
	s := db.open(d, db.tables(d, "T")...)
	before := time.Now()
	db.exec(`BEGIN; INSERT INTO "T" VALUES (1), (2); COMMIT`)
	var sources []map[string]any
	for len(sources) < 2 {
		ev, err := s.Next(t.Context(), patience)
		require.NoError(t, err)
		if ev.Op != cdc.Insert {
			continue
		}
		text, err := ev.Row.AppendSource([]byte{'{'})
		require.NoError(t, err)
		var source map[string]any
		require.NoError(t, json.Unmarshal(append(text, '}'), &source), "%s", text)
		sources = append(sources, source)
		require.Equal(t, string(ev.Txn), source["txid"])
	}
	require.Equal(t, "public", sources[0]["schema"])
	require.Equal(t, "T", sources[0]["table"])
	require.WithinDuration(t, before, time.UnixMilli(int64(sources[0]["ts_ms"].(float64))), time.Minute)
	first, second := sources[0]["loc"].([]any), sources[1]["loc"].([]any)
	require.Equal(t, first[0], second[0], "one commit")
	require.Less(t, first[1], second[1], "later in the log")
	require.Equal(t, []any{1.0, 2.0}, []any{first[2], second[2]})
}

// A fence is passed on a server where nothing happens, wherever the log ends: also exactly at the end of one of its pages
// or segments, where the position of the next byte lies behind a header that is not written yet.
func TestFenceOnAnIdleServer(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	started := time.Now()
	for range 20 {
		require.Empty(t, s.fence())
	}
	require.Less(t, time.Since(started), 5*time.Second)
}

// It also passes when the end of the log is not flushed, and nobody commits anything that would flush it.
func TestFenceBehindWhatIsNotFlushed(t *testing.T) {
	t.Parallel()
	db := databaseOn(t, postgresFor(t))
	db.exec("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (a text)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	open := db.transaction()
	for range 5 {
		_, err := open.Exec(t.Context(), "INSERT INTO other VALUES ('x')")
		require.NoError(t, err)
		started := time.Now()
		require.Empty(t, s.fence())
		require.Less(t, time.Since(started), 5*time.Second, "a server left alone takes up to fifteen seconds")
	}
	commit(t, open)
}

// A transaction that is open holds back nothing but itself: fences pass, and its changes come with its commit.
func TestOpenTransaction(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	open := db.transaction("INSERT INTO t VALUES (1)")
	db.exec("INSERT INTO t VALUES (2)")
	require.Equal(t, []string{`c t {"id":2}`}, s.fence())
	commit(t, open)
	require.Equal(t, []string{`c t {"id":1}`}, s.fence())
}

// The cursor of every commit resumes exactly behind it.
func TestResumeFromEveryCommit(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	position := s.Start()
	for i := range 5 {
		db.exec(fmt.Sprintf("INSERT INTO t VALUES (%d), (%d)", 2*i, 2*i+1))
	}
	require.Len(t, s.fence(), 10)
	s.close()
	var all []string
	for i := range 5 {
		s := db.resume(d, position, tables...)
		var got []string
		for {
			ev, err := s.Next(t.Context(), patience)
			require.NoError(t, err)
			if ev.Op == cdc.Commit {
				position.Cursor = ev.Cursor
				break
			}
			got = append(got, s.text(ev))
		}
		s.Ack(position.Cursor)
		s.close()
		require.Len(t, got, 2, "transaction %d", i)
		all = append(all, got...)
	}
	require.Equal(t, `c t {"id":9}`, all[9])
}

// What is acknowledged, and only that, releases the log; also while nothing of ours happens, but the server is busy (hard
// cases 4, 5 and 11).
func TestAcknowledge(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (id int)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	confirmed := func() lsn {
		return mustLSN(t, db.exec("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '"+d.slot+"'"))
	}
	start := confirmed()
	db.exec("INSERT INTO t VALUES (1)")
	require.Len(t, s.fence(), 1)
	require.Equal(t, start, confirmed(), "nothing was acknowledged")
	at := mustLSN(t, string(s.cursor))
	s.Ack(s.cursor)
	eventually(t, "the slot moves to the acknowledged commit", func() bool { return confirmed() == at })
	s.Ack(s.start())
	require.Equal(t, at, confirmed(), "it does not go back")

	db.exec("INSERT INTO other SELECT generate_series(1, 1000)")
	end := mustLSN(t, db.exec("SELECT pg_current_wal_flush_lsn()"))
	var idle lsn
	for deadline := time.Now().Add(patience); idle < end; {
		require.True(t, time.Now().Before(deadline), "no cursor beyond the changes of other tables")
		ev, err := s.Next(t.Context(), 100*time.Millisecond)
		require.NoError(t, err)
		if ev.Cursor != "" {
			idle = mustLSN(t, string(ev.Cursor))
		}
	}
	require.Equal(t, at, confirmed(), "it waits for the acknowledgement")
	s.Ack(cdc.Cursor(idle.String()))
	eventually(t, "the slot moves on without a change of ours", func() bool { return confirmed() >= end })
}

func (s *testStream) start() cdc.Cursor { return s.Start().Cursor }

// The cursor that an idle stream gives never lies beyond a change that was not delivered.
func TestIdleCursorSkipsNothing(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (id int)")
	d := db.driver()
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	position := s.Start()
	// A transaction that is open while the stream goes idle begins before the cursor and commits behind it.
	open := db.transaction("INSERT INTO t VALUES (1)")
	db.exec("INSERT INTO other SELECT generate_series(1, 1000)")
	for deadline := time.Now().Add(patience); ; {
		require.True(t, time.Now().Before(deadline))
		ev, err := s.Next(t.Context(), 100*time.Millisecond)
		require.NoError(t, err)
		require.NotEqual(t, cdc.Insert, ev.Op)
		if ev.Op == cdc.Idle && ev.Cursor != "" {
			position.Cursor = ev.Cursor
			s.Ack(ev.Cursor)
			break
		}
	}
	s.close()
	commit(t, open)
	s = db.resume(d, position, tables...)
	require.Equal(t, []string{`c t {"id":1}`}, s.fence())
}

// While the reader is blocked downstream for longer than the server's patience, the connection stays alive, and nothing is
// lost.
func TestBlockedReader(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	const rows = 200_000
	db.exec("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, " + fmt.Sprint(rows) + ") g")
	ev, err := s.Next(t.Context(), patience)
	require.NoError(t, err)
	require.Equal(t, cdc.Insert, ev.Op)
	started := db.exec("SELECT reply_time FROM pg_stat_replication WHERE application_name = 'sluice' AND pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = '" + d.slot + "')")
	eventually(t, "statuses are sent while nobody reads", func() bool {
		now := db.exec("SELECT reply_time FROM pg_stat_replication WHERE application_name = 'sluice' AND pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = '" + d.slot + "')")
		return now != started
	})
	require.Len(t, s.fence(), rows-1)
}

// Live changes of shape: rows are decoded by what the log says, and what may have changed without it is backfilled again.
func TestLiveAlters(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL, n int)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	for _, c := range []struct {
		name, alter, change string
		want                []string
	}{
		{"nothing", "SELECT 1", "INSERT INTO t VALUES (1, 'a', 1)", []string{`c t {"a":"a","id":1,"n":1}`}},
		{"added", "ALTER TABLE t ADD b text", "UPDATE t SET b = 'x'", []string{
			`shape t (id integer, a text, n integer, b text) rescan false`, `u t {"a":"a","b":"x","id":1,"n":1}`,
		}},
		{"added with a default", "ALTER TABLE t ADD c int DEFAULT 7", "UPDATE t SET b = 'y'", []string{
			`shape t (id integer, a text, n integer, b text, c integer) rescan true`, `u t {"a":"a","b":"y","c":7,"id":1,"n":1}`,
		}},
		{"dropped", "ALTER TABLE t DROP c", "UPDATE t SET b = 'z'", []string{
			`shape t (id integer, a text, n integer, b text) rescan false`, `u t {"a":"a","b":"z","id":1,"n":1}`,
		}},
		{"retyped", "ALTER TABLE t ALTER n TYPE text", "UPDATE t SET n = 'one'", []string{
			`shape t (id integer, a text, n text, b text) rescan true`, `u t {"a":"a","b":"z","id":1,"n":"one"}`,
		}},
		{"renamed", "ALTER TABLE t RENAME b TO bb", "UPDATE t SET n = 'two'", []string{
			`shape t (id integer, a text, n text, bb text) rescan true`, `u t {"a":"a","bb":"z","id":1,"n":"two"}`,
		}},
		{"null allowed", "ALTER TABLE t ALTER a DROP NOT NULL", "UPDATE t SET a = NULL", []string{
			`shape t (id integer, a text, n text, bb text) rescan false`, `u t {"a":null,"bb":"z","id":1,"n":"two"}`,
		}},
		{"wider", "ALTER TABLE t ADD v varchar(3)", "UPDATE t SET v = 'abc'", []string{
			`shape t (id integer, a text, n text, bb text, v character varying(3)) rescan false`, `u t {"a":null,"bb":"z","id":1,"n":"two","v":"abc"}`,
		}},
		{"wider", "ALTER TABLE t ALTER v TYPE varchar(4)", "UPDATE t SET v = 'abcd'", []string{
			`shape t (id integer, a text, n text, bb text, v character varying(4)) rescan false`, `u t {"a":null,"bb":"z","id":1,"n":"two","v":"abcd"}`,
		}},
		{"enum", "CREATE TYPE mood AS ENUM ('a'); ALTER TABLE t ADD m mood[]", "UPDATE t SET m = '{a}'", []string{
			`shape t (id integer, a text, n text, bb text, v character varying(4), m mood[]) rescan false`,
			`u t {"a":null,"bb":"z","id":1,"m":["a"],"n":"two","v":"abcd"}`,
		}},
		{"a value added to the enum", "ALTER TYPE mood ADD VALUE 'b'", "UPDATE t SET m = '{b,a}'", []string{`u t {"a":null,"bb":"z","id":1,"m":["b","a"],"n":"two","v":"abcd"}`}},
		{"table renamed", "ALTER TABLE t RENAME TO u", "UPDATE u SET n = 'three'", []string{`drop t: The table public.t was renamed to public.u. Capture it under its new name.`}},
	} {
		db.exec(c.alter)
		db.exec(c.change)
		require.Equal(t, c.want, s.fence(), c.name)
	}
	require.True(t, s.shapes[4].Columns[3].Nullable)
}

// A table that is dropped and made again under the same name is another one.
func TestTableReplaced(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)", "CREATE PUBLICATION everything FOR ALL TABLES"+db.viaRoot())
	d := db.driver(func(c *config) { c.Advanced.PublicationName = "everything" })
	old := db.tables(d, "t")[0]
	s := db.open(d, old)
	db.exec("INSERT INTO t VALUES (1)")
	require.Equal(t, []string{`c t {"id":1}`}, s.fence())
	db.exec("BEGIN; DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY); COMMIT", "INSERT INTO t VALUES (2)")
	require.Equal(t, []string{`shape t (id integer) rescan true`, `c t {"id":2}`}, s.fence())
	require.NotEqual(t, old.Incarnation, s.shapes[0].Incarnation)
}

// Changes of a partitioned table come under its own name, also those of partitions that are made meanwhile.
func TestPartitionedTable(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	if db.pg.Major() < 13 {
		t.Skip("Postgres 12 cannot publish partitioned tables")
	}
	db.exec("CREATE TABLE p (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
		"CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')",
		"CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2024-02-01') TO ('2024-03-01') PARTITION BY LIST (id)",
		"CREATE TABLE p21 PARTITION OF p2 DEFAULT",
		"INSERT INTO p VALUES (1, '2024-01-10'), (2, '2024-02-10'), (3, '2024-01-11')")
	d := db.driver()
	table := db.tables(d, "p")[0]
	require.Equal(t, []string{"id", "day"}, table.Key)
	s := db.open(d, table)
	rows, keys := db.scanAll(d, table, 10)
	require.ElementsMatch(t, []string{`{"day":"2024-01-10","id":1}`, `{"day":"2024-01-11","id":3}`, `{"day":"2024-02-10","id":2}`}, rows)
	require.ElementsMatch(t, rows, db.scanKeys(d, table, keys))
	db.exec("CREATE TABLE p3 PARTITION OF p FOR VALUES FROM ('2024-03-01') TO ('2024-04-01')",
		"INSERT INTO p VALUES (4, '2024-03-10')", "UPDATE p SET day = '2024-03-11' WHERE id = 2", "INSERT INTO p1 VALUES (5, '2024-01-12')",
		"DELETE FROM p WHERE id = 1")
	require.Equal(t, []string{
		`shape p (id integer, day date) rescan false look`, `c p {"day":"2024-03-10","id":4}`, `d p before {"day":"2024-02-10","id":2}`, `c p {"day":"2024-03-11","id":2}`,
		`c p {"day":"2024-01-12","id":5}`, `d p before {"day":"2024-01-10","id":1}`,
	}, s.fence())
}
