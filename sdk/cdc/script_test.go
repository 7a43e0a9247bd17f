package cdc

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
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
	scan   func(c Chunk) error
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

func (d *scriptDriver) Scan(_ context.Context, c Chunk, _ func(Row) error) (*Scanned, error) {
	if d.scan != nil {
		if err := d.scan(c); err != nil {
			return nil, err
		}
	}
	return &Scanned{Snapshot: seesAll{}, High: "m"}, nil
}

func (d *scriptDriver) Stream(_ context.Context, from Position, tables []*Table) (Stream, error) {
	d.from, d.asked = from, tables
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
	return Position{Cursor: "start", Identity: json.RawMessage(`"here"`)}
}
func (s *scriptStream) Origin(TableID) string { return "origin" }
func (s *scriptStream) Ack(c Cursor)          { s.d.acked = append(s.d.acked, c) }
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

func (tx *scriptTx) Append(_ capture.Target, enc func([]byte) ([]byte, error)) error {
	if tx.fail != nil {
		return tx.fail
	}
	doc, err := enc(nil)
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
	now      time.Time
	pool     *instantPool
}

func script(t *testing.T, d Driver, bindings ...*capture.Binding[Resource, TableState]) *scripted {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	return &scripted{
		t: t, driver: d, bindings: bindings, logs: hook, env: capture.Env{Log: logrus.NewEntry(log)},
		now: time.Unix(1_700_000_000, 0), pool: &instantPool{d: d},
	}
}

