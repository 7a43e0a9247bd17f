package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Options describe a run of `sluice run`.
type Options struct {
	Binaries Binaries
	Pipeline string   // the file
	Data     string   // the folder with the log and the checkpoints
	Metrics  string   // host:port to serve metrics on; empty means none
	Flags    []string // more of the command line, before `run`
	Join     bool     // beside others
	Env      []string // added to the environment, which is ours otherwise
	Host     []string // what stands before the command line to have it run elsewhere, by the same process; empty means here
	// Stdout and Stderr are handed to the process; nil discards. A terminal on Stdout shows the live table.
	Stdout, Stderr *os.File
}

// A Runtime is a running `sluice run`. Its methods may be called from any goroutine.
type Runtime struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // set when exited is closed
}

// stopTimeout is how long a clean stop may take.
const stopTimeout = 30 * time.Second

// Start starts the runtime. It is told to stop when the context ends or the calling process dies.
func Start(ctx context.Context, opts Options) (*Runtime, error) {
	args := append(slices.Clone(opts.Flags), "run", opts.Pipeline, "--data", opts.Data)
	if opts.Join {
		args = append(args, "--join")
	}
	if opts.Metrics != "" {
		args = append(args, "--metrics", opts.Metrics)
	}
	line := slices.Concat(opts.Host, []string{opts.Binaries.Sluice()}, args)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = append(cmd.Environ(), opts.Env...)
	cmd.Stdout, cmd.Stderr = asWriter(opts.Stdout), asWriter(opts.Stderr)
	// A group of its own: Ctrl-C on the terminal is for us, and we pass it on once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting sluice: %w", err)
	}
	r := &Runtime{cmd: cmd, exited: make(chan struct{})}
	go func() {
		defer close(r.exited)
		_ = cmd.Wait() // its error mixes in how the context ended; the state says how the process did
		if !cmd.ProcessState.Success() {
			r.err = fmt.Errorf("sluice ended with %s", cmd.ProcessState)
		}
	}()
	return r, nil
}

// asWriter keeps a nil file from becoming a writer that is not nil.
func asWriter(file *os.File) io.Writer {
	if file == nil {
		return nil
	}
	return file
}

// PID is the process' id.
func (r *Runtime) PID() int { return r.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (r *Runtime) Exited() <-chan struct{} { return r.exited }

// Err is how the process ended, nil for exit code 0. Call it only after Exited is closed.
func (r *Runtime) Err() error { return r.err }

// Kill ends the process with SIGKILL and waits for it; its connectors are on their own. It does nothing to a process
// that has ended.
func (r *Runtime) Kill() {
	_ = r.cmd.Process.Kill() // only fails when it is gone already
	<-r.exited
}

// Stop asks for a clean end with SIGTERM and waits for it. An exit code other than 0 is an error, and so is a process that does
// not end; that one is killed.
func (r *Runtime) Stop() error {
	select {
	case <-r.exited:
		if r.err != nil {
			return fmt.Errorf("stopping sluice: it had ended by itself: %w", r.err)
		}
		return nil
	default:
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping sluice: %w", err)
	}
	select {
	case <-r.exited:
		return r.err
	case <-time.After(stopTimeout):
		r.Kill()
		return fmt.Errorf("stopping sluice: it did not end within %s and was killed", stopTimeout)
	}
}

// Connectors lists the runtime's child processes that run a program, such as "source-postgres".
func (r *Runtime) Connectors(program string) []int { return childrenOf(r.PID(), program) }

// KillConnector ends a running connector with SIGKILL as soon as there is one, and returns its process id.
func (r *Runtime) KillConnector(ctx context.Context, program string) (int, error) {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		for _, pid := range r.Connectors(program) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
				return pid, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("killing %s: waiting until it runs: %w", program, ctx.Err())
		case <-r.exited:
			return 0, fmt.Errorf("killing %s: sluice has ended", program)
		case <-poll.C:
		}
	}
}

// childrenOf lists the live children of a process that run a program, told by the last element of its path.
func childrenOf(parent int, program string) []int {
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
		if len(rest) < 2 || string(rest[0]) == "Z" || string(rest[1]) != strconv.Itoa(parent) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && programOf(pid) == program {
			children = append(children, pid)
		}
	}
	return children
}

func programOf(pid int) string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(line), "\x00")
	return filepath.Base(first)
}
