package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
)

// BenchmarkChanges reads inserted rows from a slot, a thousand in each transaction. The limits are a bare reader that
// discards what the same slot sends, and for the seven columns also pg_recvlogical. Of those it also looks what it costs to do nothing but
// read the messages as we do, in large pieces, and discard them: below that nobody gets.
func BenchmarkChanges(b *testing.B) {
	for _, kind := range benchTables() {
		b.Run(kind.label("table"), func(b *testing.B) { benchChanges(b, kind) })
	}
}

func benchChanges(b *testing.B, kind benchTable) {
	s := newBench(b)
	s.exec(kind.create("t"))
	state := s.beginSlot()
	rows := kind.rows / 2
	s.exec(kind.create("src"), kind.fill("src", 1, rows))
	s.exec(fmt.Sprintf(`DO $$ BEGIN FOR i IN 0..%d LOOP INSERT INTO t SELECT * FROM src WHERE id > i * 1000 AND id <= (i + 1) * 1000; COMMIT; END LOOP; END $$`, rows/1000-1))
	s.exec("DROP TABLE src") // else it would be captured, too
	r := s.readers(state, rows)
	for b.Loop() {
		result, err := ratio.Pairs(pairs, r.bare, r.ours)
		require.NoError(b, err)
		s.report(kind.label("changes"), result, 0.95, kind.changesCPU)
		if kind.name != "" {
			continue
		}
		result, err = ratio.Pairs(3, r.gathering, r.ours)
		require.NoError(b, err)
		require.NoError(b, ratio.PrintOnly(os.Stdout, "source-postgres/changes-reading-cpu", result.Limit.CPUPerMillion(),
			fmt.Sprintf("CPU seconds a million only to read the messages in large pieces, %.2f of what the connector costs beside it", result.Limit.CPUPerMillion()/result.Ours.CPUPerMillion())))
		if r.recvlogical == nil {
			continue
		}
		result, err = ratio.Pairs(3, r.recvlogical, r.ours)
		require.NoError(b, err)
		s.show("changes-recvlogical", result.Ratio, ratio.AtLeast, 0.95, result.String())
	}
}

// BenchmarkGiantTransaction does the same with five million rows of one transaction, or as many as SLUICE_GIANT_ROWS says, in
// pieces and whole. Then it looks how soon after the commit a fifth of that has come, in pieces compared with whole.
func BenchmarkGiantTransaction(b *testing.B) {
	kind := benchTables()[0]
	s := newBench(b)
	s.exec(kind.create("t"))
	state := s.beginSlot()
	rows := 5_000_000
	if n, err := strconv.Atoi(os.Getenv("SLUICE_GIANT_ROWS")); err == nil {
		rows = n
	}
	_, err := s.connect().Exec(b.Context(), kind.fill("t", 1, rows)) // takes longer than exec allows
	require.NoError(b, err)
	r := s.readers(state, rows)
	for b.Loop() {
		for _, choice := range []string{streamOn, streamOff} {
			s.cfg.Advanced.StreamTransactions = choice
			result, err := ratio.Pairs(1, r.bare, r.ours)
			require.NoError(b, err)
			s.report(map[string]string{streamOn: "giant-transaction", streamOff: "giant-transaction-whole"}[choice], result, 0.95, kind.changesCPU)
		}
		pieces, whole := afterCommit(b, kind, rows/5, streamOn), afterCommit(b, kind, rows/5, streamOff)
		s.show("giant-transaction-after-commit", pieces.Seconds()/whole.Seconds(), ratio.AtMost, 0.5,
			fmt.Sprintf("of the time from commit to last row: %.2f s in pieces, %.2f s whole, of %d rows", pieces.Seconds(), whole.Seconds(), rows/5))
	}
}

