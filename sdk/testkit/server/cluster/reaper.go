package cluster

import (
	"fmt"
	"io"
	"os/exec"
	"syscall"
)

// reaper is a shell that outlives us for a moment: it waits for the pipe on its standard input to close, which
// happens at the latest when our process dies, however it dies; then it stops the server and removes the folder.
type reaper struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
	done bool
}

const reaperScript = `
read -r _ || true
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null; then
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.2
	done
	kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
`

func startReaper(dir string) (*reaper, error) {
	// Not bound to a context: it must outlive everything else.
	cmd := exec.Command("sh", "-c", reaperScript, "sluice-postgres-reaper", dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the cluster's reaper: %w", err)
	}
	return &reaper{cmd: cmd, pipe: pipe}, nil
}

// close ends the reaper after the server was stopped.
func (r *reaper) close() error {
	if r == nil || r.done {
		return nil
	}
	r.done = true
	if err := r.pipe.Close(); err != nil {
		return err
	}
	return r.cmd.Wait()
}
