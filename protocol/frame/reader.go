package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

const (
	// DefaultMaxSize bounds a message when NewReader is given no bound. Requests carry the schemas of all
	// of a task's collections and have no bound of their own in the protocol.
	DefaultMaxSize = 1 << 30

	readerSize = 64 << 10 // of the buffer, as long as no message needs a larger one
	shrinkWhen = 1 << 20  // a buffer larger than this is given back
	shrinkWait = 256      // after so many messages in a row that would have fitted into readerSize
)

// Reader takes a stream apart into messages. It is for one goroutine at a time.
//
//	buf  ┌──────────┬─────────────────────────┬───────┐
//	     │  taken   │ arrived, not yet taken  │ free  │
//	     └──────────┴─────────────────────────┴───────┘
//	                start                     end
type Reader struct {
	src        io.Reader
	codec      Codec
	maxSize    int
	buf        []byte
	start, end int
	searched   int   // JSON: buf[start:searched] holds no line break
	count      int   // messages returned so far
	offset     int64 // of buf[start] in the stream
	small      int   // messages in a row that would have fitted into readerSize
	err        error // sticky
}

// NewReader reads messages from src, at most maxSize bytes each (0 means DefaultMaxSize). Its memory follows
// the bytes that have arrived: a length that only claims to be large costs nothing.
func NewReader(src io.Reader, c Codec, maxSize int) *Reader {
	if maxSize <= 0 {
		maxSize = DefaultMaxSize
	}
	return &Reader{src: src, codec: c, maxSize: maxSize, buf: make([]byte, readerSize)}
}

// Next returns the next message's body without its framing. The slice aliases the reader's buffer, is valid until the
// next call, and may be changed by the caller.
//
// The error is io.EOF exactly if the stream ends between two messages. A stream that ends inside one wraps
// io.ErrUnexpectedEOF. Bytes that cannot be a frame are named with their position and shown as text, since
// mostly they are something that a program printed to stdout by mistake. After an error, every call returns it again.
func (r *Reader) Next() ([]byte, error) {
	for r.err == nil {
		body, ok, err := r.take()
		if ok {
			r.count++
			return body, nil
		}
		if err == nil {
			err = r.fill()
		}
		r.err = err
	}
	return nil, r.err
}

// Read is Next and Unmarshal. A message that cannot be decoded does not end the stream: the next call goes on behind it.
func (r *Reader) Read(m proto.Message) error {
	body, err := r.Next()
	if err != nil {
		return err
	}
	if err := r.codec.Unmarshal(body, m); err != nil {
		return fmt.Errorf("message %d: %w", r.count, err)
	}
	return nil
}

// Buffered tells whether Next would return without reading from the source.
func (r *Reader) Buffered() bool {
	if r.err != nil {
		return true
	}
	if r.codec == JSON {
		r.skipBlank()
		return r.lineBreak() >= 0
	}
	waiting := r.buf[r.start:r.end]
	return len(waiting) >= headerSize && uint64(len(waiting)-headerSize) >= uint64(binary.LittleEndian.Uint32(waiting))
}

// More reads from the source once, for who knows that it has something and wants to know whether that makes a message: see Buffered. An error is
// returned by Next. What Next has returned is not valid any more.
func (r *Reader) More() {
	if r.err == nil {
		r.err = r.fill()
	}
}

// take returns a whole message from the buffer, or false if more bytes are needed.
func (r *Reader) take() (body []byte, ok bool, err error) {
	if r.codec == JSON {
		return r.takeLine()
	}
	return r.takeFrame()
}

func (r *Reader) takeFrame() ([]byte, bool, error) {
	waiting := r.buf[r.start:r.end]
	if len(waiting) < headerSize {
		return nil, false, nil
	}
	size := uint64(binary.LittleEndian.Uint32(waiting))
	if isText(waiting) || size > uint64(r.maxSize) && printable(waiting[:headerSize]) {
		return nil, false, r.notAFrame(waiting)
	}
	if size > uint64(r.maxSize) {
		return nil, false, fmt.Errorf("message %d at byte %d claims %d bytes, the limit is %d; it begins %s",
			r.count+1, r.offset, size, r.maxSize, excerpt(waiting))
	}
	whole := headerSize + int(size)
	if len(waiting) < whole {
		return nil, false, nil
	}
	r.consume(whole)
	return waiting[headerSize:whole:whole], true, nil
}

