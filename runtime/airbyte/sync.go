package airbyte

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/airbyte"
	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/usererr"
)

const (
	// maxRecord is the largest record: messages may have 64 MiB, with what is around the document.
	maxRecord = 63 << 20
	// knownFor is how long it is trusted that a source has the streams that it had.
	knownFor = 24 * time.Hour
)

// sync is one run of read: a session.
type sync struct {
	out       *frame.Writer
	stored    stored
	source    string // what is run
	config    json.RawMessage
	resources []resource
	streams   []*stream // by binding
	byName    map[airbyte.Descriptor]*stream
	began     time.Time
	open      bool // something came after the last checkpoint
	records   int  // of all streams since the last global state
	line, buf []byte
}

// stream is one stream of a sync.
type stream struct {
	*offer
	index    uint32
	key      string // of its state
	backfill uint32
	full     bool // it is read from its beginning by every sync
	keyless  bool
	deletes  bool            // records tell of deleted rows
	times    map[string]bool // fields
	row      int             // records in this sync
	records  int             // since its last state
}

// newSync reads what a session is opened with.
func newSync(request *capturepb.Request_Open, out *frame.Writer, source string) (*sync, error) {
	s := &sync{out: out, source: source, config: request.Capture.ConfigJson, byName: map[airbyte.Descriptor]*stream{}, began: time.Now().UTC()}
	var err error
	if s.stored, err = parseStored(request.StateJson); err != nil {
		return nil, err
	}
	var texts []json.RawMessage
	for _, b := range request.Capture.Bindings {
		texts = append(texts, b.ResourceConfigJson)
	}
	if s.resources, err = parseResources(texts); err != nil {
		return nil, err
	}
	for i, b := range request.Capture.Bindings {
		st := &stream{index: uint32(i), key: b.StateKey, backfill: b.Backfill}
		st.keyless = slices.Contains(b.Collection.GetKey(), "/_meta/row")
		s.streams = append(s.streams, st)
		s.byName[s.resources[i].descriptor()] = st
	}
	return s, nil
}

// known tells whether what was learned of the source by the sync before still holds.
func (s *sync) known() (bool, error) {
	k := s.stored.Shared.Source
	if k == nil || s.began.Sub(k.Learned) > knownFor || len(k.Streams) != len(s.streams) {
		return false, nil
	}
	if sum, err := fingerprint(s.source, k.Salt, s.config, k.Secrets); err != nil || sum != k.Fingerprint {
		return false, err
	}
	for i, st := range s.streams {
		offers, err := parseCatalog([]byte(`{"catalog":{"streams":[` + k.Streams[i] + `]}}`))
		if err != nil || offers[0].Descriptor() != s.resources[i].descriptor() {
			return false, nil //nolint:nilerr // it is asked again
		}
		st.offer = offers[0]
	}
	return true, nil
}

// choose finds the streams of the bindings in a catalog.
func (s *sync) choose(offers []*offer, secrets []string) error {
	var problems []error
	known := &knowledge{Salt: newSalt(), Learned: s.began, Secrets: secrets}
	var err error
	if known.Fingerprint, err = fingerprint(s.source, known.Salt, s.config, secrets); err != nil {
		return err
	}
	for i, st := range s.streams {
		d := s.resources[i].descriptor()
		found := slices.IndexFunc(offers, func(o *offer) bool { return o.Descriptor() == d })
		if found < 0 {
			problems = append(problems, usererr.New(nil, "The source has no stream %s (any more). Remove its binding, or correct the name.", d))
			continue
		}
		st.offer = offers[found]
		known.Streams = append(known.Streams, string(st.raw))
	}
	s.stored.Shared.Source = known
	return usererr.Join("The capture cannot run as it is configured:", problems)
}

// configured is a stream of a configured catalog.
type configured struct {
	Stream              json.RawMessage `json:"stream"`
	SyncMode            string          `json:"sync_mode"`
	DestinationSyncMode string          `json:"destination_sync_mode"`
	CursorField         []string        `json:"cursor_field,omitempty"`
	PrimaryKey          [][]string      `json:"primary_key,omitempty"`
}

