package capture

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sirupsen/logrus"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
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
// While a session runs, acknowledgements are read in a goroutine of their own. If in is an io.Closer, Serve closes it at
// the end of the session and waits for that goroutine; otherwise the goroutine ends with the next thing that in returns.
func (s Server) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	if s.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		s.Log = logrus.NewEntry(l)
	}
	requests := frame.NewReader(in, s.Codec, 0)
	responses := frame.NewWriter(out, s.Codec)
	for {
		var req capturepb.Request
		err := requests.Read(&req)
		switch {
		case errors.Is(err, io.EOF) || (err != nil && ctx.Err() != nil):
			return nil
		case err != nil:
			return fmt.Errorf("reading a request: %w", err)
		}
		if err := errors.Join(req.Check(), req.InlineCollections()); err != nil {
			return fmt.Errorf("checking the request: %w", err)
		}
		if req.Open != nil {
			return s.session(ctx, req.Open, in, requests, out)
		}
		res, err := s.answer(ctx, &req)
		if err != nil {
			if ctx.Err() != nil && errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
		if err := responses.Write(res); err != nil {
			return fmt.Errorf("writing a response: %w", err)
		}
		if err := responses.Flush(); err != nil {
			return fmt.Errorf("writing a response: %w", err)
		}
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
func (s Server) session(ctx context.Context, req *capturepb.Request_Open, in io.Reader, requests *frame.Reader, out io.Writer) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	opened, err := s.Connector.open(ctx, s.Log, req, false)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	defer func() { opened.close(s.Log) }()

	head, err := frame.Append(nil, s.Codec, &capturepb.Response{
		Opened: &capturepb.Response_Opened{ExplicitAcknowledgements: true},
	})
	if err == nil {
		_, err = out.Write(head)
	}
	if err != nil {
		return fmt.Errorf("writing Opened: %w", err)
	}

	wire := &wireOutput{out: out}
	acks := make(chan error, 1)
	go func() {
		err := readAcks(ctx, s.Log, requests, &wire.ledger)
		if err != nil {
			stop(err) // the pump ends at the end of its transaction
		}
		acks <- err
	}()
	err = newPump(opened, form{codec: s.Codec}).run(ctx, wire)
	cause := context.Cause(ctx)
	stop(nil)
	if c, ok := in.(io.Closer); ok {
		_ = c.Close() // wakes readAcks; its error has nobody to go to
		<-acks
	}
	if err == nil && cause != nil && !errors.Is(cause, errRequestsEnded) && !errors.Is(cause, context.Canceled) {
		return cause
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
