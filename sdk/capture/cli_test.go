package capture_test

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/testkit/golden"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// pull runs a command of a counting source with a configuration, and requires that it succeeds.
func pull(t *testing.T, s *counting, config string, args ...string) []string {
	t.Helper()
	args = append(args, "--config", "-")
	code, out, errs := run(t.Context(), capture.New(s), strings.NewReader(config), nil, args...)
	require.Zero(t, code, "stderr: %s", errs)
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n")
}

func TestPullPrintsEverything(t *testing.T) {
	t.Parallel()
	s := &counting{}
	lines := pull(t, s, `{"count": 2}`, "pull")
	require.Equal(t, []string{
		`{"n":0,"stream":"a"}`, `{"n":1,"stream":"a"}`, `{"n":0,"stream":"b"}`, `{"n":1,"stream":"b"}`,
	}, lines)
	require.Equal(t, []string{"pull"}, s.applied)
	require.Equal(t, 1, s.closed)
	require.True(t, s.env.Ephemeral, "nothing keeps the state")
	require.True(t, s.env.Range.Full())
	require.Equal(t, []int{2, 4}, s.acks())
}

func TestPullNamesBindings(t *testing.T) {
	t.Parallel()
	lines := pull(t, &counting{}, `{"count": 1}`, "pull", "--named", "--bind", "*b")
	require.Equal(t, []string{`{"binding":"main.b","document":{"n":0,"stream":"b"}}`}, lines)
}

func TestPullWithCatalog(t *testing.T) {
	t.Parallel()
	catalog := filepath.Join(t.TempDir(), "catalog.json")
	discovered := strings.Join(pull(t, &counting{}, `{}`, "discover"), "\n")
	require.NoError(t, os.WriteFile(catalog, []byte(strings.ReplaceAll(discovered, `"b"`, `"a"`)), 0o600))

	code, _, errs := run(t.Context(), capture.New(&counting{}), strings.NewReader("{}"), nil, "pull", "--config", "-", "--catalog", catalog)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "Bindings 1 and 2 both capture main.a. Remove one of them.")

	require.NoError(t, os.WriteFile(catalog, []byte(discovered), 0o600))
	require.Len(t, pull(t, &counting{}, "count: 4", "pull", "--catalog", catalog), 8)
}

// TestPullResumes pulls a few documents at a time, until there are no more: nothing may be missing.
func TestPullResumes(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "state.json")
	seen := map[string]bool{}
	task := ""
	for range 10 {
		s := &counting{}
		for _, line := range pull(t, s, `{"count": 10}`, "pull", "--state", state, "--limit", "4") {
			seen[line] = true
		}
		require.False(t, s.env.Ephemeral)
		if task == "" {
			task = s.env.Task
		}
		require.Regexp(t, `^pull-[0-9a-f]{8}$`, s.env.Task)
		require.Equal(t, task, s.env.Task)
	}
	delete(seen, "")
	require.Len(t, seen, 20)

	var stored struct {
		State struct {
			Bindings map[string]countingState `json:"bindingStateV1"`
			Shared   sharedState              `json:"shared"`
		} `json:"state"`
	}
	text, err := os.ReadFile(state)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &stored))
	require.Equal(t, map[string]countingState{"main/a": {Next: 10}, "main/b": {Next: 10}}, stored.State.Bindings)
	require.Equal(t, 20, stored.State.Shared.Total)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(state), "*"))
	require.NoError(t, err)
	require.Len(t, left, 1, "no temporary file is left")
}

// TestPullLimit stops at exactly the number, and keeps the position of the last whole transaction.
func TestPullLimit(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int]int{1: 0, 3: 3, 4: 3, 6: 6, 20: 20, 21: 20} {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			t.Parallel()
			state := filepath.Join(t.TempDir(), "state.json")
			lines := pull(t, &counting{}, `{"count": 10}`, "pull", "--state", state, "--limit", strconv.Itoa(limit))
			require.Len(t, lines, min(limit, 20))
			text, err := os.ReadFile(state)
			require.NoError(t, err)
			var stored struct {
				State struct {
					Shared sharedState `json:"shared"`
				} `json:"state"`
			}
			require.NoError(t, json.Unmarshal(text, &stored))
			require.Equal(t, want, stored.State.Shared.Total)
		})
	}
}

func TestPullStopsCleanly(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	s := &counting{}
	code, out, errs := run(ctx, capture.New(s), strings.NewReader(`{"mode": "wait"}`), nil, "pull", "--config", "-")
	require.Zero(t, code, errs)
	require.Equal(t, 20, strings.Count(out, "\n"))
	require.Equal(t, 1, s.closed)
}

// flaky is a counting source that loses its connection.
type flaky struct {
	counting
	opened int
	refuse int  // how many of the sessions after the first cannot be opened
	large  bool // it is lost in the midst of a transaction of which documents were written
}