func (s *scripted) open() (*reader, error) {
	return open(s.t.Context(), session{
		driver: s.driver, opts: s.opts.withDefaults(), limits: defaultLimits(), env: s.env, bindings: s.bindings,
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
	ended []job
}

func (p *instantPool) start(j job) {
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

func TestErrorsOfOpening(t *testing.T) {
	t.Parallel()
	meta := tableST()
	meta.Columns = append(meta.Columns, Column{Name: "_meta"})
	keyless := tableST()
	keyless.Key = nil
	for name, c := range map[string]struct {
		tables []*Table
		shared string
		key    []string
		want   string
	}{
		"no table at all":     {nil, "", nil, "None of the tables to capture exists (s.t is the first). Check the names of schemas and tables, or discover again."},
		"another key":         {[]*Table{tableST()}, "", []string{"/x"}, "The key of table s.t is (k), but the documents of collection acme/t are keyed by (/x). Discover the table again, so that its collection gets this key, and backfill it."},
		"no key":              {[]*Table{keyless}, "", []string{"/k"}, "The key of table s.t is (none), but the documents of collection acme/t are keyed by (/k). Discover the table again, so that its collection gets this key, and backfill it."},
		"a column like _meta": {[]*Table{meta}, "", nil, "Table s.t has a column \"_meta\", which is the name of the member that describes the change in every document. Rename the column to capture the table."},
		"a foreign position":  {[]*Table{tableST()}, `{"cursor":7}`, nil, "The stored position of this capture cannot be read, so it was not written by this connector. Backfill all of its bindings."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := script(t, &scriptDriver{tables: c.tables}, bind("", c.key...))
			s.env.Shared = json.RawMessage(c.shared)
			_, err := s.open()
			require.Error(t, err)
			require.Equal(t, c.want, usererr.Message(err))
		})
	}
}

func TestErrorsOfTheLog(t *testing.T) {
	t.Parallel()
	rekeyed := tableST()
	rekeyed.Key = []string{"x"}
	for name, c := range map[string]struct {
		event Event
		want  string
	}{
		"truncated":                      {Event{Op: Truncate, Txn: "1"}, "Table s.t was truncated. Its rows are still in the collection. Backfill the table to go on, or choose to ignore truncations."},
		"deleted without a key":          {Event{Op: Delete, Txn: "1"}, "A row of table s.t was deleted, but the log does not say which. Make the server log the key of deleted rows (for Postgres: ALTER TABLE s.t REPLICA IDENTITY DEFAULT, or FULL)."},
		"appeared without all of itself": {Event{Op: Update, Txn: "1", Before: rowKX("1", ""), Row: rowKX("2", "", "x")}, "A row of table s.t changed in a way of which the log leaves out unchanged values, and this server's rows cannot be read by key. Make the server log whole rows (for Postgres: ALTER TABLE s.t REPLICA IDENTITY FULL), then backfill the table."},
		"another key":                    {Event{Op: Shape, Txn: "1", Shape: rekeyed}, "The key of table s.t is (x), but the documents of collection acme/t are keyed by (/k). Discover the table again, so that its collection gets this key, and backfill it."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.event.Table = tableID
			s := script(t, &scriptDriver{tables: []*Table{tableST()}, events: []Event{c.event}}, bind(Live))
			s.opts.StopOnTruncate = true
			_, err := s.read()
			require.Error(t, err)
			require.Equal(t, c.want, usererr.Message(err))
		})
	}
}

func TestTruncationIsIgnoredAloud(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{tables: []*Table{tableST()}, events: []Event{
		{Op: Truncate, Table: tableID, Txn: "1"},
		{Op: Insert, Table: tableID, Txn: "1", Row: rowKX("1", "a")},
		{Op: Commit, Txn: "1", Cursor: "2"},
	}}
	s := script(t, d, bind(Live))
	tx, err := s.read()
	require.NoError(t, err)
	require.Len(t, tx.docs, 1)
	require.Contains(t, s.logs.LastEntry().Message, "table was truncated")
}

func TestRowTooLargeIsNamed(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{tables: []*Table{tableST()}, events: []Event{{Op: Insert, Table: tableID, Txn: "1", Row: rowKX("17", "a")}}}
	r, err := script(t, d, bind(Live)).open()
	require.NoError(t, err)
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	err = r.read(t.Context(), &scriptTx{fail: fmt.Errorf("over: %w", capture.ErrTooLarge)})
	require.Equal(t, "The row of table s.t whose key (k) is [17] is too large for a document.", usererr.Message(err))
}

func TestScansThatFail(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{tables: []*Table{tableST()}, scan: func(Chunk) error { return fmt.Errorf("lost: %w", ErrInterrupted) }}
	err := script(t, d, bind("")).untilFails()
	require.Equal(t, "The rows of table s.t could not be read, 21 times in a row.", usererr.Message(err))
	require.ErrorIs(t, err, ErrInterrupted)

	d.scan = func(Chunk) error { return usererr.New(nil, "You may not read this.") }
	err = script(t, d, bind("")).untilFails()
	require.EqualError(t, err, "reading rows of s.t: You may not read this.")
}

func TestPositionIsStoredFirst(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{tables: []*Table{tableST()}, events: []Event{{Op: Insert, Table: tableID, Txn: "1", Row: rowKX("1", "a")}}}
	s := script(t, d, bind(""))
	s.env.Dormant = []string{"gone"}
	s.env.Shared = json.RawMessage(`{"cursor":"old"}`)
	r, err := s.open()
	require.NoError(t, err)
	tx := &scriptTx{}
	require.NoError(t, r.read(t.Context(), tx))
	require.Empty(t, tx.docs)
	require.Equal(t, Position{}, d.from, "a capture of which every binding is new begins at the log's end")
	raw, err := json.Marshal(tx.shared)
	require.NoError(t, err)
	require.JSONEq(t, `{"cursor":"start","identity":"here"}`, string(raw))
	require.Equal(t, []string{"gone"}, tx.forgot)
	require.Equal(t, "origin", s.bindings[0].State.Origin)
	require.Empty(t, d.plans, "nothing is backfilled before the position is stored")
	require.NoError(t, tx.acks[0](t.Context()))
	require.Equal(t, []Cursor{"start"}, d.acked)
	require.NoError(t, r.close())
	require.Equal(t, []string{"stream", "driver"}, d.closed)
}

func TestCheckpointNeverCutsATransaction(t *testing.T) {
	t.Parallel()
	var events []Event
	for i := range 3000 {
		events = append(events, Event{Op: Insert, Table: tableID, Txn: "1", Row: rowKX(fmt.Sprint(i), strings.Repeat("x", 1000))})
		if i%100 == 0 {
			events = append(events, Event{Op: Idle, Cursor: "wrong"})
		}
	}
	events = append(events, Event{Op: Commit, Txn: "1", Cursor: "2"})
	tx, err := script(t, &scriptDriver{tables: []*Table{tableST()}, events: events}, bind(Live)).read()
	require.NoError(t, err)
	require.Len(t, tx.docs, 3000)
	raw, err := json.Marshal(tx.shared)
	require.NoError(t, err)
	require.JSONEq(t, `{"cursor":"2","identity":"here"}`, string(raw))
}

func TestResumeHasTheShapeOfTheLog(t *testing.T) {
	t.Parallel()
	now := tableST()
	now.Columns = append(now.Columns, Column{Name: "new", Type: "int"})
	d := &scriptDriver{tables: []*Table{now}}
	b := bind(Live)
	b.State.setShape(tableST())
	s := script(t, d, b)
	s.env.Shared = json.RawMessage(`{"cursor":"7"}`)
	r, err := s.open()
	require.NoError(t, err)
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	require.Equal(t, Cursor("7"), d.from.Cursor)
	require.Len(t, d.asked[0].Columns, 2, "the stream must learn from the log that there is a third one")
	require.Len(t, r.tables[0].shape.Columns, 3, "but scans read it already")
}

func TestOnlyChanges(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*scripted){
		"mode":          func(s *scripted) { s.bindings[0].Resource.Mode = OnlyChanges },
		"skipBackfills": func(s *scripted) { s.opts.SkipBackfills = []string{"s.*"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &scriptDriver{tables: []*Table{tableST()}}
			s := script(t, d, bind(""))
			change(s)
			r, err := s.open()
			require.NoError(t, err)
			require.NoError(t, r.read(t.Context(), &scriptTx{}))
			require.Equal(t, Live, s.bindings[0].State.Phase)
			require.Empty(t, r.work)
		})
	}
}