// begin makes the files of read: configuration, catalog and, unless it is the first sync, state.
func (s *sync) begin(config json.RawMessage, log *logrus.Entry) ([]file, error) {
	var streams []configured
	var problems []error
	for i, st := range s.streams {
		r := &s.resources[i]
		c := configured{Stream: st.raw, SyncMode: r.SyncMode, CursorField: r.CursorField, PrimaryKey: st.SourceDefinedPrimaryKey, DestinationSyncMode: "append"}
		if c.SyncMode == "" {
			c.SyncMode = st.mode()
		}
		if len(c.CursorField) == 0 {
			c.CursorField = st.DefaultCursorField
		}
		if !st.keyless {
			c.DestinationSyncMode = "append_dedup"
		}
		problems = append(problems, st.checkMode(c.SyncMode, c.CursorField))
		st.full = c.SyncMode == airbyte.FullRefresh
		st.deletes = jsonscan.Member(jsonscan.Member(st.JSONSchema, "properties"), deletedField) != nil
		st.times = timesOf(st.JSONSchema)
		streams = append(streams, c)
	}
	problems = slices.DeleteFunc(problems, func(err error) bool { return err == nil })
	if err := usererr.Join("The capture cannot run as it is configured:", problems); err != nil {
		return nil, err
	}
	catalog, err := json.Marshal(map[string]any{"streams": streams})
	if err != nil {
		return nil, fmt.Errorf("writing the catalog: %w", err)
	}
	files := []file{{"config", config}, {"catalog", catalog}}
	if state := s.stored.input(s.streams, log); state != nil {
		files = append(files, file{"state", state})
	}
	return files, nil
}

func (st *stream) checkMode(mode string, cursor []string) error {
	switch d := st.Descriptor(); {
	case !slices.Contains(st.SupportedSyncModes, mode) && (mode != airbyte.FullRefresh || len(st.SupportedSyncModes) > 0):
		return usererr.New(nil, "The stream %s cannot be read as %s. Set syncMode to one of %v.", d, mode, st.SupportedSyncModes)
	case mode == airbyte.Incremental && !st.SourceDefinedCursor && len(cursor) == 0:
		return usererr.New(nil, "The stream %s needs a cursorField to be read as incremental: a field that grows with every change.", d)
	}
	return nil
}

// take takes a message of read.
func (s *sync) take(kind string, line []byte) error {
	switch kind {
	case airbyte.TypeRecord:
		return s.record(jsonscan.Member(line, "record"))
	case airbyte.TypeState:
		var m airbyte.Message
		if err := json.Unmarshal(line, &m); err != nil || m.State == nil {
			return usererr.New(err, "The source wrote a state that cannot be read: %v.", err)
		}
		return s.state(m.State)
	}
	return nil // a message that we do not know is no record
}

func (s *sync) record(record []byte) error {
	name, _ := jsonscan.Text(jsonscan.Member(record, "stream"))
	namespace, _ := jsonscan.Text(jsonscan.Member(record, "namespace"))
	d := airbyte.Descriptor{Name: name, Namespace: namespace}
	st := s.byName[d]
	data := jsonscan.Member(record, "data")
	switch {
	case st == nil:
		return usererr.New(nil, "The source sent a record of the stream %s, which it was not asked for.", d)
	case jsonscan.Kind(data) != '{':
		return usererr.New(nil, "The source sent a record of the stream %s that is not an object.", d)
	case len(data) > maxRecord:
		return usererr.New(nil, "A record of the stream %s is %.1f MiB large; one may have %d MiB at most.", d, float64(len(data))/(1<<20), maxRecord>>20)
	}
	st.row++
	st.records++
	s.records++
	s.open = true
	doc, err := s.document(st, data)
	if err != nil {
		return err
	}
	return s.out.Append(func(dst []byte, c frame.Codec) ([]byte, error) {
		return capturepb.AppendCapturedDoc(dst, c, st.index, doc), nil
	})
}

// document is a record's data on one line, with _meta where the collection needs it. It is valid until the next call.
func (s *sync) document(st *stream, data []byte) ([]byte, error) {
	s.line = jsonscan.AppendLine(s.line[:0], jsonscan.Trim(data))
	s.buf = appendZoned(s.buf[:0], s.line, st.times)
	if !st.keyless && !st.deletes {
		return s.buf, nil
	}
	if jsonscan.Member(s.buf, "_meta") != nil {
		return nil, usererr.New(nil, "Records of the stream %s have a field _meta, which is needed for what tells them apart. Leave the field out at the source, or do not capture the stream.", st.Descriptor())
	}
	dst := jsonscan.Trim(s.buf[:len(s.buf)-1])
	if len(dst) > 1 {
		dst = append(dst, ',')
	}
	if st.keyless {
		dst = append(dst, `"_meta":{"sync":"`...)
		dst = s.began.AppendFormat(dst, "2006-01-02T15:04:05.000000Z")
		dst = strconv.AppendInt(append(dst, `","row":`...), int64(st.row), 10)
	} else {
		op := `"_meta":{"op":"u"`
		if deleted := jsonscan.Member(data, deletedField); deleted != nil && !jsonscan.IsNull(deleted) {
			op = `"_meta":{"op":"d"`
		}
		dst = append(dst, op...)
	}
	s.buf = append(dst, "}}"...)
	return s.buf, nil
}

