package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

const (
	// standIn is the environment variable that makes this program a connector: capture or materialize.
	standIn = "SLUICE_TEST_STANDIN"
	// largeDocument is how many bytes of text each document of the stand-ins has.
	largeDocument = 60 << 20
	// largeDocuments is how many there are, all of one key, each in a transaction of its own.
	largeDocuments = 4
	// largeLimit is what a container of 1 GiB leaves to the garbage collector (see sdk/process), and largeMemory what sluice may take then: the container's.
	largeLimit  = "GOMEMLIMIT=921MiB"
	largeMemory = 1 << 30
)

// TestLargeDocuments: documents of 60 MiB go through sluice both ways, in both codecs. A source that others could have made captures them; a destination
// stores each, and is asked to load it when the next one of the same key comes, which is reduced into it. A gigabyte of memory is enough for sluice.
func TestLargeDocuments(t *testing.T) {
	t.Parallel()
	bins := binaries(t)
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		t.Run(codec.String(), func(t *testing.T) {
			w := &world{bins: bins, folder: t.TempDir()}
			kept := t.TempDir()
			endpoint := func(kind string) launch.Endpoint {
				self, err := os.Executable()
				require.NoError(t, err)
				return launch.Endpoint{Local: launch.Local{Command: []string{self}, Protobuf: codec == frame.Proto, Env: map[string]string{standIn: kind}, Config: map[string]any{"folder": kept}}}
			}
			w.catalog = &launch.Catalog{
				Captures: map[string]*launch.Capture{"acme/large": {
					Endpoint: endpoint("capture"), Bindings: []launch.CaptureBinding{{Resource: map[string]any{"name": "large"}, Target: "acme/large"}},
				}},
				Collections: map[string]*launch.Collection{"acme/large": {Key: []string{"/id"}, Schema: map[string]any{
					"type": "object", "required": []string{"id"}, "reduce": map[string]any{"strategy": "merge"}, "properties": map[string]any{
						"id": map[string]any{"type": "integer"}, "text": map[string]any{"type": "string"},
						"n": map[string]any{"type": "integer", "reduce": map[string]any{"strategy": "sum"}},
					},
				}}},
				Materializations: map[string]*launch.Materialization{"acme/copy": {
					Endpoint: endpoint("materialize"), Bindings: []launch.MaterializationBinding{{Resource: map[string]any{"name": "large"}, Source: "acme/large"}},
				}},
			}
			require.NoError(t, w.catalog.Write(w.pipeline()))
			w.restart(t, launch.Options{Env: []string{largeLimit}})
			t.Cleanup(func() {
				w.sluice.Kill()
				if t.Failed() {
					t.Logf("the end of what sluice logged:\n%.10000s", w.lastLines(40))
				}
			})
			last := filepath.Join(kept, "committed-"+strconv.Itoa(largeDocuments))
			eventually(t, arrival, func() bool {
				_, err := os.Stat(last)
				return err == nil
			}, func() string { return "the last document is not there:\n" + w.lastLines(20) })
			peak := peakMemory(t, w.sluice.PID())
			t.Logf("sluice took %d MiB at most", peak>>20)
			require.NoError(t, w.sluice.Stop())

			var doc struct {
				ID, N int
				Text  string
			}
			text, err := os.ReadFile(filepath.Join(kept, "document"))
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(text, &doc))
			require.Equal(t, largeDocuments, doc.N, "each was reduced into the one before, which was loaded")
			require.Len(t, doc.Text, largeDocument)
			require.True(t, strings.HasSuffix(doc.Text, fmt.Sprintf(" %d", largeDocuments)), "the text is the last one's")
			loads, err := filepath.Glob(filepath.Join(kept, "loaded-*"))
			require.NoError(t, err)
			require.Len(t, loads, largeDocuments-1)
			require.LessOrEqual(t, peak, int64(largeMemory))
		})
	}
}

// peakMemory is the most of its memory that a process has had resident, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(text), "VmHWM:")
	require.True(t, found)
	kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	require.NoError(t, err)
	return kilobytes << 10
}

// large is what both stand-ins keep: the protocol's streams, and files in a folder of the test, by which they know of each other.
type large struct {
	in     *frame.Reader
	out    *frame.Writer
	folder string
}

// runStandIn is one connector, of which the environment says which.
func runStandIn() int {
	codec, err := frame.ParseCodec(os.Getenv("FLOW_RUNTIME_CODEC"))
	if err == nil {
		l := &large{in: frame.NewReader(os.Stdin, codec, 0), out: frame.NewWriter(os.Stdout, codec)}
		if os.Getenv(standIn) == "capture" {
			err = l.capture()
		} else {
			err = l.materialize()
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (l *large) configure(config []byte) error {
	var c struct{ Folder string }
	err := json.Unmarshal(config, &c)
	l.folder = c.Folder
	return err
}

func (l *large) file(name string, n int) string {
	return filepath.Join(l.folder, name+"-"+strconv.Itoa(n))
}

func (l *large) answer(m proto.Message) error { return errors.Join(l.out.Write(m), l.out.Flush()) }

func (l *large) capture() error {
	for {
		var r capturepb.Request
		if err := l.in.Read(&r); err != nil {
			return err
		}
		answer := &capturepb.Response{}
		switch {
		case r.Spec != nil:
			answer.Spec = &capturepb.Response_Spec{
				Protocol: flowpb.ProtocolVersion, ConfigSchemaJson: []byte("{}"), ResourceConfigSchemaJson: []byte("{}"), DocumentationUrl: "https://example.com", ResourcePathPointers: []string{"/name"},
			}
		case r.Validate != nil:
			answer.Validated = &capturepb.Response_Validated{Bindings: []*capturepb.Response_Validated_Binding{{ResourcePath: []string{"large"}}}}
		case r.Apply != nil:
			answer.Applied = &capturepb.Response_Applied{}
		case r.Open != nil:
			return l.send(r.Open)
		}
		if err := l.answer(answer); err != nil {
			return err
		}
	}
}

// send writes each document when the one before is in the destination.
func (l *large) send(open *capturepb.Request_Open) error {
	var state struct{ Sent int }
	if err := errors.Join(l.configure(open.Capture.ConfigJson), json.Unmarshal(open.StateJson, &state), l.answer(&capturepb.Response{Opened: &capturepb.Response_Opened{}})); err != nil {
		return err
	}
	for n := state.Sent + 1; n <= largeDocuments; n++ {
		for n > 1 {
			if _, err := os.Stat(l.file("committed", n-1)); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // it has nothing else to wait for than a file; the test has a deadline
		}
		end := fmt.Sprintf(" %d", n)
		doc := fmt.Sprintf(`{"id":1,"n":1,"text":"%s%s"}`, strings.Repeat("x", largeDocument-len(end)), end)
		if err := errors.Join(
			l.out.Write(&capturepb.Response{Captured: &capturepb.Response_Captured{DocJson: []byte(doc)}}),
			l.answer(&capturepb.Response{Checkpoint: &capturepb.Response_Checkpoint{State: &flowpb.ConnectorState{UpdatedJson: fmt.Appendf(nil, `{"sent":%d}`, n)}}}),
		); err != nil {
			return err
		}
	}
	for {
		var r capturepb.Request
		if err := l.in.Read(&r); err != nil {
			return err
		}
	}
}

// materialize keeps one document, with the runtime's checkpoint, in one file that is replaced by rename.
func (l *large) materialize() error {
	var kept, stored []byte
	var checkpoint flowpb.Checkpoint
	loads, stores := 0, 0
	wanted := false
	for {
		var r materializepb.Request
		if err := l.in.Read(&r); err != nil {
			return err
		}
		answer := &materializepb.Response{}
		switch {
		case r.Spec != nil:
			answer.Spec = &materializepb.Response_Spec{Protocol: flowpb.ProtocolVersion, ConfigSchemaJson: []byte("{}"), ResourceConfigSchemaJson: []byte("{}"), DocumentationUrl: "https://example.com"}
		case r.Validate != nil:
			constraints := map[string]*materializepb.Response_Validated_Constraint{}
			for _, p := range r.Validate.Bindings[0].Collection.Projections {
				c := &materializepb.Response_Validated_Constraint{Type: materializepb.Response_Validated_Constraint_FIELD_FORBIDDEN, Reason: "the document has it"}
				if p.IsPrimaryKey || p.Ptr == "" {
					c = &materializepb.Response_Validated_Constraint{Type: materializepb.Response_Validated_Constraint_LOCATION_REQUIRED, Reason: "it must be stored"}
				}
				constraints[p.Field] = c
			}
			answer.Validated = &materializepb.Response_Validated{Bindings: []*materializepb.Response_Validated_Binding{{ResourcePath: []string{"large"}, Constraints: constraints}}}
		case r.Apply != nil:
			answer.Applied = &materializepb.Response_Applied{}
		case r.Open != nil:
			if err := l.configure(r.Open.Materialization.ConfigJson); err != nil {
				return err
			}
			answer.Opened = &materializepb.Response_Opened{RuntimeCheckpoint: &checkpoint}
		case r.Acknowledge != nil:
			answer.Acknowledged = &materializepb.Response_Acknowledged{}
		case r.Load != nil:
			wanted = true
			continue
		case r.Flush != nil:
			if wanted && kept != nil {
				loads++
				if err := errors.Join(l.out.Write(&materializepb.Response{Loaded: &materializepb.Response_Loaded{DocJson: kept}}), os.WriteFile(l.file("loaded", loads), nil, 0o600)); err != nil {
					return err
				}
			}
			wanted = false
			answer.Flushed = &materializepb.Response_Flushed{}
		case r.Store != nil:
			if r.Store.Exists != (kept != nil) {
				return fmt.Errorf("exists is %v", r.Store.Exists)
			}
			stored = append(stored[:0], r.Store.DocJson...)
			continue
		case r.StartCommit != nil:
			proto.Reset(&checkpoint)
			proto.Merge(&checkpoint, r.StartCommit.RuntimeCheckpoint)
			if len(stored) > 0 {
				kept = append(kept[:0], stored...)
				stored = stored[:0]
				stores++
				if err := errors.Join(os.WriteFile(filepath.Join(l.folder, "document"), kept, 0o600), os.WriteFile(l.file("committed", stores), nil, 0o600)); err != nil {
					return err
				}
			}
			answer.StartedCommit = &materializepb.Response_StartedCommit{}
		}
		if err := l.answer(answer); err != nil {
			return err
		}
	}
}
