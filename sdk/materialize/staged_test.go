package materialize_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// work is a piece of staged work whose members differ from one transaction to the next.
type work struct {
	Number uint64            `json:"number"`
	Parts  map[string]string `json:"parts"`
}

// ledger is what numbered stores were told, over all sessions.
type ledger struct {
	mu    sync.Mutex
	lines []string
}

func (l *ledger) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// take returns the lines since the last call.
func (l *ledger) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.lines
	l.lines = nil
	return out
}

// numberedSink opens stores that write down what they are asked.
type numberedSink struct {
	memSink
	ledger   *ledger
	interval time.Duration
}

func (s numberedSink) Open(
	_ context.Context, _ materialize.Env, _ memConfig, bindings []*materialize.Binding[memResource],
) (*materialize.Transactor, error) {
	for _, b := range bindings {
		if b.Leaving {
			s.ledger.note("leaving %s", b.Target.Path[0])
		}
	}
	t := materialize.Staged(numberedStore{s})
	t.Interval = s.interval
	return t, nil
}

type numberedStore struct{ numberedSink }

func (s numberedStore) Resume(_ context.Context, committed map[materialize.KeyRange]uint64, pending []work) error {
	s.ledger.note("resume %v %v", committed, pending)
	return nil
}

func (s numberedStore) Stage(_ context.Context, number uint64, rows *materialize.Rows) (work, error) {
	n := 0
	for rows.Next() {
		n++
	}
	s.ledger.note("stage %d", number)
	return work{number, map[string]string{fmt.Sprint("part of ", number): fmt.Sprint(n)}}, rows.Err()
}

func (s numberedStore) Apply(_ context.Context, staged work) error {
	s.ledger.note("apply %v", staged)
	return nil
}

func (numberedStore) Close() error { return nil }

func numberedRuntime(t *testing.T, interval time.Duration) (*sinktest.Runtime, sinktest.Case, *ledger) {
	t.Helper()
	l := &ledger{}
	c := memCase(newDisk(), true)
	c.Start = func(t testing.TB, codec frame.Codec) sinktest.Process {
		t.Helper()
		return start(t, numberedSink{memSink{d: newDisk(), dead: &atomic.Bool{}}, l, interval}, codec)
	}
	r := sinktest.NewRuntime(t, c, frame.Proto, sinktest.Task{Name: "acme/numbered", Config: c.Config, Bindings: []sinktest.Binding{
		{Collection: simple(), Resource: c.Resource("t", true)},
	}})
	r.Batch = 1
	r.MustApply()
	return r, c, l
}

// A transaction that was not committed is repeated under its number; a committed one's number is never used again, and
// work that was committed and not applied is handed to the next session.
func TestStagedNumbers(t *testing.T) {
	t.Parallel()
	r, _, l := numberedRuntime(t, 0)
	r.Log = []sinktest.Change{{Doc: `{"id":1}`}, {Doc: `{"id":2}`}}
	killAt := func(name string, nth int) {
		count := 0
		r.Step = func(p *sinktest.Peer, step string) {
			if step == name {
				if count++; count == nth {
					p.Kill()
				}
			}
		}
	}
	killAt("StartedCommit", 2)
	require.Error(t, r.Run())
	require.Equal(t, []string{
		"resume map[] []", "stage 1", "apply {1 map[part of 1:1]}", "stage 2",
	}, l.take(), "the first session")
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":3}`})
	before, position := r.State, r.Position
	killAt("", 0)
	require.NoError(t, r.Run())
	second := []string{
		"resume map[00000000-ffffffff:2] [{2 map[part of 2:1]}]", "apply {2 map[part of 2:1]}", "stage 3", "apply {3 map[part of 3:1]}",
	}
	require.Equal(t, second, l.take(), "the second session")
	r.State, r.Position = before, position // as if the runtime had crashed before it committed anything
	require.NoError(t, r.Run())
	require.Equal(t, second, l.take(), "the third session repeats the second")
	require.JSONEq(t, `{"staged":{},"transactions":{"00000000-ffffffff":3}}`, string(r.State))
}

