package tunnel

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh/agent"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/bastion"
	"github.com/sluicedata/sluice/sdk/testkit/fault"
	"github.com/sluicedata/sluice/sdk/usererr"
)

const passphrase = "passphrase-77ab"

// echo is a TCP server that sends back what it gets, and says on its own what it is when asked for nothing.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

func quiet() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return logrus.NewEntry(log)
}

func configOf(t *testing.T, s *bastion.Server) Config {
	t.Helper()
	return Config{Address: s.Address(), User: bastion.User, PrivateKey: schema.NewSecret(s.PrivateKey(t, "")), HostKey: s.HostKey()}
}

func open(t *testing.T, cfg Config) *Tunnel {
	t.Helper()
	require.NoError(t, cfg.Validate())
	tun := New(cfg, endpoint.NetDialer{}, quiet())
	t.Cleanup(func() { require.NoError(t, tun.Close()) })
	return tun
}

func says(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_, err := conn.Write([]byte(text))
	require.NoError(t, err)
	answer := make([]byte, len(text))
	_, err = io.ReadFull(conn, answer)
	require.NoError(t, err)
	require.Equal(t, text, string(answer))
}

func TestLogins(t *testing.T) {
	t.Parallel()
	target := echo(t)
	for name, c := range map[string]struct {
		options bastion.Options
		change  func(*testing.T, *Config, *bastion.Server)
	}{
		"key": {},
		"protected key": {change: func(t *testing.T, c *Config, s *bastion.Server) {
			c.PrivateKey, c.Passphrase = schema.NewSecret(s.PrivateKey(t, passphrase)), schema.NewSecret(passphrase)
		}},
		"agent": {change: func(t *testing.T, c *Config, s *bastion.Server) {
			c.PrivateKey, c.AgentSocket = schema.Secret{}, startAgent(t, s)
		}},
		"password": {change: func(_ *testing.T, c *Config, _ *bastion.Server) {
			c.PrivateKey, c.Password = schema.Secret{}, schema.NewSecret(bastion.Password)
		}},
		"questions": {options: bastion.Options{Interactive: true}, change: func(_ *testing.T, c *Config, _ *bastion.Server) {
			c.PrivateKey, c.Password = schema.Secret{}, schema.NewSecret(bastion.Password)
		}},
		"fingerprint": {change: func(_ *testing.T, c *Config, s *bastion.Server) { c.HostKey = s.Fingerprint() }},
		"known_hosts": {change: func(t *testing.T, c *Config, s *bastion.Server) {
			other, _ := bastion.NewKey(t, "")
			c.HostKey = "# two keys\n\n[bastion]:22,10.0.0.1 " + strings.TrimSpace(string(marshal(other))) + "\n|1|c2FsdA==|aGFzaA== " + s.HostKey()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := bastion.Start(t, c.options)
			cfg := configOf(t, s)
			if c.change != nil {
				c.change(t, &cfg, s)
			}
			tun := open(t, cfg)
			for range 3 {
				conn, err := tun.DialContext(t.Context(), "tcp", target)
				require.NoError(t, err)
				says(t, conn, "hello")
			}
			require.Equal(t, 1, s.Logins(), "connections share one SSH connection")
		})
	}
}

func startAgent(t *testing.T, s *bastion.Server) string {
	t.Helper()
	keys := agent.NewKeyring()
	key := s.Key()
	require.NoError(t, keys.Add(agent.AddedKey{PrivateKey: &key}))
	socket := filepath.Join(t.TempDir(), "agent")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keys, conn) }()
		}
	}()
	return socket
}

