package main

import (
	"context"
	"time"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// lookahead reads the log ahead of the stream, on a connection of its own, for nothing but the statements that may change which
// columns a table has. It is what makes the catalog, which is ahead of the log, say something about a place in the log: if no such
// statement lies between that place and where the log ended after the catalog was read, the table was the same at both.
type lookahead struct {
	log   *stream // delivers nothing; it is what reads events
	found map[cdc.TableID][]foundStatement
	all   map[string]place // of each database: behind the last statement that is about all its tables
	used  time.Time
	fold  func(statement) statement
	bound func(cdc.TableID) bool // whether a table is of interest
	// halfway says that the transaction is the beginning, or the failure, of an ALTER that MariaDB logs in two halves.
	halfway bool
}

// foundStatement is a statement, and the place behind it.
type foundStatement struct {
	statement
	at place
}

// aheadIdle is how long a connection is kept that was opened for looking ahead: tables that are first seen, or altered, mostly
// come together.
const aheadIdle = 5 * time.Second

// openLookahead begins to look ahead behind the last transaction that the stream has delivered.
func (s *stream) openLookahead(ctx context.Context) (*lookahead, error) {
	log := &stream{d: s.d, at: place{file: s.at.file}, opened: time.Now()}
	log.done.position, log.done.last = s.done.position, s.done.last
	conn, err := s.d.dialer.open(ctx)
	if err != nil {
		return nil, err
	}
	log.s = conn
	a := &lookahead{log: log, found: map[cdc.TableID][]foundStatement{}, all: map[string]place{}, fold: s.fold, bound: func(id cdc.TableID) bool { return s.tables[id] != nil }}
	if err := s.d.dump(ctx, log); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *lookahead) close() { a.log.abandon() }

// upTo reads on to a place where the log has ended. heard is called whenever something was received.
func (a *lookahead) upTo(ctx context.Context, end place, heard func()) error {
	a.used = time.Now()
	for a.log.at.before(end) {
		event, err := a.log.read(ctx, time.Now().Add(time.Second))
		if err != nil {
			return err
		}
		if event == nil {
			if err := ctx.Err(); err != nil {
				return err
			}
			continue
		}
		heard()
		if err := a.take(event); err != nil {
			return err
		}
	}
	a.used = time.Now()
	return nil
}

// take notes what an event says of tables, and the place behind it.
func (a *lookahead) take(event []byte) error {
	h, err := binlog.ParseHeader(event)
	if err != nil {
		return err
	}
	body := event[binlog.HeaderSize:]
	switch h.Type {
	case binlog.Query, binlog.QueryCompressed:
		a.log.moveTo(h)
		q, err := binlog.ParseQuery(body, h.Type == binlog.QueryCompressed)
		if err != nil {
			return err
		}
		if !a.halfway {
			a.note(a.fold(parseStatement(string(q.Statement), string(q.Schema))))
		}
	case binlog.MariaGTID:
		a.log.moveTo(h)
		g, err := binlog.ParseMariaGTID(body, h.ServerID)
		a.halfway = g.Halfway
		return err
	case binlog.TransactionPayload:
		return a.log.openPayload(h, body)
	case binlog.Rotate, binlog.Heartbeat, binlog.HeartbeatV2:
		return a.log.rareEvent(h, body)
	default:
		a.log.moveTo(h)
	}
	return nil
}

func (a *lookahead) note(st statement) {
	if !st.reshapes() {
		return
	}
	if st.verb == "DROP DATABASE" {
		a.all[st.tables[0].Schema] = a.log.at
		return
	}
	for _, id := range append(st.tables, st.to...) {
		if st.unless && len(a.found[id]) == 0 && a.all[id.Schema] == (place{}) {
			continue // it exists where the stream is, so this does nothing
		}
		if a.bound(id) {
			a.found[id] = append(a.found[id], foundStatement{st, a.log.at})
		}
	}
}

// lastChange is the place behind the last statement, as far as was read, that may have changed a table's columns; the zero place
// if there is none.
func (a *lookahead) lastChange(id cdc.TableID) place {
	last := a.all[id.Schema]
	if found := a.found[id]; len(found) > 0 && last.before(found[len(found)-1].at) {
		last = found[len(found)-1].at
	}
	return last
}

// statements are those behind a place that may have changed a table's columns.
func (a *lookahead) statements(id cdc.TableID, behind place) []statement {
	var out []statement
	if behind.before(a.all[id.Schema]) {
		out = append(out, statement{verb: "DROP DATABASE"})
	}
	for _, f := range a.found[id] {
		if behind.before(f.at) {
			out = append(out, f.statement)
		}
	}
	return out
}
