package airbyte_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// The form is the source's own, with its secrets in the notation that runtimes know.
func TestSpec(t *testing.T) {
	t.Parallel()
	w := newWorld(t, script{})
	spec, err := w.capture.Spec(t.Context())
	require.NoError(t, err)
	require.Equal(t, "https://example.com/docs", spec.DocumentationUrl)
	require.JSONEq(t, `{"type":"object","title":"T","properties":{"host":{"type":"string"},"password":{"type":"string","airbyte_secret":true,"secret":true},
		"nested":{"oneOf":[{"properties":{"api_key":{"type":"string","airbyte_secret":true,"secret":true}}}]}}}`, string(spec.ConfigSchemaJson))
	require.Equal(t, []string{"/namespace", "/stream"}, spec.ResourcePathPointers)
}

func TestDiscover(t *testing.T) {
	t.Parallel()
	stream := func(name, rest string) string {
		return `{"name":"` + name + `",` + rest + `,"supported_sync_modes":["full_refresh","incremental"]}`
	}
	w := newWorld(t, script{"discover": {`{"type":"CATALOG","catalog":{"streams":[` + strings.Join([]string{
		users, events,
		stream("java", `"json_schema":{"properties":{"id":{"type":"number","airbyte_type":"integer"}},"additionalProperties":false},"source_defined_primary_key":[["id"]],"default_cursor_field":["id"]`),
		stream("deep name", `"json_schema":{"properties":{"a":{"type":"object","properties":{"b":{"type":"string"}}}}},"source_defined_primary_key":[["a","b"]]`),
		stream("float", `"json_schema":{"properties":{"id":{"type":"number"}}},"source_defined_primary_key":[["id"]]`),
		stream("gone", `"json_schema":{"properties":{}},"source_defined_primary_key":[["id"]]`),
		stream("cdc", `"json_schema":{"properties":{"id":{"type":"integer"},"_ab_cdc_deleted_at":{"type":["null","string"]}}},"source_defined_primary_key":[["id"]],"source_defined_cursor":true`),
	}, ",") + `]}}`}})
	found, err := w.capture.Discover(t.Context())
	require.NoError(t, err)
	meta := `{"type":"object","required":["row","sync"],"properties":{"row":{"type":"integer","description":"The number of the record in its stream and sync."},"sync":{"type":"string","description":"When the sync began that read the record."}}}`
	for i, want := range []struct{ name, resource, key, schema string }{
		{"shop/users", `{"stream":"users","namespace":"shop","syncMode":"incremental"}`, "/id", `{"type":"object","x-infer-schema":true,"required":["id"],"properties":{"id":{"type":["integer"]},"at":{"type":"string","airbyte_type":"timestamp_without_timezone"}}}`},
		{"events", `{"stream":"events","syncMode":"full_refresh"}`, "/_meta/sync /_meta/row", `{"type":"object","x-infer-schema":true,"required":["_meta"],"properties":{"x":{"type":"number"},"_meta":` + meta + `}}`},
		{"java", `{"stream":"java","syncMode":"incremental"}`, "/id", `{"type":"object","additionalProperties":false,"required":["id"],"properties":{"id":{"type":"integer","airbyte_type":"integer"}}}`},
		{"deep_name", `{"stream":"deep name","syncMode":"full_refresh"}`, "/a/b", `{"type":"object","x-infer-schema":true,"required":["a"],"properties":{"a":{"type":"object","required":["b"],"properties":{"b":{"type":"string"}}}}}`},
		{"float", `{"stream":"float","syncMode":"full_refresh"}`, "/_meta/sync /_meta/row", ""},
		{"gone", `{"stream":"gone","syncMode":"full_refresh"}`, "/_meta/sync /_meta/row", ""},
		{"cdc", `{"stream":"cdc","syncMode":"incremental"}`, "/id", `{"type":"object","x-infer-schema":true,"required":["id","_meta"],"properties":{"id":{"type":"integer"},"_ab_cdc_deleted_at":{"type":["null","string"]},
			"_meta":{"type":"object","required":["op"],"properties":{"op":{"enum":["u","d"],"description":"d in the record of a row that was deleted."}}}},
			"if":{"properties":{"_meta":{"properties":{"op":{"const":"d"}},"required":["op"]}},"required":["_meta"]},"then":{"reduce":{"strategy":"lastWriteWins","delete":true}}}`},
	} {
		b := found.Bindings[i]
		require.Equal(t, want.name, b.RecommendedName)
		require.JSONEq(t, want.resource, string(b.ResourceConfigJson))
		require.Equal(t, want.key, strings.Join(b.Key, " "))
		require.Equal(t, strings.HasPrefix(want.key, "/_meta"), b.IsFallbackKey)
		if want.schema != "" {
			require.JSONEq(t, want.schema, sortRequired(t, b.DocumentSchemaJson))
		}
	}
	verbs, calls := w.calls(t)
	require.Equal(t, "spec discover", verbs)
	require.JSONEq(t, config, calls[1].Files["config"])
}

