package sinktest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// Change is an entry of a test's log: a document of a binding. Documents of one key are merged, member by member; one
// whose _meta.op is d deletes its key.
type Change struct {
	Binding int
	Doc     string
}

// Runtime is a runtime as small as it can be: a log of changes, transactions of a few of them, and what must survive a
// crash. It loads every key, merges, and stores, as the protocol says.
type Runtime struct {
	t     testing.TB
	c     Case
	Codec frame.Codec
	Task  Task
	Log   []Change
	// Batch is how many changes make a transaction.
	Batch int
	// Range is the part of the key space that sessions ask for; nil is all of it.
	Range *flowpb.RangeSpec

	// What a real runtime keeps in its own log: the specification that was applied last, the state of the connector and
	// the position, committed together.
	Applied  *flowpb.MaterializationSpec
	State    json.RawMessage
	Position int
	version  int
	// authoritative says that the destination keeps the position, learned when it was opened.
	authoritative bool
	columns       []map[string]string // by binding: field to column

	// OnLoaded, if set, is told of every loaded document; lie changes what the runtime believes about a key's existence.
	OnLoaded func(doc []byte)
	lie      func(exists bool) bool

	// Step is called for every message that crosses the pipe. It may kill the connector.
	Step func(p *Peer, name string)
}

// NewRuntime makes a runtime for a task.
func NewRuntime(t testing.TB, c Case, codec frame.Codec, task Task) *Runtime {
	return &Runtime{t: t, c: c, Codec: codec, Task: task, Batch: 10, State: json.RawMessage("{}"), Step: func(*Peer, string) {}}
}

// Apply validates and applies the task, each in a process of its own.
func (r *Runtime) Apply() (summary string, err error) {
	p := Start(r.t, r.c, r.Codec)
	defer p.Kill()
	res, err := p.Call(r.Task.ValidateRequest(r.Applied))
	if err != nil {
		return "", err
	}
	validated := res.GetValidated()
	spec, err := r.Task.Build(validated)
	if err != nil {
		return "", err
	}
	for {
		r.version++
		res, err = p.Call(&materializepb.Request{Apply: &materializepb.Request_Apply{
			Materialization: spec, Version: strconv.Itoa(r.version), LastMaterialization: r.Applied, StateJson: r.State,
		}})
		if err != nil {
			return "", err
		}
		patch := res.GetApplied().GetState()
		if patch == nil {
			break
		}
		if err := r.reduce(patch); err != nil {
			return "", err
		}
	}
	r.Applied = spec
	r.columns = r.columns[:0]
	for _, b := range validated.GetBindings() {
		r.columns = append(r.columns, columnsOf(b))
	}
	return res.GetApplied().GetActionDescription(), nil
}

// MustApply is Apply for tasks that must be accepted.
func (r *Runtime) MustApply() string {
	r.t.Helper()
	summary, err := r.Apply()
	require.NoError(r.t, err)
	return summary
}

func (r *Runtime) reduce(patch *flowpb.ConnectorState) error {
	if patch == nil {
		return nil
	}
	state, err := flowpb.ReduceState(r.State, patch)
	r.State = state
	return err
}

// Run runs one session until the log is stored, or the connector ends.
func (r *Runtime) Run() error {
	p := Start(r.t, r.c, r.Codec)
	s := &session{Runtime: r, p: p}
	p.step = func(name string) { r.Step(p, name) }
	err := s.run()
	if err != nil {
		reason := p.reason(err)
		p.Kill()
		return reason
	}
	return p.Wait()
}

// session is one Open with its transactions.
type session struct {
	*Runtime
	p      *Peer
	loaded map[string]map[string]json.RawMessage // by packed key, of the present transaction
}

// Open opens the task in a process and settles the position.
func (r *Runtime) Open(p *Peer) error {
	res, err := p.Call(&materializepb.Request{Open: &materializepb.Request_Open{
		Materialization: r.Applied, Version: strconv.Itoa(r.version), Range: r.rangeSpec(), StateJson: r.State,
	}})
	if err != nil {
		return err
	}
	if res.GetOpened() == nil {
		return fmt.Errorf("the connector answered Open with %v", res)
	}
	cp := res.GetOpened().GetRuntimeCheckpoint()
	if r.authoritative = cp != nil; cp != nil {
		r.Position = int(cp.GetSources()["log"].GetReadThrough())
	}
	return nil
}

func (r *Runtime) rangeSpec() *flowpb.RangeSpec {
	if r.Range != nil {
		return r.Range
	}
	return flowpb.FullRange()
}

func (s *session) run() error {
	s.p.step("start")
	if err := s.Open(s.p); err != nil {
		return err
	}
	s.p.step("Opened")
	return s.transactions()
}

func (s *session) transactions() error {
	for {
		if err := s.acknowledge(); err != nil {
			return err
		}
		if s.Position >= len(s.Log) {
			s.p.CloseRequests()
			return nil
		}
		if err := s.transaction(); err != nil {
			return err
		}
	}
}

