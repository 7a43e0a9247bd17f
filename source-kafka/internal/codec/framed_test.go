package codec

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-kafka/internal/registry"
)

// bed is a registry with a client.
type bed struct {
	fake   *srfake.Registry
	api    *sr.Client
	client *registry.Client
}

func newBed(t testing.TB) *bed {
	fake := srfake.New()
	t.Cleanup(fake.Close)
	api, err := sr.NewClient(sr.URLs(fake.URL()))
	require.NoError(t, err)
	client, err := registry.New(registry.Options{URLs: []string{fake.URL()}, Retry: retry.Backoff{Min: 1, Max: 1, Attempts: 2}})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return &bed{fake, api, client}
}

func (b *bed) register(t testing.TB, subject string, s sr.Schema) sr.SubjectSchema {
	answer, err := b.api.CreateSchema(t.Context(), subject, s)
	require.NoError(t, err)
	return answer
}

func (b *bed) codec(t testing.TB, side Side, format Format) *Codec {
	c, err := New(Options{Topic: "orders", Side: side, Format: format, Registry: b.client})
	require.NoError(t, err)
	return c
}

// framed is data behind the id of a schema.
func framed(id int, data ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), data...)
}

func encode(t testing.TB, schema string, v any) []byte {
	s, err := avro.Parse(schema)
	require.NoError(t, err)
	data, err := s.Encode(v)
	require.NoError(t, err)
	return data
}

const userSchema = `{"type":"record","name":"shop.User","fields":[{"name":"id","type":"long"},{"name":"name","type":["null","string"]}]}`

func TestAvroOfARegistry(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	v1 := b.register(t, "orders-value", sr.Schema{Schema: userSchema})
	second := `{"type":"record","name":"shop.User","fields":[{"name":"id","type":"long"},{"name":"at","type":"shop.Place","default":{"x":1}}]}`
	b.register(t, "place", sr.Schema{Schema: `{"type":"record","name":"shop.Place","fields":[{"name":"x","type":"int"}]}`})
	v2 := b.register(t, "other", sr.Schema{Schema: second, References: []sr.SchemaReference{{Name: "shop.Place", Subject: "place", Version: 1}}})
	c := b.codec(t, Value, Auto)
	var schemas []*Schema
	for _, r := range []struct{ data, want string }{
		{string(framed(v1.ID)) + "\x02\x02\x02a", `{"id":1,"name":"a"}`},
		{string(framed(v1.ID)) + "\x04\x00", `{"id":2,"name":null}`},
		{string(framed(v2.ID)) + "\x06\x0e", `{"id":3,"at":{"x":7}}`},
		{string(framed(v1.ID)) + "\x08\x00", `{"id":4,"name":null}`},
		{`{"plain":1}`, `{"plain":1}`},
	} {
		out, schema, err := c.Append(t.Context(), nil, &kgo.Record{Value: []byte(r.data)})
		require.NoError(t, err)
		require.Equal(t, r.want, string(out))
		schemas = append(schemas, schema)
	}
	require.Same(t, schemas[0], schemas[1])
	require.NotSame(t, schemas[1], schemas[2])
	require.Same(t, schemas[0], schemas[3])
	require.Equal(t, v1.ID, schemas[0].ID)
	require.Equal(t, "shop.User", schemas[0].Name)
	require.True(t, schemas[0].Object)
	require.Equal(t, []string{"id", "name"}, schemas[0].Members)
	require.Nil(t, schemas[0].Keys, "a name may be missing")
	require.False(t, schemas[4].Object)
}

