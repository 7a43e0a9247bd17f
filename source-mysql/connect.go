package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/tunnel"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

const connectTimeout = 20 * time.Second

// A dialer opens connections: it knows the way to the server and who we are there. Its methods may be called from many
// goroutines.
type dialer struct {
	cfg    config
	net    endpoint.Dialer
	tunnel *tunnel.Tunnel // net, or nil if the server is reached directly
}

// newDialer makes a dialer of a valid configuration. It connects to nothing yet.
func newDialer(cfg config, log *logrus.Entry) *dialer {
	d := &dialer{cfg: cfg, net: endpoint.NetDialer{Timeout: connectTimeout}}
	if cfg.Tunnel.Enabled() {
		d.tunnel = tunnel.New(cfg.Tunnel, d.net, log)
		d.net = d.tunnel
	}
	return d
}

// close ends the tunnel, and with it all connections through it.
func (d *dialer) close() error {
	if d.tunnel == nil {
		return nil
	}
	return d.tunnel.Close()
}

// open opens a connection for questions, and logs in. It is read as it comes, but for answers that are known to be large (LowWater.Expect).
func (d *dialer) open(ctx context.Context) (*session, error) {
	s, err := d.replication(ctx)
	if err != nil {
		return nil, err
	}
	s.socket.Expect(0)
	return s, nil
}

// replication opens a connection that the log will be read from, in large pieces while much arrives.
func (d *dialer) replication(ctx context.Context) (*session, error) {
	addr, err := d.cfg.address()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := d.cfg.tls(addr).Config(addr.Host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := d.net.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, d.advice(addr, err)
	}
	socket, err := endpoint.NewLowWater(raw)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) }) // has reads and writes end
	l := login{user: d.cfg.User, password: d.cfg.Password, tls: tlsConfig}
	l.verified = tlsConfig != nil && (!tlsConfig.InsecureSkipVerify || tlsConfig.VerifyConnection != nil)
	s, err := l.open(socket)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close() // it is of no use any more
		return nil, d.advice(addr, err)
	}
	s.socket = socket
	return s, nil
}

// The server's errors for those who may not come in.
const (
	errAccessDenied   = 1045
	errHostBlocked    = 1129
	errHostNotAllowed = 1130
	errTooMany        = 1040
	errTooManyOfUser  = 1203
)

// advice explains why a connection could not be opened.
func (d *dialer) advice(addr endpoint.Address, err error) error {
	if usererr.Message(err) != err.Error() {
		return err // it says what is wrong
	}
	my, _ := errors.AsType[*serverError](err)
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, otherName := errors.AsType[x509.HostnameError](err)
	remote, _ := errors.AsType[*net.OpError](err)
	// Whoever refuses a certificate may hang up before it can be heard to say so.
	hungUp := isLost(err) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
	switch {
	case my != nil && my.code == errAccessDenied:
		return usererr.New(err, "The server at %s does not let the user %q in. Check user and password, and that the user may connect from here (CREATE USER %s@'%%' IDENTIFIED BY '…').%s",
			addr, d.cfg.User, "'"+d.cfg.User+"'", d.certificateAdvice())
	case my != nil && (my.code == errHostBlocked || my.code == errHostNotAllowed):
		return usererr.New(err, "The server at %s refuses connections from this machine: %s", addr, my.message)
	case my != nil && (my.code == errTooMany || my.code == errTooManyOfUser):
		return usererr.New(err, "The server at %s has no connection left for the user %q. Raise max_connections or the user's limit, or lower advanced.backfillWorkers.", addr, d.cfg.User)
	case unverified, unknown, otherName:
		return usererr.New(err, "The certificate of the server at %s is not trusted: %s. Enter the certificate of its authority in sslRootCert; or choose another sslmode, if you know what answers at that address.", addr, lastCause(err))
	case errors.Is(err, errNoTLS):
		return usererr.New(err, "The server at %s speaks no TLS. Give it a certificate, or set sslmode to disable if nobody else can read the network between here and there.", addr)
	case errors.Is(err, errPacket):
		return usererr.New(err, "What answers at %s is no MySQL or MariaDB server, or is not to be trusted: %s.", addr, err)
	case d.cfg.SSLCert != "" && (hungUp || remote != nil && remote.Op == "remote error"): // an alert of TLS
		return usererr.New(err, "The server at %s hung up after it was shown the client certificate: %s. Check that sslCert is signed by an authority that the server knows (its ssl_ca), and has not expired.", addr, lastCause(err))
	case d.tunnel == nil:
		return usererr.New(err, "The server at %s cannot be reached: %s.", addr, lastCause(err))
	default:
		return fmt.Errorf("connecting to the server at %s through the tunnel: %w", addr, err)
	}
}

// certificateAdvice says what else may keep a user out who must show a certificate (REQUIRE in CREATE USER).
func (d *dialer) certificateAdvice() string {
	if d.cfg.SSLCert == "" {
		return " If the user must show a client certificate (REQUIRE X509), enter it in sslCert and its key in sslKey."
	}
	return " If the user must show a certain client certificate (REQUIRE SUBJECT, ISSUER or CIPHER), check that sslCert is that one."
}

// lastCause is the innermost error's text.
func lastCause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// pool keeps sessions that are not in use. It grows with how many are used at once, which the core bounds.
type pool struct {
	dial func(context.Context) (*session, error)

	mu     sync.Mutex
	idle   []*session
	closed bool
}

var errClosed = errors.New("the driver is closed")

// get takes a session, a used one if there is one.
func (p *pool) get(ctx context.Context) (s *session, used bool, err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, false, errClosed
	}
	if n := len(p.idle); n > 0 {
		s, p.idle = p.idle[n-1], p.idle[:n-1]
		p.mu.Unlock()
		return s, true, nil
	}
	p.mu.Unlock()
	s, err = p.dial(ctx)
	return s, false, err
}

// put gives a session back. One that broke is closed instead.
func (p *pool) put(s *session) {
	p.mu.Lock()
	if !p.closed && !s.broken {
		p.idle = append(p.idle, s)
		s = nil
	}
	p.mu.Unlock()
	if s != nil {
		_ = s.close() // it is of no use any more, whatever closing says
	}
}

// with runs f with a session. If a session that had lain idle turns out to be gone, f runs once more with a new one, so it must
// do all or nothing.
func (p *pool) with(ctx context.Context, f func(*session) error) error {
	s, used, err := p.get(ctx)
	if err != nil {
		return err
	}
	err = f(s)
	if used && isLost(err) && ctx.Err() == nil {
		s.broken = true
		p.put(s)
		if s, err = p.dial(ctx); err != nil {
			return err
		}
		err = f(s)
	}
	p.put(s)
	return err
}

// The server's errors that mean the session is gone, rather than that a statement failed.
const (
	errServerShutdown = 1053
	errKilled         = 1927 // MariaDB
	errIdleTooLong    = 4031
)

func isLost(err error) bool {
	_, lost := errors.AsType[*lostError](err)
	switch code(err) {
	case errServerShutdown, errKilled, errIdleTooLong:
		return true
	default:
		return lost
	}
}

// isDisconnected reports whether an error ends a session of which another one can go on: also if somebody ended the sending of the log, or
// the server cannot be reached now. What is compressed in the log may end early, too, but that it does again.
func isDisconnected(err error) bool {
	if errors.Is(err, binlog.ErrFormat) {
		return false
	}
	return isLost(err) || endpoint.Lost(err) || code(err) == errInterrupted || errors.Is(err, errEnded)
}

func (p *pool) close() error {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	var errs []error
	for _, s := range idle {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}