// Every mistake is named, and no message has a secret in it.
func TestErrors(t *testing.T) {
	t.Parallel()
	s, forbids := bastion.Start(t, bastion.Options{}), bastion.Start(t, bastion.Options{Forbid: true})
	_, otherKey := bastion.NewKey(t, "")
	other, _ := bastion.NewKey(t, "")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := listener.Addr().String()
	require.NoError(t, listener.Close())
	protected := schema.NewSecret(s.PrivateKey(t, passphrase))
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no host key": {func(c *Config) { c.HostKey = "" }, "Which SSH server answers at " + s.Address() + " cannot be verified without its host key. It shows a key with the fingerprint " + s.Fingerprint() +
			". If its administrator confirms that (ssh-keygen -lf on the server's public host keys in /etc/ssh), enter in tunnel.hostKey:\n" + strings.TrimSpace(s.HostKey())},
		"another key":         {func(c *Config) { c.HostKey = string(marshal(other)) }, "shows another host key than the one in tunnel.hostKey: its fingerprint is " + s.Fingerprint() + ", not "},
		"another fingerprint": {func(c *Config) { c.HostKey = "SHA256:abc" }, "not SHA256:abc. Either another server answers, or its key was changed."},
		"not a host key":      {func(c *Config) { c.HostKey = "key" }, "The host key of the tunnel (tunnel.hostKey) is not understood. Enter a public key (ssh-ed25519 AAAA…), a line of known_hosts, or a fingerprint (SHA256:…)."},
		"an authority":        {func(c *Config) { c.HostKey = "@cert-authority * ssh-ed25519 AAAA" }, "a line with the marker @cert-authority, which is not supported. Enter the server's own key."},
		"wrong key":           {func(c *Config) { c.PrivateKey = schema.NewSecret(otherKey) }, `does not let user "tunnel" in. Check tunnel.user, and that the key's public half is in the user's authorized_keys there (or tunnel.password, if it takes passwords).`},
		"wrong password": {func(c *Config) {
			c.PrivateKey, c.Password = schema.Secret{}, schema.NewSecret("wrong-password-5e")
		}, `does not let user "tunnel" in.`},
		"no passphrase":    {func(c *Config) { c.PrivateKey = protected }, "The private key of the tunnel is protected. Enter its passphrase in tunnel.passphrase."},
		"wrong passphrase": {func(c *Config) { c.PrivateKey, c.Passphrase = protected, schema.NewSecret("wrong-password-5e") }, "The passphrase (tunnel.passphrase) does not open the private key of the tunnel."},
		"not a key":        {func(c *Config) { c.PrivateKey = schema.NewSecret("wrong-password-5e") }, "The private key of the tunnel cannot be read. Paste the whole text of the file"},
		"no agent":         {func(c *Config) { c.AgentSocket = "/nowhere" }, "The SSH agent at /nowhere (tunnel.agentSocket) cannot be reached: no such file or directory."},
		"nothing listens":  {func(c *Config) { c.Address = closed }, "The SSH server at " + closed + " cannot be reached: connection refused. Check tunnel.address, and that an SSH server runs there."},
		"unknown host":     {func(c *Config) { c.Address = "no-such-host.invalid" }, "The host name of the SSH server no-such-host.invalid is not known. Check tunnel.address for typing errors."},
		"forbidden": {func(c *Config) {
			c.Address, c.HostKey, c.PrivateKey = forbids.Address(), forbids.HostKey(), schema.NewSecret(forbids.PrivateKey(t, ""))
		}, `does not let user "tunnel" open connections to ` + closed + ". Have its administrator allow it: AllowTcpForwarding yes, and PermitOpen " + closed},
		"unreachable": {func(*Config) {}, "The SSH server at " + s.Address() + " cannot reach " + closed + ": connect failed: "},
		"no user":     {func(c *Config) { c.User = "" }, "Enter the user to log in as at the SSH server, in tunnel.user."},
		"no login":    {func(c *Config) { c.PrivateKey = schema.NewSecret("") }, "Enter how to log in at the SSH server: tunnel.privateKey, tunnel.agentSocket or tunnel.password."},
		"no address":  {func(c *Config) { c.Address = "" }, "The tunnel has no address. Enter the SSH server's in tunnel.address, or remove the tunnel."},
		"a URL":       {func(c *Config) { c.Address = "ssh://a@b" }, `The SSH server's address (tunnel.address) is wrong: The address "ssh://a@b" is not a host name or an IP address.`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := configOf(t, s)
			c.change(&cfg)
			err := cfg.Validate()
			if err == nil {
				_, err = open(t, cfg).DialContext(t.Context(), "tcp", closed)
			}
			require.Error(t, err)
			require.Contains(t, usererr.Message(err), c.want)
			for _, secret := range []string{passphrase, "wrong-password-5e", otherKey[40:80]} {
				require.NotContains(t, err.Error(), secret)
			}
		})
	}
	require.NoError(t, Config{PrivateKey: schema.NewSecret("")}.Validate(), "a form that was not filled in is no tunnel")
}

