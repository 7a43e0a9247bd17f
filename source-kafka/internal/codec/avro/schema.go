package avro

import (
	"slices"
	"strings"

	"github.com/sluicedata/sluice/source-kafka/internal/codec/jsontype"
)

// Describe describes every value that Append can append.
func (s *Schema) Describe() *jsontype.Document {
	d := describer{doc: &jsontype.Document{Defs: map[string]*jsontype.Node{}}}
	d.doc.Root = d.node(s.root)
	return d.doc
}

type describer struct{ doc *jsontype.Document }

func (d *describer) node(t *typ) *jsontype.Node {
	switch t.kind {
	case kindNull:
		return jsontype.Of("null")
	case kindBoolean:
		return jsontype.Of("boolean")
	case kindInt, kindLong:
		return number(t.logical)
	case kindFloat, kindDouble:
		// NaN and the infinities are strings.
		return &jsontype.Node{Types: []string{"number", "string"}, Format: "number"}
	case kindBytes, kindFixed:
		return octets(t)
	case kindString:
		return jsontype.Of("string")
	case kindEnum:
		// The symbols are not listed as the only ones: a later version of the schema may have more.
		return &jsontype.Node{Types: []string{"string"}, Title: t.name, Description: t.doc}
	case kindArray:
		return &jsontype.Node{Types: []string{"array"}, Items: d.node(t.items)}
	case kindMap:
		return &jsontype.Node{Types: []string{"object"}, Values: d.node(t.items)}
	case kindUnion:
		return d.union(t)
	default:
		return d.record(t)
	}
}

func number(l logical) *jsontype.Node {
	switch l {
	case logicalNone:
		return jsontype.Of("integer")
	case logicalDate:
		return &jsontype.Node{Types: []string{"string"}, Format: "date"}
	case logicalTimeMillis, logicalTimeMicros:
		return &jsontype.Node{Types: []string{"string"}, Format: "time"}
	default:
		return &jsontype.Node{Types: []string{"string"}, Format: "date-time"}
	}
}

func octets(t *typ) *jsontype.Node {
	n := jsontype.Of("string")
	switch t.logical {
	case logicalDecimal, logicalBigDecimal:
		n.Format, n.Decimal = "number", t.digits
	case logicalUUID:
		n.Format = "uuid"
	case logicalDuration:
		// The format "duration" has no parts of seconds.
		n.Description = "A duration in the notation of ISO 8601."
	default:
		n.Encoding = "base64"
	}
	return n
}

func (d *describer) record(t *typ) *jsontype.Node {
	if _, ok := d.doc.Defs[t.name]; ok {
		return &jsontype.Node{Ref: t.name}
	}
	n := &jsontype.Node{Types: []string{"object"}, Title: t.name, Description: t.doc}
	d.doc.Defs[t.name] = n
	for _, f := range t.fields {
		inner := d.node(f.typ)
		if f.doc != "" {
			c := *inner
			c.Description = f.doc
			inner = &c
		}
		n.Props = append(n.Props, jsontype.Prop{Name: clean(f.name), Node: inner, Required: true})
	}
	return &jsontype.Node{Ref: t.name}
}

func (d *describer) union(t *typ) *jsontype.Node {
	var all []*jsontype.Node
	null, simple := false, true
	for _, b := range t.branches {
		if b.typ.kind == kindNull {
			null = true
			continue
		}
		n := d.node(b.typ)
		if len(b.open) > 0 {
			n = &jsontype.Node{Types: []string{"object"}, Props: []jsontype.Prop{{Name: clean(b.typ.name), Node: n, Required: true}}}
		}
		simple = simple && len(n.Types) == 1 && n.Format == "" && n.Encoding == "" && n.Types[0] != "object" && n.Types[0] != "array"
		all = append(all, n)
	}
	var n *jsontype.Node
	switch {
	case len(all) == 0:
		return jsontype.Of("null")
	case len(all) == 1:
		n = all[0]
	case simple:
		n = &jsontype.Node{}
		for _, a := range all {
			if !slices.Contains(n.Types, a.Types[0]) {
				n.Types = append(n.Types, a.Types[0])
			}
		}
	default:
		n = &jsontype.Node{AnyOf: all}
	}
	if null {
		n = jsontype.OrNull(n)
	}
	return n
}

func clean(name string) string { return strings.ToValidUTF8(name, "\ufffd") }
