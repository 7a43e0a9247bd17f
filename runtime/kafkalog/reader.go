package kafkalog

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

const (
	fetchBytes = 1 << 20   // of records, as they are stored
	blockBytes = 256 << 10 // of documents
)

// reader reads a partition, an answer of a broker at a time.
type reader struct {
	log     *Log
	topic   *topic
	journal wal.Journal
	at      place
	marks   []mark
	to      int64
	next    int64    // behind what was handed out
	answer  *answer  // the newest of a broker
	records []record // of a batch of it, that are not handed out yet
}

// Reader implements wal.Log.
func (l *Log) Reader(j wal.Journal, from, to int64) (wal.Reader, error) {
	t, p, err := l.find(j)
	if err != nil {
		return nil, err
	}
	id, err := parseID(t.ID)
	if err != nil {
		return nil, err
	}
	from = max(from, t.Base[p])
	return &reader{log: l, topic: t, journal: j, at: place{t.Topic, id, int32(p)}, marks: l.total(j.Collection).Marks, to: to, next: from, answer: &answer{next: from}}, nil
}

// textOf and parseID are an id of a topic as it is kept.
func textOf(id kadm.TopicID) string { return hex.EncodeToString(id[:]) }

func parseID(text string) (id kadm.TopicID, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("reading the id %q of a topic: %w", text, err)
	}
	copy(id[:], raw)
	return id, nil
}

// Next implements wal.Reader.
func (r *reader) Next() (block wal.Block, next int64, ok bool, err error) {
	for {
		more, err := r.fill()
		if err != nil {
			return wal.Block{}, 0, false, err
		}
		if !more {
			r.next = r.to // what is left are marks of transactions, or was compacted away
		}
		if !more || block.Size() >= blockBytes {
			return block, r.next, block.Count > 0, nil
		}
		if err := r.add(&block); err != nil {
			return wal.Block{}, 0, false, err
		}
	}
}

// add hands out one record.
func (r *reader) add(block *wal.Block) error {
	record := &r.records[0]
	version, err := r.version(record)
	if err != nil {
		return err
	}
	if block.Count == 0 {
		block.Sealed = time.UnixMilli(record.milli)
		block.Grow(min(r.answer.size, blockBytes+blockBytes/8))
	}
	block.Schema = max(block.Schema, version)
	block.Add(record.value)
	r.next, r.records = record.offset+1, r.records[1:]
	return nil
}

// fill sees to it that there is a record to hand out; false if there is none before the end.
func (r *reader) fill() (ok bool, err error) {
	for len(r.records) == 0 {
		switch {
		case !r.answer.done():
			if r.records, err = r.answer.take(); err != nil {
				return false, r.log.explain(err, "reading the log", r.topic.Topic)
			}
		case r.answer.next >= r.to:
			return false, nil
		default:
			if err := r.fetch(); err != nil {
				return false, err
			}
		}
	}
	return r.records[0].offset < r.to, nil
}

func (r *reader) fetch() error {
	offset := r.answer.next
	a, err := r.log.fetch(r.log.ctx, r.log.client, r.at, offset, fetchBytes, 500*time.Millisecond)
	switch {
	case errors.Is(err, errGone):
		return usererr.New(err, "the topic %s of %s has no record %d in its partition %d any more, or does not have it yet: its retention has dropped it, or it was made anew. "+
			"Raise the backfill counters of the capture's binding and of the materialization's, to fill it anew", r.topic.Topic, r.log.o.Kafka, offset, r.at.partition)
	case err != nil:
		return err
	}
	r.answer = a
	return nil
}

// version is what a record needs by its header and by the marks. One without the header is not ours.
func (r *reader) version(record *record) (version uint32, err error) {
	text, ok := record.header(headerSchema)
	n, err := strconv.ParseUint(string(text), 10, 32)
	if !ok || err != nil || record.value == nil {
		return 0, usererr.New(err, "the topic %s of %s has a record that no capture has written, in its partition %d at %d: nobody else may write to it. Find out who does; to go on behind it, keep the collection in another topic",
			r.topic.Topic, r.log.o.Kafka, r.at.partition, record.offset)
	}
	version = uint32(n)
	for _, m := range r.marks {
		if int(r.at.partition) < len(m.From) && record.offset >= m.From[r.at.partition] {
			version = max(version, m.Version)
		}
	}
	return version, nil
}

// Close implements wal.Reader.
func (r *reader) Close() error { return nil }

// Journals implements wal.Inspected.
func (l *Log) Journals() (list []wal.Journal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for collection, t := range l.topics {
		for p := range t.parts {
			if t.parts[p].head > 0 {
				list = append(list, journal(collection, p))
			}
		}
	}
	slices.SortFunc(list, wal.Journal.Compare)
	return list
}

