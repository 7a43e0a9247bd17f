package binlog

import (
	"encoding/binary"
	"fmt"
	"time"
)

// MySQLGTID is what a GTID event says.
type MySQLGTID struct {
	UUID     [16]byte
	Tag      string // that a session chose; mostly empty
	Number   int64
	Commit   time.Time // when the transaction committed on this server; zero if the log does not say
	Original time.Time // when it committed where it was made
}

// ParseGTID reads the body of a GTID event.
func ParseGTID(body []byte) (MySQLGTID, error) {
	var g MySQLGTID
	if len(body) < 25 {
		return g, fmt.Errorf("%w: a GTID event of %d bytes", ErrFormat, len(body))
	}
	copy(g.UUID[:], body[1:])
	g.Number = int64(binary.LittleEndian.Uint64(body[17:])) //nolint:gosec // the server's are positive
	// Behind a type byte and two logical clocks: the commit's times, since 8.0.1. The upper bit of the first says whether there
	// is a second one.
	if len(body) < 42+7 || body[25] != 2 {
		return g, nil
	}
	micros := uint64(0)
	for i, b := range body[42:49] {
		micros |= uint64(b) << (8 * i)
	}
	original := micros &^ (1 << 55)
	if micros&(1<<55) != 0 && len(body) >= 56 {
		original = 0
		for i, b := range body[49:56] {
			original |= uint64(b) << (8 * i)
		}
	}
	g.Commit, g.Original = time.UnixMicro(int64(micros&^(1<<55))), time.UnixMicro(int64(original)) //nolint:gosec // 55 bits
	return g, nil
}

// ParseTaggedGTID reads the body of a GTID event with a tag. It is a message: a version, its length, the last field that matters,
// then fields behind their numbers, all of them numbers of variable length.
func ParseTaggedGTID(body []byte) (MySQLGTID, error) {
	var g MySQLGTID
	c := cursor{b: body}
	version := c.varint()
	c.varint() // the length
	c.varint() // the last field that must not be passed over
	for field := uint64(0); field <= 7 && len(c.b) > 0 && !c.failed; field++ {
		if uint64(c.b[0]>>1) != field {
			continue // left out
		}
		c.skip(1)
		switch field {
		case 1:
			for i := range g.UUID {
				g.UUID[i] = byte(c.varint()) //nolint:gosec // a byte
			}
		case 2:
			g.Number = int64(c.varint() >> 1) //nolint:gosec // the lowest bit is the sign, and the server's are positive
		case 3:
			g.Tag = string(c.take(int(c.varint()))) //nolint:gosec // take checks it
		case 6:
			g.Commit = time.UnixMicro(int64(c.varint())) //nolint:gosec // a time
			g.Original = g.Commit
		case 7:
			g.Original = time.UnixMicro(int64(c.varint())) //nolint:gosec // a time
		default:
			c.varint()
		}
	}
	if c.failed || version != 0 && version != 1 || g.Number <= 0 {
		return g, fmt.Errorf("%w: a GTID event with a tag, of %d bytes", ErrFormat, len(body))
	}
	return g, nil
}

// MariaDBGTID is what MariaDB's GTID event says.
type MariaDBGTID struct {
	Domain, Server uint32
	Sequence       uint64
	// Standalone says that no commit follows: the transaction is the one event behind this one.
	Standalone bool
	// Prepared and Completed say that the transaction is the first or the second half of a distributed one (XA).
	Prepared, Completed bool
	// XID is the name of the distributed transaction, as the server writes it in statements; empty for others.
	XID string
	// Halfway says that the transaction is the beginning, or the failure, of an ALTER TABLE that the server logs in two halves
	// (binlog_alter_two_phase): the table is not altered by it.
	Halfway bool
}

// The flags of MariaDB's GTID event.
const (
	mariaStandalone  = 1
	mariaGroupCommit = 2
	mariaPreparedXA  = 64
	mariaCompletedXA = 128
)

// ParseMariaGTID reads the body of MariaDB's GTID event; server is that of the event's header.
func ParseMariaGTID(body []byte, server uint32) (MariaDBGTID, error) {
	if len(body) < 13 {
		return MariaDBGTID{}, fmt.Errorf("%w: a GTID event of %d bytes", ErrFormat, len(body))
	}
	flags := body[12]
	xid, extra := mariaOptional(body, flags)
	return MariaDBGTID{
		Halfway: extra&(mariaStartAlter|mariaRollbackAlter) != 0, XID: xid,
		Sequence: binary.LittleEndian.Uint64(body), Domain: binary.LittleEndian.Uint32(body[8:]), Server: server,
		Standalone: flags&mariaStandalone != 0, Prepared: flags&mariaPreparedXA != 0, Completed: flags&mariaCompletedXA != 0,
	}, nil
}

// The extra flags of MariaDB's GTID event.
const (
	mariaStartAlter    = 2
	mariaRollbackAlter = 8
)

// mariaOptional reads the name of a distributed transaction and the extra flags, which stand behind one another and need not be there.
func mariaOptional(body []byte, flags byte) (xid string, extra byte) {
	at := 13
	if flags&mariaGroupCommit != 0 {
		at = 21
	}
	c := cursor{b: body}
	c.skip(at)
	if flags&(mariaPreparedXA|mariaCompletedXA) != 0 {
		format, n, m := c.uint(4), int(c.byte()), int(c.byte())
		xid = fmt.Sprintf("x'%x',x'%x',%d", c.take(n), c.take(m), format)
	}
	return xid, c.byte()
}
