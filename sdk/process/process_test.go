package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// fake is a process with an environment, and what it wrote to stderr.
func fake(env map[string]string, args ...string) (*Process, *bytes.Buffer) {
	var stderr bytes.Buffer
	return &Process{
		Name: "source-x", Args: args, Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &stderr,
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}, &stderr
}

func TestLogLines(t *testing.T) {
	t.Parallel()
	p, stderr := fake(map[string]string{"LOG_LEVEL": "debug"})
	code := p.Run(t.Context(), func(_ context.Context, p *Process) int {
		p.Log.WithFields(logrus.Fields{"table": "orders", "rows": 7}).Info("finished backfill")
		p.Log.Trace("hidden")
		return p.Fail(fmt.Errorf("opening: %w", usererr.New(errors.New("SQLSTATE 28P01"), "The password is wrong.")))
	})
	require.Equal(t, 1, code)
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	require.Len(t, lines, 2)
	var first, last struct {
		TS      time.Time      `json:"ts"`
		Level   string         `json:"level"`
		Message string         `json:"message"`
		Fields  map[string]any `json:"fields"`
	}
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &first))
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &last))
	require.Equal(t, "finished backfill", first.Message)
	require.Equal(t, "info", first.Level)
	require.Equal(t, map[string]any{"table": "orders", "rows": 7.0}, first.Fields)
	require.WithinDuration(t, time.Now(), first.TS, time.Minute)
	require.Equal(t, "The password is wrong.", last.Message, "the last line is the message for people")
	require.Equal(t, "error", last.Level)
	require.Equal(t, map[string]any{"err": "opening: The password is wrong.: SQLSTATE 28P01"}, last.Fields)
}

func TestLogText(t *testing.T) {
	t.Parallel()
	fail := func(_ context.Context, p *Process) int {
		p.Log.WithField("rows", 7).Warn("slow")
		return p.Fail(errors.New("two\nlines"))
	}
	p, stderr := fake(map[string]string{"LOG_FORMAT": "text"})
	require.Equal(t, 1, p.Run(t.Context(), fail))
	require.Regexp(t, `^time="?\d\d\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\S+ level=warning msg=slow rows=7\nsource-x: two\nlines\n$`, stderr.String())

	// A command that logs is read by programs to its end; one that does not is read by people.
	p, stderr = fake(nil, "pull")
	require.Equal(t, 1, p.Run(t.Context(), fail))
	require.Contains(t, stderr.String(), `"message":"two\nlines"`)
	p, stderr = fake(nil, "check")
	require.Equal(t, 1, p.Run(t.Context(), func(_ context.Context, p *Process) int { return p.Fail(errors.New("two\nlines")) }))
	require.Equal(t, "source-x: two\nlines\n", stderr.String())
	p, stderr = fake(map[string]string{"LOG_FORMAT": "json"}, "check")
	require.Equal(t, 1, p.Run(t.Context(), func(_ context.Context, p *Process) int { return p.Fail(errors.New("no")) }))
	require.Contains(t, stderr.String(), `"message":"no"`)
}

// TestWrongEnvironment lists variables that make no sense, and what people are told.
func TestWrongEnvironment(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"LOG_FORMAT=xml":            `source-x: The environment variable LOG_FORMAT is "xml"; it may be json, text or color.`,
		"LOG_LEVEL=loud":            `source-x: The environment variable LOG_LEVEL is "loud"; it may be error, warn, info, debug or trace.`,
		"SLUICE_PPROF=0.0.0.0:1":    `The environment variable SLUICE_PPROF is "0.0.0.0:1"; it must be a port of this machine, such as 127.0.0.1:6060.`,
		"SLUICE_PPROF=6060":         `The environment variable SLUICE_PPROF is "6060"; it must be a port of this machine`,
		"SLUICE_CODEC=xml":          `The environment variable SLUICE_CODEC is "xml"; it may be proto or json.`,
		"FLOW_RUNTIME_CODEC=proto3": `The environment variable FLOW_RUNTIME_CODEC is "proto3"; it may be proto or json.`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, value, _ := strings.Cut(name, "=")
			p, stderr := fake(map[string]string{key: value})
			code := p.Run(t.Context(), func(_ context.Context, p *Process) int {
				if _, err := p.Codec(); err != nil {
					return p.Fail(err)
				}
				return 0
			})
			require.Equal(t, 1, code)
			text, err := json.Marshal(want)
			require.NoError(t, err)
			require.True(t, strings.Contains(stderr.String(), want) || strings.Contains(stderr.String(), string(text[1:len(text)-1])), stderr.String())
		})
	}
}

