package conformance

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/sluicedata/sluice/runtime/host"
)

// watch looks at everything that a connector says. Its methods may be called by many goroutines.
type watch struct {
	next    func(host.Line)
	secrets []string

	mu     sync.Mutex
	plain  string // a log line that was no JSON
	lines  int
	leak   string
	memory int64 // the most that was seen
}

func newWatch(next func(host.Line)) *watch { return &watch{next: next} }

func (w *watch) log(line host.Line) {
	w.mu.Lock()
	w.lines++
	if line.Plain && w.plain == "" {
		w.plain = line.Message
	}
	w.mu.Unlock()
	fields, _ := json.Marshal(line.Fields)
	w.look("a log line", append([]byte(line.Message), fields...))
	if w.next != nil {
		w.next(line)
	}
}

// look notes the first place where a secret shows.
func (w *watch) look(where string, text []byte) {
	for _, secret := range w.secrets {
		if shows(text, secret) {
			w.mu.Lock()
			if w.leak == "" {
				w.leak = where
			}
			w.mu.Unlock()
		}
	}
}

// shows reports whether a text has a secret in one of its usual forms.
func shows(text []byte, secret string) bool {
	quoted, _ := json.Marshal(secret)
	for _, form := range []string{
		secret, strings.Trim(string(quoted), `"`), url.QueryEscape(secret), url.PathEscape(secret),
		hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)),
	} {
		if bytes.Contains(text, []byte(form)) {
			return true
		}
	}
	return false
}

func (w *watch) logFormat(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.plain != "":
		return fmt.Errorf("a line of the log is no JSON object: %.200q", w.plain)
	case w.lines == 0:
		return skipped("the connector logged nothing")
	}
	return nil
}

func (w *watch) noSecrets(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.leak != "":
		return errors.New("a secret of the configuration is in " + w.leak)
	case len(w.secrets) == 0:
		return skipped("the configuration has no secret")
	}
	return nil
}

// sample notes how much memory a local process has used at most.
func (w *watch) sample(p *host.Process) {
	peak := peakMemory(p.Pid())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.memory = max(w.memory, peak)
}

// peakMemory is the most resident memory that a process ever had, in bytes; 0 if that cannot be found out.
func peakMemory(pid int) int64 {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10
		}
	}
	return 0
}

func (s *suite) memory(context.Context) error {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	switch {
	case s.opts.Connector.Endpoint.Image != "" || s.watch.memory == 0:
		return skipped("the memory of a container is not this process's to see")
	case s.watch.memory > s.opts.Memory:
		return fmt.Errorf("%d MiB were resident at most, and %d MiB are allowed", s.watch.memory>>20, s.opts.Memory>>20)
	}
	return nil
}
