package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// SameResourceError says that two bindings of a materialization write to the same resource.
type SameResourceError struct {
	Binding int // the second of them
	Path    []string
}

func (e *SameResourceError) Error() string {
	return fmt.Sprintf("another binding writes to the same resource %v", e.Path)
}

// MaterializeSession is a connector that materializes. Requests are sent by one goroutine; responses are read by the session's own, which
// enforces the order of the protocol. Wait or Close ends it, and must be called.
//
// A request is copied into a buffer before its method returns: its memory is the caller's again. Load and Store are handed to the
// connector when the buffer is full, by the next other request, or by Push.
type MaterializeSession struct {
	proc     *Process
	spec     *materializepb.Response_Spec
	opened   *materializepb.Response_Opened
	receiver *receiver
	// SlowAfter and OnSlow, if set before use, are how often somebody is told of a response that is waited for.
	SlowAfter time.Duration
	OnSlow    func(waiting string, took time.Duration)
}

func newMaterializeSession(p *Process, request *materializepb.Request_Open, spec *materializepb.Response_Spec, opened *materializepb.Response_Opened,
	loaded func(uint32, []byte) error,
) *MaterializeSession {
	n := len(request.Materialization.GetBindings())
	return &MaterializeSession{proc: p, spec: spec, opened: opened, receiver: newReceiver(p, func(binding uint32, doc []byte) error {
		if int(binding) >= n {
			return usererr.New(nil, "%s loaded a document of binding %d, and there are only %d", p.Name(), binding, n)
		}
		return loaded(binding, doc)
	})}
}

// Name is what the connector is called in messages.
func (s *MaterializeSession) Name() string { return s.proc.Name() }

// Process is the connector's process, to be looked at: the session reads and writes it.
func (s *MaterializeSession) Process() *Process { return s.proc }

// Codec says in which form keys and values are wanted: packed tuples (KeyPacked, ValuesPacked) with Protobuf, arrays (KeyJson, ValuesJson)
// with JSON.
func (s *MaterializeSession) Codec() frame.Codec { return s.proc.Codec }

// Opened is the connector's answer to Open. If it has a RuntimeCheckpoint, even an empty one, the destination keeps the position, and that is where
// to go on; otherwise it is the one that was committed last with the connector's state.
func (s *MaterializeSession) Opened() *materializepb.Response_Opened { return s.opened }

// LoadOptional says that a key which was not loaded in a transaction may be stored in it all the same, as one that exists or as one that
// does not: the connector's resource schema has "x-load-optional": true, and Opened does not ask for every key.
func (s *MaterializeSession) LoadOptional() bool {
	return string(jsonscan.Member(s.spec.GetResourceConfigSchemaJson(), "x-load-optional")) == "true" && !s.opened.GetDisableLoadOptimization()
}

// Acknowledge begins a transaction: all that the connector has committed before is durable on this side, too.
func (s *MaterializeSession) Acknowledge() error {
	return s.send(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}})
}

// Load asks for the stored document of a key, once a transaction, of a binding that is not of delta updates.
func (s *MaterializeSession) Load(m *materializepb.Request_Load) error {
	return s.proc.Append(func(dst []byte, c frame.Codec) ([]byte, error) { return materializepb.AppendLoad(dst, c, m), nil })
}

// Flush ends the loading, once Acknowledged has been received, and waits for Flushed: every document that was found has been handed over then.
// The state, if there is one, has to be durable before the first Store.
func (s *MaterializeSession) Flush(ctx context.Context) (*flowpb.ConnectorState, error) {
	s.receiver.sentFlush()
	if err := s.send(&materializepb.Request{Flush: &materializepb.Request_Flush{}}); err != nil {
		return nil, err
	}
	return s.Await(ctx, Flushed)
}

// Store stores a row: once for each key and transaction, or every document if the binding is of delta updates.
func (s *MaterializeSession) Store(m *materializepb.Request_Store) error {
	return s.proc.Append(func(dst []byte, c frame.Codec) ([]byte, error) { return materializepb.AppendStore(dst, c, m), nil })
}

