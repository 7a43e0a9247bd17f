package cdctest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// walker is one session that writes for a stress.
type walker struct {
	load *load
	conn Session
	rnd  *rand.Rand

	// Of the transaction in progress.
	tag    int64
	tables []*loadTable
	alters *loadTable // the one whose shape it may change
	held   []heldRow
	done   []step
}

type heldRow struct {
	table *loadTable
	row   *loadRow
}

// step is how to take back what a statement did to the stress's own notes.
type step func()

// work runs transactions until it is told to stop.
func (w *walker) work(stop <-chan struct{}) {
	for running(stop, time.Duration(w.rnd.IntN(12))*time.Millisecond) {
		w.transaction()
	}
}

// transaction does one to three things most of the time, and many at times; to some of the tables; in parts that may be
// rolled back alone; and ends in a rollback at times.
func (w *walker) transaction() {
	w.tag = w.load.tag.Add(1)
	w.choose()
	defer w.let()
	if w.alters != nil && !w.load.b.AlterInTransaction {
		w.alter()
		return
	}
	w.exec("BEGIN")
	statements := 1 + w.rnd.IntN(3)
	if w.rnd.IntN(8) == 0 {
		statements = 1 + w.rnd.IntN(60)
	}
	alterAt := w.rnd.IntN(statements)
	for i := range statements {
		if w.alters != nil && i == alterAt {
			w.alter()
		}
		if w.rnd.IntN(8) == 0 && !slices.ContainsFunc(w.tables, func(lt *loadTable) bool { return lt.keyless }) {
			w.part()
		} else {
			w.step()
		}
	}
	if w.rnd.IntN(8) == 0 {
		w.exec("ROLLBACK")
		w.back(0)
		return
	}
	if w.rnd.IntN(3) == 0 && len(w.tables[0].hot) > 0 {
		w.heat(w.tables[0])
	}
	w.exec("COMMIT")
	w.load.events.Add(int64(len(w.done)))
}

func (w *walker) exec(sql string) { w.conn.Exec(w.load.t, sql) }

// choose takes the tables of a transaction, in one order for all, so that none waits for another in a circle.
func (w *walker) choose() {
	w.alters = nil
	alter := w.rnd.IntN(60) == 0
	for _, lt := range w.load.tables {
		if w.rnd.IntN(5) < 2 {
			w.tables = append(w.tables, lt)
		}
	}
	if len(w.tables) == 0 {
		w.tables = append(w.tables, w.load.tables[w.rnd.IntN(len(w.load.tables))])
	}
	if alter {
		w.alters = w.tables[w.rnd.IntN(len(w.tables))]
	}
	for _, lt := range w.tables {
		if lt == w.alters {
			lt.shape.Lock()
		} else {
			lt.shape.RLock()
		}
	}
}

// let gives everything back that the transaction holds.
func (w *walker) let() {
	for _, h := range w.held {
		h.table.release(h.row)
	}
	for _, lt := range w.tables {
		if lt == w.alters {
			lt.shape.Unlock()
		} else {
			lt.shape.RUnlock()
		}
	}
	w.tables, w.held, w.done = nil, nil, nil
}

// back takes the notes back to a number of steps.
func (w *walker) back(to int) {
	for len(w.done) > to {
		last := len(w.done) - 1
		w.done[last]()
		w.done = w.done[:last]
	}
}

// part does some steps in a savepoint, of which it may think better.
func (w *walker) part() {
	before := len(w.done)
	w.exec("SAVEPOINT part")
	for range 1 + w.rnd.IntN(4) {
		w.step()
	}
	if w.rnd.IntN(2) == 0 {
		w.exec("ROLLBACK TO SAVEPOINT part")
		w.back(before)
	}
	w.exec("RELEASE SAVEPOINT part")
}

// happened notes an event of a row so that it can be taken back.
func (w *walker) happened(lt *loadTable, r *loadRow, e event) {
	was := *r
	e.tx = w.tag
	lt.happened(r, e)
	w.done = append(w.done, func() {
		r.number, r.alive, r.big = was.number, was.alive, was.big
		lt.history.undo(r.key)
	})
}

// pick returns a row that this transaction holds from now on; nil if all that it looked at are taken.
func (w *walker) pick(lt *loadTable, alive bool) *loadRow {
	for range 10 {
		n := w.rnd.IntN(lt.walking)
		if w.rnd.IntN(20) == 0 {
			n = w.rnd.IntN(len(lt.rows))
		}
		r := lt.rows[n]
		mine := slices.ContainsFunc(w.held, func(h heldRow) bool { return h.row == r })
		if !mine && !lt.hold(r) {
			continue
		}
		if !mine {
			w.held = append(w.held, heldRow{lt, r})
		}
		if r.alive == alive {
			return r
		}
	}
	return nil
}

// step does one thing to one row, or to a block of them.
func (w *walker) step() {
	lt := w.tables[w.rnd.IntN(len(w.tables))]
	what := w.rnd.IntN(100)
	r := w.pick(lt, what >= 30)
	if r == nil {
		return
	}
	switch {
	case what < 30:
		w.insert(lt, r)
	case what < 55:
		w.update(lt, r, w.note(), r.big, "")
	case what < 68:
		big := w.load.big()
		w.update(lt, r, w.note(), big, ", big = "+literal(big))
	case what < 74:
		// A column that came, if there is one; the note becomes null.
		set := ""
		for _, name := range lt.extraColumns() {
			set = fmt.Sprintf(", %s = %d", name, w.rnd.IntN(1000))
		}
		w.update(lt, r, nil, r.big, set)
	case what < 76 && lt.ranged:
		w.block(lt)
	case what < 86 && !lt.keyless:
		if to := w.pick(lt, false); to != nil {
			w.move(lt, r, to)
		}
	default:
		w.exec("DELETE FROM " + lt.kind.name + " WHERE " + lt.kind.where(r.n))
		w.happened(lt, r, event{op: 'd'})
	}
}