func (s *flaky) Open(
	ctx context.Context, env capture.Env, cfg countingConfig, bs []*capture.Binding[countingResource, countingState],
) (capture.Reader, error) {
	s.opened++
	lost := capture.Disconnected(usererr.New(io.ErrUnexpectedEOF, "The numbers are out of reach."))
	if s.opened > 1 && s.opened <= 1+s.refuse || s.opened == 1 && s.refuse < 0 {
		return nil, lost
	}
	r, err := s.counting.Open(ctx, env, cfg, bs)
	reads := 0
	return capture.ReaderFunc(func(ctx context.Context, tx *capture.Tx) error {
		if reads++; reads <= 2 || s.opened == 5+s.refuse {
			return r.Read(ctx, tx)
		}
		for tx.Documents() < 2 || s.large && tx.Size() < 2<<20 { // which nobody may see, or somebody has
			if err := tx.AppendDoc(bs[0], []byte(`{"n":"of no transaction"}`)); err != nil {
				return err
			}
		}
		return lost
	}), err
}

// A pull whose connection is lost goes on behind what it has written: nothing is missing, and nothing comes twice.
func TestPullGoesOn(t *testing.T) {
	t.Parallel()
	s := &flaky{refuse: 2}
	code, out, errs := run(t.Context(), capture.New(s), strings.NewReader(`{"count": 12}`), nil, "pull", "--config", "-")
	require.Zero(t, code, errs)
	whole := pull(t, &counting{}, `{"count": 12}`, "pull")
	got := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	slices.Sort(got) // each session begins with the first stream
	slices.Sort(whole)
	require.Equal(t, whole, got)
	require.Equal(t, 7, s.opened)
	require.Equal(t, 6, strings.Count(errs, "the connection is lost; the capture is opened again behind what it has written"))
	require.Contains(t, errs, `"waitsFor":"The numbers are out of reach."`)
}

// It ends where that is not sure, and where it never began.
func TestPullThatCannotGoOn(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*flaky{"documents of an unfinished transaction": {large: true}, "never connected": {refuse: -1}} {
		code, _, errs := run(t.Context(), capture.New(s), strings.NewReader(`{"count": 12}`), nil, "pull", "--config", "-")
		require.Equal(t, 1, code, name)
		require.Contains(t, errs, "The numbers are out of reach.", name)
		require.Equal(t, 1, s.opened, name)
	}
	s := &flaky{}
	code, out, errs := run(t.Context(), capture.New(s), strings.NewReader(`{"count": 12}`), nil, "pull", "--config", "-", "--limit", "20")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "The numbers are out of reach.")
	require.Equal(t, 6, strings.Count(out, "\n"))
}

// TestPullReaderGone pulls into a program that reads one line and ends.
func TestPullReaderGone(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, r.Close())
	defer w.Close()
	p := &process.Process{
		Name: "source-numbers", Args: []string{"pull", "--config", "-"}, Stdin: strings.NewReader(`{"mode": "wait"}`),
		Stdout: onlyWriter{w}, Stderr: io.Discard, LookupEnv: func(string) (string, bool) { return "", false },
	}
	code := p.Run(t.Context(), func(ctx context.Context, p *process.Process) int {
		return capture.Run(ctx, p, capture.New(&counting{}))
	})
	require.Zero(t, code)
}

// onlyWriter hides that a writer is a file, so that nothing but the write itself notices that nobody reads.
type onlyWriter struct{ w *os.File }

func (o onlyWriter) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil {
		return n, &os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}
	}
	return n, nil
}

func TestPullFailure(t *testing.T) {
	t.Parallel()
	code, out, errs := run(t.Context(), capture.New(&counting{}), strings.NewReader("mode: fail"), nil, "pull", "--config", "-")
	require.Equal(t, 1, code)
	require.Equal(t, 20, strings.Count(out, "\n"), "what was read before the failure is printed")
	lines := strings.Split(strings.TrimSpace(errs), "\n")
	require.Contains(t, lines[len(lines)-1], `"message":"The numbers have run out."`)
}

func TestCommandsThatPrint(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"spec"}, {"--help"}, {"pull", "--help"}, {"discover", "--help"}, {"check", "--help"}} {
		name := strings.ReplaceAll(strings.Join(args, " "), "--", "")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := run(t.Context(), capture.New(&counting{}), strings.NewReader(""), nil, args...)
			require.Zero(t, code, errs)
			golden.Compare(t, "cli/"+strings.ReplaceAll(name, " ", "_")+".txt", []byte(out))
		})
	}
	require.Equal(t, []string{"ok: 2 of 3 resources would be captured"}, pull(t, &counting{}, `{"streams": "a b off"}`, "check"))
	require.Regexp(t, `^source-numbers \S+`, strings.Join(runOK(t, "version"), ""))
}

