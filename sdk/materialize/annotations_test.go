package materialize

import (
	"testing"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"

	"github.com/sluicedata/sluice/sdk/schema"
)

// A field's digits are bounded where every schema that describes it says so, wherever runtimes have put it.
func TestDecimalsOfFields(t *testing.T) {
	t.Parallel()
	const amount = `{"type":"string","format":"number","x-decimal":{"precision":10,"scale":2}}`
	plain := schema.DecimalOf(10, 2)
	for text, want := range map[string]schema.Decimal{
		`{"properties":{"a":` + amount + `}}`: plain,
		`{"$defs":{"t":{"properties":{"a":` + amount + `}}},"allOf":[{"properties":{}},{"$ref":"#/$defs/t"}]}`: plain,
		`{"$defs":{"n":` + amount + `},"properties":{"a":{"$ref":"#/$defs/n"}}}`:                               plain,
		`{"$defs":{"flow://write-schema":{"$id":"flow://write-schema","properties":{"a":` + amount + `}},"flow://inferred-schema":{"properties":{"b":{"type":"string"}}}},
		  "allOf":[{"$ref":"flow://write-schema"},{"$ref":"flow://inferred-schema"}]}`: plain,
		// The source has changed since, and what a runtime inferred says less, or something else.
		`{"allOf":[{"properties":{"a":` + amount + `}},{"properties":{"a":{"type":["null","string"]}}}]}`:               {},
		`{"allOf":[{"properties":{"a":` + amount + `}},{"properties":{"a":{"x-decimal":{"precision":12,"scale":4}}}}]}`: schema.DecimalOf(12, 4),
		`{"anyOf":[{"properties":{"a":` + amount + `}},{"properties":{"a":{"type":"string"}}}]}`:                        {},
		`{"properties":{"a":{"type":"string","x-decimal":{"precision":2,"scale":-1}}}}`:                                 {},
		`{"properties":{"a":{"type":"string","x-decimal":"10,2"}}}`:                                                     {},
		`{"$defs":{"a":{"$ref":"#/$defs/a"}},"properties":{"a":{"$ref":"#/$defs/a","x-decimal":{}}}}`:                   {},
		`{"properties":{"a":{"$ref":"elsewhere","x-decimal":{"precision":10,"scale":2}}}}`:                              plain,
		`{"properties":{"b":` + amount + `}}`:                                                                           {},
		`{"properties":{"a":` + amount:                                                                                  {},
	} {
		c := &flowpb.CollectionSpec{ReadSchemaJson: []byte(text), Projections: []*flowpb.Projection{
			{Field: "a", Ptr: "/a", Inference: &flowpb.Inference{Types: []string{"string"}, String_: &flowpb.Inference_String{Format: "number"}}},
		}}
		require.Equal(t, want, fieldsOf(c, nil, nil)[0].Decimal, text)
		if c.ReadSchemaJson, c.WriteSchemaJson = nil, c.ReadSchemaJson; true {
			require.Equal(t, want, fieldsOf(c, nil, nil)[0].Decimal, text)
		}
		c.Projections[0].Inference.Types = []string{"number"}
		require.Zero(t, fieldsOf(c, nil, nil)[0].Decimal, "numbers are not strings: %s", text)
	}
}
