package materialize

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// session is one open connector. One goroutine reads the log and writes requests (this one), another reads responses.
type session struct {
	task      *Task
	proc      *connector.Process
	receiver  *receiver
	bindings  []*binding
	positions *positions // as committed
	state     []byte     // as committed

	// streams: all bindings are delta updates. Nothing is asked for or reduced, so documents go from the log to the connector
	// as they are, in transactions that are larger than memory.
	streams bool

	txn          *transaction
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
func (t *Task) open(ctx context.Context, spec *flowpb.MaterializationSpec, version string, state []byte, versions []*collection.Version) (*session, error) {
	s := &session{task: t, state: state, streams: true}
	for i, b := range spec.Bindings {
		bound, err := newBinding(i, b, versions[i], t.Status.Binding(strings.Join(b.ResourcePath, "."), b.Collection.Name))
		if err != nil {
			return nil, err
		}
		s.bindings = append(s.bindings, bound)
		s.streams = s.streams && bound.delta
	}
	var err error
	if s.proc, err = t.Launcher.Start(ctx, &t.Def.Endpoint, t.Def.Name, t.Logger, nil); err != nil {
		return nil, err
	}
	opened, err := s.handshake(ctx, &materializepb.Request_Open{Materialization: spec, Version: version, Range: specs.FullRange(), StateJson: state})
	if err == nil {
		err = s.resume(opened)
	}
	if err != nil {
		return nil, s.abandon(ctx, err)
	}
	s.txn = newTransaction(len(s.bindings))
	s.receiver = newReceiver(s.proc, s.onLoaded)
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
	for _, b := range s.bindings {
		b.known = map[string]int64{}
		for _, h := range s.task.Log.Heads(b.source) {
			name := sourceName(h.Journal, b.stateKey)
			if _, began := s.positions.sources[name]; !began {
				begin, err := s.task.Store.Get(wal.BeginRecord(h.Journal))
				if err != nil {
					return err
				}
				s.positions.sources[name] = wal.DecodeOffset(begin)
			}
			b.known[name] = s.positions.sources[name]
		}
	}
	return nil
}

var errSlow = errors.New("the connector did not answer in time")

func (s *session) handshake(ctx context.Context, open *materializepb.Request_Open) (*materializepb.Response_Opened, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.task.Timeouts.Answer, errSlow)
	defer cancel()
	defer context.AfterFunc(ctx, s.proc.Kill)()
	specX, _ := SpecExchange(&s.task.Def.Endpoint)
	response := &materializepb.Response{}
	err := s.proc.Exchange(specX)
	if err == nil {
		err = s.proc.Exchange(connector.Exchange{
			Name: "Open", Request: &materializepb.Request{Open: open}, Response: response,
			Check: func() error {
				if response.Opened == nil {
					return connector.Unexpected("Opened", response)
				}
				return nil
			},
		})
	}
	if err != nil && errors.Is(context.Cause(ctx), errSlow) {
		err = usererr.New(err, "%s did not answer Open within %s and was stopped", s.proc.Name(), s.task.Timeouts.Answer)
	}
	return response.Opened, err
}

// abandon ends a connector that failed.
func (s *session) abandon(ctx context.Context, err error) error {
	s.proc.Kill()
	exit := s.proc.Wait(context.Background())
	if s.receiver != nil {
		s.drainEvents()
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		return exit
	}
	return err
}

// drainEvents lets the receiver end, whatever it still wants to say.
func (s *session) drainEvents() {
	for {
		select {
		case <-s.receiver.events:
		case <-s.receiver.done:
			return
		}
	}
}

// run goes from transaction to transaction. When the task stops it finishes the one it is in; a connector that takes
// too long for that is killed, which costs nothing but the work.
func (s *session) run(ctx context.Context) error {
	s.task.Status.Set(status.Running)
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(s.task.Timeouts.Stop, s.proc.Kill)
		context.AfterFunc(working, func() { timer.Stop() })
	})()
	for {
		s.txn.reset()
		s.acknowledged, s.asked = false, false
		more, err := s.cycle(ctx, working)
		if err != nil {
			return s.abandon(ctx, s.explain(err))
		}
		if !more {
			break
		}
	}
	if err := s.end(working); err != nil {
		return s.abandon(ctx, s.explain(err))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errEvolved
}

