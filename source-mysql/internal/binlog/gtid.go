package binlog

import (
	"encoding/binary"
	"fmt"
	"time"
)

// MySQLGTID is what a GTID event says.
type MySQLGTID struct {
	UUID     [16]byte
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

// MariaDBGTID is what MariaDB's GTID event says.
type MariaDBGTID struct {
	Domain, Server uint32
	Sequence       uint64
	// Standalone says that no commit follows: the transaction is the one event behind this one.
	Standalone bool
	// Prepared and Completed say that the transaction is the first or the second half of a distributed one (XA).
	Prepared, Completed bool
}

// The flags of MariaDB's GTID event.
const (
	mariaStandalone  = 1
	mariaPreparedXA  = 64
	mariaCompletedXA = 128
)

// ParseMariaGTID reads the body of MariaDB's GTID event; server is that of the event's header.
func ParseMariaGTID(body []byte, server uint32) (MariaDBGTID, error) {
	if len(body) < 13 {
		return MariaDBGTID{}, fmt.Errorf("%w: a GTID event of %d bytes", ErrFormat, len(body))
	}
	flags := body[12]
	return MariaDBGTID{
		Sequence: binary.LittleEndian.Uint64(body), Domain: binary.LittleEndian.Uint32(body[8:]), Server: server,
		Standalone: flags&mariaStandalone != 0, Prepared: flags&mariaPreparedXA != 0, Completed: flags&mariaCompletedXA != 0,
	}, nil
}
