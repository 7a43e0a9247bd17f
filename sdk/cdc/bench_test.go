package cdc

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
)

// The trivial driver gives one row again and again, as fast as can be: what is measured is the core.

type trivialRow struct{ key []byte }

func (trivialRow) AppendFields(dst []byte) ([]byte, error) {
	return append(dst, `"id":12345,"name":"a name of some length","at":"2026-11-21T08:00:00Z","price":"12.34"`...), nil
}
func (r trivialRow) AppendKey(dst []byte) ([]byte, error) { return append(dst, r.key...), nil }
func (trivialRow) AppendSource(dst []byte) ([]byte, error) {
	return append(dst, `"ts_ms":1700000000000,"schema":"public","table":"orders","loc":[1,2,3]`...), nil
}
func (trivialRow) Omitted() []string { return nil }

// trivialDriver has one table, and a stream of transactions of so many changes.
type trivialDriver struct {
	changes int
	op      Op
	scan    int // rows of the table
	row     Row
	n       int
	ev      Event
	fences  []Mark
}

var trivialTable = &Table{ID: TableID{"public", "orders"}, Key: []string{"id"}, Columns: []Column{{Name: "id", Type: "int"}}}

func (d *trivialDriver) Check(context.Context, []TableID) []error { return nil }
func (d *trivialDriver) Close() error                             { return nil }
func (d *trivialDriver) Discover(context.Context, ...TableID) ([]*Table, error) {
	return []*Table{trivialTable}, nil
}

func (d *trivialDriver) Plan(context.Context, *Table) (*Plan, error) {
	return &Plan{Ranges: []Range{"all"}}, nil
}

type seesAll struct{}

func (seesAll) Sees(TxnID) bool { return true }

func (d *trivialDriver) Scan(_ context.Context, c Chunk, yield func(Row) error) (*Scanned, error) {
	rows := min(c.MaxRows, d.scan, c.MaxBytes/250)
	for range rows {
		if err := yield(d.row); err != nil {
			return nil, err
		}
	}
	d.scan -= rows
	s := &Scanned{Snapshot: seesAll{}, High: "m"}
	if d.scan > 0 {
		s.Rest = "all"
	}
	return s, nil
}

func (d *trivialDriver) Stream(context.Context, Position, []*Table) (Stream, error) { return d, nil }

func (d *trivialDriver) Start() Position       { return Position{Cursor: "0"} }
func (d *trivialDriver) Origin(TableID) string { return "0" }
func (d *trivialDriver) Ack(Cursor)            {}

func (d *trivialDriver) Fence(_ context.Context, m Mark) error {
	d.fences = append(d.fences, m)
	return nil
}

func (d *trivialDriver) Next(context.Context, time.Duration) (*Event, error) {
	if len(d.fences) > 0 {
		d.ev = Event{Op: Fence, Mark: d.fences[0]}
		d.fences = d.fences[:0]
		return &d.ev, nil
	}
	if d.changes == 0 {
		d.ev = Event{Op: Idle}
		return &d.ev, nil
	}
	d.n++
	if d.n%(d.changes+1) == 0 {
		d.ev = Event{Op: Commit, Txn: "7", Cursor: "1"}
		return &d.ev, nil
	}
	d.ev = Event{Op: d.op, Table: trivialTable.ID, Txn: "7", Row: d.row}
	return &d.ev, nil
}

// trivialTx throws documents away, as the real one does once they are written.
type trivialTx struct {
	buf  []byte
	size int
	docs int
}

func (tx *trivialTx) Append(_ capture.Target, enc func([]byte) ([]byte, error)) (err error) {
	if len(tx.buf) > 1<<20 {
		tx.buf = tx.buf[:0]
	}
	n := len(tx.buf)
	tx.buf, err = enc(tx.buf)
	tx.size += len(tx.buf) - n
	tx.docs++
	return err
}

func (tx *trivialTx) AppendDoc(b capture.Target, doc []byte) error {
	return tx.Append(b, func(dst []byte) ([]byte, error) { return append(dst, doc...), nil })
}

func (tx *trivialTx) Size() int                              { return tx.size }
func (tx *trivialTx) Schema(capture.Target, json.RawMessage) {}
func (tx *trivialTx) Save(capture.Target)                    {}
func (tx *trivialTx) SetShared(any)                          {}
func (tx *trivialTx) Forget(string)                          {}
func (tx *trivialTx) OnAck(func(context.Context) error)      {}

