package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	sdkschema "github.com/sluicedata/sluice/sdk/schema"
)

// maxDepth is how deep documents are described. Below, and where a schema refers to itself, anything may stand.
const maxDepth = 12

// Parse reads a JSON schema. Keywords that only narrow values down further are ignored; what it cannot know it
// takes for anything. It fails on text that is not a schema and on references that lead nowhere.
func Parse(schema []byte) (*Shape, error) {
	dec := json.NewDecoder(bytes.NewReader(schema))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("reading a schema: %w", err)
	}
	p := &parser{doc: doc}
	return p.shape(doc, 0)
}

type parser struct{ doc any }

func (p *parser) shape(schema any, depth int) (*Shape, error) {
	switch v := schema.(type) {
	case bool:
		if !v {
			return &Shape{}, nil
		}
		return anything(), nil
	case map[string]any:
		if depth > maxDepth {
			return anything(), nil
		}
		return p.object(v, depth)
	}
	return nil, fmt.Errorf("reading a schema: expected an object, true or false, but got %v", schema)
}

func (p *parser) object(v map[string]any, depth int) (*Shape, error) {
	s := anything()
	if t, ok := v["type"]; ok {
		s.Types = typesOf(t)
	}
	s.scalars(v)
	if err := p.members(s, v, depth); err != nil {
		return nil, err
	}
	if err := p.elements(s, v, depth); err != nil {
		return nil, err
	}
	return p.combined(s, v, depth)
}

func (s *Shape) scalars(v map[string]any) {
	text := func(name string) string { t, _ := v[name].(string); return t }
	s.Title, s.Description, s.Format = text("title"), text("description"), text("format")
	s.ContentEncoding, s.ContentType = text("contentEncoding"), text("contentMediaType")
	s.MaxLength = uint32(count(v["maxLength"]))
	s.Decimal = sdkschema.ParseDecimal(v[sdkschema.DecimalKeyword])
	s.Min, s.Max = number(v["minimum"]), number(v["maximum"])
	s.Secret, _ = v["secret"].(bool)
	if annotation, ok := v["reduce"].(map[string]any); ok {
		s.Reduce, _ = annotation["strategy"].(string)
	}
	if d, ok := v["default"]; ok {
		s.Default = encode(d)
	}
	values, _ := v["enum"].([]any)
	if c, ok := v["const"]; ok {
		values = []any{c}
	}
	var types Types
	for _, e := range values {
		s.Enum = append(s.Enum, encode(e))
		types |= typeOfValue(e)
	}
	if values != nil {
		s.Types = s.Types.and(types)
	}
}

func (p *parser) members(s *Shape, v map[string]any, depth int) error {
	s.Closed = v["additionalProperties"] == false
	s.Infer, _ = v["x-infer-schema"].(bool)
	required := map[string]bool{}
	list, _ := v["required"].([]any)
	for _, name := range list {
		if name, ok := name.(string); ok {
			required[name] = true
		}
	}
	props, _ := v["properties"].(map[string]any)
	if len(props)+len(required) == 0 {
		return nil
	}
	s.Props = map[string]Property{}
	for name, sub := range props {
		shape, err := p.shape(sub, depth+1)
		if err != nil {
			return fmt.Errorf("property %q: %w", name, err)
		}
		s.Props[name] = Property{Shape: shape, Required: required[name]}
	}
	for name := range required {
		if _, ok := props[name]; !ok {
			s.Props[name] = Property{Shape: anything(), Required: true}
		}
	}
	return nil
}

func (p *parser) elements(s *Shape, v map[string]any, depth int) (err error) {
	s.MinItems = uint32(count(v["minItems"]))
	if _, ok := v["maxItems"]; ok {
		n := uint32(count(v["maxItems"]))
		s.MaxItems = &n
	}
	prefix, _ := v["prefixItems"].([]any)
	if list, ok := v["items"].([]any); ok { // the spelling of older drafts
		prefix = list
	} else if items, ok := v["items"]; ok {
		if s.Items, err = p.shape(items, depth+1); err != nil {
			return fmt.Errorf("items: %w", err)
		}
	}
	for _, sub := range prefix {
		shape, err := p.shape(sub, depth+1)
		if err != nil {
			return fmt.Errorf("items: %w", err)
		}
		s.Prefix = append(s.Prefix, shape)
	}
	return nil
}

