// Package bastion is an SSH server that does nothing but forward connections, in the test's own process. A test against a
// real sshd belongs beside those that use it.
package bastion

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// User is the one user, and Password its password.
const (
	User     = "tunnel"
	Password = "bastion-password-1f0c"
)

// Options change what the server does. The zero value lets the user in with a key or the password, and forwards everything.
type Options struct {
	HostKey     ssh.Signer // a new ed25519 key if nil
	Interactive bool       // ask for the password by questions (keyboard-interactive) only
	Forbid      bool       // refuse to forward
}

// Server is a running SSH server. Its methods may be called from any goroutine.
type Server struct {
	options  Options
	listener net.Listener
	key      ed25519.PrivateKey
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  []io.Closer

	logins   atomic.Int64
	forwards atomic.Int64
	targets  sync.Map // addresses that were asked for
}

var errDenied = errors.New("denied")

// Start starts a server, which ends with the test.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	if options.HostKey == nil {
		options.HostKey, _ = NewKey(t, "")
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	own, err := ssh.NewPublicKey(key.Public())
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &Server{options: options, listener: listener, key: key}
	password := func(password string) (*ssh.Permissions, error) {
		if password != Password {
			return nil, errDenied
		}
		return nil, nil //nolint:nilnil // no restrictions
	}
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(c ssh.ConnMetadata, shown ssh.PublicKey) (*ssh.Permissions, error) {
			if c.User() != User || !slices.Equal(shown.Marshal(), own.Marshal()) {
				return nil, errDenied
			}
			return nil, nil //nolint:nilnil // no restrictions
		},
		KeyboardInteractiveCallback: func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			answers, err := ask("", "", []string{"Password: "}, []bool{false})
			if err != nil || len(answers) != 1 {
				return nil, errDenied
			}
			return password(answers[0])
		},
	}
	if !options.Interactive {
		config.PasswordCallback = func(_ ssh.ConnMetadata, given []byte) (*ssh.Permissions, error) { return password(string(given)) }
	}
	config.AddHostKey(options.HostKey)
	s.running.Go(func() { s.accept(config) })
	t.Cleanup(func() {
		_ = listener.Close()
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.Cut()
		s.running.Wait()
	})
	return s
}

// NewKey makes a key pair: for a server or a client, and as text, protected if there is a passphrase.
func NewKey(t testing.TB, passphrase string) (signer ssh.Signer, text string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err = ssh.NewSignerFromKey(key)
	require.NoError(t, err)
	return signer, keyText(t, key, passphrase)
}

func keyText(t testing.TB, key ed25519.PrivateKey, passphrase string) string {
	t.Helper()
	var block *pem.Block
	var err error
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	require.NoError(t, err)
	return string(pem.EncodeToMemory(block))
}

// Address is where the server listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// HostKey is the server's key as a line for a configuration.
func (s *Server) HostKey() string {
	return string(ssh.MarshalAuthorizedKey(s.options.HostKey.PublicKey()))
}

// Fingerprint is that of the host key.
func (s *Server) Fingerprint() string { return ssh.FingerprintSHA256(s.options.HostKey.PublicKey()) }

// Key is the user's own key, which agents take.
func (s *Server) Key() ed25519.PrivateKey { return s.key }

// PrivateKey is the user's key as text, protected if there is a passphrase.
func (s *Server) PrivateKey(t testing.TB, passphrase string) string {
	t.Helper()
	return keyText(t, s.key, passphrase)
}

// Logins counts the SSH connections, and Forwards the connections through them.
func (s *Server) Logins() int { return int(s.logins.Load()) }

// Forwards counts the connections that were forwarded.
func (s *Server) Forwards() int { return int(s.forwards.Load()) }

// Asked reports whether a connection to an address was asked for, in these words.
func (s *Server) Asked(address string) bool {
	_, ok := s.targets.Load(address)
	return ok
}

// Cut closes all SSH connections that there are; new ones can be made.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	s.conns = nil
}

// track notes a connection to be closed; it is closed at once if the server has ended.
func (s *Server) track(conn io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
	}
	s.conns = append(s.conns, conn)
}

func (s *Server) accept(config *ssh.ServerConfig) {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.track(conn)
		s.running.Go(func() { s.serve(conn, config) })
	}
}

func (s *Server) serve(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	s.logins.Add(1)
	s.running.Go(func() { ssh.DiscardRequests(requests) })
	for channel := range channels {
		s.running.Go(func() { s.forward(channel) })
	}
}

// forward serves a direct-tcpip channel: https://www.rfc-editor.org/rfc/rfc4254#section-7.2
func (s *Server) forward(request ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if request.ChannelType() != "direct-tcpip" || ssh.Unmarshal(request.ExtraData(), &to) != nil {
		_ = request.Reject(ssh.UnknownChannelType, "only forwarding here")
		return
	}
	address := net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port)))
	s.targets.Store(address, true)
	if s.options.Forbid {
		_ = request.Reject(ssh.Prohibited, "open failed")
		return
	}
	target, err := net.Dial("tcp", address)
	if err != nil {
		_ = request.Reject(ssh.ConnectionFailed, fmt.Sprint("connect failed: ", errors.Unwrap(err)))
		return
	}
	s.track(target)
	channel, requests, err := request.Accept()
	if err != nil {
		_ = target.Close()
		return
	}
	s.forwards.Add(1)
	s.running.Go(func() { ssh.DiscardRequests(requests) })
	s.running.Go(func() {
		_, _ = io.Copy(channel, target)
		_ = channel.Close()
	})
	_, _ = io.Copy(target, channel)
	_ = target.Close()
}
