package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// stream is the server's log. It implements cdc.Stream and is used by one goroutine.
type stream struct {
	d     *driver
	s     *session
	start cdc.Position

	tables map[cdc.TableID]*streamed
	mapped map[uint64]*mapping // by the log's number of a table; of one that is not captured, it has no table

	checksums bool
	at        place  // behind the last event
	made      uint32 // when the server made the file, in seconds since 1970
	era       uint64 // identity.Era
	asked     place  // where the server was asked to begin, if it was by file and place
	skip      place  // what comes before was captured already
	txn       transaction
	rows      binlog.Rows
	rowsOf    *mapping
	part      bool // rows need not have all columns
	op        cdc.Op
	payload   innerEvents // read before the log goes on; nil if there are none
	queue     []cdc.Event

	done      history
	cursorAt  time.Time // when a cursor was given last
	moved     bool      // since then
	fences    []fence
	floor     place
	preparing *prepared            // the distributed transaction that is being prepared
	prepared  map[string]*prepared // those that were
	held      int                  // bytes of these
	holds     int                  // how many they may be
	owed      int                  // tables of which rows were left out
	ahead     *lookahead
	joining   joining

	opened time.Time
	heard  atomic.Int64 // when something was received last, in nanoseconds since opened

	event       cdc.Event
	row, before streamRow
}

// history is what the stream has delivered.
type history struct {
	mu sync.Mutex
	position
	progress progress
	last     cdc.TxnID // MariaDB: the last transaction; empty if none
}

// transaction is the one that is open, or was last.
type transaction struct {
	open    bool
	begun   bool  // statements follow, up to its end
	from    place // where it begins
	halfway bool  // the beginning, or the failure, of an ALTER that is logged in two halves
	touched bool  // it changed tables that are captured
	id      cdc.TxnID
	commit  time.Time
	ordinal int64
	source  []byte // the parts of _meta.source that are the same for the whole transaction
	add     func(*position)
}

type fence struct {
	at   place
	mark cdc.Mark
}

// maxMapped is about how many descriptions of tables are kept. A server that opens and closes its tables all the time gives them new numbers
// all the time, and there is no word in the log when a number is given up.
const maxMapped = 1000

// idleCursorEvery bounds how often a stream without changes moves on: each step is a checkpoint of the whole pipeline.
const idleCursorEvery = time.Second

// Start implements cdc.Stream.
func (s *stream) Start() cdc.Position { return s.start }

// Origin implements cdc.Stream. Of a table without a key it is where the log was when the stream began to carry it.
func (s *stream) Origin(id cdc.TableID) string {
	t := s.tables[id]
	if t == nil || len(t.table.Key) > 0 || t.join != nil {
		return ""
	}
	if t.table.Origin != "" {
		return t.table.Origin
	}
	return s.at.String()
}

// Ack implements cdc.Stream: the server does not wait for us.
func (s *stream) Ack(cdc.Cursor) {}

// Fence implements cdc.Stream.
func (s *stream) Fence(_ context.Context, mark cdc.Mark) error {
	at, err := parsePlace(string(mark))
	if err != nil {
		return err
	}
	s.fences = append(s.fences, fence{at: at, mark: mark})
	return nil
}

// Heard implements cdc.Heard.
func (s *stream) Heard() time.Time { return s.opened.Add(time.Duration(s.heard.Load())) }

// Close implements cdc.Stream.
func (s *stream) Close() error {
	s.d.live.CompareAndSwap(s, nil)
	s.closeAhead()
	s.stopJoining()
	if s.payload != nil {
		s.payload.close()
	}
	s.s.broken = true // the server takes no farewell while it sends the log
	return s.s.close()
}

// delivered names all that was delivered, and that a snapshot may not see yet.
func (s *stream) delivered() []cdc.TxnID {
	s.done.mu.Lock()
	defer s.done.mu.Unlock()
	if s.done.set != nil && !s.done.byFile {
		return []cdc.TxnID{cdc.TxnID(setMark + s.done.set.String())}
	}
	if s.done.last == "" {
		return nil
	}
	return []cdc.TxnID{s.done.last}
}