func TestCodec(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  map[string]string
		want frame.Codec
	}{
		{nil, frame.Proto},
		{map[string]string{"FLOW_RUNTIME_CODEC": "json"}, frame.JSON},
		{map[string]string{"FLOW_RUNTIME_CODEC": "json", "SLUICE_CODEC": "proto"}, frame.Proto},
		{map[string]string{"FLOW_RUNTIME_CODEC": "json", "SLUICE_CODEC": ""}, frame.JSON},
	} {
		p, _ := fake(c.env)
		got, err := p.Codec()
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}

func TestProfilesAreServedOnRequest(t *testing.T) {
	t.Parallel()
	log := Discard()
	stop, err := serveProfiles(log, "127.0.0.1:0")
	require.NoError(t, err)
	stop()

	p, stderr := fake(map[string]string{"SLUICE_PPROF": "localhost:0"})
	require.Zero(t, p.Run(t.Context(), func(ctx context.Context, _ *Process) int {
		address := regexp.MustCompile(`"address":"([^"]+)"`).FindStringSubmatch(stderr.String())
		require.Len(t, address, 2)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address[1]+"/debug/pprof/", nil)
		require.NoError(t, err)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		require.Equal(t, http.StatusOK, res.StatusCode)
		return 0
	}))
	http.DefaultClient.CloseIdleConnections()
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for name, c := range map[string]struct {
		root fstest.MapFS
		want int64
	}{
		"none":      {fstest.MapFS{}, math.MaxInt64},
		"unlimited": {fstest.MapFS{"sys/fs/cgroup/memory.max": file("max\n")}, math.MaxInt64},
		"own group": {fstest.MapFS{"sys/fs/cgroup/memory.max": file("1073741824\n")}, 1 << 30},
		"a group above": {fstest.MapFS{
			"proc/self/cgroup":               file("0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max":   file("max"),
			"sys/fs/cgroup/a/memory.max":     file("500"),
			"sys/fs/cgroup/other/memory.max": file("1"),
			"sys/fs/cgroup/memory.max":       file("900"),
		}, 500},
		"version 1": {fstest.MapFS{
			"proc/self/cgroup":                                    file("9:cpu:/docker/x\n5:memory:/docker/x\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":          file("9223372036854771712"),
			"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": file("700"),
		}, 700},
	} {
		require.Equal(t, c.want, memoryLimit(c.root), name)
	}
}

// TestOutputThatNobodyReads: the context ends when the other end of the output is closed.
func TestOutputThatNobodyReads(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer w.Close()
	p, _ := fake(nil)
	p.Stdout = w
	code := p.Run(t.Context(), func(ctx context.Context, _ *Process) int {
		require.NoError(t, ctx.Err())
		require.NoError(t, r.Close())
		select {
		case <-ctx.Done():
			return 7
		case <-time.After(10 * time.Second):
			return 8
		}
	})
	require.Equal(t, 7, code)
}

// TestOutputThatIsRead: the watch does not keep a program that is done from ending.
func TestOutputThatIsRead(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		done := watchOutput(ctx, w, func() { t.Error("the other end is open") })
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			require.FailNow(t, "the watch goes on")
		}
	}
}

func TestReadConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	read := func(text string) (json.RawMessage, error) {
		name := filepath.Join(dir, fmt.Sprintf("%x.yaml", len(text)))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		p, _ := fake(nil)
		got, err := p.ReadConfig(name)
		if err != nil {
			err = errors.New(strings.ReplaceAll(usererr.Message(err), name, "FILE"))
		}
		return got, err
	}
	for text, want := range map[string]string{
		`{"a": 1e400}`:                    `{"a": 1e400}`,
		"a: 1\nb: 12345678901234567890\n": `{"a":1,"b":12345678901234567890}`,
		"a: yes\nb: true\nc: ~\nd: 'x'":   `{"a":"yes","b":true,"c":null,"d":"x"}`,
		"date: 2024-05-06\nhex: 0x10":     `{"date":"2024-05-06","hex":16}`,
		"p: &x {q: [1, .5]}\nr: *x":       `{"p":{"q":[1,0.5]},"r":{"q":[1,0.5]}}`,
		"text: |\n  one\n  \"two\"\n":     `{"text":"one\n\"two\"\n"}`,
		"[]":                              `[]`,
	} {
		got, err := read(text)
		require.NoError(t, err, text)
		require.Equal(t, want, string(got))
	}
	for text, want := range map[string]string{
		"":              "FILE is neither JSON nor YAML: it is empty.",
		"a: 1\na: 2":    `FILE is neither JSON nor YAML: line 2: the field "a" is there twice.`,
		"a: [1":         "FILE is neither JSON nor YAML: yaml: ",
		"[1, 2]: x":     "FILE is neither JSON nor YAML: line 1: the name of a field must be a text.",
		"a: &a {b: *a}": "nested too deeply",
		"<<: {a: 1}":    "FILE is neither JSON nor YAML: line 1: merging by << is not supported.",
		"a: .nan":       "FILE is neither JSON nor YAML: line 1: json: unsupported value: NaN.",
	} {
		_, err := read(text)
		require.ErrorContains(t, err, want, text)
	}
	bomb := "a: &a [xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 10))
	}
	_, err := read(bomb)
	require.ErrorContains(t, err, "its aliases make it larger than 16 MiB")

	p, _ := fake(nil)
	p.Stdin = strings.NewReader("a: 1")
	got, err := p.ReadConfig("-")
	require.NoError(t, err)
	require.Equal(t, `{"a":1}`, string(got))
	_, err = p.ReadConfig(dir + "/none")
	require.Equal(t, "There is no file "+dir+"/none.", usererr.Message(err))
	_, err = p.ReadConfig(dir)
	require.ErrorContains(t, err, "is a directory")
}

func TestExecute(t *testing.T) {
	t.Parallel()
	execute := func(ctx context.Context, err error) (int, string) {
		p, stderr := fake(nil, "do")
		code := p.Run(ctx, func(ctx context.Context, p *Process) int {
			root := p.Root("short", "long")
			root.AddCommand(&cobra.Command{Use: "do", RunE: func(*cobra.Command, []string) error { return err }})
			return p.Execute(ctx, root)
		})
		return code, stderr.String()
	}
	code, stderr := execute(t.Context(), nil)
	require.Zero(t, code)
	require.Empty(t, stderr)
	code, stderr = execute(t.Context(), ExitError(3))
	require.Equal(t, 3, code)
	require.Empty(t, stderr)
	code, stderr = execute(t.Context(), usererr.New(io.EOF, "It is over."))
	require.Equal(t, 1, code)
	require.Equal(t, "source-x: It is over.\n", stderr)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	code, _ = execute(stopped, fmt.Errorf("waiting: %w", context.Canceled))
	require.Zero(t, code, "an interruption is no failure")
}

func TestHint(t *testing.T) {
	t.Parallel()
	p, stderr := fake(nil)
	require.Equal(t, 2, p.Hint())
	require.Contains(t, stderr.String(), "source-x is a connector.")
	require.Contains(t, stderr.String(), "source-x --help")
}
