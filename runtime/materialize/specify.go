package materialize

import (
	"context"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
)

// Specify asks the connector what it would store, and how, and changes nothing: the specification is that of the next session.
// Launcher, Store, Collections and Logger have to be set. Errors are for people.
func (t *Task) Specify(ctx context.Context) (*flowpb.MaterializationSpec, error) {
	t.Timeouts = t.Timeouts.withDefaults()
	versions, err := t.versions()
	if err != nil {
		return nil, err
	}
	return t.validate(ctx, versions)
}
