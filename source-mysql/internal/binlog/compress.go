package binlog

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// maxInflated bounds what one compressed part of MariaDB's log may become: the largest packet that a server allows.
const maxInflated = 1 << 30

// Decompress undoes MariaDB's compression of one event's data. The result is new memory.
func Decompress(data []byte) ([]byte, error) {
	c := cursor{b: data}
	head := c.byte()
	length := c.take(int(head & 7))
	if c.failed || head&0xe0>>4 != 8 || len(length) == 0 || len(length) > 4 {
		return nil, fmt.Errorf("%w: a compressed event that begins with %#x", ErrFormat, head)
	}
	size := 0
	for _, b := range length {
		size = size<<8 | int(b)
	}
	if size > maxInflated {
		return nil, fmt.Errorf("%w: a compressed event of %d bytes", ErrFormat, size)
	}
	r, err := zlib.NewReader(bytes.NewReader(c.b))
	if err != nil {
		return nil, fmt.Errorf("decompressing an event: %w", err)
	}
	var out bytes.Buffer
	if n, err := io.Copy(&out, io.LimitReader(r, int64(size)+1)); err != nil || n != int64(size) {
		return nil, fmt.Errorf("%w: a compressed event has %d bytes instead of %d: %w", ErrFormat, n, size, errors.Join(err, r.Close()))
	}
	return out.Bytes(), r.Close()
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
	if _, err := io.ReadFull(p.decoder, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("decompressing a transaction: %w", err)
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
			return nil, fmt.Errorf("%w: an event of %d bytes in a compressed transaction ends early: %w", ErrFormat, size, err)
		}
	}
	return p.event, nil
}

// Close frees the decoder.
func (p *Payload) Close() { p.decoder.Close() }