func (p *parser) combined(s *Shape, v map[string]any, depth int) (*Shape, error) {
	if ref, ok := v["$ref"].(string); ok {
		target, err := p.resolve(ref)
		if err != nil {
			return nil, err
		}
		sub, err := p.shape(target, depth+1)
		if err != nil {
			return nil, err
		}
		s = intersect(s, sub)
	}
	all, _ := v["allOf"].([]any)
	for _, branch := range all {
		sub, err := p.shape(branch, depth+1)
		if err != nil {
			return nil, err
		}
		s = intersect(s, sub)
	}
	for _, keyword := range []string{"anyOf", "oneOf"} {
		branches, _ := v[keyword].([]any)
		var union *Shape
		for _, branch := range branches {
			sub, err := p.shape(branch, depth+1)
			if err != nil {
				return nil, err
			}
			if union == nil {
				union = sub
			} else {
				union = Union(union, sub)
			}
		}
		if union != nil {
			s = intersect(s, union)
		}
	}
	return s, nil
}

func (p *parser) resolve(ref string) (any, error) {
	if ref == "#" {
		return p.doc, nil
	}
	at := p.doc
	if len(ref) < 2 || ref[:2] != "#/" {
		return nil, fmt.Errorf("the reference %q leads out of the schema", ref)
	}
	for _, token := range jsonscan.SplitPointer(ref[1:]) {
		object, _ := at.(map[string]any)
		next, ok := object[token]
		if !ok {
			return nil, fmt.Errorf("the reference %q leads nowhere", ref)
		}
		at = next
	}
	return at, nil
}

func typesOf(v any) Types {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var types Types
	for _, e := range list {
		for _, n := range typeNames {
			if e == n.name {
				types |= n.bit
			}
		}
	}
	if types&Number != 0 {
		types &^= Integer
	}
	return types
}

func typeOfValue(v any) Types {
	switch v := v.(type) {
	case nil:
		return Null
	case bool:
		return Boolean
	case string:
		return String
	case json.Number:
		if _, err := v.Int64(); err == nil {
			return Integer
		}
		return Number
	case []any:
		return Array
	}
	return Object
}

func number(v any) *float64 {
	n, ok := v.(json.Number)
	if !ok {
		return nil
	}
	f, err := n.Float64()
	if err != nil {
		return nil
	}
	return &f
}

func count(v any) int64 {
	f := number(v)
	if f == nil || *f < 0 || *f > 1<<31 {
		return 0
	}
	return int64(*f)
}

func encode(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage("null") // cannot happen: v came out of a JSON text
	}
	return text
}

// JSON writes the shape as a JSON schema that Parse reads as the same shape. Equal shapes give equal texts.
func (s *Shape) JSON() json.RawMessage { return encode(s.schema()) }

func (s *Shape) schema() any {
	if s.Types == 0 {
		return false
	}
	m := map[string]any{}
	if s.Types != anyType {
		m["type"] = s.Types.Names()
	}
	set := func(name string, value any, given bool) {
		if given {
			m[name] = value
		}
	}
	set("title", s.Title, s.Title != "")
	set("description", s.Description, s.Description != "")
	set("format", s.Format, s.Format != "")
	set("contentEncoding", s.ContentEncoding, s.ContentEncoding != "")
	set("contentMediaType", s.ContentType, s.ContentType != "")
	set("maxLength", s.MaxLength, s.MaxLength != 0)
	set(sdkschema.DecimalKeyword, s.Decimal, s.Decimal.Bounded())
	set("minimum", s.Min, s.Min != nil)
	set("maximum", s.Max, s.Max != nil)
	set("secret", true, s.Secret)
	set("default", s.Default, s.Default != nil)
	set("enum", s.Enum, s.Enum != nil)
	set("reduce", map[string]any{"strategy": s.Reduce}, s.Reduce != "")
	set("additionalProperties", false, s.Closed)
	set("minItems", s.MinItems, s.MinItems != 0)
	set("maxItems", s.MaxItems, s.MaxItems != nil)
	if s.Items != nil {
		m["items"] = s.Items.schema()
	}
	var prefix []any
	for _, p := range s.Prefix {
		prefix = append(prefix, p.schema())
	}
	set("prefixItems", prefix, prefix != nil)
	props := map[string]any{}
	var required []string
	for _, name := range slices.Sorted(maps.Keys(s.Props)) {
		props[name] = s.Props[name].Shape.schema()
		if s.Props[name].Required {
			required = append(required, name)
		}
	}
	set("properties", props, len(props) > 0)
	set("required", required, required != nil)
	return m
}
