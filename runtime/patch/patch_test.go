package patch

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
)

// TestMergeExamples are the examples of RFC 7396, appendix A, whose targets are objects.
func TestMergeExamples(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a"]`, `{"a":"b"}`, `{"a":"b"}`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		require.JSONEq(t, c[2], string(Merge(nil, []byte(c[0]), []byte(c[1]))), "%s + %s", c[0], c[1])
	}
}

func TestReduce(t *testing.T) {
	t.Parallel()
	reduce := func(state string, u *flowpb.ConnectorState) string {
		out, err := Reduce([]byte(state), u)
		require.NoError(t, err)
		return string(out)
	}
	require.Equal(t, `{"a":1}`, reduce(`{"a":1}`, nil))
	require.Equal(t, `{"a":1}`, reduce(`{"a":1}`, &flowpb.ConnectorState{MergePatch: true}))
	require.Equal(t, `{"a":1,"b":2}`, reduce(`{"a":1}`, &flowpb.ConnectorState{UpdatedJson: []byte(`{"b":2}`), MergePatch: true}))
	require.Equal(t, `{"b":2}`, reduce(`{"a":1}`, &flowpb.ConnectorState{UpdatedJson: []byte(`{"b":2}`)}))
	require.Equal(t, `{"b":2}`, reduce(``, &flowpb.ConnectorState{UpdatedJson: []byte(` {"b":2,"c":null} `), MergePatch: true}))
	_, err := Reduce([]byte(`{}`), &flowpb.ConnectorState{UpdatedJson: []byte(`{"a"`)})
	require.EqualError(t, err, `reading the connector's state: it is not JSON: "{\"a\""`)
}

func TestMergeIsTheModel(t *testing.T) {
	t.Parallel()
	var model func(target, patch any) any
	model = func(target, patch any) any {
		p, ok := patch.(map[string]any)
		if !ok {
			return patch
		}
		out := map[string]any{}
		if t, ok := target.(map[string]any); ok {
			out = t
		}
		for k, v := range p {
			if v == nil {
				delete(out, k)
			} else {
				out[k] = model(out[k], v)
			}
		}
		return out
	}
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		return rapid.Custom(func(t *rapid.T) any {
			switch k := rapid.IntRange(0, 3).Draw(t, "kind"); {
			case k == 0:
				return nil
			case k == 1 || depth == 0:
				return rapid.StringN(0, 3, -1).Draw(t, "text")
			default:
				m := map[string]any{}
				for range rapid.IntRange(0, 3).Draw(t, "n") {
					m[rapid.SampledFrom([]string{"a", "b", "c", "d\"e"}).Draw(t, "name")] = value(depth-1).Draw(t, "v")
				}
				return m
			}
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		target, _ := json.Marshal(value(3).Draw(t, "target"))
		change, _ := json.Marshal(value(3).Draw(t, "patch"))
		var a, b any
		require.NoError(t, json.Unmarshal(target, &a))
		require.NoError(t, json.Unmarshal(change, &b))
		want, _ := json.Marshal(model(a, b))
		require.JSONEq(t, string(want), string(Merge(nil, target, change)))
	})
}
