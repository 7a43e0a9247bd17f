package cdc

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// Ender is an optional ability of a Driver: it says where the log ends. Sessions that are to end there need it
// (capture.Env.CatchUp).
type Ender interface {
	// End is a mark that the stream passes once it has delivered everything that was committed before the call. It is
	// called by a worker while the stream is open.
	End(ctx context.Context) (Mark, error)
}

// goal is what a session has to reach before it ends, if it is one that ends: the place where the log ended when it was
// opened, and tables that are read to their end.
type goal struct {
	wanted  bool
	asked   bool // for the place
	mark    Mark
	reached time.Time // when the stream had passed the place
	moved   bool      // a cursor behind the place has come
}

// lastCursor is how long a stream that has reached the place may take to say that it can resume there. A server on which
// nobody changes what is captured can then forget its log, however short the sessions are.
const lastCursor = 1500 * time.Millisecond

// endJob asks where the log ends.
type endJob struct {
	mark Mark
	err  error
}

func (j *endJob) run(ctx context.Context, d Driver) {
	j.mark, j.err = d.(Ender).End(ctx) //nolint:errcheck // seek has looked
}

func (j *endJob) done(ctx context.Context, r *reader) error {
	if j.err != nil {
		return fmt.Errorf("asking where the log ends: %w", j.err)
	}
	r.goal.mark = j.mark
	if err := r.stream.Fence(ctx, j.mark); err != nil {
		return fmt.Errorf("asking for a fence: %w", err)
	}
	return nil
}

// seek finds out where the session ends.
func (r *reader) seek() error {
	if !r.goal.wanted || r.goal.asked || r.reopen {
		return nil
	}
	if _, ok := r.driver.(Ender); !ok {
		return usererr.New(nil, "This source cannot tell where its log ends, so it cannot be captured up to there.")
	}
	r.goal.asked = true
	r.start(&endJob{})
	return nil
}

// forgetGoal has the place asked for again, because the log was opened again.
func (r *reader) forgetGoal() { r.goal = goal{wanted: r.goal.wanted} }

// caughtUp reports, between source transactions, whether the session has done what it was opened for.
func (r *reader) caughtUp() bool {
	g := &r.goal
	if g.reached.IsZero() || r.reopen || r.rework || len(r.work) > 0 || len(r.fenced) > 0 {
		return false
	}
	return g.moved || r.now().Sub(g.reached) >= lastCursor
}

// end ends the session: what is still to be committed is, and the next call says that it is over.
func (r *reader) end() error {
	if r.holdsSomething() || r.moved {
		return r.finish()
	}
	return io.EOF
}
