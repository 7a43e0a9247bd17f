package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/usererr"
)

const (
	blockBytes = 256 << 10 // a block of documents is handed to the log when it is so large
	groupBytes = 4 << 20   // checkpoints are committed together up to this size …
	groupTime  = 25 * time.Millisecond
)

// session is one open connector. One goroutine reads it, groups its checkpoints and commits them; another one sends
// acknowledgements, since the connector may be slow to read them.
//
//	Captured…  Checkpoint  Captured…  Checkpoint  Captured…          (as they arrive)
//	└──────── group: committed together ────────┘ └─ open: not yet ─┘
type session struct {
	task    *Task
	proc    *connector.Process
	writer  wal.Writer
	streams []*stream // by collection
	byIndex []*binding
	acks    *acknowledger // nil if the connector did not ask for any

	state   []byte // as of the newest checkpoint
	ready   int    // checkpoints in the group
	since   time.Time
	size    int  // bytes of the group and of what is open
	pending bool // something came after the newest checkpoint
	message capturepb.Response_Captured
	origins *jsonscan.Pointers
}

// stream gathers the documents of one collection.
type stream struct {
	collection string
	block      wal.Block
	ready      wal.Mark // behind the documents of whole checkpoints
}

type binding struct {
	stream *stream
	status *status.Binding
	docs   int // since the last commit
	bytes  int
	last   []byte      // the newest document
	told   atomic.Bool // the connector logs its phase
}

// open starts a connector and opens it with the state.
func (t *Task) open(ctx context.Context, spec *flowpb.CaptureSpec, version string, state []byte) (*session, error) {
	writer, err := t.Log.Writer(t.Def.Name)
	if err != nil {
		return nil, err
	}
	s := &session{task: t, writer: writer, state: state, origins: newOrigins()}
	byName := map[string]*stream{}
	for i, b := range t.Def.Bindings {
		st := byName[b.Target]
		if st == nil {
			st = &stream{collection: b.Target}
			st.block.Schema = t.Collections.Current(b.Target).Number
			byName[b.Target] = st
			s.streams = append(s.streams, st)
		}
		s.byIndex = append(s.byIndex, &binding{stream: st, status: t.Status.Binding(pathName(spec.Bindings[i].ResourcePath), b.Target)})
	}
	if s.proc, err = t.Launcher.Start(ctx, &t.Def.Endpoint, t.Def.Name, t.Logger, s.onLog); err != nil {
		return nil, err
	}
	opened, err := s.handshake(ctx, &capturepb.Request_Open{Capture: spec, Version: version, Range: specs.FullRange(), StateJson: state})
	if err != nil {
		return nil, s.abandon(ctx, err)
	}
	if opened.ExplicitAcknowledgements {
		s.acks = newAcknowledger(s.proc)
	} else if err := s.proc.CloseInput(); err != nil {
		return nil, s.abandon(ctx, err)
	}
	return s, nil
}

func pathName(path []string) string {
	var name strings.Builder
	for i, part := range path {
		if i > 0 {
			name.WriteString(".")
		}
		name.WriteString(part)
	}
	return name.String()
}

func (s *session) handshake(ctx context.Context, open *capturepb.Request_Open) (*capturepb.Response_Opened, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.task.Timeouts.Answer, errSlow)
	defer cancel()
	defer context.AfterFunc(ctx, s.proc.Kill)()
	specX, _ := s.task.specExchange()
	if err := s.proc.Exchange(specX); err != nil {
		return nil, slowly(ctx, s, err)
	}
	response := &capturepb.Response{}
	err := s.proc.Exchange(connector.Exchange{
		Name: "Open", Request: &capturepb.Request{Open: open}, Response: response,
		Check: func() error {
			if response.Opened == nil {
				return connector.Unexpected("Opened", response)
			}
			return nil
		},
	})
	if err != nil {
		return nil, slowly(ctx, s, err)
	}
	return response.Opened, nil
}

var errSlow = errors.New("the connector did not answer in time")

// slowly replaces the error of a connector that was killed because it did not answer.
func slowly(ctx context.Context, s *session, err error) error {
	if errors.Is(context.Cause(ctx), errSlow) {
		return usererr.New(err, "%s did not answer Open within %s and was stopped", s.proc.Name(), s.task.Timeouts.Answer)
	}
	return err
}

// abandon ends a connector that failed.
func (s *session) abandon(ctx context.Context, err error) error {
	if s.acks != nil {
		s.acks.stop()
	}
	s.proc.Kill()
	exit := s.proc.Wait(context.Background())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return exit
	}
	return err
}

// run reads until the connector ends or the context is over. Then it asks the connector to end, and still keeps the
// whole checkpoints that it sends until then.
func (s *session) run(ctx context.Context) error {
	s.task.Status.Set(status.Running)
	stopped := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.proc.Stop(s.task.Timeouts.Stop)
	})
	err := s.read(ctx)
	if unwatch() {
		close(stopped)
	}
	if ctx.Err() != nil {
		<-stopped
	}
	if err != nil {
		return s.abandon(ctx, err)
	}
	return s.finish(ctx)
}

// finish waits for a connector whose output has ended.
func (s *session) finish(ctx context.Context) error {
	if s.acks != nil {
		s.acks.stop()
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.task.Timeouts.Stop)
	defer cancel()
	exit := s.proc.Wait(wait)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case exit != nil:
		return exit
	case s.pending:
		return usererr.New(nil, "%s ended in the middle of a checkpoint; what it sent since the last one is dropped", s.proc.Name())
	}
	return nil
}