// Next implements cdc.Stream.
func (s *stream) Next(ctx context.Context, wait time.Duration) (*cdc.Event, error) {
	if len(s.queue) == 0 && s.rows.More() { // as mostly: without asking for the time
		return s.nextRow()
	}
	deadline := time.Now().Add(s.s.socket.Patience(wait))
	for n := 1; ; n++ {
		if len(s.queue) > 0 {
			s.event, s.queue = s.queue[0], s.queue[1:]
			return &s.event, nil
		}
		if s.rows.More() {
			return s.nextRow()
		}
		if s.owed > 0 && !s.txn.open {
			if ev := s.paid(); ev != nil {
				return ev, nil
			}
		}
		if len(s.joining.tables) > 0 && !s.txn.open {
			if ev, err := s.joined(ctx); ev != nil || err != nil {
				return ev, err
			}
		}
		if len(s.fences) > 0 && !s.txn.open {
			if ev := s.passedFence(); ev != nil {
				return ev, nil
			}
		}
		event, err := s.read(ctx, deadline)
		if err != nil {
			return nil, err
		}
		if event == nil {
			return s.idle(), nil
		}
		if err := s.handle(ctx, event); err != nil {
			return nil, err
		}
		if n%64 == 0 && !s.txn.open && time.Now().After(deadline) && len(s.queue) == 0 && !s.rows.More() {
			return s.idle(), nil
		}
	}
}

