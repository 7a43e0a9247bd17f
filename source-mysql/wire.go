package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// wire reads and writes the packets of a connection whose session is open. It belongs to one goroutine.
//
//	packet:  length (3 bytes)  sequence (1 byte)  payload; one of 2²⁴−1 bytes is continued by the next
type wire struct {
	conn  net.Conn
	buf   []byte
	r, w  int // buf[r:w] is unread
	limit int // bytes of a payload, continued ones together
	next  byte
}

const (
	wireBuffer = 256 << 10
	maxPacket  = 1<<24 - 1
)

var (
	errPacket      = errors.New("the server's answer is not of the expected form")
	errLargePacket = errors.New("a row is larger than can be captured")
)

func newWire(conn net.Conn, limit int) *wire {
	return &wire{conn: conn, buf: make([]byte, wireBuffer), limit: limit}
}

// send sends a command, which begins a new sequence of packets.
func (w *wire) send(command byte, body []byte) error {
	out := make([]byte, 5, 5+len(body))
	n := len(body) + 1
	if n >= maxPacket {
		return fmt.Errorf("%w: a command of %d bytes", errPacket, n)
	}
	out[0], out[1], out[2], out[4] = byte(n), byte(n>>8), byte(n>>16), command
	w.next = 1
	if _, err := w.conn.Write(append(out, body...)); err != nil {
		return fmt.Errorf("writing to the server: %w", err)
	}
	return nil
}

// reply sends a packet that continues the sequence.
func (w *wire) reply(body []byte) error {
	n := len(body)
	if n >= maxPacket {
		return fmt.Errorf("%w: a packet of %d bytes", errPacket, n)
	}
	out := append([]byte{byte(n), byte(n >> 8), byte(n >> 16), w.next}, body...)
	w.next++
	if _, err := w.conn.Write(out); err != nil {
		return fmt.Errorf("writing to the server: %w", err)
	}
	return nil
}

// packet gives the next payload if all of it is here. It is valid until the next call of a method.
func (w *wire) packet() (payload []byte, ok bool, err error) {
	b := w.buf[w.r:w.w]
	if len(b) < 4 {
		return nil, false, nil
	}
	n := length(b)
	if n > w.limit {
		return nil, false, fmt.Errorf("%w: it has more than %d bytes", errLargePacket, w.limit)
	}
	if len(b) < 4+n {
		return nil, false, nil
	}
	if n < maxPacket {
		if b[3] != w.next {
			return nil, false, fmt.Errorf("%w: packet %d instead of %d", errPacket, b[3], w.next)
		}
		w.next++
		w.r += 4 + n
		return b[4 : 4+n], true, nil
	}
	return w.long(b)
}

// long is packet for payloads of several packets, which it puts together in place.
func (w *wire) long(b []byte) (payload []byte, ok bool, err error) {
	total, at, next := 0, 0, w.next
	for {
		if len(b) < at+4 {
			return nil, false, nil
		}
		n := length(b[at:])
		if total += n; total > w.limit {
			return nil, false, fmt.Errorf("%w: it has more than %d bytes", errLargePacket, w.limit)
		}
		if len(b) < at+4+n {
			return nil, false, nil
		}
		if b[at+3] != next {
			return nil, false, fmt.Errorf("%w: packet %d instead of %d", errPacket, b[at+3], next)
		}
		next++
		at += 4 + n
		if n < maxPacket {
			break
		}
	}
	out := 4
	for from := 0; from < at; {
		n := length(b[from:])
		out += copy(b[out:], b[from+4:from+4+n])
		from += 4 + n
	}
	w.next = next
	w.r += at
	return b[4:out], true, nil
}

func length(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// fill reads more. It reports false if nothing arrived until the deadline; the zero time is no deadline.
func (w *wire) fill(deadline time.Time) (bool, error) {
	if w.r > 0 {
		w.w = copy(w.buf, w.buf[w.r:w.w])
		w.r = 0
	}
	switch {
	case w.w == 0 && len(w.buf) > 8*wireBuffer:
		w.buf = make([]byte, wireBuffer) // one that was grown for something large
	case w.w == len(w.buf):
		w.buf = append(w.buf, make([]byte, len(w.buf))...)
	}
	if err := w.conn.SetReadDeadline(deadline); err != nil {
		return false, fmt.Errorf("reading from the server: %w", err)
	}
	n, err := w.conn.Read(w.buf[w.w:])
	w.w += n
	if n > 0 {
		return true, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the log has no end
	}
	if err != nil {
		return false, &lostError{err}
	}
	return false, nil
}

// lostError says that the connection is of no use any more.
type lostError struct{ err error }

func (e *lostError) Error() string { return "the connection to the server is lost: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }
