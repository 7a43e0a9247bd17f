package host

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/specs"
)

// Materialization is a connector that materializes.
type Materialization struct {
	Connector
}

func (m *Materialization) kind() flowpb.MaterializationSpec_ConnectorType {
	if m.Endpoint.Image != "" {
		return flowpb.MaterializationSpec_IMAGE
	}
	return flowpb.MaterializationSpec_LOCAL
}

func (m *Materialization) specExchange(response *materializepb.Response) connector.Exchange {
	x := expect("Spec", "Spec", &materializepb.Request{Spec: &materializepb.Request_Spec{ConnectorType: m.kind(), ConfigJson: []byte("{}")}}, response,
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
func (m *Materialization) Spec(ctx context.Context) (*materializepb.Response_Spec, error) {
	response := &materializepb.Response{}
	err := m.call(ctx, m.specExchange(response))
	return response.Spec, err
}

// Validate asks what the connector can do with each field of its bindings. The request needs its bindings, and whatever is known of the
// last specification; the task's name and its configuration are filled in. The answer has as many bindings as the request.
// Without bindings it finds out whether the destination can be reached.
func (m *Materialization) Validate(ctx context.Context, request *materializepb.Request_Validate) (*materializepb.Response_Validated, error) {
	request.Name, request.ConnectorType, request.ConfigJson = m.Task, m.kind(), m.Endpoint.Config
	var spec, response materializepb.Response
	x := expect("Validate", "Validated", &materializepb.Request{Validate: request}, &response, func() bool { return response.Validated != nil })
	isValidated := x.Check
	x.Check = func() error {
		if err := isValidated(); err != nil {
			return err
		}
		return connector.CheckCount(len(response.Validated.Bindings), len(request.Bindings))
	}
	err := m.call(ctx, m.specExchange(&spec), x)
	return response.Validated, err
}

// Select chooses the fields of binding i from what the connector allows; last is the selection that was applied to the same
// state key, if there is one. [SelectFields] does it.
type Select func(i int, answer *materializepb.Response_Validated_Binding, last *flowpb.FieldSelection) (*flowpb.FieldSelection, error)

// Specify validates a request and makes of it the specification that Apply and Open take. Bindings of the last specification
// that are gone now are inactive in it. Two bindings may not write to the same resource.
func (m *Materialization) Specify(ctx context.Context, request *materializepb.Request_Validate, choose Select) (*flowpb.MaterializationSpec, error) {
	validated, err := m.Validate(ctx, request)
	if err != nil {
		return nil, err
	}
	spec := &flowpb.MaterializationSpec{
		Name: m.Task, ConnectorType: m.kind(), ConfigJson: m.Endpoint.Config,
		ShardTemplate: specs.Shard("materialize", m.Task), RecoveryLogTemplate: specs.RecoveryLog("materialize", m.Task),
	}
	last, active := request.LastMaterialization, map[string]bool{}
	for i, b := range request.Bindings {
		answer := validated.Bindings[i]
		key, path := specs.StateKey(answer.ResourcePath, b.Backfill), specs.StateKey(answer.ResourcePath, 0)
		if active[path] {
			return nil, &SameResourceError{Binding: i, Path: answer.ResourcePath}
		}
		active[path] = true
		if err := notLower(answer.ResourcePath, b.Backfill, slices.Concat(last.GetBindings(), last.GetInactiveBindings())); err != nil {
			return nil, err
		}
		selection, err := choose(i, answer, lastSelection(last, key))
		if err != nil {
			return nil, err
		}
		spec.Bindings = append(spec.Bindings, &flowpb.MaterializationSpec_Binding{
			ResourceConfigJson: b.ResourceConfigJson, ResourcePath: answer.ResourcePath, Collection: b.Collection, FieldSelection: selection,
			DeltaUpdates: answer.DeltaUpdates, PartitionSelector: &flowpb.LabelSelector{Include: &flowpb.LabelSet{}, Exclude: &flowpb.LabelSet{}},
			JournalReadSuffix: "materialize/" + m.Task + "/" + key, Backfill: b.Backfill, StateKey: key, SerPolicy: answer.SerPolicy,
		})
	}
	for _, b := range append(last.GetBindings(), last.GetInactiveBindings()...) {
		if key := specs.StateKey(b.ResourcePath, 0); !active[key] {
			active[key] = true
			spec.InactiveBindings = append(spec.InactiveBindings, b)
		}
	}
	return spec, nil
}

func lastSelection(last *flowpb.MaterializationSpec, stateKey string) *flowpb.FieldSelection {
	for _, b := range last.GetBindings() {
		if b.StateKey == stateKey {
			return b.FieldSelection
		}
	}
	return nil
}

// Apply lets the connector make its destination ready, again with the new state as long as it returns one, which keep (it may be
// nil) makes durable: a connector with staged work of the last specification finishes that first. The request needs the specification,
// the last one that was applied if there is one, and the state. It returns the state to open with. The
// materialization must not run meanwhile.
func (m *Materialization) Apply(ctx context.Context, request *materializepb.Request_Apply, keep Keep) ([]byte, error) {
	if err := defaultVersion(&request.Version, request.Materialization); err != nil {
		return nil, err
	}
	return m.apply(ctx, "materialization", request.StateJson, func(state []byte) (string, *flowpb.ConnectorState, error) {
		request.StateJson = state
		var spec, response materializepb.Response
		err := m.call(ctx, m.specExchange(&spec), expect("Apply", "Applied", &materializepb.Request{Apply: request}, &response,
			func() bool { return response.Applied != nil }))
		return response.Applied.GetActionDescription(), response.Applied.GetState(), err
	}, keep)
}

// Open begins to materialize, at the request's state. Version and range are filled in unless they are given. loaded is called from a
// goroutine of the session with every document that the connector loads, between Acknowledged and Flushed of a transaction; the document is
// valid during the call, and an error of it ends the session. The context ends the opening only: the session
// lives until its Wait or Close.
func (m *Materialization) Open(ctx context.Context, request *materializepb.Request_Open, loaded func(binding uint32, doc []byte) error) (*MaterializeSession, error) {
	if request.Range == nil {
		request.Range = flowpb.FullRange()
	}
	request.StateJson = orEmpty(request.StateJson)
	if err := defaultVersion(&request.Version, request.Materialization); err != nil {
		return nil, err
	}
	var spec, response materializepb.Response
	p, err := m.open(ctx, m.specExchange(&spec), expect("Open", "Opened", &materializepb.Request{Open: request}, &response,
		func() bool { return response.Opened != nil }))
	if err != nil {
		return nil, err
	}
	return newMaterializeSession(p, request, spec.Spec, response.Opened, loaded), nil
}

// defaultVersion makes a version of a specification's content.
func defaultVersion(version *string, spec proto.Message) error {
	if *version != "" {
		return nil
	}
	var err error
	*version, err = specs.Version(spec)
	return err
}
