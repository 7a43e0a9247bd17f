package protocol_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

// files are the descriptors that the tables speak of.
func files() []protoreflect.FileDescriptor {
	return []protoreflect.FileDescriptor{
		flowpb.File_flow_flow_proto, flowpb.File_flow_task_proto, flowpb.File_flow_gazette_proto,
		capturepb.File_capture_capture_proto, materializepb.File_materialize_materialize_proto,
	}
}

// readTable reads a tab-separated file of testdata without its first line.
func readTable(t *testing.T, name string) [][]string {
	t.Helper()
	content, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	var rows [][]string
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "#") {
			rows = append(rows, strings.Split(lines.Text(), "\t"))
		}
	}
	return rows
}

// requireSame fails with the differences only.
func requireSame(t *testing.T, want, got map[string]bool) {
	t.Helper()
	var missing, extra []string
	for line := range want {
		if !got[line] {
			missing = append(missing, line)
		}
	}
	for line := range got {
		if !want[line] {
			extra = append(extra, line)
		}
	}
	require.Empty(t, missing, "in the table only")
	require.Empty(t, extra, "in the code only")
}

// walk calls f for every message below a container, nested ones included, but not for the entries of maps.
func walk(messages protoreflect.MessageDescriptors, f func(protoreflect.MessageDescriptor)) {
	for i := range messages.Len() {
		if m := messages.Get(i); !m.IsMapEntry() {
			f(m)
			walk(m.Messages(), f)
		}
	}
}

func walkAll(f func(protoreflect.MessageDescriptor)) {
	for _, file := range files() {
		walk(file.Messages(), f)
	}
}

// typeName is a field's type as the table spells it.
func typeName(fd protoreflect.FieldDescriptor) string {
	switch {
	case fd.IsMap():
		return "map<string," + valueType(fd.MapValue(), fd.Name(), "_json_map") + ">"
	case fd.IsList():
		return "repeated " + valueType(fd, fd.Name(), "_json_vec")
	}
	return valueType(fd, fd.Name(), "_json")
}

func valueType(fd protoreflect.FieldDescriptor, name protoreflect.Name, rawSuffix string) string {
	switch {
	case fd.Kind() == protoreflect.EnumKind:
		return "enum " + string(fd.Enum().FullName())
	case fd.Kind() == protoreflect.MessageKind:
		return string(fd.Message().FullName())
	case fd.Kind() == protoreflect.BytesKind && strings.HasSuffix(string(name), rawSuffix):
		return "json"
	}
	return fd.Kind().String()
}

// Every field of the protocol is there under its number, name, JSON name and type; and none beyond.
func TestFieldsAreThoseOfTheTable(t *testing.T) {
	t.Parallel()
	want := map[string]bool{}
	for _, row := range readTable(t, "fields.tsv") {
		want[strings.Join(row, " ")] = true
	}
	require.Equal(t, 365, len(want))
	got := map[string]bool{}
	walkAll(func(m protoreflect.MessageDescriptor) {
		for i := range m.Fields().Len() {
			fd := m.Fields().Get(i)
			got[fmt.Sprintf("%s %d %s %s %s", m.FullName(), fd.Number(), fd.Name(), fd.JSONName(), typeName(fd))] = true
			require.False(t, fd.HasPresence() && fd.Kind() != protoreflect.MessageKind, "%s: scalars have no presence", fd.FullName())
		}
	})
	requireSame(t, want, got)
}

// The JSON codec writes fields in the order of the files, and proto in the order of numbers; a reader of the .proto files
// expects them sorted.
func TestFieldsAreInTheOrderOfNumbers(t *testing.T) {
	t.Parallel()
	walkAll(func(m protoreflect.MessageDescriptor) {
		for i := 1; i < m.Fields().Len(); i++ {
			require.Greater(t, m.Fields().Get(i).Number(), m.Fields().Get(i-1).Number(), m.FullName())
		}
	})
}

// A number below a message's highest is a field or reserved.
func TestGapsAreReserved(t *testing.T) {
	t.Parallel()
	walkAll(func(m protoreflect.MessageDescriptor) {
		last := protoreflect.FieldNumber(0)
		for i := range m.Fields().Len() {
			if n := m.Fields().Get(i).Number(); n < 100 {
				last = max(last, n)
			}
		}
		for n := protoreflect.FieldNumber(1); n < last; n++ {
			require.True(t, m.Fields().ByNumber(n) != nil || m.ReservedRanges().Has(n), "%s: %d", m.FullName(), n)
		}
	})
}

func TestEnumsAreThoseOfTheTable(t *testing.T) {
	t.Parallel()
	want := map[string]bool{}
	for _, row := range readTable(t, "enums.tsv") {
		want[strings.Join(row, " ")] = true
	}
	require.Equal(t, 54, len(want))
	got := map[string]bool{}
	add := func(enums protoreflect.EnumDescriptors) {
		for i := range enums.Len() {
			values := enums.Get(i).Values()
			for j := range values.Len() {
				got[fmt.Sprintf("%s %d %s", enums.Get(i).FullName(), values.Get(j).Number(), values.Get(j).Name())] = true
			}
		}
	}
	for _, file := range files() {
		add(file.Enums())
	}
	walkAll(func(m protoreflect.MessageDescriptor) { add(m.Enums()) })
	requireSame(t, want, got)
}

