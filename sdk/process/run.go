// Package process is the only code that knows of the process it runs in: its arguments, environment, signals, standard
// streams, memory limit and exit code. Everything else is given a Process and a context.
package process

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Process is what a program sees of the world. Tests make their own.
type Process struct {
	Name      string   // of the program, for messages
	Args      []string // without the program's name
	Stdin     io.Reader
	Stdout    io.Writer
	Stderr    io.Writer
	LookupEnv func(name string) (value string, ok bool)
	// Log writes to Stderr. Its last line before a failed exit is the message that a runtime shows to people.
	Log *logrus.Logger
	// Interactive says that somebody types on Stdin.
	Interactive bool
	// Displayed says that somebody looks at Stdout, Watched that somebody looks at Stderr.
	Displayed, Watched bool

	logged atomic.Bool // something was logged
	status *statusLine // nil unless Watched
}

// Main runs a program and exits with the code that run returns: 0 for success, anything else for a failure whose message
// is the last line that was logged (Process.Fail). Main never returns.
//
// The context ends on SIGINT and SIGTERM, which are a wish to stop cleanly, and when nobody can read Stdout any more; a
// second signal kills. A closed pipe is an error of the write and not a signal. Logs go to stderr as LOG_FORMAT (json, text
// or color) and LOG_LEVEL say. The heap is kept below nine tenths of the container's memory unless GOMEMLIMIT is set. There
// are no core dumps, and nobody but root can look into the process: its memory has secrets. SLUICE_PPROF=127.0.0.1:6060 serves Go's profiles there.
func Main(name string, run func(ctx context.Context, p *Process) int) {
	p := &Process{
		Name: name, Args: os.Args[1:],
		// Without Close: it would wait for, and not wake, whoever reads.
		Stdin: struct{ io.Reader }{os.Stdin}, Stdout: os.Stdout, Stderr: os.Stderr,
		LookupEnv:   os.LookupEnv,
		Interactive: isTerminal(os.Stdin), Displayed: isTerminal(os.Stdout), Watched: isTerminal(os.Stderr),
	}
	os.Exit(p.main(run))
}

func (p *Process) main(run func(ctx context.Context, p *Process) int) int {
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)() // the second signal has its usual effect
	forbidDumps()
	limitMemory(p)
	return p.Run(ctx, run)
}

// Run is Main inside of another program, such as a test: it makes the logger, calls run and returns its code. Signals, the
// memory limit and the exit are left to the caller.
func (p *Process) Run(ctx context.Context, run func(ctx context.Context, p *Process) int) int {
	if p.Watched {
		p.status = &statusLine{out: p.Stderr}
		p.Stderr = p.status
		defer p.ShowStatus("")
	}
	log, err := newLogger(p, p.Watched)
	if err != nil {
		return p.Fail(err)
	}
	p.Log = log
	if addr, ok := p.LookupEnv("SLUICE_PPROF"); ok && addr != "" {
		closeProfiles, err := serveProfiles(p.Log, addr)
		if err != nil {
			return p.Fail(err)
		}
		defer closeProfiles()
	}
	ctx, cancel := context.WithCancel(ctx)
	watched := watchOutput(ctx, p.Stdout, cancel)
	code := run(ctx, p)
	cancel()
	<-watched
	return code
}

// Fail logs the error as the last word of the process, in the words of its user error, and returns the exit code of a
// failure. The whole chain of causes goes into the field err. On a command line that has logged nothing yet, and where logs
// are text, the message stands alone behind the program's name.
func (p *Process) Fail(err error) int {
	message := usererr.Message(err)
	if p.Log == nil {
		fmt.Fprintf(p.Stderr, "%s: %s\n", p.Name, message)
		return 1
	}
	_, text := p.Log.Formatter.(*logrus.TextFormatter)
	_, chosen := p.LookupEnv("LOG_FORMAT")
	if text || (len(p.Args) > 0 && !chosen && !p.logged.Load()) {
		fmt.Fprintf(p.Stderr, "%s: %s\n", p.Name, message)
		return 1
	}
	entry := logrus.NewEntry(p.Log)
	if full := err.Error(); full != message {
		entry = entry.WithField("err", full)
	}
	entry.Error(message)
	return 1
}

// Codec is how messages on Stdin and Stdout are written: as SLUICE_CODEC says, or else FLOW_RUNTIME_CODEC, or else proto.
func (p *Process) Codec() (frame.Codec, error) {
	for _, name := range []string{"SLUICE_CODEC", "FLOW_RUNTIME_CODEC"} {
		if value, ok := p.LookupEnv(name); ok && value != "" {
			codec, err := frame.ParseCodec(value)
			if err != nil {
				return 0, usererr.New(err, "The environment variable %s is %q; it may be proto or json.", name, value)
			}
			return codec, nil
		}
	}
	return frame.Proto, nil
}

// Hint is what a connector answers when somebody runs it on a terminal without arguments, and its exit code.
func (p *Process) Hint() int {
	fmt.Fprintf(p.Stderr, `%[1]s is a connector. Without arguments it talks to a runtime, in messages on its standard input and output,
and nobody types those. By hand, try:

  %[1]s --help
`, p.Name)
	return 2
}

// ProgramName is the name of the package that the program was built from, which is the connector's own, whatever its file is called: in
// images that is "connector". Where nothing recorded it, it is the name under which the program was started.
func ProgramName() string {
	if info, ok := debug.ReadBuildInfo(); ok && strings.Contains(info.Path, "/") {
		return path.Base(info.Path)
	}
	return filepath.Base(os.Args[0])
}
