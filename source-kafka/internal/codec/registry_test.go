package codec

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/source-kafka/internal/registry"
)

// TestRealRegistry speaks to a registry that is none of ours: schemas of all languages with references, through discovery and
// decoding, versions that are deleted, and ids that nobody has.
func TestRealRegistry(t *testing.T) {
	t.Parallel()
	address := server.Registry(t)
	api, err := sr.NewClient(sr.URLs(address))
	require.NoError(t, err)
	client, err := registry.New(registry.Options{URLs: []string{address}})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	require.NoError(t, client.Check(t.Context()))
	b := &bed{api: api, client: client}

	b.register(t, "place", sr.Schema{Schema: `{"type":"record","name":"Place","namespace":"shop","fields":[{"name":"x","type":"int"}]}`})
	v1 := b.register(t, "orders-value", sr.Schema{Schema: userSchema})
	v2 := b.register(t, "orders-value", sr.Schema{
		Schema: `{"type":"record","name":"User","namespace":"shop","fields":[{"name":"id","type":"long"},` +
			`{"name":"name","type":["null","string"]},{"name":"at","type":["null","shop.Place"],"default":null}]}`,
		References: []sr.SchemaReference{{Name: "shop.Place", Subject: "place", Version: 1}},
	})
	b.register(t, "deep.proto", sr.Schema{Type: sr.TypeProtobuf, Schema: `syntax = "proto3"; package shop; message Deep { int32 x = 1; }`})
	p := b.register(t, "events-value", sr.Schema{
		Type:       sr.TypeProtobuf,
		Schema:     `syntax = "proto3"; package shop; import "deep.proto"; message Event { int64 id = 1; shop.Deep deep = 2; }`,
		References: []sr.SchemaReference{{Name: "deep.proto", Subject: "deep.proto", Version: 1}},
	})
	b.register(t, "city.json", sr.Schema{Type: sr.TypeJSON, Schema: `{"$schema":"http://json-schema.org/draft-07/schema#","$id":"https://acme.com/city.json","type":"string"}`})
	j := b.register(t, "people-value", sr.Schema{
		Type: sr.TypeJSON, Schema: `{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","title":"Person","properties":{"city":{"$ref":"city.json"}}}`,
		References: []sr.SchemaReference{{Name: "city.json", Subject: "city.json", Version: 1}},
	})
	for _, r := range []struct {
		id         int
		data, want string
	}{
		{v1.ID, "\x02\x00", `{"id":1,"name":null}`},
		{v2.ID, "\x02\x00\x02\x0e", `{"id":1,"name":null,"at":{"x":7}}`},
		{p.ID, "\x00\x08\x07\x12\x02\x08\x01", `{"id":7,"deep":{"x":1}}`},
		{j.ID, `{"city":"London"}`, `{"city":"London"}`},
	} {
		out, schema, err := b.codec(t, Value, Auto).Append(t.Context(), nil, &kgo.Record{Value: framed(r.id, []byte(r.data)...)})
		require.NoError(t, err)
		require.Equal(t, r.want, string(out))
		require.Equal(t, r.id, schema.ID)
	}

	_, _, err = b.codec(t, Value, Auto).Append(t.Context(), nil, &kgo.Record{Value: framed(123456, 1)})
	require.ErrorContains(t, err, "does not have its schema 123456")

	require.NoError(t, api.DeleteSchema(t.Context(), "orders-value", 1, sr.SoftDelete))
	for topic, want := range map[string]string{
		"orders": `{"type":"object","title":"shop.User","properties":{"id":{"type":"integer"},"name":{"type":["string","null"]},
			"at":{"type":["object","null"],"title":"shop.Place","properties":{"x":{"type":"integer"}}}}}`,
		"events": `{"type":"object","title":"shop.Event","properties":{"id":{"type":"integer"},
			"deep":{"type":["object","null"],"title":"shop.Deep","properties":{"x":{"type":"integer"}}}}}`,
		"people": `{"type":"object","title":"Person","properties":{"city":{"type":"string"}}}`,
	} {
		_, value, problems := b.discover(t, DiscoverOptions{Topic: topic})
		require.Empty(t, problems)
		require.JSONEq(t, want, string(value.JSON))
	}
}
