package main

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// fence is a place in the log that somebody wants to hear of when the stream has passed it.
type fence struct {
	at   lsn
	mark cdc.Mark
}

// Fence implements cdc.Stream.
func (s *stream) Fence(_ context.Context, mark cdc.Mark) error {
	at, err := parseLSN(string(mark))
	if err != nil {
		return err
	}
	if len(s.fences) == 0 {
		s.nudgeAt = time.Now().Add(nudgeFirst)
	}
	s.fences = append(s.fences, fence{at: at, mark: mark})
	if at > s.passed {
		s.feedback.ask(true)
	}
	return nil
}

// A server sends only what it has flushed, and it flushes for commits. What else is in its log, such as the changes of a
// transaction that is still open, or the tidying of pages that a mere scan does, may lie there for fifteen seconds when
// nobody commits. A fence that waits for longer than it should is therefore helped by a transaction that takes an
// identifier and does nothing else: no table is touched, and its commit has the server flush soon. It happens only while
// the server is idle.
const (
	nudgeFirst = 300 * time.Millisecond // the server's own writer has had its turn by then (wal_writer_delay)
	nudgeAgain = time.Second
)

func (s *stream) nudge(ctx context.Context) {
	now := time.Now()
	if len(s.fences) == 0 || now.Before(s.nudgeAt) {
		return
	}
	s.nudgeAt = now.Add(nudgeAgain)
	last := s.fences[len(s.fences)-1].at
	if last <= s.passed {
		return
	}
	short, cancel := context.WithTimeout(ctx, nudgeAgain) // the log must not wait for this
	defer cancel()
	err := s.d.conns.with(short, func(conn *pgx.Conn) error {
		_, err := conn.Exec(short, "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL WHEN pg_catalog.pg_current_wal_flush_lsn() < $1::pg_catalog.pg_lsn THEN pg_catalog.txid_current() END", last.String())
		return err
	})
	if err != nil && ctx.Err() == nil {
		s.d.log.WithError(err).Debug("could not have the server flush its log; the fence is passed a little later")
	}
}

// passedFence gives the next fence that the stream has passed.
func (s *stream) passedFence() *cdc.Event {
	for i, f := range s.fences {
		if f.at <= s.passed {
			s.fences = append(s.fences[:i], s.fences[i+1:]...)
			s.feedback.ask(slices.ContainsFunc(s.fences, func(f fence) bool { return f.at > s.passed }))
			s.event = cdc.Event{Op: cdc.Fence, Mark: f.mark}
			return &s.event
		}
	}
	return nil
}