// read gives the next event, or nil if there is none until the deadline.
func (s *stream) read(ctx context.Context, deadline time.Time) ([]byte, error) {
	if s.payload != nil {
		event, err := s.payload.next(ctx)
		if !errors.Is(err, io.EOF) {
			return event, err
		}
		s.payload.close()
		s.payload = nil
	}
	for {
		packet, ok, err := s.s.wire.packet()
		if err != nil {
			return nil, s.explain(err)
		}
		if ok {
			return s.unpack(packet)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		const pollEvery = 100 * time.Millisecond // how soon a cancelled context is noticed
		now := time.Now()
		until := now.Add(pollEvery)
		if deadline.Before(until) {
			until = deadline
		}
		got, err := s.s.wire.fill(until)
		switch {
		case err != nil:
			return nil, s.explain(err)
		case got:
			s.heard.Store(int64(time.Since(s.opened)))
		case !time.Now().Before(deadline):
			return nil, nil //nolint:nilnil // nothing arrived
		}
	}
}

var errEnded = errors.New("the log ended")

// unpack takes an event out of its packet.
func (s *stream) unpack(packet []byte) ([]byte, error) {
	if len(packet) == 0 {
		return nil, fmt.Errorf("%w: an empty packet in the log", errPacket)
	}
	switch {
	case packet[0] == 0xff:
		return nil, s.explain(errorOf(packet))
	case packet[0] == 0xfe && len(packet) < 9:
		return nil, usererr.New(errEnded, "The server at %s ended the replication stream, as it does when it shuts down.", s.d.cfg.Address)
	case packet[0] != 0:
		return nil, fmt.Errorf("%w: a packet in the log begins with %#x", errPacket, packet[0])
	}
	event := packet[1:]
	if len(event) > 4 && binlog.Type(event[4]) == binlog.FormatDescription {
		has, err := binlog.HasChecksums(event)
		if err != nil {
			return nil, err
		}
		if s.checksums = has; !has {
			return event[:len(event)-4], nil // there is one, but the server has changed the event since
		}
		return binlog.StripChecksum(event)
	}
	if !s.checksums {
		return event, nil
	}
	return binlog.StripChecksum(event)
}

// passedFence gives the next fence that the stream has passed.
func (s *stream) passedFence() *cdc.Event {
	for i, f := range s.fences {
		if !s.at.before(f.at) {
			s.fences = append(s.fences[:i], s.fences[i+1:]...)
			s.event = cdc.Event{Op: cdc.Fence, Mark: f.mark}
			return &s.event
		}
	}
	return nil
}

// idle says that nothing arrived. What others changed meanwhile need not be read again.
func (s *stream) idle() *cdc.Event {
	if s.ahead != nil && time.Since(s.ahead.used) > aheadIdle {
		s.closeAhead()
	}
	if !s.txn.open {
		s.done.mu.Lock()
		s.done.progress.at = s.at
		s.done.mu.Unlock()
	}
	s.event = cdc.Event{Op: cdc.Idle}
	if s.moved && !s.txn.open && time.Since(s.cursorAt) >= idleCursorEvery {
		s.event.Cursor = s.cursor()
	}
	return &s.event
}

// cursor is where to resume behind the last transaction.
func (s *stream) cursor() cdc.Cursor {
	s.moved, s.cursorAt = false, time.Now()
	return cdc.Cursor(s.done.text(s.done.last))
}

// moveTo notes the place behind an event. The log says it modulo 2³².
func (s *stream) moveTo(h binlog.Header) {
	if h.End == 0 || s.payload != nil {
		return
	}
	at := s.at.at&^(1<<32-1) | uint64(h.End)
	if at < s.at.at {
		at += 1 << 32
	}
	s.at.at = at
}

// handle takes one event.
func (s *stream) handle(ctx context.Context, event []byte) error {
	h, err := binlog.ParseHeader(event)
	if err != nil {
		return err
	}
	body := event[binlog.HeaderSize:]
	if s.skip.file != "" {
		return s.pass(h, body)
	}
	if s.preparing != nil && isOfRows(h.Type) {
		s.moveTo(h)
		return s.prepare(h, event)
	}
	switch h.Type {
	case binlog.WriteRows, binlog.UpdateRows, binlog.DeleteRows, binlog.WriteRowsV1, binlog.UpdateRowsV1, binlog.DeleteRowsV1,
		binlog.WriteRowsCompressed, binlog.UpdateRowsCompressed, binlog.DeleteRowsCompressed, binlog.PartialUpdateRows:
		s.moveTo(h)
		return s.rowsEvent(h.Type, body)
	case binlog.TableMap:
		s.moveTo(h)
		return s.tableMap(ctx, body)
	case binlog.XID:
		s.moveTo(h)
		return s.endTransaction(h)
	case binlog.XAPrepare:
		s.moveTo(h)
		return s.endPrepared(ctx, h, body)
	case binlog.Query, binlog.QueryCompressed:
		s.moveTo(h)
		return s.query(ctx, h, body)
	case binlog.GTID, binlog.MariaGTID, binlog.GTIDTagged, binlog.AnonymousGTID:
		s.moveTo(h)
		return s.begin(h, body)
	case binlog.TransactionPayload:
		return s.openPayload(h, body)
	default:
		return s.rareEvent(h, body)
	}
}

// openPayload takes a transaction that was compressed as a whole. Its events have no places of their own.
func (s *stream) openPayload(h binlog.Header, body []byte) error {
	s.moveTo(h)
	payload, err := binlog.OpenPayload(body)
	if err != nil {
		return err
	}
	s.payload = compressed{payload}
	return nil
}

// rareEvent takes the events that are not part of most transactions.
func (s *stream) rareEvent(h binlog.Header, body []byte) error {
	switch h.Type {
	case binlog.Rotate:
		file, at, err := binlog.ParseRotate(body)
		s.at = place{file, at}
		return err
	case binlog.FormatDescription:
		if err := s.sameFile(h); err != nil {
			return err
		}
		clear(s.mapped) // the server may have started again: its numbers of tables begin anew
		s.moveTo(h)
	case binlog.Heartbeat:
		if file := string(body); file != "" && file != s.at.file {
			s.at = place{file: file}
		}
		s.moveTo(h)
	case binlog.HeartbeatV2:
		file, at, err := binlog.ParseHeartbeatV2(body)
		if err != nil {
			return err
		}
		if p := (place{file, at}); s.at.before(p) {
			s.at = p
		}
	case binlog.ExecuteLoadQuery:
		s.moveTo(h)
		return s.loadedByStatement(body)
	case binlog.BeginLoadQuery, binlog.AppendBlock, binlog.DeleteFile, // what a file has that is loaded by a statement
		binlog.Stop, binlog.PreviousGTIDs, binlog.IntVar, binlog.Rand, binlog.UserVar, binlog.Ignorable, binlog.RowsQuery, binlog.AnnotateRows,
		binlog.Checkpoint, binlog.MariaGTIDList, binlog.StartEncryption, binlog.TransactionContext, binlog.ViewChange:
		s.moveTo(h)
	case binlog.Incident:
		return usererr.New(cdc.ErrPositionLost, "The server says that its binary log lacks changes (%s at %s).", h.Type, s.at)
	default:
		if !h.MayIgnore() {
			return usererr.New(nil, "The log has an %s at %s, which is not known here, so nothing behind it can be captured safely. Is there a newer version of this connector?", h.Type, s.at)
		}
		s.moveTo(h)
	}
	return nil
}

// begin opens a transaction.
func (s *stream) begin(h binlog.Header, body []byte) error {
	if p := s.preparing; p != nil { // what follows would be taken for its rows
		return fmt.Errorf("%w: the transaction that begins at %s is not prepared before the next one, at %s", binlog.ErrFormat, p.at, s.at)
	}
	if len(s.mapped) > maxMapped {
		clear(s.mapped) // every transaction describes the tables of its rows
	}
	t := &s.txn
	*t = transaction{open: true, from: s.behind(h), source: t.source[:0], commit: time.Unix(int64(h.Timestamp), 0)}
	var name []byte
	if h.Type == binlog.MariaGTID {
		g, err := binlog.ParseMariaGTID(body, h.ServerID)
		if err != nil {
			return err
		}
		t.begun, t.halfway = !g.Standalone, g.Halfway
		if g.Prepared {
			s.beginPrepared(g.XID)
		}
		t.id = s.hereAsTxn()
		t.add = func(p *position) { p.addMaria(g) }
		name = mariaName(g)
	} else {
		g, err := s.mysqlGTID(h.Type, body)
		if err != nil {
			return err
		}
		if !g.Commit.IsZero() {
			t.commit = g.Commit
		}
		if g.Number != 0 {
			name = mysqlName(g)
		}
		t.id = cdc.TxnID(name)
		t.add = func(p *position) { p.addMySQL(g) }
	}
	if s.done.byFile {
		t.id = s.hereAsTxn()
		t.add = func(p *position) { p.place, p.made = s.at, s.made }
	}
	t.source = strconv.AppendInt(append(t.source, `"ts_ms":`...), t.commit.UnixMilli(), 10)
	if name != nil {
		t.source = append(append(append(t.source, `,"gtid":"`...), name...), '"')
	}
	t.source = append(t.source, `,"server_id":`...)
	t.source = strconv.AppendUint(t.source, uint64(h.ServerID), 10)
	t.source = append(t.source, `,"loc":[`...)
	t.source = append(strconv.AppendUint(t.source, s.file(s.at), 10), ',')
	return nil
}

// file is the number by which documents tell a file of the log from all others that are captured.
func (s *stream) file(p place) uint64 { return s.era<<32 | p.number() }

// endTransaction closes the transaction. What others changed is passed over without an event.
func (s *stream) endTransaction(binlog.Header) error {
	t := &s.txn
	if !t.open {
		return fmt.Errorf("%w: the end of a transaction that has no beginning, at %s", binlog.ErrFormat, s.at)
	}
	t.open, t.begun = false, false
	s.done.mu.Lock()
	t.add(&s.done.position)
	s.done.progress = progress{s.at, t.commit}
	s.done.last = t.id
	s.done.mu.Unlock()
	s.moved = true
	if t.touched {
		s.queue = append(s.queue, cdc.Event{Op: cdc.Commit, Txn: t.id, CommitTime: t.commit, Cursor: s.cursor()})
	}
	return nil
}
