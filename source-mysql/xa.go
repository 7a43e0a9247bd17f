package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// Distributed transactions (XA, hard case 52). The log has them in two parts that may lie far apart: the rows, where the transaction was
// prepared, and whether it was committed or rolled back. Its rows are emitted at its commit, as changes of the commit's own transaction.
// Until then they are held in memory; of what is too large for that, or was prepared before this stream began, the log is read again from
// the place where it was prepared. So positions need not know of prepared transactions.

// innerEvents are events that the log has within, or instead of, another one. Events are valid until the next call; io.EOF ends them.
type innerEvents interface {
	next(ctx context.Context) ([]byte, error)
	close()
}

// compressed are the events of a transaction that was compressed as a whole.
type compressed struct{ payload *binlog.Payload }

func (c compressed) next(context.Context) ([]byte, error) { return c.payload.Next() } //nolint:wrapcheck // it says what it is
func (c compressed) close()                               { c.payload.Close() }

// prepared is a distributed transaction that was prepared, and has not ended.
type prepared struct {
	xid    string
	at     place           // of its first event
	tables map[uint64]bool // the log's numbers of tables that are captured
	events [][]byte        // descriptions and rows of these; nil if they are too large to be held
	size   int
	gone   bool // events are not held
}

// heldBytes is how much of prepared transactions is held in memory, together.
const heldBytes = 16 << 20

// prepare takes an event of a transaction that is being prepared, if it concerns captured tables.
func (s *stream) prepare(h binlog.Header, event []byte) error {
	p := s.preparing
	body := event[binlog.HeaderSize:]
	id, err := binlog.TableID(body)
	if err != nil {
		return err
	}
	if h.Type == binlog.TableMap {
		schema, name, err := binlog.TableName(body)
		if err != nil {
			return err
		}
		p.tables[id] = s.tables[cdc.TableID{Schema: string(schema), Name: string(name)}] != nil
	}
	if !p.tables[id] || p.gone {
		return nil
	}
	if s.held+len(event) > s.holds {
		s.held -= p.size
		p.events, p.size, p.gone = nil, 0, true
		return nil
	}
	p.events = append(p.events, slices.Clone(event))
	p.size += len(event)
	s.held += len(event)
	return nil
}

// isOfRows tells the events that describe tables and have their rows.
func isOfRows(t binlog.Type) bool {
	switch t {
	case binlog.TableMap, binlog.WriteRows, binlog.UpdateRows, binlog.DeleteRows, binlog.WriteRowsV1, binlog.UpdateRowsV1, binlog.DeleteRowsV1,
		binlog.WriteRowsCompressed, binlog.UpdateRowsCompressed, binlog.DeleteRowsCompressed, binlog.PartialUpdateRows:
		return true
	default:
		return false
	}
}

// isGTID tells the events that begin a transaction.
func isGTID(t binlog.Type) bool {
	switch t {
	case binlog.GTID, binlog.GTIDTagged, binlog.AnonymousGTID, binlog.MariaGTID:
		return true
	default:
		return false
	}
}

// beginPrepared opens the first part of a distributed transaction.
func (s *stream) beginPrepared(xid string) {
	s.txn.begun = true
	s.preparing = &prepared{xid: xid, at: s.txn.from, tables: map[uint64]bool{}}
}

// endPrepared closes the first part. With one phase, there is no second one.
func (s *stream) endPrepared(ctx context.Context, h binlog.Header, body []byte) error {
	p := s.preparing
	s.preparing = nil
	if p == nil {
		return fmt.Errorf("%w: the end of a prepared transaction that has no beginning, at %s", binlog.ErrFormat, s.at)
	}
	if len(body) > 0 && body[0] != 0 {
		return s.replay(ctx, p)
	}
	if old := s.prepared[p.xid]; old != nil {
		s.held -= old.size
	}
	if s.prepared == nil {
		s.prepared = map[string]*prepared{}
	}
	s.prepared[p.xid] = p
	return s.endTransaction(h)
}

