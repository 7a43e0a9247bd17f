package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/wal"
)

// Until a materialization of this process has asked its destination, nothing counts as confirmed, whatever is kept of it: that may be ahead of the destination. Of
// one that the process does not have, what is kept is all that is known.
func TestNothingIsConfirmedBeforeItRuns(t *testing.T) {
	t.Parallel()
	u := &unit{materialization: &pipeline.Materialization{Name: "acme/one"}}
	r := newRunning(&wal.Embedded{}, []*unit{u, {capture: &pipeline.Capture{Name: "acme/source"}}})
	reader := &materialize.Reader{Materialization: "acme/one", Offset: 7}
	require.Zero(t, r.confirmed(reader))
	r.set(u, &materialize.Task{})
	require.Zero(t, r.confirmed(reader), "it has not asked yet")
	r.set(u, nil)
	require.Zero(t, r.confirmed(reader))
	reader.Materialization = "acme/former"
	require.EqualValues(t, 7, r.confirmed(reader))
}
