package airbyte

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/airbyte"
	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/usererr"
)

const (
	// DefaultSilence is how long a source may say nothing before it is taken for hung.
	DefaultSilence = time.Hour
	// maxLine bounds a message. Records have to be far smaller.
	maxLine = 128 << 20
	// folderPrefix is what the names of private folders begin with; the number of the process follows.
	folderPrefix = "sluice-airbyte-"
)

// Source is a program or an image that speaks the Airbyte protocol. Its fields are set before use, and it is used by one goroutine.
type Source struct {
	// Endpoint is what is run; its configuration is not looked at.
	Endpoint pipeline.Endpoint
	Launcher *connector.Launcher
	// Silence is how long it may say nothing; 0 is DefaultSilence.
	Silence time.Duration
	// Folder is where private folders for configurations are made; "" is that of the system for temporary files.
	Folder string
	// Log gets the source's log.
	Log *logrus.Entry

	secrets *secrets // nil as long as none are known
}

// file is what a command is given by the name of a flag.
type file struct {
	flag string
	text []byte
}

// call is one command of the source while it runs.
type call struct {
	*Source
	verb     string
	take     func(kind string, line []byte) error
	idle     func() error // called before it waits for the source
	problems []error      // that the source told
	last     string       // error that it logged
	words    string       // that it wrote last to its standard error; of the goroutine that reads it, until that has ended
	control  bool         // it wanted to change its configuration
}

// run runs one command of the source to its end. Take gets the messages that answer it: line is one valid JSON object, its caller's
// again when take returns. Idle, which may be nil, is called whenever nothing more of the source's output is at hand. Errors
// are for people. The files are gone when it returns.
func (s *Source) run(ctx context.Context, task, verb string, files []file, take func(kind string, line []byte) error, idle func() error) error {
	folder, done, err := s.private()
	if err != nil {
		return err
	}
	defer done()
	args := []string{verb}
	for _, f := range files {
		name := filepath.Join(folder, f.flag+".json")
		if err := os.WriteFile(name, f.text, s.modes().file); err != nil {
			return usererr.New(err, "A file for %s cannot be written: %v.", s.Endpoint.Label, err)
		}
		args = append(args, "--"+f.flag, name)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd, remove, err := s.Launcher.Foreign(ctx, &s.Endpoint, task, folder, args...)
	if err != nil {
		return err
	}
	defer remove()
	c := &call{Source: s, verb: verb, take: take, idle: idle}
	return c.run(ctx, cancel, cmd)
}

type modes struct{ folder, file os.FileMode }

// modes of the folder that the source sees. A container has users of its own, so there they are everybody's, below a folder that on this
// machine nobody else can enter.
func (s *Source) modes() modes {
	if s.Endpoint.Image != "" {
		return modes{0o755, 0o644}
	}
	return modes{0o700, 0o600}
}

// private makes a folder that only we can enter. What processes that were killed have left behind is removed first.
func (s *Source) private() (string, func(), error) {
	parent := s.Folder
	if parent == "" {
		parent = os.TempDir()
	}
	left, _ := filepath.Glob(filepath.Join(parent, folderPrefix+"*")) // fails for bad patterns only
	for _, folder := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(folder), folderPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			_ = os.RemoveAll(folder) // of another user it is their matter
		}
	}
	outer, err := os.MkdirTemp(parent, fmt.Sprintf("%s%d-", folderPrefix, os.Getpid()))
	if err != nil {
		return "", nil, usererr.New(err, "The configuration of %s has to be put into a file, and no folder for it can be made in %s: %v.", s.Endpoint.Label, parent, err)
	}
	done := func() { _ = os.RemoveAll(outer) }
	folder := filepath.Join(outer, "files")
	if err := os.Mkdir(folder, s.modes().folder); err != nil {
		done()
		return "", nil, fmt.Errorf("making a folder: %w", err)
	}
	return folder, done, nil
}

var errSilent = errors.New("it said nothing")

func (c *call) run(ctx context.Context, cancel context.CancelCauseFunc, cmd *exec.Cmd) error {
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("making a pipe: %w", err)
	}
	stderr := &lines{emit: c.stderr}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return usererr.New(err, "%s cannot be started: %s.", c.Endpoint.Label, pipeline.CommandProblem(cmd.Path, err))
	}
	silence := c.Silence
	if silence == 0 {
		silence = DefaultSilence
	}
	// Something that it left behind may hold its output open.
	defer context.AfterFunc(ctx, func() { time.AfterFunc(2*cmd.WaitDelay, func() { _ = stdout.Close() }) })()
	err = c.read(bufio.NewReaderSize(stdout, 256<<10), time.AfterFunc(silence, func() { cancel(errSilent) }), silence)
	if err != nil {
		cancel(err)
	}
	exit := cmd.Wait()
	stderr.flush()
	if c.last == "" {
		c.last = c.words
	}
	switch {
	case errors.Is(context.Cause(ctx), errSilent):
		return usererr.New(errSilent, "%s said nothing for %s while it was asked to %s, and was stopped. If it may take longer, say so: timeout.", c.Endpoint.Label, silence, c.verb)
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case len(c.problems) > 0:
		return usererr.Join(c.Endpoint.Label+" reports:", c.problems)
	case exit != nil && c.last != "":
		return usererr.New(exit, "%s failed to %s (%v), and said last: %s", c.Endpoint.Label, c.verb, exit, c.last)
	case exit != nil:
		return usererr.New(exit, "%s failed to %s (%v), and gave no reason.", c.Endpoint.Label, c.verb, exit)
	}
	return nil
}

