package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/bastion"
	"github.com/sluicedata/sluice/sdk/testkit/fault"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/tunnel"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// through has a configuration lead through an SSH server.
func through(t *testing.T, cfg *config, s *bastion.Server, address string) {
	t.Helper()
	cfg.Tunnel = tunnel.Config{Address: address, User: bastion.User, PrivateKey: schema.NewSecret(s.PrivateKey(t, "")), HostKey: s.HostKey()}
}

// Queries and the stream go through the tunnel, in TLS for the database's own name, which the SSH server resolves. A tunnel that
// breaks is an error of the stream, and nothing is lost: the next stream goes on behind the last commit.
func TestTunnel(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithTLS())
	db := databaseOn(t, pg)
	ca, err := os.ReadFile(pg.CAFile())
	require.NoError(t, err)
	s := bastion.Start(t, bastion.Options{})
	through(t, &db.cfg, s, s.Address())
	db.cfg.Address = strings.Replace(pg.Address(), "127.0.0.1", "localhost", 1)
	db.cfg.SSLMode, db.cfg.SSLRootCert = endpoint.VerifyFull, string(ca)
	require.NoError(t, db.cfg.Validate())
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t VALUES (1)")

	d := db.driver()
	tables := db.tables(d, "t")
	stream := db.open(d, tables...)
	rows, _ := db.scanAll(d, tables[0], 10)
	require.Len(t, rows, 1)
	db.exec("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(10, 20000) g")
	require.Len(t, stream.fence(), 19991)
	require.True(t, s.Asked(db.cfg.Address), "names are resolved at the other end")
	require.GreaterOrEqual(t, s.Forwards(), 2)
	require.Equal(t, 1, s.Logins())

	from := cdc.Position{Cursor: stream.cursor, Identity: stream.Start().Identity}
	s.Cut()
	require.Eventually(t, func() bool {
		_, err = stream.Next(t.Context(), 10*time.Millisecond)
		return err != nil
	}, patience, time.Millisecond)
	require.ErrorIs(t, err, tunnel.ErrLost)
	stream.close()
	db.exec("INSERT INTO t VALUES (2)")
	require.Equal(t, []string{`c t {"a":null,"id":2}`}, db.resume(d, from, tables...).fence())
	require.Equal(t, 2, s.Logins())
}

// A whole capture whose tunnel is cut and goes silent again and again, while it backfills and streams, ends with what the
// table holds.
func TestCaptureThroughBreakingTunnel(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	s := bastion.Start(t, bastion.Options{})
	proxy := fault.NewProxy(t, s.Address())
	through(t, &db.cfg, s, proxy.Address())
	db.cfg.Advanced.BackfillChunkRows, db.cfg.Advanced.BackfillWorkers = 500, 2
	db.exec("CREATE TABLE a (id int PRIMARY KEY, n int)", "INSERT INTO a SELECT g, 0 FROM generate_series(1, 20000) g")
	c := newCapture(t, db, frame.Proto)
	for round := range 6 {
		db.exec(fmt.Sprintf("UPDATE a SET n = %d WHERE id %% 7 = %d", round, round), fmt.Sprintf("DELETE FROM a WHERE id = %d", round))
		seen := 0
		c.runUntilFailure(frame.Proto, func() {
			if seen++; seen == 2 {
				proxy.Cut()
			}
		})
	}
	c.run(frame.Proto, func(*session.Transaction) bool { return c.equals(db, "a") })
	require.Greater(t, s.Logins(), 6)
}

// runUntilFailure runs a session until the connector fails.
func (c *captured) runUntilFailure(codec frame.Codec, each func()) {
	c.t.Helper()
	s := session.Start(c.t, connector(), codec)
	s.Open(c.spec, c.state)
	for {
		tx, err := s.Transaction()
		if err != nil {
			require.Error(c.t, s.Wait())
			return
		}
		c.commit(tx)
		s.Ack(1)
		each()
	}
}

