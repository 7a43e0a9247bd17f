package frame

import (
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

const (
	writeAt  = 64 << 10 // buffered bytes at which they are written through
	keepBuf  = 1 << 20  // a buffer that a message made larger than this is not kept
	startBuf = writeAt + 16<<10
)

// Writer puts messages into a stream, through a buffer. It is for one goroutine at a time.
//
// Nothing that waits for an answer may be left in the buffer: call Flush before waiting for the other side.
type Writer struct {
	dst   io.Writer
	codec Codec
	buf   []byte
	err   error // sticky: a frame may have been written in part
}

// NewWriter writes messages to dst.
func NewWriter(dst io.Writer, c Codec) *Writer {
	return &Writer{dst: dst, codec: c, buf: make([]byte, 0, startBuf)}
}

// Write adds m to the buffer, and writes the buffer through when it holds 64 KiB. A message that cannot be encoded
// leaves the stream as it was; after a failed write every call returns that error.
func (w *Writer) Write(m proto.Message) error {
	if w.err != nil {
		return w.err
	}
	out, err := Append(w.buf, w.codec, m)
	if err != nil {
		return err
	}
	return w.added(out)
}

// Append is Write for encoders that append: f gets the buffer and the codec and appends whole frames. If f fails,
// what it appended is dropped.
func (w *Writer) Append(f func(dst []byte, c Codec) ([]byte, error)) error {
	if w.err != nil {
		return w.err
	}
	out, err := f(w.buf, w.codec)
	if err != nil {
		return err
	}
	return w.added(out)
}

func (w *Writer) added(buf []byte) error {
	w.buf = buf
	if len(w.buf) < writeAt {
		return nil
	}
	return w.Flush()
}

// Flush writes what is in the buffer.
func (w *Writer) Flush() error {
	if w.err != nil || len(w.buf) == 0 {
		return w.err
	}
	if _, err := w.dst.Write(w.buf); err != nil {
		w.err = fmt.Errorf("writing messages: %w", err)
		return w.err
	}
	w.buf = w.buf[:0]
	if cap(w.buf) > keepBuf {
		w.buf = make([]byte, 0, startBuf)
	}
	return nil
}
