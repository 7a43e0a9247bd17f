package cdc

import (
	"context"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// When the log is lost (ErrPositionLost), every table is captured anew, in two steps that may each be cut off:
//
//  1. One checkpoint forgets the cursor and what has been read of every table, at once. Nothing is done to the server until
//     the runtime has it: an old process that goes on beside its successor, and whose checkpoints count no more, must not
//     remove the log that the successor reads.
//  2. The log is opened without a cursor, as in a capture that begins: the driver removes what is left of the old log and
//     starts a new one. Its position is a checkpoint of its own before anything else.
//
// A crash before the first checkpoint is durable finds the old position, and the loss again: also if the second step has
// been done already, because what the driver has started since is not the log of that position. A crash after it finds
// no position, and begins. No checkpoint ever has a new log beside a table that was read under the old one.

const (
	// lostEvent marks the log line that says that everything is captured anew.
	lostEvent = "positionLost"
	// lostAgain is how soon a log that is lost again ends the session instead: what keeps happening should be looked at.
	lostAgain = time.Minute
	// ackPatience is how long the runtime may take to keep the first checkpoint. Some never say that they have.
	ackPatience = 30 * time.Second
	startOver   = "To begin anew, have every table of the capture backfilled again: raise the backfill counter of each of its bindings, and of the bindings that materialize them."
)

// lose makes the capture one that has no log and has read nothing, or ends it if that is not wanted or would leave a gap.
func (r *reader) lose(cause error) error {
	message := usererr.Message(cause)
	now := r.now()
	running := r.stream != nil
	if r.opts.StopOnPositionLoss {
		return usererr.New(cause, "%s %s", message, startOver)
	}
	if gaps := r.gaps(running); len(gaps) > 0 {
		return usererr.New(cause, "%s Only changes are captured of %s, so nothing can bring back what is lost. To go on without it, raise the backfill counter of these bindings.",
			message, strings.Join(gaps, ", "))
	}
	if !r.lostAt.IsZero() && now.Sub(r.lostAt) < lostAgain {
		return cause
	}
	r.log.WithFields(logrus.Fields{"eventType": lostEvent, "cursor": string(r.shared.Cursor), "tables": len(r.tables)}).
		Warn(message + " Every table is backfilled again, and nothing is skipped. Rows that were deleted meanwhile stay in the collections: raise the backfill counters of the bindings to be rid of them.")
	for _, t := range r.tables {
		r.anew(t)
	}
	r.unfence()
	if s := r.acks.set(nil); s != nil {
		_ = s.Close() // it is of no use any more, whatever closing says
	}
	r.stream, r.inTxn, r.reopen, r.rescoped, r.ask = nil, false, false, false, nil
	r.changesBefore = r.changes
	r.shared.Cursor = ""
	r.lostAt, r.kept = now, make(chan struct{})
	kept := r.kept
	r.out.OnAck(func(context.Context) error {
		close(kept)
		return nil
	})
	return r.finish()
}

// startAnew waits until it is kept that the log is lost, and looks at the tables: what has become of them meanwhile was in
// that log.
func (r *reader) startAnew(ctx context.Context) error {
	timer := time.NewTimer(ackPatience)
	defer timer.Stop()
	select {
	case <-r.kept:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return r.lookAgain(ctx)
}

// gaps lists the tables of which changes are lost that no backfill brings: those of which only changes are captured, and
// were captured before.
func (r *reader) gaps(running bool) []string {
	var names []string
	for _, t := range r.tables {
		if t.changesOnly && t.state.Phase == Live && (running || !t.binding.New) {
			names = append(names, t.id.String())
		}
	}
	return names
}

// anew makes a table one of which nothing was captured.
func (r *reader) anew(t *table) {
	if t.state.Phase == Missing {
		return
	}
	if t.plan != nil {
		t.plan.void = true
	}
	phase := Pending
	if t.changesOnly {
		phase = Live
	}
	t.restart(phase)
	t.state.Origin, t.state.Scope = "", ""
	t.state.setShape(t.shape)
	t.state.Layout = ""
	t.adopted = false
	t.revision++
	t.started = r.now()
	r.rework = true
	r.save(t)
}

// lookAgain looks at the tables before a log is opened in place of a lost one.
func (r *reader) lookAgain(ctx context.Context) error {
	found, err := r.look(ctx)
	if err != nil {
		return err
	}
	for _, t := range r.tables {
		t.discovered = found[t.id]
		if t.discovered != nil && t.state.Phase != Missing {
			// Nothing was captured of it, so it is this table.
			t.withhold(t.discovered)
			t.shape = t.bound(t.discovered)
			t.state.setShape(t.shape)
		}
	}
	return nil
}
