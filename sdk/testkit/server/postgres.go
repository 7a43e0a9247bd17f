// Package server starts real servers for tests. It never fakes one: a test that needs Postgres gets a Postgres, in a
// temporary folder, on a free loopback port, gone when the test ends.
//
//	pg := server.Postgres(t)                            // a server of its own
//	pg := server.Postgres(t, server.WithTLS())          // … that speaks TLS, with a CA in pg.CAFile()
//	pg := server.SharedPostgres(t)                      // one for all tests of the binary
//	standby := server.Standby(t, pg)                    // a physical standby of a server of the test's own
//	db := pg.NewDatabase(t)                             // a database of its own on it
//	pg.ExecIn(t, db, "CREATE TABLE t (id bigint PRIMARY KEY)", "INSERT INTO t VALUES (1)")
//	conn, err := pgx.Connect(t.Context(), pg.URL(db))
//
// Under `go test -short` everything here skips the test.
package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/testkit/server/cluster"
)

// PostgresServer is a running Postgres. Its methods may be called from any goroutine that may fail t.
type PostgresServer struct {
	*cluster.Postgres
}

// Option changes the server that Postgres starts.
type Option func(*cluster.Options)

// WithSetting sets one parameter of postgresql.conf.
func WithSetting(name, value string) Option {
	return func(o *cluster.Options) { o.Settings[name] = value }
}

// WithVersion asks for a major version, 12 or newer. The test is skipped, with a sentence that says how to get it,
// when the machine has no such version. Versions lists what is there.
func WithVersion(major int) Option {
	return func(o *cluster.Options) { o.Major = major }
}

// WithAtLeast asks for a major version that is not older than this one: the one that SLUICE_POSTGRES_MAJOR names if it
// will do, else the newest on the machine. The test is skipped when there is none.
func WithAtLeast(major int) Option {
	return func(o *cluster.Options) {
		if found, err := cluster.Find(0); os.Getenv("SLUICE_POSTGRES_MAJOR") != "" && err == nil && found.Major >= major {
			o.Major = found.Major
			return
		}
		o.Major = major
		if all := Versions(); len(all) > 0 {
			o.Major = max(major, all[len(all)-1])
		}
	}
}

// WithTLS switches TLS on, with a certificate for the given names and addresses, by default those of loopback. The
// server still takes plain connections; add WithHBA("hostssl …") to refuse them.
func WithTLS(hosts ...string) Option {
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1", "localhost"}
	}
	return func(o *cluster.Options) { o.TLSHosts = hosts }
}

// WithHBA replaces the rules of pg_hba.conf, such as "hostssl all all all scram-sha-256" and
// "hostssl replication all all scram-sha-256".
func WithHBA(rules ...string) Option {
	return func(o *cluster.Options) { o.HBA = rules }
}

// Postgres starts a server for this test; it is stopped and removed when the test ends. When the test failed, the end
// of the server's log is added to the test's output.
func Postgres(t testing.TB, opts ...Option) *PostgresServer {
	t.Helper()
	skipShort(t)
	s := start(t, opts)
	closeAfter(t, s)
	return s
}

func closeAfter(t testing.TB, s *PostgresServer) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the log of Postgres %d on port %d:\n%s", s.Major(), s.Port(), tail(s.Log(), 40))
		}
		if err := s.Close(); err != nil {
			t.Errorf("closing Postgres: %v", err)
		}
	})
}

// Standby starts a physical standby of a server of the test's own (not of the shared one: it is stopped for a moment, to
// be copied). The standby streams through a slot of its own, with feedback; of the options, settings count. It is gone when
// the test ends.
func Standby(t testing.TB, from *PostgresServer, opts ...Option) *PostgresServer {
	t.Helper()
	options := cluster.Options{Settings: map[string]string{}}
	for _, opt := range opts {
		opt(&options)
	}
	pg, err := cluster.StartStandby(t.Context(), from.Postgres, options)
	require.NoError(t, err)
	s := &PostgresServer{pg}
	closeAfter(t, s)
	return s
}

// CatchUp waits until a standby has replayed all that the server it follows has logged by now.
func (s *PostgresServer) CatchUp(t testing.TB, from *PostgresServer) {
	t.Helper()
	here := "pg_last_wal_replay_lsn()"
	if from.Exec(t, "SELECT pg_is_in_recovery()") == "f" {
		here = "pg_current_wal_flush_lsn()"
		from.Exec(t, "SELECT txid_current()") // has everything before it flushed: nothing else is sent
	}
	end := from.Exec(t, "SELECT "+here)
	require.Eventually(t, func() bool {
		return s.Exec(t, "SELECT pg_last_wal_replay_lsn() >= '"+end+"'") == "t"
	}, time.Minute, 20*time.Millisecond, "the standby does not reach %s", end)
}

// Promote makes a standby a primary, and waits until it is one.
func (s *PostgresServer) Promote(t testing.TB) {
	t.Helper()
	require.Equal(t, "t", s.Exec(t, "SELECT pg_promote(true, 60)"))
}

