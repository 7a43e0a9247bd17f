package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// errKilled ends a transaction in which the connector was killed on purpose.
var errKilled = errors.New("killed")

// row is what is stored of one key.
type row struct {
	ID     int    `json:"id"`
	Region string `json:"region"`
	Note   string `json:"note"`
	Size   int    `json:"size"`
	Meta   struct {
		Op string `json:"op"`
	} `json:"_meta"`
}

// deleted says that the row is the deletion of its key.
func (r row) deleted() bool { return r.Meta.Op == "d" }

// content is what is committed.
type content struct {
	rows map[string]row // the last of each key
	all  []row          // every one that was stored, in order
}

// task is one materialization with one table, and what a runtime keeps of it.
type task struct {
	content
	k        *sink
	name     string
	table    string
	spec     *flowpb.MaterializationSpec
	state    []byte
	position int64 // transactions that are committed
	// inFlight is what the transaction that was killed would have left, if the destination committed it.
	inFlight *content
	next     int  // the next row's id
	lies     bool // Store says of each row the contrary of what is so
}

func (t *task) delta() bool { return t.spec.Bindings[0].DeltaUpdates }

// session is an open session of a task.
type session struct {
	*host.MaterializeSession
	watch  *watch
	cancel func()
	mu     sync.Mutex
	loaded [][]byte // documents of this transaction
	stall  func()   // if not nil, what is done once before the next document is taken
}

// open opens the task at what is committed: where the destination keeps the position, it decides whether the transaction that was
// killed counts.
func (t *task) open(ctx context.Context, i int) (*session, error) {
	s := &session{watch: t.k.s.watch}
	var err error
	s.MaterializeSession, err = t.k.host(i, t.name).Open(ctx, &materializepb.Request_Open{Materialization: t.spec, StateJson: t.state}, func(_ uint32, doc []byte) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.stall != nil {
			s.stall()
			s.stall = nil
		}
		s.loaded = append(s.loaded, slices.Clone(doc))
		return nil
	})
	if err != nil {
		return nil, err
	}
	unwatch := context.AfterFunc(ctx, s.Kill)
	timer := time.AfterFunc(2*t.k.s.opts.Connector.Answer, s.Kill) // a session that hangs
	s.cancel = func() { unwatch(); timer.Stop() }
	if cp := s.Opened().RuntimeCheckpoint; cp != nil {
		at := cp.GetSources()["conformance"].GetReadThrough()
		switch {
		case at == t.position:
		case at == t.position+1 && t.inFlight != nil:
			t.content, t.position = *t.inFlight, at
		default:
			return nil, s.fail(fmt.Errorf("the destination has transaction %d, where %d is committed", at, t.position))
		}
	}
	t.inFlight = nil
	return s, nil
}

// fail ends a session that failed, and prefers why the connector ended.
func (s *session) fail(err error) error {
	err = s.Explain(err)
	s.cancel()
	_ = s.Close() // the error is known
	return err
}

// finish ends the session in order.
func (s *session) finish(ctx context.Context) error {
	defer s.cancel()
	s.watch.sample(s.Process())
	err := s.Acknowledge()
	if err == nil {
		_, err = s.Await(ctx, host.Acknowledged)
	}
	if err == nil {
		err = s.CloseInput()
	}
	if err != nil {
		return s.fail(err)
	}
	if err := s.Wait(ctx, time.Minute); err != nil && !errors.Is(err, io.EOF) {
		return s.fail(err)
	}
	return nil
}

// transaction stores n rows that were or were not there, and one that was stored last; see write.
func (t *task) transaction(ctx context.Context, s *session, killAt string, n int) error {
	var changed []row
	for id := max(0, t.next-1); id < t.next+n; id++ {
		changed = append(changed, t.row(id, "c"))
	}
	position := t.position
	err := t.write(ctx, s, killAt, changed...)
	if t.position > position {
		t.next += n
	}
	return err
}

// row is a row of the transaction that is next.
func (t *task) row(id int, op string) row {
	r := row{ID: id, Region: "north", Note: "transaction " + strconv.FormatInt(t.position+1, 10), Size: id}
	r.Meta.Op = op
	return r
}

