package protobuf

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func compile(t testing.TB, text string, imports ...Text) *File {
	f, err := Compile(t.Context(), text, imports)
	require.NoError(t, err)
	return f
}

func decoder(t testing.TB, f *File, path ...int) *Decoder {
	d, err := f.Message(path)
	require.NoError(t, err)
	return d
}

// A world fills messages at random.
type world struct {
	*rand.Rand
	types *dynamicpb.Types
}

func (w *world) fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	switch m.Descriptor().FullName() {
	case "google.protobuf.Timestamp":
		m.Set(fields.ByName("seconds"), protoreflect.ValueOf(w.Int64N(4e9)-2e9))
		m.Set(fields.ByName("nanos"), protoreflect.ValueOf([]int32{0, 1, 1000, 500_000_000, 999_999_999}[w.IntN(5)]))
		return
	case "google.protobuf.Duration":
		sign := int64(1 - 2*w.IntN(2))
		m.Set(fields.ByName("seconds"), protoreflect.ValueOf(sign*w.Int64N(1e6)))
		m.Set(fields.ByName("nanos"), protoreflect.ValueOf(int32(sign)*[]int32{0, 1, 1000, 500_000_000}[w.IntN(4)]))
		return
	case "google.protobuf.FieldMask":
		m.Mutable(fields.ByName("paths")).List().Append(protoreflect.ValueOf("a.b"))
		m.Mutable(fields.ByName("paths")).List().Append(protoreflect.ValueOf("c"))
		return
	case "google.protobuf.Any":
		inner := timestamppb.New(time.Unix(w.Int64N(1e9), 0))
		data, _ := proto.Marshal(inner)
		m.Set(fields.ByName("type_url"), protoreflect.ValueOf("type.googleapis.com/google.protobuf.Timestamp"))
		m.Set(fields.ByName("value"), protoreflect.ValueOf(data))
		return
	case "google.protobuf.Value": // exactly one kind
		oneof := m.Descriptor().Oneofs().Get(0).Fields()
		f := oneof.Get(w.IntN(oneof.Len()))
		if depth <= 0 {
			f = oneof.ByName("bool_value")
		}
		switch f.Name() {
		case "null_value":
			m.Set(f, protoreflect.ValueOfEnum(0))
		case "number_value":
			m.Set(f, protoreflect.ValueOf(float64(w.IntN(100))/4))
		default:
			w.set(m, f, depth)
		}
		return
	}
	for i := range fields.Len() {
		if depth > 0 && w.IntN(3) == 0 {
			w.set(m, fields.Get(i), depth)
		}
	}
}

func (w *world) set(m protoreflect.Message, f protoreflect.FieldDescriptor, depth int) {
	switch {
	case f.IsMap():
		entries := m.Mutable(f).Map()
		for range w.IntN(3) {
			v := entries.NewValue()
			if f.MapValue().Message() != nil {
				w.fill(v.Message(), depth-1)
			} else {
				v = w.scalar(f.MapValue())
			}
			entries.Set(w.scalar(f.MapKey()).MapKey(), v)
		}
	case f.IsList():
		list := m.Mutable(f).List()
		for range w.IntN(3) {
			if f.Message() != nil {
				w.fill(list.AppendMutable().Message(), depth-1)
			} else {
				list.Append(w.scalar(f))
			}
		}
	case f.Message() != nil:
		w.fill(m.Mutable(f).Message(), depth-1)
	default:
		m.Set(f, w.scalar(f))
	}
}

func (w *world) scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	n := int64(w.Uint64()) >> w.IntN(64)
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOf(n&1 == 0)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOf(int32(n))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOf(uint32(n))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOf(uint64(n))
	case protoreflect.FloatKind:
		return protoreflect.ValueOf(float32(n) / 8)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOf(float64(n) / 8)
	case protoreflect.StringKind:
		return protoreflect.ValueOf([]string{"", "a\"b", "é\n😀", "x"}[w.IntN(4)])
	case protoreflect.BytesKind:
		return protoreflect.ValueOf([]byte{byte(n), byte(n >> 8)}[:w.IntN(3)])
	case protoreflect.EnumKind:
		values := f.Enum().Values()
		if !f.Enum().IsClosed() && w.IntN(4) == 0 {
			return protoreflect.ValueOfEnum(99)
		}
		return protoreflect.ValueOfEnum(values.Get(w.IntN(values.Len())).Number())
	default:
		return protoreflect.ValueOf(n)
	}
}

