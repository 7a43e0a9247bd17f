package endpoint

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// A LowWater is a socket that is read in large pieces while much arrives. It belongs to one reader at a time; it must not be closed while that reads,
// but for by another goroutine that means to end it.
//
// A server sends every change by itself, and answers in pieces of a few kilobytes, and a reader that keeps up wakes for each of them,
// which costs several times what decoding does. While reads are frequent, or much of an answer is still to come (Expect), this
// connection therefore lets the kernel wake it only for a good lot of bytes, or after a few milliseconds, whichever is first; as soon
// as little arrives, it wakes for every byte again. docs/performance.md says what that saves.
//
// It lies below TLS, whose records are as small as the changes, and buffers for it.
type LowWater struct {
	net.Conn
	raw syscall.RawConn // nil for what is no TCP, such as a tunnel, which is read as it comes

	deadline atomic.Int64 // nanoseconds since 1970; 0 is none
	bulk     atomic.Bool  // the low-water mark is up
	mark     int          // where it is
	more     bool         // the last read filled its buffer
	told     atomic.Bool  // Expect decides when the mark is up
	expected atomic.Int64 // bytes that are still to come
	since    time.Time    // when the present count of reads began
	reads    int

	buf  []byte // for readers that ask for little
	r, w int
}

const (
	lowWater = 512 << 10
	bulkWait = 25 * time.Millisecond
	// For answers it is lower, so that their sender and reader work at the same time.
	answerMark = 256 << 10
	// So many reads in so short a time raise the mark.
	countFor  = 10 * time.Millisecond
	manyReads = 48
	// A wait that brought less than this lowers it.
	little = 16 << 10
	// A reader that asks for less than this is served from the buffer.
	ample = 32 << 10
)

// NewLowWater makes one of a connection that was just opened. What is no TCP, such as a tunnel, is read as it comes.
func NewLowWater(conn net.Conn) (*LowWater, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return &LowWater{Conn: conn}, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("preparing the connection: %w", err)
	}
	return &LowWater{Conn: conn, raw: raw}, nil
}

// Expect says that about so many bytes are to come, the answer to a question. From then on it is not how often Read is called that
// decides whether it waits for much, but how much of the answer is still to come. So its end comes at once, but a few milliseconds late
// if it was taken to be longer than it is. With 0, no Read waits for more than a byte. Expect may be called beside a Read.
func (c *LowWater) Expect(bytes int) {
	c.expected.Store(int64(bytes))
	c.told.Store(true)
}

// Patience is how long to wait for the next event of a log, if that were wait at other times: while much arrives, a pause that is no
// longer than what is gathered for is none.
func (c *LowWater) Patience(wait time.Duration) time.Duration {
	if c.bulk.Load() {
		return max(wait, bulkWait+time.Millisecond)
	}
	return wait
}

// SetReadDeadline implements net.Conn. A Read that waits already may not notice it at once.
func (c *LowWater) SetReadDeadline(t time.Time) error {
	c.remember(t)
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline implements net.Conn.
func (c *LowWater) SetDeadline(t time.Time) error {
	c.remember(t)
	return c.Conn.SetDeadline(t)
}

func (c *LowWater) remember(t time.Time) {
	switch began := time.Unix(0, 1); {
	case t.IsZero():
		c.deadline.Store(0)
	case t.Before(began): // drivers cancel by times that nanoseconds cannot hold
		c.deadline.Store(began.UnixNano())
	default:
		c.deadline.Store(t.UnixNano())
	}
}

// until is the deadline of reads; the zero time is none.
func (c *LowWater) until() time.Time {
	if n := c.deadline.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// restoreDeadline gives the connection the reader's deadline back, also if that is set anew meanwhile: it may be how the read is cancelled.
func (c *LowWater) restoreDeadline() error {
	for {
		n := c.deadline.Load()
		if err := c.Conn.SetReadDeadline(c.until()); err != nil || c.deadline.Load() == n {
			return err
		}
	}
}

// Read implements net.Conn.
func (c *LowWater) Read(p []byte) (int, error) {
	if c.r == c.w {
		if len(p) >= ample {
			return c.fill(p)
		}
		if c.buf == nil {
			c.buf = make([]byte, 64<<10)
		}
		n, err := c.fill(c.buf)
		c.r, c.w = 0, n
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, c.buf[c.r:c.w])
	c.r += n
	return n, nil
}

func (c *LowWater) fill(b []byte) (int, error) {
	now := time.Now()
	if c.told.Load() {
		return c.fillExpected(b, now)
	}
	if !c.bulk.Load() && c.raw != nil {
		c.count(now)
	}
	if c.bulk.Load() {
		n, err := c.fillBulk(b, now)
		if n > 0 || err != nil {
			return n, err
		}
	}
	return c.Conn.Read(b)
}

// count counts reads, and raises the mark when they are frequent.
func (c *LowWater) count(now time.Time) {
	if now.Sub(c.since) > countFor {
		c.since, c.reads = now, 0
	}
	if c.reads++; c.reads > manyReads {
		c.raise(lowWater)
		c.reads = 0
	}
}

// fillExpected reads a part of an answer of which it was said how long it is.
func (c *LowWater) fillExpected(b []byte, now time.Time) (n int, err error) {
	c.raise(min(answerMark, int(c.expected.Load())))
	if c.bulk.Load() {
		n, err = c.fillBulk(b, now)
	}
	if n == 0 && err == nil {
		n, err = c.Conn.Read(b)
	}
	c.expected.Add(-int64(n))
	return n, err
}

// raise puts the mark where it is worth waiting for, and else down.
func (c *LowWater) raise(mark int) {
	if mark < little {
		mark = 1
	}
	if c.raw != nil && mark != max(c.mark, 1) && setLowWater(c.raw, mark) {
		c.mark = mark
		c.bulk.Store(mark > 1)
	}
}

// fillBulk waits for much, and then takes what there is. If that is little it lowers the mark.
func (c *LowWater) fillBulk(b []byte, now time.Time) (n int, err error) {
	if c.more {
		n, _ := readRest(c.raw, b) // an error comes again below
		c.more = n == len(b)
		if n > 0 {
			return n, nil
		}
	}
	soon := now.Add(bulkWait)
	deadline := c.until()
	hurry := deadline.IsZero() || soon.Before(deadline)
	if hurry {
		if err := c.Conn.SetReadDeadline(soon); err != nil {
			return 0, err
		}
	}
	n, err = readWoken(c.raw, b, c.mark)
	late := errors.Is(err, os.ErrDeadlineExceeded)
	if late {
		n, err = readRest(c.raw, b)
	}
	if hurry {
		if err := c.restoreDeadline(); err != nil {
			return n, err
		}
	}
	switch {
	case errors.Is(err, syscall.EAGAIN):
		err = nil
	case err == nil && n == 0:
		return 0, io.EOF
	case err != nil:
		return n, os.NewSyscallError("read", err)
	}
	c.more = n == len(b)
	if late && n < little {
		c.raise(1)
		c.reads = 0
	}
	return n, err
}
