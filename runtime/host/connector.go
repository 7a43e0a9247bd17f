package host

import (
	"context"
	"errors"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sirupsen/logrus"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/usererr"
)

type (
	// Endpoint says what is run (an image, or a command), and how it is configured.
	Endpoint = pipeline.Endpoint
	// Launcher says how processes are started: environment, docker client, network, limits.
	Launcher = connector.Launcher
	// Process is a running connector as it is, for those who want to speak to it byte by byte.
	Process = connector.Process
	// Line is one message of a connector's log.
	Line = connector.Line
	// ExitError is a connector that ended with a code other than 0, or by a signal.
	ExitError = connector.ExitError
)

// DefaultAnswer is how long a connector may take to answer a request.
const DefaultAnswer = 5 * time.Minute

// Connector is a connector to be run for one task. Its fields are set before use. Each method starts a process of its own, so they may
// be called by many goroutines.
type Connector struct {
	Endpoint Endpoint
	// Task is the task's name, such as acme/shop. Connectors derive the names of what they create from it.
	Task string
	// Part tells processes of one task from each other, such as those of its shards; "" is the only one.
	Part string
	// Launcher starts processes; nil starts them with the environment of this process.
	Launcher *Launcher
	// Log gets the connector's log; nil drops it.
	Log *logrus.Entry
	// OnLog is called with each line of it, by one goroutine for each process; it may be nil.
	OnLog func(Line)
	// Answer bounds how long an answer may take; 0 is DefaultAnswer.
	Answer time.Duration
}

// Start starts a process and sends it nothing. Whoever calls it waits for its end.
func (c *Connector) Start(ctx context.Context) (*Process, error) {
	return c.launcher().Start(ctx, &c.Endpoint, c.Task+c.Part, c.Log, c.OnLog)
}

func (c *Connector) launcher() *Launcher {
	if c.Launcher != nil {
		return c.Launcher
	}
	return &Launcher{Environ: os.Environ()} //nolint:forbidigo // for child processes, as it is
}

func (c *Connector) answer() time.Duration {
	if c.Answer > 0 {
		return c.Answer
	}
	return DefaultAnswer
}

// Probe asks for the Spec of a connector of either protocol: their requests, and the common part of their responses, are the same
// bytes.
func (c *Connector) Probe(ctx context.Context) (*capturepb.Response_Spec, error) {
	response := &capturepb.Response{}
	// 8, LOCAL of a capture, is also a type that materializations know.
	request := &capturepb.Request{Spec: &capturepb.Request_Spec{ConnectorType: flowpb.CaptureSpec_LOCAL, ConfigJson: []byte("{}")}}
	x := expect("Spec", "Spec", request, response, func() bool { return response.Spec != nil })
	err := c.call(ctx, x)
	if err == nil {
		err = connector.CheckProtocol(response.Spec.Protocol)
	}
	return response.Spec, err
}

// ImageCodec is the codec that the connector's image says it speaks. Errors are for people.
func (c *Connector) ImageCodec(ctx context.Context) (frame.Codec, error) {
	return c.launcher().ImageCodec(ctx, c.Endpoint.Image)
}

// call has one process answer some requests.
func (c *Connector) call(ctx context.Context, exchanges ...connector.Exchange) error {
	return c.launcher().Call(ctx, &c.Endpoint, c.Task+c.Part, c.Log, c.OnLog, c.answer(), exchanges...)
}

// expect is an exchange whose response must have something set.
func expect(name, answer string, request, response proto.Message, set func() bool) connector.Exchange {
	return connector.Exchange{Name: name, Request: request, Response: response, Check: func() error {
		if set() {
			return nil
		}
		return connector.Unexpected(answer, response)
	}}
}

var errSlow = errors.New("the connector did not answer in time")

// open starts a process and has it answer Spec and Open. One that takes too long, or answers something else, is killed.
func (c *Connector) open(ctx context.Context, exchanges ...connector.Exchange) (*Process, error) {
	p, err := c.Start(ctx)
	if err != nil {
		return nil, err
	}
	slow, cancel := context.WithTimeoutCause(ctx, c.answer(), errSlow)
	defer cancel()
	defer context.AfterFunc(slow, p.Kill)()
	for _, x := range exchanges {
		if err = p.Exchange(x); err != nil {
			break
		}
	}
	if err == nil {
		return p, nil
	}
	p.Kill()
	_ = p.Wait(context.Background()) // the error is known
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(context.Cause(slow), errSlow):
		return nil, usererr.New(err, "%s did not answer Open within %s and was stopped", p.Name(), c.answer())
	}
	return nil, err
}

// maxApplies bounds how often Apply is repeated for one specification; a connector that has more to do each time
// would keep us for ever.
const maxApplies = 100

// apply repeats Apply as long as the connector returns a state.
func (c *Connector) apply(ctx context.Context, what string, state []byte, once func([]byte) (string, *flowpb.ConnectorState, error), keep Keep) ([]byte, error) {
	state = orEmpty(state)
	for range maxApplies {
		action, update, err := once(state)
		if err != nil {
			return nil, err
		}
		if action != "" && c.Log != nil {
			c.Log.WithField("action", action).Info("applied the " + what)
		}
		if len(update.GetUpdatedJson()) == 0 {
			return state, nil
		}
		if state, err = flowpb.ReduceState(state, update); err != nil {
			return nil, err
		}
		if keep == nil {
			continue
		}
		if err := keep(ctx, state); err != nil {
			return nil, err
		}
	}
	return nil, usererr.New(nil, "the connector of %s returned a new state from each of %d calls of Apply, and does not come to an end", c.Task, maxApplies)
}

// Keep makes a connector's state durable: when it returns nil, the next session will be opened with this state or a later one.
type Keep func(ctx context.Context, state []byte) error

func orEmpty(state []byte) []byte {
	if len(state) == 0 {
		return []byte("{}")
	}
	return state
}
