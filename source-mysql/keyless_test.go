package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// versions counts what comes of the rows of a table without a key, every version of which has a value of its own.
type versions struct {
	t       *testing.T
	emitted map[string]int
	ended   map[string]bool
	loc     map[string]bool
}

func newVersions(t *testing.T) *versions {
	t.Helper()
	return &versions{t: t, emitted: map[string]int{}, ended: map[string]bool{}, loc: map[string]bool{}}
}

func (v *versions) row(r cdc.Row) {
	v.t.Helper()
	v.emitted[cdctest.Fields(v.t, r)]++
	source, err := r.AppendSource([]byte{'{'})
	require.NoError(v.t, err)
	var where struct{ Loc json.RawMessage }
	require.NoError(v.t, json.Unmarshal(append(source, '}'), &where))
	require.NotEmpty(v.t, where.Loc)
	require.False(v.t, v.loc[string(where.Loc)], "two rows at %s", where.Loc)
	v.loc[string(where.Loc)] = true
}

func (v *versions) event(ev *cdc.Event) {
	v.t.Helper()
	switch {
	case ev.Row != nil:
		v.row(ev.Row)
	case ev.Op == cdc.Shape:
		require.False(v.t, ev.Rescan, "nothing may be read again")
	}
	if ev.Before != nil {
		v.ended[cdctest.Fields(v.t, ev.Before)] = true
	}
}

// compare says what is not as in the table: every version has to come once, and its end unless it is there.
func (v *versions) compare(db *database, table string) {
	v.t.Helper()
	left := map[string]bool{}
	for _, row := range db.query("SELECT a FROM " + table) {
		left[`{"a":`+row[0]+`}`] = true
	}
	wrong := 0
	for row := range left {
		if v.emitted[row] != 1 {
			wrong++
			v.t.Errorf("row %s comes %d times", row, v.emitted[row])
		}
	}
	for row, n := range v.emitted {
		if n != 1 || left[row] == v.ended[row] {
			wrong++
			v.t.Errorf("row %s comes %d times; it is there %t, its end came %t", row, n, left[row], v.ended[row])
		}
		if wrong > 10 {
			v.t.FailNow()
		}
	}
	require.NotEmpty(v.t, v.emitted)
}

// query reads rows in the database.
func (db *database) query(sql string) [][]string {
	db.t.Helper()
	s := db.session(db.name)
	rows, err := s.texts(db.t.Context(), sql)
	require.NoError(db.t, err, sql)
	require.NoError(db.t, s.close())
	return rows
}

// join reads until the stream carries the table. Nothing of its rows may come before.
func (s *testStream) join(table *cdc.Table) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		require.True(s.t, time.Now().Before(deadline), "table %s does not join", table.ID)
		ev, err := s.Next(s.t.Context(), 5*time.Millisecond)
		require.NoError(s.t, err)
		require.Nil(s.t, ev.Row)
		if ev.Op == cdc.Joined {
			require.Equal(s.t, table.ID, ev.Table)
			require.True(s.t, ev.Once)
			table.Origin = ev.Origin
			return
		}
	}
}

// scanSome reads rows of a table without a key, up to so many chunks, and returns what is left.
func (v *versions) scanSome(d *driver, t *cdc.Table, chunks int) (rest cdc.Range) {
	v.t.Helper()
	plan, err := d.Plan(v.t.Context(), t)
	require.NoError(v.t, err)
	require.Len(v.t, plan.Ranges, 1)
	for rest = plan.Ranges[0]; rest != "" && chunks > 0; chunks-- {
		got := 0
		scanned, err := d.Scan(v.t.Context(), cdc.Chunk{Table: t, Range: rest, MaxRows: 50, MaxBytes: 1 << 20}, func(row cdc.Row) error {
			v.row(row)
			got++
			return nil
		})
		require.NoError(v.t, err)
		require.LessOrEqual(v.t, got, 50)
		require.NotEmpty(v.t, scanned.High)
		rest = scanned.Rest
	}
	return rest
}

