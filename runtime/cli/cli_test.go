package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/conformance"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/sdk/process"
)

// The test binary is also a capture connector, if CLI_FAKE is set.
func TestMain(m *testing.M) {
	if os.Getenv("CLI_FAKE") == "" {
		os.Exit(m.Run())
	}
	if err := fake(); err != nil {
		fmt.Fprintf(os.Stderr, `{"level":"error","message":%q}`+"\n", err.Error())
		os.Exit(1)
	}
}

const fakeSchema = `{"type":"object","required":["id"],"properties":{"id":{"type":"integer"},"text":{"type":"string","description":"it's: a \"text\"\nof two lines"},"n":{"enum":["1","true",2]}},"x-infer-schema":true,"reduce":{"strategy":"merge"}}`

func fake() error {
	codec, err := frame.ParseCodec(os.Getenv("FLOW_RUNTIME_CODEC"))
	if err != nil {
		return err
	}
	in, out := frame.NewReader(os.Stdin, codec, 0), frame.NewWriter(os.Stdout, codec)
	for {
		var r capturepb.Request
		if err := in.Read(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		answer := &capturepb.Response{}
		switch {
		case r.Spec != nil:
			answer.Spec = &capturepb.Response_Spec{Protocol: specs.Protocol, ConfigSchemaJson: []byte(`{"title":"Fake"}`), ResourceConfigSchemaJson: []byte(`{}`), DocumentationUrl: "https://example.com", ResourcePathPointers: []string{"/name"}}
		case r.Discover != nil:
			if !strings.Contains(string(r.Discover.ConfigJson), "right") {
				return errors.New("the password is wrong")
			}
			answer.Discovered = &capturepb.Response_Discovered{Bindings: []*capturepb.Response_Discovered_Binding{
				{RecommendedName: "orders", ResourceConfigJson: []byte(`{"name":"orders"}`), DocumentSchemaJson: []byte(fakeSchema), Key: []string{"/id"}},
				{RecommendedName: "old", ResourceConfigJson: []byte(`{"name":"old"}`), DocumentSchemaJson: []byte(fakeSchema), Key: []string{"/id"}, Disable: true},
				{RecommendedName: "keyless", ResourceConfigJson: []byte(`{"name":"keyless"}`), DocumentSchemaJson: []byte(fakeSchema)},
			}}
		case r.Validate != nil:
			answer.Validated = &capturepb.Response_Validated{}
			for _, b := range r.Validate.Bindings {
				answer.Validated.Bindings = append(answer.Validated.Bindings, &capturepb.Response_Validated_Binding{ResourcePath: specs.ResourcePath(b.ResourceConfigJson, []string{"/name"})})
			}
		case r.Apply != nil:
			answer.Applied = &capturepb.Response_Applied{}
		case r.Open != nil:
			return fakeStream(out)
		}
		if err := errors.Join(out.Write(answer), out.Flush()); err != nil {
			return err
		}
	}
}

func fakeStream(out *frame.Writer) error {
	if err := out.Write(&capturepb.Response{Opened: &capturepb.Response_Opened{}}); err != nil {
		return err
	}
	for n := range 1000 {
		if err := errors.Join(
			out.Write(&capturepb.Response{Captured: &capturepb.Response_Captured{DocJson: fmt.Appendf(nil, `{"id":%d}`, n)}}),
			out.Write(&capturepb.Response{Checkpoint: &capturepb.Response_Checkpoint{State: &flowpb.ConnectorState{UpdatedJson: []byte(`{}`), MergePatch: true}}}),
			out.Flush()); err != nil {
			return err
		}
	}
	select {}
}

// sluice runs a command line and returns what it printed.
func sluice(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	p := &process.Process{Name: "sluice", Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, LookupEnv: os.LookupEnv}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p.Log = process.Discard()
	p.Log.SetOutput(&errs)
	p.Log.SetLevel(2)
	code = Run(ctx, p)
	return code, out.String(), errs.String()
}

// program is a program that runs the fake.
func program(t *testing.T) (path, config string) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	path = filepath.Join(dir, "source-fake")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\nCLI_FAKE=1 exec "+self+"\n"), 0o700))
	config = filepath.Join(dir, "config.yaml")
	require.NoError(t, os.WriteFile(config, []byte("password: right\n"), 0o600))
	return path, config
}

func TestSpecAndCheck(t *testing.T) {
	t.Parallel()
	source, config := program(t)
	code, out, errs := sluice(t, "spec", source)
	require.Zero(t, code, errs)
	var spec map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &spec))
	require.EqualValues(t, specs.Protocol, spec["protocol"])
	require.Equal(t, map[string]any{"title": "Fake"}, spec["configSchema"])

	code, out, errs = sluice(t, "spec", source, "--codec", "json")
	require.Zero(t, code, errs)
	require.Contains(t, out, "Fake")

	code, out, errs = sluice(t, "check", source, "--config", config)
	require.Zero(t, code, errs)
	require.Equal(t, "OK: 1 streams can be captured\n", out)

	require.NoError(t, os.WriteFile(config, []byte("password: wrong\n"), 0o600))
	code, _, errs = sluice(t, "check", source, "--config", config)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "the password is wrong")
}

