package main

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
)

// Leaders are moved, a broker freezes and another one crashes while records are written: every record that was
// acknowledged is captured once, in order.
func TestFailover(t *testing.T) {
	t.Parallel()
	cluster := server.Kafka(t, kafkad.Options{Brokers: 3})
	b := benchAt(t, cluster.Addresses())
	const partitions = 6
	topic := b.topic(partitions, "min.insync.replicas", "2")
	var stop atomic.Bool
	var written atomic.Int64
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := 0; !stop.Load(); n += partitions {
			b.numbered(topic, partitions, n, partitions)
			written.Store(int64(n + partitions))
		}
	})
	cfg := b.config(topic)
	cfg.OnOffsetLoss = lossFail
	r := open(t, cfg, nil)
	read := func(n int64) {
		t.Helper()
		for goal := written.Load() + n; int64(len(r.docs)) < goal; {
			require.NoError(t, r.next())
		}
	}
	read(100)
	// Leaders move as an administrator moves them.
	moved, err := b.admin.AlterPartitionAssignments(t.Context(), reversed(t, b, topic))
	require.NoError(t, err)
	require.NoError(t, moved.Error())
	_, err = b.admin.ElectLeaders(t.Context(), kadm.ElectPreferredReplica, nil)
	require.NoError(t, err)
	read(100)
	require.NoError(t, cluster.Pause(2)) // connections stay, and nothing comes
	read(200)
	require.NoError(t, cluster.Resume(2))
	read(100)
	require.NoError(t, cluster.Kill(3))
	read(200)
	stop.Store(true)
	writing.Wait()
	for int64(len(r.docs)) < written.Load() {
		require.NoError(t, r.next())
	}
	requireNumbers(t, r.docs, 0, int(written.Load()))
	places(t, r.docs...)
	leaders := map[int32]bool{}
	for _, doc := range r.docs {
		leaders[*parse(t, doc).Meta.Epoch] = true
	}
	require.Greater(t, len(leaders), 1, "leaders changed")
}

// reversed are the replicas of a topic's partitions in another order, which makes the last ones leaders.
func reversed(t *testing.T, b *bench, topic string) kadm.AlterPartitionAssignmentsReq {
	t.Helper()
	found, err := b.admin.ListTopics(t.Context(), topic)
	require.NoError(t, err)
	var req kadm.AlterPartitionAssignmentsReq
	for number, p := range found[topic].Partitions {
		replicas := slices.Clone(p.Replicas)
		slices.Reverse(replicas)
		req.Assign(topic, number, replicas)
	}
	return req
}