// write stores rows in one transaction. The connector is killed at the step of that name, if there is one: then the error is errKilled.
func (t *task) write(ctx context.Context, s *session, killAt string, changed ...row) error {
	step := func(name string) error {
		if name != killAt {
			return nil
		}
		s.Kill()
		return errKilled
	}
	next := content{rows: maps.Clone(t.rows), all: slices.Concat(t.all, changed)}
	if next.rows == nil {
		next.rows = map[string]row{}
	}
	if err := step("Opened"); err != nil {
		return err
	}
	if err := s.Acknowledge(); err != nil {
		return err
	}
	if err := step("Acknowledge"); err != nil {
		return err
	}
	update, err := s.Await(ctx, host.Acknowledged)
	if err != nil {
		return err
	}
	t.keep(update)
	if err := step("Acknowledged"); err != nil {
		return err
	}
	exists, err := t.loadAll(ctx, s, changed, step)
	if err != nil {
		return err
	}
	for _, r := range changed {
		key, m, err := t.store(s.Codec(), r)
		if err != nil {
			return err
		}
		m.Exists, m.Delete = exists[key] != t.lies, r.deleted()
		if err := s.Store(m); err != nil {
			return err
		}
		next.rows[key] = r
	}
	if err := errors.Join(s.Push(), step("Store")); err != nil {
		return err
	}
	t.inFlight = &next
	if killAt == "StartCommit" {
		timer := time.AfterFunc(5*time.Millisecond, s.Kill) // while it commits, perhaps
		defer timer.Stop()
	}
	update, err = s.StartCommit(ctx, checkpoint(t.position+1))
	if killAt == "StartCommit" && err != nil {
		return errKilled
	}
	if err != nil {
		return err
	}
	if err := step("StartedCommit"); err != nil {
		return err
	}
	t.keep(update)
	if killAt != "" {
		s.Kill()
	}
	if killAt == "" || s.Opened().RuntimeCheckpoint == nil {
		// The runtime's own commit. Where the destination keeps the position, it says what became of a killed transaction.
		t.content, t.inFlight = next, nil
		t.position++
	}
	if killAt != "" {
		return errKilled
	}
	return nil
}

func (t *task) keep(update *flowpb.ConnectorState) {
	if len(update.GetUpdatedJson()) == 0 {
		return
	}
	if state, err := flowpb.ReduceState(t.state, update); err == nil {
		t.state = state
		t.k.s.watch.look("a state", state)
	}
}

func checkpoint(position int64) *flowpb.Checkpoint {
	return &flowpb.Checkpoint{Sources: map[string]*flowpb.Checkpoint_Source{"conformance": {
		ReadThrough: position, Producers: []*flowpb.Checkpoint_Source_ProducerEntry{{Id: []byte("confor"), State: &flowpb.Checkpoint_ProducerState{Begin: -1}}},
	}}}
}