func (r *Reader) takeLine() ([]byte, bool, error) {
	r.skipBlank()
	if r.start == r.end {
		return nil, false, nil
	}
	waiting := r.buf[r.start:r.end]
	if waiting[0] != '{' {
		return nil, false, fmt.Errorf("message %d at byte %d is not a JSON object: it begins %s; %s",
			r.count+1, r.offset, excerpt(waiting), strayHint)
	}
	n := r.lineBreak()
	if n > r.maxSize || n < 0 && len(waiting) > r.maxSize {
		return nil, false, fmt.Errorf("message %d at byte %d is longer than the limit of %d bytes; it begins %s",
			r.count+1, r.offset, r.maxSize, excerpt(waiting))
	}
	if n < 0 {
		return nil, false, nil
	}
	r.consume(n + 1)
	return waiting[:n:n], true, nil
}

// skipBlank drops the white space in front of a line: blank lines are not messages.
func (r *Reader) skipBlank() {
	n := r.start
	for n < r.end && (r.buf[n] == '\n' || r.buf[n] == '\r' || r.buf[n] == ' ' || r.buf[n] == '\t') {
		n++
	}
	r.offset += int64(n - r.start)
	r.start = n
	r.searched = max(r.searched, n)
}

// lineBreak is the place of the first line break behind start, or -1. It never looks at a byte twice.
func (r *Reader) lineBreak() int {
	i := bytes.IndexByte(r.buf[r.searched:r.end], '\n')
	if i < 0 {
		r.searched = r.end
		return -1
	}
	r.searched += i
	return r.searched - r.start
}

func (r *Reader) consume(n int) {
	r.start += n
	r.offset += int64(n)
	r.searched = r.start
	if n > readerSize {
		r.small = 0
	} else if r.small < shrinkWait {
		r.small++
	}
}

// fill reads once, and makes room first if there is none.
func (r *Reader) fill() error {
	r.makeRoom()
	for range 100 { // as bufio does: a source that returns nothing, again and again, is broken
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if n > 0 {
			return nil // an error comes again with the next read
		}
		if errors.Is(err, io.EOF) {
			return r.atEOF()
		}
		if err != nil {
			return fmt.Errorf("reading message %d: %w", r.count+1, err)
		}
	}
	return fmt.Errorf("reading message %d: %w", r.count+1, io.ErrNoProgress)
}

// makeRoom moves the waiting bytes to the front when at least as many are in front of them, and doubles the buffer
// when they fill it: what is allocated is at most twice what has arrived.
func (r *Reader) makeRoom() {
	waiting := r.buf[r.start:r.end]
	switch {
	case len(r.buf) > shrinkWhen && r.small == shrinkWait && len(waiting) < readerSize:
		r.buf = make([]byte, readerSize)
	case r.start > 0 && r.start >= len(waiting):
	case r.end < len(r.buf):
		return
	default:
		r.buf = make([]byte, 2*len(r.buf))
	}
	copy(r.buf, waiting)
	r.searched -= r.start
	r.start, r.end = 0, len(waiting)
}

// atEOF is the error for a stream which ends here.
func (r *Reader) atEOF() error {
	waiting := r.buf[r.start:r.end]
	if len(waiting) == 0 {
		return io.EOF
	}
	where := fmt.Sprintf("message %d at byte %d", r.count+1, r.offset)
	if r.codec == JSON {
		return fmt.Errorf("%s ends after %d bytes without a line break; it begins %s: %w",
			where, len(waiting), excerpt(waiting), io.ErrUnexpectedEOF)
	}
	if len(waiting) < headerSize {
		return fmt.Errorf("%s ends inside its length: %d of 4 bytes, %s: %w",
			where, len(waiting), excerpt(waiting), io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%s ends after %d of %d bytes; it begins %s: %w", where, len(waiting)-headerSize,
		binary.LittleEndian.Uint32(waiting), excerpt(waiting), io.ErrUnexpectedEOF)
}
