package main

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A fetch takes about as much memory however well batches are packed: of those that unpack to much, less is asked for.
func TestFetchSize(t *testing.T) {
	t.Parallel()
	const most = 8 << 20
	s := newFetchSize(most)
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
