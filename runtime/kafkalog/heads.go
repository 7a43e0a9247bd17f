package kafkalog

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// commit is what a transaction has moved. It is shown to readers when the cluster shows all of it.
type commit struct{ moves []move }

type move struct {
	topic *topic
	next  []int64 // by partition; zero where nothing ever was
}

// show has a commit shown as soon as it can be read.
func (l *Log) show(c *commit) {
	if len(c.moves) == 0 {
		return
	}
	l.mu.Lock()
	l.waiting = append(l.waiting, c)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// noteHead takes a head that was read.
func (l *Log) noteHead(collection, capture string, value []byte) error {
	l.mu.Lock()
	t := l.topics[collection]
	l.mu.Unlock()
	if t == nil || value == nil {
		return nil // of a collection that the pipeline does not have, or before topics are open: see loadHeads
	}
	var h heads
	if err := json.Unmarshal(value, &h); err != nil {
		return fmt.Errorf("reading how far %s has committed %s: %w", capture, collection, err)
	}
	l.mu.Lock()
	seen := true
	for p, next := range h.Next {
		seen = seen && (p >= len(t.parts) || next <= t.parts[p].head)
	}
	l.mu.Unlock()
	if !seen {
		l.show(&commit{moves: []move{{t, h.Next}}})
	}
	return nil
}

// loadHeads shows what was committed before this process began, when all of it can be read.
func (l *Log) loadHeads(ctx context.Context) error {
	for _, key := range l.state.names(headKey) {
		collection, capture, _ := cutHead(key)
		if err := l.noteHead(collection, capture, l.state.get(key)); err != nil {
			return err
		}
	}
	if err := l.starts(ctx); err != nil {
		return err
	}
	began := time.Now()
	deadline, said, ended := began.Add(l.o.Kafka.TransactionTimeout+l.o.Patience), began, false
	for {
		left, err := l.reveal(ctx)
		if err != nil || left == nil {
			return err
		}
		if !ended && l.mayEnd(began) {
			ended = true
			if err := l.endOthers(ctx); err != nil {
				return err
			}
		}
		if ends, err := l.admin.ListEndOffsets(ctx, left.topic); err == nil {
			if end, ok := ends.Lookup(left.topic, left.partition); ok && end.Err == nil && end.Offset < left.offset {
				return usererr.New(nil, "the topic %s of %s ends at %d in its partition %d, and %d records were committed: it was deleted and made anew, or has lost records with a broker. Fill the destinations anew from the sources, with topics of another prefix",
					left.topic, l.o.Kafka, end.Offset, left.partition, left.offset)
			}
		}
		if time.Now().After(deadline) {
			return usererr.New(nil, "the topic %s of %s cannot be read up to %d in its partition %d, since somebody's transaction in it does not end", left.topic, l.o.Kafka, left.offset, left.partition)
		}
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			l.o.Log.WithField("topic", left.topic).Warn("waiting for a transaction of somebody else in the topic to end")
		}
		if err := retry.Sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// unseen is a place that cannot be read yet.
type unseen struct {
	topic     string
	partition int32
	offset    int64
}

// reveal shows what the cluster shows as a whole by now, and returns one place that it does not; nil if there is none.
func (l *Log) reveal(ctx context.Context) (*unseen, error) {
	l.mu.Lock()
	waiting := slices.Clone(l.waiting)
	l.mu.Unlock()
	names := map[string]bool{}
	for _, c := range waiting {
		for _, m := range c.moves {
			names[m.topic.Topic] = true
		}
	}
	if len(names) == 0 {
		return nil, nil //nolint:nilnil // nothing waits
	}
	asking, cancel := context.WithTimeoutCause(ctx, l.o.Patience, errStalled)
	defer cancel()
	stable, err := l.admin.ListCommittedOffsets(asking, slices.Sorted(maps.Keys(names))...)
	if err != nil {
		return nil, l.explain(cause(asking, err), "asking how far the log can be read", "")
	}
	var first *unseen
	shown := map[*commit]bool{}
	for _, c := range waiting {
		if hidden := c.hidden(stable); hidden == nil {
			shown[c] = true
		} else if first == nil {
			first = hidden
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = slices.DeleteFunc(l.waiting, func(c *commit) bool { return shown[c] })
	for c := range shown {
		for _, m := range c.moves {
			for p, next := range m.next {
				if p < len(m.topic.parts) {
					m.topic.parts[p].head = max(m.topic.parts[p].head, next)
				}
			}
		}
	}
	if len(shown) > 0 {
		l.announceLocked()
	}
	return first, nil
}

// announce wakes those who wait for a change.
func (l *Log) announce() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.announceLocked()
}

func (l *Log) announceLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// hidden is a place of the commit that cannot be read yet; nil if there is none.
func (c *commit) hidden(stable kadm.ListedOffsets) *unseen {
	for _, m := range c.moves {
		for p, next := range m.next {
			at, ok := stable.Lookup(m.topic.Topic, int32(p))
			if next > 0 && (!ok || at.Err != nil || at.Offset < next) {
				return &unseen{m.topic.Topic, int32(p), next}
			}
		}
	}
	return nil
}

// starts learns where what is left of each partition begins.
func (l *Log) starts(ctx context.Context) error {
	l.mu.Lock()
	all := map[string]*topic{}
	for _, t := range l.topics {
		all[t.Topic] = t
	}
	l.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	asking, cancel := context.WithTimeoutCause(ctx, l.o.Patience, errStalled)
	defer cancel()
	found, err := l.admin.ListStartOffsets(asking, slices.Sorted(maps.Keys(all))...)
	if err != nil {
		return l.explain(cause(asking, err), "asking where the log begins", "")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, t := range all {
		for p := range t.parts {
			if at, ok := found.Lookup(name, int32(p)); ok && at.Err == nil && at.Offset > t.Base[p] {
				t.parts[p].start = at.Offset
			}
		}
	}
	return nil
}

const lookEvery = 3 * time.Second

// watch shows commits, and looks now and then whether the tasks are still ours and the topics are still there.
func (l *Log) watch() {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var again <-chan time.Time
	wait := time.Millisecond
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.wake:
			wait = time.Millisecond
		case <-again:
		case <-look.C:
			if err := l.look(); err != nil && l.ctx.Err() == nil {
				l.o.Log.WithError(err).Warn("looking after the log failed: " + usererr.Message(err))
			}
		}
		again = nil
		left, err := l.reveal(l.ctx)
		if err != nil && l.ctx.Err() == nil {
			l.o.Log.WithError(err).Warn("what was committed cannot be shown yet: " + usererr.Message(err))
			wait = time.Second
		}
		if left != nil || err != nil {
			again = time.After(wait)
			wait = min(2*wait, 100*time.Millisecond)
		}
	}
}

func (l *Log) look() error {
	if err := l.catchUp(l.ctx); err != nil {
		return err
	}
	l.allMine()
	if err := l.starts(l.ctx); err != nil {
		return err
	}
	l.mu.Lock()
	all := slices.Collect(maps.Values(l.topics))
	l.mu.Unlock()
	var names []string
	for _, t := range all {
		names = append(names, t.Topic)
	}
	if len(names) == 0 {
		return nil
	}
	found, err := l.describe(l.ctx, names...)
	if err != nil {
		return err
	}
	for _, t := range all {
		detail, ok := found[t.Topic]
		if !ok {
			return l.explain(kerr.UnknownTopicOrPartition, "looking for the log", t.Topic)
		}
		if err := l.sameTopic(t, detail); err != nil {
			return err
		}
	}
	return nil
}

// Changed implements wal.Log.
func (l *Log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Heads implements wal.Log. The journals are the partitions, in their order.
func (l *Log) Heads(collection string) (list []wal.Head) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[collection]
	if t == nil {
		return nil
	}
	for p := range t.parts {
		if t.parts[p].head > 0 {
			list = append(list, wal.Head{Journal: journal(collection, p), Offset: t.parts[p].head, Start: t.parts[p].start})
		}
	}
	return list
}

// Alone implements wal.Log.
func (l *Log) Alone(collection, capture string) []wal.Head {
	for _, key := range l.state.names(headKey + collection + ";") {
		_, other, _ := cutHead(key)
		if name, _, _ := strings.Cut(other, ";"); name != capture { // its shards are the same capture
			return nil
		}
	}
	return l.Heads(collection)
}

// total is what all captures have committed of a collection.
func (l *Log) total(collection string) (sum heads) {
	for _, key := range l.state.names(headKey + collection + ";") {
		var h heads
		if json.Unmarshal(l.state.get(key), &h) != nil {
			continue
		}
		sum.Docs, sum.Bytes, sum.Commits = sum.Docs+h.Docs, sum.Bytes+h.Bytes, sum.Commits+h.Commits
		if sum.First.IsZero() || h.First.Before(sum.First) {
			sum.First = h.First
		}
		if h.Last.After(sum.Last) {
			sum.Last = h.Last
		}
		sum.Marks = append(sum.Marks, h.Marks...)
	}
	return sum
}

// Behind implements wal.Log: as many records as there are, of a document's usual size.
func (l *Log) Behind(j wal.Journal, offset int64) int64 {
	t, p, err := l.find(j)
	if err != nil {
		return 0
	}
	l.mu.Lock()
	records := t.parts[p].head - max(offset, t.Base[p])
	l.mu.Unlock()
	sum := l.total(j.Collection)
	if records <= 0 || sum.Docs == 0 {
		return max(records, 0)
	}
	return max(records*sum.Bytes/sum.Docs, 1)
}
