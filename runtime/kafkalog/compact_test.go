package kafkalog

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// TestCompaction: the brokers compact a topic that the pipeline names, and whoever reads it then from its beginning gets the last document of each
// key, and no other place in it than before.
func TestCompaction(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Kafka.Compact = []string{things}
	l := open(t, o)
	topic := l.topicName(things)
	soon := func(key, value string) kadm.AlterConfig { return kadm.AlterConfig{Name: key, Value: &value} }
	altered, err := admin(t, o).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{soon("segment.ms", "50"), soon("min.cleanable.dirty.ratio", "0.01")}, topic)
	require.NoError(t, err)
	require.NoError(t, altered[0].Err)
	w, err := l.Writer("acme/source")
	require.NoError(t, err)
	const keys = 30
	last := map[string]string{}
	written := 0
	write := func() {
		b := block()
		for id := range keys {
			doc := fmt.Sprintf(`{"id":%d,"n":%d}`, id, written)
			last[fmt.Sprint(id)] = doc
			b.Add([]byte(doc))
			written++
		}
		require.NoError(t, w.Append(things, b))
		require.NoError(t, w.Commit(t.Context(), nil))
	}
	for range 5 {
		write()
	}
	var docs []string
	require.Eventually(t, func() bool {
		write() // a segment is compacted when there is a newer one
		docs, _ = documents(t, l)
		return len(docs) < written/2
	}, 2*time.Minute, 200*time.Millisecond)
	require.Eventually(t, func() bool {
		docs, _ = documents(t, l)
		newest := map[string]string{}
		for _, doc := range docs {
			var id, n int
			_, err := fmt.Sscanf(doc, `{"id":%d,"n":%d}`, &id, &n)
			require.NoError(t, err)
			newest[fmt.Sprint(id)] = doc // documents of a key are in order
		}
		return fmt.Sprint(newest) == fmt.Sprint(last)
	}, time.Minute, 10*time.Millisecond, "%v instead of %v", docs, last)

	require.NoError(t, l.Close())
	o.Kafka.Compact = nil
	_, err = Open(t.Context(), o)
	require.Error(t, err)
	require.Regexp(t, `^p.yaml:1: the topic t\d+\.acme\.things of kafka://.* is compacted \(its cleanup\.policy is compact\), so that documents would be lost which others follow: set it to delete; `+
		`or name the collection acme/things in topics\.compact of the log, if the last document of each key is all that is needed of it$`, usererr.Message(err))
}

// TestCompactionWithRetention: a topic may be both.
func TestCompactionWithRetention(t *testing.T) {
	t.Parallel()
	o := options(t)
	l := &Log{o: o}
	policy := func() string { return l.settings(things)["cleanup.policy"] }
	require.Equal(t, "delete", policy())
	l.o.Kafka.Compact = []string{things}
	require.Equal(t, "compact", policy())
	l.o.Retention = pipeline.Retention{Time: time.Hour}
	require.Equal(t, "compact,delete", policy())
	require.Equal(t, "delete", l.settings("acme/other")["cleanup.policy"])
}
