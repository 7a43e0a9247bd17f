package cdctest

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
)

// judge compares the captured documents of one table, in the order in which they come, with what the workload did to its
// rows. It is stricter than a destination would be: of every key, the documents of the log must be the key's events, one
// after the other, from some event on; and a row from a backfill must be what the event before it in the output left.
type judge struct {
	name    string
	key     []string // columns
	keyless bool
	history *history
	seen    map[string]seen
}

// seen is what was captured of one key. It is never changed, only replaced.
type seen struct {
	number   int                // of the last event; 0 if none, unknown if it was a delete and nothing before it
	alive    bool               // it left a row
	columns  map[string]*string // that the documents reduce to
	snapshot int                // keyless: the number of the row that came from the backfill; 0 if none did
	first    int                // keyless: the number of the first event from the log; 0 if none came
}

// unknown is the number of a delete that does not say which one it was.
const unknown = -1

// captured is one document, parsed.
type captured struct {
	op       byte
	snapshot bool
	columns  map[string]*string
	before   map[string]*string // nil if it has none
	v        int                // number in the row; 0 if the document lacks it
}

func (j *judge) reset() { j.seen = map[string]seen{} }

// begin begins the rows anew, as the table is backfilled again: every column of every row must come once more. That the log
// goes on without a gap stays as it is.
func (j *judge) begin() {
	for key, s := range j.seen {
		s.columns = nil
		j.seen[key] = s
	}
}