// sortRequired orders the names in the member required of the member _meta, which come from a map.
func sortRequired(t *testing.T, text []byte) string {
	t.Helper()
	return strings.Replace(string(text), `"required":["sync","row"]`, `"required":["row","sync"]`, 1)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]script{
		"": {},
		"airbyte.test cannot use its configuration: no user hunter2 & co":                                                    nil, // replaced below
		"airbyte.test ended without a CONNECTION_STATUS message when it was asked to check: it may be no source of Airbyte.": {"check": {`{"type":"LOG","log":{"level":"INFO","message":"x"}}`}},
		"airbyte.test failed to check (exit status 3), and said last: Traceback: oh (secret)":                                {"check": {"!stderr Traceback: oh hunter2 & co", "!exit 3"}},
		"airbyte.test failed to check (exit status 4), and gave no reason.":                                                  {"check": {"!exit 4"}},
		"airbyte.test ended without a SPEC message when it was asked to spec: it may be no source of Airbyte.":               {"spec": {"usage: standin"}},
	} {
		if s == nil {
			s, want = script{"check": {`{"type":"CONNECTION_STATUS","connectionStatus":{"status":"FAILED","message":"no user hunter2 & co"}}`, "!exit 1"}}, strings.Replace(want, "hunter2 & co", "(secret)", 1)
		}
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, s)
			_, err := w.specify(t, usersBinding())
			if want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, want)
		})
	}
}

// A sync's records come before the checkpoints of the states that cover them, the next one is given the states and asks for nothing else, and the
// files are nobody else's.
func TestSync(t *testing.T) {
	t.Parallel()
	w := newWorld(t, script{
		"read":  {record("users", `{"id":1, "name":"å \u00e9"}`), record("users", `{"id":2}`), streamState(`{"at":"b","gap":null}`, 2), record("events", `{}`), record("users", `{"id":3}`), streamState(`{"at":"c"}`, 1), record("events", `{"x":1}`)},
		"read2": {record("users", `{"id":4}`), streamState(`{"at":"d"}`, 1)},
	}, "--brief")
	got, err := w.sync(t, usersBinding(), eventsBinding())
	require.NoError(t, err)
	require.Regexp(t, `^0 \{"id":1, "name":"å \\u00e9"\}
0 \{"id":2\}
checkpoint
1 \{"_meta":\{"sync":"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","row":1\}\}
0 \{"id":3\}
checkpoint
1 \{"x":1,"_meta":\{"sync":"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","row":2\}\}
checkpoint$`, strings.Join(got, "\n"))

	got, err = w.sync(t, usersBinding(), eventsBinding())
	require.NoError(t, err)
	require.Equal(t, []string{"checkpoint", `0 {"id":4}`, "checkpoint", "checkpoint"}, got)
	verbs, calls := w.calls(t)
	require.Equal(t, "spec check spec discover read check read", strings.Replace(verbs, "spec check read", "check read", 1))
	first := calls[4]
	require.Equal(t, []string{"-rw-------", "-rwx------", "-rw-------", "-rwx------"}, first.Modes)
	require.NotContains(t, strings.Join(first.Args, " "), "hunter2")
	require.NotContains(t, first.Files, "state")
	require.JSONEq(t, `{"streams":[
		{"stream":`+users+`,"sync_mode":"incremental","destination_sync_mode":"append_dedup","cursor_field":["at"],"primary_key":[["id"]]},
		{"stream":`+events+`,"sync_mode":"full_refresh","destination_sync_mode":"append"}]}`, first.Files["catalog"])
	last := calls[len(calls)-1]
	require.JSONEq(t, first.Files["catalog"], last.Files["catalog"])
	require.JSONEq(t, `[{"type":"STREAM","stream":{"stream_descriptor":{"name":"users","namespace":"shop"},"stream_state":{"at":"c"}}}]`, last.Files["state"])
}

