// Package binlog takes the events of MySQL's and MariaDB's binary log apart: pure functions over bytes, which allocate nothing for
// a row. The format is described at https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html
// and https://mariadb.com/kb/en/replication-protocol/.
package binlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"strconv"
)

// Type is the type of an event.
type Type byte

// The types of events that are told apart here.
const (
	Unknown            Type = 0
	Query              Type = 2
	Stop               Type = 3
	Rotate             Type = 4
	IntVar             Type = 5
	Rand               Type = 13
	UserVar            Type = 14
	FormatDescription  Type = 15
	XID                Type = 16
	AppendBlock        Type = 9
	DeleteFile         Type = 11
	BeginLoadQuery     Type = 17
	ExecuteLoadQuery   Type = 18
	TableMap           Type = 19
	WriteRowsV1        Type = 23
	UpdateRowsV1       Type = 24
	DeleteRowsV1       Type = 25
	Incident           Type = 26
	Heartbeat          Type = 27
	Ignorable          Type = 28
	RowsQuery          Type = 29
	WriteRows          Type = 30
	UpdateRows         Type = 31
	DeleteRows         Type = 32
	GTID               Type = 33
	AnonymousGTID      Type = 34
	PreviousGTIDs      Type = 35
	TransactionContext Type = 36
	ViewChange         Type = 37
	XAPrepare          Type = 38
	PartialUpdateRows  Type = 39
	TransactionPayload Type = 40
	HeartbeatV2        Type = 41
	GTIDTagged         Type = 42

	AnnotateRows         Type = 160
	Checkpoint           Type = 161
	MariaGTID            Type = 162
	MariaGTIDList        Type = 163
	StartEncryption      Type = 164
	QueryCompressed      Type = 165
	WriteRowsCompressed  Type = 166
	UpdateRowsCompressed Type = 167
	DeleteRowsCompressed Type = 168
)

var typeNames = map[Type]string{ //nolint:gochecknoglobals // a table
	Query: "QUERY", Stop: "STOP", Rotate: "ROTATE", IntVar: "INTVAR", Rand: "RAND", UserVar: "USER_VAR", FormatDescription: "FORMAT_DESCRIPTION",
	XID: "XID", BeginLoadQuery: "BEGIN_LOAD_QUERY", ExecuteLoadQuery: "EXECUTE_LOAD_QUERY", TableMap: "TABLE_MAP",
	WriteRowsV1: "WRITE_ROWS_V1", UpdateRowsV1: "UPDATE_ROWS_V1", DeleteRowsV1: "DELETE_ROWS_V1", Incident: "INCIDENT",
	WriteRows: "WRITE_ROWS", UpdateRows: "UPDATE_ROWS", DeleteRows: "DELETE_ROWS", GTID: "GTID", AnonymousGTID: "ANONYMOUS_GTID",
	XAPrepare: "XA_PREPARE", PartialUpdateRows: "PARTIAL_UPDATE_ROWS", TransactionPayload: "TRANSACTION_PAYLOAD", GTIDTagged: "GTID_TAGGED",
	MariaGTID: "GTID (MariaDB)",
}

// String is the type's name as the manuals have it.
func (t Type) String() string {
	if name := typeNames[t]; name != "" {
		return name + "_EVENT"
	}
	return "event of type " + strconv.Itoa(int(t))
}

// HeaderSize is the length of an event's header.
const HeaderSize = 19

// noSchemaFlag marks statements that the server makes by itself, and others that need no default schema.
const noSchemaFlag = 0x8

// ignorableFlag marks events that a reader which does not know them may pass over, by the server's own word.
const ignorableFlag = 0x80

// ErrFormat says that bytes are not what the format says. Every parser here may return it.
var ErrFormat = errors.New("the binary log is not of the expected form")

// Header is the header of an event.
type Header struct {
	Timestamp uint32 // seconds since 1970
	Type      Type
	ServerID  uint32
	Size      uint32 // of the whole event
	// End is where the next event begins in the log's file, modulo 2³². Zero in events that are made for the connection.
	End   uint32
	Flags uint16
}

// MayIgnore reports whether the server says that the event does not matter to those who do not know its type.
func (h Header) MayIgnore() bool { return h.Flags&ignorableFlag != 0 }

// NeedsNoSchema reports whether the server says that a statement has no use for its default schema.
func (h Header) NeedsNoSchema() bool { return h.Flags&noSchemaFlag != 0 }

// ParseHeader reads the header at the front of an event.
func ParseHeader(event []byte) (Header, error) {
	if len(event) < HeaderSize {
		return Header{}, fmt.Errorf("%w: an event of %d bytes", ErrFormat, len(event))
	}
	le := binary.LittleEndian
	h := Header{
		Timestamp: le.Uint32(event), Type: Type(event[4]), ServerID: le.Uint32(event[5:]), Size: le.Uint32(event[9:]),
		End: le.Uint32(event[13:]), Flags: le.Uint16(event[17:]),
	}
	return h, nil
}

// ErrChecksum says that an event was changed on its way.
var ErrChecksum = errors.New("an event's checksum is wrong")

// StripChecksum verifies the CRC-32 at the end of an event and gives the event without it.
func StripChecksum(event []byte) ([]byte, error) {
	n := len(event) - 4
	if n < HeaderSize {
		return nil, fmt.Errorf("%w: an event of %d bytes with a checksum", ErrFormat, len(event))
	}
	if crc32.ChecksumIEEE(event[:n]) != binary.LittleEndian.Uint32(event[n:]) {
		return nil, ErrChecksum
	}
	return event[:n], nil
}

