package kafkalog

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// What keys of the state topic begin with.
const (
	recordKey = "record/" // of wal.Store
	headKey   = "head/"   // collection;capture → heads
	claimKey  = "claim/"  // task → instance
	topicKey  = "topic/"  // collection → topicRecord
	unitsKey  = "units"   // names of what processes share
)

// state is what the state topic has, as far as it was read.
type state struct {
	id kadm.TopicID

	reading sync.Mutex // one reads on
	next    int64      // offset to read on from

	mu      sync.Mutex
	entries map[string]entry
	log     *Log
}

// entry is a record with its place, by which it is known which of two is newer. A nil value is a deletion.
type entry struct {
	value  []byte
	offset int64
}

func (s *state) init(l *Log) { s.entries, s.log = map[string]entry{}, l }

func (s *state) get(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[key].value
}

func (s *state) names(prefix string) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, e := range s.entries {
		if e.value != nil && strings.HasPrefix(key, prefix) {
			names = append(names, key)
		}
	}
	slices.Sort(names)
	return names
}

// set keeps a record that was read or committed, unless a newer one is known.
func (s *state) set(key string, value []byte, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.entries[key]; !ok || old.offset < offset {
		s.entries[key] = entry{slices.Clone(value), offset}
	}
}

// openState finds the state topic, or makes it, and returns the cluster's id.
func (l *Log) openState(ctx context.Context) (cluster string, err error) {
	meta, err := l.admin.BrokerMetadata(ctx)
	if err != nil {
		return "", l.explain(cause(ctx, err), "opening the log", "")
	}
	name := l.stateName()
	found, err := l.describe(ctx, name)
	if err != nil {
		return "", err
	}
	t, exists := found[name]
	switch {
	case exists:
		err = l.checkState(ctx, t)
	case l.o.ReadOnly:
		err = usererr.New(nil, "there is no log on %s whose topics are called %s.*: no sluice run has used it yet", l.o.Kafka, l.o.Kafka.Prefix)
	default:
		t, err = l.create(ctx, name, 1, map[string]string{"cleanup.policy": "compact", "message.timestamp.type": "CreateTime", "max.message.bytes": "67108864", "segment.ms": "86400000"})
	}
	l.state.id = t.ID
	return meta.Cluster, err
}

// checkState refuses a state topic that would lose what it has.
func (l *Log) checkState(ctx context.Context, t kadm.TopicDetail) error {
	configs, err := l.admin.DescribeTopicConfigs(ctx, t.Topic)
	if err != nil {
		return l.explain(err, "looking at the log", t.Topic)
	}
	policy := ""
	for _, c := range configs {
		if c.Err != nil {
			return l.explain(c.Err, "looking at the log (which takes DESCRIBE_CONFIGS)", t.Topic)
		}
		for _, one := range c.Configs {
			if one.Key == "cleanup.policy" {
				policy = one.MaybeValue()
			}
		}
	}
	if len(t.Partitions) != 1 || policy != "compact" {
		return usererr.New(nil, "the topic %s of %s, in which the log keeps its own records, has %d partitions and cleanup.policy=%s: it must have one partition and be compacted, nothing else; choose another topics.prefix, or make it anew if it is empty",
			t.Topic, l.o.Kafka, len(t.Partitions), policy)
	}
	return nil
}

// cause is why a context ended, instead of that it did; nil for nil.
func cause(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if why := context.Cause(ctx); why != nil {
		return why
	}
	return err
}

// catchUp reads the state topic to its present end: up to where transactions that run now are over. Whoever has begun a producer before knows
// all that the older one has committed, then.
func (l *Log) catchUp(ctx context.Context) error {
	s, name := &l.state, l.stateName()
	s.reading.Lock()
	defer s.reading.Unlock()
	ends, err := l.offsets(ctx, l.admin.ListEndOffsets, name)
	if err != nil {
		return l.explain(err, "reading the log's state", name)
	}
	end, _ := ends.Lookup(name, 0)
	if end.Offset < s.next {
		return usererr.New(nil, "the topic %s of %s ends at %d, and was read up to %d already: it was deleted and made anew, or has lost records. What the log knew is lost with them: delete all topics %s.* and begin anew",
			name, l.o.Kafka, end.Offset, s.next, l.o.Kafka.Prefix)
	}
	began := time.Now()
	said, ended := began, false
	for s.next < end.Offset {
		records, next, err := l.fetchAll(ctx, l.client, place{name, s.id, 0}, s.next, stateFetch, 500*time.Millisecond)
		if err != nil {
			return err
		}
		if err := l.note(records); err != nil {
			return err
		}
		if next == s.next && !ended && l.mayEnd(began) {
			ended = true
			if err := l.endOthers(ctx); err != nil {
				return err
			}
		}
		if next == s.next && time.Since(said) > 5*time.Second {
			said = time.Now()
			l.o.Log.WithField("topic", name).Warn("waiting for a transaction of a process that ended: the cluster ends it when its time is over (transactionTimeout of the log)")
		}
		s.next = next
	}
	return nil
}

const stateFetch = 4 << 20

// note keeps what was read.
func (l *Log) note(records []record) error {
	for _, r := range records {
		l.state.set(string(r.key), r.value, r.offset)
		if collection, capture, ok := cutHead(string(r.key)); ok {
			if err := l.noteHead(collection, capture, r.value); err != nil {
				return err
			}
		}
	}
	return nil
}

// follow reads the state topic on as it grows, so that what other processes commit is known here at once. What is read by others meanwhile is
// noted twice, which does no harm.
func (l *Log) follow() {
	defer l.follower.Close()
	s, name := &l.state, l.stateName()
	s.reading.Lock()
	at := s.next
	s.reading.Unlock()
	for l.ctx.Err() == nil {
		records, next, err := l.fetchAll(l.ctx, l.follower, place{name, s.id, 0}, at, stateFetch, 500*time.Millisecond)
		if err == nil {
			err = l.note(records)
		}
		if err != nil {
			if l.ctx.Err() == nil {
				l.o.Log.WithError(err).Warn("what other processes commit cannot be seen now: " + usererr.Message(err))
			}
			_ = retry.Sleep(l.ctx, time.Second) // it ends with the log
			continue
		}
		at = next
		if slices.ContainsFunc(records, func(r record) bool { return strings.HasPrefix(string(r.key), claimKey) }) {
			l.allMine()
		}
		if len(records) > 0 {
			l.announce()
		}
	}
}

func cutHead(key string) (collection, capture string, ok bool) {
	rest, ok := strings.CutPrefix(key, headKey)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ";")
}

// record makes one of the state topic. A nil value deletes.
func (l *Log) record(key string, value []byte, at time.Time) *kgo.Record {
	return &kgo.Record{Topic: l.stateName(), Partition: 0, Key: []byte(key), Value: value, Timestamp: at}
}
