package pgoutput

import (
	"encoding/binary"
	"fmt"
)

// With protocol version 2 the server may send what a transaction has done so far, piece by piece, before it is known whether
// it commits:
//
//	Stream Start   S  xid u32 · first u8
//	Stream Stop    E
//	Stream Commit  c  xid u32 · flags u8 · commit LSN u64 · end LSN u64 · commit time i64
//	Stream Abort   A  xid u32 · subxid u32
//
// Between Start and Stop stands one piece of one transaction; pieces of several may alternate, and other transactions may come
// between them whole. In a piece every message but Origin has the identifier of the transaction, or of the subtransaction,
// that it belongs to: a u32 just behind its kind.

// The kinds of messages that protocol version 2 adds.
const (
	KindStreamStart  Kind = 'S'
	KindStreamStop   Kind = 'E'
	KindStreamCommit Kind = 'c'
	KindStreamAbort  Kind = 'A'
)

// StreamStart begins a piece of a transaction.
type StreamStart struct {
	Xid   uint32
	First bool // nothing of it was sent before
}

// StreamCommit says that a transaction of which pieces were sent has committed.
type StreamCommit struct {
	Xid uint32
	Commit
}

// StreamAbort says that a transaction, or a subtransaction of it, was rolled back.
type StreamAbort struct {
	Xid    uint32
	Subxid uint32 // Xid, if it is the whole transaction
}

// ParseStreamStart parses a message of KindStreamStart.
func ParseStreamStart(m []byte) (StreamStart, error) {
	if len(m) < 6 {
		return StreamStart{}, fmt.Errorf("parsing stream start: %w", ErrShort)
	}
	return StreamStart{Xid: binary.BigEndian.Uint32(m[1:]), First: m[5] != 0}, nil
}

// ParseStreamCommit parses a message of KindStreamCommit.
func ParseStreamCommit(m []byte) (StreamCommit, error) {
	if len(m) < 30 {
		return StreamCommit{}, fmt.Errorf("parsing stream commit: %w", ErrShort)
	}
	c, err := ParseCommit(m[4:]) // what follows the identifier has the form of a commit
	return StreamCommit{Xid: binary.BigEndian.Uint32(m[1:]), Commit: c}, err
}

// ParseStreamAbort parses a message of KindStreamAbort.
func ParseStreamAbort(m []byte) (StreamAbort, error) {
	if len(m) < 9 {
		return StreamAbort{}, fmt.Errorf("parsing stream abort: %w", ErrShort)
	}
	return StreamAbort{Xid: binary.BigEndian.Uint32(m[1:]), Subxid: binary.BigEndian.Uint32(m[5:])}, nil
}

// TakeXid takes the identifier out of a message that was sent in a piece of a transaction. What remains is the message as
// version 1 has it; it lies in the memory of m, whose first bytes are overwritten.
func TakeXid(m []byte) (xid uint32, plain []byte, err error) {
	if len(m) < 5 {
		return 0, nil, fmt.Errorf("parsing a streamed message: %w", ErrShort)
	}
	xid = binary.BigEndian.Uint32(m[1:])
	m[4] = m[0]
	return xid, m[4:], nil
}