// take judges a document, and returns how to take it back.
func (j *judge) take(key string, d captured) (undo func(), err error) {
	was, known := j.seen[key]
	var now seen
	err = j.history.look(key, func(l *life) error {
		if j.keyless {
			now, err = keyless(l, was, d)
		} else {
			now, err = keyed(l, was, d)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	j.seen[key] = now
	return func() {
		if known {
			j.seen[key] = was
		} else {
			delete(j.seen, key)
		}
	}, nil
}

// keyed judges a document of a table with a key.
func keyed(l *life, was seen, d captured) (seen, error) {
	switch {
	case d.snapshot:
		return scanned(l, was, d)
	case d.op == 'd':
		return deleted(l, was, d)
	}
	if d.v == 0 {
		return was, errors.New("a changed row has no version")
	}
	if err := inOrder(l, was.number, d.v); err != nil {
		return was, err
	}
	if b := version(d.before); b != 0 && b != l.before(d.v) {
		return was, fmt.Errorf("version %d shows %d as the row before it", d.v, b)
	}
	if was.alive && d.op == 'c' && !l.truncatedBefore(d.v) {
		return was, errors.New("a row is created that is there already")
	}
	if was.number != 0 && !was.alive && d.op == 'u' {
		return was, errors.New("a row is updated that is not there")
	}
	now := seen{number: d.v, alive: true, columns: d.columns}
	if d.op == 'u' {
		now.columns = merge(was.columns, d.columns)
	}
	return now, matches(l, now, d)
}

// inOrder checks that an event is the one that follows another in a life.
func inOrder(l *life, last, number int) error {
	switch next := l.after(max(last, 0)); {
	case last == unknown:
		if b := l.before(number); b == 0 || l.events[b-1].op != 'd' {
			return fmt.Errorf("version %d follows a delete, but does not do so in the table", number)
		}
	case last == 0 || next == number:
	case number <= last:
		return fmt.Errorf("goes back in time from version %d to %d", last, number)
	case next == 0:
		return fmt.Errorf("version %d was never written, the last one is %d", number, last)
	default:
		return fmt.Errorf("version %d follows %d: version %d is missing", number, last, next)
	}
	return nil
}

// deleted judges a delete, which need not say what it deletes.
func deleted(l *life, was seen, d captured) (seen, error) {
	now := seen{number: unknown}
	switch {
	case was.number != 0 && !was.alive:
		return was, errors.New("a row is deleted twice")
	case was.number != 0:
		now.number = l.after(was.number)
		if d.v != 0 && d.v != was.number {
			return was, fmt.Errorf("version %d is deleted, but the last one was %d", d.v, was.number)
		}
	case d.v != 0:
		now.number = l.after(d.v)
	default:
		return now, nil
	}
	if e, ok := l.at(now.number); !ok || e.op != 'd' {
		return was, fmt.Errorf("a delete follows version %d, but in the table it does not", max(was.number, d.v))
	}
	return now, nil
}

// scanned judges a row from a backfill, or a part of one.
func scanned(l *life, was seen, d captured) (seen, error) {
	switch {
	case was.number != 0 && !was.alive:
		return was, errors.New("a backfill brings back a row that was deleted")
	case d.v == 0 && was.number == 0:
		return was, errors.New("a part of a row comes before the row")
	case d.v != 0 && was.number != 0 && d.v != was.number:
		return was, fmt.Errorf("a backfill brings version %d after version %d", d.v, was.number)
	}
	now := seen{number: max(d.v, was.number), alive: true, columns: merge(was.columns, d.columns)}
	return now, matches(l, now, d)
}

// keyless judges a document of a table without a key: a history of rows, in which nothing may come twice. The backfill may
// bring a row as it was before the log's first event of it, at any time, once.
func keyless(l *life, was seen, d captured) (seen, error) {
	now := was
	number := d.v
	if d.op == 'd' {
		number = l.after(d.v)
	}
	e, ok := l.at(number)
	switch {
	case d.v == 0:
		return was, errors.New("a document without a key lacks its row's version")
	case !ok:
		return was, fmt.Errorf("version %d was never written", d.v)
	case d.snapshot:
		if was.snapshot != 0 {
			return was, fmt.Errorf("a backfill brings the row twice, as version %d and %d", was.snapshot, d.v)
		}
		if was.first != 0 && l.before(was.first) != d.v {
			return was, fmt.Errorf("a backfill brings version %d, but the log brought version %d and what follows", d.v, was.first)
		}
		now.snapshot, now.number = d.v, max(was.number, d.v)
		return now, matches(l, seen{number: d.v, columns: d.columns}, d)
	case e.op != d.op:
		return was, fmt.Errorf("version %d comes as %c, but is %c", d.v, d.op, e.op)
	}
	if err := inOrder(l, was.number, number); err != nil {
		return was, err
	}
	if b := version(d.before); b != 0 && b != l.before(number) {
		return was, fmt.Errorf("version %d shows %d as the row before it", d.v, b)
	}
	now.number = number
	if was.first == 0 {
		now.first = number
	}
	return now, matches(l, seen{number: d.v, columns: d.columns}, d)
}

// matches checks that the columns which are known have the values of the event.
func matches(l *life, now seen, d captured) error {
	e, ok := l.at(now.number)
	if !ok {
		return fmt.Errorf("version %d was never written", now.number)
	}
	if !d.snapshot && !l.hot && e.op != d.op && d.op != 'd' {
		return fmt.Errorf("version %d comes as %c, but is %c", now.number, d.op, e.op)
	}
	if got, ok := now.columns["note"]; ok && text(got) != text(e.note) {
		return fmt.Errorf("version %d has note %s instead of %s", now.number, text(got), text(e.note))
	}
	if l.hot {
		return nil
	}
	if got, ok := now.columns["big"]; ok && text(got) != text(e.big) {
		return fmt.Errorf("version %d has big %s instead of %s", now.number, text(got), text(e.big))
	}
	if got := now.columns["tx"]; got != nil && *got != strconv.FormatInt(e.tx, 10) {
		return fmt.Errorf("version %d is of transaction %s instead of %d: that one was rolled back", now.number, *got, e.tx)
	}
	return nil
}

// missing says which rows the output lacks or has too many, once everything was captured. Rows of truncated tables may
// stay.
func (j *judge) missing(key string) error {
	s := j.seen[key]
	return j.history.look(key, func(l *life) error {
		last, alive, truncated := l.last()
		switch {
		case l.hot || last == 0:
		case alive && s.number == 0:
			return fmt.Errorf("version %d is missing, and all before it", last)
		case s.number != 0 && s.number != last && (s.number != unknown || l.events[last-1].op != 'd'):
			return fmt.Errorf("version %d is missing: the last one in the output is %d", last, s.number)
		case !j.keyless && s.alive != alive && !truncated:
			return errors.New("the row is in the output, but not in the table")
		}
		return nil
	})
}

// merge puts one document over another, without changing either.
func merge(under, over map[string]*string) map[string]*string {
	if under == nil {
		return over
	}
	m := maps.Clone(under)
	maps.Copy(m, over)
	return m
}

// version reads the number of a row; 0 if it is not there.
func version(columns map[string]*string) int {
	v := columns["v"]
	if v == nil {
		return 0
	}
	n, err := strconv.Atoi(*v)
	if err != nil {
		return 0
	}
	return n
}
