// Package peer holds a second implementation of the runtime's side of the protocol, in Python, and drives both Postgres
// connectors with it: what they understand is the protocol, and not only what our own runtime happens to send.
package peer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/cluster"
)

// patience bounds every wait; what succeeds does not wait for it.
const patience = 40 * time.Second

var built string // the folder of the connectors, removed by TestMain

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-peer-")
	if err != nil {
		return "", err
	}
	built = dir
	for _, name := range []string{"source-postgres", "materialize-postgres"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), ".")
		cmd.Dir = filepath.Join("..", "..", name)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building %s: %w\n%s", name, err, out)
		}
	}
	return dir, nil
})

// connector gives a connector's path, and makes sure that there is a Python to drive it.
func connector(t *testing.T, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs servers, python3 and the built connectors; run without -short")
	}
	_, err := exec.LookPath("python3")
	require.NoError(t, err, "python3 is not installed; scripts/services install, or apt-get install python3, provides it")
	dir, err := build()
	require.NoError(t, err)
	return filepath.Join(dir, name)
}

// A line is one line that the peer printed: what happened, and its body.
type line struct {
	name string
	body json.RawMessage
}

// A talk is one run of the peer.
type talk struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan line

	mu         sync.Mutex
	transcript bytes.Buffer
}

// Write takes the peer's transcript.
func (k *talk) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.transcript.Write(b)
}

func start(t *testing.T, args ...string) *talk {
	t.Helper()
	k := &talk{t: t, lines: make(chan line, 1024)}
	python := []string{"-S", "-X", "pycache_prefix=" + filepath.Join(built, "pycache"), "peer.py", "--verbose", "600"}
	k.cmd = exec.CommandContext(t.Context(), "python3", append(python, args...)...)
	k.cmd.Stderr = k
	var err error
	k.stdin, err = k.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := k.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, k.cmd.Start())
	done := make(chan struct{})
	go k.listen(stdout, done)
	t.Cleanup(func() {
		_ = k.cmd.Process.Kill()
		<-done
		_ = k.cmd.Wait()
		if t.Failed() {
			t.Logf("peer %s\n%s", strings.Join(args, " "), k.tail())
		}
	})
	return k
}

func (k *talk) listen(stdout io.Reader, done chan struct{}) {
	defer close(done)
	defer close(k.lines)
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var pair [2]json.RawMessage
		l := line{name: "unreadable", body: bytes.Clone(lines.Bytes())}
		if json.Unmarshal(lines.Bytes(), &pair) == nil && json.Unmarshal(pair[0], &l.name) == nil {
			l.body = pair[1]
		}
		select {
		case k.lines <- l:
		case <-k.t.Context().Done():
			return
		}
	}
}

// tail is the end of the conversation.
func (k *talk) tail() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	lines := strings.Split(k.transcript.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-80):], "\n")
}

// next waits for the next thing that happened; ok is false when the peer has ended.
func (k *talk) next() (l line, ok bool) {
	k.t.Helper()
	select {
	case l, ok = <-k.lines:
		return l, ok
	case <-time.After(patience):
		require.Fail(k.t, "the peer printed nothing for too long")
		return line{}, false
	}
}

// until reads up to what is named, and fails if the peer ends before.
func (k *talk) until(name string) json.RawMessage {
	k.t.Helper()
	for {
		l, ok := k.next()
		require.True(k.t, ok, "the peer ended before %s", name)
		if l.name == name {
			return l.body
		}
		require.NotContains(k.t, []string{"violation", "exit"}, l.name, "%s before %s", l.body, name)
	}
}

func (k *talk) control(format string, args ...any) {
	k.t.Helper()
	_, err := fmt.Fprintf(k.stdin, format+"\n", args...)
	require.NoError(k.t, err)
}

// A verdict is how a connector ended.
type verdict struct {
	Code int    `json:"code"`
	Last string `json:"last"` // the last line of its log
}

// end reads up to the connector's exit.
func (k *talk) end() verdict {
	k.t.Helper()
	var v verdict
	require.NoError(k.t, json.Unmarshal(k.until("exit"), &v))
	return v
}

// A db is a database of one test.
type db struct {
	pg   *server.PostgresServer
	name string
}

func newDB(t *testing.T, sql ...string) db {
	t.Helper()
	pg := server.SharedPostgres(t)
	d := db{pg: pg, name: pg.NewDatabase(t)}
	if len(sql) > 0 {
		d.exec(t, sql...)
	}
	return d
}

func (d db) exec(t *testing.T, sql ...string) string {
	t.Helper()
	return strings.TrimSpace(d.pg.ExecIn(t, d.name, sql...))
}

// config writes the endpoint's configuration into a file.
func (d db) config(t *testing.T, more map[string]any) string {
	t.Helper()
	c := map[string]any{"address": d.pg.Address(), "database": d.name, "user": cluster.Superuser, "password": cluster.Password}
	maps.Copy(c, more)
	return file(t, c)
}

// file writes JSON into a file of the test and gives its path.
func file(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "f.json")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}
