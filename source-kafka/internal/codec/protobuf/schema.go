package protobuf

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluicedata/sluice/source-kafka/internal/codec/jsontype"
)

// Describe describes every value that Append can append.
func (d *Decoder) Describe() *jsontype.Document {
	s := describer{doc: &jsontype.Document{Defs: map[string]*jsontype.Node{}}}
	s.doc.Root = s.message(d.root)
	return s.doc
}

type describer struct{ doc *jsontype.Document }

func (s *describer) message(m *message) *jsontype.Node {
	if m.known != nil {
		return s.wellKnown(m)
	}
	name := string(m.desc.FullName())
	if _, ok := s.doc.Defs[name]; ok {
		return &jsontype.Node{Ref: name}
	}
	n := &jsontype.Node{Types: []string{"object"}, Title: name, Description: comment(m.desc)}
	s.doc.Defs[name] = n
	for i := range m.fields {
		f := &m.fields[i]
		inner := s.field(f)
		if text := comment(f.desc); text != "" {
			c := *inner
			c.Description = text
			inner = &c
		}
		n.Props = append(n.Props, jsontype.Prop{Name: f.name, Node: inner, Required: f.oneof == 0})
	}
	return &jsontype.Node{Ref: name}
}

func (s *describer) field(f *field) *jsontype.Node {
	switch {
	case f.isMap:
		return &jsontype.Node{Types: []string{"object"}, Values: s.value(f.mapValue)}
	case f.list:
		return &jsontype.Node{Types: []string{"array"}, Items: s.value(f)}
	case f.presence && f.oneof == 0:
		return jsontype.OrNull(s.value(f))
	default:
		return s.value(f)
	}
}

func (s *describer) value(f *field) *jsontype.Node {
	switch f.kind {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return s.message(f.message)
	case protoreflect.StringKind:
		return jsontype.Of("string")
	case protoreflect.BytesKind:
		return &jsontype.Node{Types: []string{"string"}, Encoding: "base64"}
	case protoreflect.BoolKind:
		return jsontype.Of("boolean")
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return &jsontype.Node{Types: []string{"number", "string"}, Format: "number"} // NaN
	case protoreflect.EnumKind:
		if f.closed {
			return jsontype.Of("string")
		}
		return jsontype.Of("string", "integer") // numbers without a name
	default:
		return jsontype.Of("integer")
	}
}

func (s *describer) wellKnown(m *message) *jsontype.Node {
	switch m.desc.FullName() {
	case "google.protobuf.Timestamp":
		return &jsontype.Node{Types: []string{"string"}, Format: "date-time"}
	case "google.protobuf.Duration":
		return &jsontype.Node{Types: []string{"string"}, Description: `Seconds, as "1.5s".`}
	case "google.protobuf.FieldMask":
		return jsontype.Of("string")
	case "google.protobuf.Value":
		return &jsontype.Node{}
	case "google.protobuf.Any", "google.protobuf.Struct":
		return jsontype.Of("object")
	case "google.protobuf.ListValue":
		return jsontype.Of("array")
	default: // wrappers
		return s.value(&m.fields[0])
	}
}

// comment is what the author wrote above a declaration.
func comment(d protoreflect.Descriptor) string {
	file := d.ParentFile()
	if file == nil {
		return ""
	}
	lines := strings.Split(file.SourceLocations().ByDescriptor(d).LeadingComments, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return strings.ToValidUTF8(strings.TrimSpace(strings.Join(lines, " ")), "\ufffd")
}
