// Package rowjson appends rows as JSON. What can be decided once for a table (the order of its columns, their quoted
// names, how each value is written) is decided once, in a Shape; a row then costs one append per value, without
// allocation and without a map.
package rowjson

import (
	"fmt"
	"slices"
)

// Encoder appends one value as JSON to dst and returns the extended slice. V is the form a driver holds values in: wire
// bytes for one database, any for another. An encoder may be called from many goroutines.
type Encoder[V any] func(dst []byte, v V) ([]byte, error)

// Shape is how the rows of one version of a table are written. It is immutable and may be used from any goroutine.
type Shape[V any] struct {
	fields []field[V] // sorted by name
}

type field[V any] struct {
	index  int               // of the value in a row
	name   string            // for errors
	first  []byte            // "name":
	next   []byte            // ,"name":
	short  *[shortLabel]byte // next, if it is no longer than that
	encode Encoder[V]
}

// shortLabel is how long a member's name is, with what is around it, that is copied without a call.
const shortLabel = 16

// New plans the shape of rows whose i-th value is called names[i] and written by encs[i]. Members are written sorted by
// name; a value whose encoder is nil is left out of every row. New panics if the lengths differ, which is a mistake of the program, and keeps neither slice.
func New[V any](names []string, encs []Encoder[V]) *Shape[V] {
	if len(names) != len(encs) {
		panic(fmt.Sprintf("rowjson: %d names with %d encoders", len(names), len(encs)))
	}
	s := &Shape[V]{fields: make([]field[V], 0, len(names))}
	for i, name := range names {
		if encs[i] == nil {
			continue
		}
		quoted := append(AppendString([]byte{','}, []byte(name)), ':')
		f := field[V]{index: i, name: name, first: quoted[1:], next: quoted, encode: encs[i]}
		if len(quoted) <= shortLabel {
			f.short = new([shortLabel]byte)
			copy(f.short[:], quoted)
		}
		s.fields = append(s.fields, f)
	}
	slices.SortStableFunc(s.fields, func(a, b field[V]) int {
		switch {
		case a.name < b.name:
			return -1
		case a.name > b.name:
			return 1
		}
		return 0
	})
	return s
}

// AppendFields appends the row as JSON members without braces: "a":1,"b":"x". Values for which omit returns true are left
// out; a nil omit leaves out none. An error names the column; dst is then returned as it was.
func (s *Shape[V]) AppendFields(dst []byte, vals []V, omit func(V) bool) ([]byte, error) {
	start := len(dst)
	for i := range s.fields {
		f := &s.fields[i]
		if f.index >= len(vals) {
			return dst[:start], fmt.Errorf("encoding column %q: the row has only %d values", f.name, len(vals))
		}
		v := vals[f.index]
		if omit != nil && omit(v) {
			continue
		}
		switch n := len(dst); {
		case n == start:
			dst = append(dst, f.first...)
		case f.short != nil && cap(dst)-n >= shortLabel:
			copy(dst[n:n+shortLabel], f.short[:]) // what is too much is overwritten
			dst = dst[:n+len(f.next)]
		default:
			dst = append(dst, f.next...)
		}
		var err error
		if dst, err = f.encode(dst, v); err != nil {
			return dst[:start], fmt.Errorf("encoding column %q: %w", f.name, err)
		}
	}
	return dst, nil
}
