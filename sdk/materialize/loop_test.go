package materialize_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
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

// slowStore lets a test decide when a commit ends, and sees what is loaded meanwhile.
type slowStore struct {
	atomicStore
	commit   chan error    // Commit returns what it receives
	readKeys chan struct{} // receives when a key is read
}

func (s slowStore) Commit(ctx context.Context, cp materialize.Checkpoint) error {
	if err := <-s.commit; err != nil {
		return err
	}
	return s.atomicStore.Commit(ctx, cp)
}

func (s slowStore) Load(_ context.Context, keys *materialize.Keys, found func(int, []byte) error) error {
	early := false
	for keys.Next() {
		if !early {
			early = true
			if err := found(keys.Binding(), []byte("{}")); err == nil {
				return errors.New("a document could be loaded before all keys were read")
			}
		}
		s.readKeys <- struct{}{}
	}
	return keys.Err()
}

// slowSink opens slow stores.
type slowSink struct {
	memSink
	commit   chan error
	readKeys chan struct{}
}

func (s slowSink) Open(
	_ context.Context, env materialize.Env, cfg memConfig, bindings []*materialize.Binding[memResource],
) (*materialize.Transactor, error) {
	store := atomicStore{&memStore{memSink: s.memSink, task: env.Task, cfg: cfg, bindings: bindings}}
	return materialize.Atomic(slowStore{store, s.commit, s.readKeys}), nil
}

func simple() sinktest.Collection {
	return sinktest.Collection{Name: "acme/t", Columns: []sinktest.Column{{Name: "id", Types: []string{"integer"}, Key: true}}}
}

// startSlow opens a session that has stored one row and started to commit it.
func startSlow(t *testing.T) (p *sinktest.Peer, commit chan error, readKeys chan struct{}) {
	t.Helper()
	d := newDisk()
	c := memCase(d, false)
	commit, readKeys = make(chan error), make(chan struct{}, 100_000)
	r := sinktest.NewRuntime(t, c, frame.Proto, sinktest.Task{Name: "acme/slow", Config: c.Config, Bindings: []sinktest.Binding{
		{Collection: simple(), Resource: c.Resource("t", false)},
	}})
	r.MustApply()
	c.Start = func(t testing.TB, codec frame.Codec) sinktest.Process {
		t.Helper()
		return start(t, slowSink{memSink{d: d, dead: &atomic.Bool{}}, commit, readKeys}, codec)
	}
	p = sinktest.Start(t, c, frame.Proto)
	require.NoError(t, r.Open(p))
	require.NotNil(t, p.MustCall(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}).GetAcknowledged())
	require.NotNil(t, p.MustCall(&materializepb.Request{Flush: &materializepb.Request_Flush{}}).GetFlushed())
	require.NoError(t, p.Send(&materializepb.Request{Store: &materializepb.Request_Store{KeyPacked: tuple.AppendInt(nil, 1)}}))
	started := p.MustCall(&materializepb.Request{StartCommit: &materializepb.Request_StartCommit{RuntimeCheckpoint: sinktest.CheckpointAt(1)}})
	require.NotNil(t, started.GetStartedCommit(), "StartedCommit does not wait for the commit")
	return p, commit, readKeys
}

func loadOf(id int) *materializepb.Request {
	return &materializepb.Request{Load: &materializepb.Request_Load{KeyPacked: tuple.AppendInt(nil, int64(id))}}
}

// Keys of the next transaction are read while the previous one commits; Acknowledged comes only when it has. The
// runtime reads nothing until it has written fifty thousand loads.
func TestLoadsOverlapTheCommit(t *testing.T) {
	t.Parallel()
	p, commit, readKeys := startSlow(t)
	require.NoError(t, p.Send(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}))
	for i := range 50_000 {
		require.NoError(t, p.Send(loadOf(i)))
	}
	for range 50_000 {
		<-readKeys
	}
	commit <- nil
	m, err := p.Next()
	require.NoError(t, err)
	require.NotNil(t, m.GetAcknowledged())
	require.NotNil(t, p.MustCall(&materializepb.Request{Flush: &materializepb.Request_Flush{}}).GetFlushed())
}

func TestFlushBeforeAcknowledged(t *testing.T) {
	t.Parallel()
	p, commit, _ := startSlow(t)
	require.NoError(t, p.Send(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}))
	require.NoError(t, p.Send(&materializepb.Request{Flush: &materializepb.Request_Flush{}}))
	defer close(commit)
	_, err := p.Next()
	require.Error(t, err)
	require.ErrorContains(t, p.Wait(), "Flush came before Acknowledged was sent")
}