// StartCommit ends the storing, and waits for StartedCommit. The checkpoint and the state have to be made durable by the caller, in one
// step, before the next Acknowledge.
func (s *MaterializeSession) StartCommit(ctx context.Context, checkpoint *flowpb.Checkpoint) (*flowpb.ConnectorState, error) {
	s.receiver.sentCommit()
	if err := s.send(&materializepb.Request{StartCommit: &materializepb.Request_StartCommit{RuntimeCheckpoint: checkpoint}}); err != nil {
		return nil, err
	}
	return s.Await(ctx, StartedCommit)
}

// Push hands buffered requests to the connector.
func (s *MaterializeSession) Push() error { return s.proc.Flush() }

func (s *MaterializeSession) send(m *materializepb.Request) error {
	if err := s.proc.Send(m); err != nil {
		return err
	}
	return s.proc.Flush()
}

// Await waits for a response, and gives the state that came with it. A state of Acknowledged is a best effort, by the protocol.
func (s *MaterializeSession) Await(ctx context.Context, which string) (*flowpb.ConnectorState, error) {
	var remind <-chan time.Time
	if s.OnSlow != nil {
		ticker := time.NewTicker(s.SlowAfter)
		defer ticker.Stop()
		remind = ticker.C
	}
	for began := time.Now(); ; {
		select {
		case e := <-s.receiver.events:
			return s.expected(e, which)
		case <-s.receiver.done:
			// The last response may have come just before the end.
			select {
			case e := <-s.receiver.events:
				return s.expected(e, which)
			default:
			}
			return nil, s.receiver.err
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-remind:
			s.OnSlow(which, time.Since(began))
		}
	}
}

func (s *MaterializeSession) expected(e Event, which string) (*flowpb.ConnectorState, error) {
	if e.Which == which {
		return e.State, nil
	}
	return nil, usererr.New(nil, "%s sent %s where %s was expected", s.proc.Name(), e.Which, which)
}

// Events gives responses to those who wait for other things, too; Await takes them from here. There is never more than one.
func (s *MaterializeSession) Events() <-chan Event { return s.receiver.events }

// Done is closed when no more responses will come; Err says why.
func (s *MaterializeSession) Done() <-chan struct{} { return s.receiver.done }

// Err is why there are no more responses, once Done is closed.
func (s *MaterializeSession) Err() error {
	select {
	case <-s.receiver.done:
		return s.receiver.err
	default:
		return nil
	}
}

// CloseInput ends the session behind an Acknowledge to which no Load was added. A connector that holds Acknowledged back, to let documents
// gather, learns by it that nothing more will come.
func (s *MaterializeSession) CloseInput() error {
	s.receiver.sentEnd()
	if err := s.proc.CloseInput(); err != nil {
		return fmt.Errorf("ending the requests to %s: %w", s.proc.Name(), err)
	}
	return nil
}

// Wait waits for the end of the connector after CloseInput and Acknowledged, and kills it after the grace. It returns nil if it ended with code 0.
func (s *MaterializeSession) Wait(ctx context.Context, grace time.Duration) error {
	timer := time.AfterFunc(grace, s.proc.Kill)
	defer timer.Stop()
	<-s.receiver.done
	if !errors.Is(s.receiver.err, io.EOF) || errors.Is(s.receiver.err, io.ErrUnexpectedEOF) {
		return s.receiver.err
	}
	return s.proc.Wait(ctx)
}

// Kill ends the connector at once.
func (s *MaterializeSession) Kill() { s.proc.Kill() }

// Close kills the connector and waits for its end, whatever it still wants to say; it returns why it ended, which after a kill is an
// *[ExitError] mostly.
func (s *MaterializeSession) Close() error {
	s.proc.Kill()
	exit := s.proc.Wait(context.Background())
	for {
		select {
		case <-s.receiver.events:
		case <-s.receiver.done:
			return exit
		}
	}
}

// Explain prefers what was wrong with the connector's output, and then what became of the connector, over an error that was noticed when
// requests were written or responses awaited.
func (s *MaterializeSession) Explain(err error) error {
	if broken := s.receiver.broken(); broken != nil {
		return broken
	}
	if _, ok := errors.AsType[*ExitError](err); ok {
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
