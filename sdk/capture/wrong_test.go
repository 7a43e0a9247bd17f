package capture_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// TestWrongTasks opens and validates what cannot work; every problem is in the answer.
func TestWrongTasks(t *testing.T) {
	t.Parallel()
	good := func(t *testing.T) (*session.Session, *flowpb.CaptureSpec) {
		process := session.Start(t, capture.New(&counting{}), frame.JSON)
		return process, process.Task(countingConfig{Count: 1, Batch: 1, Mode: "end", Streams: "a b"})
	}
	validate := func(spec *flowpb.CaptureSpec) *capturepb.Request {
		req := &capturepb.Request_Validate{Name: spec.Name, ConnectorType: spec.ConnectorType, ConfigJson: spec.ConfigJson}
		for _, b := range spec.Bindings {
			req.Bindings = append(req.Bindings, &capturepb.Request_Validate_Binding{
				ResourceConfigJson: b.ResourceConfigJson, Collection: b.Collection,
			})
		}
		return &capturepb.Request{Validate: req}
	}
	for name, c := range map[string]struct {
		change func(spec *flowpb.CaptureSpec)
		want   string
	}{
		"everything at once": {func(spec *flowpb.CaptureSpec) {
			spec.ConfigJson = json.RawMessage(`{"cuont": 3, "batch": "x"}`)
			spec.Bindings[0].ResourceConfigJson = json.RawMessage(`{"strem": "a"}`)
			spec.Bindings[1].ResourceConfigJson = json.RawMessage(`{}`)
		}, `The capture cannot run as it is configured:
1. The configuration has 2 problems:
   1. The field "batch" of the configuration must be a whole number, but it is a text.
   2. The field "cuont" of the configuration is unknown. Did you mean "count"?
2. The field "strem" of the resource of binding 1 is unknown. Did you mean "stream"?
3. In the resource of binding 2: Stream is missing.`},
		"twice the same": {func(spec *flowpb.CaptureSpec) {
			spec.Bindings[1].ResourceConfigJson = json.RawMessage(`{"stream": "a"}`)
		}, "Bindings 1 and 2 both capture main.a. Remove one of them."},
	} {
		for kind, request := range map[string]func(*flowpb.CaptureSpec) *capturepb.Request{"validate": validate, "open": openRequest} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				process, spec := good(t)
				c.change(spec)
				process.Send(request(spec))
				require.Equal(t, c.want, usererr.Message(process.Wait()))
			})
		}
	}
	t.Run("the source's own check", func(t *testing.T) {
		t.Parallel()
		process, spec := good(t)
		spec.Bindings[0].ResourceConfigJson = json.RawMessage(`{"stream": "x"}`)
		spec.Bindings[1].ResourceConfigJson = json.RawMessage(`{"stream": "y"}`)
		process.Send(validate(spec))
		require.Equal(t, "The capture cannot run as it is configured:\n1. There is no stream x.\n2. There is no stream y.",
			usererr.Message(process.Wait()))
	})
	t.Run("a state of another kind", func(t *testing.T) {
		t.Parallel()
		process, spec := good(t)
		req := openRequest(spec)
		req.Open.StateJson = json.RawMessage(`{"bindingStateV1":{"main%2Fa":["x"]}}`)
		process.Send(req)
		require.Equal(t, "The stored state of main.a cannot be read by this version of the connector. Backfill the binding to begin anew.",
			usererr.Message(process.Wait()))
	})
}