// A state that has nulls is kept as it is, and replaces the one before.
func TestStatesAreKeptWhole(t *testing.T) {
	t.Parallel()
	global := func(shared, states, count string) string {
		return `{"type":"STATE","state":{"type":"GLOBAL","global":{"shared_state":` + shared + `,"stream_states":[` + states + `]},"sourceStats":{"recordCount":` + count + `}}}`
	}
	const ofUsers = `{"stream_descriptor":{"name":"users","namespace":"shop"},"stream_state":{"a":null}}`
	other := binding{resource: `{"stream":"events","syncMode":"full_refresh"}`, key: []string{"/_meta/sync", "/_meta/row"}}
	w := newWorld(t, script{
		"read":  {record("users", `{"id":1}`), global(`{"lsn":1,"old":null}`, ofUsers, "1"), record("events", `{}`), record("users", `{"id":2}`), global(`{"lsn":2,"new":null}`, ofUsers, "2.0")},
		"read2": {`{"type":"STATE","state":{"data":{"users":7,"none":null}}}`},
		"read3": {`{"type":"STATE","state":{"type":"LEGACY","data":{"users":8}}}`},
		"read4": {}, "read5": {streamState(`{"x":[null]}`, 0)},
	})
	given := func(b ...binding) string {
		_, err := w.sync(t, b...)
		require.NoError(t, err)
		_, calls := w.calls(t)
		return calls[len(calls)-1].Files["state"]
	}
	raised := usersBinding()
	raised.backfill = 1
	require.Empty(t, given(usersBinding(), other))
	require.JSONEq(t, `[{"type":"GLOBAL","global":{"shared_state":{"lsn":2,"new":null},"stream_states":[`+ofUsers+`]}}]`, given(usersBinding(), other))
	require.JSONEq(t, `{"users":7,"none":null}`, given(usersBinding(), other), "the state of an old source is the file")
	require.Empty(t, given(raised, other), "nobody can divide it")
	require.Contains(t, w.logged(), "a stream is to be backfilled, and the source has one state for all: all streams are read anew")
	require.JSONEq(t, `{"users":8}`, given(usersBinding(), other))
	require.JSONEq(t, `[{"type":"STREAM","stream":{"stream_descriptor":{"name":"users","namespace":"shop"},"stream_state":{"x":[null]}}}]`, given(usersBinding(), other))
	require.Empty(t, given(raised, other))
}

// A global state that has all of its streams in the shared part is handed back, though no stream has a state of its own.
func TestGlobalStateWithoutStreams(t *testing.T) {
	t.Parallel()
	global := func(streams string) string {
		return `{"type":"STATE","state":{"type":"GLOBAL","global":{"shared_state":{"lsn":1},"stream_states":[` + streams + `]}}}`
	}
	const own = `{"stream_descriptor":{"name":"users","namespace":"shop"},"stream_state":{"a":1}}`
	both := strings.Replace(events, `["full_refresh"]`, `["full_refresh","incremental"],"source_defined_cursor":true`, 1)
	second := binding{resource: `{"stream":"events","syncMode":"incremental"}`, key: []string{"/_meta/sync", "/_meta/row"}}
	w := newWorld(t, script{
		"discover": {`{"type":"CATALOG","catalog":{"streams":[` + users + `,` + both + `]}}`},
		"read":     {record("users", `{"id":1}`), global("")},
	})
	given := func(b ...binding) string {
		t.Helper()
		_, err := w.sync(t, b...)
		require.NoError(t, err)
		_, calls := w.calls(t)
		return calls[len(calls)-1].Files["state"]
	}
	const shared = `[{"type":"GLOBAL","global":{"shared_state":{"lsn":1},"stream_states":[]}}]`
	raised, raisedSecond := usersBinding(), second
	raised.backfill, raisedSecond.backfill = 1, 1
	require.Empty(t, given(usersBinding()))
	require.JSONEq(t, shared, given(usersBinding()))
	require.Empty(t, given(raised), "a state that says that the stream was read would keep it from being read anew")
	require.Contains(t, w.logged(), "a stream is to be backfilled, and the source has one state for all: all streams are read anew")

	require.JSONEq(t, shared, given(raised, second), "a stream that is new takes nothing from the others")
	// From here on users has a state of its own, and events has none.
	kept := `[{"type":"GLOBAL","global":{"shared_state":{"lsn":1},"stream_states":[` + own + `]}}]`
	w.script(t, "read", global(own))
	require.JSONEq(t, shared, given(raised, second))
	require.JSONEq(t, kept, given(raised, second))
	require.JSONEq(t, shared, given(usersBinding(), second), "a stream with a state of its own is taken out alone")
	require.JSONEq(t, kept, given(usersBinding(), second))
	require.Empty(t, given(usersBinding(), raisedSecond), "that of events is nowhere by itself")
}

