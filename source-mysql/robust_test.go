package main

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/fault"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// Whatever ends the connection on which the log comes is said in words, and the capture goes on behind its last checkpoint (hard
// cases 35 and 51).
func TestLostConnections(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := databaseOn(t, server.MySQL(t, flavor, nil))
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 0)")
		proxy := fault.NewProxy(t, db.cfg.Address)
		through := *db
		through.cfg.Address = proxy.Address()
		through.cfg.Advanced.ReadTimeout = "5s"
		c := newCapture(t, &through)
		require.NoError(t, c.run("s a 1 v=0"))
		dump := "SELECT COALESCE(MAX(ID), 0) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%' AND STATE LIKE '%has sent all%'"
		for i, way := range []struct {
			name    string
			disturb func(id string)
			want    string
		}{
			{"killed", func(id string) { db.exec("KILL " + id) }, `on which the log comes was lost|ended the replication stream`},
			{"restarted", func(string) {
				require.NoError(t, db.server.Stop())
				require.NoError(t, db.server.Start(t.Context()))
			}, `on which the log comes was lost|ended the replication stream`},
			{"crashed", func(string) {
				require.NoError(t, db.server.Kill())
				require.NoError(t, db.server.Start(t.Context()))
			}, `on which the log comes was lost`},
			{"cut", func(string) { proxy.Cut() }, `on which the log comes was lost`},
			{"silent", func(string) { proxy.Freeze() }, `^Nothing was received from the server for \d+(\.\d+)?s, although it is asked for a sign of life`},
		} {
			require.Eventually(t, func() bool { return db.value(dump) == "0" }, patience, 50*time.Millisecond, "the session before: %s", way.name)
			done := make(chan struct{})
			go func() {
				defer close(done)
				require.Eventually(t, func() bool { return db.value(dump) != "0" }, patience, 50*time.Millisecond, way.name)
				way.disturb(db.value(dump))
			}()
			err := c.run("a document that never comes")
			require.Error(t, err, way.name)
			require.Regexp(t, way.want, usererr.Message(err), way.name)
			<-done
			proxy.Thaw()
			proxy.Cut()
			require.Eventually(t, func() bool { return db.value(dump) == "0" }, patience, 50*time.Millisecond, "the server notices as well: %s", way.name)
			db.exec("UPDATE a SET v = v + 1")
			want := "u a 1 v=" + string(rune('1'+i))
			require.NoError(t, c.run(want), way.name)
			require.Equal(t, []string{want}, c.docs, way.name)
		}
	})
}

// A pull goes on by itself when its connections are lost.
func TestPullGoesOn(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newStressDatabase(t, flavor, false)
		admin := db.staller.db
		kill := func(which string) {
			for _, id := range admin.query("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '" + captureUser + "'" + which) {
				_ = admin.tryExec("KILL " + id[0]) // it may be gone
			}
		}
		cdctest.Pull(t, suiteBackend(flavor), db, cdctest.Losses{
			Try: func(sql string) error {
				s, err := newDialer(admin.cfg, testEnv(t).Log).open(t.Context())
				if err != nil {
					return err
				}
				defer func() { _ = s.close() }()
				return errors.Join(s.exec(t.Context(), "USE "+admin.name), s.exec(t.Context(), sql))
			},
			Ways: []func(){
				func() { kill(" AND COMMAND LIKE 'Binlog Dump%'") },
				func() { kill("") },
				func() {
					require.NoError(t, admin.server.Stop())
					require.NoError(t, admin.server.Start(t.Context()))
				},
				func() {
					require.NoError(t, admin.server.Kill())
					require.NoError(t, admin.server.Start(t.Context()))
				},
			},
		})
	})
}

// Only errors of the connection are taken for such: what the log itself lacks it would lack again.
func TestDisconnected(t *testing.T) {
	t.Parallel()
	for _, err := range []error{&lostError{io.ErrUnexpectedEOF}, errEnded, &serverError{code: errInterrupted}, fmt.Errorf("connecting: %w", syscall.ECONNREFUSED)} {
		require.True(t, isDisconnected(err), "%v", err)
	}
	_, early := binlog.Decompress([]byte("\x81\x05"))
	require.ErrorIs(t, early, io.ErrUnexpectedEOF)
	for _, err := range []error{nil, early, &serverError{code: errDeadlock}} {
		require.False(t, isDisconnected(err), "%v", err)
	}
}
