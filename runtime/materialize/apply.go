package materialize

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// maxApplies bounds how often Apply is repeated for one specification.
const maxApplies = 100

// apply lets the connector make its destination ready. A connector with staged work of the previous specification
// finishes that first and returns a state; it is called again with it until it returns none.
func (t *Task) apply(ctx context.Context, spec *flowpb.MaterializationSpec) (version string, state []byte, err error) {
	last, lastVersion, err := t.lastSpec()
	if err != nil {
		return "", nil, err
	}
	kept := proto.CloneOf(spec)
	kept.ConfigJson = []byte("{}")
	if version, err = specs.Version(kept); err != nil {
		return "", nil, err
	}
	encoded, err := proto.Marshal(kept)
	if err != nil {
		return "", nil, fmt.Errorf("encoding the specification of %s: %w", t.Def.Name, err)
	}
	for range maxApplies {
		if state, err = t.state(); err != nil {
			return "", nil, err
		}
		applied, err := t.applyOnce(ctx, &materializepb.Request_Apply{
			Materialization: spec, Version: version, LastMaterialization: last, LastVersion: lastVersion, StateJson: state,
		})
		if err != nil {
			return "", nil, err
		}
		if applied.ActionDescription != "" {
			t.Logger.WithField("action", applied.ActionDescription).Info("applied the materialization")
		}
		done := len(applied.State.GetUpdatedJson()) == 0
		changes := wal.Records{}
		if done {
			changes[t.record("spec")] = encoded
		} else if state, err = flowpb.ReduceState(state, applied.State); err != nil {
			return "", nil, err
		} else {
			changes[t.record("state")] = state
		}
		if err := t.Store.Put(ctx, changes); err != nil {
			return "", nil, err
		}
		if done {
			return version, state, nil
		}
	}
	return "", nil, usererr.New(nil, "the connector of %s returned a new state from each of %d calls of Apply, and does not come to an end", t.Def.Name, maxApplies)
}

func (t *Task) applyOnce(ctx context.Context, request *materializepb.Request_Apply) (*materializepb.Response_Applied, error) {
	specX, _ := SpecExchange(&t.Def.Endpoint)
	response := &materializepb.Response{}
	err := t.Launcher.Call(ctx, &t.Def.Endpoint, t.Def.Name, t.Logger, t.Timeouts.Answer, specX, connector.Exchange{
		Name: "Apply", Request: &materializepb.Request{Apply: request}, Response: response,
		Check: func() error {
			if response.Applied == nil {
				return connector.Unexpected("Applied", response)
			}
			return nil
		},
	})
	return response.Applied, err
}