// Connections have deadlines, move much in both directions at once without a byte wrong, and see the other end's end.
func TestConnections(t *testing.T) {
	t.Parallel()
	s := bastion.Start(t, bastion.Options{})
	tun := open(t, configOf(t, s))
	conn, err := tun.DialContext(t.Context(), "tcp", echo(t))
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, conn.SetReadDeadline(time.Time{}))

	text := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(text)
	go func() { _, _ = conn.Write(text) }()
	got := make([]byte, len(text))
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	require.True(t, bytes.Equal(text, got))

	// Somebody who does not read keeps writers waiting, until their deadline and not for ever.
	stuck, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer stuck.Close()
	full, err := tun.DialContext(t.Context(), "tcp", stuck.Addr().String())
	require.NoError(t, err)
	require.NoError(t, full.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
	_, err = full.Write(make([]byte, 64<<20))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	says(t, conn, "and this does not keep others from going on")

	// The end of the other side is the end, not the loss of the tunnel.
	ends, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ends.Close()
	go func() {
		if conn, err := ends.Accept(); err == nil {
			_, _ = conn.Write([]byte("bye"))
			_ = conn.Close()
		}
	}()
	ended, err := tun.DialContext(t.Context(), "tcp", ends.Addr().String())
	require.NoError(t, err)
	last, err := io.ReadAll(ended)
	require.NoError(t, err)
	require.Equal(t, "bye", string(last))
}

// A tunnel that breaks is an error of its connections, which says so; the next dial opens it again.
func TestLostTunnel(t *testing.T) {
	t.Parallel()
	s := bastion.Start(t, bastion.Options{})
	tun := open(t, configOf(t, s))
	target := echo(t)
	for lost := range 20 {
		a, err := tun.DialContext(t.Context(), "tcp", target)
		require.NoError(t, err)
		b, err := tun.DialContext(t.Context(), "tcp", target)
		require.NoError(t, err)
		says(t, a, "hello")
		require.Equal(t, lost+1, s.Logins())
		s.Cut()
		_, err = a.Read(make([]byte, 1))
		require.ErrorIs(t, err, ErrLost)
		require.NotErrorIs(t, err, io.EOF, "it is no regular end")
		require.ErrorIs(t, a.SetReadDeadline(time.Now()), ErrLost)
		require.Eventually(t, func() bool {
			_, err = b.Write([]byte("x"))
			return err != nil
		}, 10*time.Second, time.Millisecond)
		require.ErrorIs(t, err, ErrLost)
	}
}

// A network that says nothing any more is noticed by what the tunnel asks the SSH server now and then.
func TestSilentTunnel(t *testing.T) {
	t.Parallel()
	s := bastion.Start(t, bastion.Options{})
	proxy := fault.NewProxy(t, s.Address())
	cfg := configOf(t, s)
	cfg.Address = proxy.Address()
	tun := open(t, cfg)
	tun.pulse = pulse{every: 50 * time.Millisecond, patience: 300 * time.Millisecond}
	conn, err := tun.DialContext(t.Context(), "tcp", echo(t))
	require.NoError(t, err)
	says(t, conn, "hello")
	time.AfterFunc(500*time.Millisecond, proxy.Freeze) // answers have kept it alive until then
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	started := time.Now()
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, ErrLost)
	require.ErrorContains(t, err, "no answer from the SSH server within 300ms")
	require.Greater(t, time.Since(started), 500*time.Millisecond)
	p := New(cfg, endpoint.NetDialer{}, quiet()).pulse
	require.LessOrEqual(t, p.every+p.patience, time.Minute)
}

// Close ends all that goes through the tunnel and leaves nothing running; a dial does not outlive its context.
func TestClose(t *testing.T) {
	t.Parallel()
	s := bastion.Start(t, bastion.Options{})
	proxy := fault.NewProxy(t, s.Address())
	cfg := configOf(t, s)
	cfg.Address = proxy.Address()
	tun := open(t, cfg)
	conn, err := tun.DialContext(t.Context(), "tcp", echo(t))
	require.NoError(t, err)
	proxy.Freeze()
	require.NoError(t, tun.Close(), "it waits for its goroutines, but not for the network")
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = tun.DialContext(t.Context(), "tcp", "127.0.0.1:1")
	require.ErrorIs(t, err, errClosed)

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = open(t, cfg).DialContext(ctx, "tcp", "127.0.0.1:1")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Contains(t, usererr.Message(err), "did not answer within 20s. Check tunnel.address, and that no firewall drops the connection.")
}

func TestConfig(t *testing.T) {
	t.Parallel()
	schema.CheckConfig[Config](t)
}
