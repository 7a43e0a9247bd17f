package materializepb_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

// request and response decode a message from JSON, which is how people see them.
func request(t *testing.T, text string) *materializepb.Request {
	t.Helper()
	m := &materializepb.Request{}
	require.NoError(t, frame.JSON.Unmarshal([]byte(text), m))
	return m
}

func response(t *testing.T, text string) *materializepb.Response {
	t.Helper()
	m := &materializepb.Response{}
	require.NoError(t, frame.JSON.Unmarshal([]byte(text), m))
	return m
}

const (
	orders  = `{"name":"acme/orders","key":["/id"],"writeSchema":true,"projections":[{"ptr":"/id","field":"id"}]}`
	binding = `{"resourceConfig":{},"resourcePath":["orders"],"stateKey":"orders","fieldSelection":{"keys":["id"]},"collection":` + orders + `}`
	spec    = `{"name":"acme/sink","config":{},"bindings":[` + binding + `]}`
)

func TestRequests(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{}`:                     `the request is empty, or of a kind that this version does not know`,
		`{"spec":{},"flush":{}}`: `the request carries several messages at once: spec, flush`,
		`{"spec":{}}`:            ``,

		`{"validate":{"name":"a","config":{},"bindings":[{"resourceConfig":{},"collection":` + orders + `}]}}`: ``,
		`{"validate":{"config":{}}}`: `validate.name: missing`,
		`{"validate":{"name":"a"}}`:  `validate.config: missing`,
		`{"validate":{"name":"a","config":{},"bindings":[{"resourceConfig":{}}]}}`: `validate.bindings[0].collection: missing`,
		`{"validate":{"name":"a","config":{},"bindings":[{}]}}`:                    `validate.bindings[0].resourceConfig: missing`,
		`{"validate":{"name":"a","config":{},"linkedCollections":[{}]}}`:           `validate.linkedCollections[0].name: missing`,

		`{"apply":{"materialization":` + spec + `,"lastMaterialization":{}}}`: ``,
		`{"apply":{}}`: `apply.materialization: missing`,
		`{"open":{"materialization":` + spec + `,"state":{}}}`:             ``,
		`{"open":{"materialization":` + spec + `,"range":{"keyBegin":7}}}`: `open.range: keyBegin 00000007 is greater than keyEnd 00000000`,
		`{"open":{"materialization":{"name":"a"}}}`:                        `open.materialization.config: missing`,

		`{"load":{"key":[1]}}`:                         ``,
		`{"load":{"keyPacked":"FQc="}}`:                ``,
		`{"load":{"binding":1}}`:                       `load.key: missing, packed and as JSON`,
		`{"store":{"key":[1]}}`:                        ``,
		`{"store":{"doc":{}}}`:                         `store.key: missing, packed and as JSON`,
		`{"store":{"keyPacked":"FQc=","delete":true}}`: ``,

		`{"flush":{}}`:                         ``,
		`{"flush":{"statePatches":[{}]}}`:      ``,
		`{"flush":{"statePatches":{}}}`:        `flush.statePatches: is not an array`,
		`{"startCommit":{}}`:                   ``,
		`{"startCommit":{"statePatches":1}}`:   `startCommit.statePatches: is not an array`,
		`{"acknowledge":{}}`:                   ``,
		`{"acknowledge":{"statePatches":"x"}}`: `acknowledge.statePatches: is not an array`,
	} {
		err := request(t, text).Check()
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.EqualError(t, err, want)
	}
	m := &materializepb.Request{Flush: &materializepb.Request_Flush{StatePatchesJson: []byte("\n[{}\t,null\n]\n")}}
	require.NoError(t, m.Check())
	m.Flush.StatePatchesJson = []byte("[")
	require.EqualError(t, m.Check(), "flush.statePatches: invalid JSON at byte 1: expected a value, found the end of the text")
}

func TestResponses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{}`:                         `the response is empty, or of a kind that this version does not know`,
		`{"opened":{},"flushed":{}}`: `the response carries several messages at once: opened, flushed`,
		`{"spec":{"protocol":3032023,"configSchema":{},"resourceConfigSchema":{}}}`: ``,
		`{"spec":{"protocol":1}}`: `spec.protocol: is 1, but has to be 3032023`,

		`{"validated":{"bindings":[{"resourcePath":["a"],"projectionConstraints":[{"field":"id","constraint":{"type":"LOCATION_REQUIRED"}}]}]}}`: ``,
		`{"validated":{"bindings":[{"resourcePath":["a"],"constraints":{"id":{"type":"UNSATISFIABLE"}}}]}}`:                                      ``,
		`{"validated":{"bindings":[{}]}}`:                                                                                                `validated.bindings[0].resourcePath: missing`,
		`{"validated":{"bindings":[{"resourcePath":["a"],"constraints":{"id":{}}}]}}`:                                                    `validated.bindings[0].constraints."id".type: missing or unknown`,
		`{"validated":{"bindings":[{"resourcePath":["a"],"projectionConstraints":[{"constraint":{"type":4}}]}]}}`:                        `validated.bindings[0].projectionConstraints[0].field: missing`,
		`{"validated":{"bindings":[{"resourcePath":["a"],"projectionConstraints":[{"field":"id"}]}]}}`:                                   `validated.bindings[0].projectionConstraints[0].constraint.type: missing or unknown`,
		`{"validated":{"bindings":[{"resourcePath":["a"],"projectionConstraints":[{"field":"id","constraint":{"type":"FIELD_NEW"}}]}]}}`: `validated.bindings[0].projectionConstraints[0].constraint.type: missing or unknown`,
		`{"validated":{"bindings":[{"resourcePath":["a"],"projectionConstraints":[{"field":"id","constraint":{"type":8}}]}]}}`:           `validated.bindings[0].projectionConstraints[0].constraint.type: missing or unknown`,

		`{"applied":{}}`:                 ``,
		`{"applied":{"state":{}}}`:       `applied.state.updated: missing`,
		`{"opened":{}}`:                  ``,
		`{"loaded":{"doc":{}}}`:          ``,
		`{"loaded":{}}`:                  `loaded.doc: missing`,
		`{"flushed":{"state":{}}}`:       `flushed.state.updated: missing`,
		`{"startedCommit":{"state":{}}}`: `startedCommit.state.updated: missing`,
		`{"acknowledged":{"state":{}}}`:  `acknowledged.state.updated: missing`,
		`{"acknowledged":{}}`:            ``,
	} {
		err := response(t, text).Check()
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.EqualError(t, err, want)
	}
}

