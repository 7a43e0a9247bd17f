package collection_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/wal"
)

// memory is a store of records.
type memory wal.Records

func (m memory) Get(name string) ([]byte, error) { return m[name], nil }

func (m memory) Put(_ context.Context, changes wal.Records) error {
	maps.Copy(m, changes)
	return nil
}

// What a source announces is in the copy at once, and whoever opens the pipeline's collections with it knows it.
func TestCopyKnowsWhatWasAnnounced(t *testing.T) {
	t.Parallel()
	defs := map[string]*pipeline.Collection{"acme/t": {
		Name: "acme/t", Key: []string{"/id"}, Schema: []byte(`{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"],"x-infer-schema":true}`),
	}}
	dir := t.TempDir()
	records, err := collection.ReadCopy(dir)
	require.NoError(t, err)
	require.Empty(t, records, "no run has been here")

	running, err := collection.Open(t.Context(), memory{}, defs)
	require.NoError(t, err)
	require.NoError(t, running.CopyTo(dir))
	current := func(r *collection.Registry) *collection.Version {
		v, err := r.Current("acme/t")
		require.NoError(t, err)
		return v
	}
	fields := func() (names []string) {
		records, err := collection.ReadCopy(dir)
		require.NoError(t, err)
		other, err := collection.Open(t.Context(), memory(records), defs)
		require.NoError(t, err)
		require.Equal(t, current(running).Number, current(other).Number)
		for _, p := range current(other).Spec.Projections {
			names = append(names, p.Field)
		}
		return names
	}
	require.NotContains(t, fields(), "later")
	_, err = running.Announce(t.Context(), "acme/t", []byte(`{"type":"object","properties":{"id":{"type":"integer"},"later":{"type":["string","null"]}},"additionalProperties":false}`))
	require.NoError(t, err)
	require.Contains(t, fields(), "later")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "collections.json"), []byte("{"), 0o600))
	_, err = collection.ReadCopy(dir)
	require.ErrorContains(t, err, "cannot read the collections' schemas in "+dir)
}
