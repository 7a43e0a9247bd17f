package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sluicedata/sluice/sdk/testkit/server/daemon"
)

var errPortTaken = errors.New("the port is taken")

// Start starts a stopped server and waits until it accepts connections; it does nothing while the server runs.
func (p *Postgres) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		return nil
	}
	log, err := os.OpenFile(p.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	offset, err := log.Seek(0, 2)
	if err != nil {
		return err
	}
	// No CommandContext: the server outlives the call that starts it.
	cmd := exec.Command(filepath.Join(p.install.BinDir, "postgres"), "-D", p.DataDir())
	cmd.Env, cmd.Dir, cmd.SysProcAttr = environment(p.install.BinDir), p.DataDir(), p.owner.attributes()
	cmd.Stdout, cmd.Stderr = log, log
	server, err := daemon.Start(cmd)
	if err != nil {
		return fmt.Errorf("starting postgres: %w", err)
	}
	// The status line of postmaster.pid is what pg_ctl polls, too.
	ready := func(context.Context) bool {
		pid, status := p.postmaster()
		return pid == server.PID() && status == "ready"
	}
	if err := server.WaitReady(ctx, 5*time.Millisecond, startTimeout, ready); err != nil {
		tail := p.logFrom(offset)
		if strings.Contains(tail, "Address already in use") {
			return errPortTaken
		}
		return fmt.Errorf("starting postgres: %w; its log says:\n%s", err, tail)
	}
	p.server = server
	return nil
}

// postmaster reads postmaster.pid: the process on line 1, its status on line 8.
func (p *Postgres) postmaster() (pid int, status string) {
	content, err := os.ReadFile(filepath.Join(p.DataDir(), "postmaster.pid"))
	if err != nil {
		return 0, ""
	}
	fields := strings.Split(string(content), "\n")
	if pid, err = strconv.Atoi(strings.TrimSpace(fields[0])); err != nil || len(fields) < 8 {
		return 0, ""
	}
	return pid, strings.TrimSpace(fields[7])
}

// Stop shuts the server down in the fast way: sessions are ended, a checkpoint is written. It does nothing when the
// server is stopped already.
func (p *Postgres) Stop() error {
	return p.end(func(server *daemon.Process) error { return server.Signal(syscall.SIGINT) })
}

// Kill ends the server and all its sessions with SIGKILL, as a crash of the machine would, except that what was
// written reached the kernel. Start afterwards runs crash recovery.
func (p *Postgres) Kill() error {
	return p.end(func(server *daemon.Process) error {
		pid := server.PID()
		// Stopped first, so that it starts no new child while its children are counted.
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		children := childrenOf(pid)
		for _, child := range children {
			_ = syscall.Kill(child, syscall.SIGKILL) // may be gone by itself
		}
		err := server.Signal(syscall.SIGKILL)
		waitGone(children)
		return err
	})
}

// waitGone waits until processes have let go of the shared memory: the next server would refuse to start. They were
// killed, so this takes as long as the kernel needs, which on a busy machine is noticeable.
func waitGone(pids []int) {
	deadline := time.Now().Add(startTimeout)
	for _, pid := range pids {
		for alive(pid) && time.Now().Before(deadline) {
			<-time.After(time.Millisecond)
		}
	}
}

// alive tells whether a process still holds memory: a zombie does not.
func alive(pid int) bool {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	rest := bytes.TrimLeft(content[bytes.LastIndexByte(content, ')')+1:], " ")
	return len(rest) > 0 && rest[0] != 'Z' && rest[0] != 'X'
}

// Running tells whether the server process is alive.
func (p *Postgres) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.server != nil && p.server.Alive()
}

// end sends the end to a running server and waits for it.
func (p *Postgres) end(send func(*daemon.Process) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	server := p.server
	if server == nil {
		return nil
	}
	p.server = nil
	if !server.Alive() {
		return nil
	}
	if err := server.End(startTimeout, func() error { return send(server) }); err != nil {
		return fmt.Errorf("ending postgres: %w", err)
	}
	return nil
}

// Log is what the server logged since the cluster was made.
func (p *Postgres) Log() string { return p.logFrom(0) }

func (p *Postgres) logFrom(offset int64) string {
	content, err := os.ReadFile(p.LogFile())
	if err != nil || int64(len(content)) < offset {
		return ""
	}
	return string(content[offset:])
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var children []int
	for _, path := range stats {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		// "pid (name) state ppid …", and the name may hold anything.
		rest := bytes.Fields(content[bytes.LastIndexByte(content, ')')+1:])
		if len(rest) > 1 && string(rest[1]) == strconv.Itoa(pid) {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}

// FreePort picks a loopback port below the range from which the kernel takes ports of outgoing connections, so that
// no client can sit on it while the server restarts.
func FreePort() (int, error) {
	for range 100 {
		port := 20000 + rand.IntN(12000)
		listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		return port, listener.Close()
	}
	return 0, errors.New("no free port between 20000 and 32000 on loopback")
}

// quoteSetting quotes a value for postgresql.conf.
func quoteSetting(value string) string {
	return "'" + strings.ReplaceAll(value, "'", "''") + "'"
}

func lines(l []string) string { return strings.Join(l, "\n") + "\n" }
