package conformance

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheDocumentationHasTheRules: the page's table is what `sluice test --rules` prints.
func TestTheDocumentationHasTheRules(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/conformance.md")
	require.NoError(t, err)
	require.Contains(t, string(page), Table(), "sluice test --rules prints what belongs into docs/conformance.md")
}
