package sinktest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

// Column is a field of a test's collection.
type Column struct {
	// Name is the field's name; Pointer its location, "/"+Name if it is empty.
	Name, Pointer string
	Types         []string
	Format        string
	Encoding      string
	MediaType     string   // of a string's text
	Items         []string // types of an array's elements; none means any
	// May says that documents need not have the field.
	May     bool
	Key     bool
	Default string
	Max     float64 // of a number, if not 0
	Config  string  // the user's configuration of the field
}

func (c Column) pointer() string {
	if c.Pointer == "" {
		return "/" + strings.ReplaceAll(strings.ReplaceAll(c.Name, "~", "~0"), "/", "~1")
	}
	return c.Pointer
}

// Collection is a collection in a test.
type Collection struct {
	Name    string
	Columns []Column
}

// Spec is the protocol's description of the collection. The whole document is its field flow_document.
func (c Collection) Spec() *flowpb.CollectionSpec {
	spec := &flowpb.CollectionSpec{
		Name:            c.Name,
		UuidPtr:         "/_meta/uuid",
		WriteSchemaJson: []byte("true"),
		PartitionTemplate: &flowpb.JournalSpec{
			Name: c.Name + "/0000000000000000", Replication: 1,
			Fragment: &flowpb.JournalSpec_Fragment{
				Length: 1 << 24, CompressionCodec: flowpb.CompressionCodec_GZIP, RefreshInterval: durationpb.New(5 * time.Minute),
			},
		},
		Projections: []*flowpb.Projection{{
			Field: "flow_document", Inference: &flowpb.Inference{Types: []string{"object"}, Exists: flowpb.Inference_MUST},
		}},
	}
	for _, col := range c.Columns {
		if col.Key {
			spec.Key = append(spec.Key, col.pointer())
		}
		inf := &flowpb.Inference{
			Types: slices.Sorted(slices.Values(col.Types)), Exists: flowpb.Inference_MUST,
			DefaultJson:      []byte(col.Default),
			String_:          &flowpb.Inference_String{Format: col.Format, ContentEncoding: col.Encoding},
			ContentMediaType: col.MediaType, Array: &flowpb.Inference_Array{ItemTypes: col.Items},
		}
		if col.May {
			inf.Exists = flowpb.Inference_MAY
		}
		if col.Max != 0 {
			inf.Numeric = &flowpb.Inference_Numeric{HasMaximum: true, Maximum: col.Max}
		}
		spec.Projections = append(spec.Projections, &flowpb.Projection{
			Ptr: col.pointer(), Field: col.Name, IsPrimaryKey: col.Key, Inference: inf,
		})
	}
	slices.SortFunc(spec.Projections, func(a, b *flowpb.Projection) int { return strings.Compare(a.Field, b.Field) })
	return spec
}

func (c Collection) keyFields() []string {
	var out []string
	for _, col := range c.Columns {
		if col.Key {
			out = append(out, col.Name)
		}
	}
	return out
}

func (c Collection) fieldConfig() map[string][]byte {
	out := map[string][]byte{}
	for _, col := range c.Columns {
		if col.Config != "" {
			out[col.Name] = []byte(col.Config)
		}
	}
	return out
}

// Binding is a collection with the resource that it goes to.
type Binding struct {
	Collection Collection
	Resource   json.RawMessage
	Backfill   uint32
	// Document asks for the whole document as well.
	Document bool
}

// Task is a materialization in a test.
type Task struct {
	Name     string
	Config   json.RawMessage
	Bindings []Binding
}

// ValidateRequest asks for the task's constraints.
func (task Task) ValidateRequest(last *flowpb.MaterializationSpec) *materializepb.Request {
	v := &materializepb.Request_Validate{
		Name: task.Name, ConnectorType: flowpb.MaterializationSpec_IMAGE, ConfigJson: task.Config, LastMaterialization: last,
	}
	for _, b := range task.Bindings {
		v.Bindings = append(v.Bindings, &materializepb.Request_Validate_Binding{
			ResourceConfigJson: b.Resource, Collection: b.Collection.Spec(), Backfill: b.Backfill,
			GroupBy: b.Collection.keyFields(), FieldConfigJsonMap: b.Collection.fieldConfig(),
		})
	}
	return &materializepb.Request{Validate: v}
}

// Build makes the task's specification of what the connector answered to ValidateRequest: every field that is required,
// recommended or, at the top of the document, allowed is selected.
func (task Task) Build(v *materializepb.Response_Validated) (*flowpb.MaterializationSpec, error) {
	spec := &flowpb.MaterializationSpec{Name: task.Name, ConnectorType: flowpb.MaterializationSpec_IMAGE, ConfigJson: task.Config}
	if len(v.GetBindings()) != len(task.Bindings) {
		return nil, fmt.Errorf("%d bindings were validated, not %d", len(v.GetBindings()), len(task.Bindings))
	}
	for i, b := range task.Bindings {
		answer := v.GetBindings()[i]
		sel, err := b.selection(answer)
		if err != nil {
			return nil, err
		}
		state := strings.Join(answer.GetResourcePath(), "/") + fmt.Sprintf(".v%d", b.Backfill)
		spec.Bindings = append(spec.Bindings, &flowpb.MaterializationSpec_Binding{
			ResourceConfigJson: b.Resource, ResourcePath: answer.GetResourcePath(), Collection: b.Collection.Spec(),
			FieldSelection: sel, DeltaUpdates: answer.GetDeltaUpdates(), Backfill: b.Backfill,
			PartitionSelector: &flowpb.LabelSelector{Include: &flowpb.LabelSet{}, Exclude: &flowpb.LabelSet{}},
			StateKey:          state, JournalReadSuffix: "materialize/" + task.Name + "/" + state,
		})
	}
	return spec, nil
}

func (b Binding) selection(answer *materializepb.Response_Validated_Binding) (*flowpb.FieldSelection, error) {
	sel := &flowpb.FieldSelection{Keys: b.Collection.keyFields(), FieldConfigJsonMap: b.Collection.fieldConfig()}
	constraints := answer.FieldConstraints()
	for _, p := range b.Collection.Spec().GetProjections() {
		name := p.GetField()
		c := strictest(constraints[name])
		switch kind := c.GetType(); {
		case kind == materializepb.Response_Validated_Constraint_INCOMPATIBLE,
			kind == materializepb.Response_Validated_Constraint_UNSATISFIABLE:
			return nil, fmt.Errorf("field %q of %s: %s", name, b.Collection.Name, c.GetReason())
		case slices.Contains(sel.GetKeys(), name):
			if kind == materializepb.Response_Validated_Constraint_FIELD_FORBIDDEN || c == nil {
				return nil, fmt.Errorf("key %q of %s: %s", name, b.Collection.Name, c.GetReason())
			}
		case p.GetPtr() == "":
			if b.Document || kind == materializepb.Response_Validated_Constraint_LOCATION_REQUIRED ||
				kind == materializepb.Response_Validated_Constraint_FIELD_REQUIRED {
				sel.Document = name
			}
		case c == nil || kind == materializepb.Response_Validated_Constraint_FIELD_FORBIDDEN:
		default:
			sel.Values = append(sel.Values, name)
		}
	}
	return sel, nil
}

// strictest is the constraint that decides where a field has several; nil if it has none.
func strictest(cs []*materializepb.Response_Validated_Constraint) *materializepb.Response_Validated_Constraint {
	var out *materializepb.Response_Validated_Constraint
	for _, c := range cs {
		if out == nil || c.GetType() > out.GetType() {
			out = c
		}
	}
	return out
}
