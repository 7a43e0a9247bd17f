package main

import (
	"context"
	"encoding/binary"
	"io"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// A rowLimiter stands between a session and its driver, which holds every row whole. Rows that are too large for memory it hands on
// without the values that do not fit, as null, and notes which these were. All else it passes on, looking at nothing but the heads
// of messages. It is used by the goroutine that reads the session.
type rowLimiter struct {
	r     io.Reader
	limit int // of a row, which is beyond it read by a reducer

	head  [5]byte // of the message that is beginning
	got   int
	left  int    // of the message that is being passed on
	ready []byte // to be passed on before anything else
	rest  []byte // to be read before anything else
	buf   []byte // while a large row is being read

	// While a chunk is read:
	ctx   context.Context //nolint:containedctx // of the query that is being answered; Read has none
	heavy func(context.Context) error
	size  func(column, n int) int
	rows  int // so far
	notes []lackingRow
}

// lackingRow is a row of which values were left out.
type lackingRow struct {
	row    int // which one, from 1
	values []leftValue
}

const customLimiter = "sluice row limiter"

// limiterOf is the limiter of a session.
func limiterOf(conn *pgconn.PgConn) *rowLimiter {
	l, _ := conn.CustomData()[customLimiter].(*rowLimiter) // every session has one
	return l
}

// begin counts rows from here on. Heavy is Chunk.Heavy; size says how many bytes of a document a value takes.
func (l *rowLimiter) begin(ctx context.Context, limit int, heavy func(context.Context) error, size func(column, n int) int) {
	l.ctx, l.limit, l.heavy, l.size, l.rows, l.notes = ctx, limit, heavy, size, 0, nil
}

// end lets go of what begin was given.
func (l *rowLimiter) end() { l.begin(nil, cdc.MaxRow, nil, nil) } //nolint:staticcheck // no query, no context

// lacking gives the values that were left out of a row, and forgets them. Rows are asked for in order.
func (l *rowLimiter) lacking(row int) []leftValue {
	if len(l.notes) == 0 || l.notes[0].row != row {
		return nil
	}
	values := l.notes[0].values
	l.notes = l.notes[1:]
	return values
}

// Read implements io.Reader.
func (l *rowLimiter) Read(p []byte) (int, error) {
	for {
		if len(l.ready) > 0 {
			n := copy(p, l.ready)
			if l.ready = l.ready[n:]; len(l.ready) == 0 {
				l.ready = nil
			}
			return n, nil
		}
		n, err := l.source(p)
		if n > 0 {
			passed, lerr := l.pass(p[:n])
			if lerr != nil {
				return 0, lerr
			}
			if passed > 0 {
				return passed, err
			}
		}
		if err != nil {
			return 0, err
		}
	}
}

func (l *rowLimiter) source(p []byte) (int, error) {
	if len(l.rest) > 0 {
		n := copy(p, l.rest)
		l.rest = l.rest[n:]
		return n, nil
	}
	return l.r.Read(p)
}

// pass returns how many of the bytes in p, which may be changed, are to be passed on. What is not goes to ready and rest.
func (l *rowLimiter) pass(p []byte) (int, error) {
	for i := 0; i < len(p); {
		if l.left > 0 {
			n := min(l.left, len(p)-i)
			i, l.left = i+n, l.left-n
			continue
		}
		n := copy(l.head[l.got:], p[i:])
		l.got += n
		if l.got < len(l.head) {
			return i, nil // the rest of the head decides
		}
		before := len(l.head) - n // of the head came with an earlier piece
		l.got = 0
		size := int(binary.BigEndian.Uint32(l.head[1:]))
		large, err := l.row(size)
		if err != nil {
			return 0, err
		}
		if large {
			return i, l.reduce(size+1, p[i+n:])
		}
		l.left = max(size-4, 0)
		if before > 0 {
			// Some of the head was held back: it goes first, and all of p after it.
			l.ready = append(append(l.ready[:0:0], l.head[:before]...), p...)
			l.rest = append(l.ready[before+i+n:len(l.ready):len(l.ready)], l.rest...)
			l.ready = l.ready[:before+i+n]
			return 0, nil
		}
		i += n
	}
	return len(p), nil
}

// row looks at the head of a message. It reports whether it is a row that is too large.
func (l *rowLimiter) row(size int) (bool, error) {
	if l.head[0] != 'D' || l.size == nil {
		return false, nil
	}
	l.rows++
	if size > min(cdc.HeavyRow, l.limit) && l.heavy != nil {
		if err := l.heavy(l.ctx); err != nil {
			return false, err
		}
	}
	return size > l.limit-l.limit/4, nil // bytea grows by a third in a document
}

// reduce reads the rest of a row that is too large, which begins with head and p.
func (l *rowLimiter) reduce(size int, p []byte) error {
	r := newReducer(size, l.limit, func(_ uint32, column, n int) int { return l.size(column, n) })
	if _, err := r.take(l.head[:]); err != nil {
		return err
	}
	if l.buf == nil {
		l.buf = make([]byte, 64<<10)
	}
	for {
		n, err := r.take(p)
		if err != nil {
			return err
		}
		if r.left == 0 {
			l.rest = append(append([]byte(nil), p[n:]...), l.rest...)
			break
		}
		m, err := l.source(l.buf)
		if err != nil && m == 0 {
			return err
		}
		p = l.buf[:m]
	}
	l.ready = r.out
	if len(r.lacks) > 0 {
		l.notes = append(l.notes, lackingRow{row: l.rows, values: r.lacks})
	}
	return nil
}
