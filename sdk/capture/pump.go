package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// keepBuffer is the largest buffer that is used again; a larger one was made by a huge document.
	keepBuffer = 4 << 20
	// stopGrace is how long a session that was told to stop waits for its output to be taken.
	stopGrace = 10 * time.Second
)

// commit is what becomes durable when a transaction does.
type commit struct {
	patch []byte
	acks  []func(context.Context) error
	docs  int
}

// output is where a session's transactions go.
type output interface {
	// write writes whole documents and, if c is not nil, the end of their transaction. It is called by the pump's
	// writer, in order. buf is valid until it returns.
	write(ctx context.Context, buf []byte, c *commit) error
}

// chunk is a buffer on its way to the writer.
type chunk struct {
	buf []byte
	c   *commit // nil while the transaction goes on
}

// pump runs a session: the caller's goroutine fills one buffer while the writer empties the other, so that encoding and
// writing overlap, and a blocked output stops the reader after at most two buffers.
//
//	reader ── full chunk ──▶ writer ──▶ output
//	   ▲                        │
//	   └────── empty buffer ────┘
type pump struct {
	session *session
	form    form
	full    chan chunk
	empty   chan []byte
	open    bool // documents of an unfinished transaction were handed over
	limit   int  // stop after this many documents; 0 means never
}

// errStopped ends a session that was told to stop, at the end of a transaction.
var errStopped = errors.New("stopped")

// errUnfinished is a stop in the middle of a transaction of which documents have been written. The documents are not
// committed, and the output does not end where the protocol allows it.
var errUnfinished = errors.New("stopped inside a transaction whose documents were being written; it will be read again")

func newPump(s *session, f form) *pump {
	p := &pump{session: s, form: f, full: make(chan chunk), empty: make(chan []byte, 2)}
	p.empty <- make([]byte, 0, newBuffer)
	p.empty <- make([]byte, 0, newBuffer)
	return p
}

// run moves transactions until the reader ends, ctx ends, or something fails. It returns nil if everything that was
// written ends with the end of a transaction.
func (p *pump) run(ctx context.Context, out output) error {
	// The writer outlives ctx: what was read whole is still written after a stop.
	writing, stopWriting := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopWriting(nil)
	written := make(chan error, 1)
	go func() { written <- p.write(writing, out, stopWriting) }()

	// A writer that fails ends the reader's wait as well.
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	defer context.AfterFunc(writing, stopReading)()

	err := p.read(reading, writing)
	close(p.full)
	werr, done := p.await(ctx, written)
	switch {
	case !done:
		return fmt.Errorf("stopping: nobody took the output for %v", stopGrace)
	case werr != nil:
		return werr
	case ends(err) || errors.Is(err, errStopped):
		err = nil
	case ctx.Err() != nil:
		// Whatever Read says after the stop is the echo of it: a driver's "connection closed" as well as ctx.Err(). A real
		// failure of that moment will be met again.
		err = nil
	}
	if err == nil && p.open {
		return errUnfinished
	}
	return err
}

// ends reports whether a reader has said that its source ends. Only io.EOF itself says so: an error that wraps it is a connection
// that broke, in the midst of whatever was read.
func ends(err error) bool { return err == io.EOF } //nolint:errorlint // see above

// await waits for the writer to finish. Once ctx has ended it waits no longer than stopGrace for a blocked output; the
// writer is then abandoned to the end of the process.
func (p *pump) await(ctx context.Context, written <-chan error) (err error, done bool) { //nolint:revive // done qualifies err
	var late <-chan time.Time
	stop := ctx.Done()
	for {
		select {
		case err := <-written:
			return err, true
		case <-stop:
			t := time.NewTimer(stopGrace)
			defer t.Stop()
			stop, late = nil, t.C
		case <-late:
			return nil, false
		}
	}
}

// read runs the reader, one transaction after the other.
func (p *pump) read(ctx, writing context.Context) error {
	tx := &Tx{form: p.form, limit: p.limit}
	tx.buf = <-p.empty
	tx.spill = func(tx *Tx) error {
		p.open = true
		return p.hand(writing, tx, nil)
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		tx.reset()
		err := p.session.reader.Read(ctx, tx)
		if errors.Is(tx.err, errLimit) {
			p.open = true
			return errors.Join(errStopped, p.hand(writing, tx, nil))
		}
		if tx.err != nil {
			return tx.err
		}
		if err != nil && !ends(err) {
			return err
		}
		if cerr := p.commit(writing, tx); cerr != nil {
			return cerr
		}
		if err != nil {
			return err
		}
		if p.limit > 0 && tx.total >= p.limit {
			return errStopped
		}
	}
}

// commit ends the transaction: its state goes behind its documents, and all of it to the writer.
func (p *pump) commit(writing context.Context, tx *Tx) error {
	patch, err := p.session.state.patch(tx)
	if err != nil {
		return err
	}
	if patch == nil && len(tx.buf) == 0 && !p.open && len(tx.acks) == 0 {
		return nil // nothing happened
	}
	if patch == nil {
		patch = []byte("{}")
	}
	if tx.buf, err = p.form.appendCheckpoint(tx.buf, patch); err != nil {
		return fmt.Errorf("writing a checkpoint: %w", err)
	}
	p.open = false
	return p.hand(writing, tx, &commit{patch: patch, acks: tx.acks, docs: tx.docs})
}

// hand gives the transaction's buffer to the writer and takes an empty one, which it waits for.
func (p *pump) hand(writing context.Context, tx *Tx, c *commit) error {
	defer p.session.outlet.block()()
	select {
	case p.full <- chunk{tx.buf, c}:
	case <-writing.Done():
		return context.Cause(writing)
	}
	select {
	case tx.buf = <-p.empty:
		return nil
	case <-writing.Done():
		return context.Cause(writing)
	}
}

// write is the writer. It returns the first error of the output, or nil when there is no more.
func (p *pump) write(ctx context.Context, out output, stop context.CancelCauseFunc) error {
	for c := range p.full {
		if err := out.write(ctx, c.buf, c.c); err != nil {
			stop(err)
			return err
		}
		buf := c.buf[:0]
		if cap(buf) > keepBuffer {
			buf = make([]byte, 0, newBuffer)
		}
		p.empty <- buf // never blocks: there are two buffers, and room for both
	}
	return nil
}
