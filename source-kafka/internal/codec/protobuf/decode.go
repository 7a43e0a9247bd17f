package protobuf

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

// Decoder appends messages of one type as JSON. It belongs to one goroutine and keeps the memory that it works in.
type Decoder struct {
	file    *File
	root    *message
	depth   int
	spans   []span
	entries []entry
	used    int // how many entries the record has had at most
}

// Name is the full name of the message type.
func (d *Decoder) Name() string { return string(d.root.desc.FullName()) }

// Append appends the JSON of a message. An error is a phrase about the data, for people; dst may then hold a part of the value.
// Nothing of data is kept.
func (d *Decoder) Append(dst, data []byte) ([]byte, error) {
	d.depth, d.spans, d.entries, d.used = 0, d.spans[:0], d.entries[:0], 0
	dst, err := d.message(dst, d.root, data)
	clear(d.entries[:d.used]) // they alias the record
	return dst, err
}

func (d *Decoder) message(dst []byte, m *message, data []byte) ([]byte, error) {
	if d.depth++; d.depth > maxDepth {
		return dst, errDepth
	}
	entries := len(d.entries)
	at, err := d.scan(m, data)
	d.used = max(d.used, len(d.entries))
	if err == nil {
		if m.known != nil {
			dst, err = m.known(d, dst, m, at)
		} else {
			dst = append(dst, '{')
			dst, err = d.members(dst, m, at, true)
			dst = append(dst, '}')
		}
	}
	d.spans = d.spans[:at]
	d.entries = d.entries[:entries]
	d.depth--
	return dst, err
}

// members appends the members of a message, the first without a comma.
func (d *Decoder) members(dst []byte, m *message, at int, first bool) ([]byte, error) {
	for i := range m.fields {
		f := &m.fields[i]
		s := d.spans[at+i]
		if s.first < 0 && f.oneof > 0 {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, f.quoted...)
		var err error
		if dst, err = d.field(dst, f, s); err != nil {
			return dst, fmt.Errorf("field %q: %w", f.name, err)
		}
	}
	return dst, nil
}

func (d *Decoder) field(dst []byte, f *field, s span) ([]byte, error) {
	switch {
	case f.isMap:
		return d.mapping(dst, f, s)
	case f.list:
		return d.list(dst, f, s)
	case s.first < 0 && f.presence:
		return append(dst, "null"...), nil
	case s.first < 0:
		return d.value(dst, f, nil)
	case f.message != nil && s.first != s.last:
		// A message in pieces is what its pieces are together.
		var whole []byte
		for e := s.first; e >= 0; e = d.entries[e].next {
			whole = append(whole, d.entries[e].value...)
		}
		return d.message(dst, f.message, whole)
	default:
		return d.value(dst, f, d.entries[s.last].value)
	}
}

