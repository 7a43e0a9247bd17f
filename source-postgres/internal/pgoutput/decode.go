// Package pgoutput parses the messages of Postgres's logical decoding plugin of that name, protocol versions 1 and 2. It is
// pure: bytes in, values out, no connection and no clock. Row messages are parsed without allocation, their values
// being slices of the message. Version 2 adds pieces of transactions that are still open: see [TakeXid].
//
// Format: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
//
//	Begin     B  final LSN u64 · commit time i64 · xid u32
//	Commit    C  flags u8 · commit LSN u64 · end LSN u64 · commit time i64
//	Relation  R  oid u32 · schema z · name z · identity u8 · n u16 · n × (flags u8 · name z · type u32 · modifier i32)
//	Insert    I  oid u32 · 'N' tuple
//	Update    U  oid u32 · ['K' tuple | 'O' tuple] · 'N' tuple
//	Delete    D  oid u32 · 'K' tuple | 'O' tuple
//	Truncate  T  n u32 · options u8 · n × oid u32
//	tuple        n u16 · n × ('n' | 'u' | 't' length u32 · text | 'b' length u32 · binary | 'x' length u64)
//
// The last kind of value is our own: it stands for a value that was too large to be kept.
package pgoutput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Kind is the first byte of a message.
type Kind byte

// The kinds of messages that both versions know.
const (
	KindBegin    Kind = 'B'
	KindCommit   Kind = 'C'
	KindRelation Kind = 'R'
	KindInsert   Kind = 'I'
	KindUpdate   Kind = 'U'
	KindDelete   Kind = 'D'
	KindTruncate Kind = 'T'
	KindType     Kind = 'Y' // the name of a type that is not built in; the catalog knows more
	KindOrigin   Kind = 'O' // where a replicated transaction came from
	KindMessage  Kind = 'M' // written by pg_logical_emit_message
)

// ErrShort means that a message ends before its own description of itself does.
var ErrShort = errors.New("message is too short")

// unchangedMark is the value that stands for "unchanged, and not repeated".
var unchangedMark = []byte{'u'} //nolint:gochecknoglobals // its address is its meaning

// Unchanged reports whether a value of a row is not in the message because it is stored out of line and was not
// changed.
func Unchanged(v []byte) bool { return len(v) == 1 && &v[0] == &unchangedMark[0] }

// tooLargeMark is the value that stands for one which was too large to be kept.
var tooLargeMark = []byte{'x'} //nolint:gochecknoglobals // its address is its meaning

// TooLarge reports whether a value of a row was too large to be kept.
func TooLarge(v []byte) bool { return len(v) == 1 && &v[0] == &tooLargeMark[0] }

// MarkTooLarge is a value for which TooLarge is true.
func MarkTooLarge() []byte { return tooLargeMark }

// Begin starts a transaction.
type Begin struct {
	FinalLSN   uint64 // of the commit record
	CommitTime int64  // microseconds since 2000-01-01 UTC
	Xid        uint32
}

// Commit ends a transaction.
type Commit struct {
	LSN        uint64 // of the commit record
	EndLSN     uint64 // just behind it: where reading can resume
	CommitTime int64  // microseconds since 2000-01-01 UTC
}

// Column is one column of a Relation.
type Column struct {
	Name     string
	Key      bool // part of the replica identity
	Type     uint32
	Modifier int32
}

// Relation describes a table as the following row messages mean it.
type Relation struct {
	ID       uint32
	Schema   string
	Name     string
	Identity byte // relreplident: 'd'efault, 'n'othing, 'f'ull, 'i'ndex
	Columns  []Column
}

// Row is an insert, update or delete. Its values are slices of the message that was parsed: nil is SQL's null, and see
// Unchanged.
type Row struct {
	Relation uint32
	// Before is 'K' if Old holds the old key, 'O' if it holds the whole old row, 0 if there is none.
	Before byte
	Old    [][]byte
	New    [][]byte // empty for a delete
	// Large are the values that are TooLarge.
	Large []Large
}

// Large is a value that was too large to be kept.
type Large struct {
	Old    bool // of the old row
	Column int
	Bytes  int64 // as text
}

// Truncate empties tables.
type Truncate struct {
	Cascade, RestartIdentity bool
	Relations                []uint32
}

// ParseBegin parses a message of KindBegin.
func ParseBegin(m []byte) (Begin, error) {
	if len(m) < 21 {
		return Begin{}, fmt.Errorf("parsing begin: %w", ErrShort)
	}
	return Begin{
		FinalLSN:   binary.BigEndian.Uint64(m[1:]),
		CommitTime: int64(binary.BigEndian.Uint64(m[9:])),
		Xid:        binary.BigEndian.Uint32(m[17:]),
	}, nil
}

// ParseCommit parses a message of KindCommit.
func ParseCommit(m []byte) (Commit, error) {
	if len(m) < 26 {
		return Commit{}, fmt.Errorf("parsing commit: %w", ErrShort)
	}
	return Commit{
		LSN:        binary.BigEndian.Uint64(m[2:]),
		EndLSN:     binary.BigEndian.Uint64(m[10:]),
		CommitTime: int64(binary.BigEndian.Uint64(m[18:])),
	}, nil
}

