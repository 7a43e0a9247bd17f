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
	"github.com/twmb/franz-go/pkg/kgo"

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
	next    int64 // behind what was handed out
	read    int64 // behind what was fetched
	to      int64
	records []*kgo.Record
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
	return &reader{log: l, topic: t, journal: j, at: place{t.Topic, id, int32(p)}, marks: l.total(j.Collection).Marks, next: from, read: from, to: to}, nil
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
func (r *reader) Next() (wal.Block, int64, bool, error) {
	for len(r.records) == 0 {
		if r.read >= r.to {
			r.next = r.to // what was left was compacted away, or are marks of transactions
			return wal.Block{}, r.next, false, nil
		}
		if err := r.fetch(); err != nil {
			return wal.Block{}, 0, false, err
		}
	}
	block := wal.Block{Sealed: r.records[0].Timestamp}
	taken := 0
	for _, record := range r.records {
		version, err := r.version(record)
		if err != nil {
			return wal.Block{}, 0, false, err
		}
		block.Schema = max(block.Schema, version)
		block.Add(record.Value)
		if taken++; block.Size() >= blockBytes {
			break
		}
	}
	r.next = r.records[taken-1].Offset + 1
	clear(r.records[:taken])
	if r.records = r.records[taken:]; len(r.records) == 0 && r.read >= r.to {
		r.next = r.to // what is left are marks of transactions
	}
	return block, r.next, true, nil
}

// fetch gets records, but none at the end or behind it.
func (r *reader) fetch() error {
	records, next, err := r.log.fetch(r.log.ctx, r.at, r.read, fetchBytes, 500*time.Millisecond)
	switch {
	case errors.Is(err, errGone):
		return usererr.New(err, "the topic %s of %s has no record %d in its partition %d any more, or does not have it yet: its retention has dropped it, or it was made anew. "+
			"Raise the backfill counters of the capture's binding and of the materialization's, to fill it anew", r.topic.Topic, r.log.o.Kafka, r.read, r.at.partition)
	case err != nil:
		return err
	}
	r.records = slices.DeleteFunc(records, func(record *kgo.Record) bool { return record.Offset >= r.to })
	r.read = next
	return nil
}

// version is what a record needs by its header and by the marks. One without the header is not ours.
func (r *reader) version(record *kgo.Record) (version uint32, err error) {
	i := slices.IndexFunc(record.Headers, func(h kgo.RecordHeader) bool { return h.Key == headerSchema })
	var n uint64
	if i >= 0 {
		n, err = strconv.ParseUint(string(record.Headers[i].Value), 10, 32)
	}
	if i < 0 || err != nil || record.Value == nil {
		return 0, usererr.New(err, "the topic %s of %s has a record that no capture has written, in its partition %d at %d: nobody else may write to it. Find out who does; to go on behind it, keep the collection in another topic",
			r.topic.Topic, r.log.o.Kafka, record.Partition, record.Offset)
	}
	version = uint32(n)
	for _, m := range r.marks {
		if int(record.Partition) < len(m.From) && record.Offset >= m.From[record.Partition] {
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
	records, _, err := l.fetch(l.ctx, place{t.Topic, id, int32(p)}, offset, 1, 0)
	if err != nil || len(records) == 0 {
		return time.Time{}, err
	}
	return records[0].Timestamp, nil
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
		records, next, err := l.fetch(l.ctx, place{t.Topic, id, int32(p)}, from, fetchBytes, 0)
		if err != nil {
			return 0, err
		}
		for _, r := range records {
			if r.Timestamp.UnixMilli() >= at.UnixMilli() {
				return min(r.Offset, head), nil
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
