package server_test

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/server"
)

func TestPostgresIsReadyForReplicationAndOddlyZoned(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithSetting("work_mem", "7MB"))
	require.Equal(t, "logical|32|32|America/Los_Angeles|7MB|off",
		pg.Exec(t, "SELECT current_setting('wal_level'), current_setting('max_wal_senders'), current_setting('max_replication_slots'), "+
			"current_setting('TimeZone'), current_setting('work_mem'), current_setting('ssl')"))
	db := pg.NewDatabase(t)
	require.Equal(t, "1|one\n2|",
		pg.ExecIn(t, db, "CREATE TABLE t (id int PRIMARY KEY, name text)", "INSERT INTO t VALUES (1, 'one'), (2, NULL)", "SELECT * FROM t ORDER BY id"))
	require.Equal(t, "postgres://postgres:secret@127.0.0.1:"+strconv.Itoa(pg.Port())+"/"+db+"?sslmode=disable", pg.URL(db))
}

func TestPasswordsAreChecked(t *testing.T) {
	t.Parallel()
	pg := server.SharedPostgres(t)
	psql, err := pg.Installation().Psql()
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), psql, pg.URLFor("postgres", "postgres", "wrong"), "-c", "SELECT 1").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "password authentication failed")
}

// Clusters are copies of one template, and yet each is a server of its own to whoever asks.
func TestEveryServerHasItsOwnIdentifier(t *testing.T) {
	t.Parallel()
	const question = "SELECT system_identifier FROM pg_control_system()"
	a, b := server.SharedPostgres(t), server.Postgres(t)
	require.NotEqual(t, a.Exec(t, question), b.Exec(t, question))
}

func TestKillLosesNothingThatWasCommitted(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t)
	identifier := pg.Exec(t, "CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)", "SELECT system_identifier FROM pg_control_system()")
	port := pg.Port()
	pg.Kill(t)
	require.False(t, pg.Running())
	_, err := net.DialTimeout("tcp", pg.Address(), time.Second)
	require.Error(t, err)
	pg.Start(t)
	require.Equal(t, port, pg.Port())
	require.Equal(t, "1", pg.Exec(t, "SELECT count(*) FROM t"))
	require.Contains(t, pg.Log(), "not properly shut down")
	pg.Restart(t)
	require.Equal(t, identifier, pg.Exec(t, "SELECT system_identifier FROM pg_control_system()"))
}

func TestTLS(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithTLS(), server.WithHBA("hostssl all all all scram-sha-256"))
	require.Equal(t, "t", pg.Exec(t, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
	psql, err := pg.Installation().Psql()
	require.NoError(t, err)
	plain := strings.Replace(pg.URL("postgres"), "verify-full", "disable", 1)
	out, err := exec.CommandContext(t.Context(), psql, plain, "-c", "SELECT 1").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "no encryption")

	other := server.Postgres(t, server.WithTLS("db.example.com"))
	out, err = exec.CommandContext(t.Context(), psql, other.URL("postgres"), "-c", "SELECT 1").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "does not match host name")
}

// Every version that the machine has can be started; CI has several (scripts/services).
func TestVersions(t *testing.T) {
	t.Parallel()
	for _, major := range server.Versions() {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			pg := server.Postgres(t, server.WithVersion(major))
			require.Equal(t, strconv.Itoa(major), pg.Exec(t, "SELECT current_setting('server_version_num')::int / 10000"))
			pg.Kill(t)
			pg.Start(t)
			slot := "SELECT slot_name FROM pg_create_logical_replication_slot('s', 'pgoutput')"
			require.Equal(t, "s", pg.ExecIn(t, pg.NewDatabase(t), slot))
		})
	}
}

func TestNewDatabaseIsRemovedWithItsSlots(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t)
	t.Run("inner", func(t *testing.T) { // not parallel: its end is what the outer test looks at
		db := pg.NewDatabase(t)
		pg.ExecIn(t, db, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
		require.Equal(t, "1", pg.Exec(t, "SELECT count(*) FROM pg_replication_slots"))
	})
	require.Equal(t, "0|0", pg.Exec(t, "SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_database WHERE datname LIKE 'test%')"))
}

// A test binary that is killed leaves neither a server nor a folder behind.
func TestServerDiesWithItsProcess(t *testing.T) {
	t.Parallel()
	if os.Getenv("SLUICE_TEST_HOLD_SERVER") != "" {
		pg := server.SharedPostgres(t)
		_, err := os.Stdout.WriteString("cluster " + pg.DataDir() + " " + pg.Address() + "\n")
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, os.Stdin) // until killed, or until the outer test is
		require.NoError(t, err)
		return
	}
	if testing.Short() {
		t.Skip("starts a Postgres server")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestServerDiesWithItsProcess$")
	cmd.Env = append(os.Environ(), "SLUICE_TEST_HOLD_SERVER=1")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	fields := strings.Fields(line)
	require.Len(t, fields, 3)
	conn, err := net.DialTimeout("tcp", fields[2], time.Second)
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Dir(fields[1]))
		return os.IsNotExist(err)
	}, 20*time.Second, 20*time.Millisecond)
	_, err = net.DialTimeout("tcp", fields[2], time.Second)
	require.Error(t, err)
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		pg := server.Postgres(b)
		require.NoError(b, pg.Close())
	}
}
