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
	ends     map[string]map[int32]int64 // nil if the session does not end
	captured int64                      // when something last came,
	at       time.Time                  // and when that was
}

// restless is how long nothing may come before a session that has not got everywhere ends all the same. The last offsets of a
// partition may be of records that compaction has removed: nothing ever comes for them. To end early loses nothing, for
// the next session goes on at the same place.
const restless = 10 * time.Second

// setGoal finds out where the session ends.
func (r *reader) setGoal(ctx context.Context) error {
	r.goal.ends = map[string]map[int32]int64{}
	listed, err := r.admin.ListCommittedOffsets(ctx, slices.Sorted(maps.Keys(r.topics))...)
	if err = allUnreachable(err); err != nil {
		return &askError{err}
	}
	for name, t := range r.topics {
		r.goal.ends[name] = map[int32]int64{}
		for number := range t.partitions {
			if o, ok := listed.Lookup(name, number); ok && o.Err == nil {
				r.goal.ends[name][number] = o.Offset
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
	reached := true
	for name, t := range r.topics {
		for number, p := range t.partitions {
			if p.Next < r.goal.ends[name][number] {
				reached = false
			}
		}
	}
	if !reached && now.Sub(r.goal.at) > restless {
		r.env.Log.Info("nothing has come for a while: ending, although the end of some partition was not reached")
		return true
	}
	return reached
}
