package airbyte_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/cli"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/sdk/process"
)

// scenario is the environment variable that makes this program a source of Airbyte: the folder of its script.
const scenario = "SLUICE_TEST_AIRBYTE_SCENARIO"

// TestMain is the tests, the adapter as sluice has it, or a source, as the arguments say.
func TestMain(m *testing.M) {
	dir := os.Getenv(scenario)
	switch {
	case dir == "":
		os.Exit(m.Run())
	case os.Args[1] == "airbyte-adapter":
		process.Main("sluice", cli.Run)
	default:
		os.Exit(standIn(dir, os.Args[1:]))
	}
}

// call is what the stand-in was called with.
type call struct {
	Args  []string
	Files map[string]string
	Modes []string
}

// standIn is a source that prints the lines of the file called like its command, and notes how it was called. Commands that were called before
// use the file with their number, such as read2, if there is one. A line that begins with ! is an instruction.
func standIn(dir string, args []string) int {
	c := call{Args: args, Files: map[string]string{}}
	for i := 1; i+1 < len(args); i += 2 {
		text, err := os.ReadFile(args[i+1])
		if err != nil {
			return 90
		}
		c.Files[strings.TrimPrefix(args[i], "--")] = string(text)
		for _, path := range []string{args[i+1], filepath.Dir(args[i+1])} {
			info, err := os.Stat(path)
			if err != nil {
				return 91
			}
			c.Modes = append(c.Modes, info.Mode().Perm().String())
		}
	}
	before, _ := filepath.Glob(filepath.Join(dir, "call-*-"+args[0]))
	all, _ := filepath.Glob(filepath.Join(dir, "call-*"))
	text, _ := json.Marshal(c) // of texts
	if os.WriteFile(filepath.Join(dir, fmt.Sprintf("call-%02d-%s", len(all), args[0])), text, 0o600) != nil {
		return 92
	}
	script, err := os.Open(filepath.Join(dir, fmt.Sprintf("%s%d", args[0], len(before)+1)))
	if err != nil {
		script, err = os.Open(filepath.Join(dir, args[0]))
	}
	if err != nil {
		return 93
	}
	for lines := bufio.NewScanner(script); lines.Scan(); {
		instruction, rest, _ := strings.Cut(lines.Text(), " ")
		switch instruction {
		case "!stderr":
			fmt.Fprintln(os.Stderr, rest)
		case "!exit":
			code := 0
			_, _ = fmt.Sscan(rest, &code)
			return code
		case "!hang":
			time.Sleep(time.Hour) //nolint:forbidigo // it is killed
		default:
			fmt.Println(lines.Text())
		}
	}
	return 0
}

// world is one stand-in under a capture.
type world struct {
	dir     string
	capture *host.Capture
	state   json.RawMessage
	mu      sync.Mutex
	log     []string
}

const (
	config  = `{"host":"db.example","password":"hunter2 & co","nested":{"api_key":"s3cr3t-key"}}`
	form    = `{"type":"SPEC","spec":{"documentationUrl":"https://example.com/docs","connectionSpecification":{"type":"object","title":"T","properties":{"host":{"type":"string"},"password":{"type":"string","airbyte_secret":true},"nested":{"oneOf":[{"properties":{"api_key":{"type":"string","airbyte_secret":true}}}]}}}}}`
	success = `{"type":"CONNECTION_STATUS","connectionStatus":{"status":"SUCCEEDED"}}`
	catalog = `{"type":"CATALOG","catalog":{"streams":[` + users + `,` + events + `]}}`
	users   = `{"name":"users","namespace":"shop","json_schema":{"type":"object","properties":{"id":{"type":["null","integer"]},"at":{"type":"string","format":"date-time","airbyte_type":"timestamp_without_timezone"}}},"supported_sync_modes":["full_refresh","incremental"],"source_defined_cursor":true,"default_cursor_field":["at"],"source_defined_primary_key":[["id"]],"is_resumable":true,"default":null}`
	events  = `{"name":"events","json_schema":{"type":"object","properties":{"x":{"type":"number"}}},"supported_sync_modes":["full_refresh"]}`
)

// script are the lines of each command. Those that it lacks are what most tests want.
type script map[string][]string

