package materialize

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// session is one open connector. One goroutine reads the log and writes requests (this one), another reads responses.
type session struct {
	task      *Task
	host      *host.MaterializeSession
	bindings  []*binding
	positions *positions // as committed
	state     []byte     // as committed
	from      *beginning // of bindings without a position, until the first commit

	// streams: all bindings are delta updates. Nothing is asked for or reduced, so documents go from the log to the connector
	// as they are, in transactions that are larger than memory.
	streams bool

	mu           sync.Mutex   // of what the receiver uses, too: which transaction is this one, and what is in it
	txn          *transaction // this one
	ahead        *transaction // the next one, which is read while this one is stored
	loads        []*entry     // of the next one, for which Loads have to be sent when it is this one
	acknowledged bool
	asked        bool // a Load was sent in this transaction
	evolved      bool // a binding's next documents need a newer schema
	turn         int  // which binding is read first
	frames       materializeFrames
}

// materializeFrames are requests that are written again and again.
type materializeFrames struct {
	load  materializepb.Request_Load
	store materializepb.Request_Store
	key   []byte
	value []byte
}

// open starts a connector and opens it with the state.
func (t *Task) open(ctx context.Context, p *prepared) (*session, error) {
	s := &session{task: t, state: p.state, streams: true}
	spec := p.spec
	for i, b := range spec.Bindings {
		bound, err := newBinding(i, b, p.versions[i], t.Status.Binding(strings.Join(b.ResourcePath, "."), b.Collection.Name))
		if err != nil {
			return nil, err
		}
		if bound.delta && slices.Contains(t.Compacted, bound.source) {
			return nil, usererr.New(nil, "%s: the materialization %s appends every change of the collection %s, and the log keeps only the last document of each key of it (topics.compact): leave the collection out of that and begin with a new topics.prefix, or have the binding keep current rows instead",
				t.at(bound), t.Def.Name, bound.source)
		}
		s.bindings = append(s.bindings, bound)
		s.streams = s.streams && bound.delta
	}
	var err error
	s.txn, s.ahead = newTransaction(len(s.bindings), &s.mu), newTransaction(len(s.bindings), &s.mu)
	s.host, err = t.host().Open(ctx, &materializepb.Request_Open{Materialization: spec, Version: p.version, StateJson: p.state, Range: t.Shard.Range()}, s.onLoaded)
	if err != nil {
		return nil, err
	}
	s.host.SlowAfter, s.host.OnSlow = t.Timeouts.Remind, func(waiting string, took time.Duration) {
		t.Logger.WithFields(map[string]any{"waiting": waiting, "took": took.Round(time.Second).String()}).Warn("the connector takes long")
	}
	if err := s.resume(s.host.Opened()); err != nil {
		return nil, s.abandon(ctx, err)
	}
	if !s.host.LoadOptional() {
		return s, nil
	}
	for i, b := range s.bindings {
		if err := b.skipLoads(spec.Bindings[i]); err != nil {
			return nil, s.abandon(ctx, err)
		}
	}
	return s, nil
}

// resume finds where to read on. If the destination keeps a checkpoint, even an empty one, that is the truth; else it
// is ours, which was committed together with the connector's state.
func (s *session) resume(opened *materializepb.Response_Opened) (err error) {
	if opened.RuntimeCheckpoint != nil {
		s.positions, err = newPositions(s.task.Log, opened.RuntimeCheckpoint)
	} else {
		s.positions, err = s.task.storedPositions()
	}
	if err != nil {
		return err
	}
	if s.from, err = s.task.beginning(); err != nil {
		return err
	}
	for _, b := range s.bindings {
		b.known = map[string]int64{}
		for _, h := range s.task.heads(b.source) {
			name := sourceName(h.Journal, b.stateKey)
			offset, began := s.positions.sources[name]
			if began {
				err = s.checkKept(b, h, offset)
			} else {
				offset, err = s.start(b, h)
			}
			if err != nil {
				return err
			}
			s.positions.sources[name], b.known[name] = offset, offset
		}
	}
	s.confirm()
	return nil
}

// confirm notes that the destination has what was committed.
func (s *session) confirm() {
	has := maps.Clone(s.positions.sources)
	s.task.confirmed.Store(&has)
}

