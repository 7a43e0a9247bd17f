// Package materialize drives materialization connectors: it reads collections from the log, reduces their documents
// by key, and takes the connector through the protocol's transactions, so that every document counts exactly once.
package materialize

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sirupsen/logrus"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
)

// Task is one materialization of a pipeline. Its fields are set before Run; Run is called by one goroutine.
type Task struct {
	Def         *pipeline.Materialization
	Launcher    *connector.Launcher
	Log         wal.Log
	Store       wal.Store
	Collections *collection.Registry
	Status      *status.Task
	Logger      *logrus.Entry
	Timeouts    Timeouts
	// MaxTransactionBytes bounds the documents of one transaction; zero is 32 MiB. A single block of the log may exceed it.
	// Where all bindings are delta updates nothing is kept in memory, and a transaction may have 32 times as much, which
	// bounds what is repeated after a crash.
	MaxTransactionBytes int
}

// streamedFactor is how many times larger transactions are that are not kept in memory.
const streamedFactor = 32

// Timeouts bound how long a connector may take.
type Timeouts struct {
	Answer time.Duration // to a single request, and to open; zero is 5 minutes
	Stop   time.Duration // to finish its transaction and end when the task stops; zero is 30 seconds
	Remind time.Duration // how often a wait inside a transaction is logged; zero is 1 minute
}

func (t Timeouts) withDefaults() Timeouts {
	if t.Answer == 0 {
		t.Answer = 5 * time.Minute
	}
	if t.Stop == 0 {
		t.Stop = 30 * time.Second
	}
	if t.Remind == 0 {
		t.Remind = time.Minute
	}
	return t
}

// errEvolved ends a session whose collections have a newer schema: the next one begins with it.
var errEvolved = errors.New("a collection's schema changed")

// Run lives one life of the materialization, which has a new session for each new shape of its collections. It returns
// the context's error when it was told to stop and has finished its transaction. Other errors are for people.
func (t *Task) Run(ctx context.Context) error {
	t.Timeouts = t.Timeouts.withDefaults()
	if t.MaxTransactionBytes == 0 {
		t.MaxTransactionBytes = 32 << 20
	}
	t.Status.Set(status.Starting)
	for {
		err := t.session(ctx)
		if !errors.Is(err, errEvolved) {
			return err
		}
		t.Logger.Info("opening again with the new schema")
	}
}