func (s *session) send(name string, m *materializepb.Request) error {
	var err error
	if s.Batch > 100 && strings.HasSuffix(name, "more") {
		err = s.p.w.Write(m) // goes out with the next message that is waited for
	} else {
		err = s.p.Send(m)
	}
	s.p.step(name)
	return err
}

func (s *session) acknowledge() error {
	if err := s.send("Acknowledge", &materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}); err != nil {
		return err
	}
	m, err := s.p.Next()
	if err != nil {
		return err
	}
	if m.GetAcknowledged() == nil {
		return fmt.Errorf("expected Acknowledged, got %v", m)
	}
	s.p.step("Acknowledged")
	return s.reduce(m.GetAcknowledged().GetState())
}

func (s *session) transaction() error {
	end := min(len(s.Log), s.Position+s.Batch)
	changes := s.Log[s.Position:end]
	if err := s.load(changes); err != nil {
		return err
	}
	if err := s.store(changes); err != nil {
		return err
	}
	return s.commit(end)
}

// commit ends the transaction that stores the log up to end.
func (s *session) commit(end int) error {
	err := s.send("StartCommit", &materializepb.Request{StartCommit: &materializepb.Request_StartCommit{
		RuntimeCheckpoint: CheckpointAt(end),
	}})
	if err != nil {
		return err
	}
	m, err := s.p.Next()
	if err != nil {
		return err
	}
	if m.GetStartedCommit() == nil {
		return fmt.Errorf("expected StartedCommit, got %v", m)
	}
	// The runtime's own commit: position and state, at once.
	if err := s.reduce(m.GetStartedCommit().GetState()); err != nil {
		return err
	}
	s.Position = end
	s.p.step("StartedCommit")
	return nil
}

// CheckpointAt is a runtime checkpoint that says how much of the log is stored.
func CheckpointAt(position int) *flowpb.Checkpoint {
	return &flowpb.Checkpoint{Sources: map[string]*flowpb.Checkpoint_Source{"log": {ReadThrough: int64(position)}}}
}

func (s *session) load(changes []Change) error {
	s.loaded = map[string]map[string]json.RawMessage{}
	asked := map[string]bool{}
	for i, ch := range changes {
		b := s.Applied.GetBindings()[ch.Binding]
		if b.GetDeltaUpdates() {
			continue
		}
		text, packed, err := extract(b, b.GetFieldSelection().GetKeys(), []byte(ch.Doc))
		if err != nil {
			return err
		}
		if asked[rowID(ch.Binding, packed)] {
			continue
		}
		asked[rowID(ch.Binding, packed)] = true
		load := &materializepb.Request_Load{Binding: uint32(ch.Binding)}
		if s.Codec == frame.JSON {
			load.KeyJson = text
		} else {
			load.KeyPacked = packed
		}
		name := "Load"
		if i > 0 {
			name = "Load more"
		}
		if err := s.send(name, &materializepb.Request{Load: load}); err != nil {
			return err
		}
	}
	if err := s.send("Flush", &materializepb.Request{Flush: &materializepb.Request_Flush{}}); err != nil {
		return err
	}
	for {
		m, err := s.p.Next()
		if err != nil {
			return err
		}
		switch {
		case m.GetFlushed() != nil:
			s.p.step("Flushed")
			return nil
		case m.GetLoaded() == nil:
			return fmt.Errorf("expected Loaded or Flushed, got %v", m)
		}
		b := s.Applied.GetBindings()[m.GetLoaded().GetBinding()]
		_, packed, err := extract(b, b.GetFieldSelection().GetKeys(), m.GetLoaded().GetDocJson())
		if err != nil {
			return err
		}
		id := rowID(int(m.GetLoaded().GetBinding()), packed)
		if !asked[id] {
			return fmt.Errorf("the loaded document %s was not asked for", m.GetLoaded().GetDocJson())
		}
		if s.OnLoaded != nil {
			s.OnLoaded(m.GetLoaded().GetDocJson())
		}
		var doc map[string]json.RawMessage
		if err := json.Unmarshal(m.GetLoaded().GetDocJson(), &doc); err != nil {
			return fmt.Errorf("reading a loaded document: %w", err)
		}
		s.loaded[id] = doc
	}
}

// row is a key's outcome of one transaction.
type row struct {
	binding int
	id      string
	doc     map[string]json.RawMessage
	exists  bool
}

func (s *session) store(changes []Change) error {
	for i, r := range s.combine(changes) {
		m, err := s.request(r)
		if err != nil {
			return err
		}
		name := "Store"
		if i > 0 {
			name = "Store more"
		}
		if err := s.send(name, &materializepb.Request{Store: m}); err != nil {
			return err
		}
	}
	return nil
}

