package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/cdc"
)

// A row of a table without a key comes once: from the backfill if it was written before the table was streamed, else from
// the stream. It does not matter what is in progress at that moment.
func TestKeylessTable(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (a int)", "ALTER TABLE t REPLICA IDENTITY FULL", "INSERT INTO t SELECT generate_series(1, 100)")
	d := db.driver()
	table := db.tables(d, "t")[0]
	require.Empty(t, table.Key)
	s := db.open(d, table)
	db.exec("INSERT INTO t SELECT generate_series(101, 200)", "UPDATE t SET a = -a WHERE a IN (50, 150)", "DELETE FROM t WHERE a = 60")
	open := db.transaction("INSERT INTO t VALUES (300)")
	rows, _ := db.scanAll(d, table, 30)
	commit(t, open)
	events := s.fence()
	require.Len(t, rows, 98, "without the updated and the deleted row")
	require.Len(t, events, 100+2+1+1)
	require.Contains(t, events, `u t {"a":-50} before {"a":50}`)
	require.Contains(t, events, `d t before {"a":60}`)
	require.Contains(t, events, `c t {"a":300}`)

	more, _ := db.scanAll(d, table, 1000)
	require.ElementsMatch(t, rows, more, "read again, the same rows come")
}

// The same for a table that is added to a capture that streams already, while transactions write to it, with savepoints. One
// straddles the moment of publication, and changes what another one has written since; one straddles the moment of division.
func TestKeylessTableAddedLater(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE first (id int PRIMARY KEY)", "CREATE TABLE t (a int)", "ALTER TABLE t REPLICA IDENTITY FULL", "INSERT INTO t VALUES (1)")
	d := db.driver()
	s := db.open(d, db.tables(d, "first")...)
	db.exec("INSERT INTO t VALUES (2)")
	require.Empty(t, s.fence())
	straddling := db.transaction("SAVEPOINT a", "INSERT INTO t VALUES (3)", "RELEASE a")
	s.close()
	position := s.Start()
	position.Cursor = s.cursorOr(position.Cursor)

	tables := db.tables(d, "first", "t")
	keyless := tables[1]
	finish := func() {
		run(t, straddling, "SAVEPOINT b", "UPDATE t SET a = 11 WHERE a = 10", "RELEASE b", "SAVEPOINT c", "INSERT INTO t VALUES (4)", "COMMIT")
	}
	if d.server.forgetsPublications() {
		db.exec("INSERT INTO t VALUES (10)")
		time.AfterFunc(time.Second, finish) // such a server's stream waits for it
		s = db.resume(d, position, tables...)
	} else {
		s = db.resume(d, position, tables...)
		require.True(t, s.joining(keyless))
		require.Empty(t, keyless.Origin)
		db.exec("INSERT INTO t VALUES (10)")
		require.Empty(t, s.fence())
		require.True(t, s.joining(keyless), "the stream waits for the transaction that straddles, and goes on")
	}
	across := db.transaction("SAVEPOINT a", "INSERT INTO t VALUES (20)", "RELEASE a", "SAVEPOINT b", "INSERT INTO t VALUES (21)")
	if !d.server.forgetsPublications() {
		finish()
	}
	s.join(keyless)
	run(t, across, "SAVEPOINT c", "INSERT INTO t VALUES (22)", "COMMIT")
	db.exec("INSERT INTO t VALUES (5)")
	rows, _ := db.scanAll(d, keyless, 1000)
	require.ElementsMatch(t, []string{`{"a":1}`, `{"a":2}`, `{"a":3}`, `{"a":4}`, `{"a":11}`}, rows)
	streamed := []string{`c t {"a":20}`, `c t {"a":21}`, `c t {"a":22}`, `c t {"a":5}`}
	require.Equal(t, streamed, s.fence())

	// After a restart it is divided the same.
	s.close()
	s = db.resume(d, position, tables...)
	require.False(t, s.joining(keyless))
	require.Equal(t, keyless.Origin, s.Origin(keyless.ID))
	require.Equal(t, streamed, s.fence())
}

// A table without a key that joins a stream while several sessions write to it without a pause, most of them with savepoints,
// some of which are rolled back: every row comes once.
func TestKeylessTableJoinsWhileWriting(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE first (id int PRIMARY KEY)", "CREATE TABLE t (a bigint)", "ALTER TABLE t REPLICA IDENTITY FULL")
	d := db.driver()
	s := db.open(d, db.tables(d, "first")...)
	s.close()
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 4 {
		conn := db.connect()
		writers.Go(func() {
			for i := int64(w) << 32; ; i += 5 {
				select {
				case <-stop:
					return
				default:
				}
				run(t, conn, fmt.Sprintf(`BEGIN; INSERT INTO t VALUES (%d); SAVEPOINT a; INSERT INTO t VALUES (%d); RELEASE a; SAVEPOINT b; INSERT INTO t VALUES (%d);
					ROLLBACK TO b; SAVEPOINT c; INSERT INTO t VALUES (%d); UPDATE t SET a = %d WHERE ctid = (SELECT max(ctid) FROM t); COMMIT`, i, i+1, i+2, i+3, i+4))
			}
		})
	}
	eventually(t, "there is something to read", func() bool { return db.exec("SELECT count(*) > 100 FROM t") == "t" })
	tables := db.tables(d, "first", "t")
	s = db.resume(d, s.Start(), tables...)
	s.join(tables[1])
	close(stop)
	writers.Wait()
	rows, _ := db.scanAll(d, tables[1], 1000)
	emitted, ended := map[string]int{}, map[string]bool{} // every version of a row has a value of its own
	for _, row := range rows {
		emitted[row]++
	}
	for _, ev := range s.fence() {
		_, rest, _ := strings.Cut(ev, " t ")
		row, before, _ := strings.Cut(rest, " before ")
		emitted[row]++
		ended[before] = true
	}
	require.NotEmpty(t, rows)
	for a := range strings.FieldsSeq(db.exec("SELECT a FROM t")) {
		row := `{"a":` + a + `}`
		if emitted[row] != 1 || ended[row] {
			t.Errorf("row %s, by transaction %s, comes %d times, and its end %t; origin %s", row, db.exec("SELECT xmin FROM t WHERE a = "+a), emitted[row], ended[row], tables[1].Origin)
		}
		ended[row] = true
	}
	for row, n := range emitted {
		if n != 1 || !ended[row] {
			t.Errorf("row %s comes %d times, and its end %t; origin %s", row, n, ended[row], tables[1].Origin)
		}
	}
}

