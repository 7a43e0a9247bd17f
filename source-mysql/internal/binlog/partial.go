package binlog

import "fmt"

// absent stands for a value that a row does not have. It is told by its address.
var absent = make([]byte, 1) //nolint:gochecknoglobals // never written to

// IsAbsent reports whether a value that NextPart gave stands for one that the row does not have: binlog_row_image is not FULL.
func IsAbsent(v []byte) bool { return len(v) == 1 && &v[0] == &absent[0] }

// IsDiff reports whether what the last call of NextPart gave for a column is what to do to the old row's value: a list of changes of
// parts of a JSON value. Only new rows of updates have such.
func (r *Rows) IsDiff(column int) bool {
	return r.diffs != nil && !r.second && r.diffs[column>>3]&(1<<(column&7)) != 0
}

// NextPart is Next for rows that need not have all columns: IsAbsent tells those that they lack, IsDiff those that it has changes of. It
// must be used for all rows of an event, or for none.
func (r *Rows) NextPart(t *Table, vals [][]byte) ([][]byte, error) {
	if len(t.Columns) != r.columns {
		return vals, fmt.Errorf("%w: a row of table %s.%s has %d columns instead of %d", ErrFormat, t.Schema, t.Name, r.columns, len(t.Columns))
	}
	present := r.present
	if r.update && r.second {
		present = r.presentN
		if err := r.parseDiffs(t); err != nil {
			return vals, err
		}
	}
	r.second = !r.second
	n := 0
	for i := range r.columns {
		if present[i>>3]&(1<<(i&7)) != 0 {
			n++
		}
	}
	bitmap := (n + 7) / 8
	if len(r.rest) < bitmap {
		return vals, fmt.Errorf("%w: a row of table %s.%s ends early", ErrFormat, t.Schema, t.Name)
	}
	nulls, b := r.rest[:bitmap], r.rest[bitmap:]
	n = 0
	for i := range t.Columns {
		if present[i>>3]&(1<<(i&7)) == 0 {
			vals = append(vals, absent)
			continue
		}
		null := nulls[n>>3]&(1<<(n&7)) != 0
		if n++; null {
			vals = append(vals, nil)
			continue
		}
		from, to := t.Columns[i].extent(b)
		if to > len(b) || from > to {
			return vals, fmt.Errorf("%w: a row of table %s.%s ends in column %d", ErrFormat, t.Schema, t.Name, i+1)
		}
		v, err := t.Columns[i].value(b[from:to:to])
		if err != nil {
			return vals, fmt.Errorf("reading a row of table %s.%s, column %d: %w", t.Schema, t.Name, i+1, err)
		}
		vals = append(vals, v)
		b = b[to:]
	}
	if len(b) == len(r.rest) {
		b = nil // rows without any column would never end
	}
	r.rest = b
	return vals, nil
}

// parseDiffs reads, in front of a new row, for which of its columns it has changes: one bit for each JSON column, also of those that
// the row lacks.
func (r *Rows) parseDiffs(t *Table) error {
	if r.diffs == nil {
		return nil
	}
	const partialJSON = 1
	clear(r.diffs)
	c := cursor{b: r.rest}
	if c.packed()&partialJSON != 0 {
		documents := 0
		for i := range t.Columns {
			if t.Columns[i].Type == TypeJSON {
				documents++
			}
		}
		bits, n := c.take((documents+7)/8), 0
		for i := range t.Columns {
			if t.Columns[i].Type != TypeJSON || c.failed {
				continue
			}
			if bits[n>>3]&(1<<(n&7)) != 0 {
				r.diffs[i>>3] |= 1 << (i & 7)
			}
			n++
		}
	}
	if c.failed {
		return fmt.Errorf("%w: a row of table %s.%s ends early", ErrFormat, t.Schema, t.Name)
	}
	r.rest = c.b
	return nil
}
