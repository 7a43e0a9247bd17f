package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// Values of sslmode. "prefer" and "allow" do not exist: they would fall back to plain text without a word.
const (
	sslDisable    = "disable"
	sslRequire    = "require"
	sslVerifyCA   = "verify-ca"
	sslVerifyFull = "verify-full"
)

const (
	connectTimeout  = 20 * time.Second
	applicationName = "sluice"
)

// sessionSettings make every session print values in one way, whatever the server's, the database's and the user's
// defaults are. The replication session needs them as much as those of the backfill.
func sessionSettings() map[string]string {
	return map[string]string{
		"application_name":                    applicationName,
		"client_encoding":                     "UTF8",
		"TimeZone":                            "UTC",
		"DateStyle":                           "ISO, YMD",
		"IntervalStyle":                       "iso_8601",
		"extra_float_digits":                  "3",
		"bytea_output":                        "hex",
		"xmlbinary":                           "base64",
		"lc_monetary":                         "C",
		"quote_all_identifiers":               "off",
		"statement_timeout":                   "0",
		"lock_timeout":                        "0",
		"idle_in_transaction_session_timeout": "0",
	}
}

// scanSettings are for the sessions that read tables. Workers of our own read in parallel, so the server need not, and a
// table whose rows are hidden by row-level security must fail rather than look smaller than it is.
func scanSettings() map[string]string {
	return map[string]string{
		"max_parallel_workers_per_gather": "0",
		"row_security":                    "off",
		"default_transaction_read_only":   "off", // the publication is made by the same kind of session
		"jit":                             "off",
	}
}

// connConfig is how to connect: the address, TLS and session settings.
func (c config) connConfig() (*pgx.ConnConfig, error) {
	host, port, err := c.hostPort()
	if err != nil {
		return nil, err
	}
	// An empty string keeps pgx from reading the environment's idea of a host; everything is set below.
	cc, err := pgx.ParseConfig("host=localhost sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("preparing the connection: %w", err)
	}
	cc.Host, cc.Port, cc.Database, cc.User, cc.Password = host, port, c.Database, c.User, c.Password
	cc.Fallbacks = nil
	cc.ConnectTimeout = connectTimeout
	cc.RuntimeParams = sessionSettings()
	cc.DefaultQueryExecMode = pgx.QueryExecModeExec
	cc.TLSConfig, err = c.tlsConfig(host)
	if err != nil {
		return nil, err
	}
	cc.DialFunc = dialTCP
	return cc, nil
}

// dialTCP notices a server that vanished without a word within a minute.
func dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: connectTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 20 * time.Second, Interval: 10 * time.Second, Count: 4,
	}}
	return d.DialContext(ctx, network, addr)
}

// tlsConfig is nil for plain text, which is chosen by "disable" or for a loopback address without a mode.
func (c config) tlsConfig(host string) (*tls.Config, error) {
	mode := c.SSLMode
	if mode == "" {
		mode = sslVerifyFull
		if isLoopback(host) && c.SSLRootCert == "" {
			mode = sslDisable
		}
	}
	if mode == sslDisable {
		return nil, nil //nolint:nilnil // no TLS
	}
	t := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if c.SSLRootCert != "" {
		pool, err := certPool(c.SSLRootCert)
		if err != nil {
			return nil, err
		}
		t.RootCAs = pool
	}
	switch mode {
	case sslRequire:
		t.InsecureSkipVerify = true //nolint:gosec // what "require" means; the documentation says so
	case sslVerifyCA:
		t.InsecureSkipVerify = true //nolint:gosec // the chain is verified below, the name is not
		t.VerifyConnection = func(s tls.ConnectionState) error { return verifyChain(s, t.RootCAs) }
	}
	return t, nil
}

// verifyChain is verification without the host name.
func verifyChain(s tls.ConnectionState, roots *x509.CertPool) error {
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, cert := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := s.PeerCertificates[0].Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
	}
	return nil
}

func certPool(pem string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		return nil, usererr.New(nil, "The SSL root certificate holds no certificate. Paste the text of a PEM file, "+
			"which begins with -----BEGIN CERTIFICATE-----.")
	}
	return pool, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// dial opens a session, with settings beyond those of every session. Errors are in words for people.
func (c config) dial(ctx context.Context, settings map[string]string) (*pgx.Conn, error) {
	cc, err := c.connConfig()
	if err != nil {
		return nil, err
	}
	maps.Copy(cc.RuntimeParams, settings)
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, c.connectAdvice(err)
	}
	return conn, nil
}

// dialReplication opens a session that can run replication commands, and whose connection can be taken over. It also
// gives the socket below it.
func (c config) dialReplication(ctx context.Context) (*pgconn.PgConn, *lowatConn, error) {
	cc, err := c.connConfig()
	if err != nil {
		return nil, nil, err
	}
	var socket *lowatConn
	cc.RuntimeParams["replication"] = "database"
	cc.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialTCP(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		socket, err = newLowatConn(conn)
		return socket, err
	}
	cc.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(&exactReader{r: r}, w)
	}
	conn, err := pgconn.ConnectConfig(ctx, &cc.Config)
	if err != nil {
		return nil, nil, c.connectAdvice(err)
	}
	return conn, socket, nil
}
