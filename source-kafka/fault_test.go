package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// faulty is a cluster that fails as it is told to, with a topic of two partitions and a bench at it.
func faulty(t *testing.T, topic string) (*kfake.Cluster, *bench) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(2, topic))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return cluster, benchAt(t, strings.Join(cluster.ListenAddrs(), ","))
}

// What brokers answer while leaders move, disks fail and sessions of fetches end is survived: every record comes once, in order. That
// holds for an offset that is refused although it is there, too.
func TestBrokerErrors(t *testing.T) {
	t.Parallel()
	fetch, list := []kmsg.Key{kmsg.Fetch}, []kmsg.Key{kmsg.ListOffsets}
	one := []int32{1}
	for name, fault := range map[string]kfake.Fault{
		"no leader":          {Keys: fetch, Partitions: one, Count: 3, Err: kerr.NotLeaderForPartition},
		"leader not there":   {Keys: fetch, Partitions: one, Count: 2, Err: kerr.LeaderNotAvailable},
		"old epoch":          {Keys: fetch, Partitions: one, Count: 2, Err: kerr.FencedLeaderEpoch},
		"new epoch":          {Keys: fetch, Partitions: one, Count: 2, Err: kerr.UnknownLeaderEpoch},
		"disk":               {Keys: fetch, Partitions: one, Count: 2, Err: kerr.KafkaStorageError},
		"unknown for now":    {Keys: fetch, Partitions: one, Count: 2, Err: kerr.UnknownTopicOrPartition},
		"out of range":       {Keys: fetch, Partitions: one, Count: 2, Err: kerr.OffsetOutOfRange},
		"session gone":       {Keys: fetch, TopLevel: true, Count: 3, Err: kerr.FetchSessionIDNotFound},
		"session's epoch":    {Keys: fetch, TopLevel: true, Count: 3, Err: kerr.InvalidFetchSessionEpoch},
		"bounds not there":   {Keys: list, Partitions: one, Count: 3, Err: kerr.OffsetNotAvailable},
		"bounds of a leader": {Keys: list, Partitions: one, Count: 3, Err: kerr.NotLeaderForPartition},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster, b := faulty(t, "t")
			b.numbered("t", 2, 0, 10)
			cfg := b.config("t")
			cfg.OnOffsetLoss = lossFail // nothing is lost, and nobody may believe so
			s := session.Start(t, connector(), frame.Proto)
			task := s.Task(cfg)
			before := hitsOf(cluster, fault, fault.Keys[0] == kmsg.ListOffsets)
			s.Open(task, nil)
			r := &run{Session: s, t: t, state: json.RawMessage("{}")}
			r.until(10)
			during := hitsOf(cluster, fault, fault.Keys[0] == kmsg.Fetch)
			for n := 10; n < 60; n += 10 {
				b.numbered("t", 2, n, 10)
				r.until(n + 10)
			}
			require.NoError(t, r.Stop())
			requireNumbers(t, r.docs, 0, 60)
			places(t, r.docs...)
			require.Positive(t, before()+during(), "the fault was met")
		})
	}
}

// hitsOf installs a fault if it is wanted, and returns how often it was met.
func hitsOf(cluster *kfake.Cluster, fault kfake.Fault, wanted bool) func() int {
	if !wanted {
		return func() int { return 0 }
	}
	return cluster.Fault(fault).Hits
}

// What a user has to mend ends the capture, and says so.
func TestFinalBrokerErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  *kerr.Error
		want string
	}{
		{kerr.TopicAuthorizationFailed, "Partition 1 of topic t cannot be read from offset 5: the user may not. Allow it READ and DESCRIBE on the topic."},
		{kerr.UnknownServerError, "Partition 1 of topic t cannot be read from offset 5: the broker answers UNKNOWN_SERVER_ERROR."},
	} {
		cluster, b := faulty(t, "t")
		b.numbered("t", 2, 0, 10)
		r := open(t, b.config("t"), nil)
		r.until(10)
		h := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Partitions: []int32{1}, Count: -1, Err: c.err})
		b.numbered("t", 2, 10, 10)
		require.Contains(t, usererr.Message(r.fails()), c.want)
		h.Remove()
		again := open(t, b.config("t"), r.state)
		again.until(20 - len(r.docs))
		requireNumbers(t, append(r.docs, again.docs...), 0, 20)
	}
}

// batches are what a broker answers to a fetch of partition 0 from its beginning.
func batches(t *testing.T, b *bench) []byte {
	t.Helper()
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MaxBytes = 100, 1<<20
	topic, partition := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	partition.PartitionMaxBytes, partition.CurrentLeaderEpoch = 1<<20, -1
	found, err := b.admin.ListTopics(t.Context(), "t")
	require.NoError(t, err)
	topic.Topic, topic.TopicID, topic.Partitions = "t", found["t"].ID, append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	answer, err := b.client.Broker(int(found["t"].Partitions[0].Leader)).Request(t.Context(), req)
	require.NoError(t, err)
	got, ok := answer.(*kmsg.FetchResponse)
	require.True(t, ok)
	require.Len(t, got.Topics, 1)
	data := got.Topics[0].Partitions[0].RecordBatches
	require.NotEmpty(t, data)
	return data
}

