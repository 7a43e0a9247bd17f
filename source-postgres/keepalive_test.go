package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// Keepalives outrun changes that are not delivered yet: the server sends them in the middle of long transactions and while a
// reader lags behind. Whatever position they lead to, everything before it has been delivered; and the server is told to forget
// only what is durable, not what has merely been heard of. So a capture that dies at any moment and goes on from its last
// durable position misses nothing and repeats nothing (hard cases 4 and 5).
func TestKeepalivesSkipNothing(t *testing.T) {
	t.Parallel()
	// A walsender that waits for its client for half of this asks for an answer; it looks at the time while it sends, too.
	pg := server.Postgres(t, server.WithSetting("wal_sender_timeout", "600ms"))
	db := databaseOn(t, pg)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "CREATE TABLE other (a text)")
	d := db.driver()
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	position := s.Start()

	const writers, transactions = 3, 15
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() { keepWriting(t, db, w, transactions) })
	}
	written := make(chan struct{})
	go func() { wg.Wait(); close(written) }()

	r := &keepaliveReader{t: t, db: db, tables: tables, s: s, position: position, seen: map[string]int{}, rng: rand.New(rand.NewPCG(5, 5))}
	r.hasten()
	for done := false; !done; {
		r.read(time.Now().Add(100 * time.Millisecond))
		select {
		case <-written:
			done = true
		default:
		}
	}
	r.calm = true
	db.exec("CHECKPOINT") // what it logs belongs to no commit
	end := mustLSN(t, db.exec("SELECT pg_current_wal_flush_lsn()"))
	for deadline := time.Now().Add(patience); mustLSN(t, string(r.position.Cursor)) < end; {
		require.True(t, time.Now().Before(deadline), "the position does not reach %s", end)
		r.read(time.Now().Add(50 * time.Millisecond))
	}
	rows, err := strconv.Atoi(strings.TrimSpace(db.exec("SELECT count(*) FROM t")))
	require.NoError(t, err)
	require.Equal(t, rows, len(r.seen))
	for row, n := range r.seen {
		require.Equal(t, 1, n, row)
	}
	require.Positive(t, r.idle, "positions by keepalives alone")
	t.Logf("%d rows, %d positions by commits, %d by keepalives, resumed %d times", rows, r.commits, r.idle, r.resumed)
}

// keepWriting inserts rows in transactions of all sizes, some of them open for long, beside changes that are not captured.
func keepWriting(t *testing.T, db *database, writer, transactions int) {
	conn := db.connect()
	rng := rand.New(rand.NewPCG(uint64(writer), 9)) //nolint:gosec // not negative
	for i := range transactions {
		rows := []int{1, 5, 1000}[rng.IntN(3)]
		first := (writer*transactions + i) * 10_000
		sql := fmt.Sprintf("BEGIN; INSERT INTO t SELECT %d + g, repeat('x', 50) FROM generate_series(1, %d) g; SELECT pg_sleep(%f); "+
			"INSERT INTO other SELECT 'x' FROM generate_series(1, %d); COMMIT", first, rows, 0.06*rng.Float64(), rng.IntN(200))
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Errorf("writer %d: %v", writer, err)
			return
		}
	}
}

// keepaliveReader reads as a capture does that makes some positions durable, and dies now and then.
type keepaliveReader struct {
	t        *testing.T
	db       *database
	tables   []*cdc.Table
	s        *testStream
	position cdc.Position
	open     []string // rows of the transaction that is open
	pending  []string // rows that were delivered since the position
	seen     map[string]int
	rng      *rand.Rand
	calm     bool // everything becomes durable

	commits, idle, resumed int
}

// hasten has the server say all the time how far it is: a fence that is never passed is outstanding.
func (r *keepaliveReader) hasten() {
	r.t.Helper()
	require.NoError(r.t, r.s.Fence(r.t.Context(), "FFFFFFFF/0"))
}

func (r *keepaliveReader) read(until time.Time) {
	r.t.Helper()
	for time.Now().Before(until) {
		r.s.Stream.(*stream).cursorAt = time.Time{} // every chance to move on is taken
		ev, err := r.s.Next(r.t.Context(), 5*time.Millisecond)
		require.NoError(r.t, err)
		switch {
		case ev.Op == cdc.Insert:
			r.open = append(r.open, cdctest.Fields(r.t, ev.Row))
		case ev.Op == cdc.Commit:
			r.commits++
			r.pending = append(r.pending, r.open...)
			r.open = nil
		case ev.Cursor != "":
			r.idle++
		}
		if ev.Cursor != "" && (r.calm || r.rng.IntN(3) == 0) {
			r.keep(ev.Cursor)
		}
		if !r.calm && (r.rng.IntN(3000) == 0 || ev.Cursor != "" && r.rng.IntN(5) == 0) {
			r.die()
		}
	}
}

// keep makes durable what was delivered, and lets the server forget it.
func (r *keepaliveReader) keep(at cdc.Cursor) {
	for _, row := range r.pending {
		r.seen[row]++
	}
	r.pending, r.position.Cursor = nil, at
	r.s.Ack(at)
}

// die forgets what is not durable, and goes on from what is.
func (r *keepaliveReader) die() {
	r.t.Helper()
	r.resumed++
	r.open, r.pending = nil, nil
	r.s.close()
	r.s = r.db.resume(r.s.d, r.position, r.tables...)
	r.hasten()
}
