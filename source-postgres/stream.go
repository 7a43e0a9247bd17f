package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-postgres/internal/pgoutput"
)

// stream is the slot's log. It implements cdc.Stream and is used by one goroutine, except for Ack.
type stream struct {
	d        *driver
	conn     net.Conn
	socket   *endpoint.LowWater // below conn, or conn itself
	wire     *wire
	feedback *feedback
	guard    *guard
	renewed  *json.RawMessage // the identity that was given last
	start    cdc.Position

	tables    map[cdc.TableID]*streamed // bound tables
	relations map[uint32]*streamed      // by what the log calls them; nil for tables that are not bound
	joining   joining
	latest    map[uint32][]byte // the description of each that came last, in a transaction in progress or not

	// Transactions of which pieces come before they end (inprogress.go); spool is nil if there are none.
	spool  *spool
	pieces map[uint32]*inProgress
	piece  *inProgress // whose piece is being received
	kept   *redelivery // what is being delivered now that it has committed
	again  *wire       // that redeliveries read by

	describeAgain time.Duration // the constant, but in tests

	// The transaction that is being delivered, or was last.
	open    bool
	begin   pgoutput.Begin
	xid     uint64
	txn     cdc.TxnID
	ordinal int64
	source  []byte // the parts of _meta.source that are the same for the whole transaction
	lsn     lsn    // of the change at hand

	// For who asks from other goroutines.
	pid      uint32 // the server's process
	opened   time.Time
	heard    atomic.Int64  // when something was received last, in nanoseconds since opened
	received atomic.Uint64 // passed

	passed   lsn // everything that committed before it has been delivered
	cursor   lsn // the last one that was given
	cursorAt time.Time
	fences   []fence
	nudgeAt  time.Time   // when to do something about a fence that is not passed
	queue    []cdc.Event // events that one message gave at once

	event       cdc.Event
	row, before streamRow
	parsed      pgoutput.Row
}

// idleCursorEvery bounds how often a stream without changes moves on: each step is a checkpoint of the whole pipeline.
const idleCursorEvery = time.Second

// Start implements cdc.Stream.
func (s *stream) Start() cdc.Position { return s.start }

// Origin implements cdc.Stream.
func (s *stream) Origin(id cdc.TableID) string {
	if t := s.tables[id]; t != nil && t.origin != nil {
		return t.origin.String()
	}
	return ""
}

// Ack implements cdc.Stream.
func (s *stream) Ack(upTo cdc.Cursor) {
	if at, err := parseLSN(string(upTo)); err == nil {
		s.feedback.ack(at)
	}
}

// Heard implements cdc.Heard.
func (s *stream) Heard() time.Time { return s.opened.Add(time.Duration(s.heard.Load())) }

// reach waits a moment for everything before a position to be received, and returns how far that is. It may be called from
// any goroutine.
func (s *stream) reach(ctx context.Context, end lsn) lsn {
	s.feedback.probe()
	short, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	// A stream that is at rest hears it at once. One that has much to deliver gets there late or not: asking often would cost it more than
	// the report is worth.
	for pause := time.Millisecond; ; pause *= 2 {
		received := lsn(s.received.Load())
		if received >= end || capture.Sleep(short, pause) != nil {
			return received
		}
	}
}

// Close implements cdc.Stream.
func (s *stream) Close() error {
	s.d.live.CompareAndSwap(s, nil)
	s.guard.close()
	s.feedback.close()
	err := s.conn.Close()
	if s.spool != nil {
		err = errors.Join(err, s.spool.close())
	}
	if err != nil {
		return fmt.Errorf("closing the replication connection: %w", err)
	}
	return nil
}

// Next implements cdc.Stream.
func (s *stream) Next(ctx context.Context, wait time.Duration) (*cdc.Event, error) {
	if len(s.queue) > 0 {
		s.event, s.queue = s.queue[0], s.queue[1:]
		return &s.event, nil
	}
	if s.kept != nil {
		return s.redeliver(ctx)
	}
	if len(s.fences) > 0 && !s.open {
		if ev := s.passedFence(); ev != nil {
			return ev, nil
		}
	}
	var deadline time.Time
	for {
		if len(s.joining.tables) > 0 && !s.open {
			if ev, err := s.joined(ctx); err != nil || ev != nil {
				return ev, err
			}
		}
		kind, body, ok := s.wire.next()
		if !ok {
			if deadline.IsZero() {
				deadline = time.Now().Add(s.socket.Patience(wait))
			}
			if idle, err := s.fill(ctx, deadline); err != nil || idle {
				return s.idle(), err
			}
			continue
		}
		ev, err := s.handle(ctx, kind, body)
		if err != nil || ev != nil {
			return ev, err
		}
		if len(s.fences) > 0 && !s.open {
			if ev := s.passedFence(); ev != nil {
				return ev, nil
			}
		}
		if !deadline.IsZero() && time.Now().After(deadline) {
			return s.idle(), nil
		}
	}
}

