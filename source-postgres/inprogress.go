package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/source-postgres/internal/pgoutput"
)

// From Postgres 14 on a server sends pieces of large transactions before they end (pgoutput, protocol 2). Nothing of them is
// delivered before their commit, and then they are delivered as if they had come with it:
//
//	pieces   S 7 … E   S 8 … E   B … C   S 7 … E   A 7/9   S 7 … E   c 7   A 8
//	kept     7         7 8       7 8     7 8       7 8     7 8         8
//	delivered                    B … C                             7, but not what its subtransaction 9 did
//
// Why nothing is lost or repeated:
//
//   - What is kept is what came, byte for byte (keep), and it is read back by the same code that reads the connection (wire,
//     change), with the same limits for large rows. Only the identifier is taken out of each message.
//   - Nothing that is kept has moved a position: passed, cursor and fences know only of what was delivered. A keepalive between
//     pieces tells how far the server has read, and every commit before that place was sent before it. The commit of what is
//     kept lies behind it, so whoever resumes there is sent the whole transaction again (hard cases 4 and 5). That is also
//     why all that is kept may go when the stream ends.
//   - A transaction that is being delivered is open (stream.open), as others are: no fence is passed and no cursor is given
//     inside it, and nothing is read from the connection until its last change was taken.
//
// Descriptions of tables are kept like rows, since rows are decoded by the description that came before them in the same
// transaction. The server sends one to every such transaction, and again to one of which a subtransaction was rolled
// back, perhaps with the description. Later transactions are another matter: the server takes for sent what it has sent to
// anybody, as long as nothing has changed since. What it may rely on is therefore the description that came last, in a piece or
// not (latest), and that is in force again once the transaction is delivered (restore).
type inProgress struct {
	xid     uint32
	bytes   spooled
	aborted []uint32        // subtransactions that were rolled back
	ignored map[uint32]bool // tables that are not captured: their rows need not be kept
}

// beginPiece begins a piece of a transaction.
func (s *stream) beginPiece(m []byte) error {
	start, err := pgoutput.ParseStreamStart(m)
	if err != nil {
		return err
	}
	p := s.pieces[start.Xid]
	if s.spool == nil || s.open || start.First != (p == nil) {
		return fmt.Errorf("%w: a piece of transaction %d, which is %s", errFrame, start.Xid, map[bool]string{false: "known", true: "not known"}[p == nil])
	}
	if p == nil {
		p = &inProgress{xid: start.Xid}
		s.pieces[start.Xid] = p
		s.d.observe(fullXID(s.d.newest.Load(), start.Xid))
	}
	s.piece = p
	return nil
}

// keep takes one message of a piece, with its head of a message of replication.
func (s *stream) keep(body []byte) error {
	m := body[replicationHead:]
	switch kind := pgoutput.Kind(m[0]); kind {
	case pgoutput.KindStreamStop:
		s.piece = nil
		return nil
	case pgoutput.KindInsert, pgoutput.KindUpdate, pgoutput.KindDelete:
		if len(m) < 9 {
			return fmt.Errorf("%w: a change of %d bytes", errFrame, len(m))
		}
		if len(s.piece.ignored) > 0 && s.piece.ignored[binary.BigEndian.Uint32(m[5:])] {
			return nil
		}
		return s.keepMessage(body)
	case pgoutput.KindTruncate:
		return s.keepMessage(body)
	case pgoutput.KindRelation:
		if err := s.keepMessage(body); err != nil {
			return err
		}
		return s.keepDescription(m)
	case pgoutput.KindType, pgoutput.KindOrigin, pgoutput.KindMessage:
		return nil // as in change
	default:
		return fmt.Errorf("%w: message %q in a piece of transaction %d", errFrame, byte(kind), s.piece.xid)
	}
}

// replicationHead is the length of what comes before a message of pgoutput: 'w', two positions, a time.
const replicationHead = 25

// keepMessage keeps a message as it was on the connection.
func (s *stream) keepMessage(body []byte) error {
	var head [5]byte
	head[0] = 'd'
	binary.BigEndian.PutUint32(head[1:], uint32(len(body)+4)) //nolint:gosec // a message has 31 bits
	if err := s.spool.append(&s.piece.bytes, head[:]); err != nil {
		return err
	}
	return s.spool.append(&s.piece.bytes, body)
}

// keepDescription notes what a description in a piece says for other messages. It changes m.
func (s *stream) keepDescription(m []byte) error {
	_, plain, err := pgoutput.TakeXid(m)
	if err != nil {
		return err
	}
	r, err := pgoutput.ParseRelation(plain)
	if err != nil {
		return err
	}
	s.noteDescription(plain)
	if s.tables[cdc.TableID{Schema: r.Schema, Name: r.Name}] != nil {
		delete(s.piece.ignored, r.ID)
		return nil
	}
	if s.piece.ignored == nil {
		s.piece.ignored = map[uint32]bool{}
	}
	s.piece.ignored[r.ID] = true
	return nil
}

// noteDescription keeps the description of a table that came last.
func (s *stream) noteDescription(m []byte) {
	if len(m) < 5 || s.spool == nil {
		return
	}
	if id := binary.BigEndian.Uint32(m[1:]); !bytes.Equal(s.latest[id], m) {
		s.latest[id] = bytes.Clone(m)
	}
}

// large takes in a change that is too large for memory: one of a transaction in progress as it is, others reduced.
func (s *stream) large(_ byte, size int) (taker, error) {
	if s.piece != nil {
		return &keeper{s: s, left: size}, nil
	}
	return s.reducer(size), nil
}

