package protobuf

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

// message is how the values of one message type are written.
type message struct {
	desc   protoreflect.MessageDescriptor
	fields []field
	byNum  map[protowire.Number]int
	dense  []int16 // by number, where numbers are small; -1 for none
	known  wellKnown
}

// field is one field, in the order of the schema.
type field struct {
	desc   protoreflect.FieldDescriptor
	name   string
	quoted []byte // "name":
	kind   protoreflect.Kind
	wire   protowire.Type
	list   bool
	isMap  bool
	// presence tells that the field may be unset, which is null; one without is never unset, but zero.
	presence bool
	// oneof is the number of the field's oneof, from 1; 0 for none. Unset fields of a oneof are left out.
	oneof    int
	message  *message // of messages, groups and map entries
	enum     map[int32][]byte
	closed   bool // of enums: a number without name makes the field unknown
	mapKey   *field
	mapValue *field
}

// maxDense is the largest field number that is looked up in a slice.
const maxDense = 1024

// plan plans a message type, once. It is known before its fields are planned: they may be of its own type.
func (f *File) plan(d protoreflect.MessageDescriptor) *message {
	if m, ok := f.plans[d.FullName()]; ok {
		return m
	}
	m := &message{desc: d, byNum: map[protowire.Number]int{}, known: wellKnownType(d.FullName())}
	f.plans[d.FullName()] = m
	all := make([]protoreflect.FieldDescriptor, 0, d.Fields().Len())
	for i := range d.Fields().Len() {
		all = append(all, d.Fields().Get(i))
	}
	all = append(all, f.extensions[d.FullName()]...)
	for i, fd := range all {
		m.fields = append(m.fields, f.field(fd))
		m.byNum[fd.Number()] = i
	}
	m.index()
	return m
}

func (m *message) index() {
	highest := protowire.Number(0)
	for n := range m.byNum {
		highest = max(highest, n)
	}
	if highest > maxDense {
		return
	}
	m.dense = make([]int16, highest+1)
	for i := range m.dense {
		m.dense[i] = -1
	}
	for n, i := range m.byNum {
		m.dense[n] = int16(i)
	}
}

// find is the index of a field by its number, -1 if there is none.
func (m *message) find(n protowire.Number) int {
	if m.dense != nil {
		if int(n) < len(m.dense) {
			return int(m.dense[n])
		}
		return -1
	}
	if i, ok := m.byNum[n]; ok {
		return i
	}
	return -1
}

func (f *File) field(d protoreflect.FieldDescriptor) field {
	name := d.TextName() // as it is in the .proto file; [full.name] for extensions
	p := field{
		desc: d, name: name, quoted: append(rowjson.AppendText(nil, name), ':'), kind: d.Kind(), wire: wireOf(d.Kind()),
		list: d.IsList(), isMap: d.IsMap(), presence: d.HasPresence(),
	}
	if o := d.ContainingOneof(); o != nil && !o.IsSynthetic() {
		p.oneof = o.Index() + 1
	}
	switch {
	case p.isMap:
		key, value := f.field(d.MapKey()), f.field(d.MapValue())
		p.mapKey, p.mapValue = &key, &value
	case d.Message() != nil:
		p.message = f.plan(d.Message())
	case d.Enum() != nil:
		p.enum, p.closed = map[int32][]byte{}, d.Enum().IsClosed()
		values := d.Enum().Values()
		for i := range values.Len() {
			v := values.Get(i)
			if _, alias := p.enum[int32(v.Number())]; !alias {
				p.enum[int32(v.Number())] = rowjson.AppendText(nil, string(v.Name()))
			}
		}
	}
	return p
}

// wireOf is how values of a kind are written, one by one.
func wireOf(k protoreflect.Kind) protowire.Type {
	switch k {
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	case protoreflect.GroupKind:
		return protowire.StartGroupType
	default:
		return protowire.VarintType
	}
}
