package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// BenchmarkParquetThrough measures the way from Postgres through `sluice run` into Parquet files, as a DuckDB sees it that is
// started for every look: how long a commit takes until its row is in a query's answer, and how many inserted rows a second
// arrive when there are many (SLUICE_BENCH_ROWS, a million). The starts of DuckDB are in the times.
//
//	go test ./runtime/e2e -run '^$' -bench '^BenchmarkParquetThrough$' -benchtime 1x
func BenchmarkParquetThrough(b *testing.B) {
	duckdb.Need(b)
	bins := binaries(b)
	for b.Loop() {
		w := newWorldOn(b, bins, newSide(b, server.Postgres(b)), side{}, ticking, firstTick)
		folder := b.TempDir()
		w.discover(b)
		require.NoError(b, w.catalog.Materialize("e2e/lake", launch.Parquet(bins, folder, "0s"), launch.IntoPath))
		w.start(b)
		files := folder + "/ticks/v0000/*.parquet"
		awaitParquet(b, files, 1)
		commitsToQueries(b, w, files)

		rows := 1_000_000
		if text := os.Getenv("SLUICE_BENCH_ROWS"); text != "" {
			var err error
			rows, err = strconv.Atoi(text)
			require.NoError(b, err)
		}
		const each = 10_000
		began := time.Now()
		for at := range rows / each {
			w.source.exec(b, fmt.Sprintf("INSERT INTO ticks SELECT %d + i, i %% 100, i / 100.0, 'a row of many', now() FROM generate_series(1, %d) AS i", 1000+at*each, each))
		}
		wrote := time.Since(began)
		awaitParquet(b, files, commits+1+rows/each*each)
		took := time.Since(began)
		require.NoError(b, ratio.Print(os.Stdout, "parquet/rows", float64(rows)/took.Seconds(), ratio.AtLeast, 150_000,
			fmt.Sprintf("rows a second from the first INSERT on, of %d, in transactions of %d; the INSERTs alone took %.1f of %.1f s", rows, each, wrote.Seconds(), took.Seconds())))
		require.NoError(b, w.sluice.Stop())
	}
}

// commits is how many single rows are looked for.
const commits = 40

func commitsToQueries(b *testing.B, w *world, files string) {
	b.Helper()
	conn := w.source.connect(b)
	times := make([]time.Duration, 0, commits)
	for id := 1; id <= commits; id++ {
		_, err := conn.Exec(b.Context(), "INSERT INTO ticks VALUES ($1, 1, 1, 'one row', now())", id)
		require.NoError(b, err)
		began := time.Now()
		awaitParquet(b, files, id+1)
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	ms := func(q float64) float64 { return float64(times[int(q*(commits-1))]) / float64(time.Millisecond) }
	require.NoError(b, ratio.Print(os.Stdout, "parquet/latency-p50", ms(0.5), ratio.AtMost, 350,
		fmt.Sprintf("ms from commit to the answer of a query; 90%% %.0f, most %.0f", ms(0.9), ms(1))))
}

// awaitParquet waits until the files have so many rows.
func awaitParquet(b *testing.B, files string, rows int) {
	b.Helper()
	last := ""
	deadline := time.Now().Add(10 * arrival)
	for want := strconv.Itoa(rows); last != want; {
		require.True(b, time.Now().Before(deadline), "the files have %s rows of %s", last, want)
		out, err := duckdb.Run(b.Context(), "", "jsonlines", fmt.Sprintf("SELECT count(*) AS n FROM read_parquet('%s')", files))
		if err != nil { // there are no files yet
			last = err.Error()
			continue
		}
		var row struct{ N json.Number }
		require.NoError(b, json.Unmarshal(out, &row))
		last = row.N.String()
	}
}
