package main

import (
	"context"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Logs that do not name the columns of their rows.
//
// A row is read by a layout only if that is certain to hold at the row's place in the log: it was certain at an earlier place, and
// the log has no statement since then that may have changed the table; or it is what the catalog says, and the log has no such
// statement from here to where it ended after the catalog was read (lookahead). In both cases everything that the log does say of
// the columns must agree.
//
// Otherwise the table was changed here and once more since then, and what it was like in between nobody can tell. Then its rows are
// left out up to the place where the catalog was read, and the table is backfilled once the stream has passed that. The state says
// that this is owed, from the first row that is left out.

// lay names the columns of a table map by their places. It reports false if which column is which cannot be told.
func (s *stream) lay(ctx context.Context, m *mapping) (bool, error) {
	t := m.table
	if t.layout != nil && t.layout.fits(m.log, &s.d.charsets) {
		m.types = t.layout.name(m.log)
		return true, nil
	}
	if t.owed && s.at.before(t.blindTo) {
		return false, nil
	}
	m.silent = t.layout != nil // it changed without a word in the log
	t.layout, t.last = nil, nil
	var to place
	for attempt := range layAttempts {
		if attempt > 0 {
			select {
			case <-time.After(layPause << attempt):
			case <-ctx.Done():
				return false, ctx.Err()
			}
		}
		var err error
		if t.layout, to, err = s.layoutHere(ctx, m); err != nil {
			return false, err
		}
		if t.layout != nil {
			m.types = t.layout.name(m.log)
			return true, nil
		}
	}
	return false, s.blind(t, to)
}

// A statement that ends while the catalog is read may be in the log and not in what was read, so that nothing fits: it is read again
// before rows are given up.
const (
	layAttempts = 5
	layPause    = 25 * time.Millisecond
)

// layoutHere is how the rows of a table map are laid out by what the catalog says now; nil if that cannot be told, with the place up to
// which it cannot.
func (s *stream) layoutHere(ctx context.Context, m *mapping) (l layout, to place, err error) {
	t := m.table
	now, end, err := s.presentLayout(ctx, t)
	if err != nil {
		return nil, end, err
	}
	changes, err := s.lastChange(ctx, t.id, end)
	switch {
	case err != nil:
		return nil, end, err
	case s.at.before(changes):
		return s.derive(t, m, now), changes, nil
	case now == nil || !now.fits(m.log, &s.d.charsets):
		return nil, end, nil
	default:
		return now, end, nil
	}
}

// learn finds out how the rows of tables are laid out as the stream begins, so that what changes a table later does not hide what it
// was like. Every statement before the stream's place has been committed, so the catalog has it; one behind it is in the log ahead.
func (s *stream) learn(ctx context.Context) error {
	if s.done.byFile && !s.d.server.mariadb {
		return nil // the last statements may not be committed yet
	}
	var ids []cdc.TableID
	for id, t := range s.tables {
		if t.layout == nil && t.derived == nil && !t.owed {
			ids = append(ids, id)
		}
	}
	var found []*table
	var end place
	err := s.d.conns.with(ctx, func(q *session) error {
		vars, err := q.variables(ctx, "binlog_row_metadata")
		if found = nil; err != nil || len(ids) == 0 || vars["binlog_row_metadata"] == "FULL" {
			return err
		}
		if found, err = s.d.readTables(ctx, q, ids); err != nil {
			return err
		}
		end, err = s.d.end(ctx, q)
		return err
	})
	if err != nil {
		return err
	}
	for _, now := range found {
		changes, err := s.lastChange(ctx, now.id, end)
		if err != nil {
			return err
		}
		if t := s.tables[now.id]; now.problem == nil && !s.at.before(changes) {
			t.layout = layoutOf(now)
			next := *t.table
			next.Layout = t.layout.encode()
			t.table = &next
			s.queue = append(s.queue, cdc.Event{Op: cdc.Shape, Table: t.id, Shape: t.table})
		}
	}
	return nil
}

// derive is how the rows of a table map are laid out by the statements since that was certain, if these and those ahead
// explain what the catalog says now; nil if they do not.
func (s *stream) derive(t *streamed, m *mapping, now layout) layout {
	if now == nil {
		return nil
	}
	l := t.derived.settle(s.ahead.statements(t.id, s.at), now)
	if len(l) != len(m.log.Columns) {
		return nil
	}
	for i := range l {
		l[i].Nullable = m.log.Columns[i].Nullable // which is not derived
	}
	if !l.fits(m.log, &s.d.charsets) {
		return nil
	}
	return l
}

// presentLayout is what the catalog says of a table now, nil if it has no such table, and where the log ended after that.
func (s *stream) presentLayout(ctx context.Context, t *streamed) (l layout, end place, err error) {
	err = s.d.conns.with(ctx, func(q *session) error {
		found, err := s.d.readTables(ctx, q, []cdc.TableID{t.id})
		if err != nil {
			return err
		}
		l = nil
		if len(found) > 0 {
			l = layoutOf(found[0])
		}
		end, err = s.d.end(ctx, q)
		return err
	})
	return l, end, err
}

// lastChange is the place behind the last statement, up to where the log ended, that may have changed a table's columns; one that
// lies behind the stream if there is none.
func (s *stream) lastChange(ctx context.Context, id cdc.TableID, end place) (place, error) {
	if s.ahead != nil && time.Since(s.ahead.used) > aheadIdle {
		s.closeAhead()
	}
	if s.ahead == nil {
		var err error
		if s.ahead, err = s.openLookahead(ctx); err != nil {
			return place{}, err
		}
	}
	heard := func() { s.heard.Store(int64(time.Since(s.opened))) }
	if err := s.ahead.upTo(ctx, end, heard); err != nil {
		s.closeAhead()
		return place{}, err
	}
	return s.ahead.lastChange(id), nil
}

func (s *stream) closeAhead() {
	if s.ahead != nil {
		s.ahead.close()
		s.ahead = nil
	}
}

// blind has the rows of a table left out up to a place, or ends the capture where no backfill can make up for them.
func (s *stream) blind(t *streamed, to place) error {
	why := "The table " + t.id.String() + " was altered more than once since the place in the log where the capture is (" + s.at.String() +
		"), or without a word in the log, and the log does not name the columns of its rows: which is which cannot be told."
	advice := " Have an administrator run: SET GLOBAL binlog_row_metadata = FULL; and put it into the server's configuration."
	switch {
	case t.table.Unread || len(t.table.Key) == 0:
		return usererr.New(nil, "%s Only changes are captured of it, or it has no key, so reading the table again does not make up for them.%s Then backfill the table into an empty collection.", why, advice)
	case s.d.cfg.Advanced.OnPositionLoss == onLossStop:
		return usererr.New(nil, "%s%s Then backfill the table; or set onPositionLoss to backfill.", why, advice)
	}
	s.d.log.WithField("table", t.id.String()).WithField("upTo", to.String()).
		Warn(why + " Its changes are left out up to there, and the table is backfilled then. Rows that were deleted meanwhile stay in the collection." + advice)
	t.blindTo = to
	if t.owed {
		return nil
	}
	t.owed = true
	s.owed++
	next := *t.table
	next.Layout = layoutOwed
	t.table = &next
	s.txn.touched = true
	s.queue = append(s.queue, cdc.Event{Op: cdc.Shape, Table: t.id, Txn: s.txn.id, Shape: t.table})
	return nil
}

// settled forgets that a table is to be backfilled, because it is, or is gone.
func (s *stream) settled(t *streamed) {
	if t.owed {
		t.owed, t.blindTo = false, place{}
		s.owed--
	}
}

// paid has a table backfilled of which rows were left out, once the stream has passed them. It is asked between transactions.
func (s *stream) paid() *cdc.Event {
	for _, t := range s.tables {
		if !t.owed || s.at.before(t.blindTo) {
			continue
		}
		s.settled(t)
		s.forget(t.id)
		next := *t.table
		next.Layout = layoutUnknown
		t.table = &next
		s.event = cdc.Event{Op: cdc.Shape, Table: t.id, Shape: t.table, Rescan: true, Owed: true, Look: true}
		return &s.event
	}
	return nil
}

// fold gives the tables of a statement the names that they have, on servers that compare names without case.
func (s *stream) fold(st statement) statement {
	if !s.d.server.foldNames {
		return st
	}
	known := func(ids []cdc.TableID) {
		for i, id := range ids {
			for other := range s.tables {
				if strings.EqualFold(id.Schema, other.Schema) && (strings.EqualFold(id.Name, other.Name) || id.Name == "") {
					ids[i].Schema = other.Schema
					if id.Name != "" {
						ids[i].Name = other.Name
					}
				}
			}
		}
	}
	known(st.tables)
	known(st.to)
	known(st.swapped)
	known(st.made)
	known(st.taken)
	return st
}
