package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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

// The same for a table that is added to a capture that streams already, while transactions write to it.
func TestKeylessTableAddedLater(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE first (id int PRIMARY KEY)", "CREATE TABLE t (a int)", "ALTER TABLE t REPLICA IDENTITY FULL", "INSERT INTO t VALUES (1)")
	d := db.driver()
	s := db.open(d, db.tables(d, "first")...)
	db.exec("INSERT INTO t VALUES (2)")
	require.Empty(t, s.fence())
	straddling := db.transaction("INSERT INTO t VALUES (3)")
	s.close()
	position := s.Start()
	position.Cursor = s.cursorOr(position.Cursor)

	tables := db.tables(d, "first", "t")
	keyless := tables[1]
	finish := func() {
		_, err := straddling.Exec(context.Background(), "INSERT INTO t VALUES (4); COMMIT")
		if err != nil {
			t.Errorf("ending the transaction: %v", err)
		}
	}
	if d.server.forgetsPublications() {
		time.AfterFunc(time.Second, finish) // such a server's stream waits for it
		s = db.resume(d, position, tables...)
	} else {
		s = db.resume(d, position, tables...)
		_, plan := planned(t, d, keyless)
		require.Len(t, plan.Unseen, 1, "the chunks wait for the transaction that straddles")
		finish()
	}
	require.NotEmpty(t, keyless.Origin)
	db.exec("INSERT INTO t VALUES (5)")
	rows, _ := db.scanAll(d, keyless, 1000)
	require.ElementsMatch(t, []string{`{"a":1}`, `{"a":2}`, `{"a":3}`, `{"a":4}`}, rows)
	require.Equal(t, []string{`c t {"a":5}`}, s.fence())

	// After a restart the boundary is the same.
	s.close()
	s = db.resume(d, position, tables...)
	require.Equal(t, keyless.Origin, s.Origin(keyless.ID))
	require.Equal(t, []string{`c t {"a":5}`}, s.fence())
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