func TestNoBindings(t *testing.T) {
	t.Parallel()
	s := script(t, &scriptDriver{})
	s.env.Shared = json.RawMessage(`{"cursor":"7"}`)
	s.env.Dormant = []string{"gone"}
	r, err := s.open()
	require.NoError(t, err)
	tx := &scriptTx{}
	require.NoError(t, r.read(t.Context(), tx))
	require.Equal(t, []string{"gone"}, tx.forgot)
	raw, err := json.Marshal(tx.shared)
	require.NoError(t, err)
	require.JSONEq(t, `{"cursor":""}`, string(raw))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, r.read(ctx, &scriptTx{}), context.Canceled)
	require.NoError(t, r.close())
}

func TestPriorities(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{}
	var bindings []*capture.Binding[Resource, TableState]
	for i, priority := range []int{0, 2, 1} {
		tb := tableST()
		tb.ID.Name = fmt.Sprint("t", i)
		d.tables = append(d.tables, tb)
		b := bind("")
		b.Resource.Stream, b.Resource.Priority = tb.ID.Name, priority
		bindings = append(bindings, b)
	}
	s := script(t, d, bindings...)
	s.opts.BackfillWorkers = 1
	r, err := s.open()
	require.NoError(t, err)
	for range 20 {
		require.NoError(t, r.read(t.Context(), &scriptTx{}))
		if len(d.plans) == 3 {
			break
		}
	}
	require.Equal(t, []TableID{{"s", "t1"}, {"s", "t2"}, {"s", "t0"}}, d.plans)
}

func TestHoleOfALiveTableIsFilled(t *testing.T) {
	t.Parallel()
	d := keysDriver{&scriptDriver{tables: []*Table{tableST()}, events: []Event{
		{Op: Update, Table: tableID, Txn: "1", Before: rowKX("1", ""), Row: rowKX("2", "", "x")},
		{Op: Commit, Txn: "1", Cursor: "2"},
	}}}
	s := script(t, d, bind(Live))
	r, err := s.open()
	require.NoError(t, err)
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	tx := &scriptTx{}
	require.NoError(t, r.read(t.Context(), tx))
	require.Equal(t, []string{
		`{"k":"1","x":"","_meta":{"op":"d","source":{"v":"1"}}}`,
		`{"k":"2","_meta":{"op":"c","source":{"v":"1"}}}`,
	}, tx.docs)
	require.Len(t, s.bindings[0].State.Holes, 1, "a crash must not forget it")
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	require.Empty(t, s.bindings[0].State.Holes)
	require.False(t, r.tables[0].watching)
}
