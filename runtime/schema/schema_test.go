package schema

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
)

func parse(t *testing.T, text string) *Shape {
	t.Helper()
	s, err := Parse([]byte(text))
	require.NoError(t, err)
	return s
}

const discovered = `{"$defs":{"t":{"type":"object","required":["id"],"properties":{
  "id":{"type":"integer"},"name":{"type":["string","null"],"maxLength":20},"at":{"type":"string","format":"date-time"},"price":{"type":["number","null"]}}}},
 "allOf":[{"properties":{"_meta":{"type":"object","required":["op"],"properties":{"op":{"enum":["c","u","d"]},
   "source":{"type":"object","properties":{"loc":{"type":"array","items":{"type":"integer"},"minItems":3}}},"before":{"$ref":"#/$defs/t"}}}},"required":["_meta"]},
  {"$ref":"#/$defs/t"}],"reduce":{"strategy":"merge"}}`

func TestProjections(t *testing.T) {
	t.Parallel()
	list, err := parse(t, discovered).Projections([]string{"/id", "/_meta/source/loc/0"}, map[string]string{"title": "/name"})
	require.NoError(t, err)
	by := map[string]*flowpb.Projection{}
	var names []string
	for _, p := range list {
		by[p.Field] = p
		names = append(names, p.Field)
	}
	require.Equal(t, []string{
		"_meta", "_meta/before", "_meta/before/at", "_meta/before/id", "_meta/before/name", "_meta/before/price", "_meta/op", "_meta/source",
		"_meta/source/loc", "_meta/source/loc/0", "at", "flow_document", "id", "name", "price", "title",
	}, names)
	require.True(t, by["id"].IsPrimaryKey)
	require.Equal(t, []string{"integer"}, by["id"].Inference.Types)
	require.Equal(t, flowpb.Inference_MUST, by["id"].Inference.Exists)
	require.Equal(t, flowpb.Inference_MAY, by["_meta/source/loc/0"].Inference.Exists)
	require.True(t, by["_meta/source/loc/0"].IsPrimaryKey)
	require.Equal(t, []string{"string"}, by["_meta/op"].Inference.Types)
	require.Equal(t, flowpb.Inference_MUST, by["_meta/op"].Inference.Exists)
	require.Equal(t, "date-time", by["at"].Inference.String_.Format)
	require.Equal(t, uint32(20), by["title"].Inference.String_.MaxLength)
	require.True(t, by["title"].Explicit)
	require.Equal(t, []string{"null", "number"}, by["price"].Inference.Types)
	require.Equal(t, flowpb.Inference_REDUCE_MERGE, by["flow_document"].Inference.Reduce)
}

func TestUnionOfSourcedSchemas(t *testing.T) {
	t.Parallel()
	base := parse(t, discovered)
	next := parse(t, `{"type":"object","additionalProperties":false,"required":["id","name","price","note"],"properties":{"id":{"type":"integer"},"name":{"type":"string","maxLength":50},"price":{"type":"string","format":"number"},"note":{"type":"string"}}}`)
	require.NoError(t, CheckSourced(next))
	u := Union(base, next)
	at := func(ptr string) (*Shape, flowpb.Inference_Exists) { return u.At(ptr) }
	s, exists := at("/price")
	require.Equal(t, []string{"null", "number", "string"}, s.Types.Names())
	require.Equal(t, "number", s.Format)
	require.Equal(t, flowpb.Inference_MAY, exists)
	s, exists = at("/note")
	require.Equal(t, []string{"string"}, s.Types.Names())
	require.Equal(t, flowpb.Inference_MAY, exists)
	_, exists = at("/id")
	require.Equal(t, flowpb.Inference_MUST, exists)
	s, _ = at("/name")
	require.Equal(t, uint32(50), s.MaxLength)
	s, exists = at("/at")
	require.Equal(t, "date-time", s.Format)
	require.Equal(t, flowpb.Inference_MAY, exists)
	require.JSONEq(t, string(u.JSON()), string(Union(u, next).JSON()), "announcing the same shape again changes nothing")
}

// What is known of a number's digits holds for all documents, of before a change of its type and after.
func TestUnionOfDecimals(t *testing.T) {
	t.Parallel()
	const number, amount, finer = `{"type":"string","format":"number"}`, `{"type":["null","string"],"x-decimal":{"precision":10,"scale":2}}`,
		`{"type":"string","x-decimal":{"precision":9,"scale":4}}`
	for _, c := range [][3]string{
		{amount, amount, `{"precision":10,"scale":2}`},
		{amount, finer, `{"precision":12,"scale":4}`},
		{amount, number, ``},
		{number, amount, ``},
		{amount, `{"type":"null"}`, `{"precision":10,"scale":2}`},
		{`{"type":"null"}`, amount, `{"precision":10,"scale":2}`},
		{`{"allOf":[` + number + `,` + amount + `]}`, amount, `{"precision":10,"scale":2}`},
		{`{"type":"string","x-decimal":{"precision":2,"scale":4}}`, amount, ``},
		{`{"type":"string","x-decimal":"10,2"}`, amount, ``},
	} {
		var u struct {
			Decimal json.RawMessage `json:"x-decimal"`
		}
		require.NoError(t, json.Unmarshal(Union(parse(t, c[0]), parse(t, c[1])).JSON(), &u))
		require.Equal(t, c[2], string(u.Decimal), "%s and %s", c[0], c[1])
	}
}

func TestJSONKeepsTheShape(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		discovered, `true`, `false`, `{"type":["integer","null"],"minimum":1,"maximum":9}`,
		`{"type":"array","prefixItems":[{"type":"string"}],"items":{"type":"integer"},"minItems":1,"maxItems":4}`,
		`{"anyOf":[{"type":"string"},{"type":"integer"}],"title":"T","default":3}`, `{"type":"string","x-decimal":{"precision":9,"scale":0}}`,
	} {
		s := parse(t, text)
		require.Equal(t, string(s.JSON()), string(parse(t, string(s.JSON())).JSON()))
	}
}

func TestWrongSchemasAreNamed(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"properties":{"a":{"$ref":"#/$defs/x"}}}`: `property "a": the reference "#/$defs/x" leads nowhere`,
		`{"$ref":"x.json"}`:                         `leads out of the schema`,
		`[]`:                                        `expected an object, true or false`,
		`{`:                                         `reading a schema`,
	} {
		_, err := Parse([]byte(text))
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, CheckSourced(parse(t, `{}`)), "without a type")
	require.ErrorContains(t, CheckSourced(parse(t, `{"type":"object"}`)), "additional properties")
	_, err := parse(t, `{"type":"object","additionalProperties":false}`).Projections([]string{"/id"}, nil)
	require.EqualError(t, err, `the key location "/id" cannot exist: the schema does not allow it`)
	_, err = Parse([]byte(`{"$defs":{"n":{"properties":{"n":{"$ref":"#/$defs/n"}}}},"$ref":"#/$defs/n"}`))
	require.NoError(t, err, "a recursive schema ends")
}
