package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// The benchmarks measure the connector's binary against the machine's own limit, in turns, as docs/performance.md says:
//
//	go test ./source-postgres -run '^$' -bench '^BenchmarkBackfill$' -benchtime 1x -timeout 30m

const pairs = 5

// A benchTable is a kind of table that benchmarks read.
type benchTable struct {
	name    string
	columns string // behind the key, which is called id
	values  string // of them, from a row number g
	rows    int    // of a backfill; streams read half as many
	// The aims of the processor time of a million rows, in seconds; zero where the issue is only what it costs.
	backfillCPU, changesCPU float64
}

// benchTables are the seven columns that every figure is for, and three kinds of tables that cost differently.
func benchTables() []benchTable {
	const kinds = 7 // of columns that the wide table has in turns
	var columns, values []string
	for i := range 49 {
		kind := []string{"int", "bigint", "text", "timestamptz", "numeric", "boolean", "double precision"}[i%kinds]
		value := []string{
			"g %% 1000 + %d", "g::bigint * 1000003 + %d", "'text ' || g + %d", "'2020-01-01'::timestamptz + (g + %d) * interval '1.5 s'", "((g + %d) * 1.37)::numeric(20,2)",
			"(g + %d) %% 3 = 0", "(g + %d) / 7.0",
		}[i%kinds]
		columns, values = append(columns, fmt.Sprintf("c%d %s", i, kind)), append(values, fmt.Sprintf(value, i))
	}
	return []benchTable{
		{
			name: "", columns: "n int, txt text, ts timestamptz, amount numeric, doc jsonb, u uuid", rows: 2_000_000, backfillCPU: 0.8, changesCPU: 0.9,
			values: "(g * 7) % 100000, 'some text ' || g, '2020-01-01'::timestamptz + g * interval '1.2345 s', (g * 1.37)::numeric(20,2)," +
				" jsonb_build_object('a', g, 'b', 'value ' || g, 'c', true), md5(g::text)::uuid",
		},
		{name: "wide", columns: strings.Join(columns, ", "), values: strings.Join(values, ", "), rows: 200_000},
		{name: "2kB", columns: "body text", values: "repeat(md5(g::text), 62)", rows: 200_000},
		{
			name: "nested", columns: "numbers int[], words text[], moments timestamptz[], doc jsonb", rows: 400_000,
			values: "ARRAY[g, g + 1, NULL, g + 3], ARRAY['a', 'word ' || g, 'quote \" and \\ backslash'], ARRAY['2020-01-01'::timestamptz + g * interval '1 s', '2021-01-01']," +
				" jsonb_build_object('id', g, 'list', jsonb_build_array(g, g + 1, 'x'), 'sub', jsonb_build_object('k', 'v ' || g, 'n', g * 1.5))",
		},
	}
}

func (t benchTable) create(name string) string {
	return "CREATE TABLE " + name + " (id bigint PRIMARY KEY, " + t.columns + ")"
}

// fill makes rows from..to of the table.
func (t benchTable) fill(name string, from, to int) string {
	return fmt.Sprintf("INSERT INTO %s SELECT g, %s FROM generate_series(%d, %d) g", name, t.values, from, to)
}

// label is a benchmark's name for this kind of table.
func (t benchTable) label(name string) string {
	if t.name == "" {
		return name
	}
	return name + "-" + t.name
}

// bench is a server and the connector's binary.
type bench struct {
	*database
	binary string
	psql   string
}

func newBench(b *testing.B) *bench {
	b.Helper()
	pg := server.Postgres(b, server.WithSetting("shared_buffers", "512MB"), server.WithSetting("max_wal_size", "8GB"), server.WithSetting("autovacuum", "off"))
	psql, err := exec.LookPath("psql")
	if err != nil {
		psql = filepath.Join(pg.Installation().BinDir, "psql")
	}
	out := &bench{database: databaseOn(b, pg), binary: filepath.Join(b.TempDir(), "source-postgres"), psql: psql}
	out.cfg.Advanced.Options = nil // the decoding memory that users have
	build := exec.Command("go", "build", "-o", out.binary, ".")
	build.Stderr = os.Stderr
	require.NoError(b, build.Run())
	return out
}

