package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
	"golang.org/x/oauth2"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// What keeps topics from being captured is said before a capture begins, and when it is opened.
func TestTopicsThatCannotBeCaptured(t *testing.T) {
	t.Parallel()
	_, b := faulty(t, "t")
	check := func(r resource) string {
		t.Helper()
		err := source{}.Check(t.Context(), capture.Env{Log: logrus.NewEntry(logrus.New())}, b.config("t"), []resource{r})
		require.Error(t, err)
		return usererr.Message(err)
	}
	require.Contains(t, check(resource{Topic: "nobody"}), "Topic nobody does not exist, or the user may not see it. Create it, or allow the user DESCRIBE and READ on it.")
	for _, format := range []string{"avro", "protobuf", "json-schema"} {
		require.Contains(t, check(resource{Topic: "t", KeyFormat: format}), "The format "+format+" of topic t needs a schema registry. Enter its address in schemaRegistry.endpoint.")
		require.Contains(t, check(resource{Topic: "t", ValueFormat: format}), "The format "+format+" of topic t needs a schema registry.")
	}

	s := session.Start(t, connector(), frame.Proto)
	task := s.Task(b.config("t"))
	task.Bindings[0].ResourceConfigJson = json.RawMessage(`{"topic":"nobody"}`)
	s.AskOpen(task, nil)
	require.Error(t, s.Opened())
	require.Contains(t, usererr.Message(s.Wait()), "Topic nobody does not exist, or the user may not see it.")

	// Leaders that do not answer.
	wanted := map[string]map[int32]*position{"t": {0: nil, 1: nil, 2: nil}}
	errs := leaderless(wanted, offsets{"t": {1: &bounds{}}}, b.config("t"), &pulse{})
	require.Len(t, errs, 1)
	require.Equal(t, "The leaders of partitions [0 2] of topic t do not answer. Are all brokers of the cluster at "+b.brokers+
		" up, and can they be reached from here by the addresses that they advertise?", usererr.Message(errs[0]))
}

// A cluster that answers nothing any more ends the capture, which says so.
func TestSilentCluster(t *testing.T) {
	t.Parallel()
	cluster, b := faulty(t, "t")
	b.numbered("t", 2, 0, 10)
	cfg := b.config("t")
	cfg.Advanced.ReadTimeout = "5s"
	r := open(t, cfg, nil)
	r.until(10)
	cluster.Close()
	message := usererr.Message(r.fails())
	require.Contains(t, message, "No broker at "+b.brokers+" has answered for ")
	require.Contains(t, message, ", so the capture ends, to be started again.")
}

// What a broker appends by its own clock says so.
func TestTimesOfBrokers(t *testing.T) {
	t.Parallel()
	b := shared(t)
	topic := b.topic(1, "message.timestamp.type", "LogAppendTime")
	begin := time.Now()
	b.produce(&kgo.Record{Topic: topic, Value: []byte(`{}`), Timestamp: time.UnixMilli(1000)})
	r := open(t, b.config(topic), nil)
	r.until(1)
	m := parse(t, r.docs[0]).Meta
	require.Equal(t, "append", m.TsType)
	require.WithinDuration(t, begin, time.UnixMilli(m.TsMs), 5*time.Minute)
}