// An error of the tunnel is said in its own words.
func TestTunnelErrors(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	s := bastion.Start(t, bastion.Options{})
	through(t, &db.cfg, s, s.Address())
	for name, c := range map[string]struct {
		change func(*config)
		want   string
	}{
		"no host key":        {func(c *config) { c.Tunnel.HostKey = "" }, "It shows a key with the fingerprint " + s.Fingerprint()},
		"no such database":   {func(c *config) { c.Address = "127.0.0.1:1" }, "The SSH server at " + s.Address() + " cannot reach 127.0.0.1:1: connect failed: "},
		"no login":           {func(c *config) { c.Tunnel.PrivateKey = schema.Secret{} }, "Enter how to log in at the SSH server: tunnel.privateKey, tunnel.agentSocket or tunnel.password."},
		"wrong password":     {func(c *config) { c.Password = schema.NewSecret("wrong") }, `does not accept the password of user "postgres".`},
		"no such SSH server": {func(c *config) { c.Tunnel.Address = "127.0.0.1:1" }, "The SSH server at 127.0.0.1:1 cannot be reached: connection refused."},
	} {
		cfg := db.cfg
		c.change(&cfg)
		require.Contains(t, connectError(t, cfg), c.want, name)
	}
}

// clientAuthority signs certificates of clients.
type clientAuthority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newClientAuthority(t *testing.T) clientAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "clients"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return clientAuthority{cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// sign makes a certificate for a user of the database.
func (a clientAuthority) sign(t *testing.T, user string) (cert string, key schema.Secret) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: user}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	require.NoError(t, err)
	text, err := x509.MarshalECPrivateKey(private)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		schema.NewSecret(string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: text})))
}

// A server that takes certificates instead of passwords lets in who shows the right one, for queries and for the stream.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithTLS(), server.WithHBA("hostssl all postgres all scram-sha-256", "hostssl all all all cert"))
	db := databaseOn(t, pg)
	authority := newClientAuthority(t)
	require.NoError(t, os.WriteFile(filepath.Join(pg.DataDir(), "clients.pem"), []byte(authority.pem), 0o644))
	db.exec("ALTER SYSTEM SET ssl_ca_file = 'clients.pem'", "SELECT pg_reload_conf()", "CREATE ROLE certified LOGIN SUPERUSER", "CREATE TABLE t (id int PRIMARY KEY)")
	ca, err := os.ReadFile(pg.CAFile())
	require.NoError(t, err)
	db.cfg.SSLMode, db.cfg.SSLRootCert = endpoint.VerifyFull, string(ca)
	db.cfg.User, db.cfg.Password = "certified", schema.Secret{}
	db.cfg.SSLCert, db.cfg.SSLKey = authority.sign(t, "certified")
	eventually(t, "the server has read its authorities", func() bool {
		d, _, err := connect(t.Context(), testEnv(t), db.cfg)
		if err == nil {
			_ = d.Close()
		}
		return err == nil
	})
	d := db.driver()
	stream := db.open(d, db.tables(d, "t")...)
	db.exec("INSERT INTO t VALUES (1)")
	require.Equal(t, []string{`c t {"id":1}`}, stream.fence())

	for name, c := range map[string]struct {
		change func(*config)
		want   string
	}{
		"none":                {func(c *config) { c.SSLCert, c.SSLKey = "", schema.Secret{} }, `does not let user "certified" in: connection requires a valid client certificate. Enter a client certificate and its key in sslCert and sslKey; its common name must be the user's, unless the server maps names (pg_ident.conf).`},
		"another user's":      {func(c *config) { c.SSLCert, c.SSLKey = authority.sign(t, "somebody") }, `does not let user "certified" in: certificate authentication failed for user "certified".`},
		"another authority's": {func(c *config) { c.SSLCert, c.SSLKey = newClientAuthority(t).sign(t, "certified") }, "Check that sslCert is signed by an authority that the server knows (its ssl_ca_file), and has not expired."},
		"without its key":     {func(c *config) { c.SSLKey = schema.Secret{} }, "There is a client certificate (sslCert) without its key. Enter the key in sslKey."},
	} {
		cfg := db.cfg
		c.change(&cfg)
		require.Contains(t, connectError(t, cfg), c.want, name)
	}
}

// A server that refuses a certificate may hang up before it can be heard to say so.
func TestClientCertificateRefused(t *testing.T) {
	t.Parallel()
	c := config{Address: "db:5432", SSLCert: "a certificate"}
	check := ". Check that sslCert is signed by an authority that the server knows (its ssl_ca_file), and has not expired."
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: unknown certificate authority")}
	require.Equal(t, usererr.Message(c.connectAdvice(fmt.Errorf("connecting: %w", alert))), "The server at db:5432 does not accept the client certificate: tls: unknown certificate authority"+check)
	for _, err := range []error{syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF} {
		require.Equal(t, usererr.Message(c.connectAdvice(fmt.Errorf("connecting: %w", err))), "The server at db:5432 hung up after it was shown the client certificate"+check)
	}
}

