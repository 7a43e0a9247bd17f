package capturepb

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/protocol/internal/rawjson"
	"github.com/sluicedata/sluice/protocol/internal/wire"
)

// Numbers of the fields that the functions of this file write and read; a test compares them with the descriptors.
const (
	fieldCaptured        = 6 // of Response
	fieldCapturedBinding = 1
	fieldCapturedDoc     = 2
)

// guessedDocSize is the document's size in bytes that AppendCaptured leaves room for in the header: any of 128 to 16383
// bytes fits. The move after a wrong guess is short for smaller documents, and next to nothing beside the encoding
// of larger ones.
const guessedDocSize = 1 << 10

var errShrunk = errors.New("encoding a document: the encoder returned less than it was given")

// AppendCaptured appends a framed Response with Captured, whose document enc appends in place behind the header.
// It does not allocate when dst has room. The bytes are those that frame.Append would append. If enc fails, dst comes back as
// it was, with enc's error.
func AppendCaptured(dst []byte, c frame.Codec, binding uint32, enc func(dst []byte) ([]byte, error)) ([]byte, error) {
	if c == frame.JSON {
		return appendCapturedJSON(dst, binding, enc)
	}
	start := len(dst)
	dst = appendCapturedHead(dst, binding, guessedDocSize)
	guessed := len(dst)
	out, err := enc(dst)
	if err != nil {
		return dst[:start], err
	}
	size := len(out) - guessed
	switch {
	case size < 0:
		return dst[:start], errShrunk
	case size == 0:
		return AppendCapturedDoc(out[:start], c, binding, nil), nil
	case size > math.MaxUint32-64:
		return dst[:start], fmt.Errorf("encoding a document: %d bytes are more than a frame can hold (4 GiB)", size)
	}
	if head := start + capturedHeadSize(binding, size); head != guessed {
		for range head - guessed {
			out = append(out, 0)
		}
		copy(out[head:], out[guessed:guessed+size])
		out = out[:head+size]
	}
	appendCapturedHead(out[:start], binding, size) // in place: it fills exactly what was left free
	return out, nil
}

// AppendCapturedDoc is AppendCaptured for a document, shorter than 4 GiB, that is encoded already.
func AppendCapturedDoc(dst []byte, c frame.Codec, binding uint32, doc []byte) []byte {
	if c == frame.JSON {
		o := wire.OpenObject(dst, `"captured"`)
		o.Uint(`"binding"`, binding)
		o.Raw(`"doc"`, doc)
		return o.Close()
	}
	return append(appendCapturedHead(dst, binding, len(doc)), doc...)
}

// appendCapturedHead appends all that stands in front of a document of size bytes.
func appendCapturedHead(dst []byte, binding uint32, size int) []byte {
	dst = wire.AppendFrameHead(dst, fieldCaptured, wire.SizeUint(binding)+wire.SizeBytes(size))
	dst = wire.AppendUint(dst, fieldCapturedBinding, binding)
	if size == 0 {
		return dst
	}
	return protowire.AppendVarint(append(dst, wire.BytesTag(fieldCapturedDoc)), uint64(size))
}

func capturedHeadSize(binding uint32, size int) int {
	inner := wire.SizeUint(binding) + wire.SizeBytes(size)
	return wire.FrameSize + 1 + protowire.SizeVarint(uint64(inner)) + inner - size
}

func appendCapturedJSON(dst []byte, binding uint32, enc func(dst []byte) ([]byte, error)) ([]byte, error) {
	o := wire.OpenObject(dst, `"captured"`)
	o.Uint(`"binding"`, binding)
	o.Name(`"doc"`)
	from := len(o.Dst)
	out, err := enc(o.Dst)
	switch {
	case err != nil:
		return dst, err
	case len(out) < from:
		return dst, errShrunk
	case len(out) == from:
		return AppendCapturedDoc(out[:len(dst)], frame.JSON, binding, nil), nil
	}
	o.Dst = rawjson.FixLine(out, from)
	return o.Close(), nil
}

// ParseCaptured reads the body of a Response with Captured into m, without allocating. m.DocJson aliases body.
//
// False means that body is something else, or is written in a way which only Codec.Unmarshal knows, or is not valid;
// m's fields are unspecified then, and body is unchanged. The JSON codec's document is checked to be JSON, the proto codec's is not.
func ParseCaptured(c frame.Codec, body []byte, m *Response_Captured) bool {
	m.Binding, m.DocJson, m.unknownFields = 0, nil, nil
	if c == frame.JSON {
		return parseCapturedJSON(body, m)
	}
	b, ok := wire.Inner(body, fieldCaptured)
	for ok && len(b) > 0 {
		switch tag := b[0]; tag {
		case wire.VarintTag(fieldCapturedBinding):
			m.Binding, b, ok = wire.Uint(b[1:])
		case wire.BytesTag(fieldCapturedDoc):
			m.DocJson, b, ok = wire.Bytes(b[1:])
		default:
			return false
		}
	}
	return ok
}

func parseCapturedJSON(body []byte, m *Response_Captured) bool {
	s := rawjson.NewScanner(body)
	ok := s.Enter("captured")
	for first := true; ok; first = false {
		var key []byte
		if key, ok = s.Member(first); !ok {
			return false
		}
		switch string(key) {
		case "binding":
			m.Binding, ok = s.Uint32()
		case "doc":
			m.DocJson, ok = s.Raw()
		default:
			return key == nil && s.Leave()
		}
	}
	return false
}
