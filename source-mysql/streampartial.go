package main

import (
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// Rows that lack columns (hard case 37). A session, or the server, may log less than whole rows (binlog_row_image): of an update, only
// the old row's key and the columns that changed (MINIMAL), or all but large values that did not (NOBLOB); of an insert, only the
// columns that the statement gave, so that the others have their defaults. What is absent from an update is unchanged, as in the
// documents; what is absent from a row that came to be under its key, the core reads by key.
//
// Of JSON values that an update changes in part, a session may log only that part (binlog_row_value_options, hard case 38). With the old
// value beside it the new one is known; without, the core reads the row by key.

// nextPart is nextRow for such rows.
func (s *stream) nextPart() (*cdc.Event, error) {
	m := s.rowsOf
	s.txn.ordinal++
	s.event = cdc.Event{Op: s.op, Table: m.table.id, Txn: s.txn.id}
	var err error
	if s.op != cdc.Insert {
		s.before.plan, s.before.s, s.before.ordinal, s.before.part = m.rows, s, s.txn.ordinal, true
		if s.before.vals, err = s.rows.NextPart(m.log, s.before.vals[:0]); err != nil {
			return nil, err
		}
		s.event.Before = &s.before
	}
	last := &s.before
	if s.op != cdc.Delete {
		s.row.plan, s.row.s, s.row.ordinal, s.row.part = m.rows, s, s.txn.ordinal, true
		if s.row.vals, err = s.rows.NextPart(m.log, s.row.vals[:0]); err != nil {
			return nil, err
		}
		if s.op == cdc.Update {
			if err := s.complete(m); err != nil {
				return nil, err
			}
		}
		s.event.Row, last = &s.row, &s.row
	}
	return &s.event, s.enough(m, last)
}

// complete gives the new row of an update what it does not have: that is as it was in the old one, and of what has changed in part, the
// rest is.
func (s *stream) complete(m *mapping) error {
	for i, v := range s.row.vals {
		switch old := s.before.vals[i]; {
		case binlog.IsAbsent(v):
			s.row.vals[i] = old
		case v == nil || !s.rows.IsDiff(i) || !m.rows.kept[i]:
		case binlog.IsAbsent(old):
			s.row.vals[i], s.event.Unlogged = old, true
		default:
			var err error
			if s.row.vals[i], err = applyJSONDiffs(old, v); err != nil {
				return usererr.New(err, "The log has a change of a part of a JSON value that does not fit the value: table %s, column %q, at %s (%s). "+
					"Have an administrator empty binlog_row_value_options, then backfill the table.", m.table.id, m.rows.names[i], s.at, err)
			}
		}
	}
	return nil
}

// enough refuses rows that lack what nothing can make up for.
func (s *stream) enough(m *mapping, rows *streamRow) error {
	advice := "Have an administrator set binlog_row_image to FULL, for all sessions, then backfill the table into an empty collection."
	for _, row := range []*streamRow{&s.before, rows} {
		if row == &s.before && s.op == cdc.Insert {
			continue
		}
		for _, k := range m.rows.keys {
			if binlog.IsAbsent(row.vals[k.index]) {
				return usererr.New(binlog.ErrPartialImage, "The log has rows of table %s (at %s) that lack a column of its key, %q: they are not whole, and the table has no primary key. %s", m.table.id, s.at, m.rows.names[k.index], advice)
			}
		}
	}
	if len(m.rows.keys) == 0 && s.op != cdc.Delete && len(rows.Omitted()) > 0 {
		return usererr.New(binlog.ErrPartialImage, "The log has rows of table %s (at %s) that lack columns, and the table has no key to read them by. %s", m.table.id, s.at, advice)
	}
	return nil
}