// What was learned of a source is asked again when its configuration changes, and not when only a password does: nothing that the state keeps
// depends on what is secret.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, script{"read": {}}, "--brief")
	next := func(from, to string) string {
		t.Helper()
		w.capture.Endpoint.Config = json.RawMessage(strings.Replace(string(w.capture.Endpoint.Config), from, to, 1))
		_, before := w.calls(t)
		_, err := w.sync(t, usersBinding())
		require.NoError(t, err)
		_, after := w.calls(t)
		verbs := ""
		for _, c := range after[len(before):] {
			verbs += c.Args[0] + " "
		}
		return verbs
	}
	kept := func() (fingerprint, salt string) {
		var state struct {
			Shared struct {
				Source struct{ Fingerprint, Salt string }
			}
		}
		require.NoError(t, json.Unmarshal(w.state, &state))
		require.Len(t, state.Shared.Source.Salt, 32)
		return state.Shared.Source.Fingerprint, state.Shared.Source.Salt
	}
	require.Contains(t, next("", ""), "discover read ")
	first, salt := kept()
	require.NotContains(t, next(`"hunter2 & co"`, `"another, hunter2"`), "discover")
	same, _ := kept()
	require.Equal(t, first, same)
	require.NotContains(t, next(`{"host"`, `{ "host"`), "discover", "written in another way")
	require.Contains(t, next("db.example", "db2.example"), "discover read ")
	other, fresh := kept()
	require.NotEqual(t, first, other)
	require.NotEqual(t, salt, fresh)
}

// A stream that is read as a whole goes on where it was only until it has been read to its end.
func TestFullRefresh(t *testing.T) {
	t.Parallel()
	full := binding{resource: `{"stream":"users","namespace":"shop","syncMode":"full_refresh"}`, key: []string{"/id"}}
	w := newWorld(t, script{
		"read":  {record("users", `{"id":1}`), streamState(`{"page":1}`, 1), record("users", `{"id":2}`), "!exit 1"},
		"read2": {record("users", `{"id":2}`), streamState(`{"page":2}`, 1)},
		"read3": {},
	}, "--brief")
	_, err := w.sync(t, full)
	require.ErrorContains(t, err, "airbyte.test failed to read (exit status 1), and gave no reason.")
	got, err := w.sync(t, full)
	require.NoError(t, err)
	require.Equal(t, []string{`0 {"id":2}`, "checkpoint", "checkpoint"}, got)
	_, err = w.sync(t, full)
	require.NoError(t, err)
	_, calls := w.calls(t)
	var states []string
	for _, c := range calls {
		if c.Args[0] == "read" {
			states = append(states, c.Files["state"])
			require.Contains(t, c.Files["catalog"], `"sync_mode":"full_refresh"`)
		}
	}
	require.Equal(t, []string{"", `[{"type":"STREAM","stream":{"stream_descriptor":{"name":"users","namespace":"shop"},"stream_state":{"page":1}}}]`, ""}, states)
}