// afterCommit is how long after its commit a transaction of so many rows has been captured by a connector that was waiting
// for it.
func afterCommit(b *testing.B, kind benchTable, rows int, choice string) time.Duration {
	b.Helper()
	s := newBench(b)
	s.exec(kind.create("t"))
	s.cfg.Advanced.StreamTransactions = choice
	ended := make(chan error, 1)
	var at time.Time
	go func() {
		_, err := s.pull(s.cfg, filepath.Join(s.t.TempDir(), "state.json"), rows)
		at = time.Now()
		ended <- err
	}()
	eventually(s.t, "the capture streams", func() bool {
		return strings.TrimSpace(s.exec("SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE state = 'streaming'")) == "1"
	})
	_, err := s.connect().Exec(b.Context(), kind.fill("t", 1, rows))
	require.NoError(s.t, err)
	committed := time.Now()
	require.NoError(s.t, <-ended)
	return at.Sub(committed)
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

// readers read what the capture's slot holds, each run from a copy of it. Without the program of the server's distribution,
// recvlogical is nil.
type readers struct {
	bare, gathering, ours, recvlogical func(pair int) (ratio.Run, error)
}

func (s *bench) readers(state []byte, rows int) readers {
	s.t.Helper()
	end := strings.TrimSpace(s.exec("SELECT pg_current_wal_insert_lsn()"))
	slots := 0
	slot := func(who string) string {
		slots++
		name := fmt.Sprintf("%s_%d", who, slots)
		s.exec(fmt.Sprintf("SELECT pg_copy_logical_replication_slot('%s', '%s')", s.cfg.Advanced.SlotName, name))
		return name
	}
	var r readers
	reader := func(name string) func(int) (ratio.Run, error) {
		return func(int) (ratio.Run, error) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestBareReader$")
			cmd.Env = append(os.Environ(), "SLUICE_BARE_READER="+strings.Join([]string{name, s.pg.URL(s.cfg.Database), slot(name), end}, " "))
			cmd.Stderr = os.Stderr
			return ratio.Command(cmd, int64(rows))
		}
	}
	r.bare, r.gathering = reader("bare"), reader("gathering")
	r.ours = func(int) (ratio.Run, error) {
		cfg := s.cfg
		cfg.Advanced.SlotName = slot("ours")
		file := filepath.Join(s.t.TempDir(), "state.json")
		text := strings.ReplaceAll(string(state), fmt.Sprintf("%q", s.cfg.Advanced.SlotName), fmt.Sprintf("%q", cfg.Advanced.SlotName))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return ratio.Run{}, err
		}
		return s.pull(cfg, file, rows)
	}
	if program, err := exec.LookPath(filepath.Join(s.pg.Installation().BinDir, "pg_recvlogical")); err == nil {
		r.recvlogical = func(int) (ratio.Run, error) {
			cmd := exec.Command(program, "--dbname", s.pg.URL(s.cfg.Database), "--slot", slot("recv"), "--start", "--no-loop", "--file", os.DevNull,
				"--endpos", end, "--option", "proto_version=1", "--option", "publication_names=bench")
			cmd.Stderr = os.Stderr
			return ratio.Command(cmd, int64(rows))
		}
	}
	return r
}

// TestBareReader is the other side of BenchmarkChanges, a process of its own: it reads what a slot sends, looks at nothing but the positions,
// and stops at the end. One that is called bare reads as a replication client usually does, one that is gathering as we do.
func TestBareReader(t *testing.T) {
	args := strings.Fields(os.Getenv("SLUICE_BARE_READER"))
	if len(args) != 4 {
		t.Skip("is run by BenchmarkChanges")
	}
	end := mustLSN(t, args[3])
	cfg, err := pgconn.ParseConfig(args[1])
	require.NoError(t, err)
	cfg.RuntimeParams["replication"] = "database"
	read := readBare
	if args[0] == "gathering" {
		read = gathering(cfg)
	}
	conn, err := pgconn.ConnectConfig(context.Background(), cfg)
	require.NoError(t, err)
	conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT " + args[2] + " LOGICAL 0/0 (proto_version '1', publication_names 'bench')"})
	require.NoError(t, conn.Frontend().Flush())
	read(t, conn, end)
}

func readBare(t *testing.T, conn *pgconn.PgConn, end lsn) {
	for {
		m, err := conn.ReceiveMessage(context.Background())
		require.NoError(t, err)
		if data, ok := m.(*pgproto3.CopyData); ok && bareEnd(t, conn.Conn(), data.Data, end) {
			return
		}
	}
}

// gathering has connections read in large pieces, and returns what reads one to its end.
func gathering(cfg *pgconn.Config) func(*testing.T, *pgconn.PgConn, lsn) {
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return endpoint.NewLowWater(conn)
	}
	reader := keepReader(cfg)
	return func(t *testing.T, conn *pgconn.PgConn, end lsn) {
		w := newWire(takenConn{conn.Conn(), *reader}, 1<<30, nil)
		for {
			kind, body, ok := w.next()
			if !ok {
				_, err := w.read()
				require.NoError(t, err)
			}
			if kind == 'd' && bareEnd(t, conn.Conn(), body, end) {
				return
			}
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