// TestRandomMessages holds what we make of random messages against the library's JSON, and against the JSON schema.
func TestRandomMessages(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := compile(t, everything, Text{"inner.proto", inner})
	next := compile(t, edition)
	for n, d := range []*Decoder{decoder(t, f, 0), decoder(t, next, 0)} {
		valid := compileJSONSchema(t, d.Describe().JSON(""))
		types := dynamicpb.NewTypes(registryOf(t, d))
		options := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true, Resolver: types, AllowPartial: true}
		var dst []byte
		for i := range 300 {
			w := &world{rand.New(rand.NewPCG(seed, uint64(n*1000+i))), types}
			m := dynamicpb.NewMessage(d.root.desc)
			w.fill(m, 4)
			for _, e := range f.extensions[d.root.desc.FullName()] {
				if w.IntN(2) == 0 {
					w.set(m, dynamicpb.NewExtensionType(e).TypeDescriptor(), 1)
				}
			}
			data, err := proto.MarshalOptions{AllowPartial: true}.Marshal(m)
			require.NoError(t, err)
			want, err := options.Marshal(m)
			require.NoError(t, err)
			dst, err = d.Append(dst[:0], data)
			require.NoError(t, err, "%s", want)
			require.Equal(t, normal(t, want), normal(t, dst), "%s", want)
			validate(t, valid, dst)
			for cut := range min(len(data), 300) { // never a panic; a cut may fall between fields
				if out, err := d.Append(nil, data[:cut]); err == nil {
					require.True(t, json.Valid(out), "%s", out)
				}
			}
		}
	}
}

func registryOf(t testing.TB, d *Decoder) *protoregistry.Files {
	files := &protoregistry.Files{}
	var add func(f protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if _, err := files.FindFileByPath(f.Path()); err == nil {
			return
		}
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		require.NoError(t, files.RegisterFile(f))
	}
	add(d.file.file)
	return files
}

// normal is a JSON text in a form that can be compared: without nulls of members, numbers of 64 bits as numbers.
func normal(t testing.TB, text []byte) any {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	require.NoError(t, dec.Decode(&v), "%s", text)
	return simplify(v)
}

func simplify(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			list, isList := e.([]any)
			// The library leaves out extensions that are empty lists.
			if v[k] = simplify(e); v[k] == nil || (isList && len(list) == 0 && strings.HasPrefix(k, "[")) {
				delete(v, k)
			}
		}
		return v
	case []any:
		for i := range v {
			v[i] = simplify(v[i])
		}
		return v
	case json.Number:
		if f, err := v.Float64(); err == nil && strings.ContainsAny(v.String(), ".eE") {
			return f
		}
		if len(v.String()) > 17 { // a float of either notation, or an integer as the library's string
			f, _ := v.Float64()
			return f
		}
		return v.String()
	case string:
		if len(v) > 17 && strings.Trim(v, "-0123456789") == "" {
			f, _ := json.Number(v).Float64()
			return f
		}
		return v
	default:
		return v
	}
}

func compileJSONSchema(t testing.TB, text []byte) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err, "%s", text)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("mem:schema", doc))
	s, err := c.Compile("mem:schema")
	require.NoError(t, err, "%s", text)
	return s
}

func validate(t testing.TB, s *jsonschema.Schema, value []byte) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	require.NoError(t, err)
	require.NoError(t, s.Validate(v), "%s", value)
}

func tag(num int, wire protowire.Type) []byte {
	return protowire.AppendTag(nil, protowire.Number(num), wire)
}

