package kafkalog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// TestDrop: what is dropped is gone for every reader, also of the next instance, and places of times are behind the marks of transactions.
func TestDrop(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Kafka.Partitions, o.Retention = 1, pipeline.Retention{Time: time.Hour}
	began := time.Now().Add(-10 * time.Hour)
	now := began
	o.Now = func() time.Time { return now }
	l := open(t, o)
	w, err := l.Writer("acme/source")
	require.NoError(t, err)
	require.NoError(t, w.Append(things, block(`{"id":1}`, `{"id":2}`)))
	require.NoError(t, w.Commit(t.Context(), nil))
	contents(t, l, 2)
	now = began.Add(5 * time.Hour)
	require.NoError(t, w.Append(things, block(`{"id":3}`)))
	require.NoError(t, w.Commit(t.Context(), nil))
	contents(t, l, 3)

	j := l.Heads(things)[0].Journal
	place, err := l.At(j, began.Add(time.Hour))
	require.NoError(t, err)
	require.EqualValues(t, 3, place, "behind two documents and a mark, which has the broker's time")
	end, err := l.At(j, began.Add(6*time.Hour))
	require.NoError(t, err)
	require.Equal(t, l.Heads(things)[0].Offset, end)

	require.Zero(t, l.Start(j))
	require.NoError(t, l.Drop(t.Context(), j, end+1), "which is behind the head")
	require.Zero(t, l.Start(j))
	require.NoError(t, l.Drop(t.Context(), j, place))
	require.Equal(t, place, l.Start(j))
	require.Equal(t, place, l.Heads(things)[0].Start)
	require.NoError(t, l.Close())
	require.Equal(t, place, open(t, o).Heads(things)[0].Start)
}

// TestDropFailed: who may not drop is told what to grant.
func TestDropFailed(t *testing.T) {
	t.Parallel()
	l := &Log{o: Options{Kafka: &pipeline.Kafka{Prefix: "shop"}}}
	require.Contains(t, usererr.Message(l.dropFailed(kerr.TopicAuthorizationFailed, "shop.acme.things")),
		"dropping old documents (topic shop.acme.things) failed: the login may not do that with the topic: grant it DELETE on the topics shop.*")
	require.Contains(t, usererr.Message(l.dropFailed(kerr.PolicyViolation, "shop.acme.things")), "has it compacted and nothing else: set its cleanup.policy to delete")
}

// TestTopicsOwnRetention: topics get it only where it may drop what nobody has read, and such a topic is refused where that is to be kept.
func TestTopicsOwnRetention(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Retention = pipeline.Retention{Time: time.Hour, Bytes: 3 << 20, DropUnread: true}
	require.NoError(t, open(t, o).Close())
	configs, err := admin(t, o).DescribeTopicConfigs(t.Context(), o.Kafka.Prefix+".acme.things")
	require.NoError(t, err)
	got := map[string]string{}
	for _, c := range configs[0].Configs {
		got[c.Key] = c.MaybeValue()
	}
	require.Equal(t, "3600000", got["retention.ms"])
	require.Equal(t, "1048576", got["retention.bytes"])

	o.Retention.DropUnread = false
	_, err = Open(t.Context(), o)
	require.Error(t, err)
	require.Regexp(t, `^p.yaml:1: the topic t\d+\.acme\.things of .* drops records by itself, whether they were read or not \(its retention\.(ms is 3600000|bytes is 1048576)\), and the log's retention is to keep what a materialization has not read: `+
		`set retention\.ms and retention\.bytes of the topic to -1, or write unread: drop beside the retention$`, usererr.Message(err))
	o.Kafka.Prefix += "x"
	require.NoError(t, open(t, o).Close(), "topics that it makes itself keep all")
}
