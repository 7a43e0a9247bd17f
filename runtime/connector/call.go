package connector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Exchange is a request and where its response goes.
type Exchange struct {
	Name     string // for messages: Spec, Validate …
	Request  proto.Message
	Response proto.Message
	// Check looks at the response; its error ends the exchange.
	Check func() error
}

// Call starts a connector for a few exchanges, one after the other, ends its input and waits until it has ended. A
// connector that does not answer within the timeout is killed. onLog may be nil. Errors are for people.
func (l *Launcher) Call(ctx context.Context, e *pipeline.Endpoint, task string, log *logrus.Entry, onLog func(Line), timeout time.Duration, exchanges ...Exchange) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errNoAnswer)
	defer cancel()
	p, err := l.Start(ctx, e, task, log, onLog)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, p.Kill)
	defer stop()
	err = p.converse(exchanges)
	if err == nil {
		err = p.end()
	}
	if err != nil {
		p.Kill()
	}
	exit := p.Wait(ctx)
	switch {
	case errors.Is(context.Cause(ctx), errNoAnswer):
		return usererr.New(err, "%s did not answer within %s and was stopped%s", p.name, timeout, p.lastSaid())
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	}
	return exit
}

var errNoAnswer = errors.New("no answer in time")

// Converse does exchanges with a running connector.
func (p *Process) converse(exchanges []Exchange) error {
	for _, x := range exchanges {
		if err := p.Exchange(x); err != nil {
			return err
		}
	}
	return nil
}

// Exchange sends one request and reads its response. Errors are for people.
func (p *Process) Exchange(x Exchange) error {
	if err := errors.Join(p.Send(x.Request), p.Flush()); err != nil {
		return fmt.Errorf("sending %s: %w", x.Name, err)
	}
	err := p.Receive(x.Response)
	if errors.Is(err, io.EOF) {
		return p.endedEarly(x.Name)
	}
	if err != nil {
		return err
	}
	if x.Check != nil {
		return x.Check()
	}
	return nil
}

// endedEarly is the error for an output that ended instead of an answer.
func (p *Process) endedEarly(waitingFor string) error {
	if exit := p.waitExit(10 * time.Second); exit != nil {
		return exit
	}
	return usererr.New(io.ErrUnexpectedEOF, "%s ended its output without an answer to %s%s", p.name, waitingFor, p.lastSaid())
}

// end closes the input and expects the output to end without a further message.
func (p *Process) end() error {
	if err := p.CloseInput(); err != nil {
		return fmt.Errorf("ending the requests to %s: %w", p.name, err)
	}
	body, err := p.Next()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return usererr.New(nil, "%s sent a message of %d bytes that nobody asked for", p.name, len(body))
}

func (p *Process) lastSaid() string {
	if words, _ := p.logs.lastWords(true); words != "" {
		return "; it last said: " + words
	}
	return ""
}

// Name is what the connector is called in messages.
func (p *Process) Name() string { return p.name }

// Pid is the number of the process; of an image, that of the docker client.
func (p *Process) Pid() int { return p.cmd.Process.Pid }
