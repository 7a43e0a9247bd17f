package engine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/capture"
)

// script replaces the rig's capture by a scripted one.
func (r *rig) script(script map[string][]string) {
	r.t.Helper()
	text, err := json.Marshal(script)
	require.NoError(r.t, err)
	file := filepath.Join(r.dir, "script.json")
	require.NoError(r.t, os.WriteFile(file, text, 0o600))
	r.p.Captures[0].Endpoint = r.endpoint("script", frame.JSON, fakeConfig{})
	r.p.Captures[0].Endpoint.Env["SCRIPT"] = file
}

// TestCaptureErrorsSayWhatIsWrong: every way in which a connector can misbehave gives a message for people, once a
// life, and the task is started again.
func TestCaptureErrorsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	opened := `> {"opened":{}}`
	doc := `> {"captured":{"doc":{"id":1}}}`
	for name, c := range map[string]struct {
		script map[string][]string
		want   string
	}{
		"wrong protocol":            {map[string][]string{"spec": {`> {"spec":{"protocol":1}}`}}, "speaks protocol 1, and this is protocol 3032023"},
		"no answer to validate":     {map[string][]string{"validate": {`exit 0`}}, "ended its output without an answer to Validate"},
		"error in validate":         {map[string][]string{"validate": {`! {"level":"error","msg":"the password is wrong"}`, `exit 1`}}, `level=error msg="the password is wrong"`},
		"plain text error":          {map[string][]string{"validate": {`! Traceback: failed to import x`, `exit 1`}}, `Traceback: failed to import x`},
		"silent exit":               {map[string][]string{"open": {`exit 3`}}, "ended with exit code 3, and logged no reason"},
		"wrong answer":              {map[string][]string{"validate": {`> {"applied":{}}`}}, "answered with Applied where Validated was expected"},
		"too few bindings":          {map[string][]string{"validate": {`> {"validated":{}}`}}, "answered about 0 bindings when it was asked about 1"},
		"unasked message":           {map[string][]string{"validate": {`> {"validated":{"bindings":[{"resourcePath":["things"]}]}}`, `> {"validated":{}}`}}, "that nobody asked for"},
		"stray text":                {map[string][]string{"open": {opened, `> hello, world`, `hang`}}, `wrote something to its standard output that is not the protocol`},
		"documents before opened":   {map[string][]string{"open": {doc}}, "answered with Captured where Opened was expected"},
		"unknown binding":           {map[string][]string{"open": {opened, `> {"captured":{"binding":7,"doc":{"id":1}}}`}}, "a document of binding 7, and there are only 1"},
		"a document that is not":    {map[string][]string{"open": {opened, `> {"captured":{"doc":[1]}}`}}, "not a JSON object"},
		"an open sourced schema":    {map[string][]string{"open": {opened, `> {"sourcedSchema":{"schema_json":{"type":"object"}}}`}}, "must be closed"},
		"end inside a checkpoint":   {map[string][]string{"open": {opened, doc, `exit 0`}}, "ended in the middle of a checkpoint"},
		"state that is not JSON":    {map[string][]string{"open": {opened, `> {"checkpoint":{"state":{"updated":"x","mergePatch":true}}}`, `> {"checkpoint":5}`}}, "cannot be read"},
		"an apply without end":      {map[string][]string{"apply": {`> {"applied":{"state":{"updated":{"n":1},"mergePatch":true}}}`}}, "does not come to an end"},
		"a second opened":           {map[string][]string{"open": {opened, opened}}, "answered with Opened where Captured"},
		"an answer that hangs":      {map[string][]string{"validate": {`hang`}}, "did not answer within 2s and was stopped"},
		"an open that hangs":        {map[string][]string{"open": {`! {"level":"info","msg":"connecting"}`, `hang`}}, "did not answer Open within 2s and was stopped"},
		"killed by somebody":        {map[string][]string{"open": {opened, `! {"level":"info","msg":"all is well"}`, `exit 137`}}, "ended with exit code 137: all is well"},
		"a line that is cut":        {map[string][]string{"open": {opened, `> {"captured":`}}, "sent a response that cannot be read"},
		"a backfill marker is fine": {map[string][]string{"open": {opened, `> {"backfillBegin":{}}`, `> {"checkpoint":{}}`, `exit 4`}}, "ended with exit code 4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, frame.JSON, fakeConfig{})
			r.script(c.script)
			r.options.Capture = capture.Timeouts{Answer: 2 * time.Second, Stop: time.Second}
			if name == "an apply without end" {
				r.options.Capture.Answer = time.Minute
			}
			r.start()
			switch name {
			case "an apply without end": // a hundred processes, which takes minutes under the race detector
				require.Eventually(t, func() bool { return strings.Contains(r.log.String(), c.want) }, 4*patience, 10*time.Millisecond, "%s", r.log)
			case "a backfill marker is fine": // a life with a checkpoint is no failure in a row
				r.waitLog(c.want)
			default:
				r.waitLog(c.want)
				r.waitLog("failures=2")
			}
			if c.want[0] != 'l' {
				rows := r.options.Board.Snapshot()
				require.Contains(t, rows[0].Problem+r.log.String(), c.want, "it stays visible")
			}
		})
	}
}

