package materialize

import (
	"encoding/json"
	"slices"
	"strings"

	flowpb "github.com/sluicedata/sluice/protocol/flow"

	"github.com/sluicedata/sluice/sdk/schema"
)

// Binding is a collection that goes to one resource of the destination.
type Binding[R any] struct {
	// Index is the binding's place in the session, used by Row.Binding. It is -1 for removed bindings.
	Index      int
	Resource   R
	Target     Target
	Collection string
	// Backfill counts how often the user asked for the binding to start anew.
	Backfill uint32
	// StateKey names the binding in states; it changes with Backfill.
	StateKey string
	// Keys and Values are the selected fields, in the order in which rows carry them.
	Keys, Values []Field
	// Document is the field that holds the whole document, nil if it is not selected.
	Document *Field
	// Leaving says that the binding is about to be replaced or removed, in a session that only finishes staged work before
	// that: staged work of it that cannot be found any more is not worth an error.
	Leaving bool
	// Projections are all fields of the collection, selected or not, in ascending order of name.
	Projections []Field
}

// Fields returns the selected fields in the order keys, values, document. The result is a new slice.
func (b *Binding[R]) Fields() []Field {
	out := slices.Concat(b.Keys, b.Values)
	if b.Document != nil {
		out = append(out, *b.Document)
	}
	return out
}

// Proposal is a binding under validation: nothing is selected yet, and every field has a constraint that Check may
// tighten.
type Proposal[R any] struct {
	Resource   R
	Target     Target
	Collection string
	Backfill   uint32
	// Fields are all fields of the collection, Constraints the answer to each, in the same order.
	Fields      []Field
	Constraints []Constraint
	// Last is the binding of the same path as it was published last, nil if there was none.
	Last *Binding[R]
}

// Field is a location of a collection's documents under the name that it has in the destination.
type Field struct {
	Name string
	// Pointer is the JSON pointer of the location; empty for the whole document.
	Pointer string
	// Key says that the field is part of the binding's key.
	Key bool
	// Types are the JSON types that the location can have, sorted, without "null". Empty means that only null, or
	// nothing, was ever seen there.
	Types []string
	// Nullable says that the location can hold an explicit null.
	Nullable bool
	// Required says that the location exists in every document.
	Required bool
	// Format, ContentEncoding, ContentMediaType and MaxLength (0 = none) describe strings.
	Format, ContentEncoding, ContentMediaType string
	MaxLength                                 uint32
	// Decimal bounds the digits of numbers that are strings, if the schema says so (schema.DecimalKeyword). It is a promise of whoever
	// wrote the schema that runtimes do not check, and says nothing of "NaN" and infinities.
	Decimal schema.Decimal
	// Items are the JSON types that elements of an array can have, sorted, "null" included. Empty means any.
	Items []string
	// Minimum and Maximum bound numbers; nil = unbounded.
	Minimum, Maximum *float64
	// Default is the value that stands in for an absent one; empty if there is none.
	Default json.RawMessage
	// Title and Description come from the collection's schema.
	Title, Description string
	// Config is what the user configured for this field of this binding; empty if nothing.
	Config json.RawMessage
}

// Is reports whether the field's types are exactly these, in any order.
func (f Field) Is(types ...string) bool {
	if len(types) != len(f.Types) {
		return false
	}
	for _, t := range types {
		if !slices.Contains(f.Types, t) {
			return false
		}
	}
	return true
}

// sameShape reports whether two versions of a field mean the same to a destination.
func (f Field) sameShape(g Field) bool {
	return f.Pointer == g.Pointer && f.Key == g.Key && slices.Equal(f.Types, g.Types) &&
		f.Nullable == g.Nullable && f.Required == g.Required && f.Format == g.Format &&
		f.ContentEncoding == g.ContentEncoding && f.ContentMediaType == g.ContentMediaType && f.MaxLength == g.MaxLength && f.Decimal == g.Decimal &&
		slices.Equal(f.Items, g.Items) &&
		equalBound(f.Minimum, g.Minimum) && equalBound(f.Maximum, g.Maximum) && string(f.Config) == string(g.Config)
}

func equalBound(a, b *float64) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func fieldOf(p *flowpb.Projection, config json.RawMessage) Field {
	inf := p.GetInference()
	f := Field{
		Name:            p.GetField(),
		Pointer:         p.GetPtr(),
		Key:             p.GetIsPrimaryKey(),
		Required:        inf.GetExists() == flowpb.Inference_MUST,
		Format:          inf.GetString_().GetFormat(),
		ContentEncoding: inf.GetString_().GetContentEncoding(),
		MaxLength:       inf.GetString_().GetMaxLength(),
		Items:           slices.Sorted(slices.Values(inf.GetArray().GetItemTypes())),
		Default:         slices.Clone(inf.GetDefaultJson()),
		Title:           inf.GetTitle(),
		Description:     inf.GetDescription(),
		Config:          config,
	}
	// Where the media type stands depends on the runtime's age.
	if f.ContentMediaType = inf.GetContentMediaType(); f.ContentMediaType == "" {
		f.ContentMediaType = inf.GetString_().GetContentType()
	}
	for _, t := range inf.GetTypes() {
		switch t {
		case "null":
			f.Nullable = true
		default:
			f.Types = append(f.Types, t)
		}
	}
	// A number includes every integer.
	if slices.Contains(f.Types, "number") {
		f.Types = slices.DeleteFunc(f.Types, func(t string) bool { return t == "integer" })
	}
	slices.Sort(f.Types)
	f.Types = slices.Compact(f.Types)
	if n := inf.GetNumeric(); n.GetHasMinimum() {
		v := n.GetMinimum()
		f.Minimum = &v
	}
	if n := inf.GetNumeric(); n.GetHasMaximum() {
		v := n.GetMaximum()
		f.Maximum = &v
	}
	return f
}

// fieldsOf converts a collection's projections. groupBy names the key fields of the binding; without any, the
// collection's own key decides.
func fieldsOf(c *flowpb.CollectionSpec, groupBy []string, config map[string][]byte) []Field {
	out := make([]Field, 0, len(c.GetProjections()))
	notes := annotationsOf(c)
	for _, p := range c.GetProjections() {
		f := fieldOf(p, json.RawMessage(config[p.GetField()]))
		if slices.Contains(f.Types, "string") {
			f.Decimal = notes.decimal(f.Pointer)
		}
		if len(groupBy) > 0 {
			f.Key = slices.Contains(groupBy, f.Name)
		}
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return out
}