// write changes a table without a pause but for one now and then, until it is stopped: rows come, change and go, each version once.
func (db *database) write(table string, first, writers int) (stop func()) {
	db.t.Helper()
	stopped := make(chan struct{})
	var running sync.WaitGroup
	for w := range writers {
		w += first
		conn := db.session(db.name)
		require.NoError(db.t, conn.exec(db.t.Context(), "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")) // else writers of different rows wait for each other
		running.Go(func() {
			run := func(sql string) {
				if err := conn.exec(db.t.Context(), sql); err != nil {
					db.t.Errorf("running %s: %v", sql, err)
				}
			}
			for i := int64(w) << 32; ; i += 4 {
				for _, sql := range []string{
					"BEGIN", fmt.Sprintf("INSERT INTO %s VALUES (%d), (%d), (%d)", table, i, i+1, i+2),
					fmt.Sprintf("UPDATE %s SET a = %d WHERE a = %d", table, i+3, i), fmt.Sprintf("DELETE FROM %s WHERE a = %d", table, i+1), "COMMIT",
				} {
					run(sql)
				}
				pause := time.Duration(0)
				if i%128 == 0 {
					pause = 300 * time.Millisecond // without GTIDs, the server's list of transactions is only made anew every tenth of a second
				}
				select {
				case <-stopped:
					return
				case <-time.After(pause):
				}
			}
		})
	}
	return func() {
		close(stopped)
		running.Wait()
	}
}

// A table without a key, while others write to it: what committed before the place of its snapshot is read, what committed behind it comes
// from the log, each row once. A capture that ends in the middle of it begins anew, with another snapshot.
func TestKeylessTable(t *testing.T) {
	t.Parallel()
	positions(t, func(t *testing.T, flavor string, byFile bool) {
		db := positionDatabase(t, flavor, byFile)
		db.exec("CREATE TABLE t (a BIGINT, KEY (a))", "INSERT INTO t WITH RECURSIVE n AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM n WHERE a < 400) SELECT a FROM n")
		d := db.driver()
		table := db.tables(d, "t")[0]
		require.Empty(t, table.Key)
		require.Empty(t, check(t, d, table.ID))
		stop := db.write("t", 1, map[bool]int{true: 1, false: 2}[byFile && flavor == mysqld.MySQL])

		s := db.open(d, table)
		begin := s.Start()
		s.join(table)
		v := newVersions(t)
		require.NotEmpty(t, v.scanSome(d, table, 3))
		require.ErrorContains(t, db.tryExec("SET lock_wait_timeout = 1", "ALTER TABLE t ADD COLUMN b INT"), "Lock wait timeout", "its definition stays as it is until it was read")
		s.close()
		require.NoError(t, d.Close())

		d = db.driver()
		table = db.tables(d, "t")[0]
		s = db.resume(d, begin, table)
		s.join(table)
		v = newVersions(t)
		require.Empty(t, v.scanSome(d, table, 1000))
		stop()
		stop = db.write("t", 9, 1)
		var cursor cdc.Position
		for commits := 0; commits < 20; {
			ev, err := s.Next(t.Context(), 10*time.Millisecond)
			require.NoError(t, err)
			if v.event(ev); ev.Op == cdc.Commit {
				commits++
				cursor = cdc.Position{Cursor: ev.Cursor, Identity: begin.Identity}
			}
		}
		s.close()
		stop()

		// Once it is read, the stream carries it from any place on.
		s = db.resume(d, cursor, table)
		require.Equal(t, table.Origin, s.Origin(table.ID))
		require.NoError(t, s.each(v.event))
		v.compare(db, "t")
	})
}

