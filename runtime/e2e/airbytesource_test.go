package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// pythonEnviron lets Python keep what it compiles: a source of Airbyte takes seconds to start without.
func pythonEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "PYTHONDONTWRITEBYTECODE=") })
}

// fakerUsers has source-faker itself read, and returns its users as lines id|name|city.
func fakerUsers(t *testing.T, program, config string) string {
	t.Helper()
	dir := t.TempDir()
	catalog := filepath.Join(dir, "catalog.json")
	require.NoError(t, os.WriteFile(catalog, []byte(`{"streams":[{"stream":{"name":"users","json_schema":{},"supported_sync_modes":["full_refresh"]},"sync_mode":"full_refresh","destination_sync_mode":"append"}]}`), 0o600))
	cmd := exec.CommandContext(t.Context(), program, "read", "--config", config, "--catalog", catalog)
	cmd.Env = pythonEnviron()
	out, err := cmd.Output()
	require.NoError(t, err)
	var list []string
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var m struct {
			Record struct {
				Data struct {
					ID      json.Number
					Name    string
					Address struct{ City string }
				}
			}
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &m))
		if d := m.Record.Data; d.ID != "" {
			list = append(list, string(d.ID)+"|"+d.Name+"|"+d.Address.City)
		}
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}

// TestAirbyteSource runs a source of Airbyte's that others have published, as it comes from PyPI: the pipeline that sluice discover prints goes into Postgres,
// in two syncs, of which the second one goes on from the states of the first.
func TestAirbyteSource(t *testing.T) {
	t.Parallel()
	program := filepath.Join(filepath.Dir(environment(t, "airbyte-faker")), "source-faker")
	w := newWorld(t)
	w.catalog = &launch.Catalog{}
	config := filepath.Join(w.folder, "faker.json")
	require.NoError(t, os.WriteFile(config, []byte(`{"count": 30, "seed": 7, "records_per_slice": 10, "parallelism": 1}`), 0o600))
	environ := pythonEnviron()
	discover := exec.CommandContext(t.Context(), w.bins.Sluice(), "discover", "--airbyte", program, "--config", config, "--name", "e2e/faker")
	discover.Env = environ
	printed, err := discover.Output()
	require.NoError(t, err)
	require.Contains(t, string(printed), "resource: {stream: users, syncMode: incremental}")

	filled := strings.Replace(fillIn(t, string(printed), w), "e2e/faker:\n", "e2e/faker:\n    interval: 1s\n", 1)
	filled = strings.Replace(filled, "command: ["+program+"]", "command: ["+program+"]\n        env: {PYTHONDONTWRITEBYTECODE: ''}", 1)
	require.NoError(t, os.WriteFile(w.pipeline(), []byte(filled), 0o600))
	w.restart(t, launch.Options{})
	want := fakerUsers(t, program, config)
	const users = `SELECT string_agg(id || '|' || name || '|' || (address::jsonb->>'city'), E'\n' ORDER BY id::text COLLATE "C" || '|' || name COLLATE "C") FROM users`
	arrived := func(sql, want string) {
		t.Helper()
		got := ""
		eventually(t, 4*time.Minute, func() bool {
			if w.copy.exec(t, "SELECT to_regclass('users') IS NOT NULL AND to_regclass('purchases') IS NOT NULL") == "t" {
				got = w.copy.exec(t, sql)
			}
			return got == want
		}, func() string { return "there is " + got + ", not " + want })
	}
	arrived(users, want)
	arrived("SELECT count(*) || ' ' || count(DISTINCT id) || ' ' || (SELECT count(*) FROM products) FROM purchases", "30 30 30")
	first := w.copy.exec(t, "SELECT max(updated_at) FROM users")

	arrived("SELECT count(*) FROM users WHERE updated_at > '"+first+"'", "30")
	arrived(users, want)
	require.NoError(t, w.sluice.Stop())
	require.Equal(t, 1, strings.Count(w.log(), "Check succeeded"), "later syncs ask the source for nothing but records")
	require.Contains(t, w.log(), `Setting state of SourceFaker stream to {'seed': 7, 'updated_at':`, "the second sync was given the states of the first")
}
