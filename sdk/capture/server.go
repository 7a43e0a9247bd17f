package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/sirupsen/logrus"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/process"
)

// Server answers the requests of one runtime. Its zero value, with a Connector, speaks the proto codec and logs nothing.
type Server struct {
	Connector Connector
	Codec     frame.Codec
	Log       *logrus.Entry // nil discards
}

// Serve answers the requests that come from in on out, in the proto codec, until in ends, ctx ends, or the session that
// an Open started ends. See Server.Serve.
func Serve(ctx context.Context, c Connector, in io.Reader, out io.Writer) error {
	return Server{Connector: c}.Serve(ctx, in, out)
}

// Serve answers the requests that come from in on out: any number of Spec, Discover, Validate and Apply, with one response
// each, then at most one Open, whose session is the rest of the conversation.
//
// It returns nil when in ended between requests, when the source's Reader returned io.EOF, or when ctx ended, and out then
// ends at the end of a transaction. Otherwise the error says what was wrong; usererr.Message makes it readable.
//
// A runtime that never acknowledges may close in after Open; the session goes on. One that has acknowledged and then closes
// in wants no more: the session ends with the transaction in hand.
//
// Requests are read in goroutines of their own. If in is an io.Closer, Serve closes it at the end and waits for them;
// otherwise the last one ends with the next thing that in returns.
func (s Server) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	if s.Log == nil {
		s.Log = logrus.NewEntry(process.Discard())
	}
	c := &conversation{Server: s, in: in, out: out, requests: frame.NewReader(in, s.Codec, 0)}
	defer c.release()
	for {
		req, err := c.next(ctx)
		switch {
		case errors.Is(err, io.EOF) || (err != nil && ctx.Err() != nil):
			return nil
		case err != nil:
			return err
		}
		if req.Open != nil {
			return c.session(ctx, req.Open)
		}
		res, err := s.answer(ctx, req)
		if err == nil {
			err = c.send(res)
		}
		switch {
		case err != nil && ctx.Err() != nil:
			return nil // the echo of the stop
		case err != nil:
			return err
		}
	}
}

// conversation is one call of Serve.
type conversation struct {
	Server
	in       io.Reader
	out      io.Writer
	requests *frame.Reader
	reading  sync.WaitGroup // whoever waits for in
}

// next waits for the next request, or for ctx to end.
func (c *conversation) next(ctx context.Context) (*capturepb.Request, error) {
	req := &capturepb.Request{}
	read := make(chan error, 1)
	c.reading.Go(func() { read <- c.requests.Read(req) })
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case err := <-read:
		if err != nil {
			return nil, fmt.Errorf("reading a request: %w", err)
		}
	}
	if err := errors.Join(req.Check(), req.InlineCollections()); err != nil {
		return nil, fmt.Errorf("checking a request: %w", err)
	}
	return req, nil
}

func (c *conversation) send(res *capturepb.Response) error {
	text, err := frame.Append(nil, c.Codec, res)
	if err == nil {
		_, err = c.out.Write(text)
	}
	if err != nil {
		return fmt.Errorf("writing a response: %w", err)
	}
	return nil
}

// release ends the goroutine that may still be reading, if it can be woken.
func (c *conversation) release() {
	if closer, ok := c.in.(io.Closer); ok {
		_ = closer.Close() // it only wakes the reader
		c.reading.Wait()
	}
}

// answer makes the one response to a request other than Open.
func (s Server) answer(ctx context.Context, req *capturepb.Request) (*capturepb.Response, error) {
	res := &capturepb.Response{}
	var err error
	switch {
	case req.Spec != nil:
		res.Spec, err = s.Connector.spec()
	case req.Discover != nil:
		res.Discovered, err = s.Connector.discover(ctx, s.Log, req.Discover)
	case req.Validate != nil:
		res.Validated, err = s.Connector.validate(ctx, s.Log, req.Validate)
	case req.Apply != nil:
		res.Applied, err = s.Connector.apply(ctx, s.Log, req.Apply)
	case req.Acknowledge != nil:
		err = errors.New("the runtime sent Acknowledge before Open; only an opened session has checkpoints to acknowledge")
	default:
		err = errors.New("the runtime sent a request that this connector does not know")
	}
	return res, err
}

// requestKind names a request in messages.
func requestKind(req *capturepb.Request) string {
	switch {
	case req.Spec != nil:
		return "Spec"
	case req.Discover != nil:
		return "Discover"
	case req.Validate != nil:
		return "Validate"
	case req.Apply != nil:
		return "Apply"
	case req.Open != nil:
		return "a second Open"
	default:
		return "an unknown request"
	}
}

// session opens the capture and runs it to its end.
func (c *conversation) session(ctx context.Context, req *capturepb.Request_Open) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	opened, err := c.Connector.open(ctx, c.Log, req, opening{})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // the echo of the stop
	case err != nil:
		return err
	}
	defer opened.close(c.Log)
	err = c.send(&capturepb.Response{Opened: &capturepb.Response_Opened{ExplicitAcknowledgements: true}})
	if err != nil {
		return err
	}
	wire := &wireOutput{out: c.out}
	failed := make(chan error, 1)
	c.reading.Go(func() {
		if err := readAcks(ctx, c.Log, c.requests, &wire.ledger, opened.outlet); err != nil {
			failed <- err
			stop() // the pump ends at the end of its transaction
		}
	})
	err = newPump(opened, form{codec: c.Codec}).run(ctx, wire)
	select {
	case ackErr := <-failed:
		if !errors.Is(ackErr, errRequestsEnded) && !errors.Is(ackErr, context.Canceled) {
			return ackErr
		}
	default:
	}
	return err
}

// close gives the source's resources back.
func (s *session) close(log *logrus.Entry) {
	c, ok := s.reader.(io.Closer)
	if !ok {
		return
	}
	if err := c.Close(); err != nil {
		log.WithField("err", err.Error()).Debug("closing the source")
	}
}

// wireOutput writes transactions as the protocol's frames.
type wireOutput struct {
	out    io.Writer
	ledger ledger
}

func (w *wireOutput) write(_ context.Context, buf []byte, c *commit) error {
	if c != nil {
		w.ledger.add(c) // before the write: the acknowledgement may come while it still returns
	}
	if _, err := w.out.Write(buf); err != nil {
		return fmt.Errorf("writing to the runtime: %w", err)
	}
	return nil
}