// A commit that fails ends the session at once, also while the runtime has nothing to say.
func TestFailedCommitEndsTheSession(t *testing.T) {
	t.Parallel()
	for _, acknowledge := range []bool{false, true} {
		p, commit, _ := startSlow(t)
		if acknowledge {
			require.NoError(t, p.Send(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}))
		}
		commit <- errors.New("the disk is full")
		_, err := p.Next()
		require.Error(t, err)
		require.ErrorContains(t, p.Wait(), "the disk is full")
	}
}

// The runtime may close the stream behind a commit, or behind Acknowledge: both are clean ends, after the commit.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, acknowledge := range []bool{false, true} {
		p, commit, _ := startSlow(t)
		if acknowledge {
			require.NoError(t, p.Send(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}))
		}
		p.CloseRequests()
		commit <- nil
		if acknowledge {
			m, err := p.Next()
			require.NoError(t, err)
			require.NotNil(t, m.GetAcknowledged())
		}
		require.NoError(t, p.Wait())
	}
}

// Presence decides: an empty checkpoint is the destination's word that it has nothing, an absent one says nothing.
func TestOpenedCheckpoint(t *testing.T) {
	t.Parallel()
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		for _, staged := range []bool{false, true} {
			c := memCase(newDisk(), staged)
			r := sinktest.NewRuntime(t, c, codec, sinktest.Task{Name: "acme/t", Config: c.Config, Bindings: []sinktest.Binding{
				{Collection: simple(), Resource: c.Resource("t", false)},
			}})
			r.MustApply()
			res := sinktest.Start(t, c, codec).MustCall(&materializepb.Request{Open: &materializepb.Request_Open{
				Materialization: r.Applied, Version: "1", Range: flowpb.FullRange(), StateJson: []byte("{}"),
			}})
			require.Equal(t, !staged, res.GetOpened().RuntimeCheckpoint != nil)
		}
	}
}

// Staged work of an earlier specification is applied before anything changes its shape, and the state says so before the
// second call does the rest (hard case 58).
func TestApplyDrainsStagedWork(t *testing.T) {
	t.Parallel()
	d := newDisk()
	c := memCase(d, true)
	r := sinktest.NewRuntime(t, c, frame.Proto, sinktest.Task{Name: "acme/t", Config: c.Config, Bindings: []sinktest.Binding{
		{Collection: simple(), Resource: c.Resource("t", false)},
	}})
	r.MustApply()
	r.Log = []sinktest.Change{{Doc: `{"id":1}`}}
	r.Step = func(p *sinktest.Peer, name string) {
		if name == "StartedCommit" {
			p.Kill() // committed, and not applied
		}
	}
	require.Error(t, r.Run())
	require.Empty(t, d.rows("t"))
	require.Contains(t, string(r.State), "file-1")

	r.Task.Bindings[0].Collection.Columns = append(r.Task.Bindings[0].Collection.Columns, sinktest.Column{Name: "new", Types: []string{"string"}, May: true})
	require.Equal(t, "Added new. ", r.MustApply())
	require.Len(t, d.rows("t"), 1)
	require.NotContains(t, string(r.State), "file-1")
}

// After a split of the key range, exactly one of the new sessions applies what the old one had staged.
func TestStagedWorkOfASplitRange(t *testing.T) {
	t.Parallel()
	d := newDisk()
	c := memCase(d, true)
	r := sinktest.NewRuntime(t, c, frame.Proto, sinktest.Task{Name: "acme/t", Config: c.Config, Bindings: []sinktest.Binding{
		{Collection: simple(), Resource: c.Resource("t", true)},
	}})
	r.MustApply()
	d.files["file-9"] = []memRow{{table: "t", values: map[string]any{"id": 1}, delta: true}}
	state := json.RawMessage(`{"staged":{"00000000-ffffffff":[{"name":"file-9"}]}}`)
	for i, keys := range []*flowpb.RangeSpec{{KeyBegin: 0x80000000, KeyEnd: 0xffffffff}, {KeyBegin: 0, KeyEnd: 0x7fffffff}} {
		r.Range, r.State = keys, state
		require.NoError(t, r.Run())
		require.Len(t, d.rows("t"), i)
	}
	require.NotContains(t, string(r.State), "file-9")
}

// A signal ends a session cleanly, wherever it is.
func TestCancel(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	in, _ := newPipe(t)
	done := make(chan error, 1)
	go func() {
		done <- materialize.Serve(ctx, memSink{d: newDisk(), dead: &atomic.Bool{}}, quiet(), frame.Proto, in, &strings.Builder{})
	}()
	cancel()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		require.FailNow(t, "Serve goes on after its context has ended")
	}
}