// A record that does not follow its schema is told of in the same words, whether it is the first of the schema or not; and a header names
// the schema of a record whose bytes begin as those of the one before.
func TestRecordsOfTheLastSchema(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := b.register(t, "orders-value", sr.Schema{Schema: userSchema})
	bytes := b.register(t, "bytes", sr.Schema{Schema: `{"type":"fixed","name":"F","size":5}`})
	c := b.codec(t, Value, Auto)
	bad := &kgo.Record{Value: framed(s.ID, 2)}
	_, _, first := c.Append(t.Context(), nil, bad)
	require.ErrorContains(t, first, `it does not follow its schema, schema 1: field "name": it ends in the middle of a value`)
	for range 2 {
		out, schema, err := c.Append(t.Context(), []byte("x"), &kgo.Record{Value: framed(s.ID, 2, 0)})
		require.NoError(t, err)
		require.Equal(t, `x{"id":1,"name":null}`, string(out))
		require.Equal(t, s.ID, schema.ID)
		out, _, err = c.Append(t.Context(), []byte("x"), bad)
		require.EqualError(t, err, first.Error())
		require.Equal(t, "x", string(out))
		out, schema, err = c.Append(t.Context(), nil, &kgo.Record{Value: framed(s.ID), Headers: []kgo.RecordHeader{{Key: valueHeader, Value: framed(bytes.ID)}}})
		require.NoError(t, err)
		require.Equal(t, `"AAAAAAE="`, string(out))
		require.Equal(t, bytes.ID, schema.ID)
	}
}

func TestSchemaIDsInHeaders(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := b.register(t, "orders-value", sr.Schema{Schema: userSchema})
	guid := s.GUID
	if guid == "" {
		all, err := b.api.Schemas(t.Context(), "orders-value")
		require.NoError(t, err)
		guid = all[0].GUID
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(guid, "-", ""))
	require.NoError(t, err)
	c := b.codec(t, Value, Avro)
	for _, header := range [][]byte{append([]byte{1}, raw...), framed(s.ID)} {
		out, _, err := c.Append(t.Context(), nil, &kgo.Record{
			Value: []byte("\x02\x00"), Headers: []kgo.RecordHeader{{Key: "x"}, {Key: valueHeader, Value: header}},
		})
		require.NoError(t, err)
		require.Equal(t, `{"id":1,"name":null}`, string(out))
	}
	_, _, err = c.Append(t.Context(), nil, &kgo.Record{
		Value: []byte("\x02"), Headers: []kgo.RecordHeader{{Key: valueHeader, Value: append([]byte{1}, raw...)}},
	})
	require.ErrorContains(t, err, "it does not follow its schema, schema "+guid+": field \"name\": it ends in the middle of a value")
}

func TestProtobufOfARegistry(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.register(t, "place", sr.Schema{Schema: `syntax = "proto3"; message Place { int32 x = 1; }`, Type: sr.TypeProtobuf})
	s := b.register(t, "orders-value", sr.Schema{
		Schema: `syntax = "proto3"; import "place.proto";
			message User { int64 id = 1; Place at = 2; } message Other { message Deep { string s = 1; } }`,
		Type: sr.TypeProtobuf, References: []sr.SchemaReference{{Name: "place.proto", Subject: "place", Version: 1}},
	})
	c := b.codec(t, Value, Auto)
	names := map[string]*Schema{}
	for _, r := range []struct{ path, data, want, name string }{
		{"\x00", "\x08\x07\x12\x02\x08\x01", `{"id":7,"at":{"x":1}}`, "User"},
		{"\x00", "", `{"id":0,"at":null}`, "User"},
		{"\x02\x00", "\x08\x07", `{"id":7,"at":null}`, "User"},
		{"\x04\x02\x00", "\x0a\x01a", `{"s":"a"}`, "Other.Deep"},
		{"\x00", "\x08\x07", `{"id":7,"at":null}`, "User"},
	} {
		out, schema, err := c.Append(t.Context(), nil, &kgo.Record{Value: framed(s.ID, []byte(r.path+r.data)...)})
		require.NoError(t, err)
		require.Equal(t, r.want, string(out))
		require.Equal(t, r.name, schema.Name)
		if r.path == "\x00" && names[r.name] != nil {
			require.Same(t, names[r.name], schema)
		}
		names[r.name] = schema
		// The path in a header, and the data alone.
		out, _, err = c.Append(t.Context(), nil, &kgo.Record{
			Value: []byte(r.data), Headers: []kgo.RecordHeader{{Key: valueHeader, Value: framed(s.ID, []byte(r.path)...)}},
		})
		require.NoError(t, err)
		require.Equal(t, r.want, string(out))
	}
	for path, want := range map[string]string{
		"":         "the number of its message type cannot be read",
		"\x80":     "the number of its message type cannot be read",
		"\x01":     "the number of its message type cannot be read",
		"\x02":     "the number of its message type cannot be read",
		"\x02\x0a": "it has no message at [5]",
	} {
		_, _, err := c.Append(t.Context(), nil, &kgo.Record{Value: framed(s.ID, []byte(path)...)})
		require.ErrorContains(t, err, want, "%x", path)
	}
	b.fake.SeedSchema("broken", 1, 78, sr.Schema{Schema: `syntax = "proto3"; import "gone.proto";`, Type: sr.TypeProtobuf})
	_, _, err := c.Append(t.Context(), nil, &kgo.Record{Value: framed(78, 0)})
	require.ErrorContains(t, err, `its schema 78 cannot be used: it is no Protobuf: sluice/schema.proto:1:27: it imports "gone.proto", which it has no reference to`)
}

