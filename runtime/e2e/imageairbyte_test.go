package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// TestImageOfAirbyte runs an image that speaks the Airbyte protocol, and nothing else, as a capture: its configuration, its catalog and its
// state come by files in a folder that it is given. What is discovered goes into Postgres, in syncs of which each goes on where the one before ended.
func TestImageOfAirbyte(t *testing.T) {
	t.Parallel()
	engine(t)
	w := newWorld(t, "CREATE TABLE orders (id int PRIMARY KEY, name text)", "INSERT INTO orders SELECT i, 'order ' || i FROM generate_series(1, 20) i")
	const name = "sluice/airbyte-postgres:local"
	container := docker(t, "create", image("source-postgres"))
	docker(t, "commit", "--change", `ENTRYPOINT ["/connector", "airbyte"]`, container, name)
	docker(t, "rm", container)

	config := filepath.Join(w.folder, "source.json")
	require.NoError(t, os.WriteFile(config, []byte(asJSON(t, w.source.login())), 0o600))
	flags := []string{"--network", "host"}
	for _, option := range hardenedOptions() {
		flags = append(flags, "--docker-option="+option)
	}
	discover := exec.CommandContext(t.Context(), w.bins.Sluice(), append(flags, "discover", "--airbyte", name, "--config", config, "--name", "e2e/airbyte")...)
	var stderr strings.Builder
	discover.Stderr = &stderr
	printed, err := discover.Output()
	require.NoError(t, err, stderr.String())
	require.Contains(t, string(printed), "image: "+name)
	filled := strings.Replace(fillIn(t, string(printed), w), "e2e/airbyte:\n", "e2e/airbyte:\n    interval: 1s\n", 1)
	require.NoError(t, os.WriteFile(w.pipeline(), []byte(filled), 0o600))
	w.restart(t, launch.Options{Flags: flags})
	const rows = "SELECT count(*), count(*) FILTER (WHERE name = 'changed') FROM orders"
	w.copy.prints(t, "20|0", rows)
	w.source.exec(t, "UPDATE orders SET name = 'changed' WHERE id = 7", "INSERT INTO orders VALUES (21, 'new')")
	w.copy.prints(t, "21|1", rows)
	require.NoError(t, w.sluice.Stop())
	require.Empty(t, docker(t, "ps", "--all", "--quiet", "--filter", "ancestor="+name), "no container is left behind")
}
