package protocol_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

// tracePage is the page with the traces. It is part of the repository, but not of the module.
const tracePage = "../docs/protocol.md"

// traced is one message of a trace: the JSON line, and the frame's bytes behind it.
type traced struct {
	kind, json string
	frame      []byte
}

// readTraces reads the page's blocks. A line is a message's type and its JSON, or, indented, bytes of the frame.
func readTraces(t *testing.T, page string) (out []traced) {
	t.Helper()
	inside := false
	for line := range strings.Lines(page) {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = strings.HasPrefix(line, "```trace")
		case !inside:
		case strings.HasPrefix(line, " "):
			b, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
			require.NoError(t, err, line)
			out[len(out)-1].frame = append(out[len(out)-1].frame, b...)
		default:
			kind, text, _ := strings.Cut(strings.TrimSpace(line), " ")
			out = append(out, traced{kind: kind, json: text})
		}
	}
	return out
}

// The traces in the documentation are what the codecs write and read.
func TestTracesOfTheDocumentation(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(tracePage)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the documentation is not there: this is the module alone")
	}
	require.NoError(t, err)
	traces := readTraces(t, string(page))
	require.Greater(t, len(traces), 25)
	for _, tr := range traces {
		message, ok := map[string]proto.Message{
			"capture.Request": &capturepb.Request{}, "capture.Response": &capturepb.Response{},
			"materialize.Request": &materializepb.Request{}, "materialize.Response": &materializepb.Response{},
		}[tr.kind]
		require.True(t, ok, tr.kind)
		require.NoError(t, frame.JSON.Unmarshal([]byte(tr.json), message), tr.json)
		line, err := frame.Append(nil, frame.JSON, message)
		require.NoError(t, err)
		require.Equal(t, tr.json+"\n", string(line))
		framed, err := frame.Append(nil, frame.Proto, message)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("% x", framed), fmt.Sprintf("% x", tr.frame), tr.json)
		checked, ok := message.(interface{ Check() error })
		require.True(t, ok)
		require.NoError(t, checked.Check())
	}
}
