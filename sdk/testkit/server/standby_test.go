package server_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// A standby follows, a standby of the standby too, and each can be promoted.
func TestStandby(t *testing.T) {
	t.Parallel()
	primary := server.Postgres(t, server.WithAtLeast(16))
	standby := server.Standby(t, primary)
	cascade := server.Standby(t, standby)
	primary.Exec(t, "CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
	standby.CatchUp(t, primary)
	cascade.CatchUp(t, standby)
	require.Equal(t, "1|t", cascade.Exec(t, "SELECT id, pg_is_in_recovery() FROM t"))
	require.Equal(t, "1|t", standby.Exec(t, "SELECT id, pg_is_in_recovery() FROM t"))
	standby.Promote(t)
	standby.Exec(t, "INSERT INTO t VALUES (2)")
	cascade.CatchUp(t, standby)
	require.Equal(t, "2|t", cascade.Exec(t, "SELECT count(*), pg_is_in_recovery() FROM t"))
	require.Equal(t, "1", primary.Exec(t, "SELECT count(*) FROM t"))
	system := "SELECT system_identifier FROM pg_control_system()"
	require.Equal(t, primary.Exec(t, system), cascade.Exec(t, system))
}
