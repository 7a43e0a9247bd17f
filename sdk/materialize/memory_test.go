package materialize_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// disk is a destination in memory that outlives its connectors: what a crash leaves behind. It can be used in both
// ways of committing.
type disk struct {
	mu        sync.Mutex
	tables    map[string]*memTable
	positions map[string]*position // by task
	files     map[string][]memRow  // staged
	applied   map[string]bool
	named     int // names of files are never used twice
}

// position is a row of the table of checkpoints.
type position struct {
	fence      int
	checkpoint materialize.Checkpoint
}

type memTable struct {
	columns  map[string]bool
	rows     map[string]map[string]any
	appended []map[string]any
	backfill uint32
}

// memRow is a stored row, ready to be applied.
type memRow struct {
	table  string
	key    string
	values map[string]any
	delta  bool
	remove bool
}

func newDisk() *disk {
	return &disk{tables: map[string]*memTable{}, positions: map[string]*position{}, files: map[string][]memRow{}, applied: map[string]bool{}}
}

// apply makes rows visible. The caller holds the lock.
func (d *disk) apply(rows []memRow) {
	for _, r := range rows {
		t := d.tables[r.table]
		switch {
		case r.delta:
			t.appended = append(t.appended, r.values)
		case r.remove:
			delete(t.rows, r.key)
		default:
			// Columns of fields that are not selected at the moment keep what they hold.
			row := maps.Clone(t.rows[r.key])
			if row == nil {
				row = map[string]any{}
			}
			maps.Copy(row, r.values)
			t.rows[r.key] = row
		}
	}
}

type memConfig struct {
	HardDelete bool `json:"hardDelete" title:"Hard" desc:"Delete rows."`
}

func (memConfig) Validate() error { return nil }

type memResource struct {
	Table string `json:"table" title:"Table" desc:"The table." x-collection-name:"true"`
	Delta bool   `json:"delta" title:"Delta" desc:"Append."`
}

func (memResource) Validate() error { return nil }

// memSink is one connector process on a disk. Once it is dead, it can do nothing any more.
type memSink struct {
	d      *disk
	staged bool
	dead   *atomic.Bool
}

func (s memSink) killSwitch() *atomic.Bool { return s.dead }

var errDead = errors.New("the process is dead")

func (memSink) Spec() materialize.Spec {
	return materialize.Spec{Title: "Memory", DocsURL: "https://example.com", LoadOptional: true}
}

func (memSink) Target(_ memConfig, r memResource) materialize.Target {
	return materialize.Target{Path: []string{r.Table}, Delta: r.Delta}
}

func (memSink) Constrain(_ memConfig, _ materialize.Target, f materialize.Field) materialize.Constraint {
	if f.Pointer == "" {
		return materialize.Constraint{}
	}
	return materialize.Constraint{Choice: materialize.Recommended}
}

func (s memSink) Apply(_ context.Context, _ materialize.Env, _ memConfig, changes []materialize.Change[memResource]) (string, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.dead.Load() {
		return "", errDead
	}
	summary := ""
	for _, ch := range changes {
		name := ch.Binding.Target.Path[0]
		t := s.d.tables[name]
		if ch.Kind == materialize.Remove {
			continue
		}
		if t == nil || t.backfill != ch.Binding.Backfill {
			t = &memTable{columns: map[string]bool{}, rows: map[string]map[string]any{}, backfill: ch.Binding.Backfill}
			s.d.tables[name] = t
			summary += "Created " + name + ". "
		}
		for _, f := range ch.Binding.Fields() {
			if !t.columns[f.Name] {
				t.columns[f.Name] = true
				summary += "Added " + f.Name + ". "
			}
		}
	}
	return summary, nil
}

func (s memSink) Open(
	_ context.Context, env materialize.Env, cfg memConfig, bindings []*materialize.Binding[memResource],
) (*materialize.Transactor, error) {
	store := &memStore{memSink: s, task: env.Task, cfg: cfg, bindings: bindings}
	if s.staged {
		return materialize.Staged(stagedStore{store}), nil
	}
	return materialize.Atomic(atomicStore{store}), nil
}

// memStore is an open session.
type memStore struct {
	memSink
	task     string
	cfg      memConfig
	bindings []*materialize.Binding[memResource]
	fence    int
	pending  []memRow
}

func (s *memStore) Close() error { return nil }

func (s *memStore) read(rows *materialize.Rows) ([]memRow, error) {
	var out []memRow
	for rows.Next() {
		r := rows.Row()
		b := s.bindings[r.Binding]
		row := memRow{table: b.Target.Path[0], key: string(r.PackedKey), values: map[string]any{}, delta: b.Target.Delta}
		for i, e := range r.Key {
			row.values[b.Keys[i].Name] = jsonValue(e)
		}
		for i, e := range r.Values {
			row.values[b.Values[i].Name] = jsonValue(e)
		}
		if b.Document != nil {
			row.values[b.Document.Name] = slices.Clone(r.Doc)
		}
		row.remove = r.Delete && s.cfg.HardDelete && !row.delta
		out = append(out, row)
	}
	return out, rows.Err()
}

func jsonValue(e tuple.Element) any {
	if e.Kind == tuple.Bytes {
		return json.RawMessage(slices.Clone(e.Bytes))
	}
	return e.Value()
}

