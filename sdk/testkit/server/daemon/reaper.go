package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
)

// Reaper is a shell that outlives us for a moment: it waits for the pipe on its standard input to close, which happens at the latest
// when our process dies, however it dies; then it stops what runs in a folder, and removes the folder.
type Reaper struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
	done bool
}

// StartReaper starts a reaper of a folder. What runs there is stopped by a piece of shell script, which has the folder as $1. The name is
// what the process is listed as.
func StartReaper(name, dir, stop string) (*Reaper, error) {
	script := "read -r _ || true\n" + stop + "\nrm -rf \"$1\"\n"
	cmd := exec.CommandContext(context.Background(), "sh", "-c", script, name, dir) // outlives everything else
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return &Reaper{cmd: cmd, pipe: pipe}, nil
}

// Close ends the reaper, after what it would stop was stopped, and waits until it has removed the folder. A nil reaper is closed.
func (r *Reaper) Close() error {
	if r == nil || r.done {
		return nil
	}
	r.done = true
	return errors.Join(r.pipe.Close(), r.cmd.Wait())
}