// Span implements wal.Inspected. Captures count documents and commits of a collection, not of a partition: a partition's are its share of them.
func (l *Log) Span(j wal.Journal) (wal.Span, error) {
	t, p, err := l.find(j)
	if err != nil {
		return wal.Span{}, err
	}
	l.mu.Lock()
	s := wal.Span{Journal: j, Start: max(t.parts[p].start, t.Base[p]), Head: t.parts[p].head}
	l.mu.Unlock()
	sum := l.total(j.Collection)
	s.First, s.Last = sum.First, sum.Last
	s.Commits = l.share(t, p, s.Head, sum.Commits) - l.share(t, p, s.Start, sum.Commits)
	s.Documents = l.share(t, p, s.Head, sum.Docs) - l.share(t, p, s.Start, sum.Docs)
	if first, err := l.timeAt(t, p, s.Start); err == nil && !first.IsZero() {
		s.First = first
	}
	return s, nil
}

// share is how much of a collection's total stands in front of an offset of a partition, and in the partitions before it, if it is spread evenly over
// records; all of it at the end of the last one.
func (l *Log) share(t *topic, p int, offset, total int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var before, all int64
	for i := range t.parts {
		size := max(t.parts[i].head-t.Base[i], 0)
		if i < p {
			before += size
		}
		all += size
	}
	if all == 0 {
		return 0
	}
	return total * (before + min(max(offset-t.Base[p], 0), max(t.parts[p].head-t.Base[p], 0))) / all
}

// timeAt is the time of the first record at an offset or behind it.
func (l *Log) timeAt(t *topic, p int, offset int64) (time.Time, error) {
	id, err := parseID(t.ID)
	if err != nil {
		return time.Time{}, err
	}
	records, _, err := l.fetchAll(l.ctx, l.client, place{t.Topic, id, int32(p)}, offset, 1, 0)
	if err != nil || len(records) == 0 {
		return time.Time{}, err
	}
	return time.UnixMilli(records[0].milli), nil
}

// At implements wal.Inspected: all records of a transaction have one time, which is that of its beginning.
func (l *Log) At(j wal.Journal, at time.Time) (int64, error) {
	t, p, err := l.find(j)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeoutCause(l.ctx, l.o.Patience, errStalled)
	defer cancel()
	// The cluster has milliseconds: what is within the one of the time is later than it, or is taken for that.
	found, err := l.admin.ListOffsetsAfterMilli(ctx, at.UnixMilli(), t.Topic)
	if err != nil {
		return 0, l.explain(cause(ctx, err), "looking for a time", t.Topic)
	}
	l.mu.Lock()
	head := t.parts[p].head
	l.mu.Unlock()
	offset, ok := found.Lookup(t.Topic, int32(p))
	if !ok || offset.Err != nil {
		return 0, l.explain(offset.Err, "looking for a time", t.Topic)
	}
	return l.since(t, p, min(max(offset.Offset, t.Base[p]), head), head, at)
}

// since finds the first record of a time or later from an offset on: the cluster finds marks of transactions too, which have times of the brokers' clocks.
func (l *Log) since(t *topic, p int, from, head int64, at time.Time) (int64, error) {
	id, err := parseID(t.ID)
	if err != nil {
		return 0, err
	}
	for from < head {
		records, next, err := l.fetchAll(l.ctx, l.client, place{t.Topic, id, int32(p)}, from, fetchBytes, 0)
		if err != nil {
			return 0, err
		}
		for _, r := range records {
			if r.milli >= at.UnixMilli() {
				return min(r.offset, head), nil
			}
		}
		if next <= from {
			return from, nil // the rest is not to be seen, so nobody has read it
		}
		from = next
	}
	return head, nil
}

// Through implements wal.Inspected. What is known of an offset is the time of the record in front of it, and how many there are.
func (l *Log) Through(j wal.Journal, offset int64) (wal.Commit, error) {
	t, p, err := l.find(j)
	if err != nil {
		return wal.Commit{}, err
	}
	l.mu.Lock()
	start := max(t.parts[p].start, t.Base[p])
	l.mu.Unlock()
	c := wal.Commit{End: offset, Documents: l.share(t, p, offset, l.total(j.Collection).Docs)}
	if offset <= start {
		return c, nil
	}
	for back := int64(1); back <= 3 && c.Time.IsZero() && offset-back >= start; back++ { // a mark stands behind the records
		if c.Time, err = l.timeAt(t, p, offset-back); errors.Is(err, errGone) {
			return c, nil
		} else if err != nil {
			return c, err
		}
	}
	return c, nil
}
