package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/endpoint"
)

// session is a connection on which statements are run, one at a time. It belongs to one goroutine.
type session struct {
	wire   *wire
	socket *endpoint.LowWater // below it
	broken bool               // it must not be used again
	mark   bool               // see openTransactions
	vals   [][]byte
	id     uint32 // the server's number of the connection
}

const (
	comQuit           = 1
	comQuery          = 3
	comBinlogDump     = 18
	comRegisterSlave  = 21
	comBinlogDumpGTID = 30
)

// resultColumn is a column of a result, as the server describes it.
type resultColumn struct {
	name      string
	collation int
	typ       byte
	flags     uint16
	decimals  byte
}

// serverError is what the server says of a statement that failed.
type serverError struct {
	code    uint16
	state   string
	message string
}

func (e *serverError) Error() string {
	return fmt.Sprintf("%s (%d, %s)", e.message, e.code, e.state)
}

func errorOf(payload []byte) error {
	if len(payload) < 3 {
		return fmt.Errorf("%w: an error of %d bytes", errPacket, len(payload))
	}
	e := &serverError{code: binary.LittleEndian.Uint16(payload[1:])}
	rest := payload[3:]
	if len(rest) >= 6 && rest[0] == '#' {
		e.state, rest = string(rest[1:6]), rest[6:]
	}
	e.message = string(rest)
	return e
}

// code is the server's number of an error, or 0.
func code(err error) uint16 {
	if e, ok := errors.AsType[*serverError](err); ok {
		return e.code
	}
	return 0
}

// message is what the server says of an error, without numbers.
func message(err error) string {
	if e, ok := errors.AsType[*serverError](err); ok {
		return e.message
	}
	return err.Error()
}

// query runs a statement. begin gets the result's columns (it may be nil), each the values of a row as the server prints them, nil
// being null; they are valid until it returns. An error of either ends the session, unless the result has ended.
func (s *session) query(ctx context.Context, sql string, begin func([]resultColumn) error, each func([][]byte) error) error {
	return s.guarded(ctx, func() error {
		columns, err := s.run(ctx, sql, begin)
		if columns == 0 || err != nil {
			return err
		}
		return s.rows(ctx, columns, each)
	})
}

// start runs a statement that gives rows, which rest reads. Until it has read all of them, nothing else can be run.
func (s *session) start(ctx context.Context, sql string, begin func([]resultColumn) error) (columns int, err error) {
	err = s.guarded(ctx, func() error {
		columns, err = s.run(ctx, sql, begin)
		return err
	})
	return columns, err
}

// rest reads the rows of a statement that was started, as query does. If each returns errFull, the session lives on, and rest can be
// called again.
func (s *session) rest(ctx context.Context, columns int, each func([][]byte) error) error {
	full := false
	err := s.guarded(ctx, func() error {
		err := s.rows(ctx, columns, each)
		if full = errors.Is(err, errFull); full {
			return nil
		}
		return err
	})
	if full && err == nil {
		return errFull
	}
	return err
}

// guarded runs f, which ends with the context. What it leaves behind of the session after an error is not known, unless the error is the
// server's.
func (s *session) guarded(ctx context.Context, f func() error) error {
	if s.broken {
		return &lostError{errors.New("it was given up")}
	}
	stop := context.AfterFunc(ctx, func() { _ = s.wire.conn.SetDeadline(time.Unix(1, 0)) }) // the reads then fail
	err := f()
	if !stop() && err == nil {
		s.broken = true // the deadline may fall into the next statement
	}
	if _, ok := errors.AsType[*serverError](err); err != nil && !ok {
		s.broken = true
	}
	if err != nil && ctx.Err() != nil {
		s.broken = true
		return ctx.Err()
	}
	return err
}

// run sends a statement and reads the answer up to the rows, of which it gives how many columns they have; 0 if there are none to come.
func (s *session) run(ctx context.Context, sql string, begin func([]resultColumn) error) (int, error) {
	if err := s.wire.send(comQuery, []byte(sql)); err != nil {
		return 0, &lostError{err}
	}
	first, err := s.read(ctx)
	if err != nil {
		return 0, err
	}
	if len(first) == 0 {
		return 0, fmt.Errorf("%w: an empty answer", errPacket)
	}
	switch first[0] {
	case 0:
		return 0, nil
	case 0xff:
		return 0, errorOf(first)
	}
	count, _, ok := packedNumber(first)
	if !ok || count == 0 || count > 4096 {
		return 0, fmt.Errorf("%w: a result of %d columns", errPacket, count)
	}
	columns := make([]resultColumn, count)
	for i := range columns {
		payload, err := s.read(ctx)
		if err != nil {
			return 0, err
		}
		if columns[i], err = parseColumn(payload); err != nil {
			return 0, err
		}
	}
	if _, err := s.read(ctx); err != nil { // the end of the columns
		return 0, err
	}
	if begin != nil {
		return len(columns), begin(columns)
	}
	return len(columns), nil
}