// pollEvery is how soon a cancelled context is noticed.
const pollEvery = 100 * time.Millisecond

// fill reads more from the connection. It reports idle if nothing arrived until the deadline.
func (s *stream) fill(ctx context.Context, deadline time.Time) (idle bool, err error) {
	for {
		if err := s.over(ctx); err != nil {
			return false, err
		}
		now := time.Now()
		if err := s.conn.SetReadDeadline(earlier(deadline, now.Add(pollEvery))); err != nil {
			return false, s.whyCut(fmt.Errorf("reading the replication stream: %w", err))
		}
		n, err := s.wire.read()
		switch {
		case n > 0: // with an error, too: TLS gives the end of a connection with its last words, which say why
			s.heard.Store(int64(time.Since(s.opened)))
			return false, nil
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return false, s.whyCut(err)
		}
		s.nudge(ctx)
		if !time.Now().Before(deadline) {
			return true, nil
		}
	}
}

// over is why the stream has to end, if it has to.
func (s *stream) over(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.guard.failed(); err != nil {
		return err
	}
	if err := s.feedback.failed(); err != nil {
		return s.whyCut(err)
	}
	return nil
}

// whyCut is the guard's reason, if it was the guard that cut the connection.
func (s *stream) whyCut(err error) error {
	if why := s.guard.failed(); why != nil {
		return why
	}
	return err
}

// reducer reads a change that is too large for memory.
func (s *stream) reducer(size int) *reducer {
	return newReducer(size, s.d.maxRow, func(relation uint32, column, n int) int {
		if t := s.relations[relation]; t != nil {
			return t.rows.inDocument(column, n)
		}
		return s.d.maxRow + 1 // nobody needs any of it
	})
}

// idle says that nothing arrived. If the server has said that it has read beyond the last cursor without finding anything
// for us, and we have all that it sent before it said so, the capture can resume there, and the server can forget what
// lies before (hard cases 4 and 5).
func (s *stream) idle() *cdc.Event {
	s.event = cdc.Event{Op: cdc.Idle}
	if !s.open && s.passed > s.cursor && time.Since(s.cursorAt) >= idleCursorEvery {
		s.giveCursor(s.passed)
		s.event.Cursor, s.event.Identity = cdc.Cursor(s.passed.String()), s.identity()
	}
	return &s.event
}

// identity is what the guard has renewed, once.
func (s *stream) identity() json.RawMessage {
	now := s.guard.renewed.Load()
	if now == s.renewed {
		return nil
	}
	s.renewed = now
	return *now
}

func (s *stream) giveCursor(at lsn) { s.cursor, s.cursorAt = at, time.Now() }

// handle turns one message of the connection into an event, or none.
func (s *stream) handle(ctx context.Context, kind byte, body []byte) (*cdc.Event, error) {
	switch kind {
	case 'd':
	case 'E':
		var m pgproto3.ErrorResponse
		if err := m.Decode(body); err != nil {
			return nil, fmt.Errorf("reading the replication stream: %w", err)
		}
		return nil, s.serverError(pgconn.ErrorResponseToPgError(&m))
	case 'c':
		return nil, usererr.New(nil, "The server at %s ended the replication stream, as it does when it shuts down.", s.d.cfg.Address)
	case 'N':
		var m pgproto3.NoticeResponse
		if err := m.Decode(body); err != nil {
			return nil, fmt.Errorf("reading the replication stream: %w", err)
		}
		return nil, s.notice(pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(&m)))
	case 'S', 'C', 'Z':
		return nil, nil //nolint:nilnil // nothing that concerns us
	default:
		return nil, fmt.Errorf("%w: message %q", errFrame, kind)
	}
	switch {
	case len(body) > replicationHead && body[0] == 'w':
		if s.piece != nil {
			return nil, s.keep(body)
		}
		s.lsn = lsn(binary.BigEndian.Uint64(body[1:]))
		return s.change(ctx, body[replicationHead:])
	case len(body) >= 18 && body[0] == 'k':
		if end := lsn(binary.BigEndian.Uint64(body[1:])); !s.open && end > s.passed {
			s.passed = end
			s.received.Store(uint64(end))
		}
		if body[17] != 0 {
			s.feedback.nudge()
		}
		return nil, nil //nolint:nilnil // a keepalive is no event
	}
	return nil, fmt.Errorf("%w: replication message of %d bytes", errFrame, len(body))
}

