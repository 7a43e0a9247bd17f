package jsontype

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/schema"
)

func object(props ...Prop) *Node { return &Node{Types: []string{"object"}, Props: props} }

func decimal(precision, scale int) *Node {
	return &Node{Types: []string{"string"}, Format: "number", Decimal: schema.Decimal{Precision: precision, Scale: scale}}
}

// TestMerge: what is merged must be true of the values of each.
func TestMerge(t *testing.T) {
	t.Parallel()
	date := &Node{Types: []string{"string"}, Format: "date"}
	for _, c := range []struct {
		name string
		a, b *Node
		want string
	}{
		{"the same", Of("string"), Of("string"), `{"type":"string"}`},
		{"two types", Of("integer"), Of("boolean"), `{"type":["integer","boolean"]}`},
		{"null", Of("null"), date, `{"type":["string","null"],"format":"date"}`},
		{"two formats", date, Of("string"), `{"anyOf":[{"type":"string","format":"date"},{"type":"string"}]}`},
		{"two decimals", decimal(9, 2), decimal(6, 4), `{"type":"string","format":"number","x-decimal":{"precision":11,"scale":4}}`},
		{"a decimal without bound", decimal(9, 2), decimal(0, 0), `{"type":"string","format":"number"}`},
		{"a decimal or null", Of("null"), decimal(9, 2), `{"type":["string","null"],"format":"number","x-decimal":{"precision":9,"scale":2}}`},
		{"anything", &Node{}, Of("string"), `{"anyOf":[{},{"type":"string"}]}`},
		{
			"members", object(Prop{"a", Of("string"), true}, Prop{"b", Of("string"), true}), object(Prop{"a", Of("integer"), true}, Prop{"c", date, true}),
			`{"type":"object","properties":{"a":{"type":["string","integer"]},"b":{"type":"string"},"c":{"type":"string","format":"date"}},"required":["a"]}`,
		},
		{"an object and a text", object(Prop{"a", Of("string"), true}), Of("string"), `{"anyOf":[{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]},{"type":"string"}]}`},
		{"a map and an object", &Node{Types: []string{"object"}, Values: date}, object(), `{"anyOf":[{"type":"object","additionalProperties":{"type":"string","format":"date"}},{"type":"object"}]}`},
		{"lists", &Node{Types: []string{"array"}, Items: Of("string")}, &Node{Types: []string{"array"}, Items: Of("null")}, `{"type":"array","items":{"type":["string","null"]}}`},
		{"alternatives", &Node{AnyOf: []*Node{date, Of("integer")}}, date, `{"anyOf":[{"type":"string","format":"date"},{"type":"integer"}]}`},
	} {
		got := Merge(&Document{Root: c.a}, &Document{Root: c.b})
		require.JSONEq(t, c.want, string(got.JSON("")), c.name)
	}
	require.JSONEq(t, `{}`, string(Merge().JSON("")))
}

func TestMergeKeepsWhatItIsGiven(t *testing.T) {
	t.Parallel()
	a := &Document{Root: &Node{Ref: "R"}, Defs: map[string]*Node{"R": object(Prop{"a", Of("string"), true})}}
	b := &Document{Root: &Node{Ref: "R"}, Defs: map[string]*Node{"R": object(Prop{"b", &Node{Ref: "R"}, true})}}
	before := string(a.JSON("")) + string(b.JSON(""))
	merged := Merge(a, b)
	require.JSONEq(t, `{"type":"object","properties":{"a":{"type":"string"},"b":{"$ref":"#/$defs/k%20R"}},
		"$defs":{"k R":{"type":"object","properties":{"a":{"type":"string"},"b":{"$ref":"#/$defs/k%20R"}}}}}`, string(merged.JSON("k ")))
	require.JSONEq(t, string(merged.JSON("")), string(merged.Optional().JSON("")))
	require.Equal(t, before, string(a.JSON(""))+string(b.JSON("")))
	require.NotContains(t, string(a.Optional().JSON("")), "required")
	require.Equal(t, before, string(a.JSON(""))+string(b.JSON("")))
}