// Load rebuilds documents from columns whose fields are members of the document or of its _meta.
func (s *memStore) Load(_ context.Context, keys *materialize.Keys, found func(int, []byte) error) error {
	type asked struct {
		binding int
		key     string
	}
	var all []asked
	for keys.Next() {
		all = append(all, asked{keys.Binding(), string(keys.PackedKey())})
	}
	if err := keys.Err(); err != nil {
		return err
	}
	for _, k := range all {
		doc, err := s.document(k.binding, k.key)
		if err != nil {
			return err
		}
		if doc == nil {
			continue
		}
		if err := found(k.binding, doc); err != nil {
			return err
		}
	}
	return nil
}

func (s *memStore) document(binding int, key string) ([]byte, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	b := s.bindings[binding]
	row := s.d.tables[b.Target.Path[0]].rows[key]
	if row == nil {
		return nil, nil
	}
	if b.Document != nil {
		raw, _ := row[b.Document.Name].(json.RawMessage)
		return raw, nil
	}
	doc := map[string]any{}
	for _, f := range b.Fields() {
		if v, ok := row[f.Name]; ok && v != nil {
			if f.Name == "_meta/op" {
				doc["_meta"] = map[string]any{"op": v}
			} else {
				doc[f.Name] = v
			}
		}
	}
	return json.Marshal(doc)
}

// atomicStore commits rows and checkpoint together.
type atomicStore struct{ *memStore }

func (s atomicStore) Fence(context.Context) (materialize.Checkpoint, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.dead.Load() {
		return nil, errDead
	}
	p := s.d.positions[s.task]
	if p == nil {
		p = &position{}
		s.d.positions[s.task] = p
	}
	p.fence++
	s.fence = p.fence
	return p.checkpoint, nil
}

func (s atomicStore) Store(_ context.Context, rows *materialize.Rows) (err error) {
	s.pending, err = s.read(rows)
	return err
}

func (s atomicStore) Commit(_ context.Context, cp materialize.Checkpoint) error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	switch {
	case s.dead.Load():
		return errDead
	case s.fence != s.d.positions[s.task].fence:
		return errors.New("another instance took over")
	}
	s.d.apply(s.pending)
	s.pending = nil
	s.d.positions[s.task].checkpoint = cp
	return nil
}

// stagedStore stages files and applies them.
type stagedStore struct{ *memStore }

type upload struct {
	Name string `json:"name"`
}

func (s stagedStore) Stage(_ context.Context, _ uint64, rows *materialize.Rows) (upload, error) {
	out, err := s.read(rows)
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.dead.Load() {
		return upload{}, errDead
	}
	s.d.named++
	name := fmt.Sprintf("file-%d", s.d.named)
	s.d.files[name] = out
	return upload{name}, err
}

func (s stagedStore) Apply(_ context.Context, staged upload) error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.dead.Load() {
		return errDead
	}
	if !s.d.applied[staged.Name] {
		s.d.apply(s.d.files[staged.Name])
		s.d.applied[staged.Name] = true
	}
	return nil
}

// memCase starts connectors in the test's own process.
func memCase(d *disk, staged bool) sinktest.Case {
	return sinktest.Case{
		Start: func(t testing.TB, codec frame.Codec) sinktest.Process {
			t.Helper()
			return start(t, memSink{d: d, staged: staged, dead: &atomic.Bool{}}, codec)
		},
		Config:     json.RawMessage(`{}`),
		HardDelete: json.RawMessage(`{"hardDelete":true}`),
		Resource: func(table string, delta bool) json.RawMessage {
			raw, _ := json.Marshal(memResource{table, delta})
			return raw
		},
		Rows: func(t testing.TB, table string) []json.RawMessage {
			t.Helper()
			return d.rows(table)
		},
	}
}

func (d *disk) rows(table string) []json.RawMessage {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tables[table]
	var out []json.RawMessage
	for _, row := range slices.Concat(slices.Collect(maps.Values(t.rows)), t.appended) {
		full := map[string]any{}
		for c := range t.columns {
			full[c] = row[c]
		}
		raw, _ := json.Marshal(full)
		out = append(out, raw)
	}
	return out
}

// start runs a connector in this process. Once it is killed, its store refuses to do anything.
func start(t testing.TB, s interface {
	materialize.Sink[memConfig, memResource]
	killSwitch() *atomic.Bool
}, codec frame.Codec,
) sinktest.Process {
	t.Helper()
	return startSink(t, s, s.killSwitch(), codec)
}

func startSink(t testing.TB, s materialize.Sink[memConfig, memResource], dead *atomic.Bool, codec frame.Codec) sinktest.Process {
	t.Helper()
	// Pipes of the operating system, which hold something, as a runtime's do.
	in, requests, err := os.Pipe()
	require.NoError(t, err)
	responses, out, err := os.Pipe()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	var serveErr error
	go func() {
		defer close(done)
		serveErr = materialize.Serve(ctx, s, logrus.NewEntry(process.Discard()), codec, in, out)
		_ = out.Close()
		_ = in.Close()
	}()
	return sinktest.Process{
		Stdin: requests, Stdout: responses,
		Kill: func() {
			dead.Store(true)
			cancel()
			_ = responses.Close()
			_ = requests.Close()
		},
		Wait: func() error {
			<-done
			if dead.Load() {
				return nil
			}
			return serveErr
		},
	}
}

func TestConformanceAtomic(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, memCase(newDisk(), false))
}

func TestConformanceStaged(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, memCase(newDisk(), true))
}
