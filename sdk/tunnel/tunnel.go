package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/ssh"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// ErrLost is in the chain of errors of connections whose SSH connection broke. What was going on can be tried again: the next
// dial makes a new SSH connection.
var ErrLost = errors.New("the SSH tunnel was lost")

var errClosed = errors.New("the tunnel was closed")

// connectTimeout bounds the TCP connection and the handshake with the SSH server.
const connectTimeout = 20 * time.Second

// Tunnel opens connections through an SSH server. It implements endpoint.Dialer; its methods may be called from many
// goroutines.
type Tunnel struct {
	cfg   Config
	below endpoint.Dialer
	log   *logrus.Entry
	pulse pulse

	mu     sync.Mutex
	client *client // nil until the first dial, and after it was lost
	closed bool
}

// New makes a tunnel of a configuration that Validate has accepted. It connects when something is first dialled. The dialer
// below opens the connection to the SSH server. The log gets a line when the tunnel is opened again; it may be nil.
func New(cfg Config, below endpoint.Dialer, log *logrus.Entry) *Tunnel {
	return &Tunnel{cfg: cfg, below: below, log: log, pulse: pulse{every: 15 * time.Second, patience: 30 * time.Second}}
}

// DialContext implements endpoint.Dialer. The address is resolved and reached by the SSH server; network is "tcp". Errors are
// in words for people. The connection has working deadlines, which those of package ssh do not.
func (t *Tunnel) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := t.connected(ctx)
	if err != nil {
		return nil, err
	}
	channel, err := c.ssh.DialContext(ctx, network, address)
	if err != nil {
		return nil, t.forwardAdvice(c, address, err)
	}
	return newConn(c, channel), nil
}

// Close ends the SSH connection and every connection through it. Dialling afterwards fails.
func (t *Tunnel) Close() error {
	t.mu.Lock()
	c := t.client
	t.client, t.closed = nil, true
	t.mu.Unlock()
	if c != nil {
		c.end(errClosed)
		c.wait()
	}
	return nil
}

// connected is the SSH connection, a new one if there is none. Others that dial meanwhile wait for it.
func (t *Tunnel) connected(ctx context.Context) (*client, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return nil, errClosed
	case t.client != nil && t.client.lost() == nil:
		return t.client, nil
	}
	if t.client != nil && t.log != nil {
		t.log.WithError(t.client.lost()).WithField("tunnel", t.cfg.Address).Info("opening the SSH tunnel again")
	}
	c, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	t.client = c
	return c, nil
}

func (t *Tunnel) connect(ctx context.Context) (*client, error) {
	addr, err := endpoint.ParseAddress(t.cfg.Address, sshPort)
	if err != nil {
		return nil, err //nolint:wrapcheck // in words for people
	}
	known, err := parseHostKeys(t.cfg.HostKey)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	auth, release, err := t.cfg.auth(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	conn, err := t.below.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, t.connectAdvice(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	sshConn, channels, requests, err := ssh.NewClientConn(conn, addr.String(), &ssh.ClientConfig{
		User: t.cfg.User, Auth: auth, HostKeyCallback: known.check(t.cfg.Address), HostKeyAlgorithms: known.algorithms(),
		ClientVersion: "SSH-2.0-sluice",
	})
	if !stop() && err == nil {
		_ = sshConn.Close()
	}
	if ctx.Err() != nil { // which closed the connection, so the other error says nothing
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, t.connectAdvice(err)
	}
	return newClient(ssh.NewClient(sshConn, channels, requests), t.pulse), nil
}

// connectAdvice says why the SSH server could not be used.
func (t *Tunnel) connectAdvice(err error) error {
	var (
		key     *hostKeyError
		auth    *ssh.ServerAuthError
		network net.Error
		dns     *net.DNSError
	)
	at := t.cfg.Address
	switch {
	case errors.As(err, &key):
		return key.err
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &auth), isAuthFailure(err):
		return usererr.New(err, "The SSH server at %s does not let user %q in. Check tunnel.user, and that the key's public half is in the user's authorized_keys there (or tunnel.password, if it takes passwords).", at, t.cfg.User)
	case errors.As(err, &dns):
		return usererr.New(err, "The host name of the SSH server %s is not known. Check tunnel.address for typing errors.", at)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return usererr.New(err, "The SSH server at %s did not answer within %s. Check tunnel.address, and that no firewall drops the connection.", at, connectTimeout)
	}
	return usererr.New(err, "The SSH server at %s cannot be reached: %s. Check tunnel.address, and that an SSH server runs there.", at, innermost(err))
}

// forwardAdvice says why the SSH server does not open a connection.
func (t *Tunnel) forwardAdvice(c *client, address string, err error) error {
	if refused, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		if refused.Reason == ssh.Prohibited {
			return usererr.New(err, "The SSH server at %s does not let user %q open connections to %s. Have its administrator allow it: AllowTcpForwarding yes, and PermitOpen %s if that is restricted.", t.cfg.Address, t.cfg.User, address, address)
		}
		return usererr.New(err, "The SSH server at %s cannot reach %s: %s. The address is resolved and reached from there; check it, and that the server listens on it.", t.cfg.Address, address, refused.Message)
	}
	if lost := c.lost(); lost != nil {
		return usererr.New(lost, "The SSH tunnel through %s was lost. It is opened again with the next attempt.", t.cfg.Address)
	}
	return fmt.Errorf("opening a connection to %s through the tunnel: %w", address, err)
}

func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}