// A keeper keeps a message of a piece that is too large to be held. It implements taker.
type keeper struct {
	s     *stream
	begun bool
	left  int
}

func (k *keeper) take(p []byte) (int, error) {
	if !k.begun && len(p) > 0 && p[0] != 'd' {
		return 0, errNoRow
	}
	k.begun = true
	n := min(k.left, len(p))
	k.left -= n
	return n, k.s.spool.append(&k.s.piece.bytes, p[:n])
}

func (k *keeper) rest() ([]byte, bool) { return nil, k.left == 0 }

// abort handles the end of a transaction, or subtransaction, that was rolled back. The server also says that of one of which
// it has sent nothing.
func (s *stream) abort(m []byte) error {
	a, err := pgoutput.ParseStreamAbort(m)
	if err != nil {
		return err
	}
	p := s.pieces[a.Xid]
	switch {
	case p == nil:
	case a.Xid == a.Subxid:
		delete(s.pieces, a.Xid)
		s.spool.drop(&p.bytes)
	default:
		p.aborted = append(p.aborted, a.Subxid)
	}
	return nil
}

// A redelivery delivers what was kept of a transaction that has committed.
type redelivery struct {
	*inProgress
	commit pgoutput.Commit
	reader *spoolReader
	// In force are the descriptions that have been handled, by the table's number in the log.
	inForce map[uint32][]byte
}

// commitPieces handles the commit of a transaction that came in pieces.
func (s *stream) commitPieces(ctx context.Context, m []byte) (*cdc.Event, error) {
	c, err := pgoutput.ParseStreamCommit(m)
	if err != nil {
		return nil, err
	}
	p := s.pieces[c.Xid]
	if p == nil || s.open {
		return nil, fmt.Errorf("%w: the commit of transaction %d, of which no piece came", errFrame, c.Xid)
	}
	delete(s.pieces, c.Xid)
	slices.Sort(p.aborted)
	s.kept = &redelivery{inProgress: p, commit: c.Commit, reader: s.spool.read(&p.bytes), inForce: map[uint32][]byte{}}
	if s.again == nil {
		s.again = newWire(nil, s.d.maxRow, func(_ byte, size int) (taker, error) {
			r := s.reducer(size)
			r.xid = true
			return r, nil
		})
	}
	s.again.conn = s.kept.reader
	s.deliver(pgoutput.Begin{FinalLSN: c.LSN, CommitTime: c.CommitTime, Xid: c.Xid})
	return s.redeliver(ctx)
}

// redeliver gives the next event of the transaction at hand, in the end its commit.
func (s *stream) redeliver(ctx context.Context) (*cdc.Event, error) {
	k := s.kept
	for {
		_, body, ok := s.again.next()
		if ok {
			ev, err := s.redeliverMessage(ctx, body)
			if ev != nil || err != nil {
				return ev, err
			}
			continue
		}
		if k.reader.left == 0 {
			break
		}
		if err := s.over(ctx); err != nil {
			return nil, err
		}
		s.heard.Store(int64(time.Since(s.opened))) // it is us who do not listen
		if _, err := s.again.read(); err != nil {
			return nil, err
		}
	}
	if s.again.r != s.again.w || s.again.big != nil {
		return nil, fmt.Errorf("%w: what was kept of transaction %d ends within a message", errFrame, k.xid)
	}
	if ev, err := s.restore(ctx); ev != nil || err != nil {
		return ev, err
	}
	s.spool.drop(&k.bytes)
	s.kept = nil
	return s.delivered(k.commit), nil
}

// redeliverMessage handles one message that was kept, as if it came now.
func (s *stream) redeliverMessage(ctx context.Context, body []byte) (*cdc.Event, error) {
	s.lsn = lsn(binary.BigEndian.Uint64(body[1:]))
	xid, m, err := pgoutput.TakeXid(body[replicationHead:])
	if err != nil {
		return nil, err
	}
	if len(s.kept.aborted) > 0 {
		if _, rolledBack := slices.BinarySearch(s.kept.aborted, xid); rolledBack {
			return nil, nil //nolint:nilnil // it never happened
		}
	}
	if pgoutput.Kind(m[0]) != pgoutput.KindRelation {
		return s.change(ctx, m)
	}
	if len(m) < 5 {
		return nil, fmt.Errorf("%w: a description of %d bytes", errFrame, len(m))
	}
	// The same again means nothing new: all of them were sent before the commit, and the first look at the catalog came after it.
	id := binary.BigEndian.Uint32(m[1:])
	if bytes.Equal(s.kept.inForce[id], m) {
		return nil, nil //nolint:nilnil // see above
	}
	s.kept.inForce[id] = bytes.Clone(m)
	if s.inForce(id, m) {
		return nil, nil //nolint:nilnil // nor does what the transaction before said
	}
	return s.relation(ctx, m)
}

// restore puts the descriptions in force that came last, where those of the transaction at hand are older. (Its events still
// belong to the transaction.)
func (s *stream) restore(ctx context.Context) (*cdc.Event, error) {
	for id, m := range s.kept.inForce {
		delete(s.kept.inForce, id)
		if latest := s.latest[id]; !bytes.Equal(latest, m) {
			ev, err := s.relation(ctx, latest)
			if ev != nil || err != nil {
				return ev, err
			}
		}
	}
	return nil, nil //nolint:nilnil // nothing has changed
}
