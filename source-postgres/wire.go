package main

import (
	"encoding/binary"
	"errors"
	"io"
	"time"
)

// A wire reads the messages of a connection into a buffer of its own. A message is a byte of type, a length that counts itself,
// and a body: https://www.postgresql.org/docs/current/protocol-message-formats.html
type wire struct {
	conn io.Reader
	buf  []byte
	r, w int // what lies between is unread
	// A message beyond the limit is not held: somebody takes it in, piece by piece, and says what is left of it. If large gives
	// nobody, it is held after all; then it may be asked again.
	limit int
	large func(kind byte, size int) (taker, error)
	big   taker // of the message at hand
}

// taker takes in a message that is too large to be held.
type taker interface {
	// take takes in what belongs to the message, and returns how many bytes that is.
	take(p []byte) (int, error)
	// rest is what remains of the message, to be read in its place, possibly nothing; done is false before its end.
	rest() (m []byte, done bool)
}

const (
	// messageHead is a message's kind and length.
	messageHead = 5
	// wireBuffer is small enough for the processor's cache: what a read brought is decoded from there.
	wireBuffer = 128 << 10
)

// newWire reads conn; the limit counts a message's kind too.
func newWire(conn io.Reader, limit int, large func(kind byte, size int) (taker, error)) *wire {
	return &wire{conn: conn, buf: make([]byte, wireBuffer), limit: limit, large: large}
}

// next takes a whole message out of the buffer, without reading; ok is false if there is none. The body is valid until
// the next reading.
func (w *wire) next() (kind byte, body []byte, ok bool) {
	have := w.buf[w.r:w.w]
	if len(have) < 5 {
		return 0, nil, false
	}
	n := 1 + int(binary.BigEndian.Uint32(have[1:]))
	if len(have) < n {
		return 0, nil, false
	}
	w.r += n
	return have[0], have[5:n:n], true
}

var errFrame = errors.New("the server sent something that is not its protocol")

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// read reads more, as io.Reader does. What next gave before is not valid any more.
func (w *wire) read() (int, error) {
	if err := w.room(); err != nil {
		return 0, err
	}
	n, err := w.conn.Read(w.buf[w.w:])
	w.w += n
	if w.big != nil {
		if err := w.absorb(); err != nil {
			return 0, err
		}
	}
	return n, err
}

// room makes place for more bytes: it moves what is unread to the front, and grows the buffer for a message that does not
// fit. A buffer that had to grow is given up once it is empty.
func (w *wire) room() error {
	if w.r == w.w {
		w.r, w.w = 0, 0
		if len(w.buf) > wireBuffer {
			w.buf = make([]byte, wireBuffer)
		}
		return nil
	}
	need := 5
	if have := w.buf[w.r:w.w]; len(have) >= 5 {
		size := binary.BigEndian.Uint32(have[1:])
		if size < 4 || size > 1<<31-2 {
			return errFrame
		}
		need = 1 + int(size)
		if need > w.limit {
			if big, err := w.large(have[0], need); big != nil || err != nil {
				return w.giveAway(big, err)
			}
		}
	}
	if need <= len(w.buf) && len(w.buf)-w.w >= min(need, len(w.buf)/4) && w.r+need <= len(w.buf) {
		return nil
	}
	to := w.buf
	if need > len(to) {
		to = make([]byte, need+wireBuffer/4)
	}
	w.w = copy(to, w.buf[w.r:w.w])
	w.buf, w.r = to, 0
	return nil
}

// giveAway has somebody take in the message at the front of the buffer.
func (w *wire) giveAway(to taker, err error) error {
	if err != nil {
		return err
	}
	w.big = to
	err = w.absorb()
	w.r, w.w = 0, 0
	return err
}

// absorb gives what was read to the taker of a message that is too large. What remains of the message goes back into the
// buffer, before what follows it.
func (w *wire) absorb() error {
	n, err := w.big.take(w.buf[w.r:w.w])
	if w.r += n; err != nil {
		return err
	}
	to, done := w.big.rest()
	if !done {
		return nil
	}
	rest := w.buf[w.r:w.w]
	if need := len(to) + len(rest); cap(to) < max(need, wireBuffer) {
		to = append(make([]byte, 0, max(need, wireBuffer)), to...)
	}
	to = append(to, rest...)
	w.r, w.w, w.buf, w.big = 0, len(to), to[:cap(to)], nil
	return nil
}

// exactReader reads a connection one protocol message at a time and never further, so that nothing is left in its
// reader's buffer when the connection is taken over.
type exactReader struct {
	r    io.Reader
	head [5]byte
	got  int // of the head
	sent int // of the head
	body int // bytes of the body that are left
}

// Read implements io.Reader.
func (e *exactReader) Read(p []byte) (int, error) {
	if e.got < len(e.head) {
		n, err := io.ReadFull(e.r, e.head[e.got:])
		e.got += n
		if err != nil {
			return 0, err
		}
		e.body = max(int(binary.BigEndian.Uint32(e.head[1:]))-4, 0)
	}
	if e.sent < len(e.head) {
		n := copy(p, e.head[e.sent:])
		if e.sent += n; e.sent == len(e.head) && e.body == 0 {
			e.got, e.sent = 0, 0
		}
		return n, nil
	}
	n, err := e.r.Read(p[:min(len(p), e.body)])
	if e.body -= n; e.body == 0 {
		e.got, e.sent = 0, 0
	}
	return n, err
}
