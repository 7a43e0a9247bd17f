package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/sluicedata/sluice/source-kafka/internal/registry"
)

// Every schema that records name is announced once, before long: the runtime learns of members, and of what they may be, from
// what the producers agreed on and not from the values that happen to come.
func TestNewSchemasAreAnnounced(t *testing.T) {
	t.Parallel()
	fake := srfake.New()
	t.Cleanup(fake.Close)
	api, err := sr.NewClient(sr.URLs(fake.URL()))
	require.NoError(t, err)
	framed := func(subject, schema, data string) []byte {
		s, err := api.CreateSchema(t.Context(), subject, sr.Schema{Schema: schema})
		require.NoError(t, err)
		return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(s.ID)), data...) //nolint:gosec // a small number
	}
	reg, err := registry.New(registry.Options{URLs: []string{fake.URL()}})
	require.NoError(t, err)
	t.Cleanup(reg.Close)

	key := framed("t-key", `{"type":"record","name":"K","fields":[{"name":"id","type":"long"}]}`, "\x02")
	v1 := framed("t-value", `{"type":"record","name":"V","fields":[{"name":"_key","type":"int"},{"name":"to","type":{"type":"record","name":"P","fields":[{"name":"zip","type":"string"}]}}]}`, "\x02\x02x")
	v2 := framed("t-value", `{"type":"record","name":"V","fields":[{"name":"_key","type":"int"},{"name":"note","type":["null","string"],"default":null}]}`, "\x02\x00")
	d, err := newDocuments(resource{Topic: "t"}, []string{"/_key/id"}, reg)
	require.NoError(t, err)
	var got []json.RawMessage
	for _, rec := range []struct {
		value   []byte
		follows int // of what was announced
	}{{nil, 0}, {v1, 1}, {v1, 1}, {v2, 2}, {nil, 2}, {v1, 1}, {v2, 2}} {
		doc, err := d.append(t.Context(), nil, &kgo.Record{Topic: "t", Key: key, Value: rec.value, LeaderEpoch: -1, Headers: []kgo.RecordHeader{{Key: "h"}}})
		require.NoError(t, err)
		news, err := d.announcement()
		require.NoError(t, err)
		if news != nil {
			got = append(got, news)
		}
		require.NoError(t, valid(t, got[rec.follows], doc), "%s", doc)
	}
	require.Len(t, got, 3, "of keys alone, of either version")
	var second struct {
		Properties           map[string]json.RawMessage `json:"properties"`
		Required             []string                   `json:"required"`
		AdditionalProperties any                        `json:"additionalProperties"`
	}
	require.NoError(t, json.Unmarshal(got[1], &second))
	require.Equal(t, false, second.AdditionalProperties)
	require.ElementsMatch(t, []string{"_key", "_meta"}, second.Required, "tombstones have no more")
	require.JSONEq(t, `{"type":"integer"}`, string(second.Properties["__key"]))
	require.JSONEq(t, `{"type":"object","title":"K","properties":{"id":{"type":"integer"}},"required":["id"],"additionalProperties":false}`, string(second.Properties["_key"]))
	require.JSONEq(t, `{"type":"object","title":"P","properties":{"zip":{"type":"string"}},"required":["zip"],"additionalProperties":false}`, string(second.Properties["to"]))
	require.Error(t, valid(t, got[1], []byte(`{"_key":{"id":1},"_meta":{"op":"u","topic":"t","partition":0,"offset":0},"other":1}`)))

	// A key in the values: it is as required as it was.
	d, err = newDocuments(resource{Topic: "t"}, []string{"/to/zip"}, reg)
	require.NoError(t, err)
	_, err = d.append(t.Context(), nil, &kgo.Record{Topic: "t", Value: v1})
	require.NoError(t, err)
	news, err := d.announcement()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(news, &second))
	require.ElementsMatch(t, []string{"__key", "to", "_meta"}, second.Required)

	// Without a registry there is nothing to say; nor where the key's part is not known.
	for _, c := range []struct {
		r     resource
		key   string
		value []byte
	}{{resource{Topic: "t"}, "/_key", []byte(`{}`)}, {resource{Topic: "t", KeyFormat: "json"}, "/_key/id", v1}} {
		d, err = newDocuments(c.r, []string{c.key}, reg)
		require.NoError(t, err)
		_, err = d.append(t.Context(), nil, &kgo.Record{Topic: "t", Key: []byte(`{"id":1}`), Value: c.value})
		require.NoError(t, err)
		news, err = d.announcement()
		require.NoError(t, err)
		require.Nil(t, news)
	}
}

// Values that may be objects are documents' members then, and not in _value.
func TestValuesThatMayBeObjects(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{`{}`, `{"type":["object","null"],"properties":{"a":{"type":"string"}}}`, `{"anyOf":[{"type":"object"},{"type":"object"}]}`} {
		properties := schemaParts{}
		required, err := valueSchema(json.RawMessage(schema), false, properties, schemaParts{})
		require.NoError(t, err)
		require.Empty(t, required)
		require.Empty(t, properties)
	}
	properties := schemaParts{}
	required, err := valueSchema(json.RawMessage(`{"type":["string","null"]}`), false, properties, schemaParts{})
	require.NoError(t, err)
	require.Equal(t, []string{"_value"}, required)
	require.JSONEq(t, `{"type":["string","null"]}`, string(properties["_value"]))
}

// valid tells whether a document follows a schema.
func valid(t testing.TB, schema json.RawMessage, doc []byte) error {
	t.Helper()
	s, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("schema.json", s))
	compiled, err := c.Compile("schema.json")
	require.NoError(t, err)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	require.NoError(t, err)
	return compiled.Validate(v)
}
