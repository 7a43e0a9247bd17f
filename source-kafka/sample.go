package main

import (
	"context"
	"slices"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What discovery reads of topics, to learn what the registry does not say, is bounded: it must neither take long nor load the
// cluster.
const (
	samplesWanted = 20               // of each topic
	sampleBytes   = 1 << 20          // of each topic's samples, and of one fetch of a broker
	sampleTime    = 10 * time.Second // for all topics together
)

// sampler reads the newest records of topics. It belongs to one goroutine.
type sampler struct {
	log     *logrus.Entry
	waiting map[string]map[int32]int64 // partitions that are being read: up to which offset
	refused map[string]bool            // topics that may not be read
	found   map[string][]*kgo.Record
	bytes   map[string]int
}

// samples are the newest committed records of each topic, some of each of its partitions; what cannot be read in time is not among
// them.
func samples(ctx context.Context, log *logrus.Entry, cfg config, admin *kadm.Client, topics []kadm.TopicDetail) map[string][]*kgo.Record {
	if cfg.Advanced.SkipSamples || len(topics) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sampleTime)
	defer cancel()
	s := &sampler{log: log, waiting: map[string]map[int32]int64{}, refused: map[string]bool{}, found: map[string][]*kgo.Record{}, bytes: map[string]int{}}
	if err := s.read(ctx, cfg, admin, topics); err != nil {
		log.WithError(err).Warn("the newest records of topics cannot be read, so schemas are those that the registry has for the topics' names")
	}
	return s.found
}

func (s *sampler) read(ctx context.Context, cfg config, admin *kadm.Client, topics []kadm.TopicDetail) error {
	from, err := s.plan(ctx, admin, topics)
	if err != nil || len(from) == 0 {
		return err
	}
	size, err := newFetchSize(sampleBytes)
	if err != nil {
		return err
	}
	client, err := newClient(cfg, s.log, kgo.WithHooks(size), kgo.ConsumePartitions(from), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.BrokerMaxReadBytes(maxBatch), kgo.WithDecompressor(size),
		kgo.FetchMaxBytes(sampleBytes), kgo.FetchMaxPartitionBytes(leastFetch))
	if err != nil {
		return err
	}
	defer client.Close()
	for len(s.waiting) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			s.log.WithField("topics", len(s.waiting)).Info("not all topics could be sampled in time")
			return nil
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if s.take(p) {
				client.RemoveConsumePartitions(map[string][]int32{p.Topic: {p.Partition}})
			}
		})
	}
	return nil
}

// plan decides where to begin in each partition. What is at its end may be the ends of transactions, so twice as many offsets are
// read as records are wanted.
func (s *sampler) plan(ctx context.Context, admin *kadm.Client, topics []kadm.TopicDetail) (map[string]map[int32]kgo.Offset, error) {
	var names []string
	for _, t := range topics {
		names = append(names, t.Topic)
	}
	first, err := admin.ListStartOffsets(ctx, names...)
	if err = allUnreachable(err); err != nil {
		return nil, &askError{err}
	}
	end, err := admin.ListCommittedOffsets(ctx, names...)
	if err = allUnreachable(err); err != nil {
		return nil, &askError{err}
	}
	all := map[string]map[int32]kgo.Offset{}
	for _, t := range topics {
		from, until := map[int32]kgo.Offset{}, map[int32]int64{}
		each := int64(2 * max(1, samplesWanted/max(1, len(t.Partitions))))
		for _, p := range t.Partitions.Numbers() {
			b, okFirst := first.Lookup(t.Topic, p)
			e, okEnd := end.Lookup(t.Topic, p)
			if !okFirst || !okEnd || b.Err != nil || e.Err != nil || e.Offset <= b.Offset || len(from) == samplesWanted {
				continue
			}
			from[p] = kgo.NewOffset().At(max(b.Offset, e.Offset-each))
			until[p] = e.Offset
		}
		if len(from) > 0 {
			all[t.Topic], s.waiting[t.Topic] = from, until
		}
	}
	return all, nil
}

// take keeps what was fetched of a partition. It returns whether the partition is done with.
func (s *sampler) take(p kgo.FetchTopicPartition) bool {
	until, ok := s.waiting[p.Topic][p.Partition]
	if !ok {
		return true
	}
	if p.Err != nil && !s.refused[p.Topic] {
		s.refused[p.Topic] = true
		s.log.WithField("topic", p.Topic).WithError(p.Err).Warn("the topic's newest records cannot be read, so its schema is what the registry has for the topic's name")
	}
	done := p.Err != nil
	for _, rec := range p.Records {
		done = done || rec.Offset >= until-1
		if size := len(rec.Key) + len(rec.Value); !rec.Attrs.IsControl() && s.bytes[p.Topic]+size <= sampleBytes {
			s.bytes[p.Topic] += size
			s.found[p.Topic] = append(s.found[p.Topic], rec)
		}
	}
	if !done {
		return false
	}
	if delete(s.waiting[p.Topic], p.Partition); len(s.waiting[p.Topic]) == 0 {
		delete(s.waiting, p.Topic)
		slices.SortStableFunc(s.found[p.Topic], func(a, b *kgo.Record) int { return b.Timestamp.Compare(a.Timestamp) })
	}
	return true
}
