package capture_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/testkit/fault"
)

// TestPullToAFullDisk: wherever the output fails, the position that is kept is not ahead of what was printed.
func TestPullToAFullDisk(t *testing.T) {
	t.Parallel()
	for after := 0; after < 500; after += 37 {
		state := filepath.Join(t.TempDir(), "state.json")
		var out, errs bytes.Buffer
		p := &process.Process{
			Name: "source-numbers", Args: []string{"pull", "--config", "-", "--state", state}, Stdin: strings.NewReader("{}"),
			Stdout: &fault.Writer{W: &out, After: after}, Stderr: &errs, LookupEnv: func(string) (string, bool) { return "", false },
		}
		code := p.Run(t.Context(), func(ctx context.Context, p *process.Process) int {
			return capture.Run(ctx, p, capture.New(&counting{}))
		})
		written := strings.Count(out.String(), "\n")
		if written < 20 {
			require.Equal(t, 1, code)
			require.Contains(t, errs.String(), "writing documents: injected fault")
		}
		text, err := os.ReadFile(state)
		require.NoError(t, err)
		var stored struct {
			State struct {
				Shared sharedState `json:"shared"`
			} `json:"state"`
		}
		require.NoError(t, json.Unmarshal(text, &stored))
		require.LessOrEqual(t, stored.State.Shared.Total, written)
		require.Greater(t, stored.State.Shared.Total+3, written-1, "only the transaction that failed is read again")
	}
}

// TestCutRequests cuts a conversation at every byte: the connector ends, well between two requests and with a reason
// anywhere else.
func TestCutRequests(t *testing.T) {
	t.Parallel()
	eachCodec(t, func(t *testing.T, codec frame.Codec) {
		var whole []byte
		ends := map[int]bool{0: true}
		for range 2 {
			var err error
			whole, err = frame.Append(whole, codec, &capturepb.Request{Spec: &capturepb.Request_Spec{
				ConnectorType: flowpb.CaptureSpec_IMAGE, ConfigJson: json.RawMessage(`{}`),
			}})
			require.NoError(t, err)
			ends[len(whole)] = true
		}
		for cut := range len(whole) + 1 {
			for _, failure := range []error{io.EOF, nil} {
				in := &fault.Reader{R: bytes.NewReader(whole), After: cut, Err: failure}
				err := capture.Server{Connector: capture.New(&counting{}), Codec: codec}.Serve(t.Context(), in, io.Discard)
				switch {
				case failure == nil:
					require.ErrorIs(t, err, fault.ErrInjected)
				case ends[cut]:
					require.NoError(t, err, "cut at %d", cut)
				default:
					require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", cut)
				}
			}
		}
	})
}

// TestResponsesThatCannotBeWritten: an output that fails, at any byte of a session, ends it with that failure.
func TestResponsesThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	request, err := frame.Append(nil, frame.Proto, openRequest(&flowpb.CaptureSpec{
		Name: "acme/x", ConnectorType: flowpb.CaptureSpec_IMAGE, ConfigJson: json.RawMessage(`{"streams": "a"}`),
		Bindings: []*flowpb.CaptureSpec_Binding{{
			ResourceConfigJson: json.RawMessage(`{"stream": "a"}`), ResourcePath: []string{"main", "a"}, StateKey: "a",
			Collection: &flowpb.CollectionSpec{Name: "acme/a", Key: []string{"/n"}, WriteSchemaJson: json.RawMessage("{}")},
		}},
	}))
	require.NoError(t, err)
	serve := func(out io.Writer) (*counting, error) {
		s := &counting{}
		return s, capture.Serve(t.Context(), capture.New(s), bytes.NewReader(request), out)
	}
	var whole bytes.Buffer
	_, err = serve(&whole)
	require.NoError(t, err)
	require.Greater(t, whole.Len(), 200)
	for after := 0; after < whole.Len(); after += 7 {
		s, err := serve(&fault.Writer{W: io.Discard, After: after, Err: errors.New("pipe is broken")})
		require.ErrorContains(t, err, "pipe is broken", "after %d bytes", after)
		require.Equal(t, 1, s.closed)
	}
}