// sample is a value for a field, other than its zero value, and how the JSON codec writes it. For messages it is
// the empty one, whose presence has to survive.
func sample(t *testing.T, m protoreflect.Message, fd protoreflect.FieldDescriptor, typ string) (protoreflect.Value, string) {
	t.Helper()
	switch typ {
	case "string":
		return protoreflect.ValueOfString(`a"b`), `"a\"b"`
	case "bytes":
		return protoreflect.ValueOfBytes([]byte{0, 0xff, '?'}), `"AP8/"`
	case "json":
		return protoreflect.ValueOfBytes([]byte(`{"a":[1,"x",null]}`)), `{"a":[1,"x",null]}`
	case "bool":
		return protoreflect.ValueOfBool(true), `true`
	case "uint32", "fixed32":
		return protoreflect.ValueOfUint32(4294967295), `4294967295`
	case "int32":
		return protoreflect.ValueOfInt32(-7), `-7`
	case "int64":
		return protoreflect.ValueOfInt64(-9007199254740993), `"-9007199254740993"`
	case "fixed64":
		return protoreflect.ValueOfUint64(18446744073709551615), `"18446744073709551615"`
	case "double":
		return protoreflect.ValueOfFloat64(-0.5), `-0.5`
	case "google.protobuf.Timestamp":
		return newOf(t, typ, 1769904000, 123000000), `"2026-02-01T00:00:00.123Z"`
	case "google.protobuf.Duration":
		return newOf(t, typ, 300, 0), `"300s"`
	case "sluice.flow.CaptureSpec":
		return newOf(t, typ, 0, 0), `{"intervalSeconds":0}`
	case "sluice.flow.RangeSpec":
		return newOf(t, typ, 0, 0), `{"keyEnd":0,"rClockEnd":0}`
	}
	if enum, ok := strings.CutPrefix(typ, "enum "); ok {
		ed, err := protoregistry.GlobalTypes.FindEnumByName(protoreflect.FullName(enum))
		require.NoError(t, err)
		last := ed.Descriptor().Values().Get(ed.Descriptor().Values().Len() - 1)
		return protoreflect.ValueOfEnum(last.Number()), strconv.Quote(string(last.Name()))
	}
	if element, ok := strings.CutPrefix(typ, "repeated "); ok {
		v, text := sample(t, m, fd, element)
		list := m.NewField(fd)
		list.List().Append(v)
		list.List().Append(v)
		return list, "[" + text + "," + text + "]"
	}
	if element, ok := strings.CutPrefix(typ, "map<string,"); ok {
		v, text := sample(t, m, fd, strings.TrimSuffix(element, ">"))
		entries := m.NewField(fd)
		entries.Map().Set(protoreflect.ValueOfString("k;1").MapKey(), v)
		entries.Map().Set(protoreflect.ValueOfString("a/b").MapKey(), v)
		return entries, `{"a/b":` + text + `,"k;1":` + text + `}`
	}
	return newOf(t, typ, 0, 0), `{}`
}

// newOf makes a message by its name. Timestamps and durations get their two fields.
func newOf(t *testing.T, name string, seconds int64, nanos int32) protoreflect.Value {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	require.NoError(t, err)
	m := mt.New()
	if strings.HasPrefix(name, "google.") {
		m.Set(m.Descriptor().Fields().ByName("seconds"), protoreflect.ValueOfInt64(seconds))
		m.Set(m.Descriptor().Fields().ByName("nanos"), protoreflect.ValueOfInt32(nanos))
	}
	return protoreflect.ValueOfMessage(m)
}

// Every field goes through both codecs, stands under its JSON name in its JSON form, and is found again under its JSON name
// and under its proto name, with null siblings and unknown ones around it.
func TestEveryFieldThroughBothCodecs(t *testing.T) {
	t.Parallel()
	for _, row := range readTable(t, "fields.tsv") {
		message, number, name, jsonName, typ := row[0], row[1], row[2], row[3], row[4]
		mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(message))
		require.NoError(t, err)
		n, err := strconv.Atoi(number)
		require.NoError(t, err)
		m := mt.New()
		fd := m.Descriptor().Fields().ByNumber(protoreflect.FieldNumber(n))
		value, text := sample(t, m, fd, typ)
		m.Set(fd, value)

		body, err := frame.Proto.AppendBody(nil, m.Interface())
		require.NoError(t, err, fd.FullName())
		back := mt.New()
		require.NoError(t, frame.Proto.Unmarshal(body, back.Interface()))
		require.True(t, proto.Equal(m.Interface(), back.Interface()), fd.FullName())

		body, err = frame.JSON.AppendBody(nil, m.Interface())
		require.NoError(t, err, fd.FullName())
		if jsonName == "$internal" {
			require.Equal(t, "{}", string(body))
			continue
		}
		require.Contains(t, string(body), `"`+jsonName+`":`+text, fd.FullName())
		require.True(t, json.Valid(body))
		for _, spelling := range []string{
			string(body),
			`{"` + name + `":` + text + `}`,
			` { "x" : [ {} ] , "` + name + `" : null, "` + jsonName + `" : ` + text + `, "` + jsonName + `":null, "$internal":"AA=="} `,
		} {
			back = mt.New()
			require.NoError(t, frame.JSON.Unmarshal([]byte(spelling), back.Interface()), spelling)
			require.True(t, proto.Equal(m.Interface(), back.Interface()), spelling)
		}
	}
}