// HasChecksums reads from a format description event, header included, whether the events of its log carry checksums. That
// event itself has the algorithm and a checksum at its end, whatever it says.
func HasChecksums(event []byte) (bool, error) {
	const shortest = HeaderSize + 2 + 50 + 4 + 1
	if len(event) < shortest+5 {
		return false, fmt.Errorf("%w: a format description of %d bytes", ErrFormat, len(event))
	}
	switch algorithm := event[len(event)-5]; algorithm {
	case 0:
		return false, nil
	case 1:
		return true, nil
	default:
		return false, fmt.Errorf("%w: checksum algorithm %d", ErrFormat, algorithm)
	}
}

// QueryEvent is a statement in the log.
type QueryEvent struct {
	Schema    []byte // the default schema
	Statement []byte
	ErrorCode uint16
	Strict    bool // the session's SQL mode is strict: values that do not fit are errors
}

// ParseQuery reads the body of a query event, which is compressed by MariaDB's log_bin_compress if compressed.
func ParseQuery(body []byte, compressed bool) (QueryEvent, error) {
	return parseQuery(body, compressed, 0)
}

// ParseLoadQuery reads the body of an execute load query event: LOAD DATA as a statement.
func ParseLoadQuery(body []byte) (QueryEvent, error) {
	const ofFile = 4 + 4 + 4 + 1 // its number, where its name begins and ends in the statement, what becomes of duplicates
	return parseQuery(body, false, ofFile)
}

func parseQuery(body []byte, compressed bool, more int) (QueryEvent, error) {
	c := cursor{b: body}
	c.skip(8) // thread, execution time
	schemaLength := int(c.byte())
	q := QueryEvent{ErrorCode: uint16(c.uint(2))} //nolint:gosec // two bytes
	variables := int(c.uint(2))
	c.skip(more)
	q.Strict = isStrict(c.take(variables))
	q.Schema = c.take(schemaLength)
	c.skip(1)
	if c.failed {
		return q, fmt.Errorf("%w: a query event of %d bytes", ErrFormat, len(body))
	}
	q.Statement = c.b
	var err error
	if compressed {
		q.Statement, err = Decompress(c.b)
	}
	return q, err
}

// isStrict looks for the SQL mode among a query's variables, the first two of which are flags and the mode.
func isStrict(variables []byte) bool {
	const flags, mode, strict = 0, 1, 1<<21 | 1<<22 // STRICT_TRANS_TABLES, STRICT_ALL_TABLES
	c := cursor{b: variables}
	code := c.byte()
	if code == flags {
		c.skip(4)
		code = c.byte()
	}
	return code == mode && c.uint(8)&strict != 0 && !c.failed
}

// ParseRotate reads the body of a rotate event: which file comes next, and where in it.
func ParseRotate(body []byte) (file string, position uint64, err error) {
	if len(body) < 9 {
		return "", 0, fmt.Errorf("%w: a rotate event of %d bytes", ErrFormat, len(body))
	}
	return string(body[8:]), binary.LittleEndian.Uint64(body), nil
}

// ParseHeartbeatV2 reads the body of a heartbeat of the second version: the file, and the place in it.
func ParseHeartbeatV2(body []byte) (file string, position uint64, err error) {
	c := cursor{b: body}
	for len(c.b) > 0 && !c.failed {
		field := c.packed()
		if field == 0 {
			break
		}
		value := c.take(int(c.packed())) //nolint:gosec // take checks it
		switch field {
		case 1:
			file = string(value)
		case 2:
			v := cursor{b: value}
			position = v.packed()
		default:
		}
	}
	if c.failed {
		return "", 0, fmt.Errorf("%w: a heartbeat of %d bytes", ErrFormat, len(body))
	}
	return file, position, nil
}

// cursor reads bytes one after the other. What is not there reads as zero, and failed says so afterwards.
type cursor struct {
	b      []byte
	failed bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.failed, c.b = true, nil
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) skip(n int) { c.take(n) }

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

// uint reads a little-endian number of n bytes.
func (c *cursor) uint(n int) uint64 {
	var v uint64
	for i, b := range c.take(n) {
		v |= uint64(b) << (8 * i)
	}
	return v
}

// packed reads a number of variable length.
func (c *cursor) packed() uint64 {
	switch first := c.byte(); first {
	case 0xfb, 0xff:
		c.failed = true
		return 0
	case 0xfc:
		return c.uint(2)
	case 0xfd:
		return c.uint(3)
	case 0xfe:
		return c.uint(8)
	default:
		return uint64(first)
	}
}

// packedBytes reads bytes behind their packed length.
func (c *cursor) packedBytes() []byte {
	n := c.packed()
	if n > uint64(len(c.b)) {
		c.failed = true
		return nil
	}
	return c.take(int(n))
}

// varint reads a number in the form of MySQL's serialised messages: as many bytes follow as the first one has ones at its end.
func (c *cursor) varint() uint64 {
	if len(c.b) == 0 {
		c.failed = true
		return 0
	}
	more := bits.TrailingZeros8(^c.b[0])
	raw := c.uint(min(more+1, 8))
	if more < 8 {
		return raw >> (more + 1)
	}
	return raw>>8 | uint64(c.byte())<<56
}