func TestDeletes(t *testing.T) {
	t.Parallel()
	cdc := strings.Replace(users, `"at":{`, `"_ab_cdc_deleted_at":{"type":["null","string"]},"at":{`, 1)
	w := newWorld(t, script{
		"discover": {`{"type":"CATALOG","catalog":{"streams":[` + cdc + `]}}`},
		"read":     {record("users", `{"id":1,"_ab_cdc_deleted_at":null}`), record("users", `{"id":1,"_ab_cdc_deleted_at":"2026-01-01"}`), record("users", `{"id":2}`)},
	})
	got, err := w.sync(t, usersBinding())
	require.NoError(t, err)
	require.Equal(t, []string{`0 {"id":1,"_ab_cdc_deleted_at":null,"_meta":{"op":"u"}}`, `0 {"id":1,"_ab_cdc_deleted_at":"2026-01-01","_meta":{"op":"d"}}`, `0 {"id":2,"_meta":{"op":"u"}}`, "checkpoint"}, got)
}

// Whatever is wrong with a sync ends it, and people are told what to do; what the last state covers is kept.
func TestMistakes(t *testing.T) {
	t.Parallel()
	ok := []string{record("users", `{"id":1}`), streamState(`{"at":"a"}`, 1)}
	one := []string{`0 {"id":1}`, "checkpoint"}
	for name, c := range map[string]struct {
		bindings []binding
		read     []string
		want     string
		got      []string
	}{
		"lost record":   {read: append(ok, record("users", `{"id":2}`), streamState(`{"at":"b"}`, 2)), want: "The source says that it wrote 2 records of the stream shop.users before a state, and 1 arrived: what came since the last state is dropped, and read again.", got: append(one, `0 {"id":2}`)},
		"not JSON":      {read: append(ok, `{"type":"RECORD","record":{"stream":"users","data":{"x":NaN}}}`), want: `airbyte.test wrote a message that is not JSON, and would be lost: {"type":"RECORD","record":{"stream":"users","data":{"x":NaN}}}`, got: one},
		"other stream":  {read: append(ok, record("events", `{}`)), want: "The source sent a record of the stream events, which it was not asked for.", got: one},
		"no object":     {read: append(ok, record("users", `[1]`)), want: "The source sent a record of the stream shop.users that is not an object.", got: one},
		"strange state": {read: append(ok, `{"type":"STATE","state":{"type":"X"}}`), want: "The source wrote a state that is none of a stream, of all streams, or of an old source.", got: one},
		"damaged state": {read: append(ok, `{"type":"STATE","state":[]}`), want: "The source wrote a state that cannot be read: json: cannot unmarshal array", got: one},
		"damaged trace": {read: append(ok, `{"type":"TRACE","trace":[]}`), want: "airbyte.test wrote a TRACE message that cannot be read: json: cannot unmarshal array", got: one},
		"error":         {read: append(ok, `{"type":"TRACE","trace":{"type":"ERROR","emitted_at":1,"error":{"message":"Your key s3cr3t-key has expired.","internal_message":"401 for hunter2 & co","failure_type":"config_error"}}}`, "!exit 1"), want: "Your key (secret) has expired.", got: one},
		"error, code 0": {read: append(ok, `{"type":"TRACE","trace":{"type":"ERROR","emitted_at":1,"error":{"message":"","internal_message":"boom"}}}`), want: "boom", got: one},
		"incomplete":    {read: append(ok, `{"type":"TRACE","trace":{"type":"STREAM_STATUS","emitted_at":1,"stream_status":{"stream_descriptor":{"name":"users"},"status":"INCOMPLETE"}}}`), want: "The stream users could not be read to its end.", got: one},
		"fatal log":     {read: append(ok, `{"type":"LOG","log":{"level":"FATAL","message":"out of hunter2+%26+co"}}`, "!exit 2"), want: "airbyte.test failed to read (exit status 2), and said last: out of (secret)", got: one},
		"own _meta":     {bindings: []binding{eventsBinding()}, read: []string{record("events", `{"_meta":1}`)}, want: "Records of the stream events have a field _meta, which is needed for what tells them apart."},
		"no stream":     {bindings: []binding{{resource: `{"stream":"nothing"}`, key: []string{"/id"}}}, want: "The source has no stream nothing (any more). Remove its binding, or correct the name."},
		"no mode":       {bindings: []binding{{resource: `{"stream":"events","syncMode":"incremental"}`, key: []string{"/id"}}}, want: "The stream events cannot be read as incremental. Set syncMode to one of [full_refresh]."},
		"twice":         {bindings: []binding{usersBinding(), usersBinding()}, want: "Two bindings capture the stream shop.users. Remove one of them."},
		"misspelt":      {bindings: []binding{{resource: `{"strem":"users"}`, key: []string{"/id"}}}, want: `strem`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.bindings == nil {
				c.bindings = []binding{usersBinding()}
			}
			w := newWorld(t, script{"read": c.read}, "--brief")
			got, err := w.sync(t, c.bindings...)
			require.ErrorContains(t, err, c.want)
			require.Equal(t, c.got, got)
		})
	}
}

