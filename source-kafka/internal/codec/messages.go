package codec

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/sluicedata/sluice/source-kafka/internal/codec/protobuf"
	"github.com/sluicedata/sluice/source-kafka/internal/registry"
)

// messages are the message types of a Protobuf schema that records were written as.
type messages struct {
	side  Side
	id    int
	file  *protobuf.File
	plans map[string]*messagePlan // by path, as it is in records
	first *messagePlan            // of the path that is one zero byte
}

type messagePlan struct {
	schema  *Schema
	decoder *protobuf.Decoder
}

func (c *Codec) protobuf(ctx context.Context, s *registry.Schema) (*plan, error) {
	file, err := compileProtobuf(ctx, s)
	if err != nil {
		return nil, err
	}
	return &plan{proto: &messages{side: c.opts.Side, id: s.ID, file: file, plans: map[string]*messagePlan{}}}, nil
}

// decoder finds the message type that a record names behind its schema, and what follows.
func (m *messages) decoder(f frame) (appender, *Schema, []byte, error) {
	if len(f.path) > 0 && f.path[0] == 0 && m.first != nil {
		return m.first.decoder.Append, m.first.schema, f.body(1), nil
	}
	path, n, err := messagePath(f.path)
	if err != nil {
		return nil, nil, nil, err
	}
	p := m.plans[string(f.path[:n])]
	if p == nil {
		d, err := m.file.Message(path)
		if err != nil {
			return nil, nil, nil, err
		}
		// A path can be written in two ways.
		for _, other := range m.plans {
			if other.schema.Name == d.Name() {
				p = other
			}
		}
		if p == nil {
			p = &messagePlan{schema: exact(m.side, m.id, d.Name(), d.Describe()), decoder: d}
		}
		m.plans[string(f.path[:n])] = p
		if n == 1 {
			m.first = p
		}
	}
	return p.decoder.Append, p.schema, f.body(n), nil
}

// maxNesting bounds how deep a message type may lie within others.
const maxNesting = 100

// messagePath reads the path of a message type: how many indexes there are, and each; a zero alone is the first message.
func messagePath(b []byte) (path []int, n int, err error) {
	errPath := errors.New("the number of its message type cannot be read")
	count, n := binary.Varint(b)
	if n <= 0 || count < 0 || count > maxNesting {
		return nil, 0, errPath
	}
	if count == 0 {
		return []int{0}, n, nil
	}
	for range count {
		i, size := binary.Varint(b[n:])
		if size <= 0 || i < 0 || i > 1<<20 {
			return nil, 0, errPath
		}
		path = append(path, int(i))
		n += size
	}
	return path, n, nil
}