// abandon ends a connector that failed.
func (s *session) abandon(ctx context.Context, err error) error {
	_ = s.host.Close() // the error is known
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// run goes from transaction to transaction. When the task stops it finishes the one it is in; a connector that takes
// too long for that is killed, which costs nothing but the work.
func (s *session) run(ctx context.Context) error {
	s.task.Status.Set(status.Running)
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(s.task.Timeouts.Stop, s.host.Kill)
		context.AfterFunc(working, func() { timer.Stop() })
	})()
	for {
		s.turnOver()
		more, err := s.cycle(ctx, working)
		if err != nil {
			return s.abandon(ctx, s.host.Explain(err))
		}
		if !more {
			break
		}
	}
	if err := s.end(working); err != nil {
		return s.abandon(ctx, s.host.Explain(err))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errEvolved
}

// turnOver makes the next transaction this one.
func (s *session) turnOver() {
	s.txn.reset()
	s.mu.Lock()
	s.txn, s.ahead = s.ahead, s.txn
	s.mu.Unlock()
	s.acknowledged, s.asked = false, false
}

// cycle is one transaction. It returns false, with nothing half done, when the session has to end.
func (s *session) cycle(ctx, working context.Context) (bool, error) {
	if err := s.host.Acknowledge(); err != nil {
		return false, err
	}
	if err := s.gather(ctx); err != nil || s.txn.empty() {
		return false, err
	}
	flushed, err := s.host.Flush(working)
	if err != nil {
		return false, err
	}
	if err := s.keepState(working, flushed); err != nil {
		return false, err
	}
	settle := s.readAhead(ctx)
	if err = s.store(ctx); err == nil {
		err = s.commit(working)
	}
	if aheadErr := settle(err != nil); err == nil {
		err = aheadErr
	}
	return err == nil, err
}

// onLoaded is called from the receiver's goroutine, between Acknowledged and Flushed.
func (s *session) onLoaded(index uint32, doc []byte) error {
	s.mu.Lock()
	x := s.txn
	s.mu.Unlock()
	return x.loaded(s.bindings[index], doc)
}

// keepState makes a state durable that must be so before anything is stored.
func (s *session) keepState(ctx context.Context, update *flowpb.ConnectorState) error {
	if len(update.GetUpdatedJson()) == 0 {
		return nil
	}
	state, err := flowpb.ReduceState(s.state, update)
	if err != nil {
		return err
	}
	s.state = state
	return s.task.Store.Put(ctx, wal.Records{s.task.own("state"): state})
}

// commit ends the transaction: the connector gets the positions to keep them with its rows, and we keep them together
// with the state that it returns.
func (s *session) commit(ctx context.Context) error {
	maps.Copy(s.positions.sources, s.txn.read)
	cp := s.positions.checkpoint()
	started, err := s.host.StartCommit(ctx, cp)
	if err != nil {
		return err
	}
	if len(started.GetUpdatedJson()) > 0 { // peers send an empty update for none
		if s.state, err = flowpb.ReduceState(s.state, started); err != nil {
			return err
		}
	}
	encoded, err := proto.Marshal(cp)
	if err != nil {
		return fmt.Errorf("encoding the checkpoint of %s: %w", s.task.Def.Name, err)
	}
	changes := wal.Records{s.task.own("checkpoint"): encoded, s.task.own("state"): s.state}
	if s.from != nil {
		s.from.used(s.task, changes) // the checkpoint has it
		s.from = nil
	}
	if err := s.task.Store.Put(ctx, changes); err != nil {
		return err
	}
	s.report()
	return nil
}

// end closes the input behind the Acknowledge of an empty transaction, and waits for the connector to end. Closing it before
// Acknowledged is here tells a connector that holds it back, to let documents gather, that nothing more will come.
func (s *session) end(ctx context.Context) error {
	if err := s.host.CloseInput(); err != nil {
		return err
	}
	if !s.acknowledged {
		update, err := s.host.Await(ctx, host.Acknowledged)
		if err == nil {
			err = s.onAcknowledged(update)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return s.host.Wait(ctx, s.task.Timeouts.Stop)
}

// onAcknowledged keeps the state that comes with Acknowledged, a best effort by the protocol, before the next commit does.
func (s *session) onAcknowledged(update *flowpb.ConnectorState) error {
	s.acknowledged = true
	s.confirm()
	return s.keepState(context.Background(), update)
}
