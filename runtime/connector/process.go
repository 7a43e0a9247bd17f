// Package connector runs connectors: a program or an image as a child process, requests to its stdin, responses from
// its stdout, and its log lines from stderr.
package connector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Launcher starts connectors. Its fields are set once, before use; methods may be called by many goroutines.
type Launcher struct {
	Environ  []string // of local processes, as os.Environ gives it
	LogLevel string   // for connectors: error, warn, info, debug or trace; "" is info
	Docker   string   // the docker client; "" is docker, from PATH
	Network  string   // that containers join; "" is Docker's own, "host" this machine's
	// DockerOptions go to every `docker run`, such as --memory=1g.
	DockerOptions []string
	// Instance tells the containers of this runtime from those of others on the machine.
	Instance string
	// MaxMessage bounds a response; 0 is the frame package's default.
	MaxMessage int
}

// Process is a running connector. Send and Flush are for one goroutine, Next for one goroutine.
type Process struct {
	Codec  frame.Codec
	name   string // for messages
	cmd    *exec.Cmd
	in     io.WriteCloser
	writer *frame.Writer
	stdout *os.File
	reader *frame.Reader
	logs   *logReader
	closed sync.Once
	remove func() // the container, which outlives its client; nil without one

	exited  chan struct{} // closed when the process has ended and its last words are read
	exitErr error
}

// Start starts a connector for a task. Log lines of the connector go to log. Errors are for people.
func (l *Launcher) Start(ctx context.Context, e *pipeline.Endpoint, task string, log *logrus.Entry, onLog func(Line)) (*Process, error) {
	cmd, codec, container, err := l.command(ctx, e, task)
	if err != nil {
		return nil, err
	}
	p := &Process{Codec: codec, cmd: cmd, name: displayName(e), exited: make(chan struct{})}
	stdoutR, stdoutW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	stderrR, stderrW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a pipe: %w", err), stdoutR.Close(), stdoutW.Close())
	}
	widen(stdoutR)
	cmd.Stdout, cmd.Stderr = stdoutW, stderrW
	if p.in, err = cmd.StdinPipe(); err == nil {
		if in, ok := p.in.(syscall.Conn); ok {
			widen(in)
		}
		isolate(cmd)
		err = cmd.Start()
	}
	// Our copies of the child's ends: they must go, or the end of its output would never be seen.
	closeErr := errors.Join(stdoutW.Close(), stderrW.Close())
	if err != nil {
		cause := errors.Join(err, closeErr, stdoutR.Close(), stderrR.Close())
		return nil, usererr.New(cause, "cannot start %s: %s", p.name, pipeline.CommandProblem(cmd.Path, err))
	}
	p.stdout = stdoutR
	p.writer = frame.NewWriter(p.in, codec)
	p.reader = frame.NewReader(stdoutR, codec, l.MaxMessage)
	p.logs = newLogReader(stderrR, log, onLog)
	if container != "" {
		p.remove = func() { l.remove(context.WithoutCancel(ctx), container) }
	}
	go p.reap()
	return p, nil
}

// reap waits for the end of the process and of its stderr. Children which it leaves behind are ended too: they hold
// the pipes open, and nobody could talk to them any more.
func (p *Process) reap() {
	p.exitErr = p.cmd.Wait()
	killGroup(p.cmd)
	if p.remove != nil && !p.cmd.ProcessState.Exited() {
		p.remove()
	}
	select {
	case <-p.logs.done:
	case <-time.After(2 * time.Second):
		p.logs.stop()
	}
	close(p.exited)
}

// Send writes a request into the buffer.
func (p *Process) Send(m proto.Message) error { return p.inputError(p.writer.Write(m)) }

// Append lets f append one whole frame to the buffer.
func (p *Process) Append(f func(dst []byte, c frame.Codec) ([]byte, error)) error {
	return p.inputError(p.writer.Append(f))
}

// Flush hands the buffer to the connector.
func (p *Process) Flush() error { return p.inputError(p.writer.Flush()) }

// inputError names what became of a connector that does not read any more.
func (p *Process) inputError(err error) error {
	if err == nil || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
		return err
	}
	if exit := p.waitExit(5 * time.Second); exit != nil {
		return exit
	}
	return fmt.Errorf("writing to %s: %w", p.name, err)
}