// TestDiscoverWritesAPipelineThatRuns: as it is, and with its comment filled in.
func TestDiscoverWritesAPipelineThatRuns(t *testing.T) {
	t.Parallel()
	source, config := program(t)
	code, out, errs := sluice(t, "discover", source, "--config", config, "--name", "acme/shop")
	require.Zero(t, code, errs)
	require.NotContains(t, out, "right", "the configuration stays in its own file")
	require.Contains(t, out, "# materializations:\n#   acme/destination:\n")
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	require.NoError(t, os.WriteFile(file, []byte(out), 0o600))
	data := filepath.Join(t.TempDir(), "data")
	code, _, errs = sluice(t, "run", file, "--data", data, "--stop-after", "3s", "--metrics", "127.0.0.1:0")
	require.Zero(t, code, errs)
	code, out, errs = sluice(t, "status", file, "--data", data, "--json")
	require.Zero(t, code, errs)
	require.Contains(t, out, `"documents": 1000`)
	code, out, errs = sluice(t, "status", "--data", data)
	require.Zero(t, code, errs)
	require.Contains(t, out, "stopped")
	require.Contains(t, out, "orders")

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	_, comment, found := strings.Cut(string(text), "# materializations:")
	require.True(t, found)
	filled := strings.ReplaceAll("# materializations:"+comment, "\n# ", "\n")
	filled = strings.ReplaceAll(strings.TrimPrefix(filled, "# "), "/path/to/bin/materialize-postgres", source)
	filled = strings.ReplaceAll(filled, "/path/to/destination.yaml", config)
	require.NoError(t, os.WriteFile(file, append(text, filled...), 0o600))
	code, _, errs = sluice(t, "run", file, "--data", data, "--stop-after", "10ms")
	require.Zero(t, code, errs)
}

func TestPreview(t *testing.T) {
	t.Parallel()
	source, config := program(t)
	code, out, errs := sluice(t, "preview", source, "--config", config, "--limit", "10")
	require.Zero(t, code, errs)
	require.Equal(t, 10, strings.Count(out, "\n"))
	require.True(t, strings.HasPrefix(out, "{\"id\":0}\n{\"id\":1}\n"))
	code, out, _ = sluice(t, "preview", source, "--config", config, "--for", "2s")
	require.Zero(t, code)
	require.Equal(t, 1000, strings.Count(out, "\n"))
	code, _, errs = sluice(t, "preview", source, "--config", config, "--bind", "nothing*")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "none of the 3 streams of source-fake is chosen")
}

func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	source, config := program(t)
	plain := filepath.Join(t.TempDir(), "plain")
	require.NoError(t, os.WriteFile(plain, []byte("x"), 0o600))
	whole := filepath.Join(t.TempDir(), "whole.yaml")
	require.NoError(t, os.WriteFile(whole, []byte("captures: {a: {endpoint: {local: {command: [cat]}}, bindings: [{resource: {}, target: c}]}}\ncollections: {c: {key: [/id], schema: {}}}\n"), 0o600))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"spec", "bin/none"}, "there is no file bin/none (an image is written with its tag"},
		{[]string{"spec", "no-such-program"}, "there is no program no-such-program on the PATH"},
		{[]string{"spec", plain}, "is not executable"},
		{[]string{"spec", filepath.Dir(plain)}, "is a folder"},
		{[]string{"spec", source, "--codec", "xml"}, `--codec is "xml"; it may be proto or json`},
		{[]string{"check", source, "--config", "/no/config.yaml"}, "cannot read /no/config.yaml"},
		{[]string{"discover", source}, `required flag(s) "config" not set`},
		{[]string{"run", "/no/pipeline.yaml"}, "cannot read /no/pipeline.yaml"},
		{[]string{"run", config, "--metrics", "nowhere:x"}, "unknown field"},
		{[]string{"run", whole, "--join"}, "--join shares a pipeline through its log on Kafka, and the log of " + whole + " is in the data folder of one process: write log: kafka://… into the file"},
		{[]string{"status"}, "status of what?"},
		{[]string{"status", "--data", filepath.Dir(plain)}, "no sluice run has used it yet"},
	} {
		code, _, errs := sluice(t, c.args...)
		want := 1
		if strings.HasPrefix(c.want, "required flag") {
			want = 2 // nothing was begun
		}
		require.Equal(t, want, code, "%v", c.args)
		require.Contains(t, errs, c.want)
	}
	require.True(t, isImage("ghcr.io/acme/source-x:v1"))
	require.True(t, isImage("source-x:local"))
	require.False(t, isImage("./source-x"))
	require.False(t, isImage("bin/source-x"))
}

// TestConformanceCommand: the fake keeps some rules and breaks others, which the exit code says, and the report.
func TestConformanceCommand(t *testing.T) {
	t.Parallel()
	source, config := program(t)
	code, out, errs := sluice(t, "test", "--rules")
	require.Zero(t, code, errs)
	require.Equal(t, conformance.Table(), out)

	report := filepath.Join(t.TempDir(), "report.xml")
	code, _, errs = sluice(t, "test", source, "--config", config, "--only", "spec-schema,frame", "--output", "junit", "--file", report, "--quiet", "1s")
	require.Equal(t, 1, code, errs)
	require.Contains(t, errs, "source-fake breaks")
	text, err := os.ReadFile(report)
	require.NoError(t, err)
	require.Contains(t, string(text), `<testcase name="frame"`)
	require.Contains(t, string(text), "the schema of the")

	for args, want := range map[string]string{
		"test":           "name a connector, and its configuration with --config",
		"test " + source: "name a connector, and its configuration with --config",
		"test " + source + " --output yaml --config ": `--output is "yaml"; it may be text, json or junit`,
		"test " + source + " --kind sink --config ":   `--kind is "sink"; it may be capture or materialize`,
		"test " + source + " --only all --config ":    `there is no rule "all"; sluice test --rules lists them`,
	} {
		fields := strings.Fields(args)
		if strings.HasSuffix(args, " ") {
			fields = append(fields, config)
		}
		code, _, errs := sluice(t, fields...)
		require.Equal(t, 1, code, args)
		require.Contains(t, errs, want, args)
	}
}
