package frame

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"
)

// Codec is one of the two ways in which messages are written to a stream. The zero value is Proto.
// The two sides agree on it before the process starts; it is never guessed from the bytes.
type Codec uint8

const (
	// Proto is four bytes of length, little-endian and unsigned, and then so many bytes of protobuf.
	Proto Codec = iota
	// JSON is one JSON object a line, ended by '\n'.
	JSON
)

const headerSize = 4 // of a Proto frame

// ParseCodec reads the name of a codec as it stands in SLUICE_CODEC or FLOW_RUNTIME_CODEC: "proto" or "json",
// and "" for the default, which is Proto.
func ParseCodec(name string) (Codec, error) {
	switch name {
	case "", "proto":
		return Proto, nil
	case "json":
		return JSON, nil
	}
	return 0, fmt.Errorf(`unknown codec %q: the choices are "proto" (the default) and "json"`, name)
}

// String is the name that ParseCodec reads.
func (c Codec) String() string {
	if c == JSON {
		return "json"
	}
	return "proto"
}

// AppendBody appends m without framing. Equal messages give equal bytes. It fails on strings that are not UTF-8
// and, with JSON, on raw JSON fields that do not hold JSON. On failure the appended part is not a message.
func (c Codec) AppendBody(dst []byte, m proto.Message) ([]byte, error) {
	if c == JSON {
		return appendJSON(dst, m.ProtoReflect())
	}
	out, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(dst, m)
	if err != nil {
		return dst, fmt.Errorf("encoding %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return out, nil
}

// Unmarshal replaces m by the message in body. m keeps no reference to body. Fields that this version does not
// know are dropped. What JSON is forgiven is listed in the package documentation.
func (c Codec) Unmarshal(body []byte, m proto.Message) error {
	if c == JSON {
		return unmarshalJSON(body, m)
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, m); err != nil {
		return fmt.Errorf("decoding %s of %d bytes, which begins %s: %w",
			m.ProtoReflect().Descriptor().Name(), len(body), cut("% x", body, 8), err)
	}
	return nil
}

// Append appends m as a whole frame. On failure it returns dst as it was.
func Append(dst []byte, c Codec, m proto.Message) ([]byte, error) {
	start := len(dst)
	if c == JSON {
		out, err := c.AppendBody(dst, m)
		if err != nil {
			return dst[:start], err
		}
		return append(out, '\n'), nil
	}
	out, err := c.AppendBody(append(dst, 0, 0, 0, 0), m)
	if err != nil {
		return dst[:start], err
	}
	size := len(out) - start - headerSize
	if size > math.MaxUint32 {
		return dst[:start], fmt.Errorf("encoding %s: %d bytes are more than a frame can hold (4 GiB)",
			m.ProtoReflect().Descriptor().Name(), size)
	}
	binary.LittleEndian.PutUint32(out[start:], uint32(size))
	return out, nil
}

// AppendBytes appends a body that is encoded already, as a whole frame. The body must be shorter than 4 GiB and,
// with JSON, must not hold a line break.
func AppendBytes(dst []byte, c Codec, body []byte) []byte {
	if c == JSON {
		return append(append(dst, body...), '\n')
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(body)))
	return append(dst, body...)
}
