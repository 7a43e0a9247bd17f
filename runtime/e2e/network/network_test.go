package network_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/network"
)

// Hosts reach each other and this machine, a host that is cut reaches nobody, its connections stay open and go on when it is mended; nothing is
// left afterwards.
func TestNetwork(t *testing.T) {
	t.Parallel()
	n, err := network.New(t.Context())
	if errors.Is(err, network.ErrUnable) {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	listener, err := net.Listen("tcp", n.Address()+":0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	a, err := n.Add(t.Context())
	require.NoError(t, err)
	b, err := n.Add(t.Context())
	require.NoError(t, err)

	// A host sends a line for each that it is told to.
	command := a.Command()
	address := strings.Replace(listener.Addr().String(), ":", "/", 1)
	cmd := exec.CommandContext(t.Context(), command[0], append(command[1:], "bash", "-c", "cat >/dev/tcp/"+address)...)
	tell, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() })
	conn, err := listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.Equal(t, a.Address(), conn.RemoteAddr().(*net.TCPAddr).IP.String())
	lines := bufio.NewReader(conn)
	hears := func(line string) {
		t.Helper()
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
		got, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, line, got)
	}
	say := func(line string) {
		t.Helper()
		_, err := tell.Write([]byte(line))
		require.NoError(t, err)
	}
	say("before\n")
	hears("before\n")

	require.True(t, reaches(t, b, a.Address()))
	require.NoError(t, a.Cut())
	require.False(t, reaches(t, b, a.Address()), "the other host reaches it")
	require.True(t, reaches(t, b, n.Address()), "the others are not cut")
	say("meanwhile\n")
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	_, err = lines.ReadString('\n')
	var silence net.Error
	require.ErrorAs(t, err, &silence)
	require.True(t, silence.Timeout(), "nothing is heard, not even an end: %v", err)
	require.NoError(t, a.Mend())
	hears("meanwhile\n")

	require.NoError(t, tell.Close())
	require.NoError(t, n.Close())
	require.NoError(t, n.Close(), "it may be closed twice")
	_, err = (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", listener.Addr().String())
	require.Error(t, err, "the address is gone")
}

// reaches tells whether a host has an answer from an address, be it a refusal.
func reaches(t *testing.T, from *network.Host, address string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	command := from.Command()
	out, _ := exec.CommandContext(ctx, command[0], append(command[1:], "bash", "-c", "echo >/dev/tcp/"+address+"/1")...).CombinedOutput()
	return strings.Contains(string(out), "refused")
}
