package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/testkit/server/cluster"
)

// errNoRegistry says how to get the schema registry.
var errNoRegistry = errors.New("no schema registry on this machine; run `scripts/services install registry`")

// registryScript runs a server and ends it when our process is gone, however that ends.
const registryScript = `exec 3<&0
"$@" <&- 3<&- & pid=$!
read -r _ <&3 || true
kill -KILL $pid 2>/dev/null
wait $pid`

// Registry starts a schema registry for this test, Apicurio with its data in memory, and returns the address of its API in
// Confluent's form. It is gone when the test ends. Starting it takes ten seconds and half a gigabyte.
func Registry(t testing.TB) string {
	t.Helper()
	skipShort(t)
	java, jar, err := findRegistry()
	if err != nil {
		need.Missing(t, "%v", err)
	}
	port, err := cluster.FreePort()
	require.NoError(t, err)
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	defer log.Close()
	// No CommandContext: the shell ends the server when our end of its pipe is closed.
	cmd := exec.Command("sh", "-c", registryScript, "sluice-registry", java, "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
		"-Djava.io.tmpdir="+dir, "-Dquarkus.log.level=WARN", "-Dquarkus.http.access-log.enabled=false",
		"-Dquarkus.http.host=127.0.0.1", "-Dquarkus.http.port="+strconv.Itoa(port), "-jar", jar)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	pipe, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = pipe.Close()
		_ = cmd.Wait() // killed, as it should be
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("the end of the registry's log:\n%s", tail(string(text), 40))
		}
	})
	address := fmt.Sprintf("http://127.0.0.1:%d/apis/ccompat/v7", port)
	require.NoError(t, waitRegistry(t.Context(), address))
	return address
}

func findRegistry() (java, jar string, err error) {
	for _, root := range cluster.CacheRoots() {
		found, _ := filepath.Glob(filepath.Join(root, "registry", "*", "apicurio-registry-app-*-runner.jar"))
		if len(found) > 0 {
			jar = found[0]
		}
	}
	if jar == "" {
		return "", "", errNoRegistry
	}
	if java, err = exec.LookPath("java"); err != nil {
		return "", "", errNoRegistry
	}
	return java, jar, nil
}

// waitRegistry polls the list of subjects.
func waitRegistry(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/subjects", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("status %d", resp.StatusCode)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the schema registry does not answer: %w", err)
		case <-poll.C:
		}
	}
}
