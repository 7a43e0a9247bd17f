package capture_test

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/process"
)

// A configuration comes from a file, standard input or the environment, and may refer to variables and files.
func TestWhereConfigurationsComeFrom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "streams"), []byte("a b\n"), 0o600))
	file := filepath.Join(dir, "c.yaml")
	require.NoError(t, os.WriteFile(file, []byte("mode: ${MODE}\nstreams: ${file:streams}\n"), 0o600))
	for name, c := range map[string]struct {
		stdin, variable string
		args            []string
	}{
		"file":                     {"", "", []string{"--config", file}},
		"standard input":           {"{\"mode\": \"${MODE}\", \"streams\": \"${file:" + dir + "/streams}\"}", "", []string{"--config", "-"}},
		"environment":              {"", "{mode: '${MODE}', streams: a b}", nil},
		"file named there":         {"", file, nil},
		"the flag beats it":        {"", "mode: nonsense", []string{"--config", file}},
		"environment, YAML, lines": {"", "mode: ${MODE}\nstreams: a b\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{"MODE": "end", "SLUICE_CONFIG": c.variable}
			code, out, errs := run(t.Context(), capture.New(&counting{}), strings.NewReader(c.stdin), env, append([]string{"check"}, c.args...)...)
			require.Zero(t, code, errs)
			require.Equal(t, "ok: 2 of 2 resources would be captured\n", out)
		})
	}
	_, _, errs := run(t.Context(), capture.New(&counting{}), strings.NewReader(""), map[string]string{"SLUICE_CONFIG": "{a: [hunter2"}, "check")
	require.Contains(t, errs, "The environment variable SLUICE_CONFIG is neither JSON nor YAML: ")
	require.NotContains(t, errs, "hunter2")
}

// Discover prints for people and for programs; what it prints for programs is a catalog.
func TestDiscoverFormats(t *testing.T) {
	t.Parallel()
	const config = `{"streams": "a off"}`
	table := pull(t, &counting{}, config, "discover", "-o", "table")
	require.Equal(t, []string{"NAME", "KEY", "FIELDS", "NOTE"}, strings.Fields(table[0]))
	require.Equal(t, []string{"main.a", "/n", "0"}, strings.Fields(table[1]), "the schema says nothing of fields")
	require.Contains(t, table[2], "main.off")
	require.Contains(t, table[2], "off: name it with --bind to capture it")
	require.Equal(t, []string{"There is nothing to capture."}, pull(t, &counting{}, `{"streams": ""}`, "discover", "-o", "table"))

	yaml := strings.Join(pull(t, &counting{}, config, "discover", "-o", "yaml"), "\n")
	require.True(t, strings.HasPrefix(yaml, "bindings:\n  - recommendedName: main/a\n"), yaml)
	for _, format := range []string{"json", "yaml"} {
		file := filepath.Join(t.TempDir(), "catalog."+format)
		text := strings.Join(pull(t, &counting{}, config, "discover", "-o", format), "\n")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		require.Len(t, pull(t, &counting{}, `{"count": 3, "streams": "a off"}`, "pull", "--catalog", file), 3)
	}
	require.True(t, json.Valid([]byte(strings.Join(pull(t, &counting{}, config, "discover"), "\n"))), "a program gets JSON")
}

// terminal is a process somebody looks at.
func terminal(p *process.Process, displayed bool) *process.Process {
	p.Watched, p.Displayed = true, displayed
	return p
}

// While a pull goes elsewhere, a terminal shows how it is going; a pull onto the terminal does not.
func TestPullShowsProgress(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out strings.Builder
	screen := &screen{until: "\r\x1b[K20 documents  420 B  ", found: cancel}
	p := terminal(&process.Process{
		Name: "source-numbers", Args: []string{"pull", "--config", "-"}, Stdin: strings.NewReader("mode: wait"),
		Stdout: &out, Stderr: screen, LookupEnv: func(string) (string, bool) { return "", false },
	}, false)
	code := p.Run(ctx, func(ctx context.Context, p *process.Process) int {
		return capture.Run(ctx, p, capture.New(&counting{}))
	})
	require.Zero(t, code)
	require.Equal(t, 20, strings.Count(out.String(), "\n"))
	require.Contains(t, screen.text, screen.until)
	require.True(t, strings.HasSuffix(screen.text, "\r\x1b[K"), "the line is gone at the end: %q", screen.text)

	screen.text = ""
	p = terminal(&process.Process{
		Name: "source-numbers", Args: []string{"pull", "--config", "-"}, Stdin: strings.NewReader("{}"),
		Stdout: &out, Stderr: screen, LookupEnv: func(string) (string, bool) { return "", false },
	}, true)
	require.Zero(t, p.Run(t.Context(), func(ctx context.Context, p *process.Process) int {
		return capture.Run(ctx, p, capture.New(&counting{}))
	}))
	require.NotContains(t, screen.text, "documents")
}

// screen keeps what a terminal is shown.
type screen struct {
	text, until string
	found       func()
}

func (s *screen) Write(p []byte) (int, error) {
	s.text += string(p)
	if strings.Contains(s.text, s.until) {
		s.found()
	}
	return len(p), nil
}

// A person gets the table.
func TestDiscoverOnATerminal(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	p := terminal(&process.Process{
		Name: "source-numbers", Args: []string{"discover", "--config", "-"}, Stdin: strings.NewReader("{}"),
		Stdout: &out, Stderr: io.Discard, LookupEnv: func(string) (string, bool) { return "", false },
	}, true)
	require.Zero(t, p.Run(t.Context(), func(ctx context.Context, p *process.Process) int {
		return capture.Run(ctx, p, capture.New(&counting{}))
	}))
	require.True(t, strings.HasPrefix(out.String(), "NAME "), out.String())
}

// Shells complete commands, flags, formats, and the names of what there is.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		require.Contains(t, strings.Join(runOK(t, "completion", shell), "\n"), "source-numbers")
	}
	require.Contains(t, runOK(t, "__complete", "dis"), "discover\tPrint what can be captured, as a catalog for pull")
	require.Contains(t, runOK(t, "__complete", "discover", "-o", ""), "yaml")
	code, out, _ := run(t.Context(), capture.New(&counting{}), strings.NewReader(""), map[string]string{"SLUICE_CONFIG": "{}"}, "__complete", "pull", "--bind", "")
	require.Zero(t, code)
	require.Equal(t, []string{"main.a", "main.b"}, strings.Split(out, "\n")[:2])
	require.Equal(t, ":4", runOK(t, "__complete", "pull", "--bind", "")[0], "nothing is known without a configuration")
}
