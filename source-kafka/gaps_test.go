package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// What the broker's cleaner took out of a compacted topic is no loss: not while it is read, nor where the capture goes on in the
// middle of what is gone.
func TestCompactionGaps(t *testing.T) {
	t.Parallel()
	b := shared(t)
	topic := b.topic(1, "cleanup.policy", "compact", "segment.ms", "100", "min.cleanable.dirty.ratio", "0.001", "max.compaction.lag.ms", "100")
	written, gap := 0, int64(-1)
	eventually(t, func(ctx ctx) bool { // segments that are closed by the next record, until the cleaner has been there
		for i := range 10 {
			b.produce(&kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, `{"n":%d}`, written)})
			written++
		}
		gap = b.firstGap(ctx, topic, written)
		return gap >= 0
	})
	cfg := b.config(topic)
	cfg.OnOffsetLoss = lossFail
	r := open(t, cfg, nil)
	newest := map[any]int{}
	for len(newest) < 10 || parse(t, r.docs[len(r.docs)-1]).Meta.Offset < int64(written-1) {
		require.NoError(t, r.next())
		for _, doc := range r.docs {
			m := parse(t, doc)
			newest[m.Key] = *m.N
		}
	}
	require.NoError(t, r.Stop())
	for i := range 10 {
		require.Equal(t, written-10+i, newest[fmt.Sprintf("k%d", i)])
	}
	places(t, r.docs...)
	require.Less(t, len(r.docs), written)

	inside := replace(t, r.state, topic, "0", func(p *position) { p.Next = gap })
	again := open(t, cfg, inside)
	for len(again.docs) == 0 {
		require.NoError(t, again.next())
	}
	require.Greater(t, parse(t, again.docs[0]).Meta.Offset, gap)
}

// firstGap is the first offset of a topic that is not there; -1 if all are.
func (b *bench) firstGap(ctx context.Context, topic string, written int) int64 {
	b.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.brokers), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	require.NoError(b.t, err)
	defer client.Close()
	next := int64(0)
	for next < int64(written) {
		for _, rec := range client.PollFetches(ctx).Records() {
			if rec.Offset > next {
				return next
			}
			next = rec.Offset + 1
		}
		if ctx.Err() != nil {
			return -1
		}
	}
	return -1
}

// A record that cannot be decoded is one of its transaction: what was aborted is no bad message, and what was committed beside it is
// captured.
func TestBadMessagesInTransactions(t *testing.T) {
	t.Parallel()
	b := shared(t)
	topic := b.topic(1)
	producer, err := kgo.NewClient(kgo.SeedBrokers(b.brokers), kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic))
	require.NoError(t, err)
	defer producer.Close()
	write := func(end kgo.TransactionEndTry, values ...string) {
		t.Helper()
		require.NoError(t, producer.BeginTransaction())
		for _, value := range values {
			require.NoError(t, producer.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr())
		}
		require.NoError(t, producer.EndTransaction(t.Context(), end))
	}
	write(kgo.TryAbort, `{"aborted`)
	write(kgo.TryCommit, `{"n":0}`, `{"broken`, `{"n":1}`)
	write(kgo.TryAbort, `{"n":100}`, `{"aborted`)
	write(kgo.TryCommit, `{"n":2}`)

	cfg := b.config(topic)
	require.Contains(t, usererr.Message(open(t, cfg, nil).fails()), "The record at offset 3 of partition 0 of topic "+topic+" cannot be captured: its value is bad")
	cfg.OnBadMessage = badSkip
	r := open(t, cfg, nil)
	r.until(3)
	requireNumbers(t, r.docs, 0, 3)
	cfg.OnBadMessage = badDeadletter
	r = open(t, cfg, nil)
	r.until(4)
	require.Equal(t, "eyJicm9rZW4=", parse(t, r.docs[1]).Meta.Bad["value"])
}
