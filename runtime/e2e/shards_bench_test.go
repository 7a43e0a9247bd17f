package e2e

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
)

// BenchmarkShards measures how fast a materialization takes what waits in a log on Kafka with 1, 2 and 4 shards: each into a new table of Postgres with a key, in one
// process of sluice. The time is from when all connectors are open until all rows are committed. What sluice and its connectors, the broker and the server used
// of the machine's cores stands beside, since that is the limit where all of them share it.
//
//	go test ./runtime/e2e -run '^$' -bench '^BenchmarkShards$' -benchtime 1x -timeout 30m
//
// SLUICE_BENCH_ROWS says how many rows, a million if it is not set.
func BenchmarkShards(b *testing.B) {
	rows := benchRows(b, 1_000_000)
	bins := binaries(b)
	cluster := server.Kafka(b, kafkad.Options{Measured: true})
	for b.Loop() {
		pg := server.Postgres(b)
		w := newWorldOn(b, bins, newSide(b, pg), newSide(b, pg), ticking,
			fmt.Sprintf("INSERT INTO ticks SELECT i, i %% 100, i / 100.0, 'a row of many', now() FROM generate_series(1, %d) AS i", rows), "VACUUM ANALYZE ticks", "CHECKPOINT")
		w.discover(b)
		w.catalog.Log = map[string]any{"url": "kafka://" + cluster.Addresses(), "topics": map[string]any{"prefix": w.source.database, "partitions": 4, "replication": 1}}
		fill := func(shards int) float64 {
			schema := fmt.Sprintf("shards%d", shards)
			clear(w.catalog.Materializations)
			w.materialize(b, "e2e/"+schema, map[string]any{"schema": schema}, nil)
			w.catalog.Materializations["e2e/"+schema].Shards = shards
			before, err := ratio.Usage(cluster.PID(1))
			require.NoError(b, err)
			took := w.count(b, "materialization", rows)
			after, err := ratio.Usage(cluster.PID(1))
			require.NoError(b, err)
			sluice, err := ratio.Usage(w.sluice.PID())
			require.NoError(b, err)
			var connectors time.Duration
			for _, pid := range w.sluice.Connectors(launch.MaterializePostgres) {
				used, err := ratio.Usage(pid)
				require.NoError(b, err)
				connectors += used.CPU
			}
			require.NoError(b, w.sluice.Stop())
			w.copy.prints(b, strconv.Itoa(rows), "SELECT count(*) FROM "+schema+".ticks")
			rate, million := float64(rows)/took.Seconds(), 1e6/float64(rows)
			require.NoError(b, ratio.PrintOnly(os.Stdout, fmt.Sprintf("shards/%d-rows", shards), rate,
				fmt.Sprintf("rows a second; CPU s a million: sluice %.1f, connectors %.1f, the broker %.1f", sluice.CPU.Seconds()*million, connectors.Seconds()*million, (after.CPU-before.CPU).Seconds()*million)))
			return rate
		}
		w.count(b, "capture", rows)
		require.NoError(b, w.sluice.Stop())
		one := fill(1)
		for _, shards := range []int{2, 4} {
			require.NoError(b, ratio.PrintOnly(os.Stdout, fmt.Sprintf("shards/%d", shards), fill(shards)/one, "of the rate of one shard"))
		}
	}
}

// count starts sluice on the catalog, and gives the time from when all tasks are ready until those of a kind have committed so many documents.
func (w *world) count(b *testing.B, kind string, rows int) time.Duration {
	b.Helper()
	require.NoError(b, w.catalog.Write(w.pipeline()))
	address := freeAddress(b)
	w.restart(b, launch.Options{Metrics: address})
	eventually(b, arrival, func() bool {
		response, err := http.Get("http://" + address + "/readyz")
		if err != nil { // it does not serve yet
			return false
		}
		require.NoError(b, response.Body.Close())
		return response.StatusCode == http.StatusOK
	}, func() string { return "sluice does not become ready" })
	began := time.Now()
	each := regexp.MustCompile(`(?m)^sluice_documents_total\{.*kind="` + kind + `".*\} (\S+)$`)
	eventually(b, 10*arrival, func() bool {
		sum := 0.0
		for _, found := range each.FindAllStringSubmatch(get(b, "http://"+address+"/metrics"), -1) {
			n, err := strconv.ParseFloat(found[1], 64)
			require.NoError(b, err)
			sum += n
		}
		return int(sum) >= rows
	}, func() string { return fmt.Sprintf("no %d documents of a %s", rows, kind) })
	return time.Since(began)
}
