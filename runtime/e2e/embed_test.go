package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// TestGoExample builds the example of package host, captures a table with it, interrupts it and goes on.
func TestGoExample(t *testing.T) {
	t.Parallel()
	bins := binaries(t)
	text, err := os.ReadFile("../host/example/main.go")
	require.NoError(t, err)
	require.LessOrEqual(t, bytes.Count(text, []byte("\n")), 60, "it is to be read at a glance")
	example := filepath.Join(t.TempDir(), "example")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", example, "../host/example").CombinedOutput()
	require.NoError(t, err, "%s", out)
	embeds(t, bins, example)
}

// TestPythonExample generates classes from the proto files, as examples/python/README.md says, and captures with them.
func TestPythonExample(t *testing.T) {
	bins := binaries(t)
	packages, err := filepath.Abs("../../.cache/protoc")
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(packages, "version")); err != nil {
		need.Missing(t, "grpcio-tools is not here; scripts/services install protoc fetches it")
	}
	generated := t.TempDir()
	protos, err := filepath.Glob("../../protocol/*/*.proto")
	require.NoError(t, err)
	require.NotEmpty(t, protos)
	args := []string{"-m", "grpc_tools.protoc", "-I", "../../protocol", "--python_out", generated}
	protoc := exec.CommandContext(t.Context(), "python3", append(args, protos...)...)
	t.Setenv("PYTHONPATH", packages+string(os.PathListSeparator)+generated)
	t.Setenv("PYTHONDONTWRITEBYTECODE", "1")
	out, err := protoc.CombinedOutput()
	require.NoError(t, err, "%s", out)
	embeds(t, bins, "python3", "../../examples/python/pull.py")
}

// embeds has a program, called with a connector, a configuration and a file for the state, capture a table in two runs.
func embeds(t *testing.T, bins launch.Binaries, program string, args ...string) {
	t.Helper()
	s := newSide(t, server.SharedPostgres(t))
	s.exec(t, `CREATE TABLE shoes (id int PRIMARY KEY, name text)`, `INSERT INTO shoes VALUES (1, 'boot'), (2, 'clog')`)
	folder := t.TempDir()
	config, err := json.Marshal(s.login())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "config.json"), config, 0o600))
	args = append(args, bins.Path(launch.SourcePostgres), filepath.Join(folder, "config.json"), filepath.Join(folder, "state.json"))

	first := startEmbedded(t, program, args)
	require.Equal(t, []string{"1 boot", "2 clog"}, first.rows(t, 2))
	s.exec(t, `INSERT INTO shoes VALUES (3, 'mule')`)
	require.Equal(t, []string{"3 mule"}, first.rows(t, 1))
	require.Eventually(t, func() bool {
		state, err := os.ReadFile(filepath.Join(folder, "state.json"))
		return err == nil && bytes.Contains(state, []byte("live"))
	}, arrival, 20*time.Millisecond, "a state that is past the backfill")
	require.NoError(t, first.cmd.Process.Signal(os.Interrupt))
	require.NoError(t, first.cmd.Wait(), "an interrupt is a clean end: %s", first.stderr.String())

	s.exec(t, `INSERT INTO shoes VALUES (4, 'pump')`)
	second := startEmbedded(t, program, args)
	for rows := second.rows(t, 1); rows[0] != "4 pump"; rows = second.rows(t, 1) {
		require.Equal(t, "3 mule", rows[0], "only what no kept checkpoint covered may come again")
	}
	require.NoError(t, second.cmd.Process.Signal(os.Interrupt))
	require.NoError(t, second.cmd.Wait(), "%s", second.stderr.String())
}

// embedded is a running example.
type embedded struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr bytes.Buffer
}

func startEmbedded(t *testing.T, program string, args []string) *embedded {
	t.Helper()
	e := &embedded{cmd: exec.CommandContext(t.Context(), program, args...)}
	pipe, err := e.cmd.StdoutPipe()
	require.NoError(t, err)
	e.stdout, e.cmd.Stderr = bufio.NewReader(pipe), &e.stderr
	require.NoError(t, e.cmd.Start())
	return e
}

// rows reads n documents, as their key and name.
func (e *embedded) rows(t *testing.T, n int) (rows []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), arrival)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = e.cmd.Process.Kill() })()
	for range n {
		line, err := e.stdout.ReadBytes('\n')
		if err != nil {
			_, _ = io.Copy(io.Discard, e.stdout)
			_ = e.cmd.Wait()
			require.NoError(t, err, "%s", e.stderr.String())
		}
		var row struct {
			ID   json.Number `json:"id"`
			Name string      `json:"name"`
		}
		require.NoError(t, json.Unmarshal(line, &row), "%s", line)
		rows = append(rows, row.ID.String()+" "+row.Name)
	}
	return rows
}