func TestInlineCollections(t *testing.T) {
	t.Parallel()
	indirect := `"name":"a","config":{},"linkedCollections":[` + orders + `],"bindings":[{"resourceConfig":{},"resourcePath":["a"],"stateKey":"a","fieldSelection":{"keys":["id"]}}]`
	for _, text := range []string{
		`{"validate":{` + indirect + `,"lastMaterialization":{` + indirect + `}}}`,
		`{"apply":{"materialization":{` + indirect + `},"lastMaterialization":{` + indirect + `}}}`,
		`{"open":{"materialization":{` + indirect + `}}}`,
	} {
		m := request(t, text)
		require.NoError(t, m.Check())
		require.NoError(t, m.InlineCollections())
		require.NoError(t, m.Check())
		for _, b := range m.GetValidate().GetBindings() {
			require.Equal(t, "acme/orders", b.GetCollection().GetName())
		}
		for _, x := range []*flowpb.MaterializationSpec{
			m.GetValidate().GetLastMaterialization(), m.GetApply().GetMaterialization(), m.GetApply().GetLastMaterialization(),
			m.GetOpen().GetMaterialization(),
		} {
			for _, b := range x.GetBindings() {
				require.Equal(t, "acme/orders", b.GetCollection().GetName())
			}
		}
	}
	mixed := `"name":"a","config":{},"linkedCollections":[` + orders + `],"bindings":[{"resourceConfig":{},"collection":` + orders + `}]`
	for text, want := range map[string]string{
		`{"validate":{` + mixed + `}}`:                         `validate.bindings[0]`,
		`{"validate":{"lastMaterialization":{` + mixed + `}}}`: `validate.lastMaterialization.bindings[0]`,
		`{"apply":{"materialization":{` + mixed + `}}}`:        `apply.materialization.bindings[0]`,
		`{"apply":{"lastMaterialization":{` + mixed + `}}}`:    `apply.lastMaterialization.bindings[0]`,
		`{"open":{"materialization":{` + mixed + `}}}`:         `open.materialization.bindings[0]`,
	} {
		require.EqualError(t, request(t, text).InlineCollections(), want+`.collection: is given inline although there are linked collections`)
	}
}

// Constraints of both forms, under both names.
func TestFieldConstraints(t *testing.T) {
	t.Parallel()
	m := response(t, `{"validated":{"bindings":[{"resourcePath":["a"],
		"constraints":{"id":{"type":"LOCATION_REQUIRED","reason":"key"},"old":{"type":"UNSATISFIABLE","reason":"r","foldedField":"f"}},
		"projection_constraints":[{"field":"id","constraint":{"type":"FIELD_OPTIONAL"}},{"field":"new","constraint":{"type":"INCOMPATIBLE"}}]}]}}`)
	require.NoError(t, m.Check())
	got := map[string][]string{}
	for field, list := range m.GetValidated().GetBindings()[0].FieldConstraints() {
		for _, c := range list {
			got[field] = append(got[field], c.GetType().String()+" "+c.GetReason()+" "+c.GetFoldedField())
		}
	}
	require.Equal(t, map[string][]string{
		"id": {"LOCATION_REQUIRED key ", "FIELD_OPTIONAL  "}, "old": {"INCOMPATIBLE r f"}, "new": {"INCOMPATIBLE  "},
	}, got)
}
