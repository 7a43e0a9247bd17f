package frame

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluicedata/sluice/protocol/internal/fieldpath"
	"github.com/sluicedata/sluice/protocol/internal/rawjson"
)

// maxMessageDepth bounds the nesting of messages (a derivation's transforms hold collections, which may hold derivations).
const maxMessageDepth = 64

func unmarshalJSON(body []byte, m proto.Message) error {
	proto.Reset(m)
	d := decoder{Scanner: rawjson.NewScanner(body)}
	err := d.message(m.ProtoReflect(), maxMessageDepth)
	if err == nil {
		err = d.End()
	}
	if err != nil {
		return fmt.Errorf("decoding %s of %d bytes: %w", m.ProtoReflect().Descriptor().Name(), len(body), err)
	}
	return nil
}

// decoder reads messages by their descriptors. Everything is copied out of the text.
type decoder struct{ rawjson.Scanner }

func (d *decoder) message(m protoreflect.Message, depth int) error {
	switch m.Descriptor().FullName() {
	case timestampName:
		return d.timestamp(m)
	case durationName:
		return d.duration(m)
	}
	if depth == 0 {
		return fmt.Errorf("messages are nested more than %d levels deep", maxMessageDepth)
	}
	return d.object(func(key string) error {
		fd := fieldByName(m.Descriptor(), key)
		if fd == nil || fd.JSONName() == internalName {
			_, err := d.Value()
			return err
		}
		if err := d.field(m, fd, depth); err != nil {
			return fieldpath.In(fd.JSONName(), err)
		}
		return nil
	})
}

// fieldByName knows both of a field's names, as peers send either: the Python connectors send schema_json
// where the JSON name is documentSchema.
func fieldByName(md protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := md.Fields().ByJSONName(name); fd != nil {
		return fd
	}
	return md.Fields().ByTextName(name)
}

// object calls entry for every key, with the scanner in front of the value, which entry has to take.
func (d *decoder) object(entry func(key string) error) error {
	if err := d.Expect('{', "at the start of an object"); err != nil {
		return err
	}
	if d.Accept('}') {
		return nil
	}
	for {
		text, err := d.Key()
		if err != nil {
			return err
		}
		key, err := rawjson.Unquote(text)
		if err != nil {
			return err
		}
		if err := entry(key); err != nil {
			return err
		}
		if d.Accept('}') {
			return nil
		}
		if err := d.Expect(',', "or '}' after an object's value"); err != nil {
			return err
		}
	}
}

// null takes a null, if that is what comes.
func (d *decoder) null() bool {
	ahead := d.Scanner
	if ahead.Peek() != 'n' {
		return false
	}
	if _, err := ahead.Value(); err != nil {
		return false
	}
	d.Scanner = ahead
	return true
}

// field takes a field's value. Null is the same as leaving the field out.
func (d *decoder) field(m protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) error {
	if d.null() {
		return nil
	}
	switch {
	case fd.IsMap():
		return d.mapField(m, fd, depth)
	case fd.IsList():
		return d.listField(m, fd, depth)
	case fd.Kind() == protoreflect.MessageKind:
		return d.message(m.Mutable(fd).Message(), depth-1)
	}
	v, known, err := d.scalar(fd, isRaw(fd))
	if err == nil && known {
		m.Set(fd, v)
	}
	return err
}

func (d *decoder) listField(m protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) error {
	list := m.NewField(fd).List()
	if err := d.Expect('[', "at the start of an array"); err != nil {
		return err
	}
	for i := 0; !d.Accept(']'); i++ {
		if i > 0 {
			if err := d.Expect(',', "or ']' after an array's element"); err != nil {
				return err
			}
		}
		if fd.Kind() == protoreflect.MessageKind {
			if err := d.message(list.AppendMutable().Message(), depth-1); err != nil {
				return fieldpath.At(i, err)
			}
			continue
		}
		v, known, err := d.scalar(fd, isRaw(fd))
		if err != nil {
			return fieldpath.At(i, err)
		}
		if known {
			list.Append(v)
		}
	}
	m.Set(fd, protoreflect.ValueOfList(list))
	return nil
}

func (d *decoder) mapField(m protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) error {
	entries := m.NewField(fd).Map()
	err := d.object(func(key string) error {
		k := protoreflect.ValueOfString(key).MapKey()
		raw := isRaw(fd)
		if !raw && d.null() {
			return nil
		}
		if fd.MapValue().Kind() == protoreflect.MessageKind {
			value := entries.NewValue()
			if err := d.message(value.Message(), depth-1); err != nil {
				return fieldpath.In(fmt.Sprintf("%q", key), err)
			}
			entries.Set(k, value)
			return nil
		}
		v, known, err := d.scalar(fd.MapValue(), raw)
		if err != nil {
			return fieldpath.In(fmt.Sprintf("%q", key), err)
		}
		if known {
			entries.Set(k, v)
		}
		return nil
	})
	if err == nil {
		m.Set(fd, protoreflect.ValueOfMap(entries))
	}
	return err
}
