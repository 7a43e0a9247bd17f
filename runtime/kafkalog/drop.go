package kafkalog

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Start implements wal.Bounded.
func (l *Log) Start(j wal.Journal) int64 {
	t, p, err := l.find(j)
	if err != nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return t.parts[p].start
}

// Drop implements wal.Bounded. Nobody sees the records any more when it returns; the brokers give their room back by whole segments.
func (l *Log) Drop(ctx context.Context, j wal.Journal, offset int64) error {
	t, p, err := l.find(j)
	if err != nil {
		return err
	}
	l.mu.Lock()
	start, head := t.parts[p].start, t.parts[p].head
	l.mu.Unlock()
	if offset <= start || offset > head {
		return nil
	}
	asking, cancel := context.WithTimeoutCause(ctx, l.o.Patience, errStalled)
	defer cancel()
	offsets := kadm.Offsets{}
	offsets.AddOffset(t.Topic, int32(p), offset, -1)
	done, err := l.admin.DeleteRecords(asking, offsets)
	if err == nil {
		err = done.Error()
	}
	if err != nil {
		return l.dropFailed(cause(asking, err), t.Topic)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.parts[p].start = max(t.parts[p].start, offset)
	return nil
}

func (l *Log) dropFailed(err error, topic string) error {
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return usererr.New(err, "dropping old documents (topic %s) failed: the login may not do that with the topic: grant it DELETE on the topics %s.* of %s; or write unread: drop beside the log's retention, to have the topics drop what is older by themselves",
			topic, l.o.Kafka.Prefix, l.o.Kafka)
	case errors.Is(err, kerr.PolicyViolation):
		return usererr.New(err, "dropping old documents (topic %s) failed: %s has it compacted and nothing else: set its cleanup.policy to delete, or leave out the log's retention", topic, l.o.Kafka)
	}
	return l.explain(err, "dropping old documents", topic)
}

// checkPolicies refuses topics that lose what somebody needs: those that are compacted although the pipeline does not say so, and those that drop
// records by themselves where nothing may be dropped that somebody has not read.
func (l *Log) checkPolicies(ctx context.Context) error {
	l.mu.Lock()
	collections := map[string]string{}
	for collection, t := range l.topics {
		collections[t.Topic] = collection
	}
	l.mu.Unlock()
	if len(collections) == 0 || l.o.ReadOnly {
		return nil
	}
	found, err := l.admin.DescribeTopicConfigs(ctx, slices.Sorted(maps.Keys(collections))...)
	if err != nil {
		return l.explain(cause(ctx, err), "looking at the log", "")
	}
	for _, topic := range found {
		if topic.Err != nil {
			return l.explain(topic.Err, "looking at the log (which takes DESCRIBE_CONFIGS)", topic.Name)
		}
		for _, one := range topic.Configs {
			if err := l.checkPolicy(topic.Name, collections[topic.Name], one.Key, one.MaybeValue()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Log) checkPolicy(topic, collection, key, value string) error {
	holds := l.o.Retention.Limited() && !l.o.Retention.DropUnread
	switch {
	case key == "cleanup.policy" && strings.Contains(value, "compact") && !slices.Contains(l.o.Kafka.Compact, collection):
		return usererr.New(nil, "%s: the topic %s of %s is compacted (its %s is %s), so that documents would be lost which others follow: set it to delete; or name the collection %s in topics.compact of the log, if the last document of each key is all that is needed of it",
			l.o.Kafka.At, topic, l.o.Kafka, key, value, collection)
	case (key == "retention.ms" || key == "retention.bytes") && value != "-1" && holds:
		return usererr.New(nil, "%s: the topic %s of %s drops records by itself, whether they were read or not (its %s is %s), and the log's retention is to keep what a materialization has not read: set retention.ms and retention.bytes of the topic to -1, or write unread: drop beside the retention",
			l.o.Kafka.At, topic, l.o.Kafka, key, value)
	}
	return nil
}
