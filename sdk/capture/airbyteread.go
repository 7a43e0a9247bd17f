package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/sdk/airbyte"
)

// stateEvery is how often a sync tells a state while records come: at the end of a transaction, so a little later where one
// is large.
const stateEvery = 5 * time.Second

// lineWriter is an output of whole lines that the log and the session share.
type lineWriter struct {
	mu  sync.Mutex
	out io.Writer
}

// Write writes whole lines.
func (w *lineWriter) Write(lines []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(lines)
}

func (w *lineWriter) message(m *airbyte.Message) error {
	line, err := airbyte.AppendLine(nil, m)
	if err == nil {
		_, err = w.Write(line)
	}
	if err != nil {
		return fmt.Errorf("writing a message: %w", err)
	}
	return nil
}

// airbyteSync is one run of read.
type airbyteSync struct {
	out     *lineWriter
	task    string
	streams []airbyteStream
	cursor  atomic.Int64 // the number of the last record
	now     func() time.Time
	alone   bool // every stream has its state, for platforms that know no global one

	state  json.RawMessage // the capture's, as of the last transaction
	loose  int             // records since the last STATE
	told   time.Time       // when that was
	behind bool            // the state has changed since
}

// airbyteStream is one stream of a sync.
type airbyteStream struct {
	descriptor airbyte.Descriptor
	key        string // of the state
	recorder   *airbyte.Recorder
	running    bool
	estimated  bool
}

// read is a sync: it captures until it has caught up with where the endpoint was when it began. What was captured is not
// acknowledged here: only the state that the next sync is given is known to be stored.
func (a *airbyteCLI) read(ctx context.Context, _ *cobra.Command) error {
	config, name, err := a.config()
	if err != nil {
		return err
	}
	text, err := a.p.ReadFile(a.catalogFile)
	if err != nil {
		return err
	}
	catalog, err := airbyte.ParseConfigured(text)
	if err != nil {
		return err
	}
	keys, err := parseRange(a.keys)
	if err != nil {
		return err
	}
	stored, err := a.stored()
	if err != nil {
		return err
	}
	shared := airbyte.Shared{Capture: name}
	if stored != nil {
		if err := json.Unmarshal(stored.Shared, &shared); err != nil || shared.Capture == "" {
			return fmt.Errorf("reading the shared state: %w", errors.Join(errNotOurs, err))
		}
	}
	found, err := a.c.discover(ctx, a.log(), &capturepb.Request_Discover{ConfigJson: config, Name: shared.Capture})
	if err != nil {
		return err
	}
	if found, err = chosen(found, catalog); err != nil {
		return err
	}
	task, err := a.task(ctx, shared.Capture, config, found)
	if err != nil {
		return err
	}
	sync := newAirbyteSync(a.out, task, a.c.airbyteFields(), shared, time.Now)
	sync.alone = a.stateType == stateOfStreams
	if err := sync.restore(stored, catalog, shared.State); err != nil {
		return err
	}
	return a.sync(ctx, sync, task, keys)
}

var errNotOurs = errors.New("it is not that of this source")

// stored is the state that the last sync ended with.
func (a *airbyteCLI) stored() (*airbyte.GlobalState, error) {
	if a.stateFile == "" {
		return nil, nil //nolint:nilnil // no state is no error
	}
	text, err := a.p.ReadFile(a.stateFile)
	if err != nil {
		return nil, err
	}
	return airbyte.Parse(text)
}

func newAirbyteSync(out *lineWriter, task *flowpb.CaptureSpec, fields airbyte.Fields, shared airbyte.Shared, now func() time.Time) *airbyteSync {
	s := &airbyteSync{out: out, task: task.Name, now: now, told: now()}
	s.cursor.Store(max(shared.Cursor, now().UnixMicro()))
	for _, b := range task.Bindings {
		d := airbyte.NewDescriptor(b.ResourcePath)
		s.streams = append(s.streams, airbyteStream{descriptor: d, key: b.StateKey, recorder: airbyte.NewRecorder(d, fields)})
	}
	return s
}

// restore makes the capture's state of Airbyte's. A stream that is to be read anew has none.
func (s *airbyteSync) restore(stored *airbyte.GlobalState, catalog *airbyte.ConfiguredCatalog, shared json.RawMessage) error {
	top := map[string]any{}
	bindings := map[string]json.RawMessage{}
	if stored != nil {
		for i, stream := range s.streams {
			for _, state := range stored.Streams {
				present := len(state.State) > 0 && string(state.State) != "null"
				if state.Descriptor == stream.descriptor && present && catalog.Streams[i].SyncMode == airbyte.Incremental {
					bindings[stream.key] = state.State
				}
			}
		}
	}
	top[bindingsMember] = bindings
	if len(shared) > 0 {
		top[sharedMember] = shared
	}
	var err error
	s.state, err = json.Marshal(top)
	return err
}

// sync runs the session.
func (a *airbyteCLI) sync(ctx context.Context, s *airbyteSync, task *flowpb.CaptureSpec, keys *flowpb.RangeSpec) error {
	if err := s.statuses("STARTED"); err != nil {
		return err
	}
	if _, err := a.c.apply(ctx, a.log(), &capturepb.Request_Apply{Capture: task, Version: "airbyte", StateJson: s.state}); err != nil {
		return s.incomplete(err)
	}
	session, err := a.c.open(ctx, a.log(), &capturepb.Request_Open{
		Capture: task, Version: "airbyte", Range: keys, StateJson: s.state,
	}, opening{catchUp: true, whole: true})
	if err != nil {
		return s.incomplete(err)
	}
	defer session.close(a.log())
	session.outlet.deaf.Store(true) // nothing is acknowledged in this session
	err = newPump(session, form{lines: true, record: s.record}).run(ctx, s)
	if errors.Is(err, errUnfinished) {
		err = nil // the records behind the last state are read again
	}
	if err == nil {
		err = s.tell()
	}
	if err != nil || ctx.Err() != nil {
		return s.incomplete(err)
	}
	return s.statuses("COMPLETE")
}

// incomplete says that the streams are not read to their end, and returns why.
func (s *airbyteSync) incomplete(err error) error {
	if serr := s.statuses("INCOMPLETE"); serr != nil {
		return errors.Join(err, serr)
	}
	return err
}

func (s *airbyteSync) statuses(status string) error {
	for _, stream := range s.streams {
		if err := s.out.message(airbyte.NewStatus(stream.descriptor, status)); err != nil {
			return err
		}
	}
	return nil
}

// record appends one document as a RECORD message. It is called by the goroutine of the binding.
func (s *airbyteSync) record(dst []byte, h *handle, enc func([]byte) ([]byte, error)) ([]byte, error) {
	stream := &s.streams[h.index]
	start := len(dst)
	dst, err := enc(dst)
	if err != nil {
		return dst[:start], err
	}
	end := len(dst)
	if !stream.running {
		stream.running = true
		if dst, err = airbyte.AppendLine(dst, airbyte.NewStatus(stream.descriptor, "RUNNING")); err != nil {
			return dst[:start], err
		}
	}
	dst = stream.recorder.Append(dst, dst[start:end], s.now(), s.cursor.Add(1))
	// What was made of the document takes its place.
	n := copy(dst[start:], dst[end:])
	return dst[:start+n], nil
}

// write implements output.
func (s *airbyteSync) write(_ context.Context, buf []byte, c *commit) error {
	if _, err := s.out.Write(buf); err != nil {
		return fmt.Errorf("writing records: %w", err)
	}
	if c == nil {
		return nil
	}
	state, err := flowpb.MergePatch(s.state, c.patch)
	if err != nil {
		return fmt.Errorf("keeping the position: %w", err)
	}
	s.state, s.behind = state, true
	s.loose += c.docs
	if s.now().Sub(s.told) < stateEvery {
		return nil
	}
	return s.tell()
}

// tell writes the state, if it has changed.
func (s *airbyteSync) tell() error {
	if !s.behind {
		return nil
	}
	var doc struct {
		Bindings map[string]json.RawMessage `json:"bindingStateV1"`
		Shared   json.RawMessage            `json:"shared"`
	}
	if err := json.Unmarshal(s.state, &doc); err != nil {
		return fmt.Errorf("reading the position: %w", err)
	}
	shared, err := json.Marshal(airbyte.Shared{Capture: s.task, Cursor: s.cursor.Load(), State: doc.Shared})
	if err != nil {
		return fmt.Errorf("writing the position: %w", err)
	}
	global := &airbyte.GlobalState{Shared: shared, Streams: []airbyte.StreamState{}}
	stats := &airbyte.Stats{RecordCount: float64(s.loose)}
	for i := range s.streams {
		stream := &s.streams[i]
		state, ok := doc.Bindings[stream.key]
		if !ok {
			continue
		}
		global.Streams = append(global.Streams, airbyte.StreamState{Descriptor: stream.descriptor, State: state})
		if err := s.estimate(stream, state); err != nil {
			return err
		}
	}
	s.loose, s.told, s.behind = 0, s.now(), false
	if s.alone {
		return s.tellAlone(global, stats)
	}
	return s.out.message(&airbyte.Message{Type: "STATE", State: &airbyte.State{Type: airbyte.GlobalType, Global: global, Stats: stats}})
}

// tellAlone writes the state as one of each stream. The records are counted with the first of them.
func (s *airbyteSync) tellAlone(global *airbyte.GlobalState, stats *airbyte.Stats) error {
	var alone airbyte.Alone
	if err := json.Unmarshal(global.Shared, &alone.Shared); err != nil {
		return fmt.Errorf("writing the position: %w", err)
	}
	for _, stream := range global.Streams {
		alone.Stream = stream.State
		text, err := json.Marshal(alone)
		if err != nil {
			return fmt.Errorf("writing the position: %w", err)
		}
		err = s.out.message(&airbyte.Message{Type: "STATE", State: &airbyte.State{
			Type: airbyte.StreamType, Stream: &airbyte.StreamState{Descriptor: stream.Descriptor, State: text}, Stats: stats,
		}})
		if err != nil {
			return err
		}
		stats = &airbyte.Stats{}
	}
	return nil
}

// estimate tells once how many rows a stream has, if its state says that: in a member called estimate.
func (s *airbyteSync) estimate(stream *airbyteStream, state json.RawMessage) error {
	var known struct {
		Estimate int64 `json:"estimate"`
	}
	if stream.estimated || json.Unmarshal(state, &known) != nil || known.Estimate <= 0 {
		return nil //nolint:nilerr // most states say no such thing
	}
	stream.estimated = true
	return s.out.message(airbyte.NewEstimate(stream.descriptor, known.Estimate))
}