// Save copies the server's data folder, for Restore, as a snapshot of its disk would. The server is stopped for a moment. A
// copy that was saved before is replaced.
func (s *PostgresServer) Save(t testing.TB) {
	t.Helper()
	require.NoError(t, s.Postgres.Save(t.Context()))
}

// Restore puts the data folder that was saved in the place of the present one: the server is the same, and older.
func (s *PostgresServer) Restore(t testing.TB) {
	t.Helper()
	require.NoError(t, s.Postgres.Restore(t.Context()))
}

// shared holds the one server of the test binary. It ends with the process (package cluster), because no test knows
// that it is the last one.
var shared struct {
	once   sync.Once
	server *PostgresServer
	err    error
}

// SharedPostgres returns the one plain server that all tests of this binary share; it is started by the first call and
// ends with the process. Work in a NewDatabase, and do not stop, restart or reconfigure it.
func SharedPostgres(t testing.TB) *PostgresServer {
	t.Helper()
	skipShort(t)
	shared.once.Do(func() {
		pg, err := cluster.Start(context.Background(), cluster.Options{})
		shared.server, shared.err = &PostgresServer{pg}, err
		if err == nil {
			keepLog(t, shared.server)
		}
	})
	require.NoError(t, shared.err, "starting the shared Postgres")
	return shared.server
}

// keepLog has a server keep its log whatever slots need. Many tests make and drop slots at once, which may lead a server
// to remove log that another slot needs: what one process has worked out overwrites what a slot has reserved meanwhile
// (ReplicationSlotsComputeRequiredLSN).
func keepLog(t testing.TB, pg *PostgresServer) {
	setting := "wal_keep_size = '1GB'"
	if pg.Major() < 13 {
		setting = "wal_keep_segments = 64"
	}
	pg.Exec(t, "ALTER SYSTEM SET "+setting, "SELECT pg_reload_conf()")
}

// Versions lists the major versions on this machine, upwards.
func Versions() []int {
	var majors []int
	for _, install := range cluster.Installations() {
		majors = append(majors, install.Major)
	}
	slices.Sort(majors)
	return majors
}

func start(t testing.TB, opts []Option) *PostgresServer {
	t.Helper()
	options := cluster.Options{Settings: map[string]string{}}
	for _, opt := range opts {
		opt(&options)
	}
	pg, err := cluster.Start(t.Context(), options)
	if options.Major != 0 && errors.Is(err, cluster.ErrNotInstalled) {
		need.Missing(t, "Postgres %d is not on this machine; scripts/services install fetches it", options.Major)
	}
	require.NoError(t, err)
	return &PostgresServer{pg}
}

func skipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Postgres server; run without -short")
	}
}

// Exec runs statements in the database postgres and returns what they print; see ExecIn.
func (s *PostgresServer) Exec(t testing.TB, sql ...string) string {
	t.Helper()
	return s.ExecIn(t, "postgres", sql...)
}

// ExecIn runs statements in a database as the superuser, each string in its own transaction, and returns what they
// print: one line a row, columns separated by "|". An error fails the test.
func (s *PostgresServer) ExecIn(t testing.TB, database string, sql ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	defer cancel()
	out, err := s.Postgres.Exec(ctx, database, sql...)
	require.NoError(t, err)
	return out
}

var databases atomic.Int64

// NewDatabase creates an empty database and returns its name. When the test ends its sessions are ended, its
// replication slots dropped, and it is removed.
func (s *PostgresServer) NewDatabase(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	s.Exec(t, "CREATE DATABASE "+name)
	t.Cleanup(func() {
		if !s.Running() {
			return
		}
		if err := s.dropDatabase(name); err != nil {
			t.Logf("dropping database %s: %v", name, err)
		}
	})
	return name
}

// dropDatabase ends who uses a database until nobody does: a session that was told to end needs a moment, and a
// connector under test may come back once more.
func (s *PostgresServer) dropDatabase(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	statements := []string{
		fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS false", name),
		fmt.Sprintf("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '%s'", name),
		fmt.Sprintf("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '%s'", name),
		"DROP DATABASE " + name,
	}
	for {
		_, err := s.Postgres.Exec(ctx, "postgres", statements...)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Start starts the server after Stop or Kill.
func (s *PostgresServer) Start(t testing.TB) {
	t.Helper()
	require.NoError(t, s.Postgres.Start(t.Context()))
}

// Stop shuts the server down as an administrator would: fast, with a last checkpoint.
func (s *PostgresServer) Stop(t testing.TB) {
	t.Helper()
	require.NoError(t, s.Postgres.Stop())
}

// Kill ends the server with SIGKILL, as a crash would. Start recovers it.
func (s *PostgresServer) Kill(t testing.TB) {
	t.Helper()
	require.NoError(t, s.Postgres.Kill())
}

// Restart stops the server if it runs, and starts it on the same port.
func (s *PostgresServer) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t)
	s.Start(t)
}

// tail returns the last n lines of text.
func tail(text string, n int) string {
	all := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
