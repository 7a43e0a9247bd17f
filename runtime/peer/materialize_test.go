package peer

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// bindings are a table of sums, in which a transaction that counts twice or not at all shows, and a table of deltas.
func bindings() []map[string]any {
	properties := map[string]any{
		"id": map[string]any{"type": "integer"}, "n": map[string]any{"type": "integer", "reduce": map[string]any{"strategy": "sum"}},
		"note": map[string]any{"type": []string{"string", "null"}},
	}
	schema := map[string]any{"type": "object", "properties": properties, "required": []string{"id", "n"}}
	return []map[string]any{
		{"name": "peer/counts", "key": []string{"/id"}, "schema": schema, "resource": map[string]any{"table": "counts"}},
		{"name": "peer/events", "key": []string{"/id"}, "schema": schema, "resource": map[string]any{"table": "events", "deltaUpdates": true}},
	}
}

// transactions is a fixture, one document or commit a line.
func transactions(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, `["peer/counts",{"id":%d,"n":1,"note":"näch %d"}]`+"\n", i%3-1, i)
		fmt.Fprintf(&b, `["peer/counts",{"id":7,"n":1}]`+"\n")
		fmt.Fprintf(&b, `["peer/events",{"id":%d,"n":%d}]`+"\n", i, i*i)
		b.WriteString(`{"commit":true}` + "\n")
	}
	return b.String()
}

// requireStored compares both tables with what that many transactions make.
func requireStored(t *testing.T, d db, count int) {
	t.Helper()
	want := map[string]int{"7": count}
	for i := 1; i <= count; i++ {
		want[strconv.Itoa(i%3-1)]++
	}
	var have map[string]int
	require.NoError(t, json.Unmarshal([]byte(d.exec(t, `SELECT json_object_agg(id, n) FROM counts`)), &have))
	require.Equal(t, want, have, "sums")
	require.Equal(t, fmt.Sprintf("%d|%d|%d", count, count, count*(count+1)*(2*count+1)/6),
		strings.ReplaceAll(d.exec(t, `SELECT count(*) || '|' || count(DISTINCT id) || '|' || sum(n) FROM events`), " ", ""), "deltas")
}

// sink are the arguments of a materialization into a database.
func sink(t *testing.T, d db, args ...string) []string {
	t.Helper()
	return append([]string{
		"materialize", "--binary", connector(t, "materialize-postgres"), "--config", d.config(t, nil),
		"--bindings", file(t, bindings()), "--task", "peer/" + d.name,
	}, args...)
}

// feed writes the fixture and ends it. A connector that was killed meanwhile reads no more of it.
func (k *talk) feed(text string) {
	_, _ = k.stdin.Write([]byte(text))
	_ = k.stdin.Close()
}

var steps = []string{
	"send:open", "read:opened", "send:acknowledge", "send:load", "read:acknowledged", "send:flush", "read:loaded", "read:flushed",
	"send:store", "send:startCommit", "read:startedCommit",
}

// TestMaterializeIsExactlyOnce kills the connector at every step of the protocol, one after the other, and goes on each time
// from the checkpoint that the destination returns.
func TestMaterializeIsExactlyOnce(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"proto, packed keys": {"--codec", "proto"}, "json, JSON keys": {"--codec", "json"}, "json, packed keys": {"--codec", "json", "--packed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const count = 3*11 + 2 // two transactions at most for each step, and some for the end
			d := newDB(t)
			args := sink(t, d, args...)
			k := start(t, args...)
			requireBothForms(t, k.until("validated"))
			spec := file(t, k.until("built"))
			require.JSONEq(t, `{"runtimeCheckpoint":{}}`, string(k.until("opened")), "a checkpoint that is there and empty: from the start")
			k.feed(transactions(1, 2))
			require.Equal(t, verdict{}, k.end())
			requireStored(t, d, 2)
			for i, step := range steps {
				if strings.Contains(name, "json, packed") && i%4 != 0 {
					continue // the way of the keys and the moment of death have little to do with each other
				}
				k := start(t, append(args, "--spec", spec, "--die-at", step)...)
				k.feed(transactions(1, count))
				require.Equal(t, verdict{Code: -9, Last: "killed at " + step}, k.end())
			}
			k = start(t, append(args, "--spec", spec)...)
			k.feed(transactions(1, count))
			require.Equal(t, 0, k.end().Code)
			requireStored(t, d, count)
		})
	}
}