func join(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			b = append(b, p...)
		case string:
			b = protowire.AppendString(b, p)
		case int:
			b = protowire.AppendVarint(b, uint64(p))
		}
	}
	return b
}

// TestOddEncodings: the wire allows what no library writes.
func TestOddEncodings(t *testing.T) {
	t.Parallel()
	const text = `syntax = "proto3"; message M { int32 a = 1; repeated int32 r = 2; M m = 3; map<string, M> by = 4; map<string, int32> n = 5;
		oneof c { int32 x = 6; M y = 7; } string s = 8; bool b = 9; uint32 u = 10; repeated string rs = 11; }`
	d := decoder(t, compile(t, text), 0)
	const varint, length, group, end = protowire.VarintType, protowire.BytesType, protowire.StartGroupType, protowire.EndGroupType
	for _, c := range []struct {
		data []byte
		want string // members that are not zero; or "!" and the error
	}{
		{nil, `{}`},
		{join(tag(1, varint), 1, tag(1, varint), 2), `{"a":2}`},
		{join(tag(2, varint), 1, tag(2, length), "\x02\x03", tag(2, varint), 4), `{"r":[1,2,3,4]}`},
		{join(tag(3, length), "\x08\x05", tag(3, length), "\x10\x06"), `{"m":{"a":5,"r":[6]}}`},
		{join(tag(5, length), "\x0a\x01k\x10\x01", tag(5, length), "\x0a\x01j\x10\x02", tag(5, length), "\x0a\x01k\x10\x03"), `{"n":{"j":2,"k":3}}`},
		{join(tag(5, length), ""), `{"n":{"":0}}`},
		{join(tag(4, length), "\x0a\x01k\x12\x02\x08\x05\x12\x02\x10\x06"), `{"by":{"k":{"a":5,"r":[6]}}}`},
		{join(tag(6, varint), 0), `{"x":0}`},
		{join(tag(6, varint), 5, tag(7, length), "\x08\x01", tag(6, varint), 6), `{"x":6}`},
		{join(tag(7, length), "\x08\x01", tag(6, varint), 6, tag(7, length), "\x10\x02"), `{"y":{"r":[2]}}`},
		{join(tag(99, varint), 5, tag(99, group), tag(99, group), tag(99, end), tag(99, end), tag(1, varint), 7), `{"a":7}`},
		{join(tag(1, length), "x"), `{}`},
		{join(tag(9, varint), 300), `{"b":true}`},
		{join(tag(10, varint), 1<<32|5), `{"u":5}`},
		{join(tag(8, length), "\xff"), `!field "s": a text in it holds bytes that are not UTF-8`},
		{join(tag(11, length), "a", tag(11, length), "\xff"), `!field "rs": a text in it holds bytes that are not UTF-8`},
		{join(tag(5, length), "\x0a\x01\xff\x10\x01"), `!field "n": a text in it holds bytes that are not UTF-8`},
		{join(tag(8, length), 5), `!it ends in the middle of a value`},
		{join(tag(8, length), 1<<40), `!it ends in the middle of a value`},
		{join(tag(1, varint)), `!it ends in the middle of a value`},
		{join(tag(1, varint), []byte(strings.Repeat("\xff", 11))), `!it is no Protobuf`},
		{[]byte{0}, `!it is no Protobuf`},
		{join(tag(99, group)), `!it ends in the middle of a value`},
		{join(tag(99, group), tag(98, end)), `!it is no Protobuf`},
		{join(tag(99, end)), `!it is no Protobuf`},
		{join(tag(2, length), "\x80"), `!field "r": it ends in the middle of a value`},
		{bytes.Repeat(tag(99, group), 1000), `!it is nested too deep`},
	} {
		got, err := d.Append(nil, c.data)
		if want, ok := strings.CutPrefix(c.want, "!"); ok {
			require.EqualError(t, err, want, "%x", c.data)
			continue
		}
		require.NoError(t, err, "%x", c.data)
		require.Equal(t, normal(t, []byte(c.want)), zeroless(normal(t, got)), "%x: %s", c.data, got)
	}
	var deep []byte
	for range 1000 {
		deep = join(tag(3, length), string(deep))
	}
	_, err := d.Append(nil, deep)
	require.ErrorContains(t, err, "it is nested too deep")
}

