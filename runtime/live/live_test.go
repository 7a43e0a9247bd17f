package live

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// TestScreen: log lines pass above the table, which is drawn again below them.
func TestScreen(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &Screen{Out: &out}
	s.Draw([]string{"a", "b"})
	_, err := s.Write([]byte("log\n"))
	require.NoError(t, err)
	s.Draw([]string{"c"})
	require.Equal(t, "a\nb\n"+"\x1b[2A\r\x1b[Jlog\na\nb\n"+"\x1b[2A\r\x1b[Jc\n", out.String())
}

func TestDisplayWritesTheLastState(t *testing.T) {
	t.Parallel()
	board := status.NewBoard()
	board.Task(status.Capture, "acme/source").Binding("orders", "acme/orders").Count(5, 10)
	dir := t.TempDir()
	var text bytes.Buffer
	logger := logrus.New()
	logger.SetOutput(&text)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	(&Display{Board: board, Pipeline: "p.yaml", DataDir: dir, Logger: logger}).Run(ctx)
	s, err := status.ReadFile(dir)
	require.NoError(t, err)
	require.True(t, s.Ended)
	require.Equal(t, uint64(5), s.Tasks[0].Bindings[0].Documents)
	require.Contains(t, text.String(), "documents=5")
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	board := status.NewBoard()
	task := board.Task(status.Capture, "acme/source")
	task.Checkpoint(3)
	var text bytes.Buffer
	logger := logrus.New()
	logger.SetOutput(&text)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, Metrics(ctx, "127.0.0.1:0", board, logger))
	url := regexp.MustCompile(`http://[0-9.:]+/metrics`).FindString(text.String())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Contains(t, string(body), `sluice_checkpoints_total{kind="capture",task="acme/source"} 3`)

	ask := func(path string) string {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/metrics")+path, nil)
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return fmt.Sprint(response.StatusCode, " ", string(body))
	}
	require.Equal(t, "200 alive\n", ask("/healthz"))
	require.Equal(t, "503 not ready: the capture acme/source is starting\n", ask("/readyz"))
	task.Set(status.Running)
	require.Equal(t, "200 ready\n", ask("/readyz"))
	task.Fail("no password")
	require.Equal(t, "503 not ready: the capture acme/source is failing\n", ask("/readyz"))
	require.Equal(t, "200 alive\n", ask("/healthz"))
	task.Set(status.Waiting)
	require.Equal(t, "200 ready\n", ask("/readyz"))
	board.Remove(task)
	require.Equal(t, "503 not ready: the pipeline is starting\n", ask("/readyz"))
	board.Share()
	require.Equal(t, "200 ready\n", ask("/readyz"), "others run the tasks")

	addr := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/metrics")
	err = Metrics(ctx, addr, board, process.Discard())
	require.Contains(t, usererr.Message(err), "cannot serve metrics on "+addr+": ")
}