// requireBothForms looks for the list of constraints and for the map that older control planes read.
func requireBothForms(t *testing.T, validated json.RawMessage) {
	t.Helper()
	var v struct {
		Bindings []struct {
			Constraints map[string]struct {
				Type string `json:"type"`
			} `json:"constraints"`
			ProjectionConstraints []struct {
				Field      string `json:"field"`
				Constraint struct {
					Type string `json:"type"`
				} `json:"constraint"`
			} `json:"projectionConstraints"`
			DeltaUpdates bool `json:"deltaUpdates"`
		} `json:"bindings"`
	}
	require.NoError(t, json.Unmarshal(validated, &v))
	require.Len(t, v.Bindings, 2)
	for i, b := range v.Bindings {
		require.Equal(t, i == 1, b.DeltaUpdates)
		listed := map[string]struct {
			Type string `json:"type"`
		}{}
		for _, c := range b.ProjectionConstraints {
			listed[c.Field] = c.Constraint
		}
		require.True(t, maps.Equal(listed, b.Constraints), "%s", validated)
		require.Contains(t, []string{"FIELD_REQUIRED", "LOCATION_REQUIRED"}, listed["id"].Type)
		require.Contains(t, listed, "flow_document")
	}
}

// TestMaterializeForms opens sessions as other senders do.
func TestMaterializeForms(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"legacy", "indirect"} {
		for _, codec := range []string{"proto", "json"} {
			t.Run(form+"/"+codec, func(t *testing.T) {
				t.Parallel()
				d := newDB(t)
				args := sink(t, d, "--codec", codec, "--form", form)
				k := start(t, args...)
				spec := file(t, k.until("built"))
				k.feed(transactions(1, 3))
				require.Equal(t, verdict{}, k.end())
				k = start(t, append(args, "--last", spec)...)
				k.feed(transactions(1, 5))
				require.Equal(t, 0, k.end().Code)
				requireStored(t, d, 5)
			})
		}
	}
}

// TestSecondInstanceFencesTheFirst starts a materialization twice: the first stores nothing any more, and says why.
func TestSecondInstanceFencesTheFirst(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	args := sink(t, d)
	first := start(t, args...)
	spec := file(t, first.until("built"))
	_, err := first.stdin.Write([]byte(transactions(1, 1)))
	require.NoError(t, err)
	first.until("stored")
	second := start(t, append(args, "--spec", spec, "--codec", "json")...)
	second.feed(transactions(1, 3))
	require.Equal(t, 0, second.end().Code)
	first.feed(transactions(2, 4))
	for {
		l, ok := first.next()
		require.True(t, ok, "the first instance must not go on")
		if l.name == "violation" {
			require.Regexp(t, "the connector ended.*nother instance", string(l.body))
			break
		}
	}
	requireStored(t, d, 3)
}

