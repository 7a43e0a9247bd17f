package cdc

import (
	"fmt"
	"slices"
	"strings"
)

// simShadow is what the tables hold at a position in the log: what the output is compared with.
type simShadow struct {
	pos    int
	skips  bool // rows with values that are too large
	tables map[TableID]*shadowTable
}

type shadowTable struct {
	table    *simTable
	born     int // versions up to this one were of another table of this name
	rows     map[string]shadowRow
	dropped  map[string]bool // columns that are gone
	refilled map[string]bool // columns whose values changed without a word in the log
	// ghosts are keys that ended without a word in the log, by a truncation or with their table, and their last version:
	// the output may keep them.
	ghosts map[string]int
	// skipped are keys that had values too large for a document while these are skipped: nothing is sure of them any more.
	skipped map[string]bool
}

type shadowRow struct {
	vals map[string]string
	v    int
	part int // that brought it, or 0
	// unlogged are the columns whose values the log does not have. Documents get them when the row is read by key.
	unlogged []string
}

func newShadow(policy OversizePolicy) *simShadow {
	return &simShadow{tables: map[TableID]*shadowTable{}, skips: policy == OversizeSkip}
}

func (s *simShadow) create(t *simTable) {
	n := &shadowTable{table: t, born: t.born, rows: map[string]shadowRow{}, dropped: map[string]bool{}, refilled: map[string]bool{}, ghosts: map[string]int{}, skipped: map[string]bool{}}
	if old := s.tables[t.id]; old != nil {
		n.ghosts, n.skipped = old.ghosts, old.skipped
	}
	s.tables[t.id] = n
}

func (s *simShadow) alter(t *simTable, column string, refilled, dropped bool, f func(map[string]string)) {
	st := s.tables[t.id]
	if refilled || st.dropped[column] {
		st.refilled[column] = true
	}
	st.dropped[column] = dropped
	for k, row := range st.rows {
		st.rows[k] = shadowRow{with(row.vals, f), row.v, row.part, row.unlogged}
	}
}

func (s *simShadow) empty(t *simTable) {
	st := s.tables[t.id]
	for k, row := range st.rows {
		st.ghosts[k] = row.v
	}
	st.rows = map[string]shadowRow{}
}

func (s *simShadow) attach(t *simTable, rows []*simVersion) {
	for _, v := range rows {
		s.tables[t.id].rows[v.key] = shadowRow{v.vals, v.v, v.part, nil}
	}
}

func (s *simShadow) detach(t *simTable, keys []string) {
	st := s.tables[t.id]
	for _, k := range keys {
		st.ghosts[k] = st.rows[k].v
		delete(st.rows, k)
	}
}

// advance applies the log up to a position.
func (s *simShadow) advance(log []*simTxn, to int) {
	for ; s.pos < to; s.pos++ {
		txn := log[s.pos]
		if txn.ddl != nil {
			txn.ddl(s)
			continue
		}
		for _, w := range txn.writes {
			st := s.tables[w.table.id]
			var before shadowRow
			if w.before != nil {
				before = st.rows[w.before.key]
				delete(st.rows, w.before.key)
			}
			if w.row != nil {
				st.rows[w.row.key] = shadowRow{w.vals, w.v, before.part, w.unloggedSince(before.unlogged)}
				if s.skips && len(largeOf(w.schema, w.vals, nil, nil)) > 0 {
					st.skipped[w.row.key] = true
				}
			}
		}
	}
}

// unloggedSince are the columns whose values the log does not have after the write, of those of the row before.
func (w *simWrite) unloggedSince(before []string) (columns []string) {
	for _, c := range w.omitted {
		if w.old[c] != w.vals[c] || slices.Contains(before, c) {
			columns = append(columns, c)
		}
	}
	return columns
}

// simDoc is what the documents of one key reduce to. It does not change.
type simDoc struct {
	vals    map[string]string // null is simNull
	omitted map[string]int    // what _meta.omitted says
	v       int               // version of the row, or of its deletion
	deleted bool
	// outdated says that the row may have changed or ended in a log that was lost, and that not all of the document is newer.
	outdated bool
	count    int // documents
}

const simNull = "\x00"

