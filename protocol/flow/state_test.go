package flowpb_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
)

// The examples of RFC 7396, and what states need beyond.
func TestMergePatch(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{``, `{"a":null}`, `{}`},
		{`{"n":12345678901234567890.10}`, ` { "m" : 1e400 } `, `{"n":12345678901234567890.10,"m":1e400}`},
		{`{"<a>":"&"}`, `{"b":"</>"}`, `{"<a>":"&","b":"</>"}`},
		{`{"a":{"b":1}}`, `{"a":{}}`, `{"a":{"b":1}}`},
		{"{ \"z\" : [1,\n 2],\"a\":{}}", `{"b":{"c":null},"a":[]}`, `{"z":[1,2],"a":[],"b":{}}`},
		{`{"\u0061":1,"b\"":2}`, `{"a":null,"b\u0022":{"c":1}}`, `{"b\"":{"c":1}}`},
		{`{"a":1,"a":2}`, `{"a":3,"a":4}`, `{"a":4}`},
	} {
		got, err := flowpb.MergePatch([]byte(c[0]), []byte(c[1]))
		require.NoError(t, err)
		require.Equal(t, c[2], string(got), c)
	}
	_, err := flowpb.MergePatch([]byte(`{"a":1}`), []byte(`{"a":`))
	require.EqualError(t, err, "merging a patch of 5 bytes into 7 bytes: invalid JSON at byte 5: expected a value, found the end of the text")
	_, err = flowpb.MergePatch([]byte(`{"a`), []byte(`{"a":1}`))
	require.Error(t, err)
	_, err = flowpb.MergePatch(nil, []byte(`[`))
	require.Error(t, err)
}

// naive is RFC 7396, section 2, on decoded values.
func naive(doc, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	members, ok := doc.(map[string]any)
	if !ok {
		members = map[string]any{}
	}
	for name, change := range changes {
		if change == nil {
			delete(members, name)
		} else {
			members[name] = naive(members[name], change)
		}
	}
	return members
}

func randomValue(rnd *rand.Rand, depth int) any {
	switch n := rnd.IntN(6); {
	case n < 3 && depth > 0:
		out := map[string]any{}
		for range rnd.IntN(4) {
			out[string(rune('a'+rnd.IntN(4)))] = randomValue(rnd, depth-1)
		}
		return out
	case n == 3:
		return []any{"x", nil}
	case n == 4:
		return nil
	}
	return float64(rnd.IntN(10))
}

func TestMergePatchIsTheRFC(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		doc, patch := randomValue(rnd, 4), randomValue(rnd, 4)
		docText, err := json.Marshal(doc)
		require.NoError(t, err)
		patchText, err := json.Marshal(patch)
		require.NoError(t, err)
		want, err := json.Marshal(naive(doc, patch))
		require.NoError(t, err)
		got, err := flowpb.MergePatch(docText, patchText)
		require.NoError(t, err)
		require.JSONEq(t, string(want), string(got), "seed %d: %s + %s", seed, docText, patchText)
	}
}

func TestReduceState(t *testing.T) {
	t.Parallel()
	merge := func(s string) *flowpb.ConnectorState {
		return &flowpb.ConnectorState{UpdatedJson: []byte(s), MergePatch: true}
	}
	replace := func(s string) *flowpb.ConnectorState { return &flowpb.ConnectorState{UpdatedJson: []byte(s)} }
	for _, c := range []struct {
		base   string
		update *flowpb.ConnectorState
		want   string
	}{
		{``, nil, `{}`},
		{`{"a":1}`, nil, `{"a":1}`},
		{``, merge(`{"a":1,"b":null}`), `{"a":1}`},
		{`{"b":{"x":1,"y":2}}`, merge(`{"a":1,"b":{"x":null}}`), `{"b":{"y":2},"a":1}`},
		{`{"b":{"x":1}}`, replace(`{"a":1,"c":null}`), `{"a":1}`},
	} {
		got, err := flowpb.ReduceState([]byte(c.base), c.update)
		require.NoError(t, err)
		require.Equal(t, c.want, string(got))
	}
	_, err := flowpb.ReduceState(nil, &flowpb.ConnectorState{MergePatch: true})
	require.EqualError(t, err, "reducing state: updated: missing")
	_, err = flowpb.ReduceState(nil, merge(`{]`))
	require.EqualError(t, err, "reducing state: updated: invalid JSON at byte 1: expected a key in quotes, found ']'")
}

func TestPatches(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                     `{"z":1}`,
		" \n":                                  `{"z":1}`,
		"null":                                 `{"z":1}`,
		"[]":                                   `{"z":1}`,
		"[{\"a\":1}\t,{\"b\":2,\"a\":null}\n]": `{"b":2,"z":1}`,
		"[{\"a\":1}\n,null\n,{\"c\":3}\n]":     `{"c":3}`,
	} {
		got, err := flowpb.ReducePatches([]byte(`{"z":1}`), []byte(in))
		require.NoError(t, err)
		require.JSONEq(t, want, string(got), in)
	}
	list, err := flowpb.SplitPatches([]byte("[{\"a\":1}\t,null\n]"))
	require.NoError(t, err)
	require.Equal(t, []json.RawMessage{[]byte(`{"a":1}`), []byte(`null`)}, list)
	_, err = flowpb.SplitPatches([]byte(`{}`))
	require.ErrorContains(t, err, "splitting state patches: ")
}

// A patch of one binding into the state of many is a scan and a copy.
func BenchmarkMergePatch(b *testing.B) {
	state := map[string]any{}
	for i := range 2000 {
		state[fmt.Sprintf("public%%2Ftable%d", i)] = map[string]any{"phase": "live", "ranges": []int{1, 2, 3}, "rows": 123456}
	}
	doc, err := json.Marshal(map[string]any{"bindingStateV1": state, "shared": map[string]any{"cursor": "0/1A2B3C4D"}})
	require.NoError(b, err)
	patch := []byte(`{"bindingStateV1":{"public%2Ftable77":{"rows":123457}},"shared":{"cursor":"0/1A2B3C4E"}}`)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := flowpb.MergePatch(doc, patch); err != nil {
			b.Fatal(err)
		}
	}
}
