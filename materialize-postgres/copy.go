package main

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	firstChunk   = 1 << 20  // bytes of rows that are sent by the first COPY of a transaction
	largestChunk = 8 << 20  // and by those from the fourth on
	waitingRows  = 16 << 20 // bytes that may wait in all batches together
)

// copyHeader begins the binary format: signature, flags, length of an extension.
const copyHeader = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"

// batch gathers rows for one COPY statement. Rows of several bindings may come in any order; each has its batch.
type batch struct {
	// direct is a COPY straight into the table, empty where rows have to be staged.
	direct string
	// staged is the COPY into a temporary table, for rows that direct is refused; empty where there is no other way.
	staged string
	// prepare is a statement that must run once before the first staged COPY: the creation of the temporary table.
	prepare string
	// fitted says that the table has columns of a certain length.
	fitted bool
	// refused says that the table refused rows, so that those that follow are staged. It is written while a COPY is
	// under way, and is to be read when none is.
	refused bool
	buf     []byte
	rows    int64 // of this transaction
	copies  int   // of this transaction
}

// staging says whether rows go to the temporary table.
func (b *batch) staging() bool { return b.direct == "" || b.refused }

// chunk is how many bytes make the next COPY. The first is small, so that the server has something to do soon, and each
// is twice as large as the one before, as rows are encoded in half of the time that the server needs for them. A COPY costs the
// server two milliseconds, whatever it brings: with a megabyte in each, a fifth of its work. Each one into a table is also a
// subtransaction, and of more than 64 a server keeps account on disk, which others pay for.
func (b *batch) chunk() int { return min(firstChunk<<min(b.copies, 8), largestChunk) }

// take returns how many rows a batch got in this transaction, and forgets them.
func (b *batch) take() int64 {
	n := b.rows
	b.rows, b.copies = 0, 0
	return n
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

// freeBuffers is how many are kept: one is sent while another one is filled.
const freeBuffers = 2

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
	if len(buf) >= b.chunk() {
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
	p.waiting -= len(b.buf)
	buf := append(b.buf, 0xff, 0xff)
	b.buf, p.sent = nil, buf
	b.copies++
	done := make(chan error, 1)
	p.flying = done
	go func() { done <- b.copy(ctx, p.c, buf) }()
	return nil
}

// copy runs a COPY of a buffer that holds everything: straight into the table if it takes the rows, which costs the server
// two thirds of staging and inserting them, else into the temporary table.
func (b *batch) copy(ctx context.Context, c *conn, buf []byte) error {
	if b.staged == "" {
		return c.copyFrom(ctx, b.direct, buf)
	}
	if !b.staging() {
		var err error
		if b.refused, err = c.tryCopy(ctx, b, buf); err != nil || !b.refused {
			return err
		}
	}
	if b.prepare != "" {
		if err := c.exec(ctx, b.prepare); err != nil {
			return err
		}
		b.prepare = ""
	}
	return c.copyFrom(ctx, b.staged, buf)
}

// tryCopy runs a COPY that leaves the transaction as it was if the table refuses the rows.
func (c *conn) tryCopy(ctx context.Context, b *batch, buf []byte) (refused bool, err error) {
	if err := c.exec(ctx, "SAVEPOINT sluice"); err != nil {
		return false, err
	}
	err = c.copyFrom(ctx, b.direct, buf)
	if err == nil {
		return false, c.exec(ctx, "RELEASE SAVEPOINT sluice")
	}
	server, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !b.refusal(server.Code) {
		return false, err
	}
	return true, c.exec(ctx, "ROLLBACK TO SAVEPOINT sluice;RELEASE SAVEPOINT sluice")
}

// refusal tells errors of COPY that may not be errors of the merge: a row that is there already, or that another one has
// to make room for or be inserted before (a unique index or foreign key of a user's), and tables that take no COPY. Where values
// may be too long, the merge says whose it was.
func (b *batch) refusal(code string) bool {
	return strings.HasPrefix(code, "23") || b.fitted && strings.HasPrefix(code, classWrongValue) || code == codeUnsupported
}

// join waits for the statement that is under way.
func (p *copier) join() error {
	if p.flying == nil {
		return nil
	}
	err := <-p.flying
	p.flying = nil
	if len(p.free) < freeBuffers && cap(p.sent) <= 2*largestChunk {
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
