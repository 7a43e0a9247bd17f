package kafkalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// topic is that of a collection.
type topic struct {
	topicRecord
	collection string
	parts      []part
}

// topicRecord is what is kept of a topic that is ours.
type topicRecord struct {
	Topic string `json:"topic"`
	ID    string `json:"id"` // "" while it is being made
	// Base is where each partition began to be ours, which was behind other records if it was adopted. There are as many partitions as
	// the topic had then; those that it got since are not used, since keys would move.
	Base []int64 `json:"base"`
}

// part is a partition as its readers see it.
type part struct {
	head  int64 // behind all that is committed and can be read
	start int64 // of what is left
}

// topicName is that of a collection's topic, and stateName that of the other one.
func (l *Log) topicName(collection string) string {
	return l.o.Kafka.Prefix + "." + strings.ReplaceAll(collection, "/", ".")
}

func (l *Log) stateName() string { return l.o.Kafka.Prefix + ".sluice-state" }

// transactional is the id of a task's producer. It is a name of its own, so that permissions can be given by prefix.
func (l *Log) transactional(task string) string {
	return l.o.Kafka.Prefix + "." + strings.ReplaceAll(task, "/", ".")
}

var topicChars = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

// checkNames refuses collections that cannot be topics, and such as would share one.
func (l *Log) checkNames() error {
	by := map[string]string{l.stateName(): "the log's own records", l.unitsTopic(): "the log's own records"}
	for _, collection := range slices.Sorted(maps.Keys(l.o.Collections)) {
		name := l.topicName(collection)
		if !topicChars.MatchString(name) {
			return usererr.New(nil, "the collection %s cannot be a topic of Kafka, which is called %s then: rename it, to letters, digits, dots, dashes and underscores, 249 with the prefix", collection, name)
		}
		if other := by[name]; other != "" {
			return usererr.New(nil, "the collection %s cannot be a topic of Kafka: that would be %s, which is that of %s already: rename it", collection, name, other)
		}
		by[name] = "the collection " + collection
	}
	return nil
}

// describe looks topics up. Those that do not exist are left out.
func (l *Log) describe(ctx context.Context, names ...string) (kadm.TopicDetails, error) {
	found, err := l.admin.ListTopics(ctx, names...)
	if err != nil {
		return nil, l.explain(err, "looking for the log", "")
	}
	for name, t := range found {
		if errors.Is(t.Err, kerr.UnknownTopicOrPartition) {
			delete(found, name)
			continue
		}
		if t.Err != nil {
			return nil, l.explain(t.Err, "looking for the log", name)
		}
	}
	return found, nil
}

// create makes a topic and waits until it can be used.
func (l *Log) create(ctx context.Context, name string, partitions int, config map[string]string) (kadm.TopicDetail, error) {
	replication := int16(-1)
	if l.o.Kafka.Replication > 0 {
		replication = int16(l.o.Kafka.Replication)
	}
	settings := map[string]*string{}
	for key, value := range config {
		settings[key] = &value
	}
	made, err := l.admin.CreateTopic(ctx, int32(partitions), replication, settings, name)
	if err == nil {
		err = made.Err
	}
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return kadm.TopicDetail{}, l.explain(err, "making a topic", name)
	}
	for {
		found, err := l.describe(ctx, name)
		if err != nil {
			return kadm.TopicDetail{}, err
		}
		if t, ok := found[name]; ok && len(t.Partitions) >= partitions && led(t) && l.everywhere(ctx, name) {
			return t, nil
		}
		if err := retry.Sleep(ctx, 20*time.Millisecond); err != nil {
			return kadm.TopicDetail{}, l.explain(context.Cause(ctx), "making a topic", name)
		}
	}
}

// led tells whether every partition has a leader.
func led(t kadm.TopicDetail) bool {
	for _, p := range t.Partitions {
		if p.Err != nil || p.Leader < 0 {
			return false
		}
	}
	return true
}

// everywhere tells whether all brokers that answer know a new topic. The next question may go to any of them, and one that has not heard of it yet
// says that it does not exist.
func (l *Log) everywhere(ctx context.Context, name string) bool {
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	all, err := l.admin.ListBrokers(limited)
	if err != nil {
		return false
	}
	request := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &name
	request.Topics = []kmsg.MetadataRequestTopic{t}
	unknown := make(chan bool, len(all))
	for _, broker := range all {
		go func() {
			answer, err := request.RequestWith(limited, l.client.Broker(int(broker.NodeID)))
			unknown <- err == nil && len(answer.Topics) == 1 && answer.Topics[0].ErrorCode != 0
		}()
	}
	known := true
	for range all {
		known = !<-unknown && known
	}
	return known
}

// settings are those of a collection's topic. It is compacted only if the pipeline says so, and drops by itself only what nobody need have read.
func (l *Log) settings(collection string) map[string]string {
	r := l.o.Retention
	policy := "delete"
	switch compact := slices.Contains(l.o.Kafka.Compact, collection); {
	case compact && r.Limited():
		policy = "compact,delete"
	case compact:
		policy = "compact"
	}
	limit := func(v int64) string {
		if v == 0 || !r.DropUnread { // else we drop, what everybody has read
			return "-1"
		}
		return strconv.FormatInt(max(v, 1), 10)
	}
	return map[string]string{
		"cleanup.policy": policy, "message.timestamp.type": "CreateTime", "max.message.bytes": strconv.FormatInt(l.batchBytes(), 10),
		"retention.ms": limit(r.Time.Milliseconds()), "retention.bytes": limit(r.Bytes / int64(l.o.Kafka.Partitions)),
	}
}

