package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// unpackedFetch is how many times its greatest size a fetch may take in memory, about. Brokers count bytes as they are
	// packed, and some batches unpack to a hundred times that.
	unpackedFetch = 2
	// recordSize is what a record takes beside its bytes, about.
	recordSize = 200
	// sizeAfter is how many unpacked bytes tell how well batches are packed.
	sizeAfter = 1 << 20
	// leastFetch is the least that a fetch asks for. Brokers send one batch in any case.
	leastFetch = 1 << 16
	// spentFetch is how many times its greatest size a fetch takes before the rest of its batches is left packed. It is more than
	// unpackedFetch, so that this is rare: what is left is fetched again.
	spentFetch = 2 * unpackedFetch
)

// fetchSize decides how much a fetch asks for, so that it takes about as much memory however well batches are packed. Of an answer that is
// packed much better than those before it leaves batches unread, which the client fetches again.
type fetchSize struct {
	packed, unpacked atomic.Int64 // bytes since the size was last decided
	spent            atomic.Int64 // bytes since a fetch was last answered
	most, now        int32
	unpack           kgo.Decompressor
}

// newFetchSize begins with small fetches: how well they are packed is not known before the first.
func newFetchSize(most int32) (*fetchSize, error) {
	// The client's own decompressor with a bound is only to be had from a client. This one never connects.
	client, err := kgo.NewClient(kgo.MaxDecompressBatchBytes(maxBatch))
	if err != nil {
		return nil, fmt.Errorf("preparing to unpack batches: %w", err)
	}
	defer client.Close()
	unpack, ok := client.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	if !ok {
		return nil, errors.New("preparing to unpack batches: the client has no decompressor")
	}
	return &fetchSize{most: most, now: max(most/8, leastFetch), unpack: unpack}, nil
}

// errSpent leaves a batch packed. The client takes a batch that it cannot unpack behind others for one that was cut, and what brokers say
// may be asked again for a reason to ask again: it goes on at this batch either way.
var errSpent = &kerr.Error{Message: "FETCH_SPENT", Retriable: true, Description: "The fetch has unpacked to as much as is kept in memory; the rest is fetched again."}

// Decompress implements kgo.Decompressor. It may be called from any goroutine.
func (s *fetchSize) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if s.spent.Load() >= spentFetch*int64(s.most) {
		return nil, errSpent
	}
	return s.unpack.Decompress(src, codec)
}

// OnBrokerRead implements kgo.HookBrokerRead: a fetch was answered, which is unpacked next.
func (s *fetchSize) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == int16(kmsg.Fetch) {
		s.spent.Store(0)
	}
}

// ofPartition is how much of a fetch of the given size may be of one partition.
func ofPartition(size int32) int32 { return max(size/4, leastFetch) }

// OnFetchBatchRead implements kgo.HookFetchBatchRead. It may be called from any goroutine; the others belong to the reader's.
func (s *fetchSize) OnFetchBatchRead(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.FetchBatchMetrics) {
	unpacked := int64(m.UncompressedBytes) + int64(m.NumRecords)*recordSize
	s.packed.Add(int64(m.CompressedBytes))
	s.unpacked.Add(unpacked)
	s.spent.Add(unpacked)
}

// adapt has the client ask for more or less, if batches are packed otherwise than those before.
func (s *fetchSize) adapt(client *kgo.Client) {
	if s.unpacked.Load() < sizeAfter {
		return
	}
	packed, unpacked := s.packed.Swap(0), s.unpacked.Swap(0)
	next := int32(min(max(int64(s.most)*unpackedFetch*packed/unpacked, leastFetch), int64(s.most))) //nolint:gosec // not more than most
	if diff := next - s.now; max(diff, -diff) > s.now/8 {
		s.now = next
		client.UpdateFetchMaxBytes(next, ofPartition(next))
	}
}