// distributed takes a statement about a distributed transaction.
func (s *stream) distributed(ctx context.Context, h binlog.Header, what string) error {
	verb, xid, _ := strings.Cut(what, " ")
	xid = strings.ToLower(strings.TrimSpace(strings.TrimSuffix(xid, "ONE PHASE")))
	switch verb {
	case "START", "BEGIN":
		s.beginPrepared(xid)
		return nil
	case "END":
		return nil
	case "ROLLBACK":
		if s.preparing != nil {
			return s.endRolledBack(h)
		}
		if p := s.prepared[xid]; p != nil {
			s.held -= p.size
			delete(s.prepared, xid)
		}
		return s.endTransaction(h)
	case "COMMIT":
		p := s.prepared[xid]
		delete(s.prepared, xid)
		if p == nil {
			var err error
			if p, err = s.findPrepared(ctx, xid); err != nil {
				return err
			}
		}
		return s.replay(ctx, p)
	default:
		return usererr.New(nil, "The log has a statement about a distributed transaction that is not known here (XA %s, at %s).", verb, s.at)
	}
}

// endRolledBack closes a distributed transaction that was rolled back before it was prepared. The log has it only where a part of it could
// not be.
func (s *stream) endRolledBack(h binlog.Header) error {
	p := s.preparing
	s.preparing = nil
	for _, captured := range p.tables {
		if captured {
			return s.errRolledBack()
		}
	}
	s.held -= p.size
	return s.endTransaction(h)
}

// replay has the rows of a prepared transaction read as those of the transaction at hand, which ends with them.
func (s *stream) replay(ctx context.Context, p *prepared) error {
	s.held -= p.size
	if s.payload != nil { // with one phase, all of it is compressed; its end is the last that there is
		s.payload.close()
		s.payload = nil
	}
	if !p.gone {
		s.payload = &heldEvents{events: p.events}
		return nil
	}
	log, err := s.openAt(ctx, p.at)
	if err != nil {
		return err
	}
	s.payload = &preparedEvents{log: log, tables: p.tables, of: s, at: p.at}
	return nil
}

// endEvent ends a transaction; it is of no place in the log.
var endEvent = append([]byte{0, 0, 0, 0, byte(binlog.XID)}, make([]byte, binlog.HeaderSize-5+8)...) //nolint:gochecknoglobals // never written to

// heldEvents are those of a prepared transaction that were held in memory, and its end.
type heldEvents struct {
	events [][]byte
	ended  bool
}

func (e *heldEvents) next(context.Context) ([]byte, error) {
	if len(e.events) == 0 {
		if e.ended {
			return nil, io.EOF
		}
		e.ended = true
		return endEvent, nil
	}
	event := e.events[0]
	e.events = e.events[1:]
	return event, nil
}

func (e *heldEvents) close() {}

// preparedEvents are those of a prepared transaction, read from the log again, and its end.
type preparedEvents struct {
	log    *stream
	of     *stream // that gets them
	tables map[uint64]bool
	at     place
	ended  bool
}

func (e *preparedEvents) next(ctx context.Context) ([]byte, error) {
	if e.ended {
		return nil, io.EOF
	}
	for deadline := time.Now().Add(readAgainPatience); ; {
		event, err := e.log.read(ctx, time.Now().Add(time.Second))
		if err != nil {
			return nil, err
		}
		if event == nil {
			if time.Now().After(deadline) {
				return nil, fmt.Errorf("%w: the log has no end of the transaction that was prepared at %s", binlog.ErrFormat, e.at)
			}
			continue
		}
		e.of.heard.Store(int64(time.Since(e.of.opened)))
		h, err := binlog.ParseHeader(event)
		if err != nil {
			return nil, err
		}
		body := event[binlog.HeaderSize:]
		switch h.Type {
		case binlog.Rotate, binlog.Heartbeat, binlog.HeartbeatV2:
			if err := e.log.rareEvent(h, body); err != nil {
				return nil, err
			}
		case binlog.TransactionPayload: // its events come next
			if err := e.log.openPayload(h, body); err != nil {
				return nil, err
			}
			continue
		default:
			e.log.moveTo(h)
		}
		switch {
		case !e.at.before(e.log.at): // what the server sends before the place that was asked for
			continue
		case isGTID(h.Type) && e.at.before(e.log.behind(h)): // rows of others must never be taken for its own
			return nil, fmt.Errorf("%w: the transaction that was prepared at %s does not end before the next one, at %s", binlog.ErrFormat, e.at, e.log.behind(h))
		case h.Type == binlog.XAPrepare:
			e.ended = true
			return endEvent, nil
		case !isOfRows(h.Type):
			continue
		}
		id, err := binlog.TableID(body)
		if err != nil {
			return nil, err
		}
		if e.tables[id] {
			return event, nil
		}
	}
}

// readAgainPatience is how long the server may take to send more of a transaction that it has.
const readAgainPatience = time.Minute

func (e *preparedEvents) close() { e.log.abandon() }

