package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const connectTimeout = 30 * time.Second

// conn is one connection with a deadline on every statement. It is for one goroutine at a time.
type conn struct {
	pg      *pgconn.PgConn
	timeout time.Duration
}

// connect opens a connection whose session settings do not depend on the server's, the role's or the environment's.
func connect(ctx context.Context, cfg config, application string) (*conn, error) {
	options, err := cfg.options()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	pg, err := pgconn.ConnectConfig(ctx, options)
	if err != nil {
		return nil, explainConnect(err, cfg)
	}
	c := &conn{pg: pg, timeout: cfg.Advanced.statementTimeout()}
	if err := c.exec(ctx, settings(cfg, application)); err != nil {
		c.close()
		return nil, fmt.Errorf("preparing the session: %w", err)
	}
	return c, nil
}

// options are made from the configuration alone: pgconn reads PGHOST and its kin, which are overwritten here.
func (c config) options() (*pgconn.Config, error) {
	host, port, err := c.hostPort()
	if err != nil {
		return nil, err
	}
	options, err := pgconn.ParseConfig("host=localhost port=5432 user=x dbname=x password=x sslmode=disable connect_timeout=30 passfile=/dev/null servicefile=/dev/null")
	if err != nil {
		return nil, fmt.Errorf("preparing the connection: %w", err)
	}
	options.Host, options.Port = host, port
	options.User, options.Password, options.Database = c.User, c.Password, c.Database
	options.Fallbacks = nil
	options.RuntimeParams = map[string]string{}
	options.TLSConfig = c.tls(host)
	options.DialFunc = (&net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}).DialContext
	return options, nil
}

// tls returns what the mode asks for; nil means no TLS. No mode falls back to another.
func (c config) tls(host string) *tls.Config {
	mode := c.sslmode()
	if mode == "disable" {
		return nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if c.SSLRootCert != "" {
		t.RootCAs = x509.NewCertPool()
		t.RootCAs.AppendCertsFromPEM([]byte(c.SSLRootCert))
	}
	switch mode {
	case "require":
		t.InsecureSkipVerify = true
	case "verify-ca":
		// The chain is verified, the name is not.
		t.InsecureSkipVerify = true
		t.VerifyConnection = func(s tls.ConnectionState) error {
			opts := x509.VerifyOptions{Roots: t.RootCAs, Intermediates: x509.NewCertPool()}
			for _, cert := range s.PeerCertificates[1:] {
				opts.Intermediates.AddCert(cert)
			}
			_, err := s.PeerCertificates[0].Verify(opts)
			return err
		}
	}
	return t
}

// settings make values mean the same on every server, and give the server a chance to notice that we are gone.
func settings(cfg config, application string) string {
	set := []struct{ name, value string }{
		{"application_name", application},
		{"client_encoding", "UTF8"},
		{"datestyle", "ISO, YMD"},
		{"intervalstyle", "postgres"},
		{"timezone", "UTC"},
		{"extra_float_digits", "3"},
		{"standard_conforming_strings", "on"},
		{"search_path", "pg_catalog"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"lock_timeout", strconv.FormatInt(cfg.Advanced.lockTimeout().Milliseconds(), 10)},
		// Rows are found by their primary key, one index lookup each: temporary tables have no statistics, and without
		// them the planner likes to read whole tables instead.
		{"enable_hashjoin", "off"},
		{"enable_mergejoin", "off"},
		{"jit", "off"},
		{"tcp_keepalives_idle", "60"},
		{"tcp_keepalives_interval", "10"},
		{"tcp_keepalives_count", "6"},
	}
	var b strings.Builder
	for _, s := range set {
		fmt.Fprintf(&b, "SET SESSION %s = %s;", s.name, quoteLiteral(s.value))
	}
	// Postgres 14 and newer put a cache before the index, which never hits: no key comes twice.
	b.WriteString("SELECT set_config('enable_memoize', 'off', false) FROM pg_settings WHERE name = 'enable_memoize'")
	return b.String()
}

// exec runs statements without parameters and results.
func (c *conn) exec(ctx context.Context, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err := c.pg.Exec(ctx, sql).ReadAll()
	return c.explain(ctx, err)
}

// rows runs one statement with parameters as text, and returns the result as text; nil values are NULL.
func (c *conn) rows(ctx context.Context, sql string, args ...any) ([][][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	params := make([][]byte, len(args))
	formats := make([]int16, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case nil:
		case []byte:
			params[i], formats[i] = a, 1
		default:
			params[i] = fmt.Append(nil, a)
		}
	}
	result := c.pg.ExecParams(ctx, sql, params, nil, formats, nil).Read()
	return result.Rows, c.explain(ctx, result.Err)
}

// inTransaction runs f between BEGIN and COMMIT, or rolls back what it did.
func (c *conn) inTransaction(ctx context.Context, f func() error) error {
	if err := c.exec(ctx, "BEGIN"); err != nil {
		return err
	}
	if err := f(); err != nil {
		_ = c.exec(context.WithoutCancel(ctx), "ROLLBACK")
		return err
	}
	return c.exec(ctx, "COMMIT")
}

// close ends the connection politely if the server listens, and within a few seconds in any case.
func (c *conn) close() {
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = c.pg.Close(ctx)
}

func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// quote writes an identifier.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
