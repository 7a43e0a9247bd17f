package main

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// A replica that lacks the last records becomes the leader, and others are written in their place: a capture that runs, and one that is
// opened later, find out by the leader's epoch, and say what was taken back.
func TestUncleanElection(t *testing.T) {
	t.Parallel()
	cluster := server.Kafka(t, kafkad.Options{Brokers: 3})
	b := benchAt(t, cluster.Addresses())
	const topic = "unclean"
	req := kmsg.NewPtrCreateTopicsRequest()
	wanted, assigned := kmsg.NewCreateTopicsRequestTopic(), kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
	assigned.Replicas = []int32{1, 2}
	wanted.Topic, wanted.NumPartitions, wanted.ReplicationFactor, wanted.ReplicaAssignment = topic, -1, -1, append(wanted.ReplicaAssignment, assigned)
	for name, value := range map[string]string{"unclean.leader.election.enable": "true", "min.insync.replicas": "1"} {
		setting := kmsg.NewCreateTopicsRequestTopicConfig()
		setting.Name, setting.Value = name, &value
		wanted.Configs = append(wanted.Configs, setting)
	}
	req.Topics, req.TimeoutMillis = append(req.Topics, wanted), 30_000
	made, err := req.RequestWith(t.Context(), b.client)
	require.NoError(t, err)
	require.NoError(t, kerr.ErrorForCode(made.Topics[0].ErrorCode))
	led := func(leader int32, insync int) func(ctx) bool {
		return func(ctx ctx) bool {
			found, err := b.admin.ListTopics(ctx, topic)
			p := found[topic].Partitions[0]
			return err == nil && p.Leader == leader && (insync == 0 || len(p.ISR) == insync)
		}
	}
	eventually(t, led(1, 2))
	b.numbered(topic, 1, 0, 10)
	require.NoError(t, cluster.Kill(2))
	eventually(t, led(1, 1))
	b.numbered(topic, 1, 10, 10) // on the first broker only
	r := open(t, b.config(topic), nil)
	r.until(20)
	state := r.state

	require.NoError(t, cluster.Kill(1))
	require.NoError(t, cluster.Start(t.Context(), 2))
	eventually(t, led(2, 0))
	b.numbered(topic, 1, 20, 15) // beyond the offset up to which was captured
	cfg := b.config(topic)
	cfg.OnOffsetLoss = lossFail
	s := session.Start(t, connector(), frame.Proto)
	s.AskOpen(s.Task(cfg), state)
	require.Error(t, s.Opened())
	require.Contains(t, usererr.Message(s.Wait()), "Partition 0 of topic unclean was cut at offset 10 by the cluster, but had been captured up to 20")
	r.until(35)
	requireNumbers(t, r.docs, 0, 35)
}