// abandon closes a stream that nobody knew of.
func (s *stream) abandon() {
	if s.payload != nil {
		s.payload.close()
	}
	s.s.broken = true // the server takes no farewell while it sends the log
	_ = s.s.close()   // it is of no use any more, whatever closing says
}

// openAt reads the log from a place on, beside the stream.
func (s *stream) openAt(ctx context.Context, at place) (*stream, error) {
	log := &stream{d: s.d, at: place{file: at.file}, opened: time.Now()}
	log.done.position = position{byFile: true, place: at}
	var err error
	if log.s, err = s.d.dialer.open(ctx); err != nil {
		return nil, err
	}
	if err := s.d.dump(ctx, log); err != nil {
		log.abandon()
		return nil, err
	}
	return log, nil
}

// findPrepared looks in the log for a transaction that was prepared before this stream began, from the newest file back.
func (s *stream) findPrepared(ctx context.Context, xid string) (*prepared, error) {
	var files [][]string
	err := s.d.conns.with(ctx, func(q *session) (err error) {
		files, err = q.texts(ctx, "SHOW BINARY LOGS")
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, f := range slices.Backward(files) {
		file := place{file: f[0], at: 4}
		if s.at.before(file) {
			continue
		}
		p, err := s.findIn(ctx, file, xid)
		if p != nil || err != nil {
			return p, err
		}
	}
	return nil, usererr.New(cdc.ErrPositionLost, "The log has the commit of a distributed transaction (XA %s, at %s), but not any more what it changed: that was prepared before the capture began, or stopped.", xid, s.at)
}

// findIn looks for it in one file: the last one of this name before the stream.
func (s *stream) findIn(ctx context.Context, file place, xid string) (*prepared, error) {
	log, err := s.openAt(ctx, file)
	if err != nil {
		return nil, err
	}
	defer log.abandon()
	log.tables, log.prepared = s.tables, map[string]*prepared{}
	var found *prepared
	for deadline := time.Now().Add(readAgainPatience); log.at.before(s.at) && log.at.file == file.file; {
		event, err := log.read(ctx, time.Now().Add(time.Second))
		if err != nil {
			return nil, err
		}
		if event == nil {
			if time.Now().After(deadline) {
				break // all of the file was read: what follows is in another one
			}
			continue
		}
		deadline = time.Now().Add(readAgainPatience)
		s.heard.Store(int64(time.Since(s.opened)))
		p, err := log.lookForPrepared(event)
		if err != nil {
			return nil, err
		}
		if p != nil && p.xid == xid {
			found = p
		}
	}
	return found, nil
}

// lookForPrepared takes an event of a log that is only searched; it gives a transaction whose first part ends.
func (s *stream) lookForPrepared(event []byte) (*prepared, error) {
	h, err := binlog.ParseHeader(event)
	if err != nil {
		return nil, err
	}
	body := event[binlog.HeaderSize:]
	switch {
	case h.Type == binlog.Rotate || h.Type == binlog.Heartbeat || h.Type == binlog.HeartbeatV2:
		return nil, s.rareEvent(h, body)
	case s.preparing != nil && isOfRows(h.Type):
		s.preparing.gone = true // they are read when they are needed
		s.moveTo(h)
		return nil, s.prepare(h, event)
	}
	if h.Type == binlog.TransactionPayload {
		return nil, s.openPayload(h, body)
	}
	s.moveTo(h)
	switch h.Type {
	case binlog.GTID, binlog.GTIDTagged, binlog.AnonymousGTID, binlog.MariaGTID:
		s.txn.from, s.preparing = s.behind(h), nil
		if h.Type != binlog.MariaGTID {
			return nil, nil //nolint:nilnil // not yet
		}
		g, err := binlog.ParseMariaGTID(body, h.ServerID)
		if g.Prepared {
			s.beginPrepared(g.XID)
		}
		return nil, err
	case binlog.Query:
		q, err := binlog.ParseQuery(body, false)
		if what, ok := strings.CutPrefix(string(q.Statement), "XA START "); ok {
			s.beginPrepared(strings.ToLower(what))
		}
		return nil, err
	case binlog.XAPrepare:
		p := s.preparing
		s.preparing = nil
		return p, nil
	default:
		return nil, nil //nolint:nilnil // nothing ends here
	}
}

// behind is the place of an event whose end the stream has reached.
func (s *stream) behind(h binlog.Header) place {
	return place{file: s.at.file, at: s.at.at - min(s.at.at, uint64(h.Size))}
}