func TestCursorFieldIsNeeded(t *testing.T) {
	t.Parallel()
	stream := `{"name":"users","namespace":"shop","json_schema":{},"supported_sync_modes":["full_refresh","incremental"]}`
	w := newWorld(t, script{"discover": {`{"type":"CATALOG","catalog":{"streams":[` + stream + `]}}`}, "read": {}})
	_, err := w.sync(t, binding{resource: `{"stream":"users","namespace":"shop","syncMode":"incremental"}`, key: []string{"/id"}})
	require.ErrorContains(t, err, "The stream shop.users needs a cursorField to be read as incremental: a field that grows with every change.")
	_, err = w.sync(t, binding{resource: `{"stream":"users","namespace":"shop","syncMode":"incremental","cursorField":["x","at"]}`, key: []string{"/id"}})
	require.NoError(t, err)
	_, calls := w.calls(t)
	require.Contains(t, calls[len(calls)-1].Files["catalog"], `"cursor_field":["x","at"]`)
}

// The source's log becomes ours, with its levels, and without its secrets.
func TestLogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, script{"read": {
		"a greeting of a library", `{"no":"message"}`, "!stderr a warning of hunter2 & co",
		`{"type":"LOG","log":{"level":"DEBUG","message":"logging in with hunter2 & co"}}`,
		`{"type":"LOG","log":{"level":"WARN","message":"slow"}}`, `{"type":"LOG","log":{"level":"TRACE","message":"fine"}}`,
		`{"type":"TRACE","trace":{"type":"ESTIMATE","emitted_at":1,"estimate":{"name":"users","type":"STREAM","row_estimate":12}}}`,
		`{"type":"TRACE","trace":{"type":"STREAM_STATUS","emitted_at":1,"stream_status":{"stream_descriptor":{"name":"users"},"status":"RUNNING"}}}`,
		`{"type":"CONTROL","control":{"type":"CONNECTOR_CONFIG","connectorConfig":{"config":{"password":"hunter2 & co"}}}}`,
		`{"type":"CONTROL","control":{"type":"CONNECTOR_CONFIG","connectorConfig":{"config":{"password":"hunter2 & co"}}}}`,
	}})
	_, err := w.sync(t, usersBinding())
	require.NoError(t, err)
	log := w.logged()
	for _, want := range []string{
		"info a greeting of a library {}", `info a warning of (secret) {"stream":"stderr"}`, "debug logging in with (secret) {}", "warning slow {}", "trace fine {}",
		`info the source expects so many records {"rows":12,"stream":"users"}`, `debug stream status {"status":"RUNNING","stream":"users"}`,
	} {
		require.Contains(t, log, want)
	}
	require.Equal(t, 1, strings.Count(log, "the source changed its configuration, which is not kept"))
}

func TestSilentSourceIsStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, script{"read": {record("users", `{"id":1}`), streamState(`{"at":"a"}`, 1), "!hang"}}, "--timeout", "2s")
	got, err := w.sync(t, usersBinding())
	require.ErrorContains(t, err, "airbyte.test said nothing for 2s while it was asked to read, and was stopped. If it may take longer, say so: timeout.")
	require.Equal(t, []string{`0 {"id":1}`, "checkpoint"}, got)
}

