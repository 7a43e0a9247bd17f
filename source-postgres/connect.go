package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/tunnel"
)

const (
	connectTimeout  = 20 * time.Second
	applicationName = "sluice"
)

// A dialer opens sessions: it knows the way to the server, who we are there, and what every session looks like. Its methods
// may be called from many goroutines.
type dialer struct {
	cfg      config
	net      endpoint.Dialer
	tunnel   *tunnel.Tunnel // net, or nil if the server is reached directly
	password passwordSource

	// proxied is set once a session shows that somebody speaks for the server, such as a pooler.
	proxied atomic.Bool
}

// newDialer makes a dialer of a valid configuration. It connects to nothing yet.
func newDialer(cfg config, log *logrus.Entry) *dialer {
	d := &dialer{cfg: cfg, net: endpoint.NetDialer{Timeout: connectTimeout}, password: cfg.passwordSource()}
	if cfg.Tunnel.Enabled() {
		d.tunnel = tunnel.New(cfg.Tunnel, d.net, log)
		d.net = d.tunnel
	}
	return d
}

// close ends the tunnel, and with it all sessions through it.
func (d *dialer) close() error {
	if d.tunnel == nil {
		return nil
	}
	return d.tunnel.Close()
}

// config is how to open one session: address, who we are now, TLS and settings.
func (d *dialer) config(ctx context.Context) (*pgx.ConnConfig, error) {
	addr, err := d.cfg.address()
	if err != nil {
		return nil, err
	}
	// Everything is set below, so that pgx does not read the environment's idea of a host.
	cc, err := pgx.ParseConfig("host=localhost sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("preparing the connection: %w", err)
	}
	if cc.Password, err = d.password(ctx); err != nil {
		return nil, err
	}
	cc.Host, cc.Port, cc.Database, cc.User = addr.Host, addr.Port, d.cfg.Database, d.cfg.User
	cc.Fallbacks = nil
	cc.ConnectTimeout = connectTimeout
	cc.RuntimeParams = map[string]string{"application_name": cmp.Or(d.cfg.Advanced.ApplicationName, applicationName)}
	maps.Copy(cc.RuntimeParams, aliveSettings())
	maps.Copy(cc.RuntimeParams, d.cfg.Advanced.Options)
	maps.Copy(cc.RuntimeParams, sessionSettings())
	cc.DefaultQueryExecMode = pgx.QueryExecModeExec
	if cc.TLSConfig, err = d.cfg.tls(addr).Config(addr.Host); err != nil {
		return nil, err
	}
	cc.DialFunc = d.dial
	if d.tunnel != nil {
		// Names are resolved at the tunnel's other end.
		cc.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	}
	return cc, nil
}

// dial opens the connection below a session.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.net.DialContext(ctx, network, address)
	if err != nil && d.tunnel != nil {
		err = &tunnelError{err}
	}
	return conn, err
}

// tunnelError is what the tunnel says, in words for people.
type tunnelError struct{ err error }

func (e *tunnelError) Error() string { return e.err.Error() }
func (e *tunnelError) Unwrap() error { return e.err }

// session opens a session, with settings beyond those of every session. Errors are in words for people.
func (d *dialer) session(ctx context.Context, settings map[string]string) (*pgx.Conn, error) {
	cc, err := d.config(ctx)
	if err != nil {
		return nil, err
	}
	maps.Copy(cc.RuntimeParams, settings)
	rows := &rowReader{}
	lowWater(cc, &rows.socket)
	cc.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		rows.read(r) // of several attempts, the last one succeeds
		return pgproto3.NewFrontend(rows, w)
	}
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, d.cfg.connectAdvice(err)
	}
	required := sessionSettings()
	maps.Copy(required, settings)
	if err := d.verify(ctx, conn.PgConn(), required); err != nil {
		_ = conn.Close(ctx) // the first error counts
		return nil, err
	}
	conn.PgConn().CustomData()[customRows] = rows
	rows.socket.Expect(0)
	return conn, nil
}

// replication opens a session that can run replication commands, and whose connection can be taken over. It also gives the
// socket below it.
func (d *dialer) replication(ctx context.Context) (*pgconn.PgConn, *endpoint.LowWater, error) {
	cc, err := d.config(ctx)
	if err != nil {
		return nil, nil, err
	}
	var socket *endpoint.LowWater
	cc.RuntimeParams["replication"] = "database"
	if _, chosen := d.cfg.Advanced.Options[userTimeoutSetting]; !chosen {
		// A destination may keep us from reading for longer than that, and then Linux takes a connection for dead although its
		// other end answers. The server watches readers of its log by wal_sender_timeout.
		delete(cc.RuntimeParams, userTimeoutSetting)
	}
	lowWater(cc, &socket)
	reader := keepReader(&cc.Config)
	conn, err := pgconn.ConnectConfig(ctx, &cc.Config)
	if err != nil {
		return nil, nil, d.cfg.connectAdvice(err)
	}
	if err := d.verify(ctx, conn, sessionSettings()); err != nil {
		_ = conn.Close(ctx) // the first error counts
		return nil, nil, err
	}
	conn.CustomData()[customReader] = *reader
	return conn, socket, nil
}

// lowWater has a session read in large pieces, and tells by what: of several attempts, the last one succeeds.
func lowWater(cc *pgx.ConnConfig, socket **endpoint.LowWater) {
	dial := cc.DialFunc
	cc.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		*socket, err = endpoint.NewLowWater(conn)
		return *socket, err
	}
}
