package codec

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// How a record names its schema (Confluent's wire format, which all serializers speak):
//
//	| 0 | id, 4 bytes big-endian | [Protobuf: path of the message] | data       in front of the key or value
//	| 1 | GUID, 16 bytes         | [Protobuf: path of the message] |            in the header __key_schema_id or __value_schema_id
//	| 0 | id, 4 bytes big-endian | [Protobuf: path of the message] |            likewise
//
// A header wins: the key or value is then data alone.
const (
	magicID   = 0
	magicGUID = 1

	keyHeader   = "__key_schema_id"
	valueHeader = "__value_schema_id"
)

// frame is a record's key or value, and how it names its schema.
type frame struct {
	id   int    // -1 if it is named by a GUID or not at all
	guid []byte // aliases the record
	// path is where Protobuf's message path begins. It ends before data if inHeader, else data follows it.
	path     []byte
	data     []byte
	inHeader bool
}

func (f frame) framed() bool { return f.id >= 0 || f.guid != nil }

// body is the data of a frame whose message path has n bytes.
func (f frame) body(n int) []byte {
	if f.inHeader {
		return f.data
	}
	return f.data[n:]
}

// name is the schema for messages: "schema 7".
func (f frame) name() string {
	if f.guid != nil {
		return "schema " + formatGUID(f.guid)
	}
	return fmt.Sprintf("schema %d", f.id)
}

func formatGUID(b []byte) string {
	s := hex.EncodeToString(b)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// readFrame finds the schema that a record names; an unframed one has none. An error says why what looks like a name is
// none.
func readFrame(rec *kgo.Record, side Side, data []byte) (frame, error) {
	for i := range rec.Headers {
		h := &rec.Headers[i]
		if (side == Key && h.Key == keyHeader) || (side == Value && h.Key == valueHeader) {
			f, err := readName(h.Value)
			if err != nil {
				return f, fmt.Errorf("its header %s holds no schema id: %w", h.Key, err)
			}
			f.data, f.inHeader = data, true
			return f, nil
		}
	}
	if len(data) == 0 || data[0] != magicID {
		return frame{id: -1, data: data}, nil
	}
	f, err := readName(data)
	if err != nil {
		return f, fmt.Errorf("it begins with a zero byte, but no schema id follows: %w", err)
	}
	f.data = f.path
	return f, nil
}

// readName reads the name of a schema at the front of b.
func readName(b []byte) (frame, error) {
	f := frame{id: -1}
	switch {
	case len(b) == 0:
		return f, errors.New("it is empty")
	case b[0] == magicID && len(b) >= 5:
		// Registries give ids as signed numbers of 32 bits.
		id := binary.BigEndian.Uint32(b[1:])
		if id > 1<<31-1 {
			return f, fmt.Errorf("the number %d is too large", id)
		}
		f.id, f.path = int(id), b[5:]
		return f, nil
	case b[0] == magicGUID && len(b) >= 17:
		f.guid, f.path = b[1:17], b[17:]
		return f, nil
	case b[0] == magicID || b[0] == magicGUID:
		return f, fmt.Errorf("it has only %d bytes", len(b))
	default:
		return f, fmt.Errorf("the first byte is %d", b[0])
	}
}