// TestBadMessages holds what users read of records that name a schema and cannot be decoded.
func TestBadMessages(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	user := b.register(t, "orders-value", sr.Schema{Schema: userSchema})
	odd := b.register(t, "odd", sr.Schema{Schema: `{"type":"record","name":"R","fields":[]}`, Type: sr.TypeJSON})
	b.fake.SeedSchema("broken", 1, 77, sr.Schema{Schema: `{"type":"record","name":"R"}`})
	address := b.fake.URL()
	for _, c := range []struct {
		format Format
		data   []byte
		want   string
	}{
		{Auto, framed(user.ID, 2, 9), "it does not follow its schema, schema 1: field \"name\": a union of 2 branches has no branch -5"},
		{Auto, framed(user.ID, 2, 0, 0), "it does not follow its schema, schema 1: 1 bytes are left behind its value"},
		{Auto, framed(4242), "the schema registry at " + address + " does not have its schema 4242"},
		{Auto, framed(77), `its schema 77 cannot be used: the record "R" has no list of fields`},
		{Avro, framed(odd.ID, '{', '}'), "its schema 2 cannot be used: it is of the type JSON Schema, and the topic's valueFormat is avro"},
		{JSONSchema, framed(user.ID, 2, 0), "its schema 1 cannot be used: it is of the type Avro, and the topic's valueFormat is json-schema"},
		{JSONSchema, framed(odd.ID, '{'), "it does not follow its schema, schema 2: it is no JSON"},
	} {
		codec := b.codec(t, Value, c.format)
		for range 2 { // the second time from memory
			out, schema, err := codec.Append(t.Context(), []byte("x"), &kgo.Record{Value: c.data})
			var bad *BadMessage
			require.ErrorAs(t, err, &bad)
			require.Equal(t, c.want, bad.Reason)
			require.Equal(t, `the value of a record of topic "orders" cannot be decoded: `+c.want, bad.Error())
			require.Equal(t, "x", string(out))
			require.NotNil(t, schema)
		}
	}
}

// TestAnOutageIsNoBadMessage: a record must not be skipped because nobody could be asked for its schema.
func TestAnOutageIsNoBadMessage(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	user := b.register(t, "orders-value", sr.Schema{Schema: userSchema})
	var down atomic.Bool
	down.Store(true)
	b.fake.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return down.Load()
	})
	c := b.codec(t, Value, Auto)
	rec := &kgo.Record{Value: framed(user.ID, 2, 0)}
	_, _, err := c.Append(t.Context(), nil, rec)
	var bad *BadMessage
	require.False(t, errors.As(err, &bad))
	require.True(t, registry.IsUnavailable(err))
	require.Equal(t, "The schema registry at "+b.fake.URL()+" cannot answer now (HTTP status 503).", usererr.Message(err))
	down.Store(false)
	out, _, err := c.Append(t.Context(), nil, rec)
	require.NoError(t, err)
	require.Equal(t, `{"id":1,"name":null}`, string(out))
}

