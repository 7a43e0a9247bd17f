package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// bench is a cluster with a client of the test's own.
type bench struct {
	t       testing.TB
	brokers string
	client  *kgo.Client
	admin   *kadm.Client
}

// shared is a bench at the broker that all tests share: use topics of your own.
func shared(t testing.TB) *bench {
	t.Helper()
	return benchAt(t, server.SharedKafka(t).Addresses())
}

func benchAt(t testing.TB, brokers string) *bench {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.MetadataMinAge(100*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return &bench{t: t, brokers: brokers, client: client, admin: kadm.NewClient(client)}
}

// topic makes a topic of the test's own, with settings in pairs.
func (b *bench) topic(partitions int, settings ...string) string {
	b.t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", ".", " ", "_").Replace(b.t.Name())) + fmt.Sprintf(".%d", time.Now().UnixNano()%1e9)
	b.create(name, partitions, settings...)
	return name
}

func (b *bench) create(name string, partitions int, settings ...string) {
	b.t.Helper()
	all := map[string]*string{}
	for i := 0; i < len(settings); i += 2 {
		all[settings[i]] = &settings[i+1]
	}
	require.Eventually(b.t, func() bool { // one that was just deleted may still be there
		res, err := b.admin.CreateTopic(b.t.Context(), int32(partitions), -1, all, name)
		return err == nil && res.Err == nil
	}, 30*time.Second, 50*time.Millisecond)
	brokers, err := b.admin.ListBrokers(b.t.Context())
	require.NoError(b.t, err)
	for _, broker := range brokers {
		require.Eventually(b.t, func() bool { return b.led(int(broker.NodeID), name, partitions) }, 30*time.Second, 20*time.Millisecond, "broker %d does not know the topic", broker.NodeID)
	}
}

// led tells whether a broker, each of which learns of topics by itself, knows the leaders of all partitions of one.
func (b *bench) led(broker int, topic string, partitions int) bool {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
	answer, err := b.client.Broker(broker).Request(b.t.Context(), req)
	if err != nil {
		return false
	}
	found := answer.(*kmsg.MetadataResponse).Topics //nolint:forcetypeassert // the answer to this request
	return len(found) == 1 && len(found[0].Partitions) == partitions &&
		!slices.ContainsFunc(found[0].Partitions, func(p kmsg.MetadataResponseTopicPartition) bool { return p.Leader < 0 })
}

// produce writes records, in their order within each partition.
func (b *bench) produce(records ...*kgo.Record) {
	b.t.Helper()
	require.NoError(b.t, b.client.ProduceSync(b.t.Context(), records...).FirstErr())
}

// numbered writes n records {"n": first}, {"n": first+1} … spread over the partitions.
func (b *bench) numbered(topic string, partitions, first, n int) {
	b.t.Helper()
	var records []*kgo.Record
	for i := first; i < first+n; i++ {
		records = append(records, &kgo.Record{
			Topic: topic, Partition: int32(i % partitions), Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, `{"n":%d}`, i),
		})
	}
	b.produce(records...)
}

// deleteBefore removes records below an offset, as retention does; -1 stands for all.
func (b *bench) deleteBefore(topic string, partition int32, offset int64) {
	b.t.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: offset, LeaderEpoch: -1})
	res, err := b.admin.DeleteRecords(b.t.Context(), offsets)
	require.NoError(b.t, err)
	require.NoError(b.t, res.Error())
}

// config is a configuration for the bench's cluster that captures the topics.
func (b *bench) config(topics ...string) config {
	return config{
		BootstrapServers: b.brokers, StartAt: startEarliest, OnOffsetLoss: lossEarliest, OnBadMessage: badFail,
		Topics: selection{Include: topics}, Advanced: advanced{MetadataEvery: "1s"},
	}
}

// connector is what a process would be.
func connector() capture.Connector { return capture.New(source{}) }

// run is one process that captures.
type run struct {
	*session.Session
	t     testing.TB
	state json.RawMessage
	docs  []json.RawMessage
	// patches are those of the checkpoints.
	patches []json.RawMessage
}

// open starts a process that captures all that the configuration selects, from a state.
func open(t testing.TB, cfg config, state json.RawMessage) *run {
	t.Helper()
	s := session.Start(t, connector(), frame.Proto)
	task := s.Task(cfg)
	require.NotEmpty(t, task.Bindings, "no topic was found")
	s.Open(task, state)
	return &run{Session: s, t: t, state: state}
}

// next reads one transaction.
func (r *run) next() error {
	r.t.Helper()
	tx, err := r.Transaction()
	if err != nil {
		return err
	}
	for _, d := range tx.Documents {
		r.docs = append(r.docs, d.Doc)
	}
	r.patches = append(r.patches, tx.Patch)
	r.state, err = flowpb.MergePatch(r.state, tx.Patch)
	require.NoError(r.t, err)
	r.Ack(1)
	return nil
}

