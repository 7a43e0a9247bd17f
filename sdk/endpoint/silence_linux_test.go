package endpoint_test

import (
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/testkit/need"
)

// A peer behind a network that drops everything without a word is noticed: when something was sent to it, when nothing was, and
// when it had not read for long what was sent. Both ends are real sockets in a network namespace of the test's own, whose link
// loses all packets from some moment on.
func TestSilentNetworkIsNoticed(t *testing.T) {
	t.Parallel()
	const dead = 6 * time.Second
	for name, before := range map[string]func(client net.Conn){
		"sending": func(client net.Conn) {},
		"idle":    func(client net.Conn) {},
		"unread":  func(client net.Conn) { stall(t, client, 2*dead) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, silence := dialNamespaces(t, endpoint.NetDialer{Idle: dead / 2, Dead: dead})
			before(client)
			silence()
			if name == "sending" {
				_, err := client.Write([]byte("is anybody there?"))
				require.NoError(t, err)
			}
			require.NoError(t, client.SetReadDeadline(time.Now().Add(10*dead)))
			began := time.Now()
			_, err := client.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ETIMEDOUT, "the kernel gave the connection up")
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
			t.Log(time.Since(began))
		})
	}
}

// A peer that lives and does not read for long is waited for, and then gets all that was sent.
func TestReaderThatStallsIsWaitedFor(t *testing.T) {
	t.Parallel()
	const dead = 6 * time.Second
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	client, err := endpoint.NetDialer{Dead: dead}.DialContext(t.Context(), "tcp", listener.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	server, err := listener.Accept()
	require.NoError(t, err)
	defer server.Close()

	sent := stall(t, client, 4*dead)
	require.NoError(t, client.(*net.TCPConn).CloseWrite())
	got, err := io.Copy(io.Discard, server)
	require.NoError(t, err)
	require.Equal(t, sent, got)
}

// stall sends until nothing more is taken, and then waits. It returns how many bytes were sent.
func stall(t *testing.T, client net.Conn, wait time.Duration) (sent int64) {
	t.Helper()
	piece := make([]byte, 1<<20)
	for {
		require.NoError(t, client.SetDeadline(time.Now().Add(time.Second)))
		n, err := client.Write(piece)
		sent += int64(n)
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			break
		}
	}
	require.NoError(t, client.SetDeadline(time.Now().Add(wait)))
	_, err := client.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the connection lives")
	require.NoError(t, client.SetDeadline(time.Time{}))
	return sent
}

// The times that are in force without further words: a minute is enough for both.
func TestTimesOfSockets(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	conn, err := endpoint.NetDialer{}.DialContext(t.Context(), "tcp", listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	get := func(level, option int) (value int) {
		t.Helper()
		raw, err := conn.(syscall.Conn).SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, option) }))
		require.NoError(t, err)
		return value
	}
	require.NotZero(t, get(unix.SOL_SOCKET, unix.SO_KEEPALIVE))
	idle, interval := get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), get(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)
	dead := get(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	require.Equal(t, 30_000, dead)
	require.LessOrEqual(t, idle+interval+dead/1000, 60, "seconds until an idle connection is given up")
}

// dialNamespaces opens a connection between two network namespaces, one of which forgets the way to the other when it is told to.
func dialNamespaces(t *testing.T, d endpoint.NetDialer) (client net.Conn, silence func()) {
	t.Helper()
	here, there := newNamespace(t), newNamespace(t)
	here.ip(t, "link", "add", "name", "veth1", "type", "veth", "peer", "name", "veth2", "netns", strconv.Itoa(there.thread))
	here.ip(t, "address", "add", "192.0.2.1/24", "dev", "veth1")
	here.ip(t, "link", "set", "veth1", "up")
	there.ip(t, "address", "add", "192.0.2.2/24", "dev", "veth2")
	there.ip(t, "link", "set", "veth2", "up")
	var listener net.Listener
	var conn net.Conn
	var err error
	there.do(func() { listener, err = net.Listen("tcp", "192.0.2.2:0") })
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	here.do(func() { conn, err = d.DialContext(t.Context(), "tcp", listener.Addr().String()) })
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn, func() { there.ip(t, "route", "add", "blackhole", "192.0.2.1/32") }
}

// namespace is a network of its own. Sockets that are made by do belong to it, wherever they are used.
type namespace struct {
	thread int
	calls  chan func()
}

// newNamespace starts a thread in a new namespace, which ends with the test.
func newNamespace(t *testing.T) *namespace {
	t.Helper()
	n := &namespace{calls: make(chan func())}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is of no use to others
		err := unix.Unshare(unix.CLONE_NEWNET)
		n.thread = unix.Gettid()
		started <- err
		for call := range n.calls {
			call()
		}
	}()
	t.Cleanup(func() { close(n.calls) })
	if err := <-started; err != nil {
		t.Skip("this process may not make network namespaces: " + err.Error())
	}
	return n
}

func (n *namespace) do(call func()) {
	done := make(chan struct{})
	n.calls <- func() { defer close(done); call() }
	<-done
}

// ip runs the command of that name inside.
func (n *namespace) ip(t *testing.T, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		need.Missing(t, "the command ip (package iproute2) is not on this machine")
	}
	var out []byte
	var err error
	n.do(func() { out, err = exec.CommandContext(t.Context(), "ip", args...).CombinedOutput() })
	require.NoError(t, err, "ip %v: %s", args, out)
}
