package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/tunnel"
)

const connectTimeout = 30 * time.Second

// conn is one connection with a deadline on every statement. It is for one goroutine at a time.
type conn struct {
	pg      *pgconn.PgConn
	tunnel  *tunnel.Tunnel // that the connection goes through, and nothing else; nil if there is none
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
	c := &conn{timeout: cfg.Advanced.statementTimeout()}
	if cfg.Tunnel.Enabled() {
		c.tunnel = tunnel.New(cfg.Tunnel, endpoint.NetDialer{Timeout: connectTimeout}, nil)
		options.DialFunc = throughTunnel(c.tunnel)
		// Names are resolved at the tunnel's other end.
		options.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	}
	if c.pg, err = pgconn.ConnectConfig(ctx, options); err != nil {
		c.close()
		return nil, explainConnect(err, cfg)
	}
	if err := c.exec(ctx, settings(cfg, application)); err != nil {
		c.close()
		return nil, fmt.Errorf("preparing the session: %w", err)
	}
	return c, nil
}

// tunnelError is what the tunnel says, in words for people.
type tunnelError struct{ err error }

func (e *tunnelError) Error() string { return e.err.Error() }
func (e *tunnelError) Unwrap() error { return e.err }

func throughTunnel(t *tunnel.Tunnel) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := t.DialContext(ctx, network, address)
		if err != nil {
			return nil, &tunnelError{err}
		}
		return conn, nil
	}
}

// options are made from the configuration alone: pgconn reads PGHOST and its kin, which are overwritten here.
func (c config) options() (*pgconn.Config, error) {
	addr, err := c.address()
	if err != nil {
		return nil, err
	}
	options, err := pgconn.ParseConfig("host=localhost port=5432 user=x dbname=x password=x sslmode=disable connect_timeout=30 passfile=/dev/null servicefile=/dev/null")
	if err != nil {
		return nil, fmt.Errorf("preparing the connection: %w", err)
	}
	options.Host, options.Port = addr.Host, addr.Port
	options.User, options.Password, options.Database = c.User, c.Password.Reveal(), c.Database
	options.Fallbacks = nil
	options.RuntimeParams = map[string]string{}
	options.DialFunc = endpoint.NetDialer{Timeout: connectTimeout}.DialContext
	if options.TLSConfig, err = c.tls(addr).Config(addr.Host); err != nil {
		return nil, err //nolint:wrapcheck // in words for people
	}
	return options, nil
}

// settings make values mean the same on every server, and give the server a chance to notice that we are gone.
func settings(cfg config, application string) string {
	set := []struct{ name, value string }{
		{"application_name", application},
		{"client_encoding", "UTF8"},
		{"datestyle", "ISO, YMD"},
		{"intervalstyle", "iso_8601"},
		{"timezone", "UTC"},
		{"extra_float_digits", "3"},
		{"standard_conforming_strings", "on"},
		{"array_nulls", "on"},
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
	// Of newer servers only: a cache before the index, which never hits, since no key comes twice; and more timeouts.
	b.WriteString(`SELECT set_config(name, v, false) FROM pg_settings
		JOIN (VALUES ('enable_memoize', 'off'), ('idle_session_timeout', '0'), ('transaction_timeout', '0')) AS x (n, v) ON n = name`)
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
			params[i] = fmt.Append([]byte{}, a) // never nil, which would be NULL
		}
	}
	result := c.pg.ExecParams(ctx, sql, params, nil, formats, nil).Read()
	return result.Rows, c.explain(ctx, result.Err)
}

// inTransaction runs f between BEGIN and COMMIT, or rolls back what it did.
func (c *conn) inTransaction(ctx context.Context, f func() error) error {
	if err := c.exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED"); err != nil {
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
	if c.pg != nil {
		_ = c.pg.Close(ctx)
	}
	if c.tunnel != nil {
		_ = c.tunnel.Close()
	}
}

func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// quote writes an identifier.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
