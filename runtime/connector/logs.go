package connector

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"
)

// Line is one message of a connector's log.
type Line struct {
	Level   logrus.Level
	Message string
	Fields  map[string]any
	Plain   bool // it was no JSON object, and its level is guessed
}

const (
	maxLine  = 1 << 20 // of a log line; more is cut
	maxWords = 4 << 10 // of last words
)

var looksBad = regexp.MustCompile(`(?i)error|failed|panic|timeout|unable|unrecogni[sz]ed`)

// logReader reads the log lines of one process: JSON objects mostly, and whatever else a program prints to stderr.
type logReader struct {
	pipe  *os.File
	entry *logrus.Entry
	onLog func(Line)
	done  chan struct{}

	mu    sync.Mutex
	last  string // message
	worst string // the last message that was a warning or worse
	fatal bool   // the last message was an error
}

func newLogReader(pipe *os.File, entry *logrus.Entry, onLog func(Line)) *logReader {
	r := &logReader{pipe: pipe, entry: entry, onLog: onLog, done: make(chan struct{})}
	go r.read()
	return r
}

func (r *logReader) read() {
	defer close(r.done)
	defer r.pipe.Close()
	in := bufio.NewReaderSize(r.pipe, 64<<10)
	var plain []string // lines that are no JSON, one after the other: a stack trace is one message
	flush := func() {
		if len(plain) > 0 {
			r.emit(plainLine(strings.Join(plain, "\n")))
			plain = nil
		}
	}
	for {
		text, err := readLine(in)
		if text = strings.TrimSpace(text); text != "" {
			if line, ok := parseLine(text); ok {
				flush()
				r.emit(line)
			} else if plain = append(plain, text); len(plain) >= 200 || in.Buffered() == 0 {
				flush()
			}
		}
		if err != nil {
			flush()
			return
		}
	}
}

// stop ends the reading of a pipe that a stray grandchild keeps open.
func (r *logReader) stop() {
	_ = r.pipe.Close()
	<-r.done
}

func (r *logReader) emit(line Line) {
	r.mu.Lock()
	if words := line.words(); words != "" {
		r.last, r.fatal = words, line.Level <= logrus.ErrorLevel
		if line.Level <= logrus.WarnLevel {
			r.worst = words
		}
	}
	r.mu.Unlock()
	if r.onLog != nil {
		r.onLog(line)
	}
	if r.entry != nil {
		r.entry.WithFields(line.Fields).Log(line.Level, line.Message)
	}
}

// lastWords is the last message that was a warning or worse; without one the last message of all, if any counts.
func (r *logReader) lastWords(orAny bool) (words string, isError bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.worst == "" && orAny {
		return r.last, false
	}
	return r.worst, r.fatal
}

// words is the message for people.
func (l Line) words() string {
	words := l.Message
	if len(words) > maxWords {
		words = words[:maxWords] + "…"
	}
	return words
}

// readLine returns a line without end marker, cut at maxLine.
func readLine(in *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line) < maxLine {
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			err = io.EOF // the pipe was closed under us
		}
		return string(line), err
	}
}

// parseLine reads a line as the protocol's logs are written: an object with a message and a level, under any of
// their usual names; everything else is a field.
func parseLine(text string) (Line, bool) {
	if !strings.HasPrefix(text, "{") {
		return Line{}, false
	}
	var object map[string]any
	if json.Unmarshal([]byte(text), &object) != nil {
		return Line{}, false
	}
	line := Line{Fields: logrus.Fields{}}
	take := func(names ...string) string {
		for _, name := range names {
			if s, ok := object[name].(string); ok {
				delete(object, name)
				return s
			}
		}
		return ""
	}
	line.Message = take("message", "msg")
	level := take("level", "lvl")
	take("ts", "timestamp", "time")
	if nested, ok := object["fields"].(map[string]any); ok {
		delete(object, "fields")
		maps.Copy(line.Fields, nested)
	}
	maps.Copy(line.Fields, object)
	line.Level = parseLevel(level, text)
	return line, true
}

func parseLevel(level, text string) logrus.Level {
	switch strings.ToLower(level) {
	case "fatal", "panic":
		return logrus.ErrorLevel
	}
	if parsed, err := logrus.ParseLevel(level); err == nil {
		return parsed
	}
	return plainLine(text).Level
}

func plainLine(text string) Line {
	level := logrus.WarnLevel
	if looksBad.MatchString(text) {
		level = logrus.ErrorLevel
	}
	return Line{Level: level, Message: text, Plain: true}
}
