package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// postgresFor starts a server of its own for a test that changes settings of the whole server.
func postgresFor(t *testing.T) *server.PostgresServer {
	t.Helper()
	return server.Postgres(t)
}

// stalled is a statement whose commit is flushed and waits for a standby that is not there.
type stalled struct {
	t    *testing.T
	db   *database
	done chan error
	pid  uint32
}

// stall runs a statement until its commit waits.
func stall(t *testing.T, db *database, sql string) *stalled {
	t.Helper()
	db.pg.Exec(t, "ALTER SYSTEM SET synchronous_standby_names = 'missing'", "SELECT pg_reload_conf()")
	eventually(t, "the setting holds", func() bool {
		return strings.TrimSpace(db.exec("SHOW synchronous_standby_names")) == "missing"
	})
	conn := db.connect()
	_, err := conn.Exec(t.Context(), "SET synchronous_commit = on")
	require.NoError(t, err)
	s := &stalled{t: t, db: db, done: make(chan error, 1), pid: conn.PgConn().PID()}
	go func() {
		_, err := conn.Exec(t.Context(), sql)
		s.done <- err
	}()
	eventually(t, "the commit waits", func() bool {
		return strings.TrimSpace(db.exec("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")) == "1"
	})
	return s
}

// release lets the commit go on.
func (s *stalled) release() {
	s.t.Helper()
	s.db.pg.Exec(s.t, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
	require.NoError(s.t, <-s.done)
}