// Settings of the user reach every session, and none that a capture depends on can be chosen.
func TestServerSettings(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver(func(c *config) {
		c.Advanced.ApplicationName = "orders to the warehouse"
		c.Advanced.Options = map[string]string{"work_mem": "7MB", "my.setting": "x"}
	})
	const question = "SELECT current_setting('work_mem') || current_setting('my.setting') || current_setting('application_name') || current_setting('DateStyle')"
	const want = "7MBxorders to the warehouseISO, YMD"
	var got string
	require.NoError(t, d.conns.with(t.Context(), func(conn *pgx.Conn) error { return conn.QueryRow(t.Context(), question).Scan(&got) }))
	require.Equal(t, want, got)
	replication, _, err := d.dialer.replication(t.Context())
	require.NoError(t, err)
	defer replication.Close(context.Background())
	results, err := replication.Exec(t.Context(), question).ReadAll()
	require.NoError(t, err)
	require.Equal(t, want, string(results[0].Rows[0][0]))

	for setting, want := range map[string]string{
		"datestyle": `The server setting "datestyle" in advanced.options is not yours to choose: the capture needs its own value to read every row, and to print it the same way always. Remove it.`,
		"TimeZone":  `"TimeZone" in advanced.options is not yours to choose`, "EXTRA_FLOAT_DIGITS": "is not yours to choose", "client_encoding": "is not yours to choose",
		"row_security": "is not yours to choose", "replication": "is not yours to choose", "lock_timeout": "is not yours to choose", "options": "is not yours to choose",
		"statement_timeout": "The server setting statement_timeout has a field of its own: enter it in advanced.statementTimeout.",
		"application_name":  "The server setting application_name has a field of its own: enter it in advanced.applicationName.",
		"-c work_mem":       `The entry "-c work_mem" of advanced.options is no name of a server setting. Write the name alone, such as work_mem, and its value beside it.`,
		"no_such_setting":   `The server at ` + db.cfg.Address + ` refused the connection: unrecognized configuration parameter "no_such_setting".`,
	} {
		cfg := db.cfg
		cfg.Advanced.Options = map[string]string{setting: "1"}
		require.Contains(t, connectError(t, cfg), want, setting)
	}
	// Whatever sessions are opened with is refused, also what is added later.
	for _, settings := range []map[string]string{sessionSettings(), scanSettings()} {
		for name := range settings {
			require.NotEmpty(t, advanced{Options: map[string]string{name: "1"}}.optionProblems(), name)
		}
	}
}

// Every connection notices a dead peer, and has the server notice a dead us. What the kernel makes of it is proved in
// sdk/endpoint, by a network that loses everything.
func TestConnectionsStayAlive(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	d := db.driver()
	replication, socket, err := d.dialer.replication(t.Context())
	require.NoError(t, err)
	defer replication.Close(context.Background())
	check := func(pg *pgconn.PgConn, below net.Conn, userTimeout string) {
		t.Helper()
		raw, err := below.(syscall.Conn).SyscallConn()
		require.NoError(t, err)
		var alive, dead int
		require.NoError(t, raw.Control(func(fd uintptr) {
			alive, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
			dead, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		}))
		require.Equal(t, []int{1, 30_000}, []int{alive, dead})
		results, err := pg.Exec(t.Context(), "SELECT name, current_setting(name) FROM pg_settings WHERE name LIKE 'tcp%' ORDER BY name").ReadAll()
		require.NoError(t, err)
		var got []string
		for _, row := range results[0].Rows {
			got = append(got, string(row[0])+" "+string(row[1]))
		}
		require.Equal(t, []string{"tcp_keepalives_count 3", "tcp_keepalives_idle 20", "tcp_keepalives_interval 10", "tcp_user_timeout " + userTimeout}, got)
	}
	// A reader of the log may be blocked for long by its destination.
	check(replication, socket.Conn, "0")
	require.NoError(t, d.conns.with(t.Context(), func(conn *pgx.Conn) error {
		check(conn.PgConn(), rowsOf(conn.PgConn()).socket.Conn, "45000")
		return nil
	}))
}
