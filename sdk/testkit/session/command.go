package session

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
)

// Command runs a connector as a process of its own until the test ends. The command's standard input and output become the
// session's; where its log goes is up to the caller (cmd.Stderr). The codec is passed in the environment.
func Command(t testing.TB, cmd *exec.Cmd, codec frame.Codec) *Session {
	t.Helper()
	stdin, requests, err := os.Pipe()
	require.NoError(t, err)
	responses, stdout, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdin, cmd.Stdout = stdin, stdout
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "SLUICE_CODEC="+codec.String())
	require.NoError(t, cmd.Start())
	_, _ = stdin.Close(), stdout.Close() // the child has its own
	out := &fileOutput{File: responses}
	s := &Session{
		t: t, codec: codec, requests: requests, output: out, responses: frame.NewReader(out, codec, 0), done: make(chan struct{}),
		cancel: func() { _ = cmd.Process.Signal(syscall.SIGTERM) }, // only fails when it has ended already
		kill:   func() { _ = cmd.Process.Kill() },
	}
	go func() {
		defer close(s.done)
		s.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		s.Kill()
		<-s.done
		_, _ = requests.Close(), responses.Close()
	})
	return s
}

// fileOutput is the end of a pipe from another process.
type fileOutput struct {
	*os.File
	why atomic.Pointer[error]
}

func (f *fileOutput) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if why := f.why.Load(); why != nil && errors.Is(err, os.ErrClosed) {
		err = *why
	}
	return n, err
}

// CloseWithError implements output.
func (f *fileOutput) CloseWithError(why error) error {
	f.why.CompareAndSwap(nil, &why)
	return f.Close()
}

// gone reports whether a write failed because the connector has ended, or does not read any more.
func gone(err error) bool {
	return errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrClosed) || errors.Is(err, syscall.EPIPE)
}
