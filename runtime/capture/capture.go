// Package capture drives capture connectors: it starts one, keeps what it sends in the log, checkpoint by checkpoint,
// and acknowledges what is durable.
package capture

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sirupsen/logrus"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
)

// Task is one capture of a pipeline. Its fields are set before Run; Run is called by one goroutine.
type Task struct {
	Def         *pipeline.Capture
	Launcher    *connector.Launcher
	Log         wal.Log
	Store       wal.Store
	Collections *collection.Registry
	Status      *status.Task
	Logger      *logrus.Entry
	Timeouts    Timeouts
	OnApplied   func() // called whenever the specification has been applied; nil if nobody wants to know
}

// Timeouts bound how long a connector may take.
type Timeouts struct {
	Answer time.Duration // to a single request, and to open; zero is 5 minutes
	Stop   time.Duration // to end when it was asked to; zero is 10 seconds
}

func (t Timeouts) withDefaults() Timeouts {
	if t.Answer == 0 {
		t.Answer = 5 * time.Minute
	}
	if t.Stop == 0 {
		t.Stop = 10 * time.Second
	}
	return t
}

// Run lives one life of the capture: validate, apply, open, and read until the connector ends. It returns nil when
// the connector ended by itself and all is well, and the context's error when it was told to stop. Other errors are for people.
func (t *Task) Run(ctx context.Context) error {
	t.Timeouts = t.Timeouts.withDefaults()
	t.Status.Set(status.Starting)
	spec, err := t.validate(ctx)
	if err != nil {
		return err
	}
	version, state, err := t.apply(ctx, spec)
	if err != nil {
		return err
	}
	s, err := t.open(ctx, spec, version, state)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

func (t *Task) stateName() string { return "capture/" + t.Def.Name + "/state" }
func (t *Task) specName() string  { return "capture/" + t.Def.Name + "/spec" }

// state is the connector's state as it is committed.
func (t *Task) state() ([]byte, error) {
	state, err := t.Store.Get(t.stateName())
	if err == nil && state == nil {
		state = []byte("{}")
	}
	return state, err
}

func connectorType(e *pipeline.Endpoint) flowpb.CaptureSpec_ConnectorType {
	if e.Image != "" {
		return flowpb.CaptureSpec_IMAGE
	}
	return flowpb.CaptureSpec_LOCAL
}

// specExchange asks for the connector's Spec and checks that it speaks our protocol.
func (t *Task) specExchange() (connector.Exchange, *capturepb.Response) {
	return SpecExchange(&t.Def.Endpoint)
}

// SpecExchange asks a connector for its Spec and checks that it speaks our protocol.
func SpecExchange(e *pipeline.Endpoint) (connector.Exchange, *capturepb.Response) {
	response := &capturepb.Response{}
	return connector.Exchange{
		Name:     "Spec",
		Request:  &capturepb.Request{Spec: &capturepb.Request_Spec{ConnectorType: connectorType(e), ConfigJson: []byte("{}")}},
		Response: response,
		Check: func() error {
			if response.Spec == nil {
				return connector.Unexpected("Spec", response)
			}
			return connector.CheckProtocol(response.Spec.Protocol)
		},
	}, response
}

// validate asks the connector whether the bindings make sense, and builds the specification from its answer.
func (t *Task) validate(ctx context.Context) (*flowpb.CaptureSpec, error) {
	last, lastVersion, err := t.lastSpec()
	if err != nil {
		return nil, err
	}
	request := &capturepb.Request_Validate{
		Name: t.Def.Name, ConnectorType: connectorType(&t.Def.Endpoint), ConfigJson: t.Def.Endpoint.Config,
		LastCapture: last, LastVersion: lastVersion,
	}
	for _, b := range t.Def.Bindings {
		request.Bindings = append(request.Bindings, &capturepb.Request_Validate_Binding{
			ResourceConfigJson: b.Resource, Collection: t.Collections.Current(b.Target).Spec, Backfill: b.Backfill,
		})
	}
	specX, _ := t.specExchange()
	response := &capturepb.Response{}
	err = t.Launcher.Call(ctx, &t.Def.Endpoint, t.Def.Name, t.Logger, t.Timeouts.Answer, specX, connector.Exchange{
		Name: "Validate", Request: &capturepb.Request{Validate: request}, Response: response,
		Check: func() error {
			if response.Validated == nil {
				return connector.Unexpected("Validated", response)
			}
			return connector.CheckCount(len(response.Validated.Bindings), len(t.Def.Bindings))
		},
	})
	if err != nil {
		return nil, err
	}
	return t.spec(response.Validated, last), nil
}

func (t *Task) spec(validated *capturepb.Response_Validated, last *flowpb.CaptureSpec) *flowpb.CaptureSpec {
	spec := &flowpb.CaptureSpec{
		Name: t.Def.Name, ConnectorType: connectorType(&t.Def.Endpoint), ConfigJson: t.Def.Endpoint.Config,
		// Never zero: some connectors insist on the field, and a zero is not written.
		IntervalSeconds: max(uint32(t.Def.Interval/time.Second), 1),
		ShardTemplate:   specs.Shard("capture", t.Def.Name), RecoveryLogTemplate: specs.RecoveryLog("capture", t.Def.Name),
	}
	active := map[string]bool{}
	for i, b := range t.Def.Bindings {
		path := validated.Bindings[i].ResourcePath
		active[specs.StateKey(path, 0)] = true
		spec.Bindings = append(spec.Bindings, &flowpb.CaptureSpec_Binding{
			ResourceConfigJson: b.Resource, ResourcePath: path, Collection: t.Collections.Current(b.Target).Spec,
			Backfill: b.Backfill, StateKey: specs.StateKey(path, b.Backfill),
		})
	}
	if last == nil {
		return spec
	}
	for _, b := range append(last.Bindings, last.InactiveBindings...) {
		if key := specs.StateKey(b.ResourcePath, 0); !active[key] {
			active[key] = true
			spec.InactiveBindings = append(spec.InactiveBindings, b)
		}
	}
	return spec
}

// lastSpec is the specification that was applied last. Its configuration is not kept, since it may hold secrets: the
// present one stands in for it.
func (t *Task) lastSpec() (*flowpb.CaptureSpec, string, error) {
	stored, err := t.Store.Get(t.specName())
	if err != nil || stored == nil {
		return nil, "", err
	}
	last := &flowpb.CaptureSpec{}
	if err := proto.Unmarshal(stored, last); err != nil {
		return nil, "", fmt.Errorf("reading the stored specification of %s: %w", t.Def.Name, err)
	}
	version, err := specs.Version(last)
	if err != nil {
		return nil, "", err
	}
	if last.ConfigJson, err = specs.Sealed(&t.Def.Endpoint); err != nil {
		return nil, "", err
	}
	return last, version, nil
}
