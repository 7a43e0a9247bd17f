package materialize_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

func newPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return r, w
}

func quiet() *logrus.Entry { return logrus.NewEntry(process.Discard()) }

// foldingSink keeps six characters of a name and can do nothing with booleans.
type foldingSink struct{ memSink }

func (foldingSink) Constrain(_ memConfig, _ materialize.Target, f materialize.Field) materialize.Constraint {
	c := materialize.Constraint{Folded: f.Name[:min(6, len(f.Name))]}
	if f.Is("boolean") {
		c.Choice, c.Reason = materialize.Forbidden, "No booleans here."
	}
	return c
}

func validate(t *testing.T, s materialize.Sink[memConfig, memResource], task sinktest.Task) (*materializepb.Response_Validated, error) {
	t.Helper()
	c := sinktest.Case{Start: func(t testing.TB, codec frame.Codec) sinktest.Process {
		t.Helper()
		return startSink(t, s, &atomic.Bool{}, codec)
	}}
	res, err := sinktest.Start(t, c, frame.Proto).Call(task.ValidateRequest(nil))
	return res.GetValidated(), err
}

func TestConstraints(t *testing.T) {
	t.Parallel()
	col := func(name, kind string) sinktest.Column {
		return sinktest.Column{Name: name, Types: []string{kind}, May: true}
	}
	collection := sinktest.Collection{Name: "acme/t", Columns: []sinktest.Column{
		{Name: "identity", Types: []string{"integer"}, Key: true},
		col("identifier", "string"), col("amount_gross", "number"), col("amount", "number"), col("amount_net", "number"), col("flag", "boolean"),
	}}
	v, err := validate(t, foldingSink{}, sinktest.Task{Name: "acme/x", Config: json.RawMessage("{}"), Bindings: []sinktest.Binding{
		{Collection: collection, Resource: json.RawMessage(`{"table":"t"}`)},
	}})
	require.NoError(t, err)
	b := v.GetBindings()[0]
	require.Equal(t, []string{"t"}, b.GetResourcePath())
	type answer struct{ kind, folded, reason string }
	list, old := map[string]answer{}, map[string]answer{}
	for _, c := range b.GetProjectionConstraints() {
		list[c.GetField()] = answer{c.GetConstraint().GetType().String(), c.GetConstraint().GetFoldedField(), c.GetConstraint().GetReason()}
	}
	for field, c := range b.GetConstraints() {
		old[field] = answer{c.GetType().String(), c.GetFoldedField(), c.GetReason()}
	}
	require.Equal(t, list, old, "old and new runtimes are told the same")
	require.Equal(t, answer{"LOCATION_REQUIRED", "identi", "The key identifies the row."}, list["identity"])
	require.Equal(t, answer{"FIELD_FORBIDDEN", "identi", `It would be stored as "identi", and so would the field "identity". Rename one of the two.`}, list["identifier"])
	require.Equal(t, answer{"FIELD_OPTIONAL", "amount", "This field can be stored."}, list["amount"])
	require.Equal(t, "FIELD_FORBIDDEN", list["amount_net"].kind)
	require.Equal(t, "FIELD_FORBIDDEN", list["amount_gross"].kind)
	require.Equal(t, answer{"FIELD_FORBIDDEN", "flag", "No booleans here."}, list["flag"])
}

func TestValidateReportsEverything(t *testing.T) {
	t.Parallel()
	b := sinktest.Binding{Collection: simple(), Resource: json.RawMessage(`{"table":"t"}`)}
	wrong := b
	wrong.Resource = json.RawMessage(`{"tabel":"t"}`)
	_, err := validate(t, memSink{dead: &atomic.Bool{}}, sinktest.Task{Name: "acme/x", Config: json.RawMessage(`{"hard":1}`), Bindings: []sinktest.Binding{b, b, wrong}})
	require.ErrorContains(t, err, `The field "hard" of the endpoint configuration is unknown`)
	require.ErrorContains(t, err, `both go to t. Give one of the bindings another resource.`)
	require.ErrorContains(t, err, `The field "tabel" of the resource of collection "acme/t" is unknown`)
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	d := newDisk()
	run := func(args ...string) (code int, out, log string) {
		var stdout, stderr bytes.Buffer
		p := &process.Process{
			Name: "materialize-memory", Args: args, Stdin: bytes.NewReader(nil), Stdout: &stdout, Stderr: &stderr,
			LookupEnv: func(string) (string, bool) { return "", false }, Log: logrus.New(),
		}
		p.Log.SetOutput(&stderr)
		code = materialize.Run(context.WithoutCancel(t.Context()), p, memSink{d: d, dead: &atomic.Bool{}})
		return code, stdout.String(), stderr.String()
	}
	code, out, _ := run("spec")
	require.Zero(t, code)
	var spec struct {
		Protocol             int
		ConfigSchema         map[string]any
		ResourceConfigSchema map[string]any
	}
	require.NoError(t, json.Unmarshal([]byte(out), &spec))
	require.Equal(t, 3032023, spec.Protocol)
	require.NotEmpty(t, spec.ResourceConfigSchema["properties"])
	require.Equal(t, true, spec.ResourceConfigSchema["x-load-optional"])

	file := filepath.Join(t.TempDir(), "c.yaml")
	require.NoError(t, os.WriteFile(file, []byte("hardDelete: true\n"), 0o600))
	code, out, _ = run("check", "--config", file)
	require.Zero(t, code)
	require.Equal(t, "The configuration works.\n", out)
	require.NoError(t, os.WriteFile(file, []byte("hardDeleet: true\n"), 0o600))
	code, _, log := run("check", "--config", file)
	require.NotZero(t, code)
	require.Contains(t, log, "hardDeleet")

	c := memCase(d, false)
	v, err := validate(t, memSink{d: d, dead: &atomic.Bool{}}, sinktest.Task{Name: "acme/x", Config: c.Config, Bindings: []sinktest.Binding{{Collection: simple(), Resource: c.Resource("t", false)}}})
	require.NoError(t, err)
	task := sinktest.Task{Name: "acme/x", Config: c.Config, Bindings: []sinktest.Binding{{Collection: simple(), Resource: c.Resource("t", false)}}}
	built, err := task.Build(v)
	require.NoError(t, err)
	body, err := frame.JSON.AppendBody(nil, &materializepb.Request_Apply{Materialization: built, Version: "1"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, body, 0o600))
	code, out, log = run("apply", "--spec", file)
	require.Zero(t, code, log)
	require.Equal(t, "Created t. Added id. \n", out)
	code, out, _ = run("--help")
	require.Zero(t, code)
	require.Contains(t, out, "https://example.com")
	code, _, _ = run("nonsense")
	require.NotZero(t, code)
}
