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
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/runtime/infer"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/jsonscan"
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
	host    *host.CaptureSession
	writer  wal.Writer
	streams []*stream // by collection
	byIndex []*binding
	ready   int // checkpoints in the group
	since   time.Time
	size    int // bytes of documents since the last commit
	origins *jsonscan.Pointers
}

// stream gathers the documents of one collection.
type stream struct {
	collection string
	block      wal.Block
	ready      wal.Mark    // behind the documents of whole checkpoints
	watch      *infer.Tree // learns from them; nil if the schema says all
	leftOut    bool        // it was told that not everything is learned
}

type binding struct {
	stream *stream
	status *status.Binding
	name   string // of the resource
	docs   int    // since the last commit
	bytes  int
	last   []byte      // the newest document
	told   atomic.Bool // the connector logs its phase
}

// open starts a connector and opens it with the state.
func (t *Task) open(ctx context.Context, spec *flowpb.CaptureSpec, version string, state []byte) (*session, error) {
	writer, err := t.Log.Writer(t.writerName())
	if err != nil {
		return nil, err
	}
	s := &session{task: t, writer: writer, origins: newOrigins()}
	byName := map[string]*stream{}
	for i, b := range t.Def.Bindings {
		st := byName[b.Target]
		if st == nil {
			st = &stream{collection: b.Target}
			version, watch, err := t.Collections.Watch(b.Target)
			if err != nil {
				return nil, err
			}
			st.block.Schema, st.watch = version.Number, watch
			byName[b.Target] = st
			s.streams = append(s.streams, st)
		}
		name := pathName(spec.Bindings[i].ResourcePath)
		s.byIndex = append(s.byIndex, &binding{stream: st, name: name, status: t.Status.Binding(name, b.Target)})
	}
	c := t.host()
	c.OnLog, c.Valid = s.onLog, s.valid
	s.host, err = c.Open(ctx, &capturepb.Request_Open{Capture: spec, Version: version, StateJson: state, Range: t.Shard.Range()})
	if err != nil {
		return nil, err
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

// abandon ends a connector that failed.
func (s *session) abandon(ctx context.Context, err error) error {
	_ = s.host.Close() // the error is known
	if ctx.Err() != nil {
		return ctx.Err()
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
		s.host.Stop(s.task.Timeouts.Stop)
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
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.task.Timeouts.Stop)
	defer cancel()
	exit := s.host.Wait(wait)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return exit
}

// read handles responses until the output ends. Before it waits for more it commits what is complete, so a checkpoint
// is durable as soon as the disk allows; under load checkpoints pile up while one commit runs, and share the next.
func (s *session) read(ctx context.Context) error {
	// Commits outlive the context: the last checkpoints count too.
	commitCtx := context.WithoutCancel(ctx)
	for {
		if s.ready > 0 && (s.size >= groupBytes || !s.host.Buffered() || time.Since(s.since) > groupTime) {
			if err := s.commit(commitCtx); err != nil {
				return err
			}
		}
		r, err := s.host.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if r.Captured != nil {
			err = s.captured(commitCtx, int(r.Captured.Binding), r.Captured.DocJson)
		} else {
			err = s.other(commitCtx, r)
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) captured(ctx context.Context, index int, doc []byte) error {
	b := s.byIndex[index]
	block := &b.stream.block
	block.AddFrom(b.name, doc)
	s.size += len(doc)
	b.docs++
	b.bytes += len(doc)
	b.last = append(b.last[:0], doc...)
	if block.Size() < blockBytes {
		return nil
	}
	return s.seal(ctx, b.stream)
}

// seal hands a full block to the log. What the log has is part of the next commit, so the documents of the open checkpoint stay here as long as
// whole ones wait to be committed: these are handed over alone, or are committed first if that does not make room.
func (s *session) seal(ctx context.Context, st *stream) error {
	if err := s.hand(ctx, st); err != nil || st.block.Size() < blockBytes {
		return err
	}
	if s.ready > 0 {
		if err := s.commit(ctx); err != nil {
			return err
		}
	}
	st.ready = st.block.Mark() // of what is committed with the next checkpoint, whichever that is
	return s.hand(ctx, st)
}

// hand gives the log what may be part of the next commit.
func (s *session) hand(ctx context.Context, st *stream) error {
	if st.ready.Empty() {
		return nil
	}
	if err := s.learn(ctx, st); err != nil {
		return err
	}
	if err := s.writer.Append(st.collection, st.block.Before(st.ready)); err != nil {
		return err
	}
	st.block.Drop(st.ready)
	st.ready = wal.Mark{}
	return nil
}

// other handles every response but a document.
func (s *session) other(ctx context.Context, r *capturepb.Response) error {
	switch {
	case r.Checkpoint != nil:
		s.checkpoint()
	case r.SourcedSchema != nil:
		return s.announced(ctx, r.SourcedSchema)
	default:
		// Marks for readers that drop what was captured before; ours keep it, which is never wrong.
		s.task.Logger.Debug("ignored a backfill marker")
	}
	return nil
}

func (s *session) checkpoint() {
	for _, st := range s.streams {
		st.ready = st.block.Mark()
	}
	if s.ready == 0 {
		s.since = time.Now()
	}
	s.ready++
}

// announced takes a schema that the source says its documents have. By the protocol it takes effect at the next
// checkpoint, wherever it stands before it: documents of the open checkpoint may need it already.
func (s *session) announced(ctx context.Context, m *capturepb.Response_SourcedSchema) error {
	st := s.byIndex[m.Binding].stream
	if _, err := s.task.Collections.Announce(ctx, st.collection, m.SchemaJson); err != nil {
		return err
	}
	// Not the version of the announcement: what is known may be more by now.
	version, watch, err := s.task.Collections.Watch(st.collection)
	if err != nil {
		return err
	}
	if watch != nil {
		// The documents that are still at hand are looked at again: of what the source has said now, which may be more than documents
		// show, such as that a text is a date, nothing is to be learned from them.
		if err := st.block.Docs(func(doc []byte) error { watch.Valid(doc); return nil }); err != nil {
			return err
		}
	}
	st.watch = watch
	if version.Number == st.block.Schema {
		return nil
	}
	s.task.Logger.WithFields(map[string]any{"collection": st.collection, "version": version.Number}).Info("the collection's schema changed")
	if s.ready > 0 {
		if err := s.commit(ctx); err != nil {
			return err
		}
	}
	st.block.Schema = max(st.block.Schema, version.Number) // committing may have brought more
	return s.writer.Require(st.collection, version.Number)
}

// commit makes the group durable, tells materializations by that, and acknowledges it.
func (s *session) commit(ctx context.Context) error {
	s.size = 0
	for _, st := range s.streams {
		if err := s.hand(ctx, st); err != nil {
			return err
		}
		s.size += st.block.Size()
	}
	if err := s.writer.Commit(ctx, wal.Records{s.task.stateName(): s.host.State()}); err != nil {
		return fmt.Errorf("committing a checkpoint of %s: %w", s.task.Def.Name, err)
	}
	s.task.Status.Checkpoint(s.ready)
	s.report()
	s.host.Acknowledge(s.ready)
	s.ready = 0
	return nil
}