// loadAll loads the keys of some rows, compares what came with what is committed, and flushes.
func (t *task) loadAll(ctx context.Context, s *session, rows []row, step func(string) error) (exists map[string]bool, err error) {
	s.loaded, exists = nil, map[string]bool{}
	asked := map[string]bool{}
	for _, r := range rows {
		if t.delta() {
			break
		}
		key, m, err := t.store(s.Codec(), r)
		if err != nil {
			return nil, err
		}
		asked[key] = true
		if err := s.Load(&materializepb.Request_Load{KeyJson: m.KeyJson, KeyPacked: m.KeyPacked}); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(s.Push(), step("Load")); err != nil {
		return nil, err
	}
	if _, err := s.Flush(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, doc := range s.loaded {
		var got row
		if err := json.Unmarshal(doc, &got); err != nil {
			return nil, fmt.Errorf("a loaded document cannot be read: %w", err)
		}
		key := t.key(got)
		want, stored := t.rows[key]
		switch {
		case !asked[key] || exists[key]:
			return nil, fmt.Errorf("a document was loaded that nobody asked for, or twice: %.200q", doc)
		case !stored:
			return nil, fmt.Errorf("a document was loaded that was never committed: %.200q", doc)
		case want.deleted() && !got.deleted():
			return nil, fmt.Errorf("the row was deleted, and is loaded as if it were not: %.200q", doc)
		case want.deleted(): // of what else a destination keeps of it there is no rule
		case got.Note != want.Note || got.Size != want.Size:
			return nil, fmt.Errorf("a loaded document is %.200q, and committed was %+v", doc, want)
		}
		exists[key] = true
	}
	for key := range asked {
		if want, stored := t.rows[key]; stored && !exists[key] && !want.deleted() {
			return nil, fmt.Errorf("a committed document was not loaded: %+v", want)
		}
	}
	return exists, step("Flushed")
}

// check loads all that is committed, and stores nothing.
func (t *task) check(ctx context.Context, i int) error {
	s, err := t.open(ctx, i)
	if err != nil {
		return err
	}
	if err := s.Acknowledge(); err != nil {
		return s.fail(err)
	}
	update, err := s.Await(ctx, host.Acknowledged)
	if err != nil {
		return s.fail(err)
	}
	t.keep(update)
	all := slices.Collect(maps.Values(t.rows))
	all = append(all, row{ID: 1 << 40, Region: "nowhere"}, row{ID: all[0].ID, Region: "nowhere"})
	if _, err := t.loadAll(ctx, s, all, func(string) error { return nil }); err != nil {
		return s.fail(err)
	}
	if update, err = s.StartCommit(ctx, checkpoint(t.position)); err != nil {
		return s.fail(err)
	}
	t.keep(update)
	return s.finish(ctx)
}

// commitOnly stores a row and waits until that is committed.
func (t *task) commitOnly(ctx context.Context, s *session) error {
	defer s.cancel()
	if _, err := s.Flush(ctx); err != nil {
		return err
	}
	_, m, err := t.store(s.Codec(), row{ID: 1 << 41, Region: "stale"})
	if err != nil {
		return err
	}
	if err := s.Store(m); err != nil {
		return err
	}
	if _, err := s.StartCommit(ctx, checkpoint(t.position+7)); err != nil {
		return err
	}
	if err := s.Acknowledge(); err != nil {
		return err
	}
	_, err = s.Await(ctx, host.Acknowledged)
	return err
}

func (t *task) key(r row) string { return strconv.Itoa(r.ID) + " " + r.Region }

// store is the request that stores a row, and its key.
func (t *task) store(codec frame.Codec, r row) (string, *materializepb.Request_Store, error) {
	doc, err := json.Marshal(r)
	if err != nil {
		return "", nil, err
	}
	b := t.spec.Bindings[0]
	m := &materializepb.Request_Store{}
	if b.FieldSelection.Document != "" {
		m.DocJson = doc
	}
	keys, values := t.values(b.FieldSelection.Keys, doc), t.values(b.FieldSelection.Values, doc)
	if codec == frame.JSON {
		m.KeyJson, _ = json.Marshal(keys)
		m.ValuesJson, _ = json.Marshal(values)
		return t.key(r), m, nil
	}
	for _, v := range keys {
		if m.KeyPacked, err = tuple.AppendJSON(m.KeyPacked, v); err != nil {
			return "", nil, fmt.Errorf("packing a key: %w", err)
		}
	}
	for _, v := range values {
		if m.ValuesPacked, err = tuple.AppendJSON(m.ValuesPacked, v); err != nil {
			return "", nil, fmt.Errorf("packing a value: %w", err)
		}
	}
	return t.key(r), m, nil
}

func (t *task) values(fields []string, doc []byte) []json.RawMessage {
	values := make([]json.RawMessage, 0, len(fields))
	for _, field := range fields {
		found := make([][]byte, 1)
		jsonscan.NewPointers([]string{specs.Projection(t.spec.Bindings[0].Collection, field).Ptr}).Find(doc, found)
		if found[0] == nil {
			found[0] = []byte("null")
		}
		values = append(values, found[0])
	}
	return values
}
