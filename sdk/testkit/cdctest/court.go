package cdctest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// court takes the whole output of a capture, and has each table's judge look at it.
type court struct {
	journal
	trace  *trace
	judges []*judge // by binding

	tags       map[int64]int // transaction → checkpoint that it came with
	checkpoint int
	ends       int // of the connector by itself, since it last captured something

	documents, checkpoints int // that came, those set back included
}

// verdict is something wrong with the output of one row.
type verdict struct {
	table, key string
	err        error
}

func (v *verdict) Error() string { return fmt.Sprintf("table %s, key %s: %v", v.table, v.key, v.err) }
func (v *verdict) Unwrap() error { return v.err }

func (c *court) judge(table string) *judge {
	return c.judges[slices.IndexFunc(c.judges, func(j *judge) bool { return j.name == table })]
}

// take implements output.
func (c *court) take(tx *session.Transaction) error {
	c.checkpoint++
	c.checkpoints++
	c.add(func() { c.checkpoint-- })
	for _, d := range tx.Documents {
		c.ends = 0
		c.documents++
		if err := c.hear(c.judges[d.Binding], d.Doc); err != nil {
			return err
		}
	}
	return nil
}

// hear has one document judged.
func (c *court) hear(j *judge, text json.RawMessage) error {
	wrong := func(key string, err error) error { return &verdict{table: j.name, key: key, err: err} }
	d, err := read(text)
	if err != nil {
		return wrong("?", fmt.Errorf("reading %s: %w", text, err))
	}
	key, err := keyOf(d.columns, j.key)
	if err != nil {
		return wrong("?", fmt.Errorf("%w: %s", err, text))
	}
	c.trace.document(c.checkpoint, j.name, key, d)
	undo, err := j.take(key, d)
	if err != nil {
		return wrong(key, err)
	}
	c.add(undo)
	if tx := d.columns["tx"]; tx != nil && !d.snapshot && d.op != 'd' {
		if err := c.whole(*tx); err != nil {
			return wrong(key, err)
		}
	}
	return nil
}

// whole checks that a transaction is not split by a checkpoint.
func (c *court) whole(tx string) error {
	tag, err := strconv.ParseInt(tx, 10, 64)
	if err != nil {
		return err
	}
	at, known := c.tags[tag]
	if !known {
		c.tags[tag] = c.checkpoint
		c.add(func() { delete(c.tags, tag) })
		return nil
	}
	if at != c.checkpoint {
		return fmt.Errorf("transaction %d comes with checkpoint %d, but began with %d", tag, c.checkpoint, at)
	}
	return nil
}

// anew begins the output of tables from nothing.
func (c *court) anew(judges ...*judge) {
	for _, j := range judges {
		j.reset()
	}
	if len(judges) == len(c.judges) {
		c.tags = map[int64]int{}
	}
	c.journal = journal{base: c.mark()}
}

// read parses a document.
func read(text json.RawMessage) (captured, error) {
	row, meta, err := parse(text)
	if err != nil {
		return captured{}, err
	}
	if len(meta.Op) != 1 {
		return captured{}, fmt.Errorf("the operation is %q", meta.Op)
	}
	d := captured{op: meta.Op[0], snapshot: meta.Source.Snapshot, columns: row.columns}
	for name, v := range d.columns {
		d.columns[name] = digest(v)
	}
	d.v = version(d.columns)
	d.before, err = values(meta.Before)
	return d, err
}

// compare compares what was captured of a table with what it holds.
func (j *judge) compare(t testing.TB, db Database, lt *loadTable) error {
	t.Helper()
	wrong := func(key, format string, args ...any) error {
		return &verdict{table: j.name, key: key, err: fmt.Errorf(format, args...)}
	}
	columns := slices.Concat(lt.kind.key, []string{"v", "tx", "note", "big"})
	if !j.keyless { // documents of rows without a key keep the form that they had
		columns = append(columns, lt.extraColumns()...)
	}
	present := map[string]bool{}
	for _, row := range db.Query(t, "SELECT "+strings.Join(columns, ", ")+" FROM "+j.name) {
		values := map[string]*string{}
		for i, v := range row {
			values[columns[i]] = digest(v)
		}
		key, err := keyOf(values, lt.kind.key)
		if err != nil {
			return err
		}
		present[key] = true
		if j.keyless {
			continue // missing has looked at it
		}
		s := j.seen[key]
		if !s.alive {
			return wrong(key, "the row is missing")
		}
		for _, name := range columns {
			got, ok := s.columns[name]
			if !ok && values[name] != nil { // a new column without a default is in no document yet
				return wrong(key, "column %s is missing; it is %s", name, text(values[name]))
			}
			if text(got) != text(values[name]) {
				return wrong(key, "column %s is %s instead of %s", name, text(got), text(values[name]))
			}
		}
	}
	return j.history.differs(j.name, present)
}

// differs checks that the history knows which rows the table has: else the stress itself is wrong.
func (h *history) differs(table string, present map[string]bool) error {
	for _, key := range h.keys() {
		err := h.look(key, func(l *life) error {
			if _, alive, _ := l.last(); alive != present[key] && !l.hot {
				return fmt.Errorf("the history of the stress says that there is a row: %v; the table: %v", alive, present[key])
			}
			return nil
		})
		if err != nil {
			return &verdict{table: table, key: key, err: err}
		}
	}
	return nil
}
