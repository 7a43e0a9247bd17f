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
		awaitParquet(b, files, 1, 0)
		commitsToQueries(b, w, files)

		rows := benchRows(b, 1_000_000)
		const each = 10_000
		began := time.Now()
		for at := range rows / each {
			w.source.exec(b, fmt.Sprintf("INSERT INTO ticks SELECT %d + i, i %% 100, i / 100.0, 'a row of many', now() FROM generate_series(1, %d) AS i", 1000+at*each, each))
		}
		wrote := time.Since(began)
		awaitParquet(b, files, commits+1+rows/each*each, betweenLooks)
		took := time.Since(began)
		require.NoError(b, ratio.Print(os.Stdout, "parquet/rows", float64(rows)/took.Seconds(), ratio.AtLeast, 150_000,
			fmt.Sprintf("rows a second from the first INSERT on, of %d, in transactions of %d; the INSERTs alone took %.1f of %.1f s", rows, each, wrote.Seconds(), took.Seconds())))
		require.NoError(b, w.sluice.Stop())
	}
}

// BenchmarkParquetWaiting measures how fast Parquet files catch up with what waits in Postgres, so that nothing but `sluice run` and
// its connectors limits it: a table that exists already (SLUICE_BENCH_ROWS, three million), and then as many rows that were inserted
// while the pipeline stood still, in transactions of 10,000. The time is from the start of sluice to the answer of a DuckDB that counts
// them all in whole, committed files.
//
//	go test ./runtime/e2e -run '^$' -bench '^BenchmarkParquetWaiting$' -benchtime 1x -timeout 60m
func BenchmarkParquetWaiting(b *testing.B) {
	duckdb.Need(b)
	bins := binaries(b)
	for b.Loop() {
		rows := benchRows(b, 3_000_000)
		const row = "i, i % 100, i / 100.0, 'a row of many', now()"
		w := newWorldOn(b, bins, newSide(b, server.Postgres(b)), side{}, ticking,
			fmt.Sprintf("INSERT INTO ticks SELECT %s FROM generate_series(1, %d) AS i", row, rows), "VACUUM ANALYZE ticks", "CHECKPOINT")
		folder := b.TempDir()
		w.discover(b)
		require.NoError(b, w.catalog.Materialize("e2e/lake", launch.Parquet(bins, folder, "0s"), launch.IntoPath))
		require.NoError(b, w.catalog.Write(w.pipeline()))
		files := folder + "/ticks/v0000/*.parquet"

		w.catchUp(b, "backfill", files, rows, rows)
		require.NoError(b, w.sluice.Stop())
		w.source.exec(b, fmt.Sprintf("DO $$BEGIN FOR at IN 0..%d LOOP INSERT INTO ticks SELECT %s FROM generate_series(%d + at * 10000 + 1, least(%[3]d + at * 10000 + 10000, %[4]d)) AS i; COMMIT; END LOOP; END$$",
			(rows-1)/10_000, row, rows, 2*rows), "CHECKPOINT")
		w.catchUp(b, "log", files, rows, 2*rows)
		require.NoError(b, w.sluice.Stop())
	}
}

// catchUp starts sluice, waits until the files have so many rows, and prints at which rate those that are new arrived.
func (w *world) catchUp(b *testing.B, name, files string, fresh, rows int) {
	b.Helper()
	began := time.Now()
	w.restart(b, launch.Options{})
	awaitParquet(b, files, rows, betweenLooks)
	took := time.Since(began)
	used := (&processes{w: w}).usage()
	detail := ""
	for _, process := range []string{"sluice", launch.SourcePostgres, launch.MaterializeParquet} {
		detail += fmt.Sprintf("; %s %.1f CPU s a million, %.0f MB", process, used[process].CPU.Seconds()/float64(fresh)*1e6, float64(used[process].Peak)/1e6)
	}
	require.NoError(b, ratio.Print(os.Stdout, "parquet/"+name+"-rows", float64(fresh)/took.Seconds(), ratio.AtLeast, 150_000,
		fmt.Sprintf("rows a second from the start of sluice on, of %d in %.1f s%s", fresh, took.Seconds(), detail)))
}

// benchRows is SLUICE_BENCH_ROWS, or what is usual.
func benchRows(b *testing.B, usual int) int {
	b.Helper()
	text := os.Getenv("SLUICE_BENCH_ROWS")
	if text == "" {
		return usual
	}
	rows, err := strconv.Atoi(text)
	require.NoError(b, err, "SLUICE_BENCH_ROWS")
	return rows
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
		awaitParquet(b, files, id+1, 0)
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	ms := func(q float64) float64 { return float64(times[int(q*(commits-1))]) / float64(time.Millisecond) }
	require.NoError(b, ratio.Print(os.Stdout, "parquet/latency-p50", ms(0.5), ratio.AtMost, 350,
		fmt.Sprintf("ms from commit to the answer of a query; 90%% %.0f, most %.0f", ms(0.9), ms(1))))
}

// betweenLooks is how long nobody looks where a rate is measured: looks one after the other would take a core from what they measure.
// What they miss counts against us.
const betweenLooks = 250 * time.Millisecond

// awaitParquet waits until the files have so many rows, and pauses between two looks.
func awaitParquet(b *testing.B, files string, rows int, pause time.Duration) {
	b.Helper()
	last, want := "", strconv.Itoa(rows)
	deadline := time.Now().Add(10 * arrival)
	for ; ; time.Sleep(pause) { //nolint:forbidigo // polling with a deadline
		require.True(b, time.Now().Before(deadline), "the files have %s rows of %s", last, want)
		out, err := duckdb.Run(b.Context(), "", "jsonlines", fmt.Sprintf("SELECT count(*) AS n FROM read_parquet('%s')", files))
		if err != nil { // there are no files yet
			last = err.Error()
			continue
		}
		var row struct{ N json.Number }
		require.NoError(b, json.Unmarshal(out, &row))
		if last = row.N.String(); last == want {
			return
		}
	}
}
