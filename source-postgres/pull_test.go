package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// A pull goes on by itself when its connections are lost.
func TestPullGoesOn(t *testing.T) {
	t.Parallel()
	db := databaseOn(t, server.Postgres(t))
	suite := suiteDatabase{db}
	kill := func(which string) {
		suite.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND "+which)
	}
	cdctest.Pull(t, suiteBackend(), suite, cdctest.Losses{
		Try: func(sql string) error {
			conn, err := pgx.Connect(t.Context(), db.pg.URL(db.cfg.Database))
			if err != nil {
				return fmt.Errorf("connecting: %w", err)
			}
			defer conn.Close(context.Background())
			_, err = conn.Exec(t.Context(), sql)
			return err //nolint:wrapcheck // nobody reads it
		},
		Ways: []func(){
			func() { kill("backend_type = 'walsender'") },
			func() { kill("datname = current_database()") },
			func() { db.pg.Restart(t) },
			func() {
				db.pg.Kill(t)
				db.pg.Start(t)
			},
		},
	})
}

// What a pull without a state leaves at the server ends with its connection, so it cannot go on.
func TestPullWithoutStateEnds(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for ephemeral, want := range map[bool]bool{true: false, false: true} {
		env := testEnv(t)
		env.Ephemeral = ephemeral
		d, options, err := connect(t.Context(), env, db.cfg)
		require.NoError(t, err)
		require.NoError(t, d.Close())
		require.Equal(t, want, options.Disconnected != nil)
	}
}
