// Package daemon is about processes of servers that tests and demos start: how they are started and ended, and what cleans up behind
// them, whatever becomes of us.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Process is one life of a server. Its methods may be called from any goroutine.
type Process struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process was waited for
}

// Start starts a server. The command must not be bound to a context that ends before the server does. How it ends is in its log.
func Start(cmd *exec.Cmd) (*Process, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, gone: make(chan struct{})}
	go func() {
		defer close(p.gone)
		_ = cmd.Wait() // how it ended is in its log
	}()
	return p, nil
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Alive tells whether the process has not ended.
func (p *Process) Alive() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// Signal sends a signal.
func (p *Process) Signal(signal syscall.Signal) error { return p.cmd.Process.Signal(signal) }

// WaitReady asks at intervals whether the server is ready, for at most a limit. If it ends before, or is not ready in time, it is
// killed, and the error says which of the two it was.
func (p *Process) WaitReady(ctx context.Context, interval, limit time.Duration, ready func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	poll := time.NewTicker(interval)
	defer poll.Stop()
	for !ready(ctx) {
		select {
		case <-p.gone:
			return errors.New("it exited at once")
		case <-ctx.Done():
			p.Kill()
			return ctx.Err()
		case <-poll.C:
		}
	}
	return nil
}

// Kill ends the process with SIGKILL and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may be gone by itself
	<-p.gone
}

// End asks the server to end, by whatever ask does, and waits for it. A server that takes longer than the limit is killed, which is
// an error.
func (p *Process) End(limit time.Duration, ask func() error) error {
	if err := ask(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.gone:
		return nil
	case <-time.After(limit):
		p.Kill()
		return fmt.Errorf("it did not end within %s and was killed", limit)
	}
}