// A table without a key that is emptied, altered, replaced and dropped, and whose connection is lost in the middle of its reading.
func TestShapesOfKeylessTable(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE t (a BIGINT)", "INSERT INTO t VALUES (1), (2)")
		d := db.driver()
		table := db.tables(d, "t")[0]
		s := db.open(d, table)
		db.exec("INSERT INTO t VALUES (3)", "TRUNCATE TABLE t", "INSERT INTO t VALUES (4)")
		s.join(table)
		v := newVersions(t)
		p, err := d.passOf(table.ID)
		require.NoError(t, err)
		db.exec("KILL " + strconv.FormatUint(uint64(p.s.id), 10))
		plan, err := d.Plan(t.Context(), table)
		require.NoError(t, err)
		_, err = d.Scan(t.Context(), cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 50, MaxBytes: 1 << 20}, func(cdc.Row) error { return nil })
		require.ErrorIs(t, err, cdc.ErrInterrupted)
		_, err = d.Plan(t.Context(), table)
		require.ErrorIs(t, err, cdc.ErrInterrupted)
		s.close()

		table.Origin = ""
		s = db.resume(d, s.Start(), table)
		s.join(table)
		require.Empty(t, v.scanSome(d, table, 10))
		db.exec("ALTER TABLE t ADD COLUMN b INT", "INSERT INTO t VALUES (5, 6)", "TRUNCATE TABLE t")
		events := slices.DeleteFunc(s.fence(), func(ev string) bool { return strings.HasPrefix(ev, "shape") })
		require.Equal(t, []string{`c t {"a":5,"b":6}`, "truncate t"}, events)
		db.exec("DROP TABLE t", "CREATE TABLE t (a BIGINT, c INT)", "INSERT INTO t VALUES (7, 8)")
		events = s.fence()
		require.Equal(t, "drop t: The table "+db.name+".t was dropped.", events[0])
		require.NotContains(t, strings.Join(events, "\n"), `"c":8`, "the new one joins")
		table = db.tables(d, "t")[0]
		require.True(t, s.Stream.(cdc.Joiner).Joining(table.ID))
		s.join(table)
		v = newVersions(t)
		require.Empty(t, v.scanSome(d, table, 10))
		require.Equal(t, map[string]int{`{"a":7,"c":8}`: 1}, v.emitted)
		db.exec("INSERT INTO t VALUES (9, 10)")
		events = slices.DeleteFunc(s.fence(), func(ev string) bool { return strings.HasPrefix(ev, "shape") })
		require.Equal(t, []string{`c t {"a":9,"c":10}`}, events)
	})
}

// tryExec runs statements on one session.
func (db *database) tryExec(sql ...string) error {
	db.t.Helper()
	s := db.session(db.name)
	defer func() { require.NoError(db.t, s.close()) }()
	for _, statement := range sql {
		if err := s.exec(db.t.Context(), statement); err != nil {
			return err
		}
	}
	return nil
}

// A change that is in the log before the place beyond which the snapshot sees nothing, and that it does not see: it is neither taken for one of
// the backfill's nor left out.
func TestKeylessTableWithStalledCommit(t *testing.T) {
	t.Parallel()
	db := positionDatabase(t, mysqld.MySQL, false) // MariaDB says of which place a snapshot is, and without GTIDs settled places wait for it
	db.exec("CREATE TABLE t (a BIGINT)", "INSERT INTO t VALUES (1)")
	stalls := newStaller(db)
	d := db.driver()
	table := db.tables(d, "t")[0]
	s := db.open(d, table)
	log, ok := s.Stream.(*stream)
	require.True(t, ok)
	log.joining.next = time.Now().Add(time.Hour)
	require.Empty(t, s.fence())

	// The stream is here, and a snapshot is taken while the commit is stalled behind it.
	here := log.at
	writer := db.session(db.name)
	release := stalls.begin()
	done := make(chan error, 1)
	go func() { done <- writer.exec(t.Context(), "INSERT INTO t VALUES (2)") }()
	eventually := func(what string, f func() bool) {
		require.Eventually(t, f, patience, 5*time.Millisecond, what)
	}
	eventually("the commit is not logged", func() bool {
		mark, err := d.End(t.Context())
		return err == nil && string(mark) != here.String()
	})
	log.joining.next = time.Time{}
	for deadline := time.Now().Add(patience); log.joining.pass == nil; {
		require.True(t, time.Now().Before(deadline), "no snapshot is taken")
		ev, err := log.joined(t.Context())
		require.NoError(t, err)
		require.Nil(t, ev)
	}
	require.True(t, here.before(log.joining.pass.at))
	for log.joining.pass != nil {
		ev, err := s.Next(t.Context(), 5*time.Millisecond)
		require.NoError(t, err)
		require.NotEqual(t, cdc.Joined, ev.Op, "with a snapshot that lacks the change")
	}
	release()
	require.NoError(t, <-done)
	s.join(table)
	v := newVersions(t)
	require.Empty(t, v.scanSome(d, table, 10))
	require.NoError(t, s.each(v.event))
	v.compare(db, "t")
}