// zeroless leaves out members that are zero, but for those of oneofs.
func zeroless(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	for k, e := range m {
		e = zeroless(e)
		switch e := e.(type) {
		case string:
			if (e == "" || e == "0") && k != "x" && k != "" {
				delete(m, k)
			}
		case bool:
			if !e {
				delete(m, k)
			}
		case []any:
			if len(e) == 0 {
				delete(m, k)
			}
		case map[string]any:
			if len(e) == 0 {
				delete(m, k)
			}
		}
	}
	return m
}

func TestZeroValuesAreThere(t *testing.T) {
	t.Parallel()
	f := compile(t, everything, Text{"inner.proto", inner})
	d, err := f.Message([]int{0})
	require.NoError(t, err)
	out, err := d.Append(nil, join(tag(60, protowire.BytesType), ""))
	require.NoError(t, err)
	var doc map[string]any
	require.NoError(t, json.Unmarshal(out, &doc))
	require.Equal(t, map[string]any{
		"a": 0.0, "b": 0.0, "s": "", "y": "", "d": 0.0, "o": false, "kind": "NONE", "u": 0.0, "maybe": nil, "kinds": []any{},
		"by": map[string]any{}, "again": nil, "f": 0.0,
	}, doc["inner"])
	require.Contains(t, doc, "b")
	require.Nil(t, doc["b"], "a default is not a value")
	require.NotContains(t, doc, "x", "a oneof shows only what is set")
	require.Contains(t, doc, "[shop.extra]")
}

func TestAnyOfUnknownType(t *testing.T) {
	t.Parallel()
	d := decoder(t, compile(t, `syntax = "proto3"; import "google/protobuf/any.proto";
		message M { google.protobuf.Any a = 1; } message Known { int32 x = 1; }`), 0)
	for inner, want := range map[string]string{
		string(join(tag(1, protowire.BytesType), "t/other.Type", tag(2, protowire.BytesType), "\x08\x01")): `{"a":{"@type":"t/other.Type","value":"CAE="}}`,
		string(join(tag(1, protowire.BytesType), "t/Known", tag(2, protowire.BytesType), "\x08\x01")):      `{"a":{"@type":"t/Known","x":1}}`,
		"": `{"a":{"@type":"","value":""}}`,
	} {
		out, err := d.Append(nil, join(tag(1, protowire.BytesType), inner))
		require.NoError(t, err)
		require.Equal(t, want, string(out))
	}
}

// TestWrongSchemas holds what users read of schemas that cannot be used.
func TestWrongSchemas(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`hello`:                                `it is no Protobuf: sluice/schema.proto:1:1: syntax error: unexpected identifier`,
		`syntax = "proto3"; import "x.proto";`: `it imports "x.proto", which it has no reference to`,
		`syntax = "proto3"; message M { Nobody n = 1; }`: `unknown type Nobody`,
	} {
		_, err := Compile(t.Context(), text, nil)
		require.ErrorContains(t, err, want)
	}
	f := compile(t, `syntax = "proto3"; message M { message N {} }`)
	require.Equal(t, "M.N", decoder(t, f, 0, 0).Name())
	for _, path := range [][]int{{}, {1}, {0, 1}, {-1}} {
		_, err := f.Message(path)
		require.ErrorContains(t, err, "it has no message at")
	}
	compile(t, `syntax = "proto3"; import "confluent/meta.proto"; import "confluent/type/decimal.proto";
		message M { confluent.type.Decimal d = 1 [(confluent.field_meta).doc = "x"]; }`)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for body, want := range map[string][]string{
		`int64 id = 1; string region = 2;`:    {"/id", "/region"},
		`optional int64 id = 1;`:              nil,
		`int64 id = 1; double d = 2;`:         nil,
		`int64 id = 1; repeated int32 r = 2;`: nil,
		`oneof o { int64 id = 1; }`:           nil,
	} {
		d := decoder(t, compile(t, `syntax = "proto3"; message K { `+body+` }`), 0)
		require.Equal(t, want, d.Describe().Keys(), body)
	}
}