// simReduced is the reduced output of one binding.
type simReduced struct {
	docs map[string]*simDoc
}

// parsed is one document.
type parsed struct {
	vals     map[string]string
	before   map[string]any
	omitted  map[string]int
	op       string
	v        int
	snapshot bool
}

// parseDoc parses what the simulated rows write: strings without escapes, null, true, and nested objects.
func parseDoc(doc []byte) (parsed, error) {
	p := docParser{text: string(doc)}
	top := p.object()
	if p.bad || p.text != "" {
		return parsed{}, fmt.Errorf("not a document: %s", doc)
	}
	d := parsed{vals: map[string]string{}, omitted: map[string]int{}}
	for k, x := range top {
		if text, ok := x.(string); ok {
			d.vals[k] = text
		}
	}
	meta, _ := top[metaColumn].(map[string]any)
	d.before, _ = meta["before"].(map[string]any)
	d.op, _ = meta["op"].(string)
	omitted, _ := meta["omitted"].(map[string]any)
	for k, x := range omitted {
		d.omitted[k], _ = x.(int)
	}
	source, _ := meta["source"].(map[string]any)
	d.snapshot, _ = source["snapshot"].(bool)
	v, _ := source["v"].(string)
	_, err := fmt.Sscan(v, &d.v)
	return d, err
}

type docParser struct {
	text string
	bad  bool
}

func (p *docParser) take(prefix string) bool {
	if strings.HasPrefix(p.text, prefix) {
		p.text = p.text[len(prefix):]
		return true
	}
	return false
}

func (p *docParser) object() map[string]any {
	m := map[string]any{}
	p.bad = p.bad || !p.take("{")
	for !p.bad && !p.take("}") {
		if len(m) > 0 {
			p.bad = p.bad || !p.take(",")
		}
		key := p.str()
		p.bad = p.bad || !p.take(":")
		if _, twice := m[key]; twice {
			p.bad = true
		}
		m[key] = p.value()
	}
	return m
}

func (p *docParser) str() string {
	p.bad = p.bad || !p.take(`"`)
	text, rest, ok := strings.Cut(p.text, `"`)
	p.bad = p.bad || !ok
	p.text = rest
	return text
}

func (p *docParser) value() any {
	switch {
	case p.take("null"):
		return simNull
	case p.take("true"):
		return true
	case strings.HasPrefix(p.text, "{"):
		return p.object()
	case p.text != "" && p.text[0] >= '0' && p.text[0] <= '9':
		n := 0
		for ; p.text != "" && p.text[0] >= '0' && p.text[0] <= '9'; p.text = p.text[1:] {
			n = 10*n + int(p.text[0]-'0')
		}
		return n
	default:
		return p.str()
	}
}

// ghost reports whether a version of a key ended without a word in the log.
func (st *shadowTable) ghost(key string, v int) bool {
	last, ok := st.ghosts[key]
	return v <= st.born || ok && v <= last
}

// compare checks a reduced document against the row that the table has at that moment. If whole, no value of a column that the
// binding captures may be missing.
func (st *shadowTable) compare(b *simBinding, doc *simDoc, row shadowRow, whole, strict bool) error {
	for c, x := range doc.vals {
		if st.dropped[c] || st.refilled[c] && !strict || slices.Contains(row.unlogged, c) && !whole && !strict {
			continue
		}
		want, ok := row.vals[c]
		if !ok {
			want = simNull
		}
		huge := int(hugeSize(want))
		if huge > 0 {
			want = simNull
		}
		if doc.omitted[c] != huge {
			return fmt.Errorf("of column %s %d bytes were omitted, in the output %d", c, huge, doc.omitted[c])
		}
		if x != want {
			return fmt.Errorf("column %s is %q, in the table %q", c, x, want)
		}
	}
	if !whole {
		return nil
	}
	names := make([]string, 0, len(row.vals))
	for c := range row.vals {
		names = append(names, c)
	}
	slices.Sort(names)
	for _, c := range names {
		if _, ok := doc.vals[c]; !ok && b.has(c) && !st.dropped[c] && (strict || !st.refilled[c]) {
			return fmt.Errorf("column %s is missing, in the table it is %q", c, row.vals[c])
		}
	}
	return nil
}
