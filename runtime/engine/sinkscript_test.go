package engine

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/pipeline"
)

// TestMaterializationErrorsSayWhatIsWrong: a destination that breaks the order of the protocol gets an error that names
// what came and what was expected, and never makes the runtime hang.
func TestMaterializationErrorsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	opened, acknowledged, flushed := `> {"opened":{}}`, `> {"acknowledged":{}}`, `> {"flushed":{}}`
	loaded := `> {"loaded":{"doc":{"id":0,"n":0}}}`
	for name, c := range map[string]struct {
		script map[string][]string
		want   string
	}{
		"loaded before acknowledged": {map[string][]string{"acknowledge": {loaded}}, "sent Loaded out of order: expected was Acknowledged"},
		"acknowledged twice":         {map[string][]string{"acknowledge": {acknowledged, acknowledged}}, "sent Acknowledged out of order: expected was Loaded, or Flushed after a Flush"},
		"flushed without a flush":    {map[string][]string{"acknowledge": {acknowledged, flushed}}, "sent Flushed out of order"},
		"loaded after flushed":       {map[string][]string{"flush": {flushed, loaded}}, "sent Loaded out of order: expected was StartedCommit after a StartCommit"},
		"started without a start":    {map[string][]string{"flush": {flushed, `> {"startedCommit":{}}`}}, "sent StartedCommit out of order"},
		"an unknown binding":         {map[string][]string{"flush": {`> {"loaded":{"binding":9,"doc":{"id":0}}}`, flushed}}, "loaded a document of binding 9, and there are only 1"},
		"an end in a session":        {map[string][]string{"flush": {`exit 0`}}, "ended its output in the middle of a session"},
		"a failed store":             {map[string][]string{"startCommit": {`! {"level":"error","msg":"the table is full"}`, `exit 1`}}, `level=error msg="the table is full"`},
		"a checkpoint of a stranger": {map[string][]string{"open": {`> {"opened":{"runtimeCheckpoint":{"sources":{"a;b;c":{"readThrough":"5"}}}}}`}}, "of another log than the one in this data folder"},
		"a refused key":              {map[string][]string{"validate": {`> {"validated":{"bindings":[{"resourcePath":["x"]}]}}`}}, "the destination accepts no field of the key /id"},
		"an answer too few":          {map[string][]string{"validate": {`> {"validated":{}}`}}, "answered about 0 bindings when it was asked about 1"},
		"a state that is not JSON":   {map[string][]string{"startCommit": {`> {"startedCommit":7}`}}, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, frame.Proto, fakeConfig{Total: 20, Batch: 5, Keys: 5})
			script := map[string][]string{
				"validate":    {`> {"validated":{"bindings":[{"resource_path":["things"],"constraints":{"id":{"type":"LOCATION_REQUIRED"},"n":{"type":4},"flow_document":{"type":"FIELD_OPTIONAL"}}}]}}`},
				"open":        {opened},
				"acknowledge": {acknowledged},
				"flush":       {flushed},
				"startCommit": {`> {"started_commit":{}}`},
			}
			maps.Copy(script, c.script)
			text, err := json.Marshal(script)
			require.NoError(t, err)
			file := filepath.Join(r.dir, "script.json")
			require.NoError(t, os.WriteFile(file, text, 0o600))
			m := &pipeline.Materialization{
				Name: "acme/sink", Endpoint: r.endpoint("script", frame.JSON, fakeConfig{}), At: "test.yaml:20",
				Bindings: []pipeline.MaterializationBinding{{Resource: json.RawMessage(`{}`), Source: "acme/things", Fields: pipeline.Fields{Depth: 1}, At: "test.yaml:22"}},
			}
			m.Endpoint.Env["SCRIPT"] = file
			r.p.Materializations = []*pipeline.Materialization{m}
			r.start()
			r.waitLog(c.want)
			r.waitLog("failures=")
		})
	}
}
