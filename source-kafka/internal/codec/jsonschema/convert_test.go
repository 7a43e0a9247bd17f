package jsonschema

import (
	"bytes"
	"strings"
	"testing"

	library "github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// TestConvert holds schemas of all drafts against the one form that they become.
func TestConvert(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"draft 4", `{"$schema":"http://json-schema.org/draft-04/schema#","id":"http://x/y","type":"object","definitions":{"p":{"type":"number","minimum":1,"exclusiveMinimum":true}},
			"properties":{"a":{"$ref":"#/definitions/p"}},"required":["a"],"additionalProperties":false}`, `{"type":"object","properties":{"a":{"type":"number"}}}`},
		{
			"draft 2020", `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","$defs":{"p":{"type":["string","null"],"format":"date-time"}},
			"properties":{"a":{"$ref":"#/$defs/p","description":"d"},"b":{"type":"array","prefixItems":[true],"items":{"type":"string"}}},"unevaluatedProperties":false}`,
			`{"type":"object","properties":{"a":{"type":["string","null"],"format":"date-time","description":"d"},"b":{"type":"array"}}}`,
		},
		{"anchors", `{"type":"object","$defs":{"x":{"$anchor":"here","type":"integer"}},"properties":{"a":{"$ref":"#here"}}}`, `{"type":"object","properties":{"a":{"type":"integer"}}}`},
		{
			"a tree", `{"type":"object","properties":{"next":{"$ref":"#"},"v":{"type":"integer"}}}`,
			`{"type":"object","properties":{"next":{"$ref":"#/$defs/root"},"v":{"type":"integer"}},"$defs":{"root":{"type":"object","properties":{"next":{"$ref":"#/$defs/root"},"v":{"type":"integer"}}}}}`,
		},
		{
			"parts", `{"allOf":[{"type":"object","properties":{"a":{"type":"string"}}},{"$ref":"#/definitions/b"}],"definitions":{"b":{"properties":{"b":{"type":"boolean"}}}}}`,
			`{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"boolean"}}}`,
		},
		{"alternatives", `{"oneOf":[{"type":"null"},{"type":"object","properties":{"a":{"type":"string"}}}]}`, `{"type":["object","null"],"properties":{"a":{"type":"string"}}}`},
		{"alternatives beside a type", `{"type":"object","properties":{"a":{}},"anyOf":[{"required":["a"]},{"required":["b"]}]}`, `{"type":"object","properties":{"a":{}}}`},
		{"a map", `{"type":"object","additionalProperties":{"type":"number"}}`, `{"type":"object","additionalProperties":{"type":"number"}}`},
		{
			"Connect's order", `{"type":"object","properties":{"a":{"connect.index":1,"type":"string"},"b":{"connect.index":0,"type":"string"}}}`,
			`{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"string"}}}`,
		},
		{"nowhere", `{"properties":{"a":{"$ref":"#/definitions/gone"},"b":{"$ref":"other.json#/x"}}}`, `{"properties":{"a":{},"b":{}}}`},
		{"anything", `true`, `{}`},
		{"odd types", `{"properties":{"a":{"type":"any"},"b":{"type":[{"type":"string"}]}}}`, `{"properties":{"a":{},"b":{}}}`},
	} {
		doc, err := Convert(c.text, nil)
		require.NoError(t, err, c.name)
		require.JSONEq(t, c.want, string(doc.JSON("")), c.name)
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	refs := []Text{
		{"address.json", `{"$id":"https://acme.com/address.json","type":"object","properties":{"city":{"$ref":"#/definitions/name"},"country":{"$ref":"country.json"}},"definitions":{"name":{"type":"string"}}}`},
		{"land", `{"$id":"https://acme.com/country.json","type":"string"}`},
	}
	for _, address := range []string{"address.json", "https://acme.com/address.json", "address.json#"} {
		doc, err := Convert(`{"type":"object","properties":{"home":{"$ref":"`+address+`"}}}`, refs)
		require.NoError(t, err)
		require.JSONEq(t, `{"type":"object","properties":{"home":{"type":"object","properties":{"city":{"type":"string"},"country":{"type":"string"}}}}}`, string(doc.JSON("")), address)
	}
}

func TestWrongSchemas(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{`:   `its text is no JSON: unexpected end of JSON input`,
		`[]`:  `it is neither an object nor a boolean`,
		`"a"`: `it is neither an object nor a boolean`,
		strings.Repeat(`{"items":`, 1000) + "{}" + strings.Repeat("}", 1000): `it is nested too deep`,
	} {
		_, err := Convert(text, nil)
		require.EqualError(t, err, want)
	}
}

// FuzzConvert holds that every value that follows a schema follows what is made of it, and that nothing makes it hang.
func FuzzConvert(f *testing.F) {
	f.Add(`{"type":"object","properties":{"a":{"$ref":"#/definitions/p"}},"definitions":{"p":{"type":["number","null"]}}}`, `{"a":5}`)
	f.Add(`{"anyOf":[{"type":"string"},{"allOf":[{"items":{"type":"integer"}},{"type":"array"}]}]}`, `[1]`)
	f.Add(`{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"type":"null"}]}}}`, `null`)
	f.Fuzz(func(t *testing.T, text, value string) {
		doc, err := Convert(text, nil)
		if err != nil {
			return
		}
		v, err := library.UnmarshalJSON(strings.NewReader(value))
		if err != nil {
			return
		}
		theirs, ours := compile(text), compile(string(doc.JSON("")))
		if theirs == nil || ours == nil || theirs.Validate(v) != nil {
			return
		}
		require.NoError(t, ours.Validate(v), "%s became %s", text, doc.JSON(""))
	})
}

// compile is nil for what the library refuses.
func compile(text string) *library.Schema {
	doc, err := library.UnmarshalJSON(bytes.NewReader([]byte(text)))
	if err != nil {
		return nil
	}
	c := library.NewCompiler()
	if c.AddResource("mem:schema", doc) != nil {
		return nil
	}
	s, err := c.Compile("mem:schema")
	if err != nil {
		return nil
	}
	return s
}
