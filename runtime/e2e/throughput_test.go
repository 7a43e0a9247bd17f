package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// BenchmarkThroughputThrough measures a whole pipeline, Postgres to Postgres: the backfill of a table, and one update of each
// of its rows in transactions of a thousand. Beside the rate stands what each of the three processes took, since the
// runtime must not be what limits a pipeline. The limit of the backfill is COPY TO one server piped into COPY FROM the other.
//
//	go test ./runtime/e2e -run '^$' -bench '^BenchmarkThroughputThrough$' -benchtime 1x -timeout 30m
//
// SLUICE_BENCH_ROWS says how many rows, a million if it is not set; SLUICE_PPROF is handed to the runtime.
func BenchmarkThroughputThrough(b *testing.B) {
	rows := benchRows(b, 1_000_000)
	bins := binaries(b)
	for b.Loop() {
		const table = "CREATE TABLE rows (id bigint PRIMARY KEY, customer integer, note text, at timestamptz, amount numeric(10,2), tags jsonb, ref uuid)"
		w := newWorldOn(b, bins, newSide(b, server.Postgres(b)), newSide(b, server.Postgres(b)), table, fmt.Sprintf(
			`INSERT INTO rows SELECT i, i %% 1000, 'row number ' || i, '2020-01-01'::timestamptz + i * interval '1 second', i %% 100000 / 100.0,
				jsonb_build_object('n', i, 'tags', jsonb_build_array('a', 'b')), md5(i::text)::uuid FROM generate_series(1, %d) i`, rows), "CHECKPOINT")
		limit := w.pipe(b, table, rows)
		w.discover(b)
		w.materialize(b, "e2e/throughput", nil, nil)
		w.start(b)
		p := &processes{w: w, rows: rows}
		p.phase(b, "backfill", func() { p.await(b, "SELECT count(*) FROM rows") })
		require.NoError(b, ratio.Print(os.Stdout, "through/backfill", p.last/limit, ratio.AtLeast, 0.3,
			fmt.Sprintf("%.0f rows/s against %.0f of COPY to COPY", p.last, limit)))
		p.phase(b, "updates", func() {
			w.source.exec(b, fmt.Sprintf("DO $$BEGIN FOR i IN 0..%d LOOP UPDATE rows SET customer = customer + 1000 WHERE id > i * 1000 AND id <= i * 1000 + 1000; COMMIT; END LOOP; END$$", rows/1000))
			p.await(b, "SELECT count(*) FROM rows WHERE customer >= 1000")
		})
		require.NoError(b, w.sluice.Stop())
	}
}

// pipe copies the table with nothing in between, and returns rows a second.
func (w *world) pipe(b *testing.B, table string, rows int) float64 {
	b.Helper()
	w.copy.exec(b, table, "CHECKPOINT")
	from, to := w.source.connect(b).PgConn(), w.copy.connect(b).PgConn()
	began := time.Now()
	r, wr := io.Pipe()
	var g errgroup.Group
	g.Go(func() error {
		out := bufio.NewWriterSize(wr, 64<<10)
		_, err := from.CopyTo(b.Context(), out, "COPY rows TO STDOUT")
		if err == nil {
			err = out.Flush()
		}
		return wr.CloseWithError(err)
	})
	_, err := to.CopyFrom(b.Context(), r, "COPY rows FROM STDIN")
	require.NoError(b, err)
	require.NoError(b, g.Wait())
	took := time.Since(began)
	w.copy.exec(b, "DROP TABLE rows", "CHECKPOINT")
	return float64(rows) / took.Seconds()
}

// processes measures the runtime and its two connectors.
type processes struct {
	w    *world
	rows int
	last float64 // rows a second of the last phase
}

// phase measures a part of their lives, and prints a line for each process.
func (p *processes) phase(b *testing.B, name string, run func()) {
	b.Helper()
	before := p.usage()
	began := time.Now()
	run()
	p.last = float64(p.rows) / time.Since(began).Seconds()
	after := p.usage()
	for _, process := range []struct {
		name string
		aim  float64
	}{{"sluice", 6.6}, {launch.SourcePostgres, 2}, {launch.MaterializePostgres, 3}} { // 6.6: 150,000 rows a second of one core
		cpu := (after[process.name].CPU - before[process.name].CPU).Seconds() / float64(p.rows) * 1e6
		require.NoError(b, ratio.Print(os.Stdout, "through/"+name+"-cpu-"+process.name, cpu, ratio.AtMost, process.aim,
			fmt.Sprintf("CPU seconds a million rows; %.0f rows/s, peak %.0f MB", p.last, float64(after[process.name].Peak)/1e6)))
	}
}

func (p *processes) usage() map[string]ratio.Run {
	used := map[string]ratio.Run{}
	used["sluice"], _ = ratio.Usage(p.w.sluice.PID())
	for _, name := range []string{launch.SourcePostgres, launch.MaterializePostgres, launch.MaterializeParquet} {
		for _, pid := range p.w.sluice.Connectors(name) {
			used[name], _ = ratio.Usage(pid)
		}
	}
	return used
}

// await waits until a query in the destination says that all rows are there.
func (p *processes) await(b *testing.B, sql string) {
	b.Helper()
	conn := p.w.copy.connect(b)
	eventually(b, 20*time.Minute, func() bool {
		var n int
		err := conn.QueryRow(b.Context(), sql).Scan(&n)
		return err == nil && n == p.rows
	}, func() string { return sql + " does not become all" })
}