// ParseRelation parses a message of KindRelation. The result shares nothing with the message.
func ParseRelation(m []byte) (*Relation, error) {
	p := parser{rest: m[1:]}
	r := &Relation{ID: p.uint32(), Schema: p.text(), Name: p.text(), Identity: p.byte()}
	n := int(p.uint16())
	for range n {
		if p.short {
			break
		}
		c := Column{Key: p.byte()&1 != 0, Name: p.text(), Type: p.uint32()}
		c.Modifier = int32(p.uint32())
		r.Columns = append(r.Columns, c)
	}
	if p.short {
		return nil, fmt.Errorf("parsing relation: %w", ErrShort)
	}
	return r, nil
}

// RelationOf is the table that a row message belongs to, from its first five bytes; ok is false if the message is no row
// message.
func RelationOf(m []byte) (id uint32, ok bool) {
	if len(m) < 5 {
		return 0, false
	}
	switch Kind(m[0]) {
	case KindInsert, KindUpdate, KindDelete:
		return binary.BigEndian.Uint32(m[1:]), true
	default:
		return 0, false
	}
}

// Parse parses a message of KindInsert, KindUpdate or KindDelete into r, reusing its slices.
func (r *Row) Parse(m []byte) error {
	id, ok := RelationOf(m)
	if !ok {
		return fmt.Errorf("parsing row: %w", ErrShort)
	}
	r.Relation, r.Before, r.Old, r.New, r.Large = id, 0, r.Old[:0], r.New[:0], r.Large[:0]
	kind, rest := Kind(m[0]), m[5:]
	if len(rest) == 0 {
		return fmt.Errorf("parsing row: %w", ErrShort)
	}
	var err error
	tag := rest[0]
	if kind != KindInsert && (tag == 'K' || tag == 'O') {
		r.Before = tag
		if r.Old, rest, err = r.appendTuple(r.Old, rest[1:], true); err != nil {
			return err
		}
		if kind == KindDelete {
			return trailing(rest)
		}
		if len(rest) == 0 {
			return fmt.Errorf("parsing row: %w", ErrShort)
		}
		tag = rest[0]
	}
	if tag != 'N' || kind == KindDelete {
		return fmt.Errorf("parsing row: unexpected tuple %q in a message %q", tag, byte(kind))
	}
	if r.New, rest, err = r.appendTuple(r.New, rest[1:], false); err != nil {
		return err
	}
	return trailing(rest)
}

func trailing(rest []byte) error {
	if len(rest) > 0 {
		return fmt.Errorf("parsing row: %d bytes too many", len(rest))
	}
	return nil
}

// appendTuple appends the values of a tuple and returns what follows it. It is the hot path of streaming.
func (r *Row) appendTuple(vals [][]byte, m []byte, old bool) (_ [][]byte, rest []byte, err error) {
	if len(m) < 2 {
		return vals, nil, fmt.Errorf("parsing tuple: %w", ErrShort)
	}
	n := int(binary.BigEndian.Uint16(m))
	m = m[2:]
	for range n {
		if len(m) == 0 {
			return vals, nil, fmt.Errorf("parsing tuple: %w", ErrShort)
		}
		switch m[0] {
		case 't', 'b':
			if len(m) < 5 {
				return vals, nil, fmt.Errorf("parsing tuple: %w", ErrShort)
			}
			size := uint64(binary.BigEndian.Uint32(m[1:]))
			if uint64(len(m)-5) < size {
				return vals, nil, fmt.Errorf("parsing tuple: %w", ErrShort)
			}
			end := 5 + int(size)
			vals = append(vals, m[5:end:end])
			m = m[end:]
		case 'n':
			vals = append(vals, nil)
			m = m[1:]
		case 'u':
			vals = append(vals, unchangedMark)
			m = m[1:]
		case 'x':
			if len(m) < 9 {
				return vals, nil, fmt.Errorf("parsing tuple: %w", ErrShort)
			}
			r.Large = append(r.Large, Large{Old: old, Column: len(vals), Bytes: int64(binary.BigEndian.Uint64(m[1:]))}) //nolint:gosec // a message has 31 bits
			vals = append(vals, tooLargeMark)
			m = m[9:]
		default:
			return vals, nil, fmt.Errorf("parsing tuple: unknown kind of value %q", m[0])
		}
	}
	return vals, m, nil
}

// ParseTruncate parses a message of KindTruncate.
func ParseTruncate(m []byte) (Truncate, error) {
	p := parser{rest: m[1:]}
	n := int(p.uint32())
	options := p.byte()
	t := Truncate{Cascade: options&1 != 0, RestartIdentity: options&2 != 0}
	for range n {
		if p.short {
			break
		}
		t.Relations = append(t.Relations, p.uint32())
	}
	if p.short {
		return Truncate{}, fmt.Errorf("parsing truncate: %w", ErrShort)
	}
	return t, nil
}

// parser takes fields from the front of a message; once it runs short it gives zero values.
type parser struct {
	rest  []byte
	short bool
}

func (p *parser) take(n int) []byte {
	if len(p.rest) < n {
		p.rest, p.short = nil, true
		return make([]byte, 8)[:n]
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) byte() byte     { return p.take(1)[0] }
func (p *parser) uint16() uint16 { return binary.BigEndian.Uint16(p.take(2)) }
func (p *parser) uint32() uint32 { return binary.BigEndian.Uint32(p.take(4)) }

func (p *parser) text() string {
	i := bytes.IndexByte(p.rest, 0)
	if i < 0 {
		p.rest, p.short = nil, true
		return ""
	}
	s := string(p.rest[:i])
	p.rest = p.rest[i+1:]
	return s
}
