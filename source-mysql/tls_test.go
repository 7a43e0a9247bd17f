package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/bastion"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
	"github.com/sluicedata/sluice/sdk/tunnel"
)

// The certificate of a real server is verified: an unknown authority and a wrong name are refused; backfill and stream go through TLS.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := server.SharedMySQL(t, mysqld.MySQL)
	db := databaseOn(t, s)
	// The server has made itself a certificate, which names no host.
	ca, err := os.ReadFile(filepath.Join(s.DataDir(), "ca.pem"))
	require.NoError(t, err)
	for _, c := range []struct{ mode, root, want string }{
		{endpoint.VerifyFull, "", "is not trusted: x509: "},
		{endpoint.VerifyFull, string(ca), "is not trusted: x509: cannot validate certificate for 127.0.0.1"},
		{endpoint.VerifyCA, "", "is not trusted: x509: certificate signed by unknown authority"},
		{endpoint.VerifyCA, string(ca), ""},
		{endpoint.Require, "", ""},
	} {
		cfg := db.cfg
		cfg.SSLMode, cfg.SSLRootCert = c.mode, c.root
		require.NoError(t, cfg.Validate())
		conn, err := newDialer(cfg, testEnv(t).Log).open(t.Context())
		if c.want != "" {
			require.ErrorContains(t, err, c.want, c.mode)
			continue
		}
		require.NoError(t, err, c.mode)
		row, err := conn.row(t.Context(), "SHOW SESSION STATUS LIKE 'Ssl_cipher'")
		require.NoError(t, err)
		require.NotEmpty(t, row[1], c.mode)
		require.NoError(t, conn.close())
	}
	db.cfg.SSLMode, db.cfg.SSLRootCert = endpoint.VerifyCA, string(ca)
	db.streams(t)
}

// A user who must show a certificate gets in with the right one, for queries and for the stream, and is told what is wrong with others.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	s := server.SharedMySQL(t, mysqld.MySQL)
	db := databaseOn(t, s)
	file := func(name string) string {
		text, err := os.ReadFile(filepath.Join(s.DataDir(), name))
		require.NoError(t, err)
		return string(text)
	}
	certificate, key := file("client-cert.pem"), schema.NewSecret(file("client-key.pem")) // which the server has made with its own
	block, _ := pem.Decode([]byte(certificate))
	parsed, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	db.exec("CREATE USER certified@'%' IDENTIFIED BY '"+mysqld.Password+"' REQUIRE SUBJECT '/CN="+parsed.Subject.CommonName+"'", "GRANT ALL ON *.* TO certified@'%'",
		"CREATE USER another@'%' IDENTIFIED BY '"+mysqld.Password+"' REQUIRE SUBJECT '/CN=another'")
	admin := db.cfg
	t.Cleanup(func() {
		conn, err := newDialer(admin, testEnv(t).Log).open(context.Background())
		require.NoError(t, err)
		require.NoError(t, conn.exec(context.Background(), "DROP USER certified@'%', another@'%'"))
		require.NoError(t, conn.close())
	})
	db.cfg.SSLMode, db.cfg.SSLRootCert, db.cfg.SSLCert, db.cfg.SSLKey = endpoint.VerifyCA, file("ca.pem"), certificate, key
	for name, c := range map[string]struct {
		change func(*config)
		want   string
	}{
		"the right one": {func(*config) {}, ""},
		"none":          {func(c *config) { c.SSLCert, c.SSLKey = "", schema.Secret{} }, "If the user must show a client certificate (REQUIRE X509), enter it in sslCert and its key in sslKey."},
		"another user's": {
			func(c *config) { c.User = "another" },
			"If the user must show a certain client certificate (REQUIRE SUBJECT, ISSUER or CIPHER), check that sslCert is that one.",
		},
		"another authority's": {
			func(c *config) { c.SSLCert, c.SSLKey = unknownCertificate(t) },
			"hung up after it was shown the client certificate: ",
		},
		"without its key": {func(c *config) { c.SSLKey = schema.Secret{} }, "There is a client certificate (sslCert) without its key. Enter the key in sslKey."},
	} {
		cfg := db.cfg
		cfg.User = "certified"
		c.change(&cfg)
		err := cfg.Validate()
		if err == nil {
			var conn *session
			if conn, err = newDialer(cfg, testEnv(t).Log).open(t.Context()); err == nil {
				require.NoError(t, conn.close())
			}
		}
		if c.want == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, c.want, name)
	}
	db.cfg.User = "certified"
	db.streams(t)
}

// unknownCertificate is a client's certificate by an authority that no server knows.
func unknownCertificate(t *testing.T) (certificate string, key schema.Secret) {
	t.Helper()
	made := selfSigned(t).Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Certificate[0]})),
		schema.NewSecret(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// A server without TLS is refused, unless plain text was asked for.
func TestNoTLS(t *testing.T) {
	t.Parallel()
	s := server.MySQL(t, mysqld.MariaDB, map[string]string{"skip-ssl": "1"})
	db := databaseOn(t, s)
	cfg := db.cfg
	cfg.SSLMode = endpoint.Require
	_, err := newDialer(cfg, testEnv(t).Log).open(t.Context())
	require.ErrorContains(t, err, "The server at "+s.Address()+" speaks no TLS. Give it a certificate, or set sslmode to disable if nobody else can read the network between here and there.")
}

// Queries and the stream go through an SSH server. When that breaks, the stream ends with an error, and goes on behind the last commit.
func TestTunnel(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		ssh := bastion.Start(t, bastion.Options{})
		db.cfg.Tunnel = tunnel.Config{Address: ssh.Address(), User: bastion.User, PrivateKey: schema.NewSecret(ssh.PrivateKey(t, "")), HostKey: ssh.HostKey()}
		stream := db.streams(t)
		require.True(t, ssh.Asked(db.server.Address()))
		require.GreaterOrEqual(t, ssh.Forwards(), 2)

		ssh.Cut()
		var err error
		require.Eventually(t, func() bool {
			_, err = stream.Next(t.Context(), 10*time.Millisecond)
			return err != nil
		}, patience, time.Millisecond)
		require.ErrorIs(t, err, tunnel.ErrLost)
		from := cdc.Position{Cursor: stream.cursor, Identity: stream.Start().Identity}
		stream.close()
		db.exec("INSERT INTO t VALUES (100000, 'later')")
		d := db.driver()
		again := db.resume(d, from, db.tables(d, "t")...)
		require.Equal(t, []string{`c t {"a":"later","id":100000}`}, again.fence())
	})
}

// streams checks that rows are scanned and streamed by the configuration at hand, many enough to fill buffers.
func (db *database) streams(t *testing.T) *testStream {
	t.Helper()
	db.exec("CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(600))", "INSERT INTO t VALUES (0, REPEAT('x', 500))")
	d := db.driver()
	tables := db.tables(d, "t")
	stream := db.open(d, tables...)
	rows, _ := db.scanAll(d, tables[0], 10)
	require.Len(t, rows, 1)
	for n := 1; n < 4096; n *= 2 {
		db.exec(fmt.Sprintf("INSERT INTO t SELECT id + %d, a FROM t", n))
	}
	require.Len(t, stream.fence(), 4095)
	return stream
}