// A stop in the middle of a sync keeps what a state covers, and the next sync goes on from there.
func TestStop(t *testing.T) {
	t.Parallel()
	w := newWorld(t, script{"read": {record("users", `{"id":1}`), streamState(`{"at":"a"}`, 1), record("users", `{"id":2}`), "!hang"}, "read2": {record("users", `{"id":2}`)}})
	spec, err := w.specify(t, usersBinding())
	require.NoError(t, err)
	session, err := w.capture.Open(t.Context(), &capturepb.Request_Open{Capture: spec, StateJson: w.state})
	require.NoError(t, err)
	for range 3 {
		_, err := session.Next()
		require.NoError(t, err)
	}
	go session.Stop(30 * time.Second)
	_, err = w.rest(t, session)
	require.ErrorContains(t, err, "stopped in the middle of a sync: the records since the source's last state are dropped, and read again")
	got, err := w.sync(t, usersBinding())
	require.NoError(t, err)
	require.Equal(t, []string{`0 {"id":2}`, "checkpoint"}, got)
	_, calls := w.calls(t)
	require.Contains(t, calls[len(calls)-1].Files["state"], `"stream_state":{"at":"a"}`)
}

// A runtime that is killed takes the source with it, and what it left behind is removed by whoever comes next.
func TestKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t, script{"read": {record("users", `{"id":1}`), "!hang"}, "read2": {}})
	spec, err := w.specify(t, usersBinding())
	require.NoError(t, err)
	session, err := w.capture.Open(t.Context(), &capturepb.Request_Open{Capture: spec, StateJson: w.state})
	require.NoError(t, err)
	_, err = session.Next()
	require.NoError(t, err)
	session.Kill()
	_, err = w.rest(t, session)
	require.ErrorContains(t, err, "SIGKILL")
	_, err = w.sync(t, usersBinding()) // the end of the test looks for folders
	require.NoError(t, err)
}

// fakeDocker is a docker client that notes its arguments and runs the stand-in.
const fakeDocker = `#!/bin/sh
echo "$@" >> "$0.log"
case "$1" in
image) echo '{}' ;;
rm) exit 0 ;;
run) while [ "$1" != acme/source-x:1 ]; do shift; done; shift; exec SELF "$@" ;;
esac
`

// An image is run with the folder under its own name; inside, its own user has to be able to read what is there.
func TestImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, script{"read": {record("users", `{"id":1}`)}})
	self, err := os.Executable()
	require.NoError(t, err)
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "docker"), []byte(strings.Replace(fakeDocker, "SELF", self, 1)), 0o700))
	w.capture.Launcher.Environ = append(w.capture.Launcher.Environ, "PATH="+bin+":"+os.Getenv("PATH"))
	w.capture.Launcher.Instance = "i1"
	w.capture.Endpoint.Command = []string{self, "airbyte-adapter", "--network", "host", "--docker-option=--memory=1g", "--image", "acme/source-x:1"}
	got, err := w.sync(t, usersBinding())
	require.NoError(t, err)
	require.Equal(t, []string{`0 {"id":1}`, "checkpoint"}, got)
	_, calls := w.calls(t)
	require.Equal(t, []string{"-rw-r--r--", "-rwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"}, calls[len(calls)-1].Modes)
	outer, err := exec.CommandContext(t.Context(), "sh", "-c", `grep -o 'run .*read --config.*' "$0"`, filepath.Join(bin, "docker.log")).Output()
	require.NoError(t, err)
	require.Regexp(t, `^run --interactive --rm --name sluice-i1-acme_shop-[0-9a-f]{8} --log-driver none --network host --add-host host.docker.internal:127.0.0.1 --volume (\S+/sluice-airbyte-\d+-\d+/files):(\S+) --memory=1g acme/source-x:1 read --config \S+/files/config.json --catalog \S+/files/catalog.json\n$`, string(outer))
}

func TestDivision(t *testing.T) {
	t.Parallel()
	w := newWorld(t, script{})
	spec, err := w.specify(t, usersBinding())
	require.NoError(t, err)
	half := flowpb.FullRange()
	half.KeyEnd = 1 << 31
	_, err = w.capture.Open(t.Context(), &capturepb.Request_Open{Capture: spec, Range: half})
	require.Equal(t, "A source of Airbyte cannot be divided: run the capture acme/shop in one shard.", lastWords(err))
}

func lastWords(err error) string {
	_, words, _ := strings.Cut(usererr.Message(err), ": ")
	return words
}
