package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Poolers that are known by their names and ports are refused before anything is connected to.
func TestPoolerAddresses(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"aws-0-eu-central-1.pooler.supabase.com:5432":                  "Use the direct connection from the database's settings, db.<project>.supabase.co:5432.",
		"db.abc.supabase.co:6543":                                      "Use the direct connection",
		"ep-cool-rain-123-pooler.eu-central-1.aws.neon.tech":           `Use the host name without "-pooler".`,
		"p.proxy-abc.eu-west-3.rds.amazonaws.com":                      "Use the endpoint of the instance or cluster instead of the RDS proxy.",
		"shop.postgres.database.azure.com:6432":                        "Port 6432 is the built-in PgBouncer: use port 5432.",
		"db-postgresql-fra1-1-do-user-1-0.db.ondigitalocean.com:25061": "Port 25061 is that of connection pools",
	} {
		err := config{Address: address, Database: "d", User: "u"}.Validate()
		require.Error(t, err, address)
		require.Contains(t, usererr.Message(err), "The address "+address+" is a connection pooler, which cannot carry a replication stream. "+want)
	}
	for _, address := range []string{"db.abc.supabase.co", "ep-cool-rain-123.eu-central-1.aws.neon.tech", "shop.postgres.database.azure.com", "db.rds.amazonaws.com:6432"} {
		require.NoError(t, config{Address: address, Database: "d", User: "u"}.Validate())
	}
}

// Others give themselves away by how they refuse a connection.
func TestPoolerRefusals(t *testing.T) {
	t.Parallel()
	for refusal, name := range map[string]string{
		"unsupported startup parameter: IntervalStyle":                                  "PgBouncer",
		"pgbouncer cannot connect to server":                                            "PgBouncer",
		"server login has been failing, try again later (server_login_retry)":           "PgBouncer",
		"odyssey: c1a2b3: route for 'db.user' is not found":                             "Odyssey",
		`No pool configured for database: "db", user: "u"`:                              "PgCat",
		"Feature not supported: RDS Proxy currently doesn’t support the option options": "the RDS proxy",
		"Tenant or user not found":                                                      "Supavisor",
	} {
		err := config{Address: "db", User: "u"}.connectAdvice(&pgconn.PgError{Code: "08P01", Message: refusal})
		require.Equal(t, fmt.Sprintf("What answers at db is a connection pooler (%s): it says %q. A replication stream cannot go through one. Use the address and port of the Postgres server itself.", name, refusal), usererr.Message(err))
	}
	require.Empty(t, poolerName(`password authentication failed for user "x"`))
	require.Empty(t, poolerName(`unrecognized configuration parameter "x"`))
}

// A real PgBouncer is recognised however it is set up: by its refusal, by settings that it ignored, by sessions that it shares,
// and by the replication connection that it does not let through, which the check says already.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts PgBouncer; run without -short")
	}
	binary, err := exec.LookPath("pgbouncer")
	if err != nil {
		need.Missing(t, "PgBouncer is not on this machine; scripts/services install fetches it")
	}
	pg := server.Postgres(t)
	db := databaseOn(t, pg)
	db.cfg.Advanced.Options = nil // they would be refused first
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	ignored := []string{"replication", "extra_float_digits"}
	for _, settings := range []map[string]string{sessionSettings(), scanSettings(), aliveSettings()} {
		for name := range settings {
			ignored = append(ignored, name)
		}
	}
	ignore := "ignore_startup_parameters = " + strings.Join(ignored, ",")
	bounce := func(lines ...string) config {
		cfg := db.cfg
		cfg.Address = startBouncer(t, binary, pg, lines...)
		return cfg
	}
	require.Contains(t, connectError(t, bounce("pool_mode = session")), `is a connection pooler (PgBouncer): it says "unsupported startup parameter: `)
	require.Contains(t, connectError(t, bounce("pool_mode = session", ignore)), "is a connection pooler (one that ignores settings): the session's ")

	// Defaults that are what every session asks for are in force behind it.
	for _, settings := range []map[string]string{sessionSettings(), scanSettings()} {
		for name, value := range settings {
			if name != "search_path" { // a list of identifiers
				value = quoteLiteral(value)
			}
			if name != "client_encoding" {
				db.exec(fmt.Sprintf("ALTER DATABASE %s SET %s = %s", db.cfg.Database, name, value))
			}
		}
	}
	require.Contains(t, connectError(t, bounce("pool_mode = transaction", ignore)), "is a connection pooler (one that hands sessions around): two connections were served by one session of the server.")

	cfg := bounce("pool_mode = session", strings.Replace(ignore, "replication,", "", 1))
	d := db.driver(func(c *config) { *c = cfg })
	problems := checkMessages(t, d, "t")
	require.Len(t, problems, 1)
	require.Contains(t, problems[0], `What answers at `+cfg.Address+` is a connection pooler (PgBouncer): it says "unsupported startup parameter: replication". A replication stream cannot go through one. Use the address and port of the Postgres server itself.`)
	_, err = d.Stream(t.Context(), cdc.Position{}, db.tables(d, "t"))
	require.Equal(t, problems[0], usererr.Message(err))

	require.Empty(t, checkMessages(t, db.driver(), "t"), "and a server without one is none")
}

// startBouncer starts a PgBouncer in front of a server; it ends with the test.
func startBouncer(t *testing.T, binary string, pg *server.PostgresServer, lines ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "bouncer") //nolint:usetesting // another user must be able to enter it
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address, err := endpoint.ParseAddress(listener.Addr().String(), 0)
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	users := filepath.Join(dir, "users")
	require.NoError(t, os.WriteFile(users, []byte(`"postgres" "secret"`+"\n"), 0o644))
	ini := append([]string{
		"[databases]", fmt.Sprintf("* = host=%s port=%d", pg.Host(), pg.Port()), "[pgbouncer]",
		"listen_addr = 127.0.0.1", fmt.Sprintf("listen_port = %d", address.Port), "unix_socket_dir =", "auth_type = scram-sha-256", "auth_file = " + users,
	}, lines...)
	file := filepath.Join(dir, "pgbouncer.ini")
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(ini, "\n")+"\n"), 0o644))
	require.NoError(t, os.Chmod(dir, 0o755))
	var log strings.Builder
	cmd := exec.CommandContext(t.Context(), binary, file)
	cmd.Stderr, cmd.Stdout = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534} // it does not run as root
	}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	require.Eventually(t, func() bool {
		conn, err := net.DialTimeout("tcp", address.String(), time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, patience, 20*time.Millisecond)
	return address.String()
}
