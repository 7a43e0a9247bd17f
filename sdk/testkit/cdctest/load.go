package cdctest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// load is the workload of a stress: tables, what is done to their rows, and who does it.
type load struct {
	t       testing.TB
	b       Backend
	db      Database
	tables  []*loadTable
	writers []*walker

	tag            atomic.Int64 // of the last transaction
	events, alters atomic.Int64
	bigs           atomic.Uint64
}

// loadTable is one table. Its rows are numbered: the first ones walk, the others stand and are changed together, many at
// once. They make the backfill long enough to be written into and killed.
type loadTable struct {
	kind    kind
	keyless bool
	whole   bool // the log has whole rows
	ranged  bool // rows are in the order of their numbers
	history *history
	walking int   // rows that walk
	hot     []int // rows that all writers change at any time

	// shape is held by transactions as long as they last: shared by those that write rows, alone by one that alters.
	shape sync.RWMutex
	extra map[string]bool // columns that came and may go

	mu   sync.Mutex
	rows []*loadRow
}

// loadRow is one key of a table. Whoever holds it has it for a whole transaction.
type loadRow struct {
	n      int
	key    string // as documents have it
	held   bool
	alive  bool
	number int     // of its last event
	big    *string // as digest writes it
}

const (
	walkingRows  = 100 // over all tables with a key
	standingRows = 1500
	hotRows      = 3
	blockRows    = 50 // that are changed at once
)

func newLoad(t testing.TB, b Backend, db Database, seed uint64) *load {
	t.Helper()
	l := &load{t: t, b: b, db: db}
	for _, k := range kinds() {
		l.add(&loadTable{kind: k, walking: walkingRows / 4})
	}
	l.tables[0].ranged = true
	l.tables[0].hot = []int{-1, -2, -3}
	whole := kinds()[0]
	whole.name = "cdc_whole"
	l.add(&loadTable{kind: whole, walking: walkingRows / 4, whole: true, ranged: true})
	history := kinds()[0]
	history.name, history.create = "cdc_history", "id BIGINT NOT NULL"
	l.add(&loadTable{kind: history, walking: walkingRows / 2, whole: true, ranged: true, keyless: true})
	for i := range stressWriters {
		conn := db.Connect(t)
		t.Cleanup(func() { conn.Close(t) })
		l.writers = append(l.writers, &walker{load: l, conn: conn, rnd: rand.New(rand.NewPCG(seed, uint64(i)+2))})
	}
	return l
}

func (l *load) add(lt *loadTable) {
	lt.history, lt.extra = newHistory(), map[string]bool{}
	for n := range lt.walking + standingRows {
		lt.rows = append(lt.rows, &loadRow{n: n, key: lt.keyText(n)})
	}
	l.tables = append(l.tables, lt)
}

func (l *load) table(name string) *loadTable {
	i := slices.IndexFunc(l.tables, func(lt *loadTable) bool { return lt.kind.name == name })
	if i < 0 {
		return nil
	}
	return l.tables[i]
}

// keyText is a row's key as its documents have it.
func (lt *loadTable) keyText(n int) string {
	parts := lt.kind.keyOf(n)
	for i, p := range parts {
		parts[i] = strings.Trim(p, "'")
	}
	return strings.Join(parts, "|")
}

// fill makes the tables and the rows that are there before the capture begins: every other walking one, and those that
// stand.
func (l *load) fill() {
	for _, lt := range l.tables {
		l.db.Exec(l.t, "CREATE TABLE "+lt.kind.name+" ("+lt.kind.create+", v BIGINT, tx BIGINT, note TEXT, big TEXT)")
		if lt.whole && l.b.LogWholeRows != nil {
			l.db.Exec(l.t, l.b.LogWholeRows(lt.kind.name))
		}
		if lt.keyless { // else writers of different rows wait for each other, where a search locks what it looks at
			l.db.Exec(l.t, "CREATE INDEX "+lt.kind.name+"_id ON "+lt.kind.name+" ("+strings.Join(lt.kind.key, ", ")+")")
		}
		for _, sql := range lt.refill(func(r *loadRow) event {
			e := event{op: 'c', note: &r.key}
			if r.n%8 == 0 {
				e.big = l.big()
			}
			return e
		}, func(r *loadRow) bool { return r.n%2 == 0 || r.n >= lt.walking }) {
			l.db.Exec(l.t, sql)
		}
		for _, n := range lt.hot {
			note := hotNote(1)
			l.db.Exec(l.t, fmt.Sprintf("INSERT INTO %s (%s, v, tx, note) VALUES (%s, 1, 0, '%s')",
				lt.kind.name, strings.Join(lt.kind.key, ", "), strings.Join(lt.kind.keyOf(n), ", "), note))
			lt.history.add(lt.keyText(n), event{op: 'c', note: &note})
			lt.history.heat(lt.keyText(n))
		}
	}
}

// refill returns statements that insert those of the rows that are not there, and notes that in their history.
func (lt *loadTable) refill(with func(*loadRow) event, which func(*loadRow) bool) (sql []string) {
	var values []string
	flush := func() {
		if len(values) > 0 {
			sql = append(sql, "INSERT INTO "+lt.kind.name+" ("+strings.Join(lt.kind.key, ", ")+", v, tx, note, big) VALUES "+strings.Join(values, ", "))
		}
		values = nil
	}
	for _, r := range lt.rows {
		if r.alive || !which(r) {
			continue
		}
		e := with(r)
		values = append(values, fmt.Sprintf("(%s, %d, %d, %s, %s)", strings.Join(lt.kind.keyOf(r.n), ", "), r.number+1, e.tx, literal(e.note), literal(e.big)))
		lt.happened(r, e)
		if len(values) == 200 {
			flush()
		}
	}
	flush()
	return sql
}

// happened notes an event of a row.
func (lt *loadTable) happened(r *loadRow, e event) {
	r.number++
	r.alive = e.op != 'd' && e.op != truncation
	e.big = digest(e.big)
	r.big = e.big
	lt.history.add(r.key, e)
}

// extraColumns lists the columns that came and are there.
func (lt *loadTable) extraColumns() (names []string) {
	for name, there := range lt.extra {
		if there {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// hold takes rows for a transaction.
func (lt *loadTable) hold(rows ...*loadRow) bool {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	if slices.ContainsFunc(rows, func(r *loadRow) bool { return r.held }) {
		return false
	}
	for _, r := range rows {
		r.held = true
	}
	return true
}

func (lt *loadTable) release(r *loadRow) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	r.held = false
}

// big is a value for column big: out of line every other time.
func (l *load) big() *string {
	n := l.bigs.Add(1)
	v := "small " + strconv.FormatUint(n, 10)
	if l.b.Big != nil && n%2 == 0 {
		v = l.b.Big(n)
		require.NotContains(l.t, v, "'")
	}
	return &v
}

// literal writes a value as SQL. The values of the stress need no escapes.
func literal(v *string) string {
	if v == nil {
		return "NULL"
	}
	return "'" + *v + "'"
}