// Next returns the next response's body, valid until the next call. It is io.EOF when the output ended between two
// messages. Other errors say what was wrong with the output.
func (p *Process) Next() ([]byte, error) {
	body, err := p.reader.Next()
	if err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return body, err
	}
	if exit := p.waitExit(time.Second); exit != nil {
		return nil, exit
	}
	return nil, usererr.New(err, "%s wrote something to its standard output that is not the protocol: %v", p.name, err)
}

// Buffered tells whether Next would return without waiting: whether all of a message has been written. It is for the goroutine of Next, and what that has
// returned is not valid any more.
func (p *Process) Buffered() bool {
	for !p.reader.Buffered() {
		if waiting(p.stdout) == 0 {
			return false
		}
		p.reader.More()
	}
	return true
}

// Receive is Next and decoding.
func (p *Process) Receive(m proto.Message) error {
	body, err := p.Next()
	if err != nil {
		return err
	}
	if err := p.Codec.Unmarshal(body, m); err != nil {
		return usererr.New(err, "%s sent a response that cannot be read: %v", p.name, err)
	}
	return nil
}

// CloseInput ends the requests.
func (p *Process) CloseInput() error {
	var err error
	p.closed.Do(func() { err = p.in.Close() })
	if errors.Is(err, os.ErrClosed) {
		return nil // the process has ended already, and took its input with it
	}
	return err
}

// Terminate asks the connector to end at its next boundary.
func (p *Process) Terminate() { signalProcess(p.cmd, syscall.SIGTERM) }

// Kill ends the connector at once, with everything that it started.
func (p *Process) Kill() { killGroup(p.cmd) }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Wait waits for the end of the process, killing it when the context is over, and gives an *ExitError unless it ended
// with code 0. The output must have been read to its end, or be of no interest.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.Kill()
		<-p.exited
	}
	_ = p.CloseInput()
	_ = p.stdout.Close()
	return p.exitError()
}

// Stop asks the connector to end, waits for as long as the grace allows while the caller reads its output, and kills it then.
// It returns when the process has ended.
func (p *Process) Stop(grace time.Duration) {
	p.Terminate()
	select {
	case <-p.exited:
	case <-time.After(grace):
		p.Kill()
		<-p.exited
	}
}

// waitExit gives the process a moment to end after its pipes broke, and returns why it did; nil if it still runs or
// ended well.
func (p *Process) waitExit(d time.Duration) error {
	select {
	case <-p.exited:
		return p.exitError()
	case <-time.After(d):
		return nil
	}
}

func (p *Process) exitError() error {
	if p.exitErr == nil {
		return nil
	}
	e := &ExitError{Name: p.name, cause: p.exitErr}
	if exit, ok := errors.AsType[*exec.ExitError](p.exitErr); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			e.Signal = unix.SignalName(status.Signal())
		} else if p.remove != nil && exit.ExitCode() > 128 {
			// That is how docker's client tells of a signal that ended the container.
			e.Signal = unix.SignalName(syscall.Signal(exit.ExitCode() - 128))
		}
	}
	// By convention the last message says what is wrong; but a process that was killed did not know.
	e.LastWords, e.Logged = p.logs.lastWords(e.Signal == "")
	return e
}

// ExitError is a connector that ended with a code other than 0, or by a signal.
type ExitError struct {
	Name      string
	LastWords string // what it logged last: by convention, what is wrong
	Logged    bool   // the last words stand in the log already, as an error
	Signal    string // that killed it, such as SIGKILL; "" if it ended by itself
	cause     error
}

func (e *ExitError) Error() string {
	how := "ended: " + e.cause.Error()
	var exit *exec.ExitError
	switch {
	case e.Signal != "":
		how = fmt.Sprintf("was killed (%s)", e.Signal)
	case errors.As(e.cause, &exit):
		how = fmt.Sprintf("ended with exit code %d", exit.ExitCode())
	}
	switch {
	case e.LastWords != "" && e.Signal != "":
		return fmt.Sprintf("%s %s; its last warning was: %s", e.Name, how, e.LastWords)
	case e.LastWords != "":
		return fmt.Sprintf("%s %s: %s", e.Name, how, e.LastWords)
	case e.Signal != "":
		return fmt.Sprintf("%s %s", e.Name, how)
	}
	return fmt.Sprintf("%s %s, and logged no reason", e.Name, how)
}

func (e *ExitError) Unwrap() error { return e.cause }

// ExitErr tells why the process has ended; nil if it still runs or ended with code 0.
func (p *Process) ExitErr() error {
	select {
	case <-p.exited:
		return p.exitError()
	default:
		return nil
	}
}
