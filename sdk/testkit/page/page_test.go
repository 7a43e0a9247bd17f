package page

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSQL(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "page.md")
	text := "# T\n```sql\nSELECT 0;\n```\n## Set up\nSay:\n```sql\nCREATE USER a PASSWORD '…';  -- who captures\nGRANT x\n  TO a;\n```\n### More\n```sql\nSELECT 1\n```\n```yaml\na: b\n```\n## Next\n```sql\nSELECT 2;\n```\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	require.Equal(t, []string{"CREATE USER a PASSWORD 'p'", "GRANT x\n  TO a", "SELECT 1"}, SQL(t, path, "## Set up", "…", "p"))
	require.Equal(t, []string{"SELECT 1"}, SQL(t, path, "### More"))
}
