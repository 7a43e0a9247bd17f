// Package compare holds a table against its copy in another database, row by row and column by column.
//
// Both sides are read sorted by the key and merged, so the size of a table does not matter. Values are compared as
// text, brought to one form in SQL by the type that they have in the source: a uuid that arrives as text is equal, and
// so is jsonb that arrives with other spacing; a numeric that lost its trailing zeros is not.
package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Pair names a table and its copy.
type Pair struct {
	// Source and Destination are the tables' names, each as schema and table or as the table alone.
	Source, Destination pgx.Identifier
	// Key are the source's columns that identify a row. Empty means the source's primary key, or, where there is none, all
	// columns: then the tables are compared as bags of rows, in which each row must be there equally often.
	Key []string
	// Renamed maps columns of the source to the destination's, where their names differ.
	Renamed map[string]string
	// Only, if it is not empty, is an SQL condition on the destination's rows: those that count.
	Only string
}

// Result is what a comparison found.
type Result struct {
	SourceRows, DestinationRows int
	// Differences counts rows that are missing, in excess or not equal.
	Differences int
	// Examples explains the first few of them, a line each.
	Examples []string
}

// Equal tells whether every row of the source is in the destination, once, and nothing else.
func (r Result) Equal() bool { return r.Differences == 0 }

// String is one line, or several when there are differences.
func (r Result) String() string {
	if r.Equal() {
		return fmt.Sprintf("%d rows, equal", r.SourceRows)
	}
	lines := []string{fmt.Sprintf("%d rows against %d in the copy, %d different", r.SourceRows, r.DestinationRows, r.Differences)}
	lines = append(lines, r.Examples...)
	if more := r.Differences - len(r.Examples); more > 0 {
		lines = append(lines, fmt.Sprintf("… and %d more", more))
	}
	return strings.Join(lines, "\n  ")
}

const maxExamples = 8

// Tables compares one pair. Each side is read by one statement, so it sees one moment of its database; for the result to
// mean anything, nobody may write to either meanwhile. A table that is missing, or lacks a column, is an error that
// errors.Is ErrShape.
func Tables(ctx context.Context, source, destination *pgx.Conn, pair Pair) (Result, error) {
	plan, err := plan(ctx, source, destination, pair)
	if err != nil {
		return Result{}, fmt.Errorf("comparing %s: %w", name(pair.Source), err)
	}
	// Cancelling ends whichever side is still being read.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	left, err := open(ctx, source, plan.sourceQuery, len(plan.key))
	if err != nil {
		return Result{}, fmt.Errorf("reading %s: %w", name(pair.Source), err)
	}
	defer left.rows.Close()
	right, err := open(ctx, destination, plan.destinationQuery, len(plan.key))
	if err != nil {
		return Result{}, fmt.Errorf("reading the copy %s: %w", name(pair.Destination), err)
	}
	defer right.rows.Close()
	m := merge{plan: plan}
	if err := m.run(left, right); err != nil {
		return Result{}, fmt.Errorf("comparing %s: %w", name(pair.Source), err)
	}
	return m.result, nil
}

// ErrShape says that a table is missing on one side, or a column.
var ErrShape = errors.New("the tables do not have the same columns")

// cursor reads one side. The columns of the key come first.
type cursor struct {
	rows   pgx.Rows
	key    int
	values [][]byte // of the current row, copied; nil when there is none
	count  int
}

func open(ctx context.Context, conn *pgx.Conn, query string, key int) (*cursor, error) {
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	c := &cursor{rows: rows, key: key}
	return c, c.next()
}

// next moves on. At the end values is nil.
func (c *cursor) next() error {
	if !c.rows.Next() {
		c.values = nil
		return c.rows.Err()
	}
	raw := c.rows.RawValues()
	if c.values == nil {
		c.values = make([][]byte, len(raw))
	}
	for i, v := range raw {
		if v == nil {
			c.values[i] = nil
			continue
		}
		c.values[i] = append(append(c.values[i][:0], '='), v...) // never nil, so that '' is not NULL
	}
	c.count++
	return nil
}

// merge walks both sides at once.
type merge struct {
	plan   *comparison
	result Result
}

func (m *merge) run(left, right *cursor) error {
	for left.values != nil || right.values != nil {
		order := m.order(left, right)
		switch {
		case order < 0:
			m.report("%s is missing in the copy: %s", m.identify(left.values), m.describe(left.values))
		case order > 0:
			m.report("%s is in the copy but not in the source: %s", m.identify(right.values), m.describe(right.values))
		default:
			m.columns(left.values, right.values)
		}
		if order <= 0 {
			if err := left.next(); err != nil {
				return fmt.Errorf("reading the source: %w", err)
			}
		}
		if order >= 0 {
			if err := right.next(); err != nil {
				return fmt.Errorf("reading the copy: %w", err)
			}
		}
	}
	m.result.SourceRows, m.result.DestinationRows = left.count, right.count
	return nil
}

// order compares the keys as both servers sorted them: bytewise, NULL last.
func (m *merge) order(left, right *cursor) int {
	switch {
	case left.values == nil:
		return 1
	case right.values == nil:
		return -1
	}
	for i := range left.key {
		a, b := left.values[i], right.values[i]
		switch {
		case a == nil && b == nil:
		case a == nil:
			return 1
		case b == nil:
			return -1
		default:
			if order := bytes.Compare(a, b); order != 0 {
				return order
			}
		}
	}
	return 0
}

func (m *merge) columns(left, right [][]byte) {
	var wrong []string
	for i := len(m.plan.key); i < len(left); i++ {
		if (left[i] == nil) != (right[i] == nil) || !bytes.Equal(left[i], right[i]) {
			wrong = append(wrong, fmt.Sprintf("%s is %s, the copy has %s", m.plan.columns[i], show(left[i]), show(right[i])))
		}
	}
	if len(wrong) > 0 {
		m.report("%s differs: %s", m.identify(left), strings.Join(wrong, "; "))
	}
}

func (m *merge) report(format string, args ...any) {
	m.result.Differences++
	if len(m.result.Examples) < maxExamples {
		m.result.Examples = append(m.result.Examples, fmt.Sprintf(format, args...))
	}
}

// identify names a row by its key; a row of a table without one by nothing but being a row.
func (m *merge) identify(values [][]byte) string {
	if len(m.plan.key) == len(m.plan.columns) {
		return "a row"
	}
	return m.list(values, 0, len(m.plan.key))
}

func (m *merge) describe(values [][]byte) string {
	from := len(m.plan.key)
	if from == len(m.plan.columns) {
		from = 0
	}
	return m.list(values, from, len(values))
}

func (m *merge) list(values [][]byte, from, to int) string {
	var parts []string
	for i := from; i < to; i++ {
		parts = append(parts, m.plan.columns[i]+" "+show(values[i]))
	}
	return strings.Join(parts, ", ")
}

// show renders a value of a cursor for people: quoted, and cut to what a line can hold.
func show(v []byte) string {
	const most = 60
	if v == nil {
		return "NULL"
	}
	text := string(v[1:])
	if len(text) > most {
		return fmt.Sprintf("%q… (%d bytes)", text[:most], len(text))
	}
	return fmt.Sprintf("%q", text)
}

func name(table pgx.Identifier) string { return strings.Join(table, ".") }