// TestHostileInput sends what no runtime should: each must end the process, with a last line of the log that says why.
func TestHostileInput(t *testing.T) {
	t.Parallel()
	d := newDB(t, items)
	k := start(t, sink(t, d)...)
	materialization := k.until("built")
	k.feed("")
	require.Equal(t, 0, k.end().Code)
	open := fmt.Sprintf(`{"open":{"materialization":%s,"version":"1","range":{"keyEnd":4294967295,"rClockEnd":4294967295},"state":{}}}`, materialization)
	ack, flush := "wait opened\n{\"acknowledge\":{}}\nwait acknowledged", "{\"flush\":{}}\nwait flushed"
	for name, c := range map[string]struct {
		kind, codec string
		say         []string
		want        string
	}{
		"cut off":                     {"capture", "proto", []string{"hex 10000000 0a00"}, `cut off|ends after|unexpected EOF`},
		"cut off in its length":       {"capture", "proto", []string{"hex 0200"}, `cut off|ends after|unexpected EOF`},
		"oversized":                   {"materialize", "proto", []string{"hex ffffffff 0a00"}, `claims 4294967295 bytes`},
		"no protobuf":                 {"capture", "proto", []string{"hex 04000000 ffffffff"}, `message 1`},
		"no JSON":                     {"materialize", "json", []string{"hex 7b7b7b0a"}, `message 1|byte 1|JSON`},
		"a line cut off":              {"capture", "json", []string{"hex 7b"}, `without a line break`},
		"JSON to a protobuf receiver": {"capture", "proto", []string{"hex 7b2273706563223a7b7d7d0a"}, `JSON|json|text`},
		"nothing set":                 {"capture", "json", []string{"hex 7b7d0a"}, `request`},
		"two at once":                 {"capture", "json", []string{"hex " + fmt.Sprintf("%x", `{"spec":{"config":{}},"acknowledge":{"checkpoints":1}}`+"\n")}, `spec|acknowledge`},
		"acknowledge before Open":     {"capture", "proto", []string{`{"acknowledge":{"checkpoints":1}}`}, `(?i)acknowledge`},
		"store before Open":           {"materialize", "proto", []string{`{"store":{"keyPacked":"FQE="}}`}, `(?i)store`},
		"flush before Acknowledge":    {"materialize", "proto", []string{open, flush}, `sent Flush where`},
		"store before Flush":          {"materialize", "json", []string{open, ack, `{"store":{"key":[1],"values":[1,null]}}`}, `(?i)store`},
		"load after Flush":            {"materialize", "json", []string{open, ack, flush, `{"load":{"key":[1]}}`}, `(?i)load`},
		"flush twice":                 {"materialize", "proto", []string{open, ack, flush, flush}, `sent Flush where`},
		"open twice":                  {"materialize", "proto", []string{open, open}, `(?i)open`},
		"commit without a checkpoint": {"materialize", "json", []string{open, ack, flush, `{"startCommit":{}}`}, `(?i)checkpoint`},
		"a binding that is not there": {"materialize", "proto", []string{open, ack, `{"load":{"binding":9,"keyPacked":"FQE="}}`}, `binding`},
		"a key of two parts":          {"materialize", "json", []string{open, ack, `{"load":{"key":[1,2]}}`}, `key`},
		"the end in a transaction":    {"materialize", "json", []string{open, ack, flush}, `(?i)end|EOF`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := map[string]string{"capture": "source-postgres", "materialize": "materialize-postgres"}[c.kind]
			k := start(t, "say", "--kind", c.kind, "--codec", c.codec, "--timeout", "15", "--binary", connector(t, program))
			k.feed(strings.Join(c.say, "\n") + "\n")
			v := k.end()
			require.NotZero(t, v.Code, "it must fail: %s", v.Last)
			require.Regexp(t, c.want, v.Last)
			require.NotContains(t, v.Last, "goroutine", "a crash is no answer")
			t.Log(v.Last)
		})
	}
}

// TestThePeerTellsABrokenConnector makes sure that the peer would notice: a judge that says yes to everything proves nothing.
func TestThePeerTellsABrokenConnector(t *testing.T) {
	t.Parallel()
	connector(t, "source-postgres") // for its checks of what is installed
	for name, c := range map[string]struct{ script, want string }{
		"silent":         {`read x`, "ended where spec was due"},
		"another number": {`echo '{"spec":{"protocol":1}}'`, "protocol 1 is not 3032023"},
		"unknown name":   {`echo '{"spec":{"protocol":3032023,"colour":"red"}}'`, "unknown names .*colour"},
		"two in one":     {`echo '{"spec":{"protocol":3032023},"opened":{}}'`, "exactly one is wanted"},
		"a stray print":  {`echo 'hello'`, "cannot be read"},
		"out of order":   {`echo '{"captured":{"doc":{}}}'`, "captured came where spec was due"},
		"cut off":        {`printf '{"spec":'`, "the last line is cut off"},
		"a second one":   {`for i in 1 2; do echo '{"spec":{"protocol":3032023}}'; done`, "a second answer came"},
		"a late failure": {`echo '{"spec":{"protocol":3032023}}'; read x; exit 3`, "exit code 3 after an answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := t.TempDir() + "/broken"
			require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o600))
			k := start(t, "spec", "--codec", "json", "--binary", "sh", "--argument", path)
			l, ok := k.next()
			require.True(t, ok)
			require.Equal(t, "violation", l.name)
			require.Regexp(t, c.want, string(l.body))
		})
	}
}
