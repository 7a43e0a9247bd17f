package host

import (
	"context"
	"slices"
	"time"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/specs"
)

// Capture is a connector that captures.
type Capture struct {
	Connector
	// Valid, if it is not nil, is asked whether a document of a binding is valid JSON, by the goroutine that calls Next, for who walks over
	// documents anyway. It must refuse what jsonscan.Valid refuses, which is asked otherwise. The document is the session's.
	Valid func(binding int, doc []byte) bool
}

func (c *Capture) kind() flowpb.CaptureSpec_ConnectorType {
	if c.Endpoint.Image != "" {
		return flowpb.CaptureSpec_IMAGE
	}
	return flowpb.CaptureSpec_LOCAL
}

// specExchange begins every process: it also finds out whether this is a connector that we understand.
func (c *Capture) specExchange(response *capturepb.Response) connector.Exchange {
	x := expect("Spec", "Spec", &capturepb.Request{Spec: &capturepb.Request_Spec{ConnectorType: c.kind(), ConfigJson: []byte("{}")}}, response,
		func() bool { return response.Spec != nil })
	isSpec := x.Check
	x.Check = func() error {
		if err := isSpec(); err != nil {
			return err
		}
		return connector.CheckProtocol(response.Spec.Protocol)
	}
	return x
}

// Spec asks what the connector is: the schemas of its configuration and of its resources. It needs no configuration.
func (c *Capture) Spec(ctx context.Context) (*capturepb.Response_Spec, error) {
	response := &capturepb.Response{}
	err := c.call(ctx, c.specExchange(response))
	return response.Spec, err
}

// Discover asks what could be captured. Each binding has its resource path, also where the connector leaves that to us.
func (c *Capture) Discover(ctx context.Context) (*capturepb.Response_Discovered, error) {
	var spec, response capturepb.Response
	request := &capturepb.Request_Discover{
		ConnectorType: c.kind(), ConfigJson: c.Endpoint.Config, Name: c.Task, CreatedAt: time.Now().UTC().Format(time.DateOnly),
	}
	err := c.call(ctx, c.specExchange(&spec), expect("Discover", "Discovered", &capturepb.Request{Discover: request}, &response,
		func() bool { return response.Discovered != nil }))
	if err != nil {
		return nil, err
	}
	for _, b := range response.Discovered.Bindings {
		if len(b.ResourcePath) == 0 {
			b.ResourcePath = specs.ResourcePath(b.ResourceConfigJson, spec.Spec.ResourcePathPointers)
		}
	}
	return response.Discovered, nil
}

// Validate asks whether the bindings can be captured. The request needs its bindings, and whatever is known of the last
// specification; the task's name and its configuration are filled in. The answer has as many bindings as the request.
func (c *Capture) Validate(ctx context.Context, request *capturepb.Request_Validate) (*capturepb.Response_Validated, error) {
	request.Name, request.ConnectorType, request.ConfigJson = c.Task, c.kind(), c.Endpoint.Config
	var spec, response capturepb.Response
	x := expect("Validate", "Validated", &capturepb.Request{Validate: request}, &response, func() bool { return response.Validated != nil })
	isValidated := x.Check
	x.Check = func() error {
		if err := isValidated(); err != nil {
			return err
		}
		return connector.CheckCount(len(response.Validated.Bindings), len(request.Bindings))
	}
	err := c.call(ctx, c.specExchange(&spec), x)
	return response.Validated, err
}

// Specify validates a request and makes of it the specification that Apply and Open take. Bindings of the last specification
// that are gone now are inactive in it.
func (c *Capture) Specify(ctx context.Context, request *capturepb.Request_Validate) (*flowpb.CaptureSpec, error) {
	validated, err := c.Validate(ctx, request)
	if err != nil {
		return nil, err
	}
	spec := &flowpb.CaptureSpec{
		Name: c.Task, ConnectorType: c.kind(), ConfigJson: c.Endpoint.Config,
		// Never zero: some connectors insist on the field, and a zero is not written.
		IntervalSeconds: 1,
		ShardTemplate:   specs.Shard("capture", c.Task), RecoveryLogTemplate: specs.RecoveryLog("capture", c.Task),
	}
	active := map[string]bool{}
	for i, b := range request.Bindings {
		path := validated.Bindings[i].ResourcePath
		if err := notLower(path, b.Backfill, slices.Concat(request.LastCapture.GetBindings(), request.LastCapture.GetInactiveBindings())); err != nil {
			return nil, err
		}
		active[specs.StateKey(path, 0)] = true
		spec.Bindings = append(spec.Bindings, &flowpb.CaptureSpec_Binding{
			ResourceConfigJson: b.ResourceConfigJson, ResourcePath: path, Collection: b.Collection,
			Backfill: b.Backfill, StateKey: specs.StateKey(path, b.Backfill),
		})
	}
	if request.LastCapture == nil {
		return spec, nil
	}
	for _, b := range append(request.LastCapture.Bindings, request.LastCapture.InactiveBindings...) {
		if key := specs.StateKey(b.ResourcePath, 0); !active[key] {
			active[key] = true
			spec.InactiveBindings = append(spec.InactiveBindings, b)
		}
	}
	return spec, nil
}

// Apply lets the connector make its endpoint ready, again with the new state as long as it returns one, which keep (it may be
// nil) makes durable. The request needs the specification, the last one that was applied if there is one, and the state. It returns
// the state to open with. The capture must not run meanwhile.
func (c *Capture) Apply(ctx context.Context, request *capturepb.Request_Apply, keep Keep) ([]byte, error) {
	if err := defaultVersion(&request.Version, request.Capture); err != nil {
		return nil, err
	}
	return c.apply(ctx, "capture", request.StateJson, func(state []byte) (string, *flowpb.ConnectorState, error) {
		request.StateJson = state
		var spec, response capturepb.Response
		err := c.call(ctx, c.specExchange(&spec), expect("Apply", "Applied", &capturepb.Request{Apply: request}, &response,
			func() bool { return response.Applied != nil }))
		return response.Applied.GetActionDescription(), response.Applied.GetState(), err
	}, keep)
}

// Open begins to capture, at the request's state. Version and range are filled in unless they are given. The context ends the
// opening only: the session lives until its Wait or Close.
func (c *Capture) Open(ctx context.Context, request *capturepb.Request_Open) (*CaptureSession, error) {
	if request.Range == nil {
		request.Range = flowpb.FullRange()
	}
	request.StateJson = orEmpty(request.StateJson)
	if err := defaultVersion(&request.Version, request.Capture); err != nil {
		return nil, err
	}
	var spec, response capturepb.Response
	p, err := c.open(ctx, c.specExchange(&spec), expect("Open", "Opened", &capturepb.Request{Open: request}, &response,
		func() bool { return response.Opened != nil }))
	if err != nil {
		return nil, err
	}
	return newCaptureSession(p, c.Valid, request, response.Opened)
}
