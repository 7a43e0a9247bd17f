package connector

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func shell(script string) *pipeline.Endpoint {
	return &pipeline.Endpoint{Command: []string{"/bin/sh", "-c", script}, Codec: frame.JSON}
}

func entry() *logrus.Entry { return logrus.NewEntry(process.Discard()) }

// logged runs a script to its end and returns what it logged.
func logged(t *testing.T, script string) (lines []Line, err error) {
	t.Helper()
	l := &Launcher{Environ: os.Environ()}
	var mu sync.Mutex
	p, startErr := l.Start(t.Context(), shell(script), "acme/x", entry(), func(line Line) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, line)
	})
	require.NoError(t, startErr)
	err = p.Wait(t.Context())
	mu.Lock()
	defer mu.Unlock()
	return lines, err
}

func TestLogLines(t *testing.T) {
	t.Parallel()
	lines, err := logged(t, `
echo '{"ts":"2026-01-01T00:00:00Z","level":"info","message":"one","fields":{"table":"t"},"extra":1}' >&2
echo '{"lvl":"WARNING","msg":"two"}' >&2
echo '{"msg":"it failed"}' >&2
printf 'Traceback:\n  line 1\n  panic: oh\n' >&2
echo '{"level":"debug","message":"last"}' >&2
exit 3`)
	require.Equal(t, "info one", lines[0].Level.String()+" "+lines[0].Message)
	require.Equal(t, map[string]any{"table": "t", "extra": 1.0}, lines[0].Fields)
	require.Equal(t, "warning two", lines[1].Level.String()+" "+lines[1].Message)
	require.Equal(t, "error it failed", lines[2].Level.String()+" "+lines[2].Message, "without a level, by its words")
	require.Equal(t, "Traceback:\nline 1\npanic: oh", lines[3].Message, "lines that are no JSON are one message")
	require.EqualError(t, err, "sh ended with exit code 3: Traceback:\nline 1\npanic: oh")

	_, err = logged(t, `echo '{"level":"info","message":"all is well"}' >&2; kill -9 $$`)
	require.EqualError(t, err, "sh was killed (SIGKILL)", "a process that was killed did not know")
	_, err = logged(t, `echo '{"level":"warn","message":"memory is low"}' >&2; kill -9 $$`)
	require.EqualError(t, err, "sh was killed (SIGKILL); its last warning was: memory is low")
	_, err = logged(t, `exit 0`)
	require.NoError(t, err)
	_, err = logged(t, `head -c 3000000 /dev/zero | tr '\0' x >&2; exit 1`)
	require.Less(t, len(err.Error()), 10_000, "endless lines are cut")
}

// TestStrayChildren: a grandchild that holds the pipes open does not hold us.
func TestStrayChildren(t *testing.T) {
	t.Parallel()
	began := time.Now()
	_, err := logged(t, `sleep 60 & exit 5`)
	require.ErrorContains(t, err, "exit code 5")
	require.Less(t, time.Since(began), 20*time.Second)
}

func TestHangingConnectorIsKilled(t *testing.T) {
	t.Parallel()
	l := &Launcher{Environ: os.Environ()}
	exchange := Exchange{Name: "Spec", Request: &capturepb.Request{Spec: &capturepb.Request_Spec{}}, Response: &capturepb.Response{}}
	err := l.Call(t.Context(), shell(`echo '{"level":"info","message":"connecting"}' >&2; sleep 60`), "acme/x", entry(), nil, 300*time.Millisecond, exchange)
	require.Equal(t, "sh did not answer within 300ms and was stopped; it last said: connecting", usererr.Message(err))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, l.Call(ctx, shell(`sleep 60`), "acme/x", entry(), nil, time.Minute, exchange), context.Canceled)
	_, err = l.Start(t.Context(), &pipeline.Endpoint{Command: []string{"/no/such/program"}}, "acme/x", entry(), nil)
	require.Equal(t, "cannot start program: there is no file /no/such/program", usererr.Message(err))
}

// fakeDocker is a docker client that notes its arguments and runs a JSON connector.
const fakeDocker = `#!/bin/sh
echo "$@" >> "$0.log"
case "$1 $2" in
"image inspect") test -e "$0.pulled" || { echo "no such image" >&2; exit 1; }
  echo '{"Labels":{"FLOW_RUNTIME_CODEC":"json","FLOW_RUNTIME_PROTOCOL":"capture"},"Env":["PATH=/bin"]}' ;;
"pull --quiet") case "$3" in *none*) echo "pull access denied" >&2; exit 1;; esac; touch "$0.pulled" ;;
"rm --force") exit 1 ;;
run*) read request; echo '{"spec":{"protocol":3032023}}' ;;
esac
`

func TestImages(t *testing.T) {
	t.Parallel()
	docker := filepath.Join(t.TempDir(), "docker")
	require.NoError(t, os.WriteFile(docker, []byte(fakeDocker), 0o700))
	l := &Launcher{Environ: os.Environ(), Docker: docker, Instance: "abc"}
	response := &capturepb.Response{}
	exchange := Exchange{Name: "Spec", Request: &capturepb.Request{Spec: &capturepb.Request_Spec{}}, Response: response}
	err := l.Call(t.Context(), &pipeline.Endpoint{Image: "ghcr.io/acme/source-x:v1"}, "acme/x y", entry(), nil, time.Minute, exchange)
	require.NoError(t, err)
	require.EqualValues(t, 3032023, response.GetSpec().GetProtocol())
	calls, err := os.ReadFile(docker + ".log")
	require.NoError(t, err)
	require.Equal(t, strings.TrimSpace(`
image inspect --format {{json .Config}} ghcr.io/acme/source-x:v1
pull --quiet ghcr.io/acme/source-x:v1
image inspect --format {{json .Config}} ghcr.io/acme/source-x:v1
rm --force sluice-abc-acme_x_y-3a2f0034
run --interactive --rm --name sluice-abc-acme_x_y-3a2f0034 --log-driver none --add-host host.docker.internal:host-gateway --env LOG_FORMAT=json --env LOG_LEVEL=info ghcr.io/acme/source-x:v1`), strings.TrimSpace(string(calls)))

	l.Network = "host"
	require.NoError(t, l.Call(t.Context(), &pipeline.Endpoint{Image: "ghcr.io/acme/source-x:v1"}, "acme/x", entry(), nil, time.Minute, exchange))
	calls, err = os.ReadFile(docker + ".log")
	require.NoError(t, err)
	require.Contains(t, string(calls), "--log-driver none --network host --add-host host.docker.internal:127.0.0.1 --env")

	require.NoError(t, os.Remove(docker+".pulled"))
	err = l.Call(t.Context(), &pipeline.Endpoint{Image: "ghcr.io/acme/none:v1"}, "acme/x", entry(), nil, time.Minute, exchange)
	require.Contains(t, usererr.Message(err), "cannot get the image ghcr.io/acme/none:v1: docker pull: pull access denied")
	l.Docker = "/no/docker"
	err = l.Call(t.Context(), &pipeline.Endpoint{Image: "ghcr.io/acme/none:v1"}, "acme/x", entry(), nil, time.Minute, exchange)
	require.Contains(t, usererr.Message(err), "is an image, and there is no program /no/docker to run it")
}
