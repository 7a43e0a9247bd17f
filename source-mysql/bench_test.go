package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
	testsession "github.com/sluicedata/sluice/sdk/testkit/session"
)

// The benchmarks measure the connector's binary against the machine's own limit, in turns, as docs/performance.md says:
//
//	go test ./source-mysql -run '^$' -bench '^BenchmarkBackfill$' -benchtime 1x -timeout 30m

const benchPairs = 5

// bench is a server with the table t of seven columns, and the connector's binary.
type bench struct {
	*database
	binary string
	rows   int
}

// seven are the columns behind the key, and their values by a row number g.
const (
	sevenColumns = "n INT, txt VARCHAR(100), ts DATETIME(6), amount DECIMAL(20,2), doc JSON, u BINARY(16)"
	sevenValues  = "g * 7 % 100000, CONCAT('some text ', g), '2020-01-01' + INTERVAL g * 1234500 MICROSECOND, g * 1.37, JSON_OBJECT('a', g, 'b', CONCAT('value ', g), 'c', g % 2), LEFT(UNHEX(SHA2(g, 256)), 16)"
)

// newBench starts a server. The number of rows is what is usual, or SLUICE_BENCH_ROWS.
func newBench(b *testing.B, flavor string, rows int) *bench {
	b.Helper()
	if n, err := strconv.Atoi(os.Getenv("SLUICE_BENCH_ROWS")); err == nil {
		rows = n
	}
	s := server.MySQL(b, flavor, map[string]string{"innodb-buffer-pool-size": "1G", "max-binlog-size": "1G", "max-allowed-packet": "1G", "tmp-table-size": "1G", "max-heap-table-size": "1G"})
	out := &bench{database: databaseOn(b, s), binary: filepath.Join(b.TempDir(), "source-mysql"), rows: rows}
	build := exec.Command("go", "build", "-o", out.binary, ".")
	build.Stderr = os.Stderr
	require.NoError(b, build.Run())
	out.exec("CREATE TABLE t (id BIGINT PRIMARY KEY, " + sevenColumns + ")")
	return out
}

// series makes a table of numbers from 1, which the benchmark's rows are made from.
func (s *bench) series() {
	s.t.Helper()
	sql := []string{"CREATE DATABASE IF NOT EXISTS numbers", "DROP TABLE IF EXISTS numbers.series", "CREATE TABLE numbers.series (g INT PRIMARY KEY)", "INSERT INTO numbers.series VALUES (1)"}
	for n := 1; n < s.rows; n *= 2 {
		sql = append(sql, fmt.Sprintf("INSERT INTO numbers.series SELECT g + %d FROM numbers.series WHERE g + %d <= %d", n, n, s.rows))
	}
	s.exec(append([]string{"SET sql_log_bin = 0"}, sql...)...)
}

// fill inserts the rows, so many in each transaction.
func (s *bench) fill(each int) {
	s.t.Helper()
	s.series()
	var sql []string
	for from := 0; from < s.rows; from += each {
		sql = append(sql, fmt.Sprintf("INSERT INTO t SELECT g, %s FROM numbers.series WHERE g > %d AND g <= %d", sevenValues, from, from+each))
	}
	s.exec(sql...)
}

func (s *bench) writeConfig(cfg config) string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "config.json")
	require.NoError(s.t, os.WriteFile(file, testsession.Config(s.t, cfg), 0o600))
	return file
}