func newWorld(t *testing.T, s script, options ...string) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), state: json.RawMessage("{}")}
	for verb, line := range map[string]string{"spec": form, "check": success, "discover": catalog} {
		if s[verb] == nil {
			s[verb] = []string{line}
		}
	}
	for verb, lines := range s {
		require.NoError(t, os.WriteFile(filepath.Join(w.dir, verb), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	}
	folder := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	command := append([]string{self, "airbyte-adapter"}, options...)
	w.capture = &host.Capture{Connector: host.Connector{
		Task: "acme/shop", Answer: time.Minute,
		Endpoint: host.Endpoint{Command: append(command, "--", self), Codec: frame.Proto, Config: json.RawMessage(config), Label: "standin"},
		Launcher: &host.Launcher{Environ: append(os.Environ(), scenario+"="+w.dir, "TMPDIR="+folder, "GOCOVERDIR="+folder), LogLevel: "trace"},
		OnLog: func(l host.Line) {
			w.mu.Lock()
			defer w.mu.Unlock()
			text, _ := json.Marshal(l.Fields)
			w.log = append(w.log, fmt.Sprintf("%s %s %s", l.Level, l.Message, text))
		},
	}}
	t.Cleanup(func() {
		left, err := filepath.Glob(filepath.Join(folder, "sluice-airbyte-*"))
		require.NoError(t, err)
		require.Empty(t, left, "a configuration was left behind")
		require.NotContains(t, w.logged(), "hunter2")
		require.NotContains(t, w.logged(), "s3cr3t-key")
	})
	return w
}

// script replaces the lines of a command, and of those that have its number.
func (w *world) script(t *testing.T, verb string, lines ...string) {
	t.Helper()
	numbered, err := filepath.Glob(filepath.Join(w.dir, verb+"[0-9]*"))
	require.NoError(t, err)
	for _, name := range numbered {
		require.NoError(t, os.Remove(name))
	}
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, verb), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.log, "\n")
}

// calls are how the source was called, in order.
func (w *world) calls(t *testing.T) (verbs string, list []call) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.dir, "call-*"))
	require.NoError(t, err)
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		var c call
		require.NoError(t, json.Unmarshal(text, &c))
		verbs += c.Args[0] + " "
		list = append(list, c)
	}
	return strings.TrimSpace(verbs), list
}

// binding is a stream to capture.
type binding struct {
	resource string
	key      []string
	backfill uint32
}

func usersBinding() binding {
	return binding{resource: `{"stream":"users","namespace":"shop"}`, key: []string{"/id"}}
}

func eventsBinding() binding {
	return binding{resource: `{"stream":"events"}`, key: []string{"/_meta/sync", "/_meta/row"}}
}

// specify validates bindings.
func (w *world) specify(t *testing.T, bindings ...binding) (*flowpb.CaptureSpec, error) {
	t.Helper()
	request := &capturepb.Request_Validate{}
	for i, b := range bindings {
		c, err := host.NewCollection(fmt.Sprintf("acme/c%d", i), b.key, json.RawMessage(`{"type":"object","properties":{"id":{"type":"integer"},"_meta":{"type":"object","properties":{"sync":{"type":"string"},"row":{"type":"integer"}}}},"required":["id"]}`))
		require.NoError(t, err)
		request.Bindings = append(request.Bindings, &capturepb.Request_Validate_Binding{ResourceConfigJson: json.RawMessage(b.resource), Collection: c, Backfill: b.backfill})
	}
	return w.capture.Specify(t.Context(), request)
}

// sync runs one session and keeps its last state. It returns documents as "binding document", and checkpoints as a line of their own.
func (w *world) sync(t *testing.T, bindings ...binding) ([]string, error) {
	t.Helper()
	spec, err := w.specify(t, bindings...)
	if err != nil {
		return nil, err
	}
	session, err := w.capture.Open(t.Context(), &capturepb.Request_Open{Capture: spec, StateJson: w.state})
	if err != nil {
		return nil, err
	}
	return w.rest(t, session)
}

// rest reads a session to its end.
func (w *world) rest(t *testing.T, session *host.CaptureSession) (got []string, err error) {
	t.Helper()
	for {
		r, err := session.Next()
		switch {
		case errors.Is(err, io.EOF):
			w.state = session.State()
			return got, session.Wait(t.Context())
		case err != nil:
			return got, errors.Join(err, session.Close())
		case r.Captured != nil:
			got = append(got, fmt.Sprintf("%d %s", r.Captured.Binding, r.Captured.DocJson))
		case r.Checkpoint != nil:
			got = append(got, "checkpoint")
		}
	}
}

func record(stream, data string) string {
	d := `"stream":"` + stream + `"`
	if stream == "users" {
		d = `"namespace":"shop",` + d
	}
	return `{"type":"RECORD","record":{` + d + `,"data":` + data + `,"emitted_at":1700000000000}}`
}

func streamState(state string, count int) string {
	return fmt.Sprintf(`{"type":"STATE","state":{"type":"STREAM","stream":{"stream_descriptor":{"name":"users","namespace":"shop"},"stream_state":%s},"sourceStats":{"recordCount":%d.0}}}`, state, count)
}
