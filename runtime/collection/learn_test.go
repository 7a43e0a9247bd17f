package collection_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/pipeline"
)

// Two captures write into one collection. What one has learned is no news to the other any more, so the other's documents need the
// version that has it, although the other neither learned nor announced anything.
func TestWhatIsNoNewsIsInTheVersion(t *testing.T) {
	t.Parallel()
	r, err := collection.Open(t.Context(), memory{}, map[string]*pipeline.Collection{"acme/t": {
		Name: "acme/t", Key: []string{"/id"}, Schema: []byte(`{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"],"x-infer-schema":true}`),
	}})
	require.NoError(t, err)
	const doc = `{"id":1,"new":"x"}`
	before, one, err := r.Watch("acme/t")
	require.NoError(t, err)
	require.True(t, one.Valid([]byte(doc)))
	require.True(t, one.News())
	learned, err := r.Learn(t.Context(), "acme/t", one.Learned())
	require.NoError(t, err)
	require.Greater(t, learned.Number, before.Number)

	version, other, err := r.Watch("acme/t")
	require.NoError(t, err)
	require.True(t, other.Valid([]byte(doc)))
	require.False(t, other.News())
	require.Equal(t, learned, version)

	_, _, err = r.Watch("acme/none")
	require.ErrorContains(t, err, "there is no such collection")
}
