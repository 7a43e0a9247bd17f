package engine

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
)

// retention drops from the log what is older, or more, than the pipeline wants to keep. It is for one goroutine.
type retention struct {
	log     wal.Bounded
	rule    pipeline.Retention
	defs    []*pipeline.Materialization
	board   *status.Board
	logger  *logrus.Entry
	now     func() time.Time
	running *running
	warned  map[string]time.Time // by materialization: when it was last said that it holds the log back
}

const (
	retentionEvery = time.Minute
	warnAgain      = time.Hour
	// leastShare is how much of a journal goes at once, at least: the engine works for every drop.
	leastShare = 100
)

// run applies the rule until the context is over.
func (r *retention) run(ctx context.Context, every time.Duration) {
	if every == 0 {
		every = retentionEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := r.apply(ctx); err != nil && ctx.Err() == nil {
			r.logger.WithError(err).Warn("dropping old documents from the log failed, and is tried again")
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// apply drops what the rule says, in front of what a materialization still needs.
func (r *retention) apply(ctx context.Context) error {
	cuts, err := r.cuts()
	if err != nil {
		return err
	}
	readers, err := materialize.Readers(r.log, r.defs)
	if err != nil {
		return err
	}
	held := map[string]int64{}
	for name, cut := range cuts {
		if err := r.drop(ctx, name, cut, readers, held); err != nil {
			return err
		}
	}
	r.warn(held)
	r.board.Held(held)
	return nil
}

// cuts are the places in front of which the rule wants nothing kept, where that is worth the work.
func (r *retention) cuts() (map[wal.Journal]int64, error) {
	now := r.now()
	oldest, newest := now, now // a clock that was put back is behind the newest commit
	spans := map[wal.Journal]wal.Span{}
	for _, name := range r.log.Journals() {
		span, err := r.log.Span(name)
		if err != nil {
			return nil, err
		}
		spans[name] = span
		if span.First.Before(oldest) {
			oldest = span.First
		}
		if span.Last.After(newest) {
			newest = span.Last
		}
	}
	since := oldest
	if r.rule.Time > 0 {
		since = now.Add(-r.rule.Time)
	}
	cuts, left, err := r.at(spans, since)
	if err != nil || r.rule.Bytes == 0 || left <= r.rule.Bytes {
		return cuts, err
	}
	// The oldest commits of all journals go first: find the time from which on the size is kept.
	for low, high := since, newest.Add(2*time.Millisecond); high.Sub(low) > time.Millisecond; {
		middle := low.Add(high.Sub(low) / 2)
		found, left, err := r.at(spans, middle)
		if err != nil {
			return nil, err
		}
		if left > r.rule.Bytes {
			low = middle
		} else {
			high, cuts = middle, found
		}
	}
	return cuts, nil
}

// at are the places of a time, and how many bytes are behind them.
func (r *retention) at(spans map[wal.Journal]wal.Span, since time.Time) (cuts map[wal.Journal]int64, left int64, err error) {
	cuts = map[wal.Journal]int64{}
	for name, span := range spans {
		place, err := r.log.At(name, since)
		if err != nil {
			return nil, 0, err
		}
		left += max(r.log.Behind(name, place), 0)
		if place > span.Start && (place-span.Start)*leastShare >= span.Head-span.Start {
			cuts[name] = place
		}
	}
	return cuts, left, nil
}

// drop forgets a journal up to a place or, unless the rule says otherwise, up to where somebody still has to read; held counts how much
// that keeps, for whom.
func (r *retention) drop(ctx context.Context, name wal.Journal, cut int64, readers []materialize.Reader, held map[string]int64) error {
	start := r.log.Start(name)
	keep := cut
	for _, reader := range readers {
		has := r.running.confirmed(&reader)
		if reader.Journal != name || has >= cut || reader.Offset < start {
			continue // it needs nothing of it, or has lost its place already
		}
		unread := r.log.Behind(name, reader.Offset) - r.log.Behind(name, cut)
		if r.rule.DropUnread {
			if unread <= 0 {
				continue
			}
			r.logger.WithFields(logrus.Fields{"materialization": reader.Materialization, "collection": name.Collection, "bytes": unread}).
				Error("dropped documents from the log that a materialization has not read, as log.retention wants it: it stops until its backfill counter and that of the capture are raised")
			continue
		}
		through, err := r.log.Through(name, has)
		if err != nil {
			return err
		}
		keep = min(keep, max(through.End, start))
		if unread > 0 {
			held[reader.Materialization] += unread
		}
	}
	if keep <= start {
		return nil
	}
	size := r.log.Behind(name, start) - r.log.Behind(name, keep)
	if err := r.log.Drop(ctx, name, keep); err != nil {
		return err
	}
	r.logger.WithFields(logrus.Fields{"collection": name.Collection, "capture": name.Part, "bytes": size}).Info("dropped old documents from the log")
	return nil
}

// warn says, at first and then every hour, who holds the log back.
func (r *retention) warn(held map[string]int64) {
	now := r.now()
	maps.DeleteFunc(r.warned, func(name string, _ time.Time) bool { return held[name] == 0 })
	for _, name := range slices.Sorted(maps.Keys(held)) {
		if said, ok := r.warned[name]; ok && now.Sub(said) < warnAgain {
			continue
		}
		r.warned[name] = now
		log := r.logger.WithFields(logrus.Fields{"materialization": name, "bytes": held[name]})
		if slices.ContainsFunc(r.defs, func(d *pipeline.Materialization) bool { return d.Name == name }) {
			log.Warn("the log keeps more than log.retention wants, because a materialization, or a binding that it had, has not read it yet")
		} else {
			log.Warn("the log keeps more than log.retention wants for a materialization that the pipeline does not have now: if it was given up, stop sluice and let it be forgotten (sluice log forget)")
		}
	}
}
