package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/bastion"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

// Everything goes through the tunnel, in TLS for the database's own name; what the tunnel says against it is said in its words.
func TestTunnel(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithTLS())
	db := database{pg, pg.NewDatabase(t)}
	s := bastion.Start(t, bastion.Options{})
	ca, err := os.ReadFile(pg.CAFile())
	require.NoError(t, err)
	address := strings.Replace(pg.Address(), "127.0.0.1", "localhost", 1)
	with := func(change func(map[string]any)) *sinktest.Runtime {
		return newTask(t, db, db.config(func(c map[string]any) {
			tunnel := map[string]any{"address": s.Address(), "user": bastion.User, "privateKey": s.PrivateKey(t, ""), "hostKey": s.HostKey()}
			c["address"], c["sslmode"], c["sslRootCert"], c["tunnel"] = address, "verify-full", string(ca), tunnel
			change(tunnel)
		}))
	}
	r := with(func(map[string]any) {})
	r.MustApply()
	require.NoError(t, r.Run())
	r.RequireTable(t, 0, "orders", false)
	require.True(t, s.Asked(address), "names are resolved at the other end")

	_, err = with(func(tunnel map[string]any) { tunnel["hostKey"] = "" }).Apply()
	require.ErrorContains(t, err, "It shows a key with the fingerprint "+s.Fingerprint())
	_, err = with(func(tunnel map[string]any) { delete(tunnel, "user") }).Apply()
	require.ErrorContains(t, err, "Enter the user to log in as at the SSH server, in tunnel.user.")
}
