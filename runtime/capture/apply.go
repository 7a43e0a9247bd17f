package capture

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/shard"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/runtime/wal"
)

// apply lets the connector make its endpoint ready: again with the new state as long as it returns one. It returns the
// specification's version and the state to open with.
func (t *Task) apply(ctx context.Context, spec *flowpb.CaptureSpec) (version string, state []byte, err error) {
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
	state, err = t.host().Apply(ctx, &capturepb.Request_Apply{
		Capture: spec, Version: version, LastCapture: last, LastVersion: lastVersion, StateJson: state,
	}, func(ctx context.Context, state []byte) error {
		return t.Store.Put(ctx, wal.Records{t.stateName(): state})
	})
	if err != nil {
		return "", nil, err
	}
	division, err := shard.Division{Shards: max(t.Shard.Count, 1), Pipeline: t.Pipeline}.Encode()
	if err != nil {
		return "", nil, err
	}
	changes := wal.Records{t.specName(): encoded, t.divisionName(): division}
	t.beginAnew(last, changes)
	if err := t.Store.Put(ctx, changes); err != nil {
		return "", nil, err
	}
	return version, state, nil
}

// beginAnew marks the collections of bindings whose backfill counter was raised: all that is in the log of them is
// about to come again, and whoever reads them from the beginning must begin here. What was deleted in the source while
// nobody listened is in the old documents, and has no deletion in the new ones.
func (t *Task) beginAnew(last *flowpb.CaptureSpec, changes wal.Records) {
	writers := map[string]int{}
	for _, b := range t.Def.Bindings {
		writers[b.Target]++
	}
	for i, b := range t.Def.Bindings {
		if !raised(last, &b) {
			continue
		}
		log := t.Logger.WithFields(map[string]any{"collection": b.Target, "backfill": b.Backfill, "binding": i})
		if writers[b.Target] > 1 {
			log.Warn("captured anew, but other bindings write to the same collection: new destinations still read it from its start")
			continue
		}
		for _, h := range t.Log.Alone(b.Target, t.Def.Name) {
			changes[wal.BeginRecord(h.Journal)] = wal.EncodeOffset(h.Offset)
		}
		log.Warn("captured anew: rows that were deleted meanwhile stay in a destination until the backfill counter of its binding is raised, too")
	}
}

// Raised lists the collections that will be captured anew once the specification has been applied, because a binding's
// backfill counter is higher than it was then. Whoever begins to read one of them from its start before that would read
// what is about to come again.
func (t *Task) Raised() ([]string, error) {
	last, _, err := t.lastSpec()
	if err != nil {
		return nil, err
	}
	var collections []string
	for _, b := range t.Def.Bindings {
		if raised(last, &b) {
			collections = append(collections, b.Target)
		}
	}
	return collections, nil
}

// raised reports whether the binding's backfill counter is higher than when a specification was last applied.
func raised(last *flowpb.CaptureSpec, b *pipeline.CaptureBinding) bool {
	for _, old := range append(last.GetBindings(), last.GetInactiveBindings()...) {
		if old.Collection.GetName() == b.Target && string(old.ResourceConfigJson) == string(b.Resource) && old.Backfill < b.Backfill {
			return true
		}
	}
	return false
}
