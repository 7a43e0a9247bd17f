// Package pbrand fills messages with random contents, for tests.
package pbrand

import (
	"math"
	"math/rand/v2"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Fill sets about half of a message's fields, those of messages below it included, down to depth.
// Fields of JSON text get JSON; $internal stays empty. Equal seeds give equal messages.
func Fill(rnd *rand.Rand, m protoreflect.Message, depth int) {
	switch m.Descriptor().FullName() {
	case "google.protobuf.Timestamp", "google.protobuf.Duration":
		fields := m.Descriptor().Fields()
		m.Set(fields.ByName("seconds"), protoreflect.ValueOfInt64(rnd.Int64N(253402300800)))
		m.Set(fields.ByName("nanos"), protoreflect.ValueOfInt32(pick(rnd, int32(0), 1, 120_000_000, 999_999_999)))
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if rnd.IntN(2) == 0 || fd.Number() == 100 {
			continue
		}
		switch {
		case fd.IsMap():
			fillMap(rnd, m.Mutable(fd).Map(), fd, depth)
		case fd.IsList():
			fillList(rnd, m.Mutable(fd).List(), fd, depth)
		case fd.Kind() != protoreflect.MessageKind:
			m.Set(fd, scalar(rnd, fd, string(fd.Name())))
		case depth > 0:
			Fill(rnd, m.Mutable(fd).Message(), depth-1)
		}
	}
}

func fillMap(rnd *rand.Rand, entries protoreflect.Map, fd protoreflect.FieldDescriptor, depth int) {
	for range rnd.IntN(3) {
		value := entries.NewValue()
		if fd.MapValue().Kind() == protoreflect.MessageKind {
			Fill(rnd, value.Message(), depth-1)
		} else {
			value = scalar(rnd, fd.MapValue(), string(fd.Name()))
		}
		entries.Set(protoreflect.ValueOfString(text(rnd)).MapKey(), value)
	}
}

func fillList(rnd *rand.Rand, list protoreflect.List, fd protoreflect.FieldDescriptor, depth int) {
	for range rnd.IntN(4) {
		if fd.Kind() != protoreflect.MessageKind {
			list.Append(scalar(rnd, fd, string(fd.Name())))
		} else if depth > 0 {
			Fill(rnd, list.AppendMutable().Message(), depth-1)
		}
	}
}

func scalar(rnd *rand.Rand, fd protoreflect.FieldDescriptor, name string) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text(rnd))
	case protoreflect.BytesKind:
		if strings.Contains(name, "_json") {
			return protoreflect.ValueOfBytes(JSON(rnd))
		}
		b := make([]byte, rnd.IntN(20))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return protoreflect.ValueOfBytes(b)
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rnd.IntN(2) == 0)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(rnd.IntN(values.Len())).Number())
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(pick(rnd, 0, -1, math.MaxInt32, math.MinInt32, int32(rnd.Uint32())))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(pick(rnd, 0, -1, math.MaxInt64, math.MinInt64, rnd.Int64()))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(pick(rnd, 0, 127, 128, math.MaxUint32, rnd.Uint32()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(pick(rnd, 0, -0.5, 1e300, math.Inf(-1), rnd.NormFloat64()))
	default: // the kinds of 64 bits without a sign
		return protoreflect.ValueOfUint64(pick(rnd, 0, math.MaxUint64, rnd.Uint64()))
	}
}

// JSON is a random JSON text on one line.
func JSON(rnd *rand.Rand) []byte {
	return []byte(pick(rnd, `{}`, `[]`, `true`, `"a\u00e9\n"`, `-1.5e3`, `0`, `{"a":{"b":[1,2,{"c":""}]}}`,
		`{"type":"object","properties":{"id":{"type":"integer"}}}`, `[null,"{"]`, `{"a" : 1}`))
}

func text(rnd *rand.Rand) string {
	return pick(rnd, "", "a", "acme/orders", `quote " and \ back`, "line\nbreak\t", "é漢😀", "\x00\x7f", strings.Repeat("long ", 50))
}

func pick[T any](rnd *rand.Rand, choices ...T) T { return choices[rnd.IntN(len(choices))] }