// until reads until there are n documents.
func (r *run) until(n int) {
	r.t.Helper()
	for len(r.docs) < n {
		err := r.next()
		if errors.Is(err, io.EOF) {
			require.NoError(r.t, r.Wait())
		}
		require.NoError(r.t, err)
	}
	require.Len(r.t, r.docs, n)
}

// fails reads until the process ends, which must be an error.
func (r *run) fails() error {
	r.t.Helper()
	var err error
	for err == nil {
		err = r.next()
	}
	err = r.Wait()
	require.Error(r.t, err)
	return err
}

// meta is what the tests look at in documents.
type meta struct {
	N    *int `json:"n"`
	Key  any  `json:"_key"`
	Meta struct {
		Op        string
		Topic     string
		Partition int32
		Offset    int64
		Epoch     *int32
		TsMs      int64  `json:"ts_ms"`
		TsType    string `json:"ts_type"`
		Headers   []map[string]any
		Bad       map[string]string
	} `json:"_meta"`
}

func parse(t testing.TB, doc json.RawMessage) meta {
	t.Helper()
	var m meta
	require.NoError(t, json.Unmarshal(doc, &m), "document %s", doc)
	return m
}

// places are the documents' places, each of which must come once, in order within its partition.
func places(t testing.TB, docs ...json.RawMessage) map[string]int {
	t.Helper()
	found := map[string]int{}
	last := map[string]int64{}
	for _, doc := range docs {
		m := parse(t, doc)
		partition := fmt.Sprintf("%s/%d", m.Meta.Topic, m.Meta.Partition)
		if before, ok := last[partition]; ok {
			require.Greater(t, m.Meta.Offset, before, "order in partition %s", partition)
		}
		last[partition] = m.Meta.Offset
		found[fmt.Sprintf("%s/%d", partition, m.Meta.Offset)]++
	}
	require.Len(t, found, len(docs))
	return found
}

// numbers are the n of documents; each must come once.
func numbers(t testing.TB, docs []json.RawMessage) map[int]bool {
	t.Helper()
	found := map[int]bool{}
	for _, doc := range docs {
		n := parse(t, doc).N
		require.NotNil(t, n, "document %s", doc)
		require.False(t, found[*n], "%d comes twice", *n)
		found[*n] = true
	}
	return found
}

func requireNumbers(t testing.TB, docs []json.RawMessage, first, n int) {
	t.Helper()
	want := map[int]bool{}
	for i := first; i < first+n; i++ {
		want[i] = true
	}
	require.True(t, maps.Equal(want, numbers(t, docs)), "want %d numbers from %d, got %d documents", n, first, len(docs))
}

// eventually polls with the test's patience.
func eventually(t testing.TB, condition func(ctx context.Context) bool) {
	t.Helper()
	require.Eventually(t, func() bool { return condition(t.Context()) }, 60*time.Second, 50*time.Millisecond)
}

type ctx = context.Context

// openRange is open for a process that has a part of the range of hashes.
func openRange(t testing.TB, cfg config, state json.RawMessage, begin, end uint32) *run {
	t.Helper()
	s := session.Start(t, connector(), frame.Proto)
	task := s.Task(cfg)
	if len(state) == 0 {
		state = json.RawMessage("{}")
	}
	s.Send(&capturepb.Request{Open: &capturepb.Request_Open{
		Capture: task, Version: "v1", Range: &flowpb.RangeSpec{KeyBegin: begin, KeyEnd: end, RClockEnd: 1<<32 - 1}, StateJson: state,
	}})
	require.NoError(t, s.Opened())
	return &run{Session: s, t: t, state: state}
}

// apply applies the patches of a process to a state that others patch as well.
func (r *run) apply(state json.RawMessage) json.RawMessage {
	r.t.Helper()
	for _, patch := range r.patches {
		var err error
		state, err = flowpb.MergePatch(state, patch)
		require.NoError(r.t, err)
	}
	return state
}

// replace changes a position in a state.
func replace(t testing.TB, doc json.RawMessage, topic, partition string, change func(*position)) json.RawMessage {
	t.Helper()
	var all struct {
		V1 map[string]*state `json:"bindingStateV1"`
	}
	require.NoError(t, json.Unmarshal(doc, &all))
	require.NotNil(t, all.V1[topic], "state %s", doc)
	change(all.V1[topic].Partitions[partition])
	text, err := json.Marshal(all)
	require.NoError(t, err)
	return text
}

// withoutAdvice cuts what a reason says of remedies.
func withoutAdvice(bad map[string]string) map[string]string {
	bad["reason"], _, _ = strings.Cut(bad["reason"], ".")
	return bad
}