// A batch of few bytes that unpacks to more than may be read ends the capture before it is unpacked whole, whatever is to become of bad
// messages: nobody knows which records are in it.
func TestBatchesThatUnpackToTooMuch(t *testing.T) {
	t.Parallel()
	cluster, b := faulty(t, "t")
	compressor, err := kgo.DefaultCompressor(kgo.ZstdCompression())
	require.NoError(t, err)
	packed, codec := compressor.Compress(new(bytes.Buffer), make([]byte, maxBatch+1<<20))
	require.Less(t, len(packed), 1<<20)
	batch := kmsg.NewRecordBatch()
	batch.Magic, batch.Attributes, batch.NumRecords, batch.Records = 2, int16(codec), 1, packed
	batch.Length = int32(49 + len(packed)) //nolint:gosec // few
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	cluster.ControlKey(int16(kmsg.Fetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		req, ok := kreq.(*kmsg.FetchRequest)
		if !ok || len(req.Topics) == 0 || req.Topics[0].Partitions[0].Partition != 0 {
			return nil, nil, false
		}
		resp, ok := req.ResponseKind().(*kmsg.FetchResponse)
		if !ok {
			return nil, nil, false
		}
		topic, partition := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		partition.HighWatermark, partition.LastStableOffset, partition.RecordBatches = 1, 1, raw
		topic.Topic, topic.TopicID, topic.Partitions = "t", req.Topics[0].TopicID, append(topic.Partitions, partition)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	cfg := b.config("t")
	cfg.Advanced.SkipSamples, cfg.OnBadMessage = true, badSkip
	require.Contains(t, usererr.Message(open(t, cfg, nil).fails()),
		"The batch of records at offset 0 of partition 0 of topic t unpacks to more than 192 MiB, so it is not read.")
}

// A record whose document no runtime would take is a bad message. Its dead letter would be larger still.
func TestDocumentsThatAreTooLarge(t *testing.T) {
	t.Parallel()
	records := []*kgo.Record{
		{Topic: "t", Offset: 0, Value: []byte(`{"n":0}`)}, {Topic: "t", Offset: 1, Value: []byte(`"` + strings.Repeat("x", capture.MaxDocument) + `"`)}, {Topic: "t", Offset: 2, Value: []byte(`{"n":2}`)},
	}
	logger, said := logtest.NewNullLogger()
	drain := func(policy string) (*partition, int, error) {
		d, err := newDocuments(resource{Topic: "t"}, fallbackKey(), nil)
		require.NoError(t, err)
		p := &partition{position: &position{}, topic: &topic{binding: &binding{}, name: "t", documents: d}}
		p.topic.partitions = map[int32]*partition{0: p}
		r := &reader{cluster: cluster{env: capture.Env{Log: logrus.NewEntry(logger)}, cfg: config{OnBadMessage: policy}}, fetched: []fetched{{p, slices.Clone(records)}}}
		r.encode = func(dst []byte) ([]byte, error) { return r.in.documents.append(t.Context(), dst, r.rec) }
		var tx capture.Tx
		err = r.drain(t.Context(), &tx)
		return p, tx.Documents(), err
	}
	is := "The record at offset 1 of partition 0 of topic t cannot be captured: "
	p, _, err := drain(badFail)
	require.Contains(t, usererr.Message(err), is+"its value is bad: its document would have more than 63 MiB. Set onBadMessage to deadletter")
	require.EqualValues(t, 1, p.Next)
	p, _, err = drain(badDeadletter)
	require.Contains(t, usererr.Message(err), is+"value is bad: its document would have more than 63 MiB. Nor can it be captured as a dead letter, "+
		"which holds its bytes in base64 and would be too large as well. Set onBadMessage to skip to leave it out.")
	require.EqualValues(t, 1, p.Next)
	require.Empty(t, said.AllEntries())
	p, documents, err := drain(badSkip)
	require.NoError(t, err)
	require.EqualValues(t, 3, p.Next)
	require.Equal(t, 2, documents)
	require.Equal(t, "a record could not be decoded: its document would have more than 63 MiB", said.LastEntry().Message)
}

// A dead letter whose key cannot be had, because it is in the part that is bad, ends the capture. A registry that does not answer makes no
// half of a record bad.
func TestDeadLettersWithoutTheirKey(t *testing.T) {
	t.Parallel()
	fake := srfake.New()
	t.Cleanup(fake.Close)
	fake.SeedSchema("t-key", 1, avroID, sr.Schema{Schema: `"int"`})
	_, b := faulty(t, "t")
	b.produce(&kgo.Record{Topic: "t", Key: []byte{0, 0, 0, 0, avroID, 2}, Value: []byte(`{"broken`)})
	start := func(key ...string) *run {
		cfg := b.config("t")
		cfg.OnBadMessage, cfg.Advanced.SkipSamples = badDeadletter, true
		cfg.SchemaRegistry.Endpoint = fake.URL()
		s := session.Start(t, connector(), frame.Proto)
		task := s.Task(cfg)
		task.Bindings[0].Collection.Key = key
		s.Open(task, nil)
		return &run{Session: s, t: t, state: json.RawMessage("{}")}
	}
	require.Contains(t, usererr.Message(start("/n").fails()), "Nor can it be captured as a dead letter, for the collection's key cannot be had. "+
		"Set onBadMessage to skip to leave it out, or the collection's key to /_meta/partition and /_meta/offset.")

	r := start(fallbackKey()...)
	r.until(1)
	require.EqualValues(t, 1, parse(t, r.docs[0]).Key)
	require.NoError(t, r.Stop())
	cfg := b.config("t")
	cfg.SchemaRegistry.Endpoint = fake.URL()
	reg, err := cfg.SchemaRegistry.client()
	require.NoError(t, err)
	t.Cleanup(reg.Close)
	d, err := newDocuments(resource{Topic: "t"}, fallbackKey(), reg)
	require.NoError(t, err)
	fake.Intercept(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true })
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	rec := &kgo.Record{Topic: "t", Key: []byte{0, 0, 0, 0, avroID, 2}, Value: []byte(`{"broken`)}
	_, err = d.append(ctx, nil, rec)
	bad := badOf(t, err)
	out, err := d.deadletter(ctx, nil, rec, bad)
	require.Error(t, err)
	require.Empty(t, out)
	require.Equal(t, err, deadletterError("it", bad, errors.New("bad"), err), "the capture ends with what the registry says")
}

// What is wrong with a connection is said in words, also where the client has none of its own types for it.
func TestSentences(t *testing.T) {
	t.Parallel()
	require.Contains(t, sentence(fmt.Errorf("asking: %w", &oauth2.RetrieveError{Response: &http.Response{}})), "no token for it was given out. Check credentials: tokenEndpoint, clientId, clientSecret and scopes.")
	require.Contains(t, sentence(&net.DNSError{Name: "x"}), "its name is not known here.")
	require.Equal(t, "it does not answer as a Kafka broker does, or not in time.", sentence(errors.New("what?")))

	// A batch beyond all that is read: the client's own words for it.
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	b := benchAt(t, strings.Join(cluster.ListenAddrs(), ","))
	noise := make([]byte, 100<<10) // which is not packed
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	b.produce(&kgo.Record{Topic: "t", Value: noise})
	client, err := kgo.NewClient(kgo.SeedBrokers(b.brokers), kgo.ConsumeTopics("t"), kgo.BrokerMaxReadBytes(64<<10), kgo.FetchMaxBytes(32<<10))
	require.NoError(t, err)
	defer client.Close()
	require.Contains(t, sentence(client.PollFetches(t.Context()).Err()), "a batch of records has more than 192 MiB, which is more than is read at once.")
}

// A session that is to catch up ends although some partition's end is not reached, once nothing has come for a while; and says so.
func TestCatchingUpEndsWithoutRecords(t *testing.T) {
	t.Parallel()
	logger, said := logtest.NewNullLogger()
	p := &partition{position: &position{Next: 7}}
	r := &reader{
		cluster: cluster{env: capture.Env{Log: logrus.NewEntry(logger)}}, captured: 5, goal: goal{ends: map[*partition]int64{p: 9}},
		topics: map[string]*topic{"t": {binding: &binding{State: state{Began: &beginning{Partitions: 1}}}, found: true, partitions: map[int32]*partition{0: p}}},
	}
	now := time.Now()
	require.False(t, r.caughtUp(now))
	require.False(t, r.caughtUp(now.Add(restless)))
	r.captured++
	require.False(t, r.caughtUp(now.Add(2*restless)), "something came")
	require.False(t, r.caughtUp(now.Add(3*restless)))
	require.Empty(t, said.AllEntries())
	require.True(t, r.caughtUp(now.Add(3*restless+time.Second)))
	require.Equal(t, "nothing has come for a while: ending, although the end of some partition was not reached", said.LastEntry().Message)
	require.Equal(t, []string{"t"}, said.LastEntry().Data["topics"])
}
