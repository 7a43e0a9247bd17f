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
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// The password that is encrypted in runtime/sops/testdata/pipeline-source.yaml.
const sealedPassword = "correct-horse-battery-93"

// TestSecretsStayHidden runs a pipeline whose source is configured by a file that sops has encrypted, as talkative as it can be. Neither the
// password nor the key that decrypts it shows anywhere: not in lists of processes, in the connectors' environment, the log, the status, the
// metrics or the data folder; nor in what is left when they crash, which is traces in the log, and no dump.
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
		"SOPS_AGE_KEY=" + secrets["age key"], "LOG_LEVEL=trace", "GOTRACEBACK=crash", "SOURCE_ADDRESS=" + w.source.server.Address(), "SOURCE_DATABASE=" + w.source.database,
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
			limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
			require.NoError(t, err)
			require.Regexp(t, `(?m)^Max core file size +0 +0 `, string(limits), program)
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
	const trace = "SIGABRT: abort"
	for i, program := range []string{launch.SourcePostgres, launch.MaterializePostgres} {
		require.NoError(t, syscall.Kill(processes[program][0], syscall.SIGABRT))
		eventually(t, arrival, func() bool { return strings.Count(w.log(), trace) > i }, func() string { return program + " does not crash:\n" + w.lastLines(20) })
	}
	w.source.exec(t, "UPDATE orders SET name = 'after the crash' WHERE id = 8")
	w.same(t, pairOf("orders"))
	require.NoError(t, syscall.Kill(w.sluice.PID(), syscall.SIGABRT))
	<-w.sluice.Exited()
	require.Equal(t, 3, strings.Count(w.log(), trace))
	require.Contains(t, w.log(), "goroutine 1 ")
	for _, folder := range []string{w.folder, "."} {
		left, err := filepath.Glob(filepath.Join(folder, "core*"))
		require.NoError(t, err)
		require.Empty(t, left, "a dump")
	}
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
