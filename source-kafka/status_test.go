package main

import (
	"testing"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// What is behind is told of partitions that are not read as well; and where their end is not known, that is said.
func TestStatusOfPartitionsThatAreNotRead(t *testing.T) {
	t.Parallel()
	cluster, b := faulty(t, "t")
	b.numbered("t", 2, 0, 10)
	cfg := b.config("t")
	cfg.Advanced.StatusEvery = "1s"
	said := &logtest.Hook{}
	s := session.Start(t, capture.New(hookedSource{hook: said}), frame.Proto)
	s.Open(s.Task(cfg), nil)
	r := &run{Session: s, t: t, state: []byte("{}")}
	r.until(10)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Partitions: []int32{1}, Count: -1, Err: kerr.NotLeaderForPartition})
	b.numbered("t", 2, 10, 40)
	r.until(30)
	told := func(behind int64, unknown any) func(ctx) bool {
		return func(ctx) bool {
			for _, e := range said.AllEntries() {
				if e.Message == "capturing" && e.Level == logrus.InfoLevel && e.Data["behind"] == behind && e.Data["unknown"] == unknown {
					return true
				}
			}
			return false
		}
	}
	eventually(t, told(20, nil))
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Partitions: []int32{1}, Count: -1, Err: kerr.NotLeaderForPartition})
	eventually(t, told(0, 1))
	require.NoError(t, r.Stop())
}
