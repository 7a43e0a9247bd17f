package main

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// logBuffer is a log that a test reads while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// A slot begins between transactions, so its creation waits for those in progress; the log says for which (hard case 6).
func TestSlotWaitsForTransactions(t *testing.T) {
	t.Parallel()
	db := databaseOn(t, postgresFor(t))
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	var out logBuffer
	log := logrus.New()
	log.SetOutput(&out)
	d.log = logrus.NewEntry(log)
	tables := db.tables(d, "t")
	open := db.transaction("INSERT INTO t VALUES (1)")
	started := make(chan error, 1)
	var stream cdc.Stream
	go func() {
		var err error
		stream, err = d.Stream(t.Context(), cdc.Position{}, tables)
		started <- err
	}()
	eventually(t, "the log names the transaction", func() bool {
		return strings.Contains(out.String(), "creating the slot waits for transactions to end: process ") &&
			strings.Contains(out.String(), "of user postgres")
	})
	commit(t, open)
	select {
	case err := <-started:
		require.NoError(t, err)
		require.NoError(t, stream.Close())
	case <-time.After(patience):
		t.Fatal("the slot was not created")
	}
	rows, _ := db.scanAll(d, tables[0], 10)
	require.Equal(t, []string{`{"id":1}`}, rows)
}

// Log that is gone although the slot needs it will not come back: the position is lost (hard case 1).
func TestLogRemoved(t *testing.T) {
	t.Parallel()
	db := databaseOn(t, server.Postgres(t))
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	s.close()
	file := strings.TrimSpace(db.exec("SELECT current_setting('data_directory') || '/pg_wal/' || pg_walfile_name(restart_lsn) FROM pg_replication_slots WHERE slot_name = '" + d.slot + "'"))
	db.exec("SELECT pg_switch_wal()", "INSERT INTO t VALUES (1)")
	require.NoError(t, os.Remove(file))
	s = db.resume(d, s.Start(), tables...)
	var err error
	for deadline := time.Now().Add(patience); err == nil && time.Now().Before(deadline); {
		_, err = s.Next(t.Context(), 100*time.Millisecond)
	}
	require.ErrorIs(t, err, cdc.ErrPositionLost)
	require.Regexp(t, `^The server has removed a part of its log that the replication slot "`+d.slot+`" still needs: requested WAL segment [0-9A-F]{24} has already been removed\. `, usererr.Message(err))
}

// A publication that is dropped while a capture runs ends it with advice (hard case 9).
func TestPublicationDropped(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	require.Empty(t, s.fence())
	db.exec(`DROP PUBLICATION "`+d.publication+`"`, "INSERT INTO t VALUES (1)")
	var err error
	for deadline := time.Now().Add(patience); err == nil && time.Now().Before(deadline); {
		_, err = s.Next(t.Context(), 100*time.Millisecond)
	}
	why := `publication "` + d.publication + `" does not exist`
	if d.server.major() >= 18 {
		why = `skipped loading publication "` + d.publication + `"` // it would go on without
	}
	require.ErrorIs(t, err, cdc.ErrPositionLost)
	require.Contains(t, usererr.Message(err), `The server cannot decode the slot "`+d.slot+`": `+why+`. Its log reaches back to before the publication "`+d.publication+`" was made, or the publication was dropped.`)
}

// A query that takes too long is repeated with less to read (hard case 31).
func TestStatementTimeout(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 200000) g")
	d := db.driver(func(c *config) { c.Advanced.StatementTimeout = "20ms" })
	table := db.tables(d, "t")[0]
	plan, err := d.Plan(t.Context(), table)
	require.NoError(t, err)
	interrupted, rows := 0, 0
	for {
		rows = 0
		_, err = d.Scan(t.Context(), cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 1 << 20, MaxBytes: 64 << 20}, func(cdc.Row) error { rows++; return nil })
		if err == nil {
			break
		}
		require.ErrorIs(t, err, cdc.ErrInterrupted)
		interrupted++
		require.Less(t, interrupted, 20)
	}
	require.Positive(t, interrupted)
	require.Positive(t, rows)
	require.Less(t, rows, 200_000)
}
