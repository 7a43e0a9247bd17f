package materialize

import (
	"context"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/collection"
)

// Specify asks the connector what it would store, and how, and changes nothing: the specification is that of the next session.
// Launcher, Store, Collections and Logger have to be set. Errors are for people.
func (t *Task) Specify(ctx context.Context) (*flowpb.MaterializationSpec, error) {
	t.Timeouts = t.Timeouts.withDefaults()
	versions := make([]*collection.Version, len(t.Def.Bindings))
	for i, b := range t.Def.Bindings {
		versions[i] = t.Collections.Current(b.Source)
	}
	return t.validate(ctx, versions)
}
