package cdc

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// scriptDriver has what a test gives it.
type scriptDriver struct {
	tables []*Table
	events []Event // one after the other, then idle
	from   Position
	asked  []*Table // tables of the stream
	acked  []Cursor
	lost   []error // of Stream, one after the other; nil for none
	start  json.RawMessage
	next   error // of Next, once, when the events have ended
	scan   func(c Chunk) error
	rows   []Row   // that a scan finds
	rests  []Range // of scans, one after the other, then none
	joins  bool    // tables join
	plans  []TableID
	closed []string
}

func (d *scriptDriver) Check(_ context.Context, tables []TableID) []error {
	return []error{usererr.New(nil, "%s cannot be captured.", tables[0])}
}

func (d *scriptDriver) Discover(_ context.Context, only ...TableID) ([]*Table, error) {
	var found []*Table
	for _, t := range d.tables {
		for _, id := range only {
			if t.ID == id {
				found = append(found, t)
			}
		}
		if len(only) == 0 {
			found = append(found, t)
		}
	}
	return found, nil
}

func (d *scriptDriver) Plan(_ context.Context, t *Table) (*Plan, error) {
	d.plans = append(d.plans, t.ID)
	return &Plan{Ranges: []Range{"all"}, Fixed: true}, nil
}

func (d *scriptDriver) Scan(_ context.Context, c Chunk, yield func(Row) error) (*Scanned, error) {
	for _, row := range d.rows {
		if err := yield(row); err != nil {
			return nil, err
		}
	}
	if d.scan != nil {
		if err := d.scan(c); err != nil {
			return nil, err
		}
	}
	out := &Scanned{Snapshot: seesAll{}, High: "m"}
	if len(d.rests) > 0 {
		out.Rest, d.rests = d.rests[0], d.rests[1:]
	}
	return out, nil
}

func (d *scriptDriver) Stream(_ context.Context, from Position, tables []*Table) (Stream, error) {
	d.from, d.asked = from, tables
	if len(d.lost) > 0 {
		err := d.lost[0]
		d.lost = d.lost[1:]
		if err != nil {
			return nil, err
		}
	}
	return &scriptStream{d: d}, nil
}

func (d *scriptDriver) Close() error {
	d.closed = append(d.closed, "driver")
	return nil
}

type scriptStream struct {
	d      *scriptDriver
	fences []Mark
}

func (s *scriptStream) Start() Position {
	if s.d.start != nil {
		return Position{Cursor: "start", Identity: s.d.start}
	}
	return Position{Cursor: "start", Identity: json.RawMessage(`"here"`)}
}
func (s *scriptStream) Joining(TableID) bool { return s.d.joins }
func (s *scriptStream) Origin(TableID) string {
	if s.d.joins {
		return ""
	}
	return "origin"
}
func (s *scriptStream) Ack(c Cursor) { s.d.acked = append(s.d.acked, c) }
func (s *scriptStream) Fence(_ context.Context, m Mark) error {
	s.fences = append(s.fences, m)
	return nil
}

func (s *scriptStream) Close() error {
	s.d.closed = append(s.d.closed, "stream")
	return nil
}

func (s *scriptStream) Next(ctx context.Context, _ time.Duration) (*Event, error) {
	if len(s.d.events) > 0 {
		ev := s.d.events[0]
		s.d.events = s.d.events[1:]
		return &ev, ctx.Err()
	}
	if err := s.d.next; err != nil {
		s.d.next = nil
		return nil, err
	}
	if len(s.fences) > 0 {
		m := s.fences[0]
		s.fences = s.fences[1:]
		return &Event{Op: Fence, Mark: m}, ctx.Err()
	}
	return &Event{Op: Idle}, ctx.Err()
}

// keysDriver can read by key as well.
type keysDriver struct{ *scriptDriver }

func (d keysDriver) ScanKeys(context.Context, Chunk, [][]byte, func(Row) error) (*Scanned, error) {
	return &Scanned{Snapshot: seesAll{}, High: "m"}, nil
}

// scriptTx keeps what it is given.
type scriptTx struct {
	docs   []string
	size   int
	saved  int
	shared any
	forgot []string
	acks   []func(context.Context) error
	fail   error
}

