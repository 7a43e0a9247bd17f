package capture_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
)

// asSource has the test's own program be a connector.
const asSource = "SLUICE_TEST_AS_SOURCE"

func TestMain(m *testing.M) {
	switch os.Getenv(asSource) {
	case "counting":
		capture.Main(capture.New(&counting{}))
	case "greetings":
		capture.Main(capture.New(source{}))
	}
	os.Exit(m.Run())
}

// child is a connector in a process of its own.
type child struct {
	*exec.Cmd
	codec  frame.Codec
	stdin  io.WriteCloser
	stdout *frame.Reader
	pipe   io.Closer
	log    string // file with what it wrote to stderr
}

func startChild(t *testing.T, kind string, codec frame.Codec, env ...string) *child {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	c := &child{Cmd: exec.CommandContext(t.Context(), program), codec: codec}
	c.Env = append(os.Environ(), asSource+"="+kind)
	c.Env = append(c.Env, env...)
	c.log = filepath.Join(t.TempDir(), "stderr")
	stderr, err := os.Create(c.log)
	require.NoError(t, err)
	t.Cleanup(func() { _ = stderr.Close() })
	c.Stderr = stderr
	c.stdin, err = c.StdinPipe()
	require.NoError(t, err)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	c.stdout, c.pipe = frame.NewReader(out, codec, 0), out
	require.NoError(t, c.Start())
	return c
}

// stderr is what the process wrote to its log so far.
func (c *child) stderr(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(c.log)
	require.NoError(t, err)
	return string(text)
}

func (c *child) send(t *testing.T, req *capturepb.Request) {
	t.Helper()
	text, err := frame.Append(nil, c.codec, req)
	require.NoError(t, err)
	_, err = c.stdin.Write(text)
	require.NoError(t, err)
}

func (c *child) next(t *testing.T) *capturepb.Response {
	t.Helper()
	res := &capturepb.Response{}
	require.NoError(t, c.stdout.Read(res), "stderr: %s", c.stderr(t))
	return res
}

// open opens a capture of the stream named greetings or a.
func (c *child) open(t *testing.T, config, resource string) {
	t.Helper()
	c.send(t, &capturepb.Request{Open: &capturepb.Request_Open{
		Version: "v1", Range: flowpb.FullRange(), StateJson: json.RawMessage("{}"),
		Capture: &flowpb.CaptureSpec{
			Name: "acme/x", ConnectorType: flowpb.CaptureSpec_IMAGE, ConfigJson: json.RawMessage(config),
			Bindings: []*flowpb.CaptureSpec_Binding{{
				ResourceConfigJson: json.RawMessage(resource), ResourcePath: []string{"x"}, StateKey: "x",
				Collection: &flowpb.CollectionSpec{
					Name: "acme/x", Key: []string{"/n"}, WriteSchemaJson: json.RawMessage("{}"),
					Projections: []*flowpb.Projection{{Ptr: "/n", Field: "n", IsPrimaryKey: true}},
				},
			}},
		},
	}})
	require.NotNil(t, c.next(t).Opened)
}

// lastLine is the last line of the log.
func (c *child) lastLine(t *testing.T) (line struct{ Level, Message string }) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(c.stderr(t)), "\n")
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &line), c.stderr(t))
	return line
}

func TestSignalIsACleanEnd(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		for codec, env := range map[frame.Codec]string{frame.Proto: "FLOW_RUNTIME_CODEC=proto", frame.JSON: "FLOW_RUNTIME_CODEC=json"} {
			c := startChild(t, "greetings", codec, env)
			c.open(t, `{"rate": 1000}`, `{"name": "greetings"}`)
			require.NotNil(t, c.next(t).Captured)
			require.NoError(t, c.Process.Signal(signal))
			last := &capturepb.Response{}
			for {
				res := &capturepb.Response{}
				err := c.stdout.Read(res)
				if errors.Is(err, io.EOF) {
					break
				}
				require.NoError(t, err)
				last = res
			}
			require.NotNil(t, last.Checkpoint, "the output ends with a checkpoint")
			require.NoError(t, c.Wait(), "stderr: %s", c.stderr(t))
		}
	}
}

func TestSignalBetweenRequests(t *testing.T) {
	t.Parallel()
	c := startChild(t, "greetings", frame.Proto)
	c.send(t, &capturepb.Request{Spec: &capturepb.Request_Spec{ConnectorType: flowpb.CaptureSpec_IMAGE}})
	require.NotNil(t, c.next(t).Spec)
	require.NoError(t, c.Process.Signal(syscall.SIGTERM))
	require.NoError(t, c.Wait())
}

// TestRuntimeIsGone: a source that has nothing to say notices all the same that nobody listens any more.
func TestRuntimeIsGone(t *testing.T) {
	t.Parallel()
	c := startChild(t, "counting", frame.Proto)
	c.open(t, `{"mode": "wait", "count": 1}`, `{"stream": "a"}`)
	require.NotNil(t, c.next(t).Captured)
	require.NotNil(t, c.next(t).Checkpoint)
	require.NoError(t, c.pipe.Close())
	begin := time.Now()
	require.NoError(t, c.Wait(), "stderr: %s", c.stderr(t))
	require.Less(t, time.Since(begin), 10*time.Second)
}

func TestLastWords(t *testing.T) {
	t.Parallel()
	c := startChild(t, "counting", frame.Proto)
	c.open(t, `{"mode": "fail", "count": 1}`, `{"stream": "a"}`)
	require.NotNil(t, c.next(t).Captured)
	require.NotNil(t, c.next(t).Checkpoint)
	require.ErrorIs(t, c.stdout.Read(&capturepb.Response{}), io.EOF)
	require.Error(t, c.Wait())
	require.Equal(t, 1, c.ProcessState.ExitCode())
	line := c.lastLine(t)
	require.Equal(t, "error", line.Level)
	require.Equal(t, "The numbers have run out.", line.Message)
}

func TestWrongBytes(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]string{
		"\x05\x00\x00\x00\x0a":         "message 1 at byte 0 ends",
		"\xff\xff\xff\x7f":             "message 1 at byte 0",
		`{"spec":{"connectorType":7}}`: "this looks like the codec json",
	} {
		c := startChild(t, "counting", frame.Proto)
		_, err := io.WriteString(c.stdin, input)
		require.NoError(t, err)
		require.NoError(t, c.stdin.Close())
		require.Error(t, c.Wait())
		require.Contains(t, c.lastLine(t).Message, want)
	}
}

// TestPullToHead: the reader of the output ends early, as head does.
func TestPullToHead(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program, "pull", "--config", "-")
	cmd.Env = append(os.Environ(), asSource+"=greetings")
	cmd.Stdin = strings.NewReader("rate: 5000")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, `{"n":0,`)
	require.NoError(t, out.Close())
	require.NoError(t, cmd.Wait(), "stderr: %s", stderr.String())
}
