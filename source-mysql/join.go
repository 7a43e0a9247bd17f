package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/source-mysql/internal/gtid"
)

// Tables without a key. Nothing in a row says which transaction wrote it, so only one snapshot can divide the table's rows into those
// that a backfill reads and those that the stream carries: one of which it is known exactly which transactions it sees. Until there is
// one, the table joins: the stream leaves out its changes.
//
// MariaDB says which place in the log a snapshot is of. MySQL does not. There, we know of some transactions that the snapshot sees them
// (they were in gtid_executed, or settled, before it was taken), and of those behind the place where the log ended after it was taken
// that it does not. If none of those in between has changed the table, the division is exact. Otherwise another snapshot is tried.
// So a table joins in a moment in which nobody is just committing a change of it.
//
// The snapshot is then read from its first row to its last by one query, which holds what any query holds: the table's definition. So it is
// taken when the stream is near the end of the log, where it soon is at the snapshot's place, or has not come near in a while.

// join is what a snapshot has to see to divide a table that the stream does not carry yet.
type join struct {
	before  []cdc.TxnID // came before the stream
	dropped *gtid.Set   // changed the table, and were left out; nil where transactions are named by places
	last    cdc.TxnID   // the last one of these, by its place
}

func (s *stream) newJoin() *join {
	j := &join{before: s.delivered()}
	if s.done.set != nil && !s.done.byFile {
		j.dropped = &gtid.Set{}
	}
	return j
}

// seenBy reports whether the snapshot sees all that the stream has left out.
func (j *join) seenBy(v cdc.Visibility) bool {
	if j.dropped != nil && !j.dropped.Empty() && !v.Sees(cdc.TxnID(setMark+j.dropped.String())) || j.last != "" && !v.Sees(j.last) {
		return false
	}
	return !slices.ContainsFunc(j.before, func(txn cdc.TxnID) bool { return !v.Sees(txn) })
}

// joining are the tables of a stream that join, and the attempt to divide one of them.
type joining struct {
	tables  []*streamed
	next    time.Time // of the next attempt
	since   time.Time // of the first one; zero when a table has joined
	warned  time.Time
	table   *streamed // that is being divided; nil if none is
	pass    *pass     // that may divide it, once the stream is where the log ended
	crossed bool      // it does not
	stop    context.CancelFunc
	taken   chan taken
	taking  sync.WaitGroup
	failed  int
}

// taken is a snapshot that was tried to be taken. Without a pass it cannot be used, for a reason that passes.
type taken struct {
	pass *pass
	far  bool // the stream is not near the end of the log yet
	err  error
}

const (
	joinEvery   = 20 * time.Millisecond
	joinFar     = 100 * time.Millisecond // while the stream is far behind
	joinNear    = 1 << 20                // bytes of log; and how long it may take to come as near:
	joinWait    = time.Minute
	joinFailed  = time.Second // after an error
	joinWarn    = 30 * time.Second
	maxFailures = 20 // in a row
)

// Joining implements cdc.Joiner.
func (s *stream) Joining(id cdc.TableID) bool {
	t := s.tables[id]
	return t != nil && t.join != nil
}

// joinAgain has a table that begins to be captured join, if that is needed.
func (s *stream) joinAgain(t *streamed) {
	if len(t.table.Key) > 0 || t.table.Unread {
		t.join = nil
		return
	}
	t.join = s.newJoin()
	if !slices.Contains(s.joining.tables, t) {
		s.joining.tables = append(s.joining.tables, t)
	}
}

// leaveOut passes over a change of a table that joins.
func (s *stream) leaveOut(t *streamed) {
	if t.join.dropped != nil {
		s.txn.add(&position{set: t.join.dropped})
	} else {
		t.join.last = s.txn.id
	}
	if j := &s.joining; j.table == t && j.pass != nil && !j.pass.seen.Sees(s.txn.id) {
		j.crossed = true // the snapshot may or may not see it
	}
}

// joined gives the next table that has joined. It must be called between transactions, and never waits.
func (s *stream) joined(ctx context.Context) (*cdc.Event, error) {
	j := &s.joining
	j.tables = slices.DeleteFunc(j.tables, func(t *streamed) bool { return t.join == nil })
	if j.table == nil {
		s.divide(ctx)
		return nil, nil //nolint:nilnil // not yet
	}
	if j.pass == nil {
		select {
		case got := <-j.taken:
			return nil, s.tookSnapshot(got)
		default:
			return nil, nil //nolint:nilnil // not yet
		}
	}
	t, p := j.table, j.pass
	switch {
	case j.crossed || t.join == nil || t.gone:
		p.close()
		s.tryAgain(joinEvery)
		return nil, nil //nolint:nilnil // with another snapshot
	case s.at.before(p.at):
		return nil, nil //nolint:nilnil // somebody may still have crossed it
	}
	t.join = nil
	s.unmap(t.id)
	j.table, j.pass, j.since = nil, nil, time.Time{}
	p.file = s.file(p.at)
	s.d.pass.Store(p)
	s.event = cdc.Event{Op: cdc.Joined, Table: t.id, Origin: p.at.String(), Once: true}
	return &s.event, nil
}