func (tx *scriptTx) AppendDoc(b capture.Target, doc []byte) error {
	return tx.Append(b, func(dst []byte) ([]byte, error) { return append(dst, doc...), nil })
}

func (tx *scriptTx) Append(_ capture.Target, enc func([]byte) ([]byte, error)) error {
	if tx.fail != nil {
		return tx.fail
	}
	doc, err := enc(nil)
	if err != nil {
		return err
	}
	tx.docs = append(tx.docs, string(doc))
	tx.size += len(doc)
	return err
}
func (tx *scriptTx) Size() int                              { return tx.size }
func (tx *scriptTx) Schema(capture.Target, json.RawMessage) {}
func (tx *scriptTx) Save(capture.Target)                    { tx.saved++ }
func (tx *scriptTx) SetShared(v any)                        { tx.shared = v }
func (tx *scriptTx) Forget(key string)                      { tx.forgot = append(tx.forgot, key) }
func (tx *scriptTx) OnAck(f func(context.Context) error)    { tx.acks = append(tx.acks, f) }

// scripted is a session over a scriptDriver.
type scripted struct {
	t        *testing.T
	driver   Driver
	opts     Options
	bindings []*capture.Binding[Resource, TableState]
	env      capture.Env
	logs     *logtest.Hook
	limits   limits
	now      time.Time
	pool     *instantPool
}

func script(t *testing.T, d Driver, bindings ...*capture.Binding[Resource, TableState]) *scripted {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	return &scripted{
		t: t, driver: d, bindings: bindings, logs: hook, env: capture.Env{Log: logrus.NewEntry(log)},
		now: time.Unix(1_700_000_000, 0), limits: defaultLimits(), pool: &instantPool{d: d},
	}
}

func (s *scripted) open() (*reader, error) {
	return open(s.t.Context(), session{
		driver: s.driver, opts: s.opts.withDefaults(), limits: s.limits, env: s.env, bindings: s.bindings,
		pool: s.pool, now: func() time.Time { s.now = s.now.Add(time.Millisecond); return s.now }, rand: rand.New(rand.NewPCG(1, 1)),
	})
}

// read opens and reads until something was emitted, or the log has ended.
func (s *scripted) read() (*scriptTx, error) {
	s.t.Helper()
	r, err := s.open()
	require.NoError(s.t, err)
	require.NoError(s.t, r.read(s.t.Context(), &scriptTx{}))
	tx := &scriptTx{}
	return tx, r.read(s.t.Context(), tx)
}

// untilFails opens and reads until that fails.
func (s *scripted) untilFails() error {
	s.t.Helper()
	r, err := s.open()
	for err == nil {
		err = r.read(s.t.Context(), &scriptTx{})
	}
	return err
}

// instantPool runs a job when it is started.
type instantPool struct {
	d     Driver
	idle  bool // no job ever runs
	ended []job
}

func (p *instantPool) start(j job) {
	if p.idle {
		return
	}
	j.run(context.Background(), p.d)
	p.ended = append(p.ended, j)
}

func (p *instantPool) next() job {
	if len(p.ended) == 0 {
		return nil
	}
	j := p.ended[0]
	p.ended = p.ended[1:]
	return j
}
func (p *instantPool) close() {}

// bind is a binding of table s.t, keyed by k, in a phase; "" is new.
func bind(p Phase, key ...string) *capture.Binding[Resource, TableState] {
	if key == nil {
		key = []string{"/k"}
	}
	return &capture.Binding[Resource, TableState]{
		Resource: Resource{Namespace: "s", Stream: "t"}, StateKey: "s%2Ft", New: p == "",
		State: TableState{Phase: p}, Collection: capture.Destination{Name: "acme/t", Key: key},
	}
}

var tableID = TableID{Schema: "s", Name: "t"}

func tableST() *Table {
	return &Table{ID: tableID, Key: []string{"k"}, Incarnation: "1", Columns: []Column{{Name: "k", Type: "int"}, {Name: "x", Type: "text"}}}
}

func rowKX(k, x string, omitted ...string) *simRow {
	return &simRow{shape: tableST(), vals: map[string]string{"k": k, "x": x}, v: 1, omitted: omitted}
}