// pull runs the connector until it has printed so many documents.
func (s *bench) pull(cfg config, state string, limit int) (ratio.Run, error) {
	args := []string{"pull", "--config", s.writeConfig(cfg), "--limit", strconv.Itoa(limit)}
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

// report prints the ratio, the CPU time and the memory of a result.
func (s *bench) report(name string, result ratio.Result, aim, cpu float64) {
	s.t.Helper()
	name = "source-mysql/" + s.server.Flavor() + "-" + name
	require.NoError(s.t, ratio.Print(os.Stdout, name, result.Ratio, ratio.AtLeast, aim, result.String()))
	require.NoError(s.t, ratio.Print(os.Stdout, name+"-cpu", result.Ours.CPUPerMillion(), ratio.AtMost, cpu,
		fmt.Sprintf("CPU seconds a million documents, against %.2f", result.Limit.CPUPerMillion())))
	require.NoError(s.t, ratio.Print(os.Stdout, name+"-memory", float64(result.Ours.Peak)/1e6, ratio.AtMost, 100, "MB"))
}

// eachFlavor runs a benchmark against both servers.
func eachFlavor(b *testing.B, bench func(b *testing.B, flavor string)) {
	b.Helper()
	for _, flavor := range []string{mysqld.MySQL, mysqld.MariaDB} {
		b.Run(flavor, func(b *testing.B) { bench(b, flavor) })
	}
}

// login is what client programs need to know, besides their own options.
func (s *bench) login() []string {
	host, port, err := net.SplitHostPort(s.server.Address())
	require.NoError(s.t, err)
	return []string{"--no-defaults", "--host=" + host, "--port=" + port, "--protocol=tcp", "--user=" + mysqld.User, "--password=" + mysqld.Password}
}

// BenchmarkBackfill reads a whole table; the limit is the command-line client, which prints it to nobody.
func BenchmarkBackfill(b *testing.B) {
	eachFlavor(b, func(b *testing.B, flavor string) {
		program, err := exec.LookPath("mariadb")
		if err != nil {
			need.Missing(b, "the limit is the program mariadb, which is not on this machine")
		}
		s := newBench(b, flavor, 2_000_000)
		s.fill(100_000)
		s.exec("ANALYZE TABLE t")
		query := func(int) (ratio.Run, error) {
			args := append(s.login(), "--skip-ssl", "--quick", "-N", "-e", "SELECT * FROM t", s.name)
			return ratio.Command(exec.Command(program, args...), int64(s.rows))
		}
		ours := func(int) (ratio.Run, error) { return s.pull(s.cfg, "", s.rows) }
		for b.Loop() {
			result, err := ratio.Pairs(benchPairs, query, ours)
			require.NoError(b, err)
			s.report("backfill", result, 0.7, 1.5)
		}
	})
}

// BenchmarkChanges reads inserted rows from the log, a thousand in each transaction. The limit is the program that copies a server's log.
func BenchmarkChanges(b *testing.B) {
	eachFlavor(b, func(b *testing.B, flavor string) {
		benchStream(b, newBench(b, flavor, 1_000_000), "changes", 1000, benchPairs)
	})
}

// BenchmarkGiantTransaction is the same for one transaction of five million rows.
func BenchmarkGiantTransaction(b *testing.B) {
	eachFlavor(b, func(b *testing.B, flavor string) {
		s := newBench(b, flavor, 5_000_000)
		benchStream(b, s, "giant-transaction", s.rows, 1)
	})
}

func benchStream(b *testing.B, s *bench, name string, each, pairs int) {
	b.Helper()
	drain := s.drain()
	state := s.begin()
	s.exec("FLUSH BINARY LOGS")
	first := s.lastLog()
	s.fill(each)
	limit := func(int) (ratio.Run, error) { return drain(first) }
	ours := func(int) (ratio.Run, error) {
		file := filepath.Join(s.t.TempDir(), "state.json")
		if err := os.WriteFile(file, state, 0o600); err != nil {
			return ratio.Run{}, err
		}
		return s.pull(s.cfg, file, s.rows)
	}
	for b.Loop() {
		result, err := ratio.Pairs(pairs, limit, ours)
		require.NoError(b, err)
		s.report(name, result, 0.1, 2)
	}
}

// begin runs the connector until it streams, and returns its state.
func (s *bench) begin() []byte {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "state.json")
	cmd := exec.Command(s.binary, "pull", "--config", s.writeConfig(s.cfg), "--state", file)
	var log bytes.Buffer
	cmd.Stderr = &log
	require.NoError(s.t, cmd.Start())
	var text []byte
	require.Eventually(s.t, func() bool {
		text, _ = os.ReadFile(file)
		return strings.Contains(string(text), `"phase":"live"`)
	}, patience, 10*time.Millisecond, "the capture streams: %s", &log)
	require.NoError(s.t, cmd.Process.Signal(os.Interrupt))
	require.NoError(s.t, cmd.Wait())
	return text
}

// lastLog is the log's file that is written to.
func (s *bench) lastLog() string {
	s.t.Helper()
	session := s.session("")
	files, err := session.texts(s.t.Context(), "SHOW BINARY LOGS")
	require.NoError(s.t, err)
	return files[len(files)-1][0]
}

// drain is how the log is copied from a file on, into memory where the machine has that, by a program of the server's.
func (s *bench) drain() func(first string) (ratio.Run, error) {
	s.t.Helper()
	program := s.server.Installation().Program(map[string]string{mysqld.MySQL: "mysqlbinlog", mysqld.MariaDB: "mariadb-binlog"}[s.server.Flavor()])
	if program == nil {
		need.Missing(s.t, "the limit is the server's program that copies its log, which is not on this machine")
	}
	options := []string{"--skip-ssl"}
	if s.server.Flavor() == mysqld.MySQL {
		options = []string{"--ssl-mode=DISABLED", "--get-server-public-key"}
	}
	return func(first string) (ratio.Run, error) {
		parent := "/dev/shm"
		if _, err := os.Stat(parent); err != nil {
			parent = s.t.TempDir()
		}
		dir, err := os.MkdirTemp(parent, "sluice-drain-")
		if err != nil {
			return ratio.Run{}, err
		}
		defer os.RemoveAll(dir)
		args := append(append(program[1:len(program):len(program)], s.login()...), options...)
		args = append(args, "--read-from-remote-server", "--raw", "--to-last-log", "--result-file="+dir+"/", first)
		cmd := exec.CommandContext(context.Background(), program[0], args...)
		var log bytes.Buffer
		cmd.Stderr = &log
		run, err := ratio.Command(cmd, int64(s.rows))
		if err != nil {
			return run, fmt.Errorf("%w: %s", err, &log)
		}
		return run, nil
	}
}
