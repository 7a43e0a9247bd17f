package host

import (
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
)

// A stand-in for connectors that others made: it speaks JSON with the old names, leaves defaults out, writes nulls beside what it means, sends
// a document of 60 MB, merges and replaces its state, and ends while acknowledgements are owed to it.
const foreign = `read spec; echo '{"spec":{"protocol":3032023,"config_schema":{},"oauth2":null},"discovered":null}'
read open; echo '{"opened":{"explicit_acknowledgements":true},"captured":null}'
printf '{"captured":{"doc":{"id":1,"text":"'; head -c 60000000 /dev/zero | tr '\0' x; echo '"},"binding":null}}'
echo '{"checkpoint":{"state":{"updated_json":{"a":{"x":1},"b":2},"merge_patch":true}}}'
echo '{"checkpoint":{"state":{"updated":{"a":{"x":null,"y":3}},"mergePatch":true},"captured":null}}'
echo '{"checkpoint":{"state":null}}'
echo '{"checkpoint":{"state":{"updated":{"c":4}}}}'
exit 0`

func TestForeignCapture(t *testing.T) {
	t.Parallel()
	c := &Capture{Connector: Connector{Task: "acme/foreign", Endpoint: Endpoint{Command: []string{"/bin/sh", "-c", foreign}, Codec: frame.JSON}}}
	spec := &flowpb.CaptureSpec{Bindings: []*flowpb.CaptureSpec_Binding{{}}}
	s, err := c.Open(t.Context(), &capturepb.Request_Open{Capture: spec})
	require.NoError(t, err)
	require.True(t, s.WantsAcknowledgements())
	r, err := s.Next()
	require.NoError(t, err)
	require.Greater(t, len(r.GetCaptured().GetDocJson()), 60_000_000)
	require.Zero(t, r.Captured.Binding)
	for _, want := range []string{`{"a":{"x":1},"b":2}`, `{"a":{"y":3},"b":2}`, `{"a":{"y":3},"b":2}`, `{"c":4}`} {
		r, err := s.Next()
		require.NoError(t, err)
		require.NotNil(t, r.Checkpoint)
		require.JSONEq(t, want, string(s.State()), "merged, or replaced where the connector says so")
		s.Acknowledge(1)
	}
	_, err = s.Next()
	require.True(t, errors.Is(err, io.EOF), "%v", err)
	require.NoError(t, s.Wait(t.Context()), "acknowledgements that are owed to one that ended are no error")
}
