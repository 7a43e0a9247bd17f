package materialize

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

// loop is the transaction loop. One goroutine reads requests and walks through the states below. Beside it run at most
// two others, both joined in every transaction: the commit of the previous transaction and, waiting for that commit, the
// settler, which writes Acknowledged. Neither needs anything that the runtime would have to send, so a runtime that
// writes all of its loads before it reads an answer is never waited for.
//
//	       ┌──────────────────────────────────────────────────────────────┐
//	       ▼                                                              │
//	idle ─── Acknowledge ──▶ loading ─── Flush ──▶ storing ─── StartCommit┘
//	  │                         │  beside it: the previous commit, then
//	  ▼ end of stream           │  Acknowledged
//	drained                     ▼ end of stream before the first Load
//	                         drained, after Acknowledged
type loop struct {
	in     *requests
	out    *responses
	t      *Transactor
	shapes []shape
	// failed is told of errors on other goroutines at once, since the loop may be waiting for the runtime just then.
	failed func(error)

	state   loopState
	commit  *task // of the previous transaction; nil if there is none
	settler *task // nil before the first Acknowledge
	pace    pace
	// acknowledged is true from just before Acknowledged is written until the next Acknowledge is read.
	acknowledged atomic.Bool
}

type loopState uint8

const (
	idle    loopState = iota // expecting Acknowledge
	loading                  // expecting Load or Flush
	storing                  // expecting Store or StartCommit
	drained                  // the runtime has ended the session
)

// task is a function on its own goroutine.
type task struct {
	done chan struct{}
	err  error // set before done is closed
}

func (l *loop) start(f func() error) *task {
	t := &task{done: make(chan struct{})}
	go func() {
		defer close(t.done)
		if t.err = f(); t.err != nil {
			l.failed(t.err)
		}
	}()
	return t
}

// wait returns the task's error; a nil task is done.
func (t *task) wait() error {
	if t == nil {
		return nil
	}
	<-t.done
	return t.err
}

// run walks through transactions until the runtime ends the session.
func (l *loop) run(ctx context.Context) error {
	for l.state != drained {
		if err := l.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// step reads what the state expects and goes on to the next one.
func (l *loop) step(ctx context.Context) error {
	switch l.state {
	case idle:
		return l.awaitAcknowledge(ctx)
	case loading:
		return l.load(ctx)
	case storing:
		return l.store(ctx)
	default:
		return nil
	}
}

func (l *loop) awaitAcknowledge(ctx context.Context) error {
	m, err := l.in.read()
	if errors.Is(err, io.EOF) {
		// The runtime stops behind a commit of its own. Ours is finished, so that the next session finds it.
		l.state = drained
		return l.commit.wait()
	}
	if err != nil {
		return err
	}
	if m.GetAcknowledge() == nil {
		return outOfOrder(m, "Acknowledge")
	}
	l.acknowledged.Store(false)
	commit := l.commit
	l.commit = nil
	l.settler = l.start(func() error {
		if err := commit.wait(); err != nil {
			return err
		}
		return l.acknowledge(ctx)
	})
	l.state = loading
	return nil
}

func (l *loop) acknowledge(ctx context.Context) error {
	state, err := l.t.phases.acknowledged(ctx)
	if err != nil {
		return err
	}
	l.pace.hold(ctx)
	l.acknowledged.Store(true)
	return l.out.send(&materializepb.Response{Acknowledged: &materializepb.Response_Acknowledged{State: state}})
}

func (l *loop) load(ctx context.Context) error {
	m, err := l.in.peek()
	if errors.Is(err, io.EOF) {
		l.state = drained
		l.pace.hurry()
		return l.settler.wait()
	}
	if err != nil {
		return err
	}
	if m.GetLoad() != nil {
		if err := l.loadKeys(ctx); err != nil {
			return err
		}
	}
	if err := l.awaitFlush(); err != nil {
		return err
	}
	if _, err := l.in.read(); err != nil {
		return err
	}
	l.state = storing
	return l.out.send(&materializepb.Response{Flushed: &materializepb.Response_Flushed{}})
}

// awaitFlush checks that the next request is Flush and that it came in its time. Then the previous transaction is
// visible.
func (l *loop) awaitFlush() error {
	m, err := l.in.peek()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("reading requests: the stream ended inside a transaction: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return err
	}
	if m.GetFlush() == nil {
		return outOfOrder(m, "Load or Flush")
	}
	if !l.acknowledged.Load() {
		return errors.New("Flush came before Acknowledged was sent: the previous transaction is not complete yet")
	}
	return l.settler.wait()
}

func (l *loop) loadKeys(ctx context.Context) error {
	if l.t.loader == nil {
		return errors.New("the runtime asked to load a key, but this destination takes delta updates only")
	}
	keys := newKeys(l.in, l.shapes, l.awaitFlush)
	msg := &materializepb.Response_Loaded{}
	err := l.t.loader.Load(ctx, keys, func(binding int, doc []byte) error {
		switch {
		case !keys.done || keys.err != nil:
			return errors.New("a document was loaded before all keys were read")
		case binding < 0 || binding >= len(l.shapes):
			return fmt.Errorf("a document was loaded for binding %d, there are %d", binding, len(l.shapes))
		}
		msg.Binding, msg.DocJson = uint32(binding), doc
		return l.out.loaded(msg)
	})
	if err != nil {
		return err
	}
	if !keys.done {
		return errors.New("loading ended before all keys were read")
	}
	return keys.err
}

func (l *loop) store(ctx context.Context) error {
	m, err := l.in.peek()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("reading requests: the stream ended inside a transaction: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return err
	}
	l.pace.stored(0, 0)
	if m.GetStore() != nil {
		if err := l.storeRows(ctx); err != nil {
			return err
		}
	}
	if m, err = l.in.read(); err != nil {
		return err
	}
	start := m.GetStartCommit()
	if start == nil {
		return outOfOrder(m, "Store or StartCommit")
	}
	state, commit, err := l.t.phases.startCommit(ctx, start.GetRuntimeCheckpoint())
	if err != nil {
		return err
	}
	if commit != nil {
		l.commit = l.start(func() error { return commit(ctx) })
	}
	l.state = idle
	return l.out.send(&materializepb.Response{StartedCommit: &materializepb.Response_StartedCommit{State: state}})
}

func (l *loop) storeRows(ctx context.Context) error {
	rows := newRows(l.in, l.shapes)
	if err := l.t.phases.store(ctx, rows); err != nil {
		return err
	}
	if !rows.done {
		return errors.New("storing ended before all rows were read")
	}
	l.pace.stored(rows.count, rows.bytes)
	return rows.err
}

// outOfOrder names what came and what could have come.
func outOfOrder(m *materializepb.Request, want string) error {
	return fmt.Errorf("the runtime sent %s where the protocol expects %s", kindOf(m), want)
}

func kindOf(m *materializepb.Request) string {
	switch {
	case m.GetSpec() != nil:
		return "Spec"
	case m.GetValidate() != nil:
		return "Validate"
	case m.GetApply() != nil:
		return "Apply"
	case m.GetOpen() != nil:
		return "Open"
	case m.GetLoad() != nil:
		return "Load"
	case m.GetFlush() != nil:
		return "Flush"
	case m.GetStore() != nil:
		return "Store"
	case m.GetStartCommit() != nil:
		return "StartCommit"
	case m.GetAcknowledge() != nil:
		return "Acknowledge"
	default:
		return "an empty request"
	}
}