// batchBytes is how large a batch of records may be: one document, with what stands around it.
func (l *Log) batchBytes() int64 { return l.o.Kafka.MaxDocument + 64<<10 }

// openTopics finds the collections' topics, and makes those that are not there.
func (l *Log) openTopics(ctx context.Context) error {
	if l.o.ReadOnly {
		l.o.Collections = map[string]Key{}
		for _, key := range l.state.names(topicKey) {
			l.o.Collections[strings.TrimPrefix(key, topicKey)] = Key{}
		}
	}
	if len(l.o.Collections) == 0 {
		return nil
	}
	asking, cancel := context.WithTimeoutCause(ctx, l.o.Patience, errStalled)
	defer cancel()
	var names []string
	for collection := range l.o.Collections {
		names = append(names, l.topicName(collection))
	}
	found, err := l.describe(asking, names...)
	if err != nil {
		return err
	}
	for _, collection := range slices.Sorted(maps.Keys(l.o.Collections)) {
		if err := l.openTopic(asking, collection, found); err != nil {
			return err
		}
	}
	return l.checkPolicies(asking)
}

func (l *Log) openTopic(ctx context.Context, collection string, found kadm.TopicDetails) error {
	t := &topic{topicRecord: topicRecord{Topic: l.topicName(collection)}, collection: collection}
	known, err := l.knownTopic(t)
	if err != nil {
		return err
	}
	detail, exists := found[t.Topic]
	if exists && !known && l.o.Joined { // another process may just be making it
		if err := l.catchUp(ctx); err != nil {
			return err
		}
		if known, err = l.knownTopic(t); err != nil {
			return err
		}
	}
	switch {
	case t.ID != "" && !exists:
		return l.explain(kerr.UnknownTopicOrPartition, "opening the log", t.Topic)
	case t.ID != "":
		if err := l.sameTopic(t, detail); err != nil {
			return err
		}
	case l.o.ReadOnly:
		return nil // it has never been used
	case exists && !known && !l.o.Kafka.Adopt:
		return usererr.New(nil, "%s: the topic %s of %s exists already, and is not of this pipeline: say topics: {adopt: true} to have the collection %s kept in it, behind what it has, or choose another topics.prefix",
			l.o.Kafka.At, t.Topic, l.o.Kafka, collection)
	default:
		if err := l.adopt(ctx, t, detail, exists); err != nil {
			return err
		}
	}
	t.parts = make([]part, len(t.Base))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.topics[collection] = t
	return nil
}

// knownTopic reads what is kept of a topic; false if nothing is.
func (l *Log) knownTopic(t *topic) (bool, error) {
	known := l.state.get(topicKey + t.collection)
	if known == nil {
		return false, nil
	}
	if err := json.Unmarshal(known, &t.topicRecord); err != nil {
		return false, fmt.Errorf("reading what is kept of the topic %s: %w", t.Topic, err)
	}
	return true, nil
}

// sameTopic refuses a topic that was deleted, and made anew.
func (l *Log) sameTopic(t *topic, detail kadm.TopicDetail) error {
	if textOf(detail.ID) != t.ID {
		return usererr.New(nil, "the topic %s of %s was deleted and made anew: what was in it is lost. Delete all topics %s.* and raise the backfill counters of the materializations, to read the sources anew",
			t.Topic, l.o.Kafka, l.o.Kafka.Prefix)
	}
	if len(detail.Partitions) < len(t.Base) {
		return usererr.New(nil, "the topic %s of %s has %d partitions, and had %d: what was in the others is lost", t.Topic, l.o.Kafka, len(detail.Partitions), len(t.Base))
	}
	return nil
}

// adopt makes a topic ours: a new one, or one that exists. That it is about to be made is noted first, so that it is known again if this ends before
// it is done. Of processes that do it at the same time, the first decides where it begins.
func (l *Log) adopt(ctx context.Context, t *topic, detail kadm.TopicDetail, exists bool) error {
	note := func() error {
		return l.owner(pipelineTask).update(ctx, func() (map[string][]byte, error) {
			var other topicRecord
			if known := l.state.get(topicKey + t.collection); known != nil && json.Unmarshal(known, &other) == nil && other.ID != "" {
				t.topicRecord = other
				return nil, nil
			}
			text, err := json.Marshal(t.topicRecord)
			if err != nil {
				return nil, fmt.Errorf("encoding what is kept of the topic %s: %w", t.Topic, err)
			}
			return map[string][]byte{topicKey + t.collection: text}, nil
		})
	}
	if !exists {
		err := note()
		if err == nil {
			detail, err = l.create(ctx, t.Topic, l.o.Kafka.Partitions, l.settings(t.collection))
		}
		if err != nil {
			return err
		}
	}
	ends, err := l.offsets(ctx, l.admin.ListEndOffsets, t.Topic)
	if err != nil {
		return l.explain(err, "opening the log", t.Topic)
	}
	t.ID, t.Base = textOf(detail.ID), make([]int64, len(detail.Partitions))
	for p := range t.Base {
		end, _ := ends.Lookup(t.Topic, int32(p))
		t.Base[p] = end.Offset
	}
	return note()
}

// journal is the name of a partition.
func journal(collection string, p int) wal.Journal {
	return wal.Journal{Collection: collection, Part: "#" + strconv.Itoa(p)}
}

// find is the topic and the partition of a journal.
func (l *Log) find(j wal.Journal) (*topic, int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[j.Collection]
	p, err := strconv.Atoi(strings.TrimPrefix(j.Part, "#"))
	if t == nil || err != nil || p < 0 || p >= len(t.parts) {
		return nil, 0, fmt.Errorf("reading the journal %s: it does not exist", j)
	}
	return t, p, nil
}
