package host

import (
	"context"
	"errors"
	"io"
	"time"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// CaptureSession is a connector that captures. Next, Buffered and State are for one goroutine; Acknowledge, Stop and Kill may be called
// by others. Wait or Close ends it, and must be called.
type CaptureSession struct {
	proc     *Process
	bindings []*flowpb.CaptureSpec_Binding
	acks     *acknowledger // nil if the connector did not ask for any
	state    []byte        // as of the newest checkpoint
	pending  bool          // something came after it
	valid    func(binding int, doc []byte) bool

	document capturepb.Response // with captured, for every document
	captured capturepb.Response_Captured
	other    capturepb.Response
}

func newCaptureSession(p *Process, valid func(int, []byte) bool, request *capturepb.Request_Open, opened *capturepb.Response_Opened) (*CaptureSession, error) {
	s := &CaptureSession{proc: p, bindings: request.Capture.GetBindings(), state: request.StateJson, valid: valid}
	if valid == nil {
		s.valid = func(_ int, doc []byte) bool { return jsonscan.Valid(doc) }
	}
	s.document.Captured = &s.captured
	if opened.ExplicitAcknowledgements {
		s.acks = newAcknowledger(p)
	} else if err := p.CloseInput(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Name is what the connector is called in messages.
func (s *CaptureSession) Name() string { return s.proc.Name() }

// Process is the connector's process, to be looked at: the session reads and writes it.
func (s *CaptureSession) Process() *Process { return s.proc }

// WantsAcknowledgements reports whether the connector asked for acknowledgements. Without, Acknowledge does nothing.
func (s *CaptureSession) WantsAcknowledgements() bool { return s.acks != nil }

// Next returns the connector's next response: Captured, SourcedSchema, Checkpoint, BackfillBegin or BackfillComplete. It is valid, with
// all its memory, until the next call. Its binding is one of the specification's, and a document is a JSON object. io.EOF is the
// end of the output, after which Wait tells whether all was well.
func (s *CaptureSession) Next() (*capturepb.Response, error) {
	body, err := s.proc.Next()
	if err != nil {
		return nil, err
	}
	if capturepb.ParseCaptured(s.proc.Codec, body, &s.captured) {
		return &s.document, s.checkDocument(&s.captured)
	}
	s.other.Reset()
	if err := s.proc.Codec.Unmarshal(body, &s.other); err != nil {
		return nil, usererr.New(err, "%s sent a response that cannot be read: %v", s.proc.Name(), err)
	}
	return &s.other, s.take(&s.other)
}

// take judges a response other than a plain document, and keeps the state.
func (s *CaptureSession) take(r *capturepb.Response) error {
	switch {
	case r.Captured != nil:
		return s.checkDocument(r.Captured)
	case r.Checkpoint != nil:
		s.pending = false
		update := r.Checkpoint.State
		if len(update.GetUpdatedJson()) == 0 { // peers send an empty update for none
			return nil
		}
		state, err := flowpb.ReduceState(s.state, update)
		if err != nil {
			return usererr.New(err, "%s sent a checkpoint whose state is not JSON", s.proc.Name())
		}
		s.state = state
		return nil
	case r.SourcedSchema != nil:
		s.pending = true
		return s.checkBinding("a schema", r.SourcedSchema.Binding)
	case r.BackfillBegin != nil:
		s.pending = true
		return s.checkBinding("a mark", r.BackfillBegin.Binding)
	case r.BackfillComplete != nil:
		s.pending = true
		return s.checkBinding("a mark", r.BackfillComplete.Binding)
	}
	return connector.Unexpected("Captured, SourcedSchema or Checkpoint", r)
}

func (s *CaptureSession) checkDocument(m *capturepb.Response_Captured) error {
	s.pending = true
	if err := s.checkBinding("a document", m.Binding); err != nil {
		return err
	}
	if doc := m.DocJson; jsonscan.Kind(doc) != '{' || !s.valid(int(m.Binding), doc) {
		return usererr.New(nil, "%s sent something that is not a JSON object as a document of %s: %.60q", s.proc.Name(), s.bindings[m.Binding].GetCollection().GetName(), doc)
	}
	return nil
}

func (s *CaptureSession) checkBinding(what string, index uint32) error {
	if int(index) < len(s.bindings) {
		return nil
	}
	return usererr.New(nil, "%s sent %s of binding %d, and there are only %d", s.proc.Name(), what, index, len(s.bindings))
}

// Buffered reports whether Next would return without waiting. What Next has returned is not valid any more.
func (s *CaptureSession) Buffered() bool { return s.proc.Buffered() }

// State is the connector's state as of the last checkpoint that Next returned: what the next session is opened with. It is not changed
// afterwards.
func (s *CaptureSession) State() []byte { return s.state }

// Acknowledge tells the connector that so many more of its checkpoints are durable. It never waits, also if the connector is slow to
// read; one that ends before it has read them sees them as its state when it is opened again.
func (s *CaptureSession) Acknowledge(checkpoints int) {
	if s.acks != nil && checkpoints > 0 {
		s.acks.add(checkpoints)
	}
}

// Stop asks the connector to end at its next checkpoint, and kills it if it has not after the grace. It returns when the process has
// ended; Next has to be called meanwhile, until io.EOF, and what it returns counts.
func (s *CaptureSession) Stop(grace time.Duration) { s.proc.Stop(grace) }

// Kill ends the connector at once.
func (s *CaptureSession) Kill() { s.proc.Kill() }

// Wait waits for the end of a connector whose output has ended, and kills it when the context is over. It returns nil if the connector ended
// by itself, with code 0, behind a checkpoint.
func (s *CaptureSession) Wait(ctx context.Context) error {
	if s.acks != nil {
		s.acks.stop()
	}
	if exit := s.proc.Wait(ctx); exit != nil {
		return exit
	}
	if s.pending {
		return usererr.New(io.ErrUnexpectedEOF, "%s ended in the middle of a checkpoint; what it sent since the last one is dropped", s.proc.Name())
	}
	return nil
}

// Close kills the connector and waits for its end; it returns why it ended, which after a kill is an *[ExitError] mostly.
func (s *CaptureSession) Close() error {
	s.proc.Kill()
	if s.acks != nil {
		s.acks.stop()
	}
	return s.proc.Wait(context.Background())
}
