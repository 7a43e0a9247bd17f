package cli

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/lake"
)

// Two materializations would overwrite each other's views, and merge their tables into one.
func TestClaim(t *testing.T) {
	t.Parallel()
	owners := map[string]string{}
	require.NoError(t, claim(owners, "acme/lake", lake.Table{Name: "orders"}))
	require.NoError(t, claim(owners, "acme/lake", lake.Table{Name: "items"}))
	require.NoError(t, claim(owners, "acme/other", lake.Table{Name: "customers"}))
	require.EqualError(t, claim(owners, "acme/other", lake.Table{Name: "Orders_history"}),
		"The materializations acme/lake and acme/other would both make Orders_history in DuckDB. Name the one you mean with --materialization, and give each a database of its own.")
}
