package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// The password that is encrypted in runtime/sops/testdata/pipeline-source.yaml.
const sealedPassword = "correct-horse-battery-93"

// TestSecretsStayHidden runs a pipeline whose source is configured by a file that sops has encrypted, as talkative as it can be. Neither the
// password nor the key that decrypts it shows anywhere: not in lists of processes, in the connectors' environment, the log, the status, the
// metrics or the data folder.
func TestSecretsStayHidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE orders (id int PRIMARY KEY, name text)", "INSERT INTO orders SELECT i, 'order' FROM generate_series(1, 100) i",
		"DO $$ BEGIN CREATE ROLE sealed SUPERUSER LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$", "ALTER ROLE sealed PASSWORD '"+sealedPassword+"'")
	w.discover(t, "orders")
	w.materialize(t, "e2e/"+w.copy.database, nil, nil)
	sealed, err := os.ReadFile("../sops/testdata/pipeline-source.yaml")
	require.NoError(t, err)
	require.NotContains(t, string(sealed), sealedPassword)
	require.NoError(t, os.WriteFile(filepath.Join(w.folder, "source.yaml"), sealed, 0o600))
	keys, err := os.ReadFile("../sops/testdata/key.txt")
	require.NoError(t, err)
	secrets := map[string]string{"password": sealedPassword}
	for line := range strings.Lines(string(keys)) {
		if strings.HasPrefix(line, "AGE-SECRET-KEY-") {
			secrets["age key"] = strings.TrimSpace(line)
		}
	}
	require.Len(t, secrets, 2)
	hidden := func(where string, text []byte) {
		for name, secret := range secrets {
			require.False(t, bytes.Contains(text, []byte(secret)), "%s has the %s", where, name)
		}
	}

	require.NoError(t, w.catalog.Write(w.pipeline()))
	metrics := freeAddress(t)
	environ := []string{
		"SOPS_AGE_KEY=" + secrets["age key"], "LOG_LEVEL=trace", "SOURCE_ADDRESS=" + w.source.server.Address(), "SOURCE_DATABASE=" + w.source.database,
	}
	w.restart(t, launch.Options{Metrics: metrics, Env: environ})
	w.same(t, pairOf("orders"))
	w.source.exec(t, "UPDATE orders SET name = 'changed' WHERE id = 7")
	w.same(t, pairOf("orders"))

	processes := map[string][]int{"sluice": {w.sluice.PID()}}
	for _, program := range []string{launch.SourcePostgres, launch.MaterializePostgres} {
		processes[program] = w.sluice.Connectors(program)
		require.NotEmpty(t, processes[program], program)
	}
	for program, pids := range processes {
		for _, pid := range pids {
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			require.NoError(t, err)
			hidden("the command line of "+program, line)
			environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if errors.Is(err, fs.ErrPermission) {
				continue // to who is not root, or is root in a container, the process is closed: see sdk/process
			}
			require.NoError(t, err)
			require.NotEmpty(t, environ)
			if program != "sluice" { // which was given the key
				hidden("the environment of "+program, environ)
			}
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+metrics+"/metrics", nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "sluice_documents_total")
	hidden("the metrics", body)
	status, err := exec.CommandContext(t.Context(), w.bins.Sluice(), "status", "--data", w.data(), "--json").Output()
	require.NoError(t, err)
	hidden("the status", status)
	require.NoError(t, w.sluice.Stop())
	require.Contains(t, w.log(), `"level":"debug"`, "it said what it could")
	hidden("the log", []byte(w.log()))
	files := 0
	require.NoError(t, filepath.WalkDir(w.data(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		hidden(path, text)
		return err
	}))
	require.NotZero(t, files)

	// Without the key nothing runs, and it says what is missing.
	w.restart(t, launch.Options{Env: []string{"SOPS_AGE_KEY=", "SOPS_AGE_KEY_FILE=", "XDG_CONFIG_HOME=" + t.TempDir()}})
	<-w.sluice.Exited()
	require.Error(t, w.sluice.Err())
	require.Contains(t, w.log(), "source.yaml:2 cannot be used: it is encrypted, and there is no age key")
}