// pull runs the connector until it has printed so many documents.
func (s *bench) pull(cfg config, state string, limit int) (ratio.Run, error) {
	args := []string{"pull", "--config", s.writeConfig(cfg), "--limit", fmt.Sprint(limit)}
	if state != "" {
		args = append(args, "--state", state)
	}
	cmd := exec.Command(s.binary, args...)
	var log strings.Builder
	cmd.Stderr = &log
	run, err := ratio.Command(cmd, int64(limit))
	if err != nil {
		return run, fmt.Errorf("%w: %s", err, log.String())
	}
	return run, nil
}

func (s *bench) writeConfig(cfg config) string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "config.json")
	text := session.Config(s.t, cfg)
	require.NoError(s.t, os.WriteFile(file, text, 0o600))
	return file
}

// show prints one figure.
func (s *bench) show(name string, value float64, op ratio.Op, aim float64, detail string) {
	s.t.Helper()
	require.NoError(s.t, ratio.Print(os.Stdout, "source-postgres/"+name, value, op, aim, detail))
}

// report prints the ratio, the CPU time where it has an aim, and the memory of a result.
func (s *bench) report(name string, result ratio.Result, aim, cpu float64) {
	s.t.Helper()
	s.show(name, result.Ratio, ratio.AtLeast, aim, result.String())
	if cpu > 0 {
		s.show(name+"-cpu", result.Ours.CPUPerMillion(), ratio.AtMost, cpu,
			fmt.Sprintf("CPU seconds a million documents, against %.2f", result.Limit.CPUPerMillion()))
	}
	s.show(name+"-memory", float64(result.Ours.Peak)/1e6, ratio.AtMost, 100, "MB")
}

// BenchmarkBackfill reads whole tables; the limit is psql's COPY of the same table.
func BenchmarkBackfill(b *testing.B) {
	for _, kind := range benchTables() {
		b.Run(kind.label("table"), func(b *testing.B) { benchBackfill(b, kind) })
	}
}

func benchBackfill(b *testing.B, kind benchTable) {
	s := newBench(b)
	s.exec(kind.create("t"), kind.fill("t", 1, kind.rows), "VACUUM FREEZE ANALYZE t")
	copyOut := func(int) (ratio.Run, error) {
		return ratio.Command(exec.Command(s.psql, s.pg.URL(s.cfg.Database), "-c", "COPY t TO STDOUT"), int64(kind.rows))
	}
	ours := func(int) (ratio.Run, error) { return s.pull(s.cfg, "", kind.rows) }
	for b.Loop() {
		result, err := ratio.Pairs(pairs, copyOut, ours)
		require.NoError(b, err)
		s.report(kind.label("backfill"), result, 0.7, kind.backfillCPU)
	}
}

// BenchmarkBackfillWorkers reads eight tables with four workers; the limit, which it must beat where the server has cores to
// give, is one worker.
func BenchmarkBackfillWorkers(b *testing.B) {
	const tables, rows = 8, 250_000
	s := newBench(b)
	kind := benchTables()[0]
	for i := range tables {
		name := fmt.Sprintf("t%d", i)
		s.exec(kind.create(name), kind.fill(name, 1, rows), "VACUUM FREEZE ANALYZE "+name)
	}
	with := func(workers int) func(int) (ratio.Run, error) {
		cfg := s.cfg
		cfg.Advanced.BackfillWorkers = workers
		return func(int) (ratio.Run, error) { return s.pull(cfg, "", tables*rows) }
	}
	for b.Loop() {
		result, err := ratio.Pairs(pairs, with(1), with(4))
		require.NoError(b, err)
		s.show("backfill-workers", result.Ratio, ratio.AtLeast, 1, result.String())
	}
}
