package network

import (
	"errors"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Processes that want to end with us, by which the kernel understands the thread that has started them, outlive the making of namespaces.
func TestNamespacesEndNobody(t *testing.T) {
	t.Parallel()
	first, err := newNamespace()
	if errors.Is(err, unix.EPERM) {
		t.Skip(err)
	}
	require.NoError(t, err)
	require.NoError(t, first.close())
	const many = 16
	ended := make(chan error, many)
	for range many {
		cmd := exec.CommandContext(t.Context(), "cat") // which reads until its input ends
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		input, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		go func() { ended <- cmd.Wait() }()
		t.Cleanup(func() { _ = input.Close() })
		var making sync.WaitGroup
		for range 4 {
			making.Go(func() {
				n, err := newNamespace()
				if err == nil {
					err = n.close()
				}
				if err != nil {
					ended <- err
				}
			})
		}
		making.Wait()
	}
	select {
	case err := <-ended:
		require.FailNow(t, "a process has ended", "%v", err)
	default:
	}
}