// Numbers go on behind those of every range that overlaps, and what a range left belongs to exactly one of its successors.
func TestStagedNumbersOfSplitAndJoinedRanges(t *testing.T) {
	t.Parallel()
	r, _, l := numberedRuntime(t, 0)
	r.State = json.RawMessage(`{"staged":{"00000000-ffffffff":[{"number":7}]},"transactions":{"00000000-ffffffff":7}}`)
	r.Log = []sinktest.Change{{Doc: `{"id":1}`}}
	r.Range = &flowpb.RangeSpec{KeyBegin: 0x80000000, KeyEnd: 0xffffffff}
	require.NoError(t, r.Run())
	require.Equal(t, []string{"resume map[] []", "stage 8", "apply {8 map[part of 8:1]}"}, l.take())
	r.Position = 0
	r.Range = &flowpb.RangeSpec{KeyBegin: 0, KeyEnd: 0x7fffffff}
	require.NoError(t, r.Run())
	require.Equal(t, []string{"resume map[00000000-ffffffff:7] [{7 map[]}]", "apply {7 map[]}", "stage 8", "apply {8 map[part of 8:1]}"}, l.take())
	r.Position, r.Range = 0, nil
	require.NoError(t, r.Run())
	require.Equal(t, []string{
		"resume map[00000000-7fffffff:8 00000000-ffffffff:7 80000000-ffffffff:8] []", "stage 9", "apply {9 map[part of 9:1]}",
	}, l.take())
}

// A runtime may lose the state that comes with Acknowledged. The next transaction's work then takes the place of the old
// as a whole, and what an older range left is taken out for certain.
func TestLostPatchOfAppliedWork(t *testing.T) {
	t.Parallel()
	r, c, _ := numberedRuntime(t, 0)
	r.State = json.RawMessage(`{"staged":{"00000000-0fffffff":[{"number":4}],"00000000-ffffffff":[{"number":5,"parts":{"old":"x"}}]},"transactions":{"00000000-ffffffff":5}}`)
	p := sinktest.Start(t, c, frame.Proto)
	require.NoError(t, r.Open(p))
	require.NotNil(t, p.MustCall(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}).GetAcknowledged(), "its state is lost")
	require.NotNil(t, p.MustCall(&materializepb.Request{Flush: &materializepb.Request_Flush{}}).GetFlushed())
	require.NoError(t, p.Send(&materializepb.Request{Store: &materializepb.Request_Store{KeyPacked: tuple.AppendInt(nil, 1)}}))
	started := p.MustCall(&materializepb.Request{StartCommit: &materializepb.Request_StartCommit{RuntimeCheckpoint: sinktest.CheckpointAt(1)}})
	state, err := flowpb.ReduceState(r.State, started.GetStartedCommit().GetState())
	require.NoError(t, err)
	require.JSONEq(t, `{"staged":{"00000000-ffffffff":[{"number":6,"parts":{"part of 6":"1"}}]},"transactions":{"00000000-ffffffff":6}}`, string(state))
}

// A session that only finishes staged work knows which bindings are about to go.
func TestStagedWorkOfLeavingBindings(t *testing.T) {
	t.Parallel()
	r, _, l := numberedRuntime(t, 0)
	r.State = json.RawMessage(`{"staged":{"00000000-ffffffff":[{"number":1}]}}`)
	r.MustApply()
	require.Equal(t, []string{"apply {1 map[]}"}, l.take())
	r.State = json.RawMessage(`{"staged":{"00000000-ffffffff":[{"number":1}]}}`)
	r.Task.Bindings[0].Backfill++
	r.MustApply()
	require.Equal(t, []string{"leaving t", "apply {1 map[]}"}, l.take())
}

// Transactions are kept apart by the interval; the first begins at once.
func TestInterval(t *testing.T) {
	t.Parallel()
	const interval = 400 * time.Millisecond
	r, _, _ := numberedRuntime(t, interval)
	r.Log = []sinktest.Change{{Doc: `{"id":1}`}, {Doc: `{"id":2}`}, {Doc: `{"id":3}`}}
	began := time.Now()
	require.NoError(t, r.Run())
	require.GreaterOrEqual(t, time.Since(began), 3*interval)
}

// A runtime that ends the session behind Acknowledge is not kept waiting.
func TestIntervalEndsWithTheSession(t *testing.T) {
	t.Parallel()
	r, c, l := numberedRuntime(t, time.Hour)
	p := sinktest.Start(t, c, frame.Proto)
	require.NoError(t, r.Open(p))
	ack := &materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}
	require.NotNil(t, p.MustCall(ack).GetAcknowledged())
	require.NotNil(t, p.MustCall(&materializepb.Request{Flush: &materializepb.Request_Flush{}}).GetFlushed())
	require.NoError(t, p.Send(&materializepb.Request{Store: &materializepb.Request_Store{KeyPacked: tuple.AppendInt(nil, 1)}}))
	require.NotNil(t, p.MustCall(&materializepb.Request{StartCommit: &materializepb.Request_StartCommit{RuntimeCheckpoint: sinktest.CheckpointAt(1)}}).GetStartedCommit())
	require.NoError(t, p.Send(ack))
	p.CloseRequests()
	m, err := p.Next()
	require.NoError(t, err)
	require.NotNil(t, m.GetAcknowledged())
	require.NoError(t, p.Wait())
	require.Equal(t, []string{"resume map[] []", "stage 1", "apply {1 map[part of 1:1]}"}, l.take())
}