func (s *stream) serverError(err *pgconn.PgError) error {
	switch {
	case err.Code == stateUndefinedObject:
		return s.undecodable(err)
	case logIsGone(err):
		return usererr.New(errors.Join(cdc.ErrPositionLost, err), "The server has removed a part of its log that the replication slot %q still needs: %s. Slots that are made while the server removes old log can come to that; so can log that was removed by hand.", s.d.slot, err.Message)
	}
	return usererr.New(err, "The server ended the replication stream: %s.", err.Message)
}

// logIsGone says whether a server does not find a part of its log. It has no code of its own for that, and its words are in its
// own language; the routine is not: https://github.com/postgres/postgres/blob/REL_15_STABLE/src/backend/replication/walsender.c
func logIsGone(err *pgconn.PgError) bool {
	return err.Routine == "WalSndSegmentOpen" || err.Routine == "XLogRead" // that of Postgres 12
}

// notice takes what the server says beside the stream. From Postgres 18 on it warns that the publication does not exist, and
// goes on without its tables: what an older one stops for.
func (s *stream) notice(n *pgconn.PgError) error {
	if n.Code == stateNotReady && n.SeverityUnlocalized == "WARNING" {
		return s.undecodable(n)
	}
	return nil
}

// undecodable is about a part of the log that was written while there was no publication (hard case 9): it can never be read.
func (s *stream) undecodable(err *pgconn.PgError) error {
	return usererr.New(errors.Join(cdc.ErrPositionLost, err), "The server cannot decode the slot %q: %s. Its log reaches back to before the publication %q was made, or the publication was dropped.",
		s.d.slot, err.Message, s.d.publication)
}

// change handles one message of the decoding plugin.
func (s *stream) change(ctx context.Context, m []byte) (*cdc.Event, error) {
	switch pgoutput.Kind(m[0]) {
	case pgoutput.KindInsert, pgoutput.KindUpdate, pgoutput.KindDelete:
		return s.rowChange(m)
	case pgoutput.KindBegin:
		return nil, s.beginTransaction(m)
	case pgoutput.KindCommit:
		return s.commit(m)
	case pgoutput.KindRelation:
		s.noteDescription(m)
		return s.relation(ctx, m)
	case pgoutput.KindTruncate:
		return s.truncate(m)
	case pgoutput.KindStreamStart:
		return nil, s.beginPiece(m)
	case pgoutput.KindStreamAbort:
		return nil, s.abort(m)
	case pgoutput.KindStreamCommit:
		return s.commitPieces(ctx, m)
	case pgoutput.KindType, pgoutput.KindOrigin, pgoutput.KindMessage:
		return nil, nil //nolint:nilnil // types come from the catalog; the others were not asked for
	case pgoutput.KindStreamStop: // of nothing
	}
	return nil, fmt.Errorf("%w: decoded message %q", errFrame, m[0])
}

func (s *stream) beginTransaction(m []byte) error {
	b, err := pgoutput.ParseBegin(m)
	if err == nil {
		s.deliver(b)
	}
	return err
}

// deliver begins the delivery of a transaction that has committed.
func (s *stream) deliver(b pgoutput.Begin) {
	s.begin = b
	s.xid = fullXID(s.d.newest.Load(), s.begin.Xid)
	s.d.observe(s.xid)
	t := transaction{xid: s.xid}
	if s.d.server.standby {
		t.commit = lsn(s.begin.FinalLSN)
	}
	s.open, s.txn, s.ordinal = true, t.id(), 0
	s.source = strconv.AppendInt(append(s.source[:0], `"ts_ms":`...), unixMillis(s.begin.CommitTime), 10)
	s.source = append(strconv.AppendUint(append(s.source, `,"txid":"`...), s.xid, 10), `","loc":[`...)
	s.source = strconv.AppendUint(s.source, s.begin.FinalLSN, 10)
}

func (s *stream) commit(m []byte) (*cdc.Event, error) {
	c, err := pgoutput.ParseCommit(m)
	if err != nil {
		return nil, err
	}
	return s.delivered(c), nil
}

// delivered ends the delivery of a transaction.
func (s *stream) delivered(c pgoutput.Commit) *cdc.Event {
	s.open, s.passed = false, max(s.passed, lsn(c.EndLSN))
	s.received.Store(uint64(s.passed))
	s.giveCursor(lsn(c.EndLSN))
	s.event = cdc.Event{
		Op: cdc.Commit, Txn: s.txn, Cursor: cdc.Cursor(lsn(c.EndLSN).String()), Identity: s.identity(),
		CommitTime: time.UnixMilli(unixMillis(c.CommitTime)),
	}
	return &s.event
}
