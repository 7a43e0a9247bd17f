package binlog

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

const (
	// maxInflated bounds what one compressed part of a log may become: the largest packet that a server allows.
	maxInflated = 1 << 30
	// maxValue bounds what one compressed value may become: more than a document may have.
	maxValue = 64 << 20
)

// Decompress undoes MariaDB's compression of one event's data. The result is new memory.
func Decompress(data []byte) ([]byte, error) { return inflate(data, maxInflated, "event") }

// inflate undoes MariaDB's compression: a byte says how, and how many bytes the length takes that follows.
func inflate(data []byte, most int, what string) ([]byte, error) {
	const zlibs, bare, lengths = 0x80, 8, 7
	c := cursor{b: data}
	head := c.byte()
	length := c.take(int(head & lengths))
	if c.failed || head&^(bare|lengths) != zlibs || len(length) == 0 || len(length) > 4 {
		return nil, fmt.Errorf("%w: a compressed %s that begins with %#x", ErrFormat, what, head)
	}
	size := 0
	for _, b := range length {
		size = size<<8 | int(b)
	}
	if size > most {
		return nil, fmt.Errorf("%w: a compressed %s of %d bytes", ErrFormat, what, size)
	}
	r, err := flate.NewReader(bytes.NewReader(c.b)), error(nil)
	if head&bare == 0 {
		r, err = zlib.NewReader(bytes.NewReader(c.b))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: decompressing a compressed %s: %w", ErrFormat, what, err)
	}
	var out bytes.Buffer
	if n, err := io.Copy(&out, io.LimitReader(r, int64(size)+1)); err != nil || n != int64(size) {
		return nil, fmt.Errorf("%w: a compressed %s has %d bytes instead of %d: %w", ErrFormat, what, n, size, errors.Join(err, r.Close()))
	}
	return out.Bytes(), r.Close()
}

// value is what a column holds, of what the log has of it. Values of MariaDB's compressed columns, of which those that are short
// are kept as they are, are new memory if they were compressed.
func (col *Column) value(logged []byte) ([]byte, error) {
	switch {
	case !col.Compressed || len(logged) == 0:
		return logged, nil
	case logged[0] == 0:
		return logged[1:], nil
	default:
		return inflate(logged, maxValue, "value")
	}
}

// Payload reads the events of a transaction that MySQL compressed as a whole (binlog_transaction_compression), one by one, so
// that only one of them is held. Close it when it is no longer needed.
type Payload struct {
	decoder *zstd.Decoder
	event   []byte
}

// OpenPayload begins to read the body of a transaction payload event. It keeps body.
func OpenPayload(body []byte) (*Payload, error) {
	c := cursor{b: body}
	compression := uint64(255)
	for {
		field := c.packed()
		if field == 0 || c.failed {
			break
		}
		value := cursor{b: c.packedBytes()}
		if field == 2 {
			compression = value.packed()
		}
	}
	switch {
	case c.failed:
		return nil, fmt.Errorf("%w: a transaction payload of %d bytes", ErrFormat, len(body))
	case compression == 255:
		return &Payload{event: c.b}, errors.New("the transaction's payload is not compressed, which no server writes")
	case compression != 0:
		return nil, fmt.Errorf("%w: compression %d", ErrFormat, compression)
	}
	decoder, err := zstd.NewReader(bytes.NewReader(c.b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(1<<27))
	if err != nil {
		return nil, fmt.Errorf("decompressing a transaction: %w", err)
	}
	return &Payload{decoder: decoder}, nil
}

// Next gives the next event, header included, without a checksum: those inside have none. It is valid until the next call.
// After the last one it returns io.EOF.
func (p *Payload) Next() ([]byte, error) {
	var head [HeaderSize]byte
	if n, err := io.ReadFull(p.decoder, head[:]); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("%w: decompressing a transaction: %w", ErrFormat, err)
	}
	size := int(binary.LittleEndian.Uint32(head[9:]))
	if size < HeaderSize || size > maxInflated {
		return nil, fmt.Errorf("%w: an event of %d bytes in a compressed transaction", ErrFormat, size)
	}
	p.event = append(p.event[:0], head[:]...)
	for len(p.event) < size { // in steps, so that nothing is taken for a size that is only claimed
		from := len(p.event)
		p.event = slices.Grow(p.event, min(size-from, 1<<20))[:min(size, from+1<<20)]
		if _, err := io.ReadFull(p.decoder, p.event[from:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // it is not the end of the transaction
			}
			return nil, fmt.Errorf("%w: an event of %d bytes in a compressed transaction ends early: %w", ErrFormat, size, err)
		}
	}
	return p.event, nil
}

// Close frees the decoder.
func (p *Payload) Close() { p.decoder.Close() }