// state makes a checkpoint of a state: it covers the records before it.
func (s *sync) state(state *airbyte.State) error {
	bindings := map[string]any{}
	patch := map[string]any{"bindingStateV1": bindings}
	switch {
	case state.Global != nil:
		if err := counted("all streams", &s.records, state.Stats); err != nil {
			return err
		}
		for _, st := range s.streams {
			st.records = 0
			bindings[st.key] = nil
		}
		for _, one := range state.Global.Streams {
			if st := s.byName[one.Descriptor]; st != nil {
				bindings[st.key] = bindingState{string(orNull(one.State))}
			}
		}
		// Streams without a state of their own are in the shared one, from which nobody can take them.
		whole := map[string]uint32{}
		for _, st := range s.streams {
			if bindings[st.key] == nil && !st.full {
				whole[st.Descriptor().String()] = st.backfill
			}
		}
		var counters any
		if len(whole) > 0 {
			text, err := json.Marshal(whole)
			if err != nil {
				return err
			}
			counters = string(text)
		}
		patch["shared"] = map[string]any{"global": string(orNull(state.Global.Shared)), "whole": counters, "legacy": nil}
	case state.Stream != nil:
		st := s.byName[state.Stream.Descriptor]
		if st == nil {
			return nil // of a stream that is not captured
		}
		if err := counted("the stream "+st.Descriptor().String(), &st.records, state.Stats); err != nil {
			return err
		}
		bindings[st.key] = nil
		if present(state.Stream.State) {
			bindings[st.key] = bindingState{string(state.Stream.State)}
		}
		patch["shared"] = map[string]any{"global": nil, "whole": nil, "legacy": nil}
	case present(state.Data):
		backfills := map[string]uint32{}
		for _, st := range s.streams {
			backfills[st.Descriptor().String()] = st.backfill
		}
		text, err := json.Marshal(backfills)
		if err != nil {
			return err
		}
		patch["shared"] = map[string]any{"global": nil, "whole": nil, "legacy": map[string]any{"state": string(state.Data), "backfills": string(text)}}
	default:
		return usererr.New(nil, "The source wrote a state that is none of a stream, of all streams, or of an old source.")
	}
	return s.checkpoint(patch)
}

// counted compares how many records came since the last state with what the source says of it.
func counted(of string, seen *int, stats *airbyte.Stats) error {
	n := *seen
	*seen = 0
	if stats == nil || int(stats.RecordCount) == n {
		return nil
	}
	return usererr.New(nil, "The source says that it wrote %d records of %s before a state, and %d arrived: what came since the last state is dropped, and read again.", int(stats.RecordCount), of, n)
}

func (s *sync) checkpoint(patch map[string]any) error {
	text, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("writing a checkpoint: %w", err)
	}
	s.open = false
	return s.out.Write(&capturepb.Response{Checkpoint: &capturepb.Response_Checkpoint{
		State: &flowpb.ConnectorState{UpdatedJson: text, MergePatch: true},
	}})
}

// forget drops what is known of the source, until the sync has ended well: a stream that has changed may be why it does not.
func (s *sync) forget() error {
	if !s.stored.hadSource {
		return nil
	}
	return s.checkpoint(map[string]any{"shared": map[string]any{"source": nil}})
}

// end commits what came after the last state, and with it what is known. Streams that are read as a whole begin anew with the next sync.
func (s *sync) end() error {
	bindings := map[string]any{}
	for _, st := range s.streams {
		if st.full {
			bindings[st.key] = nil
		}
	}
	err := s.checkpoint(map[string]any{"bindingStateV1": bindings, "shared": map[string]any{"source": s.stored.Shared.Source}})
	return errors.Join(err, s.out.Flush())
}