// read handles responses until the output ends. Before it waits for more it commits what is complete, so a checkpoint
// is durable as soon as the disk allows; under load checkpoints pile up while one commit runs, and share the next.
func (s *session) read(ctx context.Context) error {
	// Commits outlive the context: the last checkpoints count too.
	commitCtx := context.WithoutCancel(ctx)
	for {
		if s.ready > 0 && (s.size >= groupBytes || !s.proc.Buffered() || time.Since(s.since) > groupTime) {
			if err := s.commit(commitCtx); err != nil {
				return err
			}
		}
		body, err := s.proc.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if capturepb.ParseCaptured(s.proc.Codec, body, &s.message) {
			err = s.captured(commitCtx, int(s.message.Binding), s.message.DocJson)
		} else {
			err = s.other(commitCtx, body)
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) captured(ctx context.Context, index int, doc []byte) error {
	if index >= len(s.byIndex) {
		return usererr.New(nil, "%s sent a document of binding %d, and there are only %d", s.proc.Name(), index, len(s.byIndex))
	}
	b := s.byIndex[index]
	if jsonscan.Kind(doc) != '{' || !jsonscan.Valid(doc) {
		return usererr.New(nil, "%s sent something that is not a JSON object as a document of %s: %.60q", s.proc.Name(), b.stream.collection, doc)
	}
	block := &b.stream.block
	before := block.Size()
	block.Add(doc)
	s.size += block.Size() - before
	b.docs++
	b.bytes += len(doc)
	b.last = append(b.last[:0], doc...)
	s.pending = true
	if block.Size() < blockBytes {
		return nil
	}
	return s.seal(ctx, b.stream)
}

// seal hands a full block to the log. Whole checkpoints that it holds are committed first: a block cannot be divided
// once the log has it.
func (s *session) seal(ctx context.Context, st *stream) error {
	if s.ready > 0 {
		if err := s.commit(ctx); err != nil {
			return err
		}
	}
	if st.block.Count == 0 {
		return nil
	}
	s.size -= st.block.Size()
	err := s.writer.Append(st.collection, &st.block)
	st.block.Reset()
	return err
}

// other handles every response but a plain document.
func (s *session) other(ctx context.Context, body []byte) error {
	var r capturepb.Response
	if err := s.proc.Codec.Unmarshal(body, &r); err != nil {
		return usererr.New(err, "%s sent a response that cannot be read: %v", s.proc.Name(), err)
	}
	switch {
	case r.Captured != nil:
		return s.captured(ctx, int(r.Captured.Binding), r.Captured.DocJson)
	case r.Checkpoint != nil:
		return s.checkpoint(r.Checkpoint.State)
	case r.SourcedSchema != nil:
		return s.announced(ctx, r.SourcedSchema)
	case r.BackfillBegin != nil, r.BackfillComplete != nil:
		// Marks for readers that drop what was captured before; ours keep it, which is never wrong.
		s.task.Logger.WithField("event", connector.Which(&r)).Debug("ignored a backfill marker")
		return nil
	}
	return connector.Unexpected("Captured, SourcedSchema or Checkpoint", &r)
}

func (s *session) checkpoint(update *flowpb.ConnectorState) error {
	if len(update.GetUpdatedJson()) > 0 { // peers send an empty update for none
		state, err := flowpb.ReduceState(s.state, update)
		if err != nil {
			return usererr.New(err, "%s sent a checkpoint whose state is not JSON", s.proc.Name())
		}
		s.state = state
	}
	for _, st := range s.streams {
		st.ready = st.block.Mark()
	}
	if s.ready == 0 {
		s.since = time.Now()
	}
	s.ready++
	s.pending = false
	return nil
}

// announced takes a schema that the source says its documents have. By the protocol it takes effect at the next
// checkpoint, wherever it stands before it: documents of the open checkpoint may need it already.
func (s *session) announced(ctx context.Context, m *capturepb.Response_SourcedSchema) error {
	if int(m.Binding) >= len(s.byIndex) {
		return usererr.New(nil, "%s sent a schema of binding %d, and there are only %d", s.proc.Name(), m.Binding, len(s.byIndex))
	}
	s.pending = true
	st := s.byIndex[m.Binding].stream
	version, err := s.task.Collections.Announce(ctx, st.collection, m.SchemaJson)
	if err != nil {
		return err
	}
	if version.Number == st.block.Schema {
		return nil
	}
	s.task.Logger.WithFields(map[string]any{"collection": st.collection, "version": version.Number}).Info("the collection's schema changed")
	if s.ready > 0 {
		if err := s.commit(ctx); err != nil {
			return err
		}
	}
	st.block.Schema = version.Number
	return s.writer.Require(st.collection, version.Number)
}

// commit makes the group durable, tells materializations by that, and acknowledges it.
func (s *session) commit(ctx context.Context) error {
	for _, st := range s.streams {
		if st.ready.Empty() {
			continue
		}
		if err := s.writer.Append(st.collection, st.block.Before(st.ready)); err != nil {
			return err
		}
		s.size -= st.ready.Size()
		st.block.Drop(st.ready)
		st.ready = wal.Mark{}
	}
	if err := s.writer.Commit(ctx, wal.Records{s.task.stateName(): s.state}); err != nil {
		return fmt.Errorf("committing a checkpoint of %s: %w", s.task.Def.Name, err)
	}
	s.task.Status.Checkpoint(s.ready)
	s.report()
	if s.acks != nil {
		s.acks.add(s.ready)
	}
	s.ready = 0
	return nil
}