// divide begins to divide the next table, if it is time. One table is read in a pass at a time.
func (s *stream) divide(ctx context.Context) {
	j := &s.joining
	now := time.Now()
	i := slices.IndexFunc(j.tables, func(t *streamed) bool { return !t.gone })
	if i < 0 || now.Before(j.next) || s.d.pass.Load() != nil {
		return
	}
	if j.since.IsZero() {
		j.since = now
	}
	at, patient := s.at, now.Sub(j.since) < joinWait
	t := j.tables[i]
	j.tables = append(slices.Delete(j.tables, i, i+1), t) // the others' turn comes first next time
	var within context.Context
	within, j.stop = context.WithCancel(context.WithoutCancel(ctx)) // it outlives the call of Next; stopJoining ends it
	j.table, j.pass, j.crossed, j.taken = t, nil, false, make(chan taken, 1)
	j.taking.Go(func() {
		var got taken
		if patient {
			got.far, got.err = s.d.isFar(within, at)
		}
		if !got.far && got.err == nil {
			got.pass, got.err = s.d.takePass(within, t.id)
		}
		j.taken <- got
	})
}

// tookSnapshot takes a snapshot over, which may divide the table.
func (s *stream) tookSnapshot(got taken) error {
	j := &s.joining
	j.stop()
	if got.err != nil {
		id := j.table.id
		if j.failed++; j.failed > maxFailures {
			j.table = nil // nothing is going on that stopJoining could wait for
			return fmt.Errorf("taking a snapshot of table %s: %w", id, got.err)
		}
		s.d.log.WithField("table", id.String()).WithError(got.err).Info("a snapshot of a table without a key could not be taken; trying again")
		s.tryAgain(joinFailed)
		return nil
	}
	j.failed = 0
	switch {
	case got.far:
		j.table, j.next = nil, time.Now().Add(joinFar)
	case got.pass == nil:
		s.tryAgain(joinEvery)
	case j.table.join == nil || !j.table.join.seenBy(got.pass.seen):
		got.pass.close()
		s.tryAgain(joinEvery)
	default:
		j.pass = got.pass
	}
	return nil
}

// tryAgain gives the attempt up, and has another one follow.
func (s *stream) tryAgain(after time.Duration) {
	j := &s.joining
	now := time.Now()
	switch {
	case j.warned.IsZero():
		j.warned = now
	case now.Sub(j.warned) > joinWarn:
		j.warned = now
		s.d.log.WithField("table", j.table.id.String()).Info("table has no key, and its capture waits for a moment in which nobody commits a change of it")
	}
	j.table, j.pass, j.next = nil, nil, now.Add(after)
}

// stopJoining gives up what is going on.
func (s *stream) stopJoining() {
	j := &s.joining
	if j.table == nil {
		return
	}
	j.stop()
	j.taking.Wait()
	if j.pass == nil {
		j.pass = (<-j.taken).pass
	}
	if j.pass != nil {
		j.pass.close()
	}
	j.table, j.pass = nil, nil
}

// isFar reports whether a place is far from the end of the log.
func (d *driver) isFar(ctx context.Context, at place) (far bool, err error) {
	err = d.conns.with(ctx, func(s *session) error {
		end, err := d.end(ctx, s)
		far = end.number() != at.number() || end.at > at.at+joinNear
		return err
	})
	return far, err
}

// takePass takes a snapshot of a table, on a session of its own, and says what it sees for certain, and beyond which place nothing. It
// returns nil if that failed for a reason that passes.
func (d *driver) takePass(ctx context.Context, id cdc.TableID) (*pass, error) {
	s, err := d.session(ctx)
	if err != nil {
		return nil, err
	}
	p := &pass{id: id, s: s}
	if err := d.fillPass(ctx, p); err != nil {
		p.close()
		switch code(err) {
		case errUnknownTable, errUnknownDatabase, errTableChanged, errLockWait:
			return nil, nil //nolint:nilnil // the table is being altered, or is gone, which the log says
		case errNoTableRight, errNoColumnRight, errNoDatabaseRight:
			return nil, d.noSelect(id, err)
		}
		if errors.Is(err, errStale) {
			return nil, nil //nolint:nilnil // the next time
		}
		return nil, err
	}
	return p, nil
}

func (d *driver) fillPass(ctx context.Context, p *pass) error {
	endless := "max_execution_time = 0"
	if d.server.mariadb {
		endless = "max_statement_time = 0"
	}
	// The query goes on for as long as the table is large and whoever gets the rows is slow.
	if err := p.s.exec(ctx, "SET SESSION "+endless+", net_write_timeout = 86400, lock_wait_timeout = 1"); err != nil {
		return fmt.Errorf("preparing a connection: %w", err)
	}
	var err error
	if d.server.mariadb {
		if p.seen, err = d.mariaSnapshot(ctx, p.s); err != nil {
			return err
		}
		here, ok := p.seen.(*upTo)
		if !ok {
			return errNoSnapshot
		}
		p.at = here.place
	} else {
		if p.seen, err = d.mysqlSnapshot(ctx, p.s); err != nil {
			return err
		}
		if err := p.s.exec(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"); err != nil {
			return fmt.Errorf("taking a snapshot: %w", err)
		}
		if p.at, err = d.end(ctx, p.s); err != nil {
			return err
		}
	}
	// From here on nobody alters the table, so that the snapshot can be read.
	return p.s.exec(ctx, "SELECT 1 FROM "+quoteName(p.id.Schema)+"."+quoteName(p.id.Name)+" LIMIT 0")
}
