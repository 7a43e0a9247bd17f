package main

import (
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
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
)

// fetchSize decides how much a fetch asks for, so that it takes about as much memory however well batches are packed.
type fetchSize struct {
	packed, unpacked atomic.Int64 // bytes since the size was last decided
	most, now        int32
}

// newFetchSize begins with small fetches: how well they are packed is not known before the first.
func newFetchSize(most int32) *fetchSize {
	return &fetchSize{most: most, now: max(most/8, leastFetch)}
}

// ofPartition is how much of a fetch of the given size may be of one partition.
func ofPartition(size int32) int32 { return max(size/4, leastFetch) }

// OnFetchBatchRead implements kgo.HookFetchBatchRead. It may be called from any goroutine; the others belong to the reader's.
func (s *fetchSize) OnFetchBatchRead(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.FetchBatchMetrics) {
	s.packed.Add(int64(m.CompressedBytes))
	s.unpacked.Add(int64(m.UncompressedBytes) + int64(m.NumRecords)*recordSize)
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
