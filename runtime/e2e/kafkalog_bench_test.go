package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
)

// BenchmarkKafkaLog measures what a log on Kafka costs a capture: a pipeline that has nothing else reads a table into the log of its data folder, and into
// topics of a broker of this machine, in turns. The time is from when the connector is open until all rows are committed. The broker takes its share of
// the same cores, so what it used stands beside.
//
//	go test ./runtime/e2e -run '^$' -bench '^BenchmarkKafkaLog$' -benchtime 1x -timeout 30m
//
// SLUICE_BENCH_ROWS says how many rows, a million if it is not set; SLUICE_PPROF is handed to the runtime.
func BenchmarkKafkaLog(b *testing.B) {
	const pairs = 5
	rows := benchRows(b, 1_000_000)
	bins := binaries(b)
	cluster := server.Kafka(b, kafkad.Options{Measured: true})
	for b.Loop() {
		w := newWorldOn(b, bins, newSide(b, server.Postgres(b)), side{}, ticking,
			fmt.Sprintf("INSERT INTO ticks SELECT i, i %% 100, i / 100.0, 'a row of many', now() FROM generate_series(1, %d) AS i", rows), "VACUUM ANALYZE ticks", "CHECKPOINT")
		w.discover(b)
		w.intoLog(b, "kafka://"+cluster.Addresses(), "warm", rows) // the broker's machine compiles what it runs often
		var broker time.Duration
		result, err := ratio.Pairs(pairs, func(int) (ratio.Run, error) {
			return w.intoLog(b, "", "", rows), nil
		}, func(pair int) (ratio.Run, error) {
			before, err := ratio.Usage(cluster.PID(1))
			require.NoError(b, err)
			run := w.intoLog(b, "kafka://"+cluster.Addresses(), fmt.Sprintf("pair%d", pair), rows)
			after, err := ratio.Usage(cluster.PID(1))
			broker += after.CPU - before.CPU
			return run, err
		})
		require.NoError(b, err)
		require.NoError(b, ratio.Print(os.Stdout, "kafka-log/rows", result.Ratio, ratio.AtLeast, 0.6,
			fmt.Sprintf("%v, %.2f of it in a folder, %.2f of the broker", result, result.Limit.CPUPerMillion(), broker.Seconds()/pairs/float64(rows)*1e6)))
	}
}

// intoLog runs sluice with nothing but the capture until all rows are in its log: in a new data folder, or in new topics at an address.
func (w *world) intoLog(b *testing.B, url, prefix string, rows int) ratio.Run {
	b.Helper()
	w.catalog.Log = nil
	if url != "" {
		w.catalog.Log = map[string]any{"url": url, "topics": map[string]any{"prefix": prefix, "replication": 1}}
	}
	require.NoError(b, os.RemoveAll(w.data()))
	w.source.exec(b, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
	run := ratio.Run{Rows: int64(rows), Took: w.count(b, "capture", rows)}
	used, err := ratio.Usage(w.sluice.PID())
	require.NoError(b, err)
	run.CPU, run.Peak = used.CPU, used.Peak
	require.NoError(b, w.sluice.Stop())
	return run
}