// trivialReader opens a session over the trivial driver, whose table is live or still to be backfilled.
func trivialReader(tb testing.TB, d *trivialDriver, p Phase) *reader {
	tb.Helper()
	if d.row == nil {
		d.row = trivialRow{key: []byte("key")}
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	b := &capture.Binding[Resource, TableState]{
		Resource: Resource{Namespace: "public", Stream: "orders"}, StateKey: "k",
		State: TableState{Phase: p}, Collection: capture.Destination{Key: []string{"/id"}},
	}
	r, err := open(tb.Context(), session{
		driver: d, opts: Options{Rediscovery: time.Hour, BackfillWorkers: 2}.withDefaults(), limits: defaultLimits(),
		env:      capture.Env{Log: logrus.NewEntry(log)},
		bindings: []*capture.Binding[Resource, TableState]{b}, pool: newWorkers(tb.Context(), d),
		now: time.Now, rand: rand.New(rand.NewPCG(1, 1)),
	})
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = r.close() })
	require.NoError(tb, r.read(tb.Context(), &trivialTx{}))
	return r
}

// TestSteadyStateAllocatesNothing: the documents of a live table cost no allocation; a capture transaction of thousands of
// them costs a few.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	for name, op := range map[string]Op{"insert": Insert, "update": Update} {
		t.Run(name, func(t *testing.T) {
			r := trivialReader(t, &trivialDriver{changes: 100, op: op}, Live)
			tx := &trivialTx{buf: make([]byte, 0, 2<<20)}
			allocs := testing.AllocsPerRun(20, func() {
				tx.size = 0
				require.NoError(t, r.read(t.Context(), tx))
			})
			require.Greater(t, tx.docs, 10_000)
			require.Less(t, allocs, 20.0, "for about 5,000 documents")
		})
	}
}

// TestWorkersAndReader runs goroutines, for the race detector: several workers fill chunks while the reader reads the log.
func TestWorkersAndReader(t *testing.T) {
	d := &trivialDriver{scan: 20_000, changes: 50, op: Update}
	r := trivialReader(t, d, Pending)
	tx := &trivialTx{}
	for deadline := time.Now().Add(time.Minute); r.tables[0].state.Phase != Live; {
		require.True(t, time.Now().Before(deadline))
		tx.size = 0
		require.NoError(t, r.read(t.Context(), tx))
	}
	require.Greater(t, tx.docs, 20_000)
	require.Nil(t, r.spare)
}

// BenchmarkStream is what a change of a live table costs above its driver and its transaction's buffer. The budget is
// 150 ns; the plain loop below it is what the driver and the buffer cost by themselves.
func BenchmarkStream(b *testing.B) {
	d := &trivialDriver{changes: 10, op: Insert}
	r := trivialReader(b, d, Live)
	tx := &trivialTx{}
	b.ReportAllocs()
	for b.Loop() {
		tx.size = 0
		start := tx.docs
		for tx.docs < start+10_000 {
			tx.size = 0
			require.NoError(b, r.read(b.Context(), tx))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(tx.docs), "ns/doc")
}

// BenchmarkPlain appends the same documents without the core.
func BenchmarkPlain(b *testing.B) {
	d := &trivialDriver{changes: 10, op: Insert, row: trivialRow{}}
	tx := &trivialTx{}
	doc := document{op: opCreate, rules: &rules{limit: capture.MaxDocument}}
	enc := doc.append
	b.ReportAllocs()
	for b.Loop() {
		for range 10_000 {
			ev, err := d.Next(b.Context(), 0)
			if err != nil || ev.Row == nil {
				continue
			}
			doc.row = ev.Row
			_ = tx.Append(nil, enc)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(tx.docs), "ns/doc")
}

// BenchmarkBackfill is what a row of a backfill costs, on worker and reader together.
func BenchmarkBackfill(b *testing.B) {
	b.ReportAllocs()
	docs := 0
	for b.Loop() {
		r := trivialReader(b, &trivialDriver{scan: 500_000}, Pending)
		tx := &trivialTx{}
		for r.tables[0].state.Phase != Live {
			tx.size = 0
			require.NoError(b, r.read(b.Context(), tx))
		}
		docs += tx.docs
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(docs), "ns/doc")
}