// explain prefers what was wrong with the connector's output, and then what became of the connector, over what we noticed of it.
func (s *session) explain(err error) error {
	if broken := s.receiver.broken(); broken != nil {
		return broken
	}
	if _, ok := errors.AsType[*connector.ExitError](err); ok {
		return err
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	select {
	case <-s.proc.Exited():
	case <-time.After(5 * time.Second):
	}
	if words := s.proc.ExitErr(); words != nil {
		return words
	}
	return err
}

// cycle is one transaction. It returns false, with nothing half done, when the session has to end.
func (s *session) cycle(ctx, working context.Context) (bool, error) {
	if err := s.send(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}); err != nil {
		return false, err
	}
	if err := s.gather(ctx); err != nil || s.txn.empty() {
		return false, err
	}
	s.receiver.sentFlush()
	if err := s.send(&materializepb.Request{Flush: &materializepb.Request_Flush{}}); err != nil {
		return false, err
	}
	flushed, err := s.await(working, "Flushed")
	if err != nil {
		return false, err
	}
	if err := s.keepState(working, flushed.state); err != nil {
		return false, err
	}
	if err := s.store(ctx); err != nil {
		return false, err
	}
	return true, s.commit(working)
}

// onLoaded is called from the receiver's goroutine, between Acknowledged and Flushed.
func (s *session) onLoaded(index uint32, doc []byte) error {
	if int(index) >= len(s.bindings) {
		return usererr.New(nil, "%s loaded a document of binding %d, and there are only %d", s.proc.Name(), index, len(s.bindings))
	}
	return s.txn.loaded(s.bindings[index], doc)
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
	return s.task.Store.Put(ctx, wal.Records{s.task.record("state"): state})
}

// commit ends the transaction: the connector gets the positions to keep them with its rows, and we keep them together
// with the state that it returns.
func (s *session) commit(ctx context.Context) error {
	maps.Copy(s.positions.sources, s.txn.read)
	cp := s.positions.checkpoint()
	s.receiver.sentCommit()
	if err := s.send(&materializepb.Request{StartCommit: &materializepb.Request_StartCommit{RuntimeCheckpoint: cp}}); err != nil {
		return err
	}
	started, err := s.await(ctx, "StartedCommit")
	if err != nil {
		return err
	}
	if len(started.state.GetUpdatedJson()) > 0 { // peers send an empty update for none
		if s.state, err = flowpb.ReduceState(s.state, started.state); err != nil {
			return err
		}
	}
	encoded, err := proto.Marshal(cp)
	if err != nil {
		return fmt.Errorf("encoding the checkpoint of %s: %w", s.task.Def.Name, err)
	}
	if err := s.task.Store.Put(ctx, wal.Records{s.task.record("checkpoint"): encoded, s.task.record("state"): s.state}); err != nil {
		return err
	}
	s.report()
	return nil
}

// end closes the input behind the Acknowledge of an empty transaction, and waits for the connector to end. Closing it before
// Acknowledged is here tells a connector that holds it back, to let documents gather, that nothing more will come.
func (s *session) end(ctx context.Context) error {
	s.receiver.sentEnd()
	if err := s.proc.CloseInput(); err != nil {
		return fmt.Errorf("ending the requests to %s: %w", s.proc.Name(), err)
	}
	if !s.acknowledged {
		if _, err := s.await(ctx, "Acknowledged"); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	timer := time.AfterFunc(s.task.Timeouts.Stop, s.proc.Kill)
	defer timer.Stop()
	<-s.receiver.done
	if !errors.Is(s.receiver.err, io.EOF) || errors.Is(s.receiver.err, io.ErrUnexpectedEOF) {
		return s.receiver.err
	}
	return s.proc.Wait(ctx)
}

func (s *session) send(m *materializepb.Request) error {
	if err := s.proc.Send(m); err != nil {
		return err
	}
	return s.proc.Flush()
}

// await waits for a response, and reminds the log of a connector that takes long.
func (s *session) await(ctx context.Context, which string) (event, error) {
	remind := time.NewTicker(s.task.Timeouts.Remind)
	defer remind.Stop()
	began := time.Now()
	for {
		select {
		case e := <-s.receiver.events:
			if done, err := s.onEvent(e, which); done || err != nil {
				return e, err
			}
		case <-s.receiver.done:
			// The last response may have come just before the end.
			select {
			case e := <-s.receiver.events:
				if done, err := s.onEvent(e, which); done || err != nil {
					return e, err
				}
			default:
			}
			return event{}, s.receiver.err
		case <-ctx.Done():
			return event{}, ctx.Err()
		case <-remind.C:
			s.task.Logger.WithFields(map[string]any{"waiting": which, "took": time.Since(began).Round(time.Second).String()}).Warn("the connector takes long")
		}
	}
}

// onEvent takes a response; done tells whether it is the one that is waited for.
func (s *session) onEvent(e event, which string) (done bool, err error) {
	if e.which == "Acknowledged" {
		s.acknowledged = true
		// A state that comes with Acknowledged is a best effort, by the protocol. It is kept with the next commit, or now.
		if len(e.state.GetUpdatedJson()) > 0 {
			if err := s.keepState(context.Background(), e.state); err != nil {
				return false, err
			}
		}
	}
	return e.which == which, nil
}
