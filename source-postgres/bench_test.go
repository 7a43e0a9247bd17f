package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// The benchmarks measure the connector's binary against the machine's own limit, in turns, as docs/performance.md says:
//
//	go test ./source-postgres -run '^$' -bench '^BenchmarkBackfill$' -benchtime 1x -timeout 30m

const (
	benchColumns = "id bigint PRIMARY KEY, n int, txt text, ts timestamptz, amount numeric, doc jsonb, u uuid"
	pairs        = 5
)

// benchRows makes rows of the seven columns.
func benchRows(table string, rows int) string {
	return "INSERT INTO " + table + ` SELECT g, (g * 7) % 100000, 'some text ' || g, '2020-01-01'::timestamptz + g * interval '1.2345 s', (g * 1.37)::numeric(20,2),
		jsonb_build_object('a', g, 'b', 'value ' || g, 'c', true), md5(g::text)::uuid FROM generate_series(1, ` + fmt.Sprint(rows) + `) g`
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
	text, err := json.Marshal(cfg)
	require.NoError(s.t, err)
	require.NoError(s.t, os.WriteFile(file, text, 0o600))
	return file
}

// report prints the ratio, the CPU time and the memory of a result.
func (s *bench) report(name string, result ratio.Result, aim float64) {
	show := func(name string, value float64, op ratio.Op, aim float64, detail string) {
		require.NoError(s.t, ratio.Print(os.Stdout, "source-postgres/"+name, value, op, aim, detail))
	}
	show(name, result.Ratio, ratio.AtLeast, aim, result.String())
	show(name+"-cpu", result.Ours.CPUPerMillion(), ratio.AtMost, 1.2,
		fmt.Sprintf("CPU seconds a million documents, against %.2f", result.Limit.CPUPerMillion()))
	show(name+"-memory", float64(result.Ours.Peak)/1e6, ratio.AtMost, 100, "MB")
}

// BenchmarkBackfill reads two million rows of seven columns; the limit is psql's COPY of the same table.
func BenchmarkBackfill(b *testing.B) {
	s := newBench(b)
	const rows = 2_000_000
	s.exec("CREATE TABLE t ("+benchColumns+")", benchRows("t", rows), "VACUUM FREEZE ANALYZE t")
	copyOut := func(int) (ratio.Run, error) {
		return ratio.Command(exec.Command(s.psql, s.pg.URL(s.cfg.Database), "-c", "COPY t TO STDOUT"), rows)
	}
	ours := func(int) (ratio.Run, error) { return s.pull(s.cfg, "", rows) }
	for b.Loop() {
		result, err := ratio.Pairs(pairs, copyOut, ours)
		require.NoError(b, err)
		s.report("backfill", result, 0.7)
	}
}

// BenchmarkChanges reads a million inserted rows from a slot; the limit is a bare reader that discards what the same slot
// sends.
func BenchmarkChanges(b *testing.B) {
	s := newBench(b)
	s.exec("CREATE TABLE t (" + benchColumns + ")")
	state := s.beginSlot()
	const rows = 1_000_000
	s.exec("CREATE TABLE src ("+benchColumns+")", benchRows("src", rows))
	s.exec(`DO $$ BEGIN FOR i IN 0..999 LOOP INSERT INTO t SELECT * FROM src WHERE id > i * 1000 AND id <= (i + 1) * 1000; COMMIT; END LOOP; END $$`)
	for b.Loop() {
		s.changes("changes", state, rows, pairs)
	}
}

// BenchmarkGiantTransaction does the same with five million rows of one transaction.
func BenchmarkGiantTransaction(b *testing.B) {
	s := newBench(b)
	s.exec("CREATE TABLE t (" + benchColumns + ")")
	state := s.beginSlot()
	const rows = 5_000_000
	s.exec(benchRows("t", rows))
	for b.Loop() {
		s.changes("giant-transaction", state, rows, 1)
	}
}

