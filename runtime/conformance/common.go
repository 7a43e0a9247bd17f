package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/host"
)

// each checks something in every codec that the connector has.
func (s *suite) each(check func(c *host.Connector) error) error {
	for i, codec := range s.codecs {
		c := s.connector(i)
		if err := inCodec(codec, check(&c)); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) frame(ctx context.Context) error {
	return s.each(func(c *host.Connector) error {
		spec, err := c.Probe(ctx)
		if err != nil {
			return err
		}
		text, err := frame.JSON.AppendBody(nil, spec)
		s.answers[c.Endpoint.Codec] = canonical(text)
		s.watch.look("the answer to Spec", text)
		return err
	})
}

func (s *suite) codecsAgree(context.Context) error {
	if len(s.codecs) < 2 {
		return skipped("it speaks one codec")
	}
	if s.answers[s.codecs[0]] != s.answers[s.codecs[1]] {
		return errors.New("the answers to Spec differ between Protobuf and JSON")
	}
	return nil
}

// exchange sends bytes to a process of its own, ends its input, and gives its answers and how it ended. One that does not end is an error.
func (s *suite) exchange(ctx context.Context, c *host.Connector, send []byte) (answers [][]byte, exit, err error) {
	p, err := c.Start(ctx)
	if err != nil {
		return nil, nil, err
	}
	hung := false
	timer := time.AfterFunc(c.Answer, func() { hung = true; p.Kill() })
	_ = p.Append(func(dst []byte, _ frame.Codec) ([]byte, error) { return append(dst, send...), nil })
	_ = p.Flush() // a connector that does not read says why by its exit
	_ = p.CloseInput()
	for {
		body, err := p.Next()
		if err != nil {
			break
		}
		answers = append(answers, append([]byte(nil), body...))
	}
	exit = p.Wait(ctx)
	if !timer.Stop() && hung {
		return answers, exit, fmt.Errorf("the connector did not end within %s", c.Answer)
	}
	return answers, exit, nil
}

// refuses sends what must be refused.
func (s *suite) refuses(ctx context.Context, c *host.Connector, what string, send []byte) error {
	answers, exit, err := s.exchange(ctx, c, send)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case exit == nil:
		return fmt.Errorf("%s ended the connector with code 0 and %d answers", what, len(answers))
	}
	return s.explained(what, exit)
}

// explained wants a reason in the log of a connector that ended, and that it was its own end.
func (s *suite) explained(what string, exit error) error {
	if e, ok := errors.AsType[*host.ExitError](exit); ok {
		switch {
		case e.Signal != "":
			return fmt.Errorf("%s: the connector was killed by %s", what, e.Signal)
		case e.LastWords == "":
			return fmt.Errorf("%s: the connector logged no reason", what)
		}
	}
	return nil
}

// specFrame is a frame with a Spec request.
func specFrame(codec frame.Codec) ([]byte, error) {
	return frame.Append(nil, codec, &capturepb.Request{Spec: &capturepb.Request_Spec{ConnectorType: 8, ConfigJson: []byte("{}")}})
}

func (s *suite) lenient(ctx context.Context) error {
	return s.each(func(c *host.Connector) error {
		send := []byte(`{"spec":{"connector_type":8,"config":{},"unheardOf":{"a":[1]}},"validate":null,"anotherUnknown":7,"$internal":null}` + "\n")
		if c.Endpoint.Codec == frame.Proto {
			frame, err := specFrame(frame.Proto)
			if err != nil {
				return err
			}
			send = append(frame, 0xe8, 0x07, 0x01) // field 125, of no version that anybody knows
			send[0] += 3
		}
		answers, exit, err := s.exchange(ctx, c, send)
		switch {
		case err != nil:
			return err
		case exit != nil:
			return exit
		case len(answers) != 1:
			return fmt.Errorf("%d answers to one request", len(answers))
		}
		return nil
	})
}

func (s *suite) cutFrame(ctx context.Context) error {
	return s.each(func(c *host.Connector) error {
		whole, err := specFrame(c.Endpoint.Codec)
		if err != nil {
			return err
		}
		return s.refuses(ctx, c, "a request that is cut off", whole[:len(whole)-3])
	})
}

func (s *suite) hugeFrame(ctx context.Context) error {
	if s.codecs[0] != frame.Proto || s.opts.Connector.Endpoint.Image != "" {
		return skipped("only of local connectors that speak Protobuf")
	}
	c := s.connector(0)
	p, err := c.Start(ctx)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, p.Kill)()
	timer := time.AfterFunc(c.Answer, p.Kill)
	defer timer.Stop()
	// Two gigabytes are announced, and the input stays open for a moment: who believes it allocates now.
	_ = p.Append(func(dst []byte, _ frame.Codec) ([]byte, error) {
		return append(dst, 0xf0, 0xff, 0xff, 0x7f, 1, 2, 3), nil
	})
	_ = p.Flush()
	select {
	case <-p.Exited():
	case <-time.After(300 * time.Millisecond):
	}
	peak := peakMemory(p.Pid())
	_ = p.CloseInput()
	for {
		if _, err = p.Next(); err != nil {
			break
		}
	}
	exit := p.Wait(ctx)
	switch {
	case peak > 1<<30:
		return fmt.Errorf("%d MiB were resident after a length of 2 GiB", peak>>20)
	case exit == nil:
		return errors.New("a frame of 2 GiB of which seven bytes came ended the connector with code 0")
	}
	return s.explained("a frame of 2 GiB of which seven bytes came", exit)
}

// wrongOrder sends what may only follow Open, and nothing at all.
func (s *suite) wrongOrder(ctx context.Context) error {
	return s.each(func(c *host.Connector) error {
		acknowledge, err := frame.Append(nil, c.Endpoint.Codec, &capturepb.Request{Acknowledge: &capturepb.Request_Acknowledge{Checkpoints: 1}})
		if s.report.Kind == Materialize {
			acknowledge, err = frame.Append(nil, c.Endpoint.Codec, &materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}})
		}
		if err != nil {
			return err
		}
		if err := s.refuses(ctx, c, "an Acknowledge before Open", acknowledge); err != nil {
			return err
		}
		nothing, err := frame.Append(nil, c.Endpoint.Codec, &capturepb.Request{})
		if err != nil {
			return err
		}
		return s.refuses(ctx, c, "a request without anything in it", nothing)
	})
}

// exitCode asks with a configuration that fits no schema.
func (s *suite) exitCode(ctx context.Context) error {
	c := s.connector(0)
	c.Endpoint.Config = []byte(`{"sluice_conformance":{"no such":["property"]}}`)
	var err error
	if s.report.Kind == Materialize {
		_, err = (&host.Materialization{Connector: c}).Validate(ctx, &materializepb.Request_Validate{})
	} else {
		_, err = (&host.Capture{Connector: c}).Discover(ctx)
	}
	if err == nil {
		return errors.New("a configuration that fits no schema was taken without an error")
	}
	if exit, ok := errors.AsType[*host.ExitError](err); ok {
		return s.explained("a configuration that cannot be used", exit)
	}
	return fmt.Errorf("instead of an exit with a non-zero code: %w", err)
}

func ended(err error) bool { return errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) }
