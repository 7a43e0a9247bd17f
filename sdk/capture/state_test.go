package capture

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
)

// anyState is any JSON value without nulls, which a merge patch cannot store.
func anyState(t *rapid.T, depth int) any {
	kind := rapid.IntRange(0, 5).Draw(t, "kind")
	if depth == 0 {
		kind %= 3
	}
	name := rapid.SampledFrom([]string{"a", "b", "c/d", "e~\"f"})
	switch kind {
	case 0:
		return rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "text")
	case 1:
		return rapid.IntRange(0, 3).Draw(t, "number")
	case 2:
		return []any{rapid.Bool().Draw(t, "bool"), nil}
	default:
		members := map[string]any{}
		for range rapid.IntRange(0, 3).Draw(t, "members") {
			members[name.Draw(t, "name")] = anyState(t, depth-1)
		}
		return members
	}
}

func TestDiffMakesOneStateOfAnother(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		before, err := json.Marshal(anyState(t, 3))
		require.NoError(t, err)
		after, err := json.Marshal(anyState(t, 3))
		require.NoError(t, err)
		patch, err := diffJSON(before, after)
		require.NoError(t, err)
		if patch == nil {
			require.JSONEq(t, string(before), string(after))
			return
		}
		got, err := flowpb.MergePatch(before, patch)
		require.NoError(t, err)
		require.JSONEq(t, string(after), string(got), "before %s, patch %s", before, patch)

		patch, err = diffJSON(nil, after)
		require.NoError(t, err)
		got, err = flowpb.MergePatch([]byte(`{}`), append(append([]byte(`{"s":`), patch...), '}'))
		require.NoError(t, err)
		require.JSONEq(t, `{"s":`+string(after)+`}`, string(got))
	})
}

// TestNullIsAbsence: members that are null are absent once stored, and a patch is made as if they were.
func TestNullIsAbsence(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{`{"a":null}`, `{"a":{"x":1}}`, `{"a":{"x":1}}`},
		{`{"a":{"x":1}}`, `{"a":null}`, `{"a":null}`},
		{`{"a":1}`, `{"a":1,"b":null}`, ``},
		{``, `null`, ``},
		{`{"a":1}`, `null`, `null`},
		{`{"a":1}`, `[]`, `[]`},
	} {
		patch, err := diffJSON(json.RawMessage(c[0]), json.RawMessage(c[1]))
		require.NoError(t, err)
		require.Equal(t, c[2], string(patch), "from %s to %s", c[0], c[1])
	}
}

// TestPatch commits transactions one after the other, and requires that the stored document follows the states.
func TestPatch(t *testing.T) {
	t.Parallel()
	d, err := parseDocument(json.RawMessage(
		` { "bindingStateV1" : {"a": {"n": 1, "gone": true}, "old": {"n": 7}, "older": {}} , "shared": {"lsn": "1"}, "other": 1} `))
	require.NoError(t, err)
	stored := json.RawMessage(`{"bindingStateV1":{"a":{"n":1,"gone":true},"old":{"n":7},"older":{}},"shared":{"lsn":"1"},"other":1}`)
	state := map[string]int{"n": 1}
	a := &handle{key: "a", stored: d.bindings["a"], marshal: func() (json.RawMessage, error) { return json.Marshal(state) }}
	require.Equal(t, []string{"old", "older"}, d.dormant([]*handle{a}))

	tx := &Tx{}
	commit := func(wantPatch, wantStored string) {
		t.Helper()
		patch, err := d.patch(tx)
		require.NoError(t, err)
		require.Equal(t, wantPatch, string(patch))
		if patch != nil {
			stored, err = flowpb.MergePatch(stored, patch)
			require.NoError(t, err)
		}
		require.JSONEq(t, wantStored, string(stored))
		tx.reset()
	}
	tx.mark(a)
	tx.mark(a)
	tx.SetShared(map[string]string{"lsn": "1"})
	commit(`{"bindingStateV1":{"a":{"gone":null}}}`,
		`{"bindingStateV1":{"a":{"n":1},"old":{"n":7},"older":{}},"shared":{"lsn":"1"},"other":1}`)
	tx.mark(a)
	commit("", string(stored))
	state["n"] = 2 // not marked
	tx.SetShared(map[string]string{"lsn": "2"})
	tx.Forget("old")
	tx.Forget("never was")
	commit(`{"bindingStateV1":{"old":null},"shared":{"lsn":"2"}}`,
		`{"bindingStateV1":{"a":{"n":1},"older":{}},"shared":{"lsn":"2"},"other":1}`)
	tx.mark(a)
	tx.Forget("old")
	commit(`{"bindingStateV1":{"a":{"n":2}}}`, `{"bindingStateV1":{"a":{"n":2},"older":{}},"shared":{"lsn":"2"},"other":1}`)
}

func TestDamagedState(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`[1]`:                     "The stored state of this capture is not a JSON object, so it was not written by this connector.",
		`{"bindingStateV1": [1]}`: `The stored state of this capture is damaged: "bindingStateV1" is not an object of bindings' states.`,
	} {
		_, err := parseDocument(json.RawMessage(text))
		require.ErrorContains(t, err, want)
	}
	for _, text := range []string{``, `{}`, `null`, `{"bindingStateV1": null, "shared": null}`} {
		d, err := parseDocument(json.RawMessage(text))
		require.NoError(t, err, text)
		require.Nil(t, d.shared)
		require.Empty(t, d.bindings)
	}
}

func TestResourcePath(t *testing.T) {
	t.Parallel()
	pointers := []string{"/namespace", "/at/deep~1er"}
	for text, want := range map[string][]string{
		`{"namespace":"public","at":{"deep/er":"t"}}`: {"public", "t"},
		`{"namespace":"","at":{"deep/er":"t"}}`:       {"t"},
		`{"at":{"deep/er":7}}`:                        {"7"},
	} {
		path, err := resourcePath(json.RawMessage(text), pointers)
		require.NoError(t, err)
		require.Equal(t, want, path)
	}
	for text, want := range map[string]string{
		`{}`:                  `"at/deep~1er" must not be empty, for it names the resource.`,
		`{"namespace":["x"]}`: `"namespace" must be a text, for it names the resource.`,
	} {
		_, err := resourcePath(json.RawMessage(text), pointers)
		require.EqualError(t, err, want)
	}
	require.Equal(t, "a/b_c_é.d", collectionName("/a/b c$é.d/"))
}