func TestDescription(t *testing.T) {
	t.Parallel()
	d := decoder(t, compile(t, `syntax = "proto3"; import "google/protobuf/timestamp.proto";
		// A row.
		message R {
		  // Its number.
		  int64 id = 1; google.protobuf.Timestamp at = 2; R next = 3; map<string, bytes> m = 4; repeated K k = 5; enum K { A = 0; } }`), 0)
	body := `{"type":"object","title":"R","description":"A row.","required":["id","at","next","m","k"],"properties":{
		"id":{"type":"integer","description":"Its number."},"at":{"type":["string","null"],"format":"date-time"},
		"next":{"anyOf":[{"$ref":"#/$defs/R"},{"type":"null"}]},
		"m":{"type":"object","additionalProperties":{"type":"string","contentEncoding":"base64"}},
		"k":{"type":"array","items":{"type":["string","integer"]}}}}`
	require.JSONEq(t, `{"$defs":{"R":`+body+`},`+body[1:], string(d.Describe().JSON("")))
}

// tenFields is a row as applications have it.
const tenFields = `syntax = "proto3"; message Order {
	int64 id = 1; string customer = 2; optional string email = 3; string amount = 4; Status status = 5; int64 created = 6;
	double weight = 7; bool express = 8; optional string note = 9; int32 quantity = 10; enum Status { NEW = 0; PAID = 1; } }`

func tenFieldsRecord(t testing.TB, d *Decoder) []byte {
	m := dynamicpb.NewMessage(d.root.desc)
	require.NoError(t, protojson.Unmarshal([]byte(`{"id":123456789,"customer":"Ada Lovelace, London","email":"ada@example.com",
		"amount":"1234.56","status":"PAID","created":1760000000123456,"weight":12.75,"express":true,"quantity":3}`), m))
	data, err := proto.Marshal(m)
	require.NoError(t, err)
	return data
}

func TestAppendAllocatesNothing(t *testing.T) {
	d := decoder(t, compile(t, tenFields), 0)
	data := tenFieldsRecord(t, d)
	dst, err := d.Append(nil, data)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if dst, err = d.Append(dst[:0], data); err != nil {
			t.Fatal(err)
		}
	}))
}

func BenchmarkAppend(b *testing.B) {
	d := decoder(b, compile(b, tenFields), 0)
	data := tenFieldsRecord(b, d)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			dst, _ = d.Append(dst[:0], data)
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		options := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}
		m := dynamicpb.NewMessage(d.root.desc)
		var dst []byte
		for b.Loop() {
			m.Reset()
			if err := proto.Unmarshal(data, m); err != nil {
				b.Fatal(err)
			}
			var err error
			if dst, err = options.MarshalAppend(dst[:0], m); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// FuzzAppend holds that no bytes make a panic or invalid JSON, and that what the library can read is what we read.
func FuzzAppend(f *testing.F) {
	file := compile(f, everything, Text{"inner.proto", inner})
	d := decoder(f, file, 0)
	valid := compileJSONSchema(f, d.Describe().JSON(""))
	f.Add(join(tag(1, protowire.VarintType), 5, tag(60, protowire.BytesType), "\x08\x01", tag(70, protowire.BytesType), "\x08\x01"))
	f.Add(join(tag(50, protowire.StartGroupType), tag(1, protowire.VarintType), 5, tag(50, protowire.EndGroupType)))
	f.Add(join(tag(31, protowire.BytesType), "\x08\x01\x12\x02\x08\x05", tag(72, protowire.BytesType), "\x0a\x03\x0a\x01a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := d.Append(nil, data)
		if err != nil {
			return
		}
		require.NoError(t, proto.UnmarshalOptions{AllowPartial: true}.Unmarshal(data, dynamicpb.NewMessage(d.root.desc)))
		require.True(t, json.Valid(out), "%q", out)
		validate(t, valid, out)
	})
}
