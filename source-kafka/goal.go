package main

import (
	"context"
	"maps"
	"slices"
	"time"
)

// goal is where a session ends that is to catch up only (capture.Env.CatchUp): the places where the partitions ended when it
// was opened, as far as records there were committed.
type goal struct {
	// ends are the places. A partition that was placed since is another one, whose place is asked for then: the topic may have been
	// created again. nil if the session does not end.
	ends     map[*partition]int64
	nextAsk  time.Time // for places that are not known
	captured int64     // when something last came,
	at       time.Time // and when that was
}

// restless is how long nothing may come before a session that has not got everywhere ends all the same. The last offsets of a
// partition may be of records that compaction has removed: nothing ever comes for them. To end early loses nothing, for
// the next session goes on at the same place.
const restless = 10 * time.Second

// setGoal finds out where the session ends, as far as that is not known. Partitions whose leaders do not say it are asked for again.
func (r *reader) setGoal(ctx context.Context) error {
	if r.goal.ends == nil {
		r.goal.ends = map[*partition]int64{}
	}
	listed, err := r.admin.ListCommittedOffsets(ctx, slices.Sorted(maps.Keys(r.topics))...)
	if err = allUnreachable(err); err != nil {
		return &askError{err}
	}
	for name, t := range r.topics {
		for number, p := range t.partitions {
			if _, known := r.goal.ends[p]; known {
				continue
			}
			if o, ok := listed.Lookup(name, number); ok && o.Err == nil {
				r.goal.ends[p] = o.Offset
			}
		}
	}
	return nil
}

// resetGoal asks for places that are not known, now and then.
func (r *reader) resetGoal(ctx context.Context, now time.Time) error {
	if r.goal.ends == nil || now.Before(r.goal.nextAsk) {
		return nil
	}
	for _, t := range r.topics {
		for _, p := range t.partitions {
			if _, known := r.goal.ends[p]; !known {
				r.goal.nextAsk = now.Add(lookUpPause)
				ask, cancel := context.WithTimeout(ctx, lookUpTimeout)
				defer cancel()
				return r.setGoal(ask)
			}
		}
	}
	return nil
}

// caughtUp reports whether the session has done what it was opened for.
func (r *reader) caughtUp(now time.Time) bool {
	if r.goal.ends == nil {
		return false
	}
	if r.captured != r.goal.captured || r.goal.at.IsZero() {
		r.goal.captured, r.goal.at = r.captured, now
	}
	var behind []string
	for name, t := range r.topics {
		if !r.reached(t) {
			behind = append(behind, name)
		}
	}
	if len(behind) > 0 && now.Sub(r.goal.at) > restless {
		slices.Sort(behind)
		r.env.Log.WithField("topics", behind).Warn("nothing has come for a while: ending, although the end of some partition was not reached")
		return true
	}
	return len(behind) == 0
}

// reached tells whether every partition of a topic that falls to this process was captured up to its place. One that has no leader
// now is behind, unless its capture begins at its end anyway.
func (r *reader) reached(t *topic) bool {
	if t.gone {
		return true
	}
	for number := range t.waiting {
		if t.State.position(number) != nil || !r.begin.latest || number >= t.State.Began.Partitions {
			return false
		}
	}
	for _, p := range t.partitions {
		if end, known := r.goal.ends[p]; !known || p.Next < end {
			return false
		}
	}
	return t.found
}