func TestKeysOfARegistry(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	key := b.register(t, "orders-key", sr.Schema{Schema: `{"type":"record","name":"K","fields":[{"name":"id","type":"long"}]}`})
	c := b.codec(t, Key, Auto)
	out, schema, err := c.Append(t.Context(), nil, &kgo.Record{Key: framed(key.ID, 2), Value: []byte("\x00")})
	require.NoError(t, err)
	require.Equal(t, `{"id":1}`, string(out))
	require.Equal(t, []string{"/id"}, schema.Keys)
}

func BenchmarkAppend(b *testing.B) {
	bed := newBed(b)
	user := bed.register(b, "orders-value", sr.Schema{Schema: userSchema})
	text := []byte(`{"id":123456789,"customer":"Ada Lovelace, London","email":"ada@example.com","amount":"1234.56",` +
		`"status":"PAID","created":"2025-10-09T08:53:20.123456Z","weight":12.75,"express":true,"note":null,"quantity":3,` +
		`"address":{"street":"St James's Square 12","city":"London","country":"GB"},"tags":["first","gift"],"comment":"none so far, thanks"}`)
	for name, c := range map[string]struct {
		side Side
		data []byte
	}{
		"json": {Value, text},
		"text": {Key, []byte("customer-123456789")},
		"avro": {Value, framed(user.ID, encode(b, userSchema, map[string]any{"id": int64(7), "name": "Ada"})...)},
	} {
		b.Run(name, func(b *testing.B) {
			codec := bed.codec(b, c.side, Auto)
			rec := &kgo.Record{Key: c.data, Value: c.data}
			var dst []byte
			b.ReportAllocs()
			b.SetBytes(int64(len(c.data)))
			for b.Loop() {
				var err error
				if dst, _, err = codec.Append(b.Context(), dst[:0], rec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	b := newBed(t)
	user := b.register(t, "orders-value", sr.Schema{Schema: userSchema})
	for _, data := range [][]byte{framed(user.ID, 2, 0), []byte(`{"a":[1,"\"x\"",null]}`)} {
		c := b.codec(t, Value, Auto)
		rec := &kgo.Record{Value: data, Headers: []kgo.RecordHeader{{Key: "trace"}}}
		dst := make([]byte, 0, 4096)
		_, _, err := c.Append(t.Context(), dst, rec)
		require.NoError(t, err)
		ctx := t.Context()
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if _, _, err := c.Append(ctx, dst, rec); err != nil {
				t.Fatal(err)
			}
		}))
	}
}

// FuzzFrames holds that no header and no bytes make a panic, and that whatever is read of them is JSON.
func FuzzFrames(f *testing.F) {
	b := newBed(f)
	avroSchema := b.register(f, "a", sr.Schema{Schema: userSchema})
	proto := b.register(f, "p", sr.Schema{Type: sr.TypeProtobuf, Schema: `syntax = "proto3"; message M { string s = 1; message N { M m = 1; } }`})
	f.Add(framed(avroSchema.ID, 2, 0), []byte(nil))
	f.Add(framed(proto.ID, 4, 0, 0, 10, 3, 10, 1, 'a'), []byte(nil))
	f.Add([]byte("\x0a\x01a"), framed(proto.ID, 0))
	f.Add([]byte(`{"a":1}`), []byte("\x01"))
	f.Fuzz(func(t *testing.T, data, header []byte) {
		if len(data) > 5 && data[0] == 0 && data[4] > 2 || len(header) > 5 && header[4] > 2 {
			return // asking for schemas that nobody has takes its time
		}
		for _, side := range []Side{Key, Value} {
			rec := &kgo.Record{Key: data, Value: data}
			if header != nil {
				rec.Headers = []kgo.RecordHeader{{Key: valueHeader, Value: header}}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			out, schema, err := b.codec(t, side, Auto).Append(ctx, nil, rec)
			cancel()
			require.NotNil(t, schema)
			if err == nil {
				require.True(t, json.Valid(out), "%q", out)
			}
		}
	})
}