func (w *walker) note() *string {
	s := "note " + strconv.Itoa(w.rnd.IntN(1_000_000))
	return &s
}

func (w *walker) insert(lt *loadTable, r *loadRow) {
	e := event{op: 'c', note: w.note(), big: w.load.big()}
	w.exec(fmt.Sprintf("INSERT INTO %s (%s, v, tx, note, big) VALUES (%s, %d, %d, %s, %s)", lt.kind.name,
		strings.Join(lt.kind.key, ", "), strings.Join(lt.kind.keyOf(r.n), ", "), r.number+1, w.tag, literal(e.note), literal(e.big)))
	w.happened(lt, r, e)
}

func (w *walker) update(lt *loadTable, r *loadRow, note, big *string, set string) {
	w.exec(fmt.Sprintf("UPDATE %s SET v = %d, tx = %d, note = %s%s WHERE %s", lt.kind.name, r.number+1, w.tag, literal(note), set, lt.kind.where(r.n)))
	w.happened(lt, r, event{op: 'u', note: note, big: big})
}

// move changes a row's key. Its large value goes along.
func (w *walker) move(lt *loadTable, from, to *loadRow) {
	note := w.note()
	sets := make([]string, len(lt.kind.key))
	for i, v := range lt.kind.keyOf(to.n) {
		sets[i] = lt.kind.key[i] + " = " + v
	}
	w.exec(fmt.Sprintf("UPDATE %s SET %s, v = %d, tx = %d, note = %s WHERE %s", lt.kind.name, strings.Join(sets, ", "), to.number+1, w.tag, literal(note), lt.kind.where(from.n)))
	big := from.big
	w.happened(lt, from, event{op: 'd'})
	w.happened(lt, to, event{op: 'c', note: note, big: big})
}

// block changes many rows with one statement.
func (w *walker) block(lt *loadTable) {
	first := lt.walking + w.rnd.IntN((len(lt.rows)-lt.walking)/blockRows)*blockRows
	rows := lt.rows[first : first+blockRows]
	if !lt.hold(rows...) {
		return
	}
	note := w.note()
	w.exec(fmt.Sprintf("UPDATE %s SET v = v + 1, tx = %d, note = %s WHERE id >= %d AND id < %d", lt.kind.name, w.tag, literal(note), first, first+blockRows))
	for _, r := range rows {
		w.held = append(w.held, heldRow{lt, r})
		if r.alive {
			w.happened(lt, r, event{op: 'u', note: note, big: r.big})
		}
	}
}

// heat changes a row that others may be changing: this one waits for them, or they for it. It is the last thing that a
// transaction does, so that none waits in a circle.
func (w *walker) heat(lt *loadTable) {
	n := lt.hot[w.rnd.IntN(len(lt.hot))]
	w.exec(fmt.Sprintf("UPDATE %s SET note = concat('hot ', v + 1), v = v + 1, tx = %d WHERE %s", lt.kind.name, w.tag, lt.kind.where(n)))
}

// extraPrefix begins the names of columns that come and go. There are few of them, so that they come back under names that
// others had.
const extraPrefix = "x"

// alter changes the shape of a table that nobody else writes to, or empties it.
func (w *walker) alter() {
	lt := w.alters
	if w.rnd.IntN(6) == 0 && len(lt.hot) == 0 {
		w.truncate(lt)
		return
	}
	name := extraPrefix + strconv.Itoa(w.rnd.IntN(3))
	there := lt.extra[name]
	sql := "ALTER TABLE " + lt.kind.name + " DROP COLUMN " + name
	if !there {
		sql = "ALTER TABLE " + lt.kind.name + " ADD COLUMN " + name + " INTEGER"
		if w.rnd.IntN(4) > 0 {
			sql += " DEFAULT " + strconv.Itoa(w.rnd.IntN(1000))
		}
	}
	w.exec(sql)
	lt.extra[name] = !there
	w.load.alters.Add(1)
	w.done = append(w.done, func() { lt.extra[name] = there })
}

// truncate empties a table, and fills the rows that stand in again.
func (w *walker) truncate(lt *loadTable) {
	w.exec("TRUNCATE TABLE " + lt.kind.name)
	if !w.load.b.AlterInTransaction { // then the truncation was a transaction of its own
		w.exec("BEGIN")
		defer w.exec("COMMIT")
	}
	for _, r := range lt.rows {
		if r.alive {
			w.happened(lt, r, event{op: truncation})
		}
	}
	for _, sql := range lt.refill(func(r *loadRow) event {
		was := *r
		w.done = append(w.done, func() {
			r.number, r.alive, r.big = was.number, was.alive, was.big
			lt.history.undo(r.key)
		})
		return event{op: 'c', tx: w.tag, note: w.note(), big: w.load.big()}
	}, func(r *loadRow) bool { return r.n >= lt.walking }) {
		w.exec(sql)
	}
}
