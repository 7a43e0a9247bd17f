package main

import (
	"context"
	"encoding/binary"
	"io"
	"math"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/endpoint"
)

// A rowReader stands between a session and its driver. While a chunk is read it takes the rows out of what the server sends, and
// gives them to the scan where they are, in its own buffer; all else it hands on. So the driver still does logins, errors and
// cancellation, and costs nothing for a row. Rows that are too large for memory come without the values that do not fit,
// as null. It is used by the goroutine that reads the session.
type rowReader struct {
	socket *endpoint.LowWater // below the session
	wire   *wire
	ready  []byte // of a message that is being handed on

	// While a chunk is read:
	ctx     context.Context //nolint:containedctx // of the query that is being answered; Read has none
	rows    rowTaker
	limit   int      // of a row, in the bytes that it takes in a document
	err     error    // what it said; the rows behind are passed over
	reduced *reducer // of the row that comes next, if that was too large
}

// A rowTaker takes the rows of a query.
type rowTaker interface {
	// take takes a row: the body of a DataRow, which is valid until it returns, and the values that were left out of it.
	take(row []byte, left []leftValue) error
	// heavy is asked before a row is held that takes more than cdc.HeavyRow, possibly several times.
	heavy(ctx context.Context) error
	// inDocument is how many bytes of a document a value takes of which the server sends n.
	inDocument(column, n int) int
}

const customRows = "sluice rows"

// rowsOf is the rowReader of a session.
func rowsOf(conn *pgconn.PgConn) *rowReader {
	r, _ := conn.CustomData()[customRows].(*rowReader) // every session has one
	return r
}

// read reads what the session sends.
func (r *rowReader) read(session io.Reader) { r.wire = newWire(session, math.MaxInt, r.large) }

// begin gives the rows from here on, of about so many bytes, to somebody, until end; limit is how many bytes of a document a row may
// take. It must be called before the driver asks for what follows the description of the rows.
func (r *rowReader) begin(ctx context.Context, bytes, limit int, to rowTaker) {
	r.socket.Expect(bytes - (r.wire.w - r.wire.r))
	r.ctx, r.rows, r.limit, r.err = ctx, to, limit, nil
	r.wire.limit = min(cdc.HeavyRow, r.held())
}

// refuse passes over all rows that come until end, which returns the error. They take no more memory than others.
func (r *rowReader) refuse(err error) { r.err = err }

// end hands everything on again. It returns the error of who took the rows, if there was one.
func (r *rowReader) end() error {
	r.ctx, r.rows, r.reduced = nil, nil, nil
	r.wire.limit = math.MaxInt
	r.socket.Expect(0)
	return r.err
}

// held is how large a row may be to be held as it is: bytea grows by a third in a document.
func (r *rowReader) held() int { return r.limit - r.limit/4 }

// large decides how a message beyond the wire's limit is read.
func (r *rowReader) large(kind byte, size int) (taker, error) {
	if kind != 'D' {
		return nil, nil //nolint:nilnil // held
	}
	if r.err == nil {
		if err := r.rows.heavy(r.ctx); err != nil {
			return nil, err
		}
		if size <= r.held() {
			return nil, nil //nolint:nilnil // held
		}
	}
	r.reduced = newReducer(size, r.limit, func(_ uint32, column, n int) int { return r.rows.inDocument(column, n) })
	return r.reduced, nil
}

// Read implements io.Reader. It gives one message, or a part of one, and looks no further: what follows may be for somebody else by
// then.
func (r *rowReader) Read(p []byte) (int, error) {
	for len(r.ready) == 0 {
		kind, body, ok := r.wire.next()
		switch {
		case !ok:
			if n, err := r.wire.read(); n == 0 && err != nil {
				return 0, err
			}
		case kind == 'D' && r.rows != nil:
			r.row(body)
		default:
			r.ready = r.wire.buf[r.wire.r-len(body)-5 : r.wire.r]
		}
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

func (r *rowReader) row(body []byte) {
	if r.err != nil {
		return
	}
	var left []leftValue
	if r.reduced != nil {
		left, r.reduced = r.reduced.lacks, nil
	}
	r.err = r.rows.take(body, left)
}

// appendValues appends the values of a DataRow's body, which are parts of it; nil is null.
func appendValues(vals [][]byte, body []byte) ([][]byte, error) {
	if len(body) < 2 {
		return vals, errFrame
	}
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	for range n {
		if len(body) < 4 {
			return vals, errFrame
		}
		size := int(int32(binary.BigEndian.Uint32(body)))
		body = body[4:]
		if size == -1 {
			vals = append(vals, nil)
			continue
		}
		if size < 0 || len(body) < size {
			return vals, errFrame
		}
		vals = append(vals, body[:size:size])
		body = body[size:]
	}
	return vals, nil
}
