package materialize

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

// Serve speaks the protocol with a runtime until the runtime ends it, a request fails or ctx ends, and then returns nil,
// the error, or nil. It is what Main calls; tests and tools call it with pipes.
//
// When Serve fails while it waits for the runtime, one goroutine may still be reading from in; Serve closes in, if it is
// an io.Closer, to end it.
func Serve[C, R Config](ctx context.Context, s Sink[C, R], log *logrus.Entry, c frame.Codec, in io.Reader, out io.Writer) error {
	return serve(ctx, adapter[C, R]{s}, log, c, in, out)
}

func serve(ctx context.Context, conn connector, log *logrus.Entry, c frame.Codec, in io.Reader, out io.Writer) error {
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Several can fail at once: the session, the commit that runs beside it, and who waits for that. The first one is the
	// cause; there is room for all.
	ended := make(chan error, 8)
	s := &session{
		conn: conn, log: log,
		in:     newRequests(in, c),
		out:    &responses{w: frame.NewWriter(out, c)},
		failed: func(err error) { ended <- err },
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		ended <- s.run(ctx)
	}()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	cancel()
	if closer, ok := in.(io.Closer); ok && !isDone(finished) {
		_ = closer.Close()
	}
	if parent.Err() != nil {
		return nil
	}
	return err
}

func isDone(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// session is one conversation with a runtime.
type session struct {
	conn   connector
	log    *logrus.Entry
	in     *requests
	out    *responses
	failed func(error)
}

// run answers requests, one response each, until the runtime closes the stream. Open is the last one: the session's
// transactions take the rest of the stream.
func (s *session) run(ctx context.Context) error {
	for {
		m, err := s.in.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading requests: %w", err)
		}
		if m.GetOpen() != nil {
			if err := accept(m); err != nil {
				return err
			}
			return s.transactions(ctx, m.GetOpen())
		}
		response, err := s.answer(ctx, m)
		if err != nil {
			return err
		}
		if err := s.out.send(response); err != nil {
			return err
		}
	}
}

// accept checks a request's structure and brings collections into one form.
func accept(m *materializepb.Request) error {
	if err := m.Check(); err != nil {
		return fmt.Errorf("reading requests: %w", err)
	}
	if err := m.InlineCollections(); err != nil {
		return fmt.Errorf("reading requests: %w", err)
	}
	return nil
}

func (s *session) answer(ctx context.Context, m *materializepb.Request) (*materializepb.Response, error) {
	if err := accept(m); err != nil {
		return nil, err
	}
	res := &materializepb.Response{}
	var err error
	switch {
	case m.GetSpec() != nil:
		res.Spec = s.conn.spec()
	case m.GetValidate() != nil:
		res.Validated, err = s.conn.validate(ctx, s.log, m.GetValidate())
	case m.GetApply() != nil:
		res.Applied, err = s.conn.apply(ctx, s.log, m.GetApply())
	default:
		err = outOfOrder(m, "Spec, Validate, Apply or Open")
	}
	return res, err
}

func (s *session) transactions(ctx context.Context, req *materializepb.Request_Open) (err error) {
	t, shapes, err := s.conn.open(ctx, s.log, req)
	if err != nil {
		return err
	}
	defer func() {
		if closing := t.phases.close(); err == nil && closing != nil {
			err = fmt.Errorf("closing the destination: %w", closing)
		}
	}()
	checkpoint, err := t.phases.open(ctx)
	if err != nil {
		return err
	}
	err = s.out.send(&materializepb.Response{Opened: &materializepb.Response_Opened{
		RuntimeCheckpoint: checkpoint, DisableLoadOptimization: t.LoadAll,
	}})
	if err != nil {
		return err
	}
	l := &loop{in: s.in, out: s.out, t: t, shapes: shapes, failed: s.failed, pace: newPace(t.Interval)}
	err = l.run(ctx)
	// What runs beside the loop is joined before the destination is closed under it.
	if err != nil {
		s.failed(err)
	}
	_ = l.commit.wait()
	_ = l.settler.wait()
	return err
}
