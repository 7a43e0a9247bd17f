package process

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// watchOutput cancels when nobody can read what is written to out any more: a runtime that died. A source that has nothing
// to write would not notice it otherwise, and would hold what only one process may hold. The channel is closed when the
// watch is over, which is right after ctx has ended.
func watchOutput(ctx context.Context, out io.Writer, cancel func()) <-chan struct{} {
	done := make(chan struct{})
	f, ok := out.(*os.File)
	if !ok || !isPipe(f) {
		close(done)
		return done
	}
	// poll(2) waits for both: the output's other end to be closed, and the end of ctx, which closes this pipe.
	wake, end, err := os.Pipe()
	if err != nil {
		close(done) // out of descriptors; the next write will notice as well
		return done
	}
	context.AfterFunc(ctx, func() { _ = end.Close() })
	go func() {
		defer close(done)
		defer wake.Close()
		fds := []unix.PollFd{{Fd: int32(f.Fd())}, {Fd: int32(wake.Fd())}}
		for ctx.Err() == nil {
			if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			if fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
				cancel()
				return
			}
		}
	}()
	return done
}

func isPipe(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeNamedPipe != 0
}

// isTerminal reports whether somebody sits at the other end of f.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
