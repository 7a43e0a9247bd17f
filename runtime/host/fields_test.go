package host

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/schema"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func orders(t *testing.T) *flowpb.CollectionSpec {
	t.Helper()
	const text = `{"type":"object","required":["id"],"properties":{"id":{"type":"integer"},"name":{"type":"string"},"Name":{"type":"string"},"address":{"type":"object","properties":{"city":{"type":"string"}}},
	 "_meta":{"type":"object","properties":{"op":{"type":"string"},"source":{"type":"object","properties":{"ts":{"type":"integer"}}}}}}}`
	shape, err := schema.Parse([]byte(text))
	require.NoError(t, err)
	spec, err := specs.Collection(&pipeline.Collection{Name: "acme/orders", Key: []string{"/id"}, Schema: json.RawMessage(text), Projections: map[string]string{"order_id": "/id"}}, shape)
	require.NoError(t, err)
	return spec
}

type answer map[string]materializepb.Response_Validated_Constraint_Type

const (
	opt = materializepb.Response_Validated_Constraint_FIELD_OPTIONAL
	bad = materializepb.Response_Validated_Constraint_INCOMPATIBLE
	rec = materializepb.Response_Validated_Constraint_LOCATION_RECOMMENDED
)

// everything answers optional for every field, and what is given for some.
func everything(c *flowpb.CollectionSpec, a answer) *materializepb.Response_Validated_Binding {
	b := &materializepb.Response_Validated_Binding{ResourcePath: []string{"t"}}
	add := func(field string, kind materializepb.Response_Validated_Constraint_Type) {
		b.ProjectionConstraints = append(b.ProjectionConstraints, &materializepb.Response_Validated_ProjectionConstraint{Field: field, Constraint: &constraint{Type: kind, Reason: "because of " + field}})
	}
	for _, p := range c.Projections {
		if _, given := a[p.Field]; !given {
			add(p.Field, opt)
		}
	}
	for field, kind := range a {
		if kind != 0 {
			add(field, kind)
		}
	}
	return b
}