// TestOddButLegal runs a connector that uses every freedom which the JSON codec allows.
func TestOddButLegal(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.JSON, fakeConfig{Total: 2, Keys: 2, Batch: 1})
	r.p.Captures[0].Interval = 50 * time.Millisecond
	r.script(map[string][]string{"open": {
		`> {"opened":{"explicitAcknowledgements":null}, "captured":null}`, ``, `once sent`,
		`> {"sourced_schema":{"binding":null,"schema_json":{"type":"object","additionalProperties":false,"properties":{"id":{"type":"integer"},"n":{"type":"integer"},"count":{"type":"integer"},"_meta":{"type":"object"}}}}}`,
		`>   {"captured": {"doc" : {"id": 0, "n": 0, "count": 1, "_meta": {"op": "u"}}, "binding": 0}, "checkpoint": null}`,
		`> {"checkpoint":{"state":{"merge_patch":true,"updated_json":{"a":null}}}}`, `> `,
		`> {"captured":{"doc":{"id":0,"n":1,"count":1,"_meta":{"op":"u"}}}}`,
		`> {"checkpoint":{}}`, `exit 0`,
	}})
	r.sink("one", "atomic", frame.JSON, fakeConfig{Legacy: true})
	r.source.Total, r.source.Keys = 2, 1
	stop := r.start()
	r.wait("one")
	stop()
	r.same("one")
	require.NotContains(t, r.log.String(), "level=error")
	require.GreaterOrEqual(t, strings.Count(r.log.String(), `applied the materialization`), 1)
}

// A connector's status lines, of any connector, are what the board says of its source.
func TestStatusLinesOfConnectors(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{})
	r.script(map[string][]string{"open": {
		`! {"level":"info","message":"backfill in progress","fields":{"eventType":"connectorStatus","phase":"backfill","table":"things","rows":1,"of":4}}`,
		`! {"level":"warning","message":"waiting: x","fields":{"eventType":"connectorStatus","phase":"waiting","waitsFor":"x","lagBytes":77,"lagSeconds":2.5,"retainedBytes":88}}`,
		`> {"opened":{}}`, `hang`,
	}})
	r.start()
	require.Eventually(t, func() bool {
		rows := r.options.Board.Snapshot()
		if len(rows) == 0 || rows[0].Source == nil {
			return false
		}
		s, b := rows[0].Source, rows[0].Bindings[0]
		return s.Phase == "waiting" && s.WaitsFor == "x" && *s.RetainedBytes == 88 && b.LagBytes == 77 && b.LagSeconds == 2.5 && b.Percent == 25
	}, time.Minute, 10*time.Millisecond, "%s", r.log)
}

// TestCheckpointsAreWhole: of a connector that dies, whole checkpoints are kept, and nothing of the open one, also when neither fits into one piece of the log; and
// small checkpoints that come together are committed together.
func TestCheckpointsAreWhole(t *testing.T) { onBoth(t, testCheckpointsAreWhole) }

func testCheckpointsAreWhole(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.JSON, fakeConfig{})
	const checkpoints, open = 500, 300
	text := strings.Repeat("x", 2000)
	lines := []string{`> {"opened":{}}`, `once sent`}
	document := func(id int) {
		lines = append(lines, fmt.Sprintf(`> {"captured":{"doc":{"id":%d,"text":"%s"}}}`, id, text))
	}
	for id := range checkpoints {
		document(id)
		lines = append(lines, fmt.Sprintf(`> {"checkpoint":{"state":{"updated":{"last":%d}}}}`, id))
	}
	for id := range open {
		document(checkpoints + id)
	}
	r.script(map[string][]string{"open": append(lines, `exit 1`)})
	stop := r.start()
	r.waitLog("ended with exit code 1")
	stop()
	require.Equal(t, checkpoints, r.left())
	log := r.open()
	state, err := log.Get("capture/acme/source/state")
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`{"last":%d}`, checkpoints-1), string(state))
	commits := int64(0)
	for _, j := range log.Journals() {
		span, err := log.Span(j)
		require.NoError(t, err)
		commits += span.Commits
	}
	require.Less(t, commits, int64(checkpoints/10))
	require.NoError(t, log.Close())
}