func (t *Task) session(ctx context.Context) error {
	versions := make([]*collection.Version, len(t.Def.Bindings))
	for i, b := range t.Def.Bindings {
		versions[i] = t.Collections.Current(b.Source)
	}
	spec, err := t.validate(ctx, versions)
	if err != nil {
		return err
	}
	version, state, err := t.apply(ctx, spec)
	if err != nil {
		return err
	}
	s, err := t.open(ctx, spec, version, state, versions)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

func (t *Task) record(what string) string { return "materialization/" + t.Def.Name + "/" + what }

func (t *Task) state() ([]byte, error) {
	state, err := t.Store.Get(t.record("state"))
	if err == nil && state == nil {
		state = []byte("{}")
	}
	return state, err
}

func connectorType(e *pipeline.Endpoint) flowpb.MaterializationSpec_ConnectorType {
	if e.Image != "" {
		return flowpb.MaterializationSpec_IMAGE
	}
	return flowpb.MaterializationSpec_LOCAL
}

// SpecExchange asks a connector for its Spec and checks that it speaks our protocol.
func SpecExchange(e *pipeline.Endpoint) (connector.Exchange, *materializepb.Response) {
	response := &materializepb.Response{}
	return connector.Exchange{
		Name:     "Spec",
		Request:  &materializepb.Request{Spec: &materializepb.Request_Spec{ConnectorType: connectorType(e), ConfigJson: []byte("{}")}},
		Response: response,
		Check: func() error {
			if response.Spec == nil {
				return connector.Unexpected("Spec", response)
			}
			return connector.CheckProtocol(response.Spec.Protocol)
		},
	}, response
}

// validate asks the connector what it can do with each field, and builds the specification from its answer.
func (t *Task) validate(ctx context.Context, versions []*collection.Version) (*flowpb.MaterializationSpec, error) {
	last, lastVersion, err := t.lastSpec()
	if err != nil {
		return nil, err
	}
	request := &materializepb.Request_Validate{
		Name: t.Def.Name, ConnectorType: connectorType(&t.Def.Endpoint), ConfigJson: t.Def.Endpoint.Config,
		LastMaterialization: last, LastVersion: lastVersion,
	}
	for i, b := range t.Def.Bindings {
		keys, err := keyFields(versions[i].Spec, &b.Fields, nil)
		if err != nil {
			return nil, bindingError(t, i, err)
		}
		fields := map[string][]byte{}
		for field, config := range b.Fields.Require {
			fields[field] = config
		}
		request.Bindings = append(request.Bindings, &materializepb.Request_Validate_Binding{
			ResourceConfigJson: b.Resource, Collection: versions[i].Spec, FieldConfigJsonMap: fields, Backfill: b.Backfill, GroupBy: keys,
		})
	}
	specX, _ := SpecExchange(&t.Def.Endpoint)
	response := &materializepb.Response{}
	err = t.Launcher.Call(ctx, &t.Def.Endpoint, t.Def.Name, t.Logger, t.Timeouts.Answer, specX, connector.Exchange{
		Name: "Validate", Request: &materializepb.Request{Validate: request}, Response: response,
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
	return t.spec(response.Validated, versions, last)
}

func (t *Task) spec(validated *materializepb.Response_Validated, versions []*collection.Version, last *flowpb.MaterializationSpec) (*flowpb.MaterializationSpec, error) {
	spec := &flowpb.MaterializationSpec{
		Name: t.Def.Name, ConnectorType: connectorType(&t.Def.Endpoint), ConfigJson: t.Def.Endpoint.Config,
		ShardTemplate: specs.Shard("materialize", t.Def.Name), RecoveryLogTemplate: specs.RecoveryLog("materialize", t.Def.Name),
	}
	active := map[string]bool{}
	for i, b := range t.Def.Bindings {
		answer := validated.Bindings[i]
		key := specs.StateKey(answer.ResourcePath, b.Backfill)
		path := specs.StateKey(answer.ResourcePath, 0)
		if active[path] {
			return nil, bindingError(t, i, fmt.Errorf("another binding writes to the same resource %v", answer.ResourcePath))
		}
		active[path] = true
		selection, err := selectFields(versions[i].Spec, &b.Fields, answer, lastSelection(last, key))
		if err != nil {
			return nil, bindingError(t, i, err)
		}
		spec.Bindings = append(spec.Bindings, &flowpb.MaterializationSpec_Binding{
			ResourceConfigJson: b.Resource, ResourcePath: answer.ResourcePath, Collection: versions[i].Spec, FieldSelection: selection,
			DeltaUpdates: answer.DeltaUpdates, PartitionSelector: &flowpb.LabelSelector{Include: &flowpb.LabelSet{}, Exclude: &flowpb.LabelSet{}},
			JournalReadSuffix: "materialize/" + t.Def.Name + "/" + key, Priority: b.Priority, Backfill: b.Backfill, StateKey: key, SerPolicy: answer.SerPolicy,
		})
	}
	if last == nil {
		return spec, nil
	}
	for _, b := range append(last.Bindings, last.InactiveBindings...) {
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

// lastSpec is the specification that was applied last. Its configuration is not kept, since it may hold secrets: the
// present one stands in for it.
func (t *Task) lastSpec() (*flowpb.MaterializationSpec, string, error) {
	stored, err := t.Store.Get(t.record("spec"))
	if err != nil || stored == nil {
		return nil, "", err
	}
	last := &flowpb.MaterializationSpec{}
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