// While the stream is far behind, nothing holds the definition of a table that waits to join.
func TestKeylessTableFarBehind(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE t (a BIGINT)", "INSERT INTO t VALUES (1)", "CREATE TABLE other (id INT PRIMARY KEY, v MEDIUMTEXT)")
		d := db.driver()
		tables := db.tables(d, "t", "other")
		begin := db.open(d, tables...)
		from := begin.Start()
		begin.close()
		const rows = 40
		for i := range rows {
			db.exec(fmt.Sprintf("INSERT INTO other VALUES (%d, REPEAT('x', 100000))", i))
		}
		s := db.resume(d, from, tables...)
		locks := db.session(db.name)
		require.NoError(t, locks.exec(t.Context(), "SET lock_wait_timeout = 1"))
		for got := 0; got < rows/2; {
			ev, err := s.Next(t.Context(), 5*time.Millisecond)
			require.NoError(t, err)
			require.NotEqual(t, cdc.Joined, ev.Op)
			if ev.Row == nil {
				continue
			}
			got++
			require.NoError(t, locks.exec(t.Context(), "LOCK TABLES t WRITE"), "behind row %d", got)
			require.NoError(t, locks.exec(t.Context(), "UNLOCK TABLES"))
		}
		v := newVersions(t)
		for joined := false; !joined; {
			ev, err := s.Next(t.Context(), 5*time.Millisecond)
			require.NoError(t, err)
			if joined = ev.Op == cdc.Joined; joined {
				tables[0].Origin = ev.Origin
			}
		}
		require.Empty(t, v.scanSome(d, tables[0], 10))
		v.compare(db, "t")
	})
}

// Places in the logs of two servers are told apart: they are the keys of documents of tables without one.
func TestPlacesInTwoLogs(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE t (a BIGINT)")
		d := db.driver()
		table := db.tables(d, "t")[0]
		table.Unread = true
		s := db.open(d, table)
		file := func() (n uint64) {
			t.Helper()
			db.exec("INSERT INTO t VALUES (1)")
			require.NoError(t, s.each(func(ev *cdc.Event) {
				source, err := ev.Row.AppendSource([]byte{'{'})
				require.NoError(t, err)
				var where struct{ Loc []uint64 }
				require.NoError(t, json.Unmarshal(append(source, '}'), &where))
				n = where.Loc[0]
			}))
			return n
		}
		require.Less(t, file(), uint64(1<<32))
		at := s.position()
		s.close()
		at.Identity = identity{Flavor: flavor, Server: "the one before"}.encode()
		if flavor == mysqld.MariaDB {
			at.Cursor = cdc.Cursor(strings.Fields(string(at.Cursor))[0])
		}
		for range 2 { // another server than before, and then the same
			s = db.resume(d, at, table)
			require.Equal(t, uint64(1), file()>>32)
			at = s.position()
			s.close()
		}
		s = db.resume(d, cdc.Position{Identity: at.Identity}, table)
		require.Equal(t, uint64(2), file()>>32, "the log was lost")
	})
}

// A stream ends, and can be closed, when snapshots of a table cannot be taken many times in a row.
func TestJoinThatFails(t *testing.T) {
	t.Parallel()
	s := &stream{d: &driver{log: testEnv(t).Log}}
	attempt := func(got taken) error {
		j := &s.joining
		_, j.stop = context.WithCancel(t.Context())
		j.table, j.taken = &streamed{id: cdc.TableID{Schema: "s", Name: "t"}}, make(chan taken, 1)
		j.taken <- got
		_, err := s.joined(t.Context())
		return err
	}
	failed := taken{err: errors.New("no memory")}
	for range maxFailures {
		require.NoError(t, attempt(failed))
	}
	require.NoError(t, attempt(taken{}), "it could be taken, and just cannot be used")
	for range maxFailures {
		require.NoError(t, attempt(failed))
	}
	require.EqualError(t, attempt(failed), "taking a snapshot of table s.t: no memory")
	closed := make(chan struct{})
	go func() {
		s.stopJoining()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("closing waits for a snapshot that was taken over already")
	}
}
