package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/testkit/child"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// A fetch takes about as much memory however well batches are packed: of those that unpack to much, less is asked for.
func TestFetchSize(t *testing.T) {
	t.Parallel()
	const most = 8 << 20
	s, err := newFetchSize(most)
	require.NoError(t, err)
	client, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"), kgo.FetchMaxBytes(s.now), kgo.FetchMaxPartitionBytes(ofPartition(s.now)), kgo.WithHooks(s)) // nothing is asked of it
	require.NoError(t, err)
	t.Cleanup(client.Close)
	require.EqualValues(t, 1<<20, client.OptValue(kgo.FetchMaxBytes), "before anything is known")
	for _, c := range []struct {
		records, packed, unpacked int
		want                      int32
	}{
		{10, 1000, 1000, 1 << 20},             // too little to tell
		{1 << 12, 2 << 20, 2 << 20, most},     // not packed
		{1 << 12, 1 << 20, 1 << 20, most},     // many small batches
		{0, 1 << 20, 16 << 20, 1 << 20},       // sixteenfold
		{0, 1<<20 + 1<<14, 16 << 20, 1 << 20}, // a little less is no matter
		{1 << 18, 100 << 20, 100 << 20, most}, // small records weigh more than their bytes
		{1 << 20, 10 << 20, 10 << 20, 798915}, // very small ones
		{1, 1 << 10, 100 << 20, leastFetch},   // a bomb
		{1, 190 << 20, 190 << 20, most},       // a single large record
	} {
		s.OnFetchBatchRead(kgo.BrokerMetadata{}, "t", 0, kgo.FetchBatchMetrics{NumRecords: c.records, CompressedBytes: c.packed, UncompressedBytes: c.unpacked})
		s.adapt(client)
		require.Equal(t, c.want, client.OptValue(kgo.FetchMaxBytes), "%+v", c)
		require.Equal(t, max(c.want/4, leastFetch), client.OptValue(kgo.FetchMaxPartitionBytes), "%+v", c)
	}
}

// Topics of which a few kilobytes unpack to a gigabyte, in batches of a megabyte and in records of a few bytes, are captured and sampled in
// bounded memory, by a process of its own; every record comes once.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	b := shared(t)
	const partitions, batches, small = 2, 500, 1_000_000
	large, tiny := b.topic(partitions), b.topic(partitions)
	write := func(topic string, records int, value func(n int) []byte) {
		t.Helper()
		producer, err := kgo.NewClient(kgo.SeedBrokers(b.brokers), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.ZstdCompression()),
			kgo.ProducerBatchMaxBytes(1_000_000), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
		require.NoError(t, err)
		defer producer.Close()
		for n := range records {
			producer.Produce(t.Context(), &kgo.Record{Value: value(n)}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		require.NoError(t, producer.Flush(t.Context()))
	}
	text := []byte(`"` + strings.Repeat("x", 990_000) + `"`)
	b.aborted(large, 50, text) // more than a fetch takes, of which nothing is kept
	write(large, batches, func(int) []byte { return text })
	write(tiny, small, func(int) []byte { return []byte("1") })
	for topic, want := range map[string]int{large: batches, tiny: small} {
		file := filepath.Join(t.TempDir(), "c.json")
		require.NoError(t, os.WriteFile(file, session.Config(t, b.config(topic)), 0o600))
		cmd := child.Self(t, child.Connector, "pull", "--catch-up", "--config", file)
		var log strings.Builder
		cmd.Stderr = &log
		counted := lines(t, cmd)
		run, err := ratio.Command(cmd, int64(want))
		require.NoError(t, err, log.String())
		require.Equal(t, want, counted())
		t.Logf("%s: %d MB", topic, run.Peak>>20)
		require.Less(t, run.Peak, int64(mostMemory), "bytes")
	}
}

// aborted writes records into partition 0, in a batch each, and takes them back.
func (b *bench) aborted(topic string, records int, value []byte) {
	b.t.Helper()
	producer, err := kgo.NewClient(kgo.SeedBrokers(b.brokers), kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.ZstdCompression()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(b.t, err)
	defer producer.Close()
	require.NoError(b.t, producer.BeginTransaction())
	for range records {
		require.NoError(b.t, producer.ProduceSync(b.t.Context(), &kgo.Record{Value: value}).FirstErr())
	}
	require.NoError(b.t, producer.EndTransaction(b.t.Context(), kgo.TryAbort))
}

// mostMemory is what no capture of small batches should take; it leaves room for what the race detector needs.
const mostMemory = 400 << 20

// lines counts what a command prints.
func lines(t *testing.T, cmd *exec.Cmd) (count func() int) {
	t.Helper()
	out, in, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdout = in
	counted := make(chan int, 1)
	go func() {
		n, buffer := 0, make([]byte, 1<<20)
		for {
			got, err := out.Read(buffer)
			n += strings.Count(string(buffer[:got]), "\n")
			if err != nil {
				counted <- n
				return
			}
		}
	}()
	return func() int {
		_ = in.Close()
		n := <-counted
		_ = out.Close()
		return n
	}
}
