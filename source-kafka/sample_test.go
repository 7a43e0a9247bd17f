package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/sluicedata/sluice/sdk/capture"
)

// Discovery looks at the newest records: for the schemas that they name, whatever their subjects are called, and for the members of
// JSON that has none. What it saw is no promise: no member has a type, none is required.
func TestDiscoverySamples(t *testing.T) {
	t.Parallel()
	b := shared(t)
	fake := srfake.New()
	t.Cleanup(fake.Close)
	api, err := sr.NewClient(sr.URLs(fake.URL()))
	require.NoError(t, err)
	lonely, err := api.CreateSchema(t.Context(), "com.acme.Lonely", sr.Schema{Schema: `{"type":"record","name":"Lonely","namespace":"com.acme","fields":[{"name":"n","type":"int"}]}`})
	require.NoError(t, err)

	plain, named, quiet, empty := b.topic(3), b.topic(1), b.topic(1), b.topic(2)
	b.produce(
		&kgo.Record{Topic: plain, Value: []byte(`{"n":1,"a\u0062":"x","_key":{}}`)},
		&kgo.Record{Topic: plain, Partition: 2, Value: []byte(`{"n":1.5,"late":null,"":0}`)},
		&kgo.Record{Topic: plain, Partition: 2, Value: []byte(`[{"hidden":1}]`)},
		&kgo.Record{Topic: plain, Partition: 2, Value: []byte(`{"broken":`)},
		&kgo.Record{Topic: plain, Partition: 2, Key: []byte("gone")},
		&kgo.Record{Topic: named, Value: append(binary.BigEndian.AppendUint32([]byte{0}, uint32(lonely.ID)), 2)}, //nolint:gosec // a small number
	)
	for n := range 100 { // the newest are those of a transaction, behind which its end stands
		b.produce(&kgo.Record{Topic: quiet, Value: fmt.Appendf(nil, `{"old%d":1}`, n)})
	}
	producer, err := kgo.NewClient(kgo.SeedBrokers(b.brokers), kgo.TransactionalID(quiet), kgo.DefaultProduceTopic(quiet))
	require.NoError(t, err)
	defer producer.Close()
	for member, end := range map[string]kgo.TransactionEndTry{"committed": kgo.TryCommit, "aborted": kgo.TryAbort} {
		require.NoError(t, producer.BeginTransaction())
		require.NoError(t, producer.ProduceSync(t.Context(), kgo.StringRecord(`{"`+member+`":1}`)).FirstErr())
		require.NoError(t, producer.EndTransaction(t.Context(), end))
	}

	cfg := b.config(plain, named, quiet, empty)
	cfg.SchemaRegistry.Endpoint = fake.URL()
	members := b.discovered(t.Context(), cfg)
	require.Equal(t, []string{"_meta", "ab", "late", "n", "__key"}, keysOf(members[plain], "_meta", "ab", "late", "n", "__key", "hidden", "broken", ""))
	require.JSONEq(t, `{"x-infer-schema":true,"description":"In samples: integer or number. Types are learned from the records."}`, string(members[plain]["n"]))
	require.JSONEq(t, `{"type":"integer"}`, string(members[named]["n"]))
	require.Equal(t, []string{"committed", "old99"}, keysOf(members[quiet], "committed", "aborted", "old1", "old99"))
	require.Len(t, members[empty], 2, "the key and the place")

	cfg.Advanced.SkipSamples = true
	members = b.discovered(t.Context(), cfg)
	for _, topic := range []string{plain, named, quiet} {
		require.Len(t, members[topic], 2, topic)
	}
}

// discovered are the members that the schemas of discovered collections have, by topic.
func (b *bench) discovered(ctx context.Context, cfg config) map[string]map[string]json.RawMessage {
	b.t.Helper()
	found, err := source{}.Discover(ctx, capture.Env{Log: logrus.NewEntry(logrus.New())}, cfg)
	require.NoError(b.t, err)
	all := map[string]map[string]json.RawMessage{}
	for _, c := range found {
		var schema struct {
			Properties map[string]json.RawMessage `json:"properties"`
		}
		require.NoError(b.t, json.Unmarshal(c.Schema, &schema))
		all[c.Resource.Topic] = schema.Properties
	}
	return all
}

// keysOf are those of the names that are members.
func keysOf(members map[string]json.RawMessage, names ...string) (found []string) {
	for _, name := range names {
		if members[name] != nil {
			found = append(found, name)
		}
	}
	return found
}
