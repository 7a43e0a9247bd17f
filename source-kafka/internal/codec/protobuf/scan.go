package protobuf

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

var (
	errShort = errors.New("it ends in the middle of a value")
	errWire  = errors.New("it is no Protobuf")
	errDepth = errors.New("it is nested too deep")
	errUTF8  = errors.New("a text in it holds bytes that are not UTF-8")
)

// maxDepth is how deep messages may be nested.
const maxDepth = 500

// entry is one occurrence of a field in a message: the bytes of its value, without tag and length.
type entry struct {
	value []byte
	next  int32 // the field's next occurrence, -1 for none
	wire  protowire.Type
}

// span is what occurrences a field has.
type span struct{ first, last int32 }

// scan notes the occurrences of all fields of a message behind those of the messages around it, and returns where its spans
// begin. Fields may come in any order, repeatedly and in pieces; so a message is read once to find them, and then written in
// the schema's order.
func (d *Decoder) scan(m *message, data []byte) (int, error) {
	at := len(d.spans)
	for range m.fields {
		d.spans = append(d.spans, span{-1, -1})
	}
	for left := data; len(left) > 0; {
		num, wire, behind, err := cutTag(left)
		if err != nil {
			return at, err
		}
		value, rest, err := cut(num, wire, behind, d.depth)
		if err != nil {
			return at, err
		}
		left = rest
		i := m.find(num)
		if i < 0 {
			continue
		}
		f := &m.fields[i]
		if !f.accepts(wire, value) {
			continue // as a field that the schema does not have
		}
		if f.oneof > 0 {
			d.clear(m, i, at)
		}
		e := int32(len(d.entries))
		d.entries = append(d.entries, entry{value: value, wire: wire, next: -1})
		s := &d.spans[at+i]
		if s.first < 0 {
			s.first = e
		} else {
			d.entries[s.last].next = e
		}
		s.last = e
	}
	return at, nil
}

// clear forgets the other fields of a oneof: the last one counts.
func (d *Decoder) clear(m *message, keep, at int) {
	for i := range m.fields {
		if i != keep && m.fields[i].oneof == m.fields[keep].oneof {
			d.spans[at+i] = span{-1, -1}
		}
	}
}

// accepts tells whether an occurrence is written as the field can be: of another wire type it is an unknown field, and so
// is a number that a closed enum has no name for.
func (f *field) accepts(wire protowire.Type, value []byte) bool {
	if wire != f.wire {
		return f.list && wire == protowire.BytesType && f.wire != protowire.StartGroupType // packed
	}
	if f.closed && !f.list {
		v, _ := protowire.ConsumeVarint(value)
		_, ok := f.enum[int32(v)]
		return ok
	}
	return true
}

// cutTag takes a field's number and wire type off data.
func cutTag(data []byte) (protowire.Number, protowire.Type, []byte, error) {
	if len(data) > 0 && data[0] < 0x80 && data[0] >= 8 {
		return protowire.Number(data[0] >> 3), protowire.Type(data[0] & 7), data[1:], nil
	}
	num, wire, n := protowire.ConsumeTag(data)
	switch {
	case n < 0:
		return 0, 0, nil, errOf(n)
	case num > protowire.MaxValidNumber:
		return 0, 0, nil, errWire
	}
	return num, wire, data[n:], nil
}

// cut takes one value off data.
func cut(num protowire.Number, wire protowire.Type, data []byte, depth int) (value, rest []byte, err error) {
	switch wire {
	case protowire.VarintType:
		_, n := protowire.ConsumeVarint(data)
		if n < 0 {
			return nil, nil, errOf(n)
		}
		return data[:n], data[n:], nil
	case protowire.Fixed32Type, protowire.Fixed64Type:
		n := 4
		if wire == protowire.Fixed64Type {
			n = 8
		}
		if len(data) < n {
			return nil, nil, errShort
		}
		return data[:n], data[n:], nil
	case protowire.BytesType:
		b, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return nil, nil, errOf(n)
		}
		return b, data[n:], nil
	case protowire.StartGroupType:
		return cutGroup(num, data, depth+1)
	default:
		return nil, nil, errWire
	}
}

// cutGroup takes a group's fields off data, with its end.
func cutGroup(num protowire.Number, data []byte, depth int) (value, rest []byte, err error) {
	if depth > maxDepth {
		return nil, nil, errDepth
	}
	start := data
	for {
		inner, wire, behind, err := cutTag(data)
		if err != nil {
			return nil, nil, err
		}
		if wire == protowire.EndGroupType {
			if inner != num {
				return nil, nil, errWire
			}
			return start[:len(start)-len(data)], behind, nil
		}
		if _, data, err = cut(inner, wire, behind, depth); err != nil {
			return nil, nil, err
		}
	}
}

func errOf(n int) error {
	// The library's codes: -1 is a text that ends too early.
	if n == -1 {
		return errShort
	}
	return errWire
}