func runOK(t *testing.T, args ...string) []string {
	t.Helper()
	code, out, errs := run(t.Context(), capture.New(&counting{}), strings.NewReader(""), nil, args...)
	require.Zero(t, code, errs)
	return strings.Split(out, "\n")
}

// TestMistakes lists what people do wrong on the command line, and what they are told.
func TestMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	badState := file("state.json", `{"cursor": 7}`)
	otherState := file("other.json", `{"task": "acme", "state": {}}`)
	emptyCatalog := file("catalog.json", `{"streams": []}`)
	for name, c := range map[string]struct {
		config string
		args   []string
		want   string
	}{
		"no config":           {"", []string{"pull"}, "There is no configuration. Name its file with --config, give it on standard input with --config -, or put it into the environment variable SLUICE_CONFIG."},
		"unset variable":      {"mode: ${SLUICE_MODE}", []string{"check", "--config", "-"}, `The field "mode" of the configuration: the environment variable SLUICE_MODE is not set.`},
		"missing secret":      {"password: ${file:/none/pw}", []string{"check", "--config", "-"}, `The field "password" of the configuration: cannot read /none/pw: no such file or directory.`},
		"no format":           {"{}", []string{"discover", "--config", "-", "-o", "xml"}, `--output "xml" is not a format. It may be table, json or yaml.`},
		"unknown command":     {"", []string{"pul"}, `unknown command "pul" for "source-numbers"`},
		"unknown flag":        {"{}", []string{"pull", "--config", "-", "--lmit", "3"}, "unknown flag: --lmit"},
		"missing file":        {"", []string{"check", "--config", dir + "/none.yaml"}, "There is no file " + dir + "/none.yaml."},
		"missing catalog":     {"{}", []string{"pull", "--config", "-", "--catalog", dir + "/none.json"}, "There is no file " + dir + "/none.json."},
		"neither format":      {"{\"a\": ", []string{"check", "--config", "-"}, "standard input is neither JSON nor YAML: "},
		"empty config":        {"", []string{"check", "--config", "-"}, "standard input is neither JSON nor YAML: it is empty."},
		"a list":              {"[]", []string{"check", "--config", "-"}, "The configuration must be an object, but it is a list."},
		"unknown field":       {"counts: 3", []string{"check", "--config", "-"}, `The field "counts" of the configuration is unknown. Did you mean "count"?`},
		"wrong type":          {`count: "3"`, []string{"check", "--config", "-"}, `The field "count" of the configuration must be a whole number, but it is a text.`},
		"wrong value":         {"mode: ends", []string{"check", "--config", "-"}, `The field "mode" of the configuration is "ends". It may be end, wait or fail.`},
		"validation":          {"{count: -1, batch: 0}", []string{"check", "--config", "-"}, "1. Count must not be negative.\n2. Batch must be at least 1."},
		"bind nothing":        {"{}", []string{"pull", "--config", "-", "--bind", "x*"}, `--bind "x*" matches nothing. There is main/a, main/b.`},
		"bind no pattern":     {"{}", []string{"pull", "--config", "-", "--bind", "[x"}, `--bind "[x" is not a pattern.`},
		"nothing there":       {`streams: ""`, []string{"pull", "--config", "-"}, "There is nothing to capture"},
		"negative limit":      {"{}", []string{"pull", "--config", "-", "--limit", "-1"}, "--limit -1 makes no sense"},
		"not a state":         {"{}", []string{"pull", "--config", "-", "--state", badState}, badState + " is not a state file of this program."},
		"state of another":    {"{}", []string{"pull", "--config", "-", "--state", otherState, "--name", "beta"}, `The state in ` + otherState + ` belongs to a capture named "acme".`},
		"state without place": {"{}", []string{"pull", "--config", "-", "--state", dir + "/none/state.json"}, "writing the state file"},
		"not a catalog":       {"{}", []string{"pull", "--config", "-", "--catalog", emptyCatalog}, `has no "bindings"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := run(t.Context(), capture.New(&counting{}), strings.NewReader(c.config), nil, c.args...)
			wantCode := 1
			if strings.HasPrefix(c.want, "unknown ") {
				wantCode = 2 // nothing was begun
				require.Contains(t, errs, ". See source-numbers")
			}
			require.Equal(t, wantCode, code)
			require.Empty(t, out)
			require.Contains(t, errs, c.want)
			require.NotContains(t, errs, "goroutine")
		})
	}
}

func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	for _, config := range []string{`{"password": "hunter2", "cuont": 1}`, `{"password": ["hunter2"]}`, `{"password": "hunter2", "count": -1}`} {
		_, out, errs := run(t.Context(), capture.New(&counting{}), strings.NewReader(config), nil, "check", "--config", "-")
		require.NotContains(t, out+errs, "hunter2")
	}
}
