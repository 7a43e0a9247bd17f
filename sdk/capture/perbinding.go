package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// PerBinding makes one Reader of a Reader for each binding, for endpoints where every resource is polled on its own. Each
// runs in a goroutine and may block and sleep as it likes; their transactions are committed one after the other, whole, in
// the order in which they become ready. A binding's Reader must emit to its binding alone. It starts on its next transaction
// when the last one has been handed over.
//
// The session ends when one of them fails, or all of them returned io.EOF. If open fails, those opened before are closed.
func PerBinding[R, S any](bs []*Binding[R, S], open func(*Binding[R, S]) (Reader, error)) (Reader, error) {
	p := &perBinding{ready: make(chan *part)}
	for _, b := range bs {
		r, err := open(b)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("opening %s: %w", b.h.name, err), p.Close())
		}
		p.readers = append(p.readers, &bindingReader{
			name: b.h.name, reader: r, part: &part{resume: make(chan struct{})},
		})
	}
	return p, nil
}

// perBinding runs the readers and passes their transactions on.
type perBinding struct {
	readers []*bindingReader
	ready   chan *part // unbuffered: who sends waits until the part's resume
	running int
	last    *part // of which the transaction was committed by the last Read; it still waits
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// bindingReader is one binding's reader with the transaction it fills.
type bindingReader struct {
	name   string
	reader Reader
	tx     Tx
	part   *part
}

// part is what a binding's reader hands over: some of a transaction, or the rest of it.
type part struct {
	tx     *Tx
	end    bool // the transaction ends here
	err    error
	resume chan struct{}
}

// goOn lets the reader use its transaction again.
func (p *part) goOn(ctx context.Context) error {
	select {
	case p.resume <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Read passes one binding's transaction on.
func (p *perBinding) Read(ctx context.Context, tx *Tx) error {
	if p.stop == nil {
		p.start(ctx, tx)
	}
	if p.last != nil {
		if err := p.last.goOn(ctx); err != nil {
			return err
		}
		p.last = nil
	}
	for {
		if p.running == 0 {
			return io.EOF
		}
		var first *part
		select {
		case <-ctx.Done():
			return ctx.Err()
		case first = <-p.ready:
		}
		done, err := p.pass(ctx, tx, first)
		if done || err != nil {
			return err
		}
	}
}

// pass takes a whole transaction, beginning with the given part. It returns false if there was nothing to commit.
func (p *perBinding) pass(ctx context.Context, tx *Tx, next *part) (committed bool, err error) {
	for {
		if next.err != nil && !ends(next.err) {
			return false, next.err
		}
		if err := tx.take(next.tx); err != nil {
			return false, err
		}
		if next.end {
			break
		}
		if err := next.goOn(ctx); err != nil {
			return false, err
		}
		// While a transaction is unfinished, only its own reader is listened to.
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case next = <-next.tx.parts:
		}
	}
	if ended := next.err != nil; ended {
		p.running--
	} else {
		p.last = next
	}
	return true, nil
}

// start starts the readers. They live until Close, not only for one Read.
func (p *perBinding) start(ctx context.Context, outer *Tx) {
	ctx, p.stop = context.WithCancel(ctx)
	p.running = len(p.readers)
	for _, r := range p.readers {
		r.tx.form = outer.form
		p.done.Go(func() { r.run(ctx, p.ready) })
	}
}

// Close ends the readers and closes them.
func (p *perBinding) Close() error {
	if p.stop != nil {
		p.stop()
		p.done.Wait()
	}
	var errs []error
	for _, r := range p.readers {
		if c, ok := r.reader.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// run reads one binding until it ends.
func (r *bindingReader) run(ctx context.Context, ready chan<- *part) {
	r.part.tx = &r.tx
	r.tx.parts = make(chan *part)
	for {
		r.tx.reset()
		r.tx.buf = r.tx.buf[:0]
		to := ready
		r.tx.spill = func(*Tx) error {
			err := r.hand(ctx, to, false)
			to = r.tx.parts
			return err
		}
		r.part.err = r.reader.Read(ctx, &r.tx)
		if r.tx.err != nil {
			r.part.err = r.tx.err
		}
		if ctx.Err() != nil {
			return
		}
		if r.part.err != nil {
			if !ends(r.part.err) {
				r.part.err = fmt.Errorf("reading %s: %w", r.name, r.part.err)
			}
			r.send(ctx, to)
			return
		}
		if r.hand(ctx, to, true) != nil {
			return
		}
	}
}

// hand passes the buffer on and waits until it may be used again.
func (r *bindingReader) hand(ctx context.Context, to chan<- *part, end bool) error {
	r.part.end = end
	if !r.send(ctx, to) {
		return ctx.Err()
	}
	select {
	case <-r.part.resume:
		r.tx.buf = r.tx.buf[:0]
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *bindingReader) send(ctx context.Context, to chan<- *part) bool {
	r.part.end = r.part.end || r.part.err != nil
	select {
	case to <- r.part:
		return true
	case <-ctx.Done():
		return false
	}
}

// take appends what a part of another transaction holds, and takes over what is to be saved with it.
func (tx *Tx) take(from *Tx) error {
	buf, docs := from.buf, from.docs-from.taken
	from.taken = from.docs
	cut := tx.limit > 0 && tx.total+docs > tx.limit
	if cut {
		docs = tx.limit - tx.total
		buf = firstLines(buf, docs)
	}
	tx.buf = append(tx.buf, buf...)
	tx.size += len(buf)
	tx.docs += docs
	tx.total += docs
	for _, h := range from.dirty {
		if !slices.Contains(tx.dirty, h) {
			tx.dirty = append(tx.dirty, h)
		}
	}
	tx.acks = append(tx.acks, from.acks...)
	from.acks = nil
	tx.forget = append(tx.forget, from.forget...)
	from.forget = nil
	if from.shared != nil {
		tx.shared = from.shared
	}
	switch {
	case cut:
		tx.err = errLimit
	case len(tx.buf) >= writeThrough:
		tx.err = tx.spill(tx)
	}
	return tx.err
}

// firstLines is the part of buf with the first n lines.
func firstLines(buf []byte, n int) []byte {
	end := 0
	for range n {
		i := bytes.IndexByte(buf[end:], '\n')
		if i < 0 {
			break
		}
		end += i + 1
	}
	return buf[:end]
}