// read reads the source's output to its end. The clock runs only while it waits for the source.
func (c *call) read(in *bufio.Reader, clock *time.Timer, silence time.Duration) error {
	defer clock.Stop()
	var line []byte
	for {
		if in.Buffered() == 0 && c.idle != nil {
			if err := c.idle(); err != nil {
				return err
			}
		}
		clock.Reset(silence)
		var err error
		line, err = appendLine(line[:0], in)
		clock.Stop()
		if len(line) > maxLine {
			return usererr.New(nil, "%s wrote a line of more than %d MiB, which is no message.", c.Endpoint.Label, maxLine>>20)
		}
		if text := bytes.TrimSpace(line); len(text) > 0 {
			if err := c.message(text); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // the end of the output, however it came; the exit code tells more
		}
	}
}

// appendLine appends the next line; one that is too long, as far as shows that.
func appendLine(dst []byte, in *bufio.Reader) ([]byte, error) {
	for {
		part, err := in.ReadSlice('\n')
		dst = append(dst, part...)
		if !errors.Is(err, bufio.ErrBufferFull) || len(dst) > maxLine {
			return dst, err
		}
	}
}

// message takes one line of output.
func (c *call) message(line []byte) error {
	if !jsonscan.Valid(line) || jsonscan.Kind(line) != '{' {
		if bytes.Contains(line, []byte(`"RECORD"`)) || bytes.Contains(line, []byte(`"STATE"`)) {
			return usererr.New(nil, "%s wrote a message that is not JSON, and would be lost: %s", c.Endpoint.Label, cut(c.redact(string(line)), 300))
		}
		c.Log.Info(c.clean(string(line)))
		return nil
	}
	kind, _ := jsonscan.Text(jsonscan.Member(line, "type"))
	switch kind {
	case airbyte.TypeLog, airbyte.TypeTrace:
		var m airbyte.Message
		if err := json.Unmarshal(line, &m); err != nil {
			return usererr.New(err, "%s wrote a %s message that cannot be read: %v.", c.Endpoint.Label, kind, err)
		}
		c.log(m.Log)
		c.trace(m.Trace)
		return nil
	case airbyte.TypeControl:
		if !c.control {
			c.Log.Warn("the source changed its configuration, which is not kept: if it logs in by a token that can be used once, the next sync will fail, and another way to log in is needed")
		}
		c.control = true
		return nil
	default:
		return c.take(kind, line)
	}
}

const maxWords = 4 << 10

func cut(text string, size int) string {
	if len(text) > size {
		return text[:size] + "…"
	}
	return text
}

func (s *Source) redact(text string) string { return s.secrets.replace(text) }

// clean is a text that may be shown. It is cut behind the redaction, which would not know half a secret.
func (s *Source) clean(text string) string { return cut(s.redact(text), maxWords) }

func (c *call) log(m *airbyte.Log) {
	if m == nil {
		return
	}
	level := levelOf(m.Level)
	message := c.clean(m.Message)
	if level <= logrus.ErrorLevel {
		c.last = message
	}
	c.Log.Log(level, message)
}

// levelOf is a level of Airbyte's; their FATAL is no reason for us to exit.
func levelOf(name string) logrus.Level {
	switch strings.ToUpper(name) {
	case "FATAL", "ERROR":
		return logrus.ErrorLevel
	case "WARN", "WARNING":
		return logrus.WarnLevel
	case "DEBUG":
		return logrus.DebugLevel
	case "TRACE":
		return logrus.TraceLevel
	}
	return logrus.InfoLevel
}

func (c *call) trace(t *airbyte.Trace) {
	switch {
	case t == nil:
	case t.Error != nil:
		fields := logrus.Fields{"failure": t.Error.FailureType}
		if t.Error.InternalMessage != "" {
			fields["internal"] = c.clean(t.Error.InternalMessage)
		}
		message := c.clean(t.Error.Message)
		if message == "" {
			message = c.clean(t.Error.InternalMessage)
		}
		c.Log.WithFields(fields).Error(message)
		c.problems = append(c.problems, usererr.New(nil, "%s", message))
	case t.Estimate != nil:
		c.Log.WithFields(logrus.Fields{"stream": t.Estimate.Name, "rows": t.Estimate.RowEstimate}).Info("the source expects so many records")
	case t.StreamStatus != nil && t.StreamStatus.Status == "INCOMPLETE":
		c.problems = append(c.problems, usererr.New(nil, "The stream %s could not be read to its end.", t.StreamStatus.Descriptor))
	case t.StreamStatus != nil:
		c.Log.WithFields(logrus.Fields{"stream": t.StreamStatus.Descriptor.String(), "status": t.StreamStatus.Status}).Debug("stream status")
	}
}

// stderr takes one line of the source's standard error.
func (c *call) stderr(line string) {
	c.words = c.clean(line)
	c.Log.WithField("stream", "stderr").Info(c.words)
}

// lines is a Writer that hands over whole lines. It is used by one goroutine, and flushed when that has ended.
type lines struct {
	emit func(string)
	rest []byte
}

// Write implements io.Writer.
func (l *lines) Write(text []byte) (int, error) {
	l.rest = append(l.rest, text...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found && len(l.rest) < maxWords {
			return len(text), nil
		}
		l.rest = rest
		if s := strings.TrimSpace(string(line)); s != "" {
			l.emit(s)
		}
	}
}

func (l *lines) flush() { _, _ = l.Write([]byte("\n")) }
