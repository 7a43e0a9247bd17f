package capture_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/airbyte"
	"github.com/sluicedata/sluice/sdk/capture"
)

// sync is what Airbyte's platform has of a source: it calls commands, and reads their messages.
type platform struct {
	t      *testing.T
	source *counting
	config string
	state  string // file; "" before the first sync
}

func (p *platform) file(name, content string) string {
	path := filepath.Join(p.t.TempDir(), name)
	require.NoError(p.t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func (p *platform) call(wantCode int, args ...string) []airbyte.Message {
	p.t.Helper()
	p.source = &counting{}
	code, out, errs := run(p.t.Context(), capture.New(p.source), strings.NewReader(""), nil, append([]string{"airbyte"}, args...)...)
	require.Equal(p.t, wantCode, code, "%s%s", out, errs)
	require.Empty(p.t, errs, "everything is a message")
	var messages []airbyte.Message
	for line := range strings.Lines(out) {
		var m airbyte.Message
		require.NoError(p.t, json.Unmarshal([]byte(line), &m), line)
		messages = append(messages, m)
	}
	return messages
}

func only(messages []airbyte.Message, kind string) (found []airbyte.Message) {
	for _, m := range messages {
		if m.Type == kind {
			found = append(found, m)
		}
	}
	return found
}

// catalog configures all streams for a sync mode.
func (p *platform) catalog(mode string, names ...string) string {
	var c airbyte.ConfiguredCatalog
	for _, name := range names {
		c.Streams = append(c.Streams, &airbyte.ConfiguredStream{Stream: &airbyte.Stream{Name: name, Namespace: "main"}, SyncMode: mode})
	}
	text, err := json.Marshal(c)
	require.NoError(p.t, err)
	return p.file("catalog.json", string(text))
}

// sync reads, and keeps the last state as a platform does.
func (p *platform) sync(catalog string, args ...string) (records []*airbyte.Record, messages []airbyte.Message) {
	p.t.Helper()
	args = append([]string{"read", "--config", p.file("c.json", p.config), "--catalog", catalog}, args...)
	if p.state != "" {
		args = append(args, "--state", p.state)
	}
	messages = p.call(0, args...)
	counted := 0
	for _, m := range messages {
		switch m.Type {
		case "RECORD":
			records = append(records, m.Record)
			counted++
		case "STATE":
			require.EqualValues(p.t, counted, m.State.Stats.RecordCount, "records since the state before")
			counted = 0
			text, err := json.Marshal([]*airbyte.State{m.State})
			require.NoError(p.t, err)
			p.state = p.file("state.json", string(text))
		}
	}
	require.Zero(p.t, counted, "a sync ends with a state")
	return records, messages
}

func TestAirbyteDescribesTheSource(t *testing.T) {
	t.Parallel()
	p := &platform{t: t}
	spec := only(p.call(0, "spec"), "SPEC")[0].Spec
	require.True(t, spec.SupportsIncremental)
	require.Contains(t, string(spec.ConnectionSpecification), `"airbyte_secret":true`)
	require.Contains(t, string(spec.ConnectionSpecification), `"capture_name":`)

	config := p.file("c.json", `{"streams": "a", "capture_name": "mine", "__injected": 1}`)
	require.Equal(t, "SUCCEEDED", only(p.call(0, "check", "--config", config), "CONNECTION_STATUS")[0].ConnectionStatus.Status)
	status := only(p.call(0, "check", "--config", p.file("bad.json", `{"count": -1}`)), "CONNECTION_STATUS")[0].ConnectionStatus
	require.Equal(t, "FAILED", status.Status)
	require.Contains(t, status.Message, "Count must not be negative.")

	streams := only(p.call(0, "discover", "--config", config), "CATALOG")[0].Catalog.Streams
	require.Len(t, streams, 1)
	s := streams[0]
	require.Equal(t, airbyte.Descriptor{Name: "a", Namespace: "main"}, s.Descriptor())
	require.Equal(t, [][]string{{"n"}}, s.SourceDefinedPrimaryKey)
	require.Equal(t, []string{"full_refresh", "incremental"}, s.SupportedSyncModes)
	require.True(t, s.SourceDefinedCursor)
	require.Equal(t, []string{"_ab_cdc_cursor"}, s.DefaultCursorField)

	failure := only(p.call(1, "discover", "--config", p.file("worse.json", `{"mode": "x"}`)), "TRACE")[0].Trace
	require.Equal(t, "ERROR", failure.Type)
	require.Contains(t, failure.Error.Message, `The field "mode" of the configuration is "x".`)
	require.Equal(t, "config_error", failure.Error.FailureType)
}

// A sync goes on where the state says that it was given, and says how far its streams are. Nothing is acknowledged in it.
func TestAirbyteSyncs(t *testing.T) {
	t.Parallel()
	p := &platform{t: t, config: `{"count": 3}`}
	catalog := p.catalog("incremental", "a", "b")
	records, messages := p.sync(catalog)
	require.Len(t, records, 6)
	require.True(t, p.source.env.CatchUp)
	require.True(t, p.source.env.Whole)
	require.False(t, p.source.env.Ephemeral)
	require.Regexp(t, "^airbyte-[0-9a-f]{8}$", p.source.env.Task)
	require.Empty(t, p.source.acks(), "who says that it was stored?")
	task := p.source.env.Task

	var statuses []string
	for _, m := range only(messages, "TRACE") {
		statuses = append(statuses, m.Trace.StreamStatus.Descriptor.Name+" "+m.Trace.StreamStatus.Status)
	}
	require.Equal(t, []string{"a STARTED", "b STARTED", "a RUNNING", "b RUNNING", "a COMPLETE", "b COMPLETE"}, statuses)
	require.Equal(t, "STATE", messages[len(messages)-3].Type, "the last state comes before the end of the streams")
	var first struct {
		N       int    `json:"n"`
		Cursor  int64  `json:"_ab_cdc_cursor"`
		Updated string `json:"_ab_cdc_updated_at"`
		Deleted any    `json:"_ab_cdc_deleted_at"`
	}
	last := first
	require.NoError(t, json.Unmarshal(records[0].Data, &first))
	require.NoError(t, json.Unmarshal(records[5].Data, &last))
	require.NotEmpty(t, first.Updated)
	require.Nil(t, first.Deleted)
	require.Equal(t, first.Cursor+5, last.Cursor)

	// The configuration may change; the capture's name is kept, and numbers grow.
	p.config = `{"count": 5, "batch": 2}`
	records, _ = p.sync(catalog)
	require.Len(t, records, 4)
	require.Equal(t, task, p.source.env.Task)
	next := last
	require.NoError(t, json.Unmarshal(records[0].Data, &next))
	require.Greater(t, next.Cursor, last.Cursor)
	records, messages = p.sync(catalog)
	require.Empty(t, records)
	require.Len(t, only(messages, "TRACE"), 4)

	records, _ = p.sync(p.catalog("full_refresh", "a", "b"))
	require.Len(t, records, 10, "a full refresh begins anew")
	records, _ = p.sync(p.catalog("incremental", "b"), "--range", "00000000-7fffffff")
	require.Empty(t, records)
	require.Equal(t, capture.KeyRange{End: 0x7fffffff}, p.source.env.Range)
}

func TestAirbyteFailures(t *testing.T) {
	t.Parallel()
	p := &platform{t: t}
	config, catalog := p.file("c.json", `{}`), p.catalog("incremental", "a")
	for want, args := range map[string][]string{
		"The configured catalog has streams that do not exist any more: main.z. Refresh the source's schema.": {"--config", config, "--catalog", p.catalog("incremental", "a", "z")},
		"The configured catalog has no streams, so there is nothing to read.":                                 {"--config", config, "--catalog", p.catalog("incremental")},
		`The sync mode of stream main.a is "x"; it may be incremental or full_refresh.`:                       {"--config", config, "--catalog", p.catalog("x", "a")},
		"The state was not written by this source":                                                            {"--config", config, "--catalog", catalog, "--state", p.file("s", `[{"type":"STREAM","stream":{"stream_descriptor":{"name":"a"},"stream_state":{"x":1}}}]`)},
		`--range "7-3" is not a range.`:                                                                       {"--config", config, "--catalog", catalog, "--range", "7-3"},
		"There is no file /none/catalog.json.":                                                                {"--config", config, "--catalog", "/none/catalog.json"},
	} {
		messages := p.call(1, append([]string{"read"}, args...)...)
		failure := only(messages, "TRACE")
		require.Contains(t, failure[len(failure)-1].Trace.Error.Message, want)
		require.Empty(t, only(messages, "STATE"))
	}

	// What was read before a failure is kept by the state before it, if there is one; the streams are not complete.
	messages := p.call(1, "read", "--config", p.file("f.json", `{"mode": "fail"}`), "--catalog", catalog)
	require.Len(t, only(messages, "RECORD"), 10)
	traces := only(messages, "TRACE")
	require.Equal(t, "INCOMPLETE", traces[len(traces)-2].Trace.StreamStatus.Status)
	require.Equal(t, "The numbers have run out.", traces[len(traces)-1].Trace.Error.Message)
}

// Platforms that know no global states keep one of each stream. Those that are not of one moment begin anew.
func TestAirbyteStatesOfStreams(t *testing.T) {
	t.Parallel()
	p := &platform{t: t, config: `{"count": 3}`}
	catalog := p.catalog("incremental", "a", "b")
	read := func(states map[string]*airbyte.State) int {
		t.Helper()
		text := []byte("[]")
		var list []*airbyte.State
		for _, s := range states {
			list = append(list, s)
		}
		if list != nil {
			var err error
			text, err = json.Marshal(list)
			require.NoError(t, err)
		}
		messages := p.call(0, "--state-type", "stream", "read", "--config", p.file("c.json", p.config), "--catalog", catalog, "--state", p.file("s.json", string(text)))
		for _, m := range only(messages, "STATE") {
			require.Equal(t, airbyte.StreamType, m.State.Type)
			states[m.State.Stream.Descriptor.Name] = m.State
		}
		return len(only(messages, "RECORD"))
	}
	states := map[string]*airbyte.State{}
	require.Equal(t, 6, read(states))
	require.Len(t, states, 2)
	older := states["a"]
	require.Zero(t, read(states))
	p.config = `{"count": 4}`
	require.Equal(t, 2, read(states))
	states["a"] = older
	require.Equal(t, 4, read(states), "b goes on from where it was, and a, which was behind it, begins anew")
	catalog = p.catalog("incremental", "b")
	for count := 5; count < 8; count++ {
		p.config = `{"count": ` + strconv.Itoa(count) + `}`
		require.Equal(t, 1, read(states), "a is not synced any more, and its state does not hold b back")
	}
	p.call(1, "--state-type", "none", "spec")
}
