package kafkalog

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicedata/sluice/sdk/retry"
)

// place is a partition.
type place struct {
	topic     string
	id        kadm.TopicID
	partition int32
}

// errGone says that what stands at an offset was dropped.
var errGone = errors.New("what stood there was dropped")

// fetch reads committed records of a partition from an offset, about maxBytes of them as they are stored; it waits
// for some until the wait is over. The leader is found, and found anew, until the log's patience is over. The error is for people, or wraps errGone.
func (l *Log) fetch(ctx context.Context, client *kgo.Client, at place, offset int64, maxBytes int, wait time.Duration) (*answer, error) {
	deadline := time.Now().Add(l.o.Patience)
	for {
		sent, err := l.fetchOnce(ctx, client, at, offset, maxBytes, wait)
		if err == nil {
			err = kerr.ErrorForCode(sent.ErrorCode)
		}
		switch {
		case err == nil:
			return newAnswer(sent, offset, l.unpack), nil
		case errors.Is(err, kerr.OffsetOutOfRange):
			return nil, errGone
		case ctx.Err() != nil:
			return nil, cause(ctx, err)
		case !passes(err) || time.Now().After(deadline):
			return nil, l.explain(err, "reading the log", at.topic)
		}
		if err := retry.Sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, cause(ctx, err)
		}
	}
}

// fetchAll is fetch, and takes the answer apart. next is where the next fetch begins.
func (l *Log) fetchAll(ctx context.Context, client *kgo.Client, at place, offset int64, maxBytes int, wait time.Duration) (records []record, next int64, err error) {
	a, err := l.fetch(ctx, client, at, offset, maxBytes, wait)
	if err != nil {
		return nil, 0, err
	}
	if records, err = a.rest(); err != nil {
		return nil, 0, l.explain(err, "reading the log", at.topic)
	}
	return records, a.next, nil
}

func (l *Log) fetchOnce(ctx context.Context, client *kgo.Client, at place, offset int64, maxBytes int, wait time.Duration) (*kmsg.FetchResponseTopicPartition, error) {
	led, err := leader(ctx, client, at)
	if err != nil {
		return nil, err
	}
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = at.partition, offset, int32(maxBytes)
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID, t.Partitions = at.topic, at.id, []kmsg.FetchRequestTopicPartition{p}
	request := kmsg.NewPtrFetchRequest()
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes, request.IsolationLevel = int32(wait.Milliseconds()), 1, int32(maxBytes), 1
	request.Topics = []kmsg.FetchRequestTopic{t}
	limited, cancel := context.WithTimeoutCause(ctx, wait+l.o.Patience, errStalled)
	defer cancel()
	answer, err := client.Broker(int(led)).RetriableRequest(limited, request)
	if err != nil {
		return nil, cause(limited, err)
	}
	response, ok := answer.(*kmsg.FetchResponse)
	if !ok {
		return nil, errors.New("the answer is none to a fetch")
	}
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return nil, err
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return nil, errors.New("the answer to a fetch lacks the partition")
	}
	return &response.Topics[0].Partitions[0], nil
}

// leader asks who leads a partition. The client keeps the answer for a while.
func leader(ctx context.Context, client *kgo.Client, at place) (int32, error) {
	request := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &at.topic
	request.Topics = []kmsg.MetadataRequestTopic{t}
	answer, err := client.RequestCachedMetadata(ctx, request, time.Second)
	if err != nil {
		return 0, err
	}
	for _, t := range answer.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return 0, err
		}
		for _, p := range t.Partitions {
			if p.Partition == at.partition {
				return p.Leader, kerr.ErrorForCode(p.ErrorCode)
			}
		}
	}
	return 0, kerr.UnknownTopicOrPartition
}

// offsets lists those of topics. Leaders are found, and found anew, until the log's patience is over; a topic that does not exist is said at once.
func (l *Log) offsets(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error), topics ...string) (kadm.ListedOffsets, error) {
	deadline := time.Now().Add(l.o.Patience)
	for {
		found, err := list(ctx, topics...)
		if err == nil {
			err = found.Error()
		}
		if err == nil || ctx.Err() != nil || !passes(err) || isGone(err) || time.Now().After(deadline) {
			return found, cause(ctx, err)
		}
		if err := retry.Sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, cause(ctx, err)
		}
	}
}

// passes tells whether an error may be one of brokers that come, go, and take over from each other.
func passes(err error) bool { return kerr.IsRetriable(err) || isNet(err) || isNoBroker(err) }

// isGone tells whether a topic does not exist. That may pass as well, but only where it has just been made.
func isGone(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)
}

// isNoBroker tells whether a leader is not known to the client yet.
func isNoBroker(err error) bool { return strings.Contains(err.Error(), "unknown broker") }