// beginSlot runs the connector until it streams, and returns its state. The capture's slot stays where it is; readers
// read copies of it.
func (s *bench) beginSlot() []byte {
	s.t.Helper()
	s.cfg.Advanced.PublicationName = "bench"
	file := filepath.Join(s.t.TempDir(), "state.json")
	cmd := exec.Command(s.binary, "pull", "--config", s.writeConfig(s.cfg), "--state", file)
	cmd.Stderr = os.Stderr
	require.NoError(s.t, cmd.Start())
	var text []byte
	eventually(s.t, "the capture streams", func() bool {
		text, _ = os.ReadFile(file)
		return strings.Contains(string(text), `"phase":"live"`)
	})
	require.NoError(s.t, cmd.Process.Signal(os.Interrupt))
	require.NoError(s.t, cmd.Wait())
	return text
}

func (s *bench) changes(name string, state []byte, rows, pairs int) {
	s.t.Helper()
	end := strings.TrimSpace(s.exec("SELECT pg_current_wal_insert_lsn()"))
	slots := 0
	slot := func(who string) string {
		slots++
		name := fmt.Sprintf("%s_%d", who, slots)
		s.exec(fmt.Sprintf("SELECT pg_copy_logical_replication_slot('%s', '%s')", s.cfg.Advanced.SlotName, name))
		return name
	}
	bare := func(int) (ratio.Run, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestBareReader$")
		cmd.Env = append(os.Environ(), "SLUICE_BARE_READER="+strings.Join([]string{s.pg.URL(s.cfg.Database), slot("bare"), end}, " "))
		cmd.Stderr = os.Stderr
		return ratio.Command(cmd, int64(rows))
	}
	ours := func(int) (ratio.Run, error) {
		cfg := s.cfg
		cfg.Advanced.SlotName = slot("ours")
		file := filepath.Join(s.t.TempDir(), "state.json")
		text := strings.ReplaceAll(string(state), fmt.Sprintf("%q", s.cfg.Advanced.SlotName), fmt.Sprintf("%q", cfg.Advanced.SlotName))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return ratio.Run{}, err
		}
		return s.pull(cfg, file, rows)
	}
	result, err := ratio.Pairs(pairs, bare, ours)
	require.NoError(s.t, err)
	s.report(name, result, 0.95)
}

// TestBareReader is the other side of BenchmarkChanges, a process of its own: it reads what a slot sends as a replication
// client usually does, looks at nothing but the positions, and stops at the end.
func TestBareReader(t *testing.T) {
	args := strings.Fields(os.Getenv("SLUICE_BARE_READER"))
	if len(args) != 3 {
		t.Skip("is run by BenchmarkChanges")
	}
	end := mustLSN(t, args[2])
	cfg, err := pgconn.ParseConfig(args[0])
	require.NoError(t, err)
	cfg.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(context.Background(), cfg)
	require.NoError(t, err)
	conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT " + args[1] + " LOGICAL 0/0 (proto_version '1', publication_names 'bench')"})
	require.NoError(t, conn.Frontend().Flush())
	for {
		m, err := conn.ReceiveMessage(context.Background())
		require.NoError(t, err)
		if data, ok := m.(*pgproto3.CopyData); ok && bareEnd(t, conn.Conn(), data.Data, end) {
			return
		}
	}
}

// bareEnd answers keepalives that want it, and reports whether the end is reached.
func bareEnd(t *testing.T, conn net.Conn, m []byte, end lsn) bool {
	switch {
	case len(m) > 26 && m[0] == 'w' && m[25] == 'C':
		return lsn(binary.BigEndian.Uint64(m[35:])) >= end
	case len(m) >= 18 && m[0] == 'k':
		if m[17] == 1 {
			require.NoError(t, (&feedback{conn: conn}).send(false))
		}
		return lsn(binary.BigEndian.Uint64(m[1:])) >= end
	}
	return false
}
