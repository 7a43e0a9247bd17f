package codec

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/sluicedata/sluice/source-kafka/internal/registry"
)

func (b *bed) discover(t *testing.T, opts DiscoverOptions) (key, value *Schema, problems []error) {
	c, err := NewCatalog(t.Context(), b.client)
	require.NoError(t, err)
	key, value, problems, err = c.Discover(t.Context(), opts)
	require.NoError(t, err)
	return key, value, problems
}

func TestDiscoverWithoutRegistry(t *testing.T) {
	t.Parallel()
	c, err := NewCatalog(t.Context(), nil)
	require.NoError(t, err)
	key, value, problems, err := c.Discover(t.Context(), DiscoverOptions{Topic: "a", ValueFormat: Avro})
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Equal(t, stringSchema, key)
	require.Nil(t, value)
}

// TestDiscoverAllVersions: records of every version are in the topic, deleted ones too.
func TestDiscoverAllVersions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.register(t, "orders-key", sr.Schema{Schema: `{"type":"record","name":"K","fields":[{"name":"id","type":"long"}]}`})
	b.register(t, "orders-value", sr.Schema{Schema: `{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":"string"}]}`})
	require.NoError(t, b.fake.SetCompat("orders-value", sr.CompatNone))
	b.register(t, "orders-value", sr.Schema{Schema: `{"type":"record","name":"R","fields":[{"name":"a","type":["null","int"]},{"name":"c","type":"double"}]}`})
	err := b.api.DeleteSchema(t.Context(), "orders-value", 1, sr.SoftDelete)
	require.NoError(t, err)
	key, value, problems := b.discover(t, DiscoverOptions{Topic: "orders"})
	require.Empty(t, problems)
	require.Equal(t, []string{"/id"}, key.Keys)
	require.JSONEq(t, `{"type":"object","title":"K","properties":{"id":{"type":"integer"}},"required":["id"]}`, string(key.JSON))
	require.True(t, value.Object)
	require.Equal(t, []string{"a", "b", "c"}, value.Members)
	require.JSONEq(t, `{"type":"object","title":"R","properties":{"a":{"type":["integer","null"]},"b":{"type":"string"},
		"c":{"type":["number","string"],"format":"number"}}}`, string(value.JSON))
}

func TestSubjectStrategies(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	record := func(name, field string) sr.Schema {
		return sr.Schema{Schema: `{"type":"record","name":"` + name + `","fields":[{"name":"` + field + `","type":"int"}]}`}
	}
	b.register(t, "orders-com.acme.Made", record("com.acme.Made", "made"))
	b.register(t, "orders-com.acme.Paid", record("com.acme.Paid", "paid"))
	b.register(t, "orders-eu-com.acme.Made", record("com.acme.Made", "eu"))
	b.register(t, "orders-com.acme.Key", record("com.acme.Key", "id"))
	lonely := b.register(t, "com.acme.Lonely", record("com.acme.Lonely", "lonely"))
	keyed, err := b.api.Schemas(t.Context(), "orders-com.acme.Key")
	require.NoError(t, err)

	// Topic and record: without samples, all are values.
	_, value, _ := b.discover(t, DiscoverOptions{Topic: "orders"})
	require.Contains(t, string(value.JSON), `"made"`)
	require.Contains(t, string(value.JSON), `"paid"`)
	require.Contains(t, string(value.JSON), `"id"`)
	require.NotContains(t, string(value.JSON), `"eu"`)
	require.False(t, value.Object)

	// The record alone, and whose key: by samples.
	made, err := b.api.Schemas(t.Context(), "orders-com.acme.Made")
	require.NoError(t, err)
	samples := []*kgo.Record{
		{Key: framed(keyed[0].ID, 2), Value: framed(lonely.ID, 2)}, {Value: framed(made[0].ID, 2)}, {Key: nil, Value: []byte{0}},
	}
	key, value, problems := b.discover(t, DiscoverOptions{Topic: "orders", Samples: samples})
	require.Empty(t, problems)
	require.Equal(t, []string{"/id"}, key.Keys)
	require.Contains(t, string(value.JSON), `"lonely"`)
	require.Contains(t, string(value.JSON), `"made"`)
	require.NotContains(t, string(value.JSON), `"paid"`)

	// Plain keys among those with a schema are in no way a key.
	samples = append(samples, &kgo.Record{Key: []byte("plain")})
	key, _, _ = b.discover(t, DiscoverOptions{Topic: "orders", Samples: samples})
	require.Nil(t, key.Keys)
	require.False(t, key.Object)
}

func TestDiscoverProtobuf(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := b.register(t, "orders-value", sr.Schema{Type: sr.TypeProtobuf, Schema: `syntax = "proto3";
		message Part { int32 x = 1; } message Order { int64 id = 1; Part part = 2; } message Refund { string why = 1; }`})
	_, value, _ := b.discover(t, DiscoverOptions{Topic: "orders"})
	require.JSONEq(t, `{"anyOf":[{"type":"object","title":"Order","properties":{"id":{"type":"integer"},
		"part":{"type":["object","null"],"title":"Part","properties":{"x":{"type":"integer"}}}}},
		{"type":"object","title":"Refund","properties":{"why":{"type":"string"}}}]}`, string(value.JSON))
	_, value, _ = b.discover(t, DiscoverOptions{Topic: "orders", Samples: []*kgo.Record{{Value: framed(s.ID, 2, 4)}}})
	require.JSONEq(t, `{"type":"object","title":"Refund","properties":{"why":{"type":"string"}}}`, string(value.JSON))
	require.True(t, value.Object)
}

func TestDiscoverJSONSchema(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.register(t, "orders-key", sr.Schema{Type: sr.TypeJSON, Schema: `{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"]}`})
	b.register(t, "orders-value", sr.Schema{Type: sr.TypeJSON, Schema: `{"$schema":"http://json-schema.org/draft-07/schema#","title":"Order",
		"type":"object","additionalProperties":false,"properties":{"id":{"type":"integer","minimum":5}},"required":["id"]}`})
	key, value, _ := b.discover(t, DiscoverOptions{Topic: "orders"})
	require.Nil(t, key.Keys, "nobody proves that the member is there")
	require.True(t, value.Object)
	require.Nil(t, value.Members)
	require.JSONEq(t, `{"title":"Order","type":"object","properties":{"id":{"type":"integer"}}}`, string(value.JSON))
}

func TestDiscoverProblems(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.fake.SeedSchema("orders-value", 1, 77, sr.Schema{Schema: `{"type":"record","name":"R"}`})
	_, value, problems := b.discover(t, DiscoverOptions{Topic: "orders", Samples: []*kgo.Record{{Topic: "orders", Key: framed(4242)}}})
	require.Same(t, anySchema, value)
	require.Len(t, problems, 2)
	require.EqualError(t, problems[0], `topic "orders": the registry does not have schema 4242 of its keys`)
	require.EqualError(t, problems[1], `topic "orders": schema 77 of its values cannot be used: the record "R" has no list of fields`)

	c, err := NewCatalog(t.Context(), b.client)
	require.NoError(t, err)
	b.fake.Intercept(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true })
	_, _, _, err = c.Discover(t.Context(), DiscoverOptions{Topic: "orders"})
	require.True(t, registry.IsUnavailable(err))
	_, err = NewCatalog(t.Context(), b.client)
	require.True(t, registry.IsUnavailable(err))
}
