package engine

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// onBoth runs a test on the embedded log and on Kafka.
func onBoth(t *testing.T, test func(t *testing.T)) {
	t.Parallel()
	t.Run("embedded", test)
	t.Run("kafka", test)
}

// onKafka tells whether a test is to have its log on Kafka.
func onKafka(t *testing.T) bool { return strings.Contains(t.Name(), "/kafka") }

// testKafka is a log on the broker that all tests share, with topics of the test's own.
func testKafka(t *testing.T) *pipeline.Kafka {
	t.Helper()
	k := &pipeline.Kafka{
		Prefix: fmt.Sprintf("t%d", time.Now().UnixNano()), Partitions: 3, Replication: 1, MaxDocument: 64 << 20, TransactionTimeout: time.Minute, SessionTimeout: 6 * time.Second,
		TLS: endpoint.TLS{Mode: endpoint.Disable}, At: "test.yaml:30",
	}
	for one := range strings.SplitSeq(server.SharedKafka(t).Addresses(), ",") {
		address, err := endpoint.ParseAddress(one, 9092)
		require.NoError(t, err)
		k.Brokers = append(k.Brokers, address)
	}
	return k
}

// expire has the collection's topic drop all by its own retention, as one that is made for a pipeline that says unread: drop does. It is by size: times count
// from the marks of transactions, which have the broker's.
func (r *rig) expire() {
	r.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(r.p.Kafka.Brokers[0].String()))
	require.NoError(r.t, err)
	defer client.Close()
	admin, topic := kadm.NewClient(client), r.p.Kafka.Prefix+".acme.things"
	limit := "0"
	_, err = admin.AlterTopicConfigs(r.t.Context(), []kadm.AlterConfig{{Name: "retention.bytes", Value: &limit}}, topic)
	require.NoError(r.t, err)
	require.Eventually(r.t, func() bool {
		starts, err := admin.ListStartOffsets(r.t.Context(), topic)
		require.NoError(r.t, err)
		ends, err := admin.ListEndOffsets(r.t.Context(), topic)
		require.NoError(r.t, err)
		gone := true
		starts.Each(func(start kadm.ListedOffset) {
			end, ok := ends.Lookup(topic, start.Partition)
			gone = gone && ok && start.Offset == end.Offset
		})
		return gone
	}, patience, 50*time.Millisecond)
}

// TestSecondRunOnKafka: a run elsewhere takes the pipeline over, and the first one ends and says why. What both have stored counts once.
func TestSecondRunOnKafka(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 300, Batch: 3, Keys: 30, Paced: true})
	r.p.Kafka = testKafka(t)
	r.sink("one", "staged", frame.Proto, fakeConfig{})
	older := r.defaults()
	ready, ended := make(chan struct{}), make(chan error, 1)
	older.Ready = func() { close(ready) }
	go func() { ended <- Run(t.Context(), older) }()
	<-ready
	require.Eventually(t, func() bool { rows, _ := r.rows("one"); return len(rows) > 0 }, patience, time.Millisecond)
	newer := r.defaults()
	newer.DataDir = filepath.Join(r.dir, "elsewhere")
	r.options.Board = nil
	newerEnded := make(chan error, 1)
	go func() { newerEnded <- Run(t.Context(), newer) }()
	var err error
	select {
	case err = <-ended:
	case err := <-newerEnded:
		require.FailNow(t, "the newer run has ended", "%v", err)
	case <-time.After(patience):
		require.FailNow(t, "the older run goes on", "%.5000s", r.log)
	}
	require.ErrorIs(t, err, wal.ErrFenced)
	require.Contains(t, usererr.Message(err), "another sluice run has taken over this pipeline")
	r.wait("one")
	r.same("one")
}

// TestCompactOnKafka: what is compacted has to be all that anybody needs.
func TestCompactOnKafka(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 30, Batch: 3, Keys: 10})
	r.p.Kafka = testKafka(t)
	r.p.Kafka.Compact = []string{"acme/things"}
	r.sink("one", "atomic", frame.Proto, fakeConfig{})
	_, err := keysOf(r.p)
	require.Equal(t, "test.yaml:9: the collection acme/things cannot be compacted (topics.compact of the log): its documents are reduced by its schema's annotations, so that one counts although others of the same key follow it: leave it out",
		usererr.Message(err))
	r.p.Collections["acme/things"].Schema = []byte(`{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}}}`)
	stop := r.start()
	r.waitLog("test.yaml:22: the materialization acme/one appends every change of the collection acme/things, and the log keeps only the last document of each key of it (topics.compact): " +
		"leave the collection out of that and begin with a new topics.prefix, or have the binding keep current rows instead")
	stop()
}

// TestGroupingOnKafka: documents that are grouped by something else than the key would have no order.
func TestGroupingOnKafka(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 1, Batch: 1, Keys: 1})
	r.p.Kafka = &pipeline.Kafka{Partitions: 3}
	m := r.sink("one", "atomic", frame.Proto, fakeConfig{})
	m.Bindings[0].Fields.GroupBy = []string{"n"}
	_, err := keysOf(r.p)
	require.Equal(t, "test.yaml:22: the materialization acme/one groups the collection acme/things by fields without its key /id, and a log on Kafka has an order within a key only: add that to groupBy, or set topics.partitions of the log to 1 and begin with a new topics.prefix",
		usererr.Message(err))
	m.Bindings[0].Fields.GroupBy = []string{"n", "id"}
	keys, err := keysOf(r.p)
	require.NoError(t, err)
	require.Equal(t, []string{"/id"}, keys["acme/things"].Pointers)
}