func TestSelectFields(t *testing.T) {
	t.Parallel()
	one := pipeline.Fields{Depth: 1}
	for name, c := range map[string]struct {
		want     pipeline.Fields
		answer   answer
		last     []string
		fold     bool
		keys     []string
		values   []string
		document string
		err      string
	}{
		"the top level and the operation": {want: one, keys: []string{"id"}, values: []string{"Name", "_meta/op", "address", "name"}},
		"deeper":                          {want: pipeline.Fields{Depth: 3}, keys: []string{"id"}, values: []string{"Name", "_meta/op", "_meta/source", "_meta/source/ts", "address", "address/city", "name"}},
		"none but what is required":       {want: pipeline.Fields{}, answer: answer{"flow_document": located, "name": required}, keys: []string{"id"}, values: []string{"name"}, document: "flow_document"},
		"recommended like optional":       {want: one, answer: answer{"name": rec, "_meta/source/ts": rec}, keys: []string{"id"}, values: []string{"Name", "_meta/op", "address", "name"}},
		"asked for":                       {want: pipeline.Fields{Require: map[string]json.RawMessage{"flow_document": json.RawMessage("{}"), "_meta/source/ts": nil}}, keys: []string{"id"}, values: []string{"_meta/source/ts"}, document: "flow_document"},
		"excluded":                        {want: pipeline.Fields{Depth: 1, Exclude: []string{"address", "Name"}}, keys: []string{"id"}, values: []string{"_meta/op", "name"}},
		"the key by another name":         {want: pipeline.Fields{Require: map[string]json.RawMessage{"order_id": nil}}, keys: []string{"order_id"}},
		"the key by the name that works":  {want: pipeline.Fields{}, answer: answer{"id": forbidden}, keys: []string{"order_id"}},
		"grouped by something else":       {want: pipeline.Fields{GroupBy: []string{"name"}}, keys: []string{"name"}},
		"folded names":                    {want: one, fold: true, keys: []string{"id"}, values: []string{"Name", "_meta/op", "address"}},
		"unknown to the connector":        {want: one, answer: answer{"address": 0}, keys: []string{"id"}, values: []string{"Name", "_meta/op", "name"}},

		"never selected and bad":  {want: one, answer: answer{"name": bad}, err: `the field "name" does not fit the destination: because of name`},
		"incompatible now":        {want: one, answer: answer{"name": bad}, last: []string{"name"}, err: `the field "name" no longer fits the destination: because of name (raise the binding's backfill counter to build it anew)`},
		"a key that is refused":   {want: one, answer: answer{"id": forbidden, "order_id": forbidden}, err: "the destination accepts no field of the key /id"},
		"required and refused":    {want: pipeline.Fields{Require: map[string]json.RawMessage{"name": nil}}, answer: answer{"name": forbidden}, err: `the field "name" is required by the pipeline, but the destination refuses it: because of name`},
		"required and absent":     {want: one, answer: answer{"vat": required}, err: `the field "vat" is required by the destination (because of vat), but the collection has no such field`},
		"required and excluded":   {want: pipeline.Fields{Exclude: []string{"name"}}, answer: answer{"name": required}, err: `the field "name" is excluded, but the destination requires it`},
		"location and excluded":   {want: pipeline.Fields{Exclude: []string{"flow_document"}}, answer: answer{"flow_document": located}, err: `is excluded, but the destination requires it`},
		"asked for and unknown":   {want: pipeline.Fields{Require: map[string]json.RawMessage{"nam": nil}}, err: `the field "nam" is required by the pipeline, but the collection has no such field`},
		"grouped by nothing":      {want: pipeline.Fields{GroupBy: []string{"x"}}, err: `groupBy names the field "x"`},
		"required, but ambiguous": {want: pipeline.Fields{Require: map[string]json.RawMessage{"name": nil, "Name": nil}}, fold: true, err: `the destination cannot tell it from the field "Name"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := orders(t)
			validated := everything(spec, c.answer)
			validated.CaseInsensitiveFields = c.fold
			got, err := SelectFields(spec, &c.want, validated, &flowpb.FieldSelection{Values: c.last})
			if c.err != "" {
				require.Error(t, err)
				require.Contains(t, usererr.Message(err), c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.keys, got.Keys)
			require.Equal(t, c.values, got.Values)
			require.Equal(t, c.document, got.Document)
		})
	}
}

// TestBothFormsOfConstraints: older connectors answer with a map, and one constraint may come several times.
func TestBothFormsOfConstraints(t *testing.T) {
	t.Parallel()
	spec := orders(t)
	validated := &materializepb.Response_Validated_Binding{Constraints: map[string]*constraint{"id": {Type: located}, "name": {Type: opt}, "Name": {Type: opt}}}
	validated.ProjectionConstraints = []*materializepb.Response_Validated_ProjectionConstraint{
		{Field: "Name", Constraint: &constraint{Type: forbidden, Reason: "no"}},
		{Field: "name", Constraint: &constraint{Type: required, Reason: "yes"}},
	}
	got, err := SelectFields(spec, &pipeline.Fields{Depth: 1}, validated, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"name"}, got.Values)

	validated.ProjectionConstraints = append(validated.ProjectionConstraints, &materializepb.Response_Validated_ProjectionConstraint{Field: "name", Constraint: &constraint{Type: forbidden, Reason: "no"}})
	_, err = SelectFields(spec, &pipeline.Fields{Depth: 1}, validated, nil)
	require.Contains(t, usererr.Message(err), `both requires and refuses the field "name": yes; no`)
	validated.ProjectionConstraints[2].Constraint = nil
	_, err = SelectFields(spec, &pipeline.Fields{Depth: 1}, validated, nil)
	require.Contains(t, usererr.Message(err), `invalid constraint of the field "name"`)
}
