package cdctest

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// trace is what a stress leaves behind when it fails, in a folder: the documents in the order in which they came, with
// kills, checkpoints and what was set back (output.log), and the connector's own log (connector.log). The folder of a
// stress that passes is removed.
type trace struct {
	t   testing.TB
	dir string

	mu        sync.Mutex
	out       *bufio.Writer
	file      *os.File
	Connector *os.File
}

func newTrace(t testing.TB) *trace {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-stress-") //nolint:usetesting // it stays when the test fails
	require.NoError(t, err)
	create := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		require.NoError(t, err)
		return f
	}
	tr := &trace{t: t, dir: dir, file: create("output.log"), Connector: create("connector.log")}
	tr.out = bufio.NewWriterSize(tr.file, 64<<10)
	t.Cleanup(func() {
		tr.flush()
		_, _ = tr.file.Close(), tr.Connector.Close()
		if t.Failed() {
			t.Logf("what was captured is kept in %s (output.log, connector.log)", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Logf("removing the trace: %v", err)
		}
	})
	return tr
}

// note writes one line about the run.
func (tr *trace) note(format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	fmt.Fprintf(tr.out, "%s -- %s\n", time.Now().Format(clock), fmt.Sprintf(format, args...))
}

// document writes one document.
func (tr *trace) document(checkpoint int, table, key string, d captured) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	fmt.Fprintf(tr.out, "%s %d %s %s: %c", time.Now().Format(clock), checkpoint, table, key, d.op)
	if d.snapshot {
		fmt.Fprint(tr.out, " snapshot")
	}
	for _, name := range slices.Sorted(maps.Keys(d.columns)) {
		fmt.Fprintf(tr.out, " %s=%s", name, text(d.columns[name]))
	}
	if d.before != nil {
		fmt.Fprintf(tr.out, " before v=%s", text(d.before["v"]))
	}
	fmt.Fprintln(tr.out)
}

func (tr *trace) flush() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if err := tr.out.Flush(); err != nil {
		tr.t.Logf("writing the trace: %v", err)
	}
}

// about returns the last lines about one key, with the notes between them.
func (tr *trace) about(table, key string) string {
	const most = 80
	tr.flush()
	f, err := os.Open(tr.file.Name())
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	var lines []string
	wanted := " " + table + " " + key + ": "
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		if line := scanner.Text(); strings.Contains(line, wanted) || strings.Contains(line, " -- ") {
			lines = append(lines, "  "+line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

// log returns the last lines of the connector's log.
func (tr *trace) log() string {
	const most = 20
	text, err := os.ReadFile(tr.Connector.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