// run runs statements on a session, also from another goroutine than the test's.
func run(t *testing.T, conn *pgx.Conn, sql ...string) {
	t.Helper()
	for _, statement := range sql {
		if _, err := conn.Exec(context.Background(), statement); err != nil {
			t.Errorf("running %s: %v", statement, err)
		}
	}
}

func (s *testStream) joining(table *cdc.Table) bool {
	j, ok := s.Stream.(cdc.Joiner)
	return ok && j.Joining(table.ID)
}

// join reads until the stream carries the table. Nothing of it may come before.
func (s *testStream) join(table *cdc.Table) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); s.joining(table); {
		require.True(s.t, time.Now().Before(deadline), "table %s does not join", table.ID)
		ev, err := s.Next(s.t.Context(), 50*time.Millisecond)
		require.NoError(s.t, err)
		require.Nil(s.t, ev.Row)
		if ev.Op == cdc.Joined {
			require.Equal(s.t, table.ID, ev.Table)
			table.Origin = ev.Origin
		}
	}
	require.NotEmpty(s.t, table.Origin)
	require.Equal(s.t, table.Origin, s.Origin(table.ID))
}

func (s *testStream) cursorOr(otherwise cdc.Cursor) cdc.Cursor {
	if s.cursor == "" {
		return otherwise
	}
	return s.cursor
}

// Rows without a key are told apart by their place; so are changes, also those of one statement.
func TestKeylessLocations(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (a int)", "ALTER TABLE t REPLICA IDENTITY FULL", "INSERT INTO t SELECT 1 FROM generate_series(1, 1000)")
	d := db.driver()
	table := db.tables(d, "t")[0]
	s := db.open(d, table)
	var places []string
	plan, err := d.Plan(t.Context(), table)
	require.NoError(t, err)
	place := func(row cdc.Row) error {
		text, err := row.AppendSource([]byte{'{'})
		require.NoError(t, err)
		var source struct{ Loc json.RawMessage }
		require.NoError(t, json.Unmarshal(append(text, '}'), &source), "%s", text)
		places = append(places, string(source.Loc))
		return nil
	}
	_, err = d.Scan(t.Context(), cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 1 << 20, MaxBytes: 1 << 30}, place)
	require.NoError(t, err)
	require.Len(t, places, 1000)
	require.Regexp(t, `^\[-1,\d+,\d+\]$`, places[0])
	db.exec("INSERT INTO t SELECT 1 FROM generate_series(1, 1000)")
	for len(places) < 2000 {
		ev, err := s.Next(t.Context(), patience)
		require.NoError(t, err)
		if ev.Row != nil {
			require.NoError(t, place(ev.Row))
		}
	}
	slices.Sort(places)
	require.Len(t, slices.Compact(places), 2000)
}

// A place from before the wrap-around of transaction identifiers.
func TestRowsOfTheStream(t *testing.T) {
	t.Parallel()
	origin := &snapshot{xmin: 1<<32 + 100, xmax: 1<<32 + 200, running: []uint64{1<<32 + 150}}
	now := &snapshot{xmin: 1<<32 + 300, xmax: 1<<32 + 300}
	row := scanRow{plan: &scanPlan{origin: origin}, hidden: make([][]byte, 2)}
	for xid, want := range map[uint32]bool{1: false, 2: false, 90: false, 149: false, 150: true, 199: false, 200: true, 299: true, 300: false, 1<<32 - 1: false} {
		row.hidden[1] = []byte{byte(xid >> 24), byte(xid >> 16), byte(xid >> 8), byte(xid)}
		require.Equal(t, want, row.fromStream(now), fmt.Sprint(xid))
	}
}

// A table gets a key of floats, which are strings in keys, after its collection was made without one: what its documents are, and
// what is said of them, stays as it is.
func TestKeylessTableGetsAKey(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (f float8 NOT NULL, note text)", "ALTER TABLE t REPLICA IDENTITY FULL", "INSERT INTO t VALUES (1.5, 'a')")
	c := newCapture(t, db, frame.JSON)
	c.until("t", `{"f":1.5,"note":"a"}`)
	db.exec("ALTER TABLE t ADD PRIMARY KEY (f)", "INSERT INTO t VALUES (2.5, 'b')")
	c.until("t", `{"f":1.5,"note":"a"}`, `{"f":2.5,"note":"b"}`)
	db.exec("ALTER TABLE t ADD COLUMN more int", "INSERT INTO t VALUES (3.5, 'c')")
	c.until("t", `{"f":1.5,"note":"a"}`, `{"f":2.5,"note":"b"}`, `{"f":3.5,"more":null,"note":"c"}`)
	require.NotEmpty(t, c.schemas[0])
	for _, text := range c.schemas[0] {
		var s struct {
			Properties struct{ F struct{ Type any } }
		}
		require.NoError(t, json.Unmarshal([]byte(text), &s))
		require.Equal(t, []any{"number", "string"}, s.Properties.F.Type, text)
	}
}
