package tunnel

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/bastion"
	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// The SSH server that most people have takes our logins, forwards, and forbids in words that are understood; when it ends, so
// does what went through it.
func TestOpenSSH(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts sshd; run without -short")
	}
	const sshd = "/usr/sbin/sshd"
	if _, err := os.Stat(sshd); err != nil {
		need.Missing(t, "sshd is not on this machine; scripts/services install fetches it")
	}
	target := echo(t)
	cfg, kill := startSSHD(t, sshd, "AllowTcpForwarding yes")
	tun := open(t, cfg)
	conn, err := tun.DialContext(t.Context(), "tcp", target)
	require.NoError(t, err)
	says(t, conn, "hello")
	again, err := tun.DialContext(t.Context(), "tcp", strings.Replace(target, "127.0.0.1", "localhost", 1))
	require.NoError(t, err)
	says(t, again, strings.Repeat("much ", 1<<20))
	_, err = tun.DialContext(t.Context(), "tcp", "127.0.0.1:1")
	require.Contains(t, usererr.Message(err), "cannot reach 127.0.0.1:1: Connection refused.")
	kill()
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, ErrLost)

	for _, line := range []string{"AllowTcpForwarding no", "PermitOpen 127.0.0.1:1"} {
		cfg, _ := startSSHD(t, sshd, line)
		_, err := open(t, cfg).DialContext(t.Context(), "tcp", target)
		require.Contains(t, usererr.Message(err), "open connections to "+target+". Have its administrator allow it: AllowTcpForwarding yes, and PermitOpen "+target, line)
	}
	_, otherKey := bastion.NewKey(t, "")
	cfg, _ = startSSHD(t, sshd, "PasswordAuthentication no")
	cfg.PrivateKey = schema.NewSecret(otherKey)
	_, err = open(t, cfg).DialContext(t.Context(), "tcp", target)
	require.Contains(t, usererr.Message(err), "does not let user")
}

// startSSHD starts a real SSH server that lets in who runs the test; kill ends it and its sessions.
func startSSHD(t *testing.T, sshd, line string) (cfg Config, kill func()) {
	t.Helper()
	dir := t.TempDir()
	hostKey, hostText := bastion.NewKey(t, "")
	own, ownText := bastion.NewKey(t, passphrase)
	for name, text := range map[string]string{"host": hostText, "authorized": string(marshal(own))} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	me, err := user.Current()
	require.NoError(t, err)
	if os.Getuid() == 0 {
		require.NoError(t, os.MkdirAll("/run/sshd", 0o755)) // it gives up its rights there
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr, err := endpoint.ParseAddress(listener.Addr().String(), sshPort)
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	file := filepath.Join(dir, "config")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "ListenAddress %s\nHostKey %s/host\nAuthorizedKeysFile %s/authorized\nPidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n%s\n",
		addr, dir, dir, line), 0o600))
	var log strings.Builder
	cmd := exec.CommandContext(t.Context(), sshd, "-D", "-e", "-f", file)
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	ended := false
	kill = func() {
		if !ended {
			ended = true
			children(t, cmd.Process.Pid)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(func() {
		kill()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	require.Eventually(t, func() bool {
		conn, err := net.DialTimeout("tcp", addr.String(), time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, 20*time.Second, 20*time.Millisecond)
	return Config{
		Address: addr.String(), User: me.Username, HostKey: string(marshal(hostKey)),
		PrivateKey: schema.NewSecret(ownText), Passphrase: schema.NewSecret(passphrase),
	}, kill
}

// children ends the processes that a process has started, which are the server's sessions, and those that they started.
func children(t *testing.T, pid int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return
	}
	for field := range strings.FieldsSeq(string(text)) {
		var child int
		_, err := fmt.Sscan(field, &child)
		require.NoError(t, err)
		children(t, child)
		if p, err := os.FindProcess(child); err == nil {
			_ = p.Kill()
		}
	}
}
