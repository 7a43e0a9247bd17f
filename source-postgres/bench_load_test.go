package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/ratio"
)

// BenchmarkBackfillUnderLoad backfills a table while another one gets ten thousand rows a second, and looks how far the
// reading of the log falls behind: the log has priority, so it must stay drained.
func BenchmarkBackfillUnderLoad(b *testing.B) {
	const rows = 3_000_000
	kind := benchTables()[0]
	s := newBench(b)
	s.exec(kind.create("t"), kind.fill("t", 1, rows), "VACUUM FREEZE ANALYZE t", kind.create("busy"))
	for b.Loop() {
		ctx, stop := context.WithCancel(b.Context())
		written := s.write(ctx, kind, "busy")
		begin := time.Now()
		behind, took := s.backfillWatched()
		stop()
		log := <-written / time.Since(begin).Seconds()
		slices.Sort(behind)
		at := func(share float64) float64 { return behind[int(share*float64(len(behind)-1))] / log }
		s.show("backfill-under-load-lag", at(1), ratio.AtMost, 1, fmt.Sprintf(
			"seconds of log that were not read, at most; %.3f at 95 %%, %.3f at half of %d moments; %.1f MB/s of log, %.0f rows/s backfilled",
			at(0.95), at(0.5), len(behind), log/1e6, rows/took.Seconds()))
	}
}

// write inserts fifty rows every five milliseconds until the context is over, and then sends how many bytes of log there
// came to be.
func (s *bench) write(ctx context.Context, kind benchTable, table string) <-chan float64 {
	s.t.Helper()
	conn := s.connect()
	var before, after float64
	const position = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
	require.NoError(s.t, conn.QueryRow(ctx, position).Scan(&before))
	written := make(chan float64, 1)
	go func() {
		defer close(written)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 1; ctx.Err() == nil; n += 50 {
			if _, err := conn.Exec(context.WithoutCancel(ctx), kind.fill(table, n, n+49)); err != nil {
				return
			}
			<-tick.C
		}
		if conn.QueryRow(context.WithoutCancel(ctx), position).Scan(&after) == nil {
			written <- after - before
		}
	}()
	return written
}

// backfillWatched runs the connector until everything is backfilled. It returns how many bytes of log the server had not
// been able to send, every twenty milliseconds.
func (s *bench) backfillWatched() (behind []float64, took time.Duration) {
	s.t.Helper()
	conn := s.connect()
	file := filepath.Join(s.t.TempDir(), "state.json")
	cmd := exec.Command(s.binary, "pull", "--config", s.writeConfig(s.cfg), "--state", file)
	cmd.Stderr = os.Stderr
	require.NoError(s.t, cmd.Start())
	begin := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for live := 0; live < 2; {
		<-tick.C
		rows, err := conn.Query(s.t.Context(), "SELECT pg_current_wal_flush_lsn() - sent_lsn FROM pg_stat_replication WHERE sent_lsn IS NOT NULL")
		require.NoError(s.t, err)
		for rows.Next() {
			var n float64
			require.NoError(s.t, rows.Scan(&n))
			behind = append(behind, max(n, 0))
		}
		require.NoError(s.t, rows.Err())
		text, _ := os.ReadFile(file)
		live = strings.Count(string(text), `"phase":"live"`)
		require.Less(s.t, time.Since(begin), 10*time.Minute, "the backfill does not end")
	}
	took = time.Since(begin)
	require.NoError(s.t, cmd.Process.Signal(os.Interrupt))
	require.NoError(s.t, cmd.Wait())
	require.NotEmpty(s.t, behind)
	return behind, took
}
