package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/source-postgres/internal/pgoutput"
)

// streamRow is a row, or what the log has of one. It implements cdc.Row.
type streamRow struct {
	plan *rowPlan
	vals [][]byte
	s    *stream
	// partial says which values are not there: none, those unchanged, or, in an old key, everything else.
	partial  partial
	omitted  []string
	large    []cdc.LargeValue
	position int64 // within the transaction
}

type partial uint8

const (
	whole partial = iota
	withoutSome
	keyOnly
)

// lacksValue tells the values that are not there because they did not change, or are too large.
func lacksValue(v []byte) bool { return pgoutput.Unchanged(v) || pgoutput.TooLarge(v) }

// lacksKeyValue tells the columns that an old key leaves out: the log has null for them.
func lacksKeyValue(v []byte) bool { return v == nil || lacksValue(v) }

// AppendFields implements cdc.Row.
func (r *streamRow) AppendFields(dst []byte) ([]byte, error) {
	switch r.partial {
	case withoutSome:
		return r.plan.shape.AppendFields(dst, r.vals, lacksValue)
	case keyOnly:
		return r.plan.shape.AppendFields(dst, r.vals, lacksKeyValue)
	default:
		return r.plan.shape.AppendFields(dst, r.vals, nil)
	}
}

// AppendKey implements cdc.Row.
func (r *streamRow) AppendKey(dst []byte) ([]byte, error) { return r.plan.appendKey(dst, r.vals) }

// AppendSource implements cdc.Row.
func (r *streamRow) AppendSource(dst []byte) ([]byte, error) {
	dst = append(append(dst, r.s.source...), ',')
	dst = append(strconv.AppendUint(dst, uint64(r.s.lsn), 10), ',')
	dst = append(strconv.AppendInt(dst, r.position, 10), ']', ',')
	return append(dst, r.plan.source...), nil
}

// Omitted implements cdc.Row.
func (r *streamRow) Omitted() []string { return r.omitted }

// Oversized implements cdc.OversizedRow.
func (r *streamRow) Oversized() []cdc.LargeValue { return r.large }

// set makes the row from values of a message. It finds out which of them are missing.
func (r *streamRow) set(s *stream, t *streamed, vals [][]byte) error {
	if len(vals) != len(t.rows.names) {
		return fmt.Errorf("%w: a row of table %s has %d values for %d columns", errFrame, t.id, len(vals), len(t.rows.names))
	}
	r.plan, r.vals, r.s, r.partial, r.omitted, r.large, r.position = t.rows, vals, s, whole, r.omitted[:0], r.large[:0], s.ordinal
	for i, v := range vals {
		if pgoutput.Unchanged(v) && (t.rows.hidden == nil || !t.rows.hidden[i]) {
			r.partial = withoutSome
			r.omitted = append(r.omitted, t.rows.names[i])
		}
	}
	return nil
}

// lacks notes which of the row's values are too large. It is not on the hot path.
func (r *streamRow) lacks(values []pgoutput.Large, old bool) {
	for _, v := range values {
		if v.Old == old {
			r.large = r.plan.large(r.large, v.Column, int(v.Bytes))
			r.partial = max(r.partial, withoutSome)
		}
	}
}

// rowChange handles an insert, update or delete. It is the hot path.
func (s *stream) rowChange(m []byte) (*cdc.Event, error) {
	id, ok := pgoutput.RelationOf(m)
	if !ok {
		return nil, fmt.Errorf("%w: a change of %d bytes", errFrame, len(m))
	}
	t, known := s.relations[id]
	if t == nil {
		if !known {
			return nil, fmt.Errorf("%w: a change of a relation %d that was not described", errFrame, id)
		}
		return nil, nil //nolint:nilnil // of a table that is published, but not captured
	}
	if t.keyless && s.leftOut(t) {
		return nil, nil //nolint:nilnil // the backfill has it
	}
	if err := s.parsed.Parse(m); err != nil {
		return nil, err
	}
	s.ordinal++
	s.event = cdc.Event{Table: t.id, Txn: s.txn}
	if s.parsed.Before != 0 {
		if err := s.before.set(s, t, s.parsed.Old); err != nil {
			return nil, err
		}
		if s.parsed.Before == 'K' {
			s.before.partial = keyOnly
		}
		if len(s.parsed.Large) > 0 {
			s.before.lacks(s.parsed.Large, true)
		}
		s.event.Before = &s.before
	}
	switch pgoutput.Kind(m[0]) {
	case pgoutput.KindDelete:
		s.event.Op = cdc.Delete
		return &s.event, nil
	case pgoutput.KindUpdate:
		s.event.Op = cdc.Update
		s.complete()
	default:
		s.event.Op = cdc.Insert
	}
	if err := s.row.set(s, t, s.parsed.New); err != nil {
		return nil, err
	}
	if len(s.parsed.Large) > 0 {
		s.row.lacks(s.parsed.Large, false)
	}
	s.event.Row = &s.row
	return &s.event, nil
}

// complete takes values that an update leaves out from the whole old row, where the log has that (REPLICA IDENTITY FULL).
func (s *stream) complete() {
	if s.parsed.Before != 'O' || len(s.parsed.Old) != len(s.parsed.New) {
		return
	}
	for i, v := range s.parsed.New {
		if pgoutput.Unchanged(v) {
			s.parsed.New[i] = s.parsed.Old[i]
			if pgoutput.TooLarge(s.parsed.Old[i]) {
				s.stillTooLarge(i)
			}
		}
	}
}

// stillTooLarge notes that a value which did not change is too large.
func (s *stream) stillTooLarge(column int) {
	for _, v := range s.parsed.Large {
		if v.Old && v.Column == column {
			s.parsed.Large = append(s.parsed.Large, pgoutput.Large{Column: column, Bytes: v.Bytes})
			return
		}
	}
}

// truncate handles a TRUNCATE of any number of tables.
func (s *stream) truncate(m []byte) (*cdc.Event, error) {
	t, err := pgoutput.ParseTruncate(m)
	if err != nil {
		return nil, err
	}
	for _, id := range t.Relations {
		if table := s.relations[id]; table != nil && !s.leftOut(table) {
			s.queue = append(s.queue, cdc.Event{
				Op: cdc.Truncate, Table: table.id, Txn: s.txn, Mark: cdc.Mark(s.lsn.String()),
				CommitTime: time.UnixMilli(unixMillis(s.begin.CommitTime)),
			})
		}
	}
	return s.queued(), nil
}

// queued takes the first event of the queue.
func (s *stream) queued() *cdc.Event {
	if len(s.queue) == 0 {
		return nil
	}
	s.event, s.queue = s.queue[0], s.queue[1:]
	return &s.event
}
