// Package schema infers what a JSON schema says about each location of a document: its types, its format, whether it
// exists. From that come a collection's projections (the fields that a materialization can select), and their
// evolution as the source announces new shapes.
package schema

import (
	"encoding/json"
	"maps"
	"slices"

	sdkschema "github.com/sluicedata/sluice/sdk/schema"
)

// Types is a set of JSON types.
type Types uint8

// The JSON types. Number includes integers.
const (
	Null Types = 1 << iota
	Boolean
	Integer
	Number
	String
	Array
	Object

	anyType = Null | Boolean | Number | String | Array | Object

	// Any is all of them: nothing is known.
	Any = anyType
)

var typeNames = []struct { //nolint:gochecknoglobals // a lookup table, in the order of the names
	name string
	bit  Types
}{
	{"array", Array}, {"boolean", Boolean}, {"integer", Integer}, {"null", Null}, {"number", Number}, {"object", Object}, {"string", String},
}

// Names lists the types in alphabetical order.
func (t Types) Names() []string {
	if t&Number != 0 {
		t &^= Integer
	}
	var names []string
	for _, n := range typeNames {
		if t&n.bit != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

// and is the intersection, where an integer is a number.
func (t Types) and(o Types) Types {
	both := t & o
	if t&Number != 0 && o&Integer != 0 || t&Integer != 0 && o&Number != 0 {
		both |= Integer
	}
	if both&Number != 0 {
		both &^= Integer
	}
	return both
}

// A Shape is what is known of the values at one location. Shapes are immutable once made.
type Shape struct {
	Types              Types
	Title, Description string
	Format             string // of strings
	ContentEncoding    string
	ContentType        string
	MaxLength          uint32            // 0 is unlimited
	Decimal            sdkschema.Decimal // of strings that are numbers; zero is no bound
	Min, Max           *float64
	Secret             bool
	Default            json.RawMessage
	Enum               []json.RawMessage
	Reduce             string // strategy of the annotation
	Props              map[string]Property
	Closed             bool     // additionalProperties: false
	Infer              bool     // x-infer-schema: what the schema does not say is learned from documents
	Items              *Shape   // nil is anything
	Prefix             []*Shape // prefixItems
	MinItems           uint32
	MaxItems           *uint32
}

// Property is a member of an object.
type Property struct {
	Shape    *Shape
	Required bool
}

func anything() *Shape { return &Shape{Types: anyType} }

// Union is the shape of values that have either shape. A property that one side does not mention keeps what the
// other says, and need not exist: a shape without a property stands for documents which do not have it.
func Union(a, b *Shape) *Shape {
	u := *a
	u.Types = a.Types | b.Types
	if u.Types&Number != 0 {
		u.Types &^= Integer
	}
	pick := func(x, y string, kind Types) string {
		switch {
		case x == y || b.Types&kind == 0:
			return x
		case a.Types&kind == 0:
			return y
		}
		return ""
	}
	u.Format = pick(a.Format, b.Format, String)
	u.ContentEncoding = pick(a.ContentEncoding, b.ContentEncoding, String)
	u.ContentType = pick(a.ContentType, b.ContentType, String)
	u.Title, u.Description = orElse(a.Title, b.Title), orElse(a.Description, b.Description)
	u.Reduce = orElse(a.Reduce, b.Reduce)
	u.Secret = a.Secret || b.Secret
	u.unionBounds(a, b)
	u.unionObject(a, b)
	u.unionArray(a, b)
	if !sameTexts(a.Enum, b.Enum) {
		u.Enum = nil
	}
	return &u
}

func (s *Shape) unionBounds(a, b *Shape) {
	numeric := Number | Integer
	switch {
	case b.Types&numeric == 0:
	case a.Types&numeric == 0:
		s.Min, s.Max = b.Min, b.Max
	default:
		s.Min, s.Max = wider(a.Min, b.Min, -1), wider(a.Max, b.Max, 1)
	}
	switch {
	case b.Types&String == 0:
	case a.Types&String == 0:
		s.MaxLength, s.Decimal = b.MaxLength, b.Decimal
	case a.MaxLength == 0 || b.MaxLength == 0:
		s.MaxLength = 0
	default:
		s.MaxLength = max(a.MaxLength, b.MaxLength)
	}
	if a.Types&b.Types&String != 0 {
		s.Decimal = a.Decimal.Union(b.Decimal)
	}
}

func (s *Shape) unionObject(a, b *Shape) {
	switch {
	case b.Types&Object == 0:
		return
	case a.Types&Object == 0:
		s.Props, s.Closed = b.Props, b.Closed
		return
	}
	s.Closed = a.Closed && b.Closed
	if len(a.Props)+len(b.Props) == 0 {
		return
	}
	s.Props = make(map[string]Property, len(a.Props))
	for name, p := range a.Props {
		if q, ok := b.Props[name]; ok {
			p = Property{Shape: Union(p.Shape, q.Shape), Required: p.Required && q.Required}
		} else {
			p.Required = false
		}
		s.Props[name] = p
	}
	for name, q := range b.Props {
		if _, ok := a.Props[name]; !ok {
			s.Props[name] = Property{Shape: q.Shape}
		}
	}
}

func (s *Shape) unionArray(a, b *Shape) {
	switch {
	case b.Types&Array == 0:
		return
	case a.Types&Array == 0:
		s.Items, s.Prefix, s.MinItems, s.MaxItems = b.Items, b.Prefix, b.MinItems, b.MaxItems
		return
	}
	s.Items, s.Prefix = nil, nil
	if a.Items != nil && b.Items != nil {
		s.Items = Union(a.Items, b.Items)
	}
	if len(a.Prefix) == len(b.Prefix) {
		for i := range a.Prefix {
			s.Prefix = append(s.Prefix, Union(a.Prefix[i], b.Prefix[i]))
		}
	}
	s.MinItems = min(a.MinItems, b.MinItems)
	if s.MaxItems = b.MaxItems; a.MaxItems == nil || b.MaxItems == nil {
		s.MaxItems = nil
	} else if *a.MaxItems > *b.MaxItems {
		s.MaxItems = a.MaxItems
	}
}

// intersect is the shape of values that have both shapes.
func intersect(a, b *Shape) *Shape {
	i := *a
	i.Types = a.Types.and(b.Types)
	i.Title, i.Description = orElse(a.Title, b.Title), orElse(a.Description, b.Description)
	i.Format, i.Reduce = orElse(a.Format, b.Format), orElse(a.Reduce, b.Reduce)
	i.ContentEncoding, i.ContentType = orElse(a.ContentEncoding, b.ContentEncoding), orElse(a.ContentType, b.ContentType)
	i.MaxLength = max(a.MaxLength, b.MaxLength)
	if a.MaxLength != 0 && b.MaxLength != 0 {
		i.MaxLength = min(a.MaxLength, b.MaxLength)
	}
	if i.Decimal = a.Decimal; !a.Decimal.Bounded() {
		i.Decimal = b.Decimal
	}
	i.Min, i.Max = either(a.Min, b.Min), either(a.Max, b.Max)
	i.Secret, i.Closed, i.Infer = a.Secret || b.Secret, a.Closed || b.Closed, a.Infer || b.Infer
	if i.Default == nil {
		i.Default = b.Default
	}
	if i.Enum == nil {
		i.Enum = b.Enum
	}
	if i.Items == nil {
		i.Items = b.Items
	}
	if i.Prefix == nil {
		i.Prefix = b.Prefix
	}
	i.MinItems = max(a.MinItems, b.MinItems)
	if i.MaxItems == nil {
		i.MaxItems = b.MaxItems
	}
	i.Props = maps.Clone(a.Props)
	for name, q := range b.Props {
		if i.Props == nil {
			i.Props = map[string]Property{}
		}
		if p, ok := i.Props[name]; ok {
			q = Property{Shape: intersect(p.Shape, q.Shape), Required: p.Required || q.Required}
		}
		i.Props[name] = q
	}
	return &i
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func either(a, b *float64) *float64 {
	if a != nil {
		return a
	}
	return b
}

func wider(a, b *float64, sign float64) *float64 {
	if a == nil || b == nil {
		return nil
	}
	if *a*sign > *b*sign {
		return a
	}
	return b
}

func sameTexts(a, b []json.RawMessage) bool {
	return slices.EqualFunc(a, b, func(x, y json.RawMessage) bool { return string(x) == string(y) })
}