// read gives the next packet.
func (s *session) read(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for {
		payload, ok, err := s.wire.packet()
		if ok || err != nil {
			return payload, err
		}
		got, err := s.wire.fill(time.Now().Add(time.Second))
		if err != nil {
			return nil, err
		}
		if !got && ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (s *session) rows(ctx context.Context, count int, each func([][]byte) error) error {
	for {
		row, err := s.read(ctx)
		if err != nil {
			return err
		}
		if len(row) > 0 && row[0] == 0xfe && len(row) < 9 {
			return nil
		}
		if len(row) > 0 && row[0] == 0xff {
			return errorOf(row)
		}
		s.vals = s.vals[:0]
		for range count {
			if len(row) > 0 && row[0] == 0xfb {
				s.vals, row = append(s.vals, nil), row[1:]
				continue
			}
			n, rest, ok := packedNumber(row)
			if !ok || n > uint64(len(rest)) {
				return fmt.Errorf("%w: a row that ends early", errPacket)
			}
			s.vals, row = append(s.vals, rest[:n:n]), rest[n:]
		}
		if each != nil {
			if err := each(s.vals); err != nil {
				return err
			}
		}
	}
}

// packedNumber reads a number of variable length at the front of b.
func packedNumber(b []byte) (n uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	var size int
	switch b[0] {
	case 0xfc:
		size = 2
	case 0xfd:
		size = 3
	case 0xfe:
		size = 8
	case 0xfb, 0xff:
		return 0, nil, false
	default:
		return uint64(b[0]), b[1:], true
	}
	if len(b) < 1+size {
		return 0, nil, false
	}
	for i := range size {
		n |= uint64(b[1+i]) << (8 * i)
	}
	return n, b[1+size:], true
}

func parseColumn(b []byte) (resultColumn, error) {
	var texts [6][]byte // catalog, schema, table, table's own name, name, column's own name
	for i := range texts {
		n, rest, ok := packedNumber(b)
		if !ok || n > uint64(len(rest)) {
			return resultColumn{}, fmt.Errorf("%w: a column's description that ends early", errPacket)
		}
		texts[i], b = rest[:n], rest[n:]
	}
	if len(b) < 12 {
		return resultColumn{}, fmt.Errorf("%w: a column's description that ends early", errPacket)
	}
	return resultColumn{
		name: string(texts[4]), collation: int(binary.LittleEndian.Uint16(b[1:])), typ: b[7],
		flags: binary.LittleEndian.Uint16(b[8:]), decimals: b[10],
	}, nil
}

// exec runs a statement and throws its rows away.
func (s *session) exec(ctx context.Context, sql string) error { return s.query(ctx, sql, nil, nil) }

// texts runs a statement and gives its rows as texts; null is empty.
func (s *session) texts(ctx context.Context, sql string) ([][]string, error) {
	var out [][]string
	err := s.query(ctx, sql, nil, func(vals [][]byte) error {
		row := make([]string, len(vals))
		for i, v := range vals {
			row[i] = string(v)
		}
		out = append(out, row)
		return nil
	})
	return out, err
}

// row runs a statement that gives one row, and gives that, or nothing.
func (s *session) row(ctx context.Context, sql string) ([]string, error) {
	rows, err := s.texts(ctx, sql)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return rows[0], nil
}

// close ends the session.
func (s *session) close() error {
	if !s.broken {
		_ = s.wire.conn.SetWriteDeadline(time.Now().Add(time.Second)) // a farewell that nobody needs
		_ = s.wire.send(comQuit, nil)
	}
	s.broken = true
	if err := s.wire.conn.Close(); err != nil {
		return fmt.Errorf("closing a connection: %w", err)
	}
	return nil
}

// quoteName writes a name as an identifier.
func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// quoteText writes a text as a literal that holds no character of it, so that no setting changes its meaning.
func quoteText(text string) string {
	if text == "" {
		return "''"
	}
	return fmt.Sprintf("_utf8mb4 X'%x'", text)
}