func (d *Decoder) list(dst []byte, f *field, s span) ([]byte, error) {
	dst = append(dst, '[')
	first := true
	one := func(value []byte) (err error) {
		if f.closed {
			v, _ := protowire.ConsumeVarint(value)
			if _, ok := f.enum[int32(v)]; !ok {
				return nil
			}
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst, err = d.value(dst, f, value)
		return err
	}
	for e := s.first; e >= 0; e = d.entries[e].next {
		occurrence := d.entries[e]
		if occurrence.wire == f.wire {
			if err := one(occurrence.value); err != nil {
				return dst, err
			}
			continue
		}
		for packed := occurrence.value; len(packed) > 0; {
			value, rest, err := cut(0, f.wire, packed, d.depth)
			if err != nil {
				return dst, err
			}
			if err := one(value); err != nil {
				return dst, err
			}
			packed = rest
		}
	}
	return append(dst, ']'), nil
}

// mapping appends a map. Of a key that comes twice the last value counts.
func (d *Decoder) mapping(dst []byte, f *field, s span) ([]byte, error) {
	if s.first != s.last {
		if err := d.dropRepeated(f, &s); err != nil {
			return dst, err
		}
	}
	dst = append(dst, '{')
	first := true
	for e := s.first; e >= 0; e = d.entries[e].next {
		key, value, err := mapEntry(f, d.entries[e].value)
		if err != nil {
			return dst, err
		}
		if f.mapValue.closed && value != nil {
			v, _ := protowire.ConsumeVarint(value)
			if _, ok := f.mapValue.enum[int32(v)]; !ok {
				continue
			}
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if dst, err = d.mapKey(dst, f.mapKey, key); err != nil {
			return dst, err
		}
		dst = append(dst, ':')
		if dst, err = d.value(dst, f.mapValue, value); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// mapKey appends a key, in quotes whatever its type.
func (d *Decoder) mapKey(dst []byte, f *field, key []byte) ([]byte, error) {
	if f.kind == protoreflect.StringKind {
		return d.value(dst, f, key)
	}
	dst, err := d.value(append(dst, '"'), f, key)
	return append(dst, '"'), err
}

// mapEntry reads the message that one entry of a map is.
func mapEntry(f *field, data []byte) (key, value []byte, err error) {
	for len(data) > 0 {
		num, wire, behind, err := cutTag(data)
		if err != nil {
			return nil, nil, err
		}
		v, rest, err := cut(num, wire, behind, 0)
		if err != nil {
			return nil, nil, err
		}
		data = rest
		switch {
		case num == 1 && wire == f.mapKey.wire:
			key = v
		case num == 2 && wire == f.mapValue.wire && f.mapValue.message != nil:
			// Pieces of a message go together.
			value = append(slices.Clip(value), v...)
			if value == nil {
				value = []byte{}
			}
		case num == 2 && wire == f.mapValue.wire:
			value = v
		}
	}
	return key, value, nil
}

// dropRepeated takes entries out of a map's chain whose key comes again behind them.
func (d *Decoder) dropRepeated(f *field, s *span) error {
	last := map[string]int32{}
	var buf []byte
	repeated := false
	for e := s.first; e >= 0; e = d.entries[e].next {
		key, _, err := mapEntry(f, d.entries[e].value)
		if err != nil {
			return err
		}
		if buf, err = d.mapKey(buf[:0], f.mapKey, key); err != nil {
			return err
		}
		_, again := last[string(buf)]
		repeated = repeated || again
		last[string(buf)] = e
	}
	if !repeated {
		return nil
	}
	kept := span{-1, -1}
	for e := s.first; e >= 0; {
		next := d.entries[e].next
		key, _, _ := mapEntry(f, d.entries[e].value)
		buf, _ = d.mapKey(buf[:0], f.mapKey, key)
		if last[string(buf)] == e {
			d.entries[e].next = -1
			if kept.first < 0 {
				kept.first = e
			} else {
				d.entries[kept.last].next = e
			}
			kept.last = e
		}
		e = next
	}
	*s = kept
	return nil
}

// value appends one value; nil is the zero value of the type.
func (d *Decoder) value(dst []byte, f *field, value []byte) ([]byte, error) {
	switch f.kind {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return d.message(dst, f.message, value)
	case protoreflect.StringKind:
		if !utf8.Valid(value) {
			return dst, errUTF8
		}
		return rowjson.AppendString(dst, value), nil
	case protoreflect.BytesKind:
		return rowjson.AppendBase64(dst, value), nil
	case protoreflect.FloatKind, protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		v, _ := protowire.ConsumeFixed32(value)
		switch f.kind {
		case protoreflect.FloatKind:
			return rowjson.AppendFloat(dst, float64(math.Float32frombits(v)), 32), nil
		case protoreflect.Fixed32Kind:
			return rowjson.AppendUint(dst, uint64(v)), nil
		default:
			return rowjson.AppendInt(dst, int64(int32(v))), nil
		}
	case protoreflect.DoubleKind, protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		v, _ := protowire.ConsumeFixed64(value)
		switch f.kind {
		case protoreflect.DoubleKind:
			return rowjson.AppendFloat(dst, math.Float64frombits(v), 64), nil
		case protoreflect.Fixed64Kind:
			return rowjson.AppendUint(dst, v), nil
		default:
			return rowjson.AppendInt(dst, int64(v)), nil
		}
	default:
		v, _ := protowire.ConsumeVarint(value)
		return appendVarint(dst, f, v), nil
	}
}

// appendVarint appends what is written as a varint. Numbers of 64 bits are numbers, as the schema says, and not strings.
func appendVarint(dst []byte, f *field, v uint64) []byte {
	switch f.kind {
	case protoreflect.BoolKind:
		return rowjson.AppendBool(dst, v != 0)
	case protoreflect.Int32Kind:
		return rowjson.AppendInt(dst, int64(int32(v)))
	case protoreflect.Uint32Kind:
		return rowjson.AppendUint(dst, uint64(uint32(v)))
	case protoreflect.Sint32Kind:
		return rowjson.AppendInt(dst, int64(int32(protowire.DecodeZigZag(v&math.MaxUint32))))
	case protoreflect.Sint64Kind:
		return rowjson.AppendInt(dst, protowire.DecodeZigZag(v))
	case protoreflect.Uint64Kind:
		return rowjson.AppendUint(dst, v)
	case protoreflect.EnumKind:
		if name, ok := f.enum[int32(v)]; ok {
			return append(dst, name...)
		}
		return rowjson.AppendInt(dst, int64(int32(v)))
	default:
		return rowjson.AppendInt(dst, int64(v))
	}
}

// single is the value of a field of a well-known type, nil if it is not set.
func (d *Decoder) single(m *message, at int, name string) []byte {
	for i := range m.fields {
		if m.fields[i].name == name {
			if s := d.spans[at+i]; s.last >= 0 {
				return d.entries[s.last].value
			}
			return nil
		}
	}
	return nil
}

// number is an integer of a well-known type.
func (d *Decoder) number(m *message, at int, name string) int64 {
	value := d.single(m, at, name)
	if value == nil {
		return 0
	}
	v, _ := protowire.ConsumeVarint(value)
	return int64(v)
}

// lastSegment is the type's name in the address of an Any.
func lastSegment(url []byte) string { return string(url[bytes.LastIndexByte(url, '/')+1:]) }
