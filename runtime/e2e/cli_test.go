package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// sluicely runs sluice and returns what it prints on its standard output.
func (w *world) sluicely(t testing.TB, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), w.bins.Sluice(), args...)
	cmd.Dir = w.folder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "sluice %s\n%s", strings.Join(args, " "), stderr.Bytes())
	return stdout.String()
}

// What `sluice discover` prints runs as it is; and with the comment's # removed and its blanks filled in, it materializes.
func TestDiscoveredPipelineRunsAsItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, itemsFill, three)
	w.catalog = &launch.Catalog{}
	config, err := json.Marshal(w.source.login()) // which is YAML, too
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(w.folder, "source.yaml"), config, 0o600))
	printed := w.sluicely(t, "discover", w.bins.Path(launch.SourcePostgres), "--config", "source.yaml", "--name", "e2e/"+w.source.database)
	require.NotContains(t, printed, "password", "secrets stay in their own file")
	require.NoError(t, os.WriteFile(w.pipeline(), []byte(printed), 0o600))

	started := time.Now()
	w.sluicely(t, "run", "pipeline.yaml", "--data", w.data(), "--stop-after", "5s")
	require.Less(t, time.Since(started), 15*time.Second)
	var status struct {
		Ended bool
		Tasks []struct {
			Kind, Name, State string
			Bindings          []struct{ Documents int }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(w.sluicely(t, "status", "--data", w.data(), "--json")), &status))
	require.True(t, status.Ended)
	require.Len(t, status.Tasks, 1)
	documents := 0
	for _, b := range status.Tasks[0].Bindings {
		documents += b.Documents
	}
	require.Equal(t, 3003, documents, "captured rows")

	filled := fillIn(t, printed, w)
	require.NoError(t, os.WriteFile(w.pipeline(), []byte(filled), 0o600))
	w.restart(t, launch.Options{})
	w.same(t, softly(pairOf("items")), softly(pairOf("a")), softly(pairOf("c")))
	require.NoError(t, w.sluice.Stop())
}

// fillIn does to the comment what it says.
func fillIn(t *testing.T, pipeline string, w *world) string {
	t.Helper()
	before, comment, found := strings.Cut(pipeline, "\n# materializations:")
	require.True(t, found, "a materialization to fill in:\n%s", pipeline)
	comment = regexp.MustCompile(`(?m)^# ?`).ReplaceAllString("# materializations:"+comment, "")
	config, err := json.Marshal(w.copy.login())
	require.NoError(t, err)
	file := filepath.Join(w.folder, "destination.yaml")
	require.NoError(t, os.WriteFile(file, config, 0o600))
	comment = strings.NewReplacer("/path/to/bin/materialize-postgres", w.bins.Path(launch.MaterializePostgres), "/path/to/destination.yaml", file).Replace(comment)
	return before + "\n" + comment
}

// Status tells how a pipeline is doing while it runs and after, and the metrics say the same in numbers.
func TestStatusAndMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, itemsFill)
	w.discover(t)
	w.materialize(t, "e2e/measured", nil, nil)
	config := w.source.login()
	config["advanced"] = map[string]any{"statusEvery": "1s"}
	text, err := json.Marshal(config) // which is YAML, too
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(w.folder, "source.yaml"), text, 0o600))
	address := freeAddress(t)
	require.NoError(t, w.catalog.Write(w.pipeline()))
	w.restart(t, launch.Options{Metrics: address})
	w.same(t, softly(pairOf("items")))
	w.source.exec(t, changeItems()...)
	w.same(t, softly(pairOf("items")))

	capture := `kind="capture",task="e2e/` + w.source.database + `"`
	materialization := `kind="materialization",task="e2e/measured"`
	wanted := map[string]string{
		"documents of the capture":         `sluice_documents_total{binding="public.items",collection="e2e/public/items",` + capture + `} 3730`,
		"documents of the materialization": `sluice_documents_total{binding="public.items",collection="e2e/public/items",` + materialization + `} \d+`,
		"bytes":                            `sluice_bytes_total\{[^}]*` + regexp.QuoteMeta(capture) + `\} [1-9]`,
		"lag in seconds":                   `sluice_lag_seconds\{[^}]*` + regexp.QuoteMeta(materialization) + `\} 0\n`,
		"lag in bytes":                     `sluice_lag_bytes\{[^}]*` + regexp.QuoteMeta(materialization) + `\} 0\n`,
		"checkpoints of the capture":       `sluice_checkpoints_total\{` + regexp.QuoteMeta(capture) + `\} [1-9]`,
		"lag of the capture in bytes":      `sluice_lag_bytes\{[^}]*` + regexp.QuoteMeta(capture) + `\} 0\n`,
		"lag of the capture in seconds":    `sluice_lag_seconds\{[^}]*` + regexp.QuoteMeta(capture) + `\} 0\n`,
		"log that the slot keeps":          `sluice_source_retained_bytes\{` + regexp.QuoteMeta(capture) + `\} [1-9]`,
		"oldest transaction":               `sluice_source_oldest_transaction_seconds\{` + regexp.QuoteMeta(capture) + `\} \d`,
		"capture that is not stuck":        `sluice_source_waiting\{` + regexp.QuoteMeta(capture) + `\} 0\n`,
		"transactions":                     `sluice_checkpoints_total\{` + regexp.QuoteMeta(materialization) + `\} [1-9]`,
	}
	for name, line := range wanted {
		pattern := strings.NewReplacer("total{", `total\{`, `"} `, `"\} `).Replace(line)
		page := ""
		eventually(t, arrival, func() bool {
			page = get(t, "http://"+address+"/metrics")
			return regexp.MustCompile(pattern).MatchString(page)
		}, func() string { return fmt.Sprintf("%s: no line like %s in\n%s", name, pattern, page) })
	}
	status, running := "", regexp.MustCompile(`running for .*\n(.*\n)*  the source keeps [\d.]+ k?M?B of log for it\n(.*\n)*.*e2e/measured\s+running\n.*public\.items\s+streaming\s+\d`)
	eventually(t, arrival, func() bool { // it is written once a second
		status = w.sluicely(t, "status", "--data", w.data())
		return running.MatchString(status)
	}, func() string { return "the status is\n" + status })
	require.Contains(t, w.sluicely(t, "status", "--data", w.data(), "--json"), `"confirmed": "`)
	require.NoError(t, w.sluice.Stop())
	require.Regexp(t, `stopped .* ago`, w.sluicely(t, "status", "--data", w.data()))
}

func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

func get(t testing.TB, url string) string {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(body)
}
