package main

import (
	"bytes"
	"context"
)

const (
	chunkBytes  = 1 << 20  // of rows that are sent by one COPY
	waitingRows = 16 << 20 // bytes that may wait in all batches together
)

// copyHeader begins the binary format: signature, flags, length of an extension.
const copyHeader = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"

// batch gathers rows for one COPY statement. Rows of several bindings may come in any order; each has its batch.
type batch struct {
	statement string
	// prepare is a statement that must run once before the first COPY, such as the creation of the temporary table.
	prepare string
	buf     []byte
	rows    int64 // of this transaction
}

// copier sends batches while the next rows are encoded: one statement at a time on its connection, on a goroutine that
// is joined before anything else happens there.
type copier struct {
	c       *conn
	batches []*batch
	waiting int // bytes in all batches
	// flying is the statement that is under way, nil if there is none, and sent the buffer that it reads.
	flying chan error
	sent   []byte
	// free are buffers to be used again. Batches have none while they are empty: there may be hundreds of them.
	free [][]byte
}

const freeBuffers = 4

// room returns a batch's buffer to append a row to. grown must be called with the result.
func (p *copier) room(b *batch) []byte {
	if b.buf == nil {
		if n := len(p.free); n > 0 {
			b.buf, p.free = p.free[n-1], p.free[:n-1]
		}
		b.buf = append(b.buf, copyHeader...)
		p.waiting += len(b.buf)
	}
	return b.buf
}

// grown takes a buffer back, and sends what has become too much.
func (p *copier) grown(ctx context.Context, b *batch, buf []byte) error {
	p.waiting += len(buf) - len(b.buf)
	b.buf = buf
	b.rows++
	if len(buf) >= chunkBytes {
		return p.send(ctx, b)
	}
	if p.waiting < waitingRows {
		return nil
	}
	largest := b
	for _, other := range p.batches {
		if len(other.buf) > len(largest.buf) {
			largest = other
		}
	}
	return p.send(ctx, largest)
}

// send hands a batch over.
func (p *copier) send(ctx context.Context, b *batch) error {
	if err := p.join(); err != nil {
		return err
	}
	if b.prepare != "" {
		if err := p.c.exec(ctx, b.prepare); err != nil {
			return err
		}
		b.prepare = ""
	}
	p.waiting -= len(b.buf)
	buf := append(b.buf, 0xff, 0xff)
	b.buf, p.sent = nil, buf
	done := make(chan error, 1)
	p.flying = done
	go func() { done <- p.c.copyFrom(ctx, b.statement, buf) }()
	return nil
}

// join waits for the statement that is under way.
func (p *copier) join() error {
	if p.flying == nil {
		return nil
	}
	err := <-p.flying
	p.flying = nil
	if len(p.free) < freeBuffers && cap(p.sent) < 4*chunkBytes {
		p.free = append(p.free, p.sent[:0])
	}
	p.sent = nil
	return err
}

// flush sends what is left and waits for it.
func (p *copier) flush(ctx context.Context) error {
	for _, b := range p.batches {
		if b.buf != nil {
			if err := p.send(ctx, b); err != nil {
				return err
			}
		}
	}
	return p.join()
}

// copyFrom runs a COPY of a buffer that holds everything.
func (c *conn) copyFrom(ctx context.Context, statement string, buf []byte) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err := c.pg.CopyFrom(ctx, bytes.NewReader(buf), statement)
	return c.explain(ctx, err)
}