// combine reduces the changes of a transaction and what was loaded to one row a key, in the order of bindings and keys;
// for delta updates it is every change, in the order of the log.
func (s *session) combine(changes []Change) []row {
	rows := map[string]*row{}
	for i, ch := range changes {
		b := s.Applied.GetBindings()[ch.Binding]
		_, packed, err := extract(b, b.GetFieldSelection().GetKeys(), []byte(ch.Doc))
		require.NoError(s.t, err)
		id := rowID(ch.Binding, packed)
		if b.GetDeltaUpdates() {
			id = rowID(ch.Binding, fmt.Appendf(nil, "%08x", i))
		}
		r := rows[id]
		if r == nil {
			stored, exists := s.loaded[id]
			r = &row{binding: ch.Binding, id: id, doc: maps.Clone(stored), exists: exists}
			rows[id] = r
		}
		var doc map[string]json.RawMessage
		require.NoError(s.t, json.Unmarshal([]byte(ch.Doc), &doc))
		r.doc = merge(r.doc, doc)
	}
	out := make([]row, 0, len(rows))
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		out = append(out, *rows[id])
	}
	return out
}

func merge(old, latest map[string]json.RawMessage) map[string]json.RawMessage {
	if old == nil {
		return latest
	}
	maps.Copy(old, latest)
	return old
}

func (s *session) request(r row) (*materializepb.Request_Store, error) {
	b := s.Applied.GetBindings()[r.binding]
	doc, err := json.Marshal(r.doc)
	if err != nil {
		return nil, err
	}
	m := &materializepb.Request_Store{Binding: uint32(r.binding), Exists: r.exists, Delete: deleted(r.doc)}
	if s.lie != nil {
		m.Exists = s.lie(m.Exists)
	}
	keyText, keyPacked, err := extract(b, b.GetFieldSelection().GetKeys(), doc)
	if err != nil {
		return nil, err
	}
	valueText, valuePacked, err := extract(b, b.GetFieldSelection().GetValues(), doc)
	if err != nil {
		return nil, err
	}
	if s.Codec == frame.JSON {
		m.KeyJson, m.ValuesJson = keyText, valueText
	} else {
		m.KeyPacked, m.ValuesPacked = keyPacked, valuePacked
	}
	if b.GetFieldSelection().GetDocument() != "" {
		m.DocJson = doc
	}
	return m, nil
}

func deleted(doc map[string]json.RawMessage) bool {
	var meta struct {
		Op string `json:"op"`
	}
	_ = json.Unmarshal(doc["_meta"], &meta)
	return meta.Op == "d"
}

func rowID(binding int, packed []byte) string { return fmt.Sprintf("%08x%s", binding, packed) }

// extract returns the values of fields in a document, as a JSON array and packed.
func extract(b *flowpb.MaterializationSpec_Binding, fields []string, doc []byte) (text, packed []byte, err error) {
	text = []byte{'['}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(doc, &members); err != nil {
		return nil, nil, fmt.Errorf("reading a document: %w", err)
	}
	for i, name := range fields {
		p := projection(b, name)
		value, err := member(members, p.GetPtr())
		if err != nil {
			return nil, nil, fmt.Errorf("extracting field %q: %w", name, err)
		}
		if value == nil {
			value = json.RawMessage("null")
			if d := p.GetInference().GetDefaultJson(); len(d) > 0 {
				value = d
			}
		}
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, value...)
		if packed, err = tuple.AppendJSON(packed, value); err != nil {
			return nil, nil, err
		}
	}
	return append(text, ']'), packed, nil
}

func projection(b *flowpb.MaterializationSpec_Binding, field string) *flowpb.Projection {
	for _, p := range b.GetCollection().GetProjections() {
		if p.GetField() == field {
			return p
		}
	}
	return nil
}

// member is locate for a document that has been taken apart.
func member(members map[string]json.RawMessage, pointer string) (json.RawMessage, error) {
	first, rest, more := strings.Cut(pointer[1:], "/")
	value, ok := members[strings.ReplaceAll(strings.ReplaceAll(first, "~1", "/"), "~0", "~")]
	if !ok || !more {
		return value, nil
	}
	return locate(value, "/"+rest)
}

// locate returns the value at a JSON pointer, nil if there is none.
func locate(doc json.RawMessage, pointer string) (json.RawMessage, error) {
	if pointer == "" {
		return doc, nil
	}
	for token := range strings.SplitSeq(pointer[1:], "/") {
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		trimmed := bytes.TrimSpace(doc)
		if len(trimmed) > 0 && trimmed[0] == '[' {
			var items []json.RawMessage
			if err := json.Unmarshal(doc, &items); err != nil {
				return nil, err
			}
			if i, err := strconv.Atoi(token); err == nil && i < len(items) {
				doc = items[i]
				continue
			}
			return nil, nil
		}
		if len(trimmed) == 0 || trimmed[0] != '{' {
			return nil, nil
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(doc, &members); err != nil {
			return nil, err
		}
		value, ok := members[token]
		if !ok {
			return nil, nil
		}
		doc = value
	}
	return doc, nil
}

// ErrKilled reports whether a session ended because the test killed the connector.
func ErrKilled(err error) bool { return errors.Is(err, errEnded) }
