package materialize

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/shard"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/runtime/wal"
)

// apply lets the connector make its destination ready. A connector with staged work of the previous specification
// finishes that first and returns a state; it is called again with it until it returns none.
func (t *Task) apply(ctx context.Context, spec *flowpb.MaterializationSpec, versions []*collection.Version) (version string, state []byte, err error) {
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
	if state, err = t.state(); err != nil {
		return "", nil, err
	}
	state, err = t.host().Apply(ctx, &materializepb.Request_Apply{
		Materialization: spec, Version: version, LastMaterialization: last, LastVersion: lastVersion, StateJson: state,
	}, func(ctx context.Context, state []byte) error {
		return t.Store.Put(ctx, wal.Records{t.own("state"): state})
	})
	if err != nil {
		return "", nil, err
	}
	d := shard.Division{Shards: max(t.Shard.Count, 1), Pipeline: t.Pipeline, Versions: map[string]uint32{}}
	for i, b := range t.Def.Bindings {
		d.Versions[b.Source] = versions[i].Number
	}
	division, err := d.Encode()
	if err != nil {
		return "", nil, err
	}
	return version, state, t.Store.Put(ctx, wal.Records{t.record("spec"): encoded, t.record("division"): division})
}