// What comes damaged or in parts is never captured as it is, nor passed over.
func TestDamagedBatches(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		damage func(data []byte) []byte
		want   string // why the capture ends, or nothing if it goes on
	}{
		{"cut", func(data []byte) []byte { return data[:len(data)-7] }, ""},
		{"cut in the first batch", func(data []byte) []byte { return data[:40] }, ""},
		{"nothing", func([]byte) []byte { return nil }, ""},
		{"a changed byte", func(data []byte) []byte { data = bytes.Clone(data); data[len(data)-3] ^= 1; return data }, "Partition 0 of topic t cannot be read from offset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cluster, b := faulty(t, "t")
			for n := range 10 { // a batch each
				b.produce(&kgo.Record{Topic: "t", Value: fmt.Appendf(nil, `{"n":%d}`, n)})
			}
			damaged := c.damage(batches(t, b))
			answered := make(chan struct{})
			cluster.ControlKey(int16(kmsg.Fetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
				req, ok := kreq.(*kmsg.FetchRequest)
				if !ok || len(req.Topics) == 0 || req.Topics[0].Partitions[0].Partition != 0 || req.Topics[0].Partitions[0].FetchOffset != 0 {
					return nil, nil, false
				}
				resp, ok := req.ResponseKind().(*kmsg.FetchResponse)
				if !ok {
					return nil, nil, false
				}
				topic, partition := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
				partition.HighWatermark, partition.LastStableOffset, partition.LogStartOffset, partition.RecordBatches = 10, 10, 0, damaged
				topic.Topic, topic.TopicID, topic.Partitions = "t", req.Topics[0].TopicID, append(topic.Partitions, partition)
				resp.Topics = append(resp.Topics, topic)
				close(answered)
				return resp, nil, true
			})
			cfg := b.config("t")
			cfg.Advanced.SkipSamples = true // the damaged answer is for the capture
			r := open(t, cfg, nil)
			docs := r.docs
			if c.want != "" {
				require.Contains(t, usererr.Message(r.fails()), c.want)
				docs = r.docs
				r = open(t, cfg, r.state)
			}
			r.until(10 - len(docs))
			<-answered
			requireNumbers(t, append(docs, r.docs...), 0, 10)
		})
	}
}

// A record that is larger than all that is asked for at once is captured.
func TestRecordsLargerThanFetches(t *testing.T) {
	t.Parallel()
	_, b := faulty(t, "t")
	large, err := json.Marshal(map[string]any{"n": 1, "text": strings.Repeat("x", 900_000)})
	require.NoError(t, err)
	b.produce(&kgo.Record{Topic: "t", Value: []byte(`{"n":0}`)}, &kgo.Record{Topic: "t", Value: large}, &kgo.Record{Topic: "t", Value: []byte(`{"n":2}`)})
	cfg := b.config("t")
	cfg.Advanced.FetchMaxBytes = 1 << 16
	r := open(t, cfg, nil)
	r.until(3)
	requireNumbers(t, r.docs, 0, 3)
}

// A broker sends a batch whole however large it is: one that is beyond all that is asked for at once, packed and unpacked, is
// captured, with what comes before and behind it.
func TestBatchesLargerThanFetches(t *testing.T) {
	t.Parallel()
	const large = 24 << 20
	b := shared(t)
	topic := b.topic(1, "max.message.bytes", fmt.Sprint(2*large))
	b.numbered(topic, 1, 0, 10)
	for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.Lz4Compression()} {
		producer, err := kgo.NewClient(kgo.SeedBrokers(b.brokers), kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(2*large),
			kgo.BrokerMaxWriteBytes(100<<20), kgo.ProducerLinger(time.Second))
		require.NoError(t, err)
		defer producer.Close()
		var records []*kgo.Record
		for n := range 12 {
			value := fmt.Appendf(nil, `{"n":%d,"text":"%s"}`, 10+12*i+n, strings.Repeat("text ", large/60))
			records = append(records, &kgo.Record{Topic: topic, Value: value})
		}
		require.NoError(t, producer.ProduceSync(t.Context(), records...).FirstErr())
	}
	b.numbered(topic, 1, 34, 10)
	cfg := b.config(topic)
	cfg.Advanced.FetchMaxBytes = 1 << 20
	r := open(t, cfg, nil)
	r.until(44)
	requireNumbers(t, r.docs, 0, 44)
	require.NoError(t, r.Stop())
}
