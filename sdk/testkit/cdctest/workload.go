package cdctest

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// writer changes the tables at random, in transactions of its own. Every writer has its own keys, so that none waits for
// another one.
type writer struct {
	t    testing.TB
	b    Backend
	db   Database
	conn Session
	rnd  *rand.Rand
	n    int // of writers
	me   int
	live map[string][]int // table → numbers of the rows that this writer has
	next int
	bigs uint64
}

// The suite's tables. Column v grows with every change of a row; big is what the log leaves out when it does not change.
// A row's key is made of a number.
type kind struct {
	name   string
	create string
	key    []string
	keyOf  func(n int) []string // as SQL literals
}

func kinds() []kind {
	number := func(n int) []string { return []string{strconv.Itoa(n)} }
	return []kind{
		{"cdc_numbers", "id BIGINT PRIMARY KEY", []string{"id"}, number},
		{"cdc_texts", "id VARCHAR(40) PRIMARY KEY", []string{"id"}, func(n int) []string {
			// Upper and lower case, and what collations take for nothing: their order is not that of bytes.
			return []string{fmt.Sprintf("'%c-%d'", "aAbBzZ_"[n%7], n)}
		}},
		{
			"cdc_pairs", "a BIGINT NOT NULL, b VARCHAR(20) NOT NULL, PRIMARY KEY (a, b)",
			[]string{"a", "b"},
			func(n int) []string { return []string{strconv.Itoa(n % 10), "'" + strconv.Itoa(n) + "'"} },
		},
	}
}

// columns are the columns besides the key.
const columns = "v BIGINT, note TEXT, big TEXT"

func (k kind) table() string {
	return "CREATE TABLE " + k.name + " (" + k.create + ", " + columns + ")"
}

func (k kind) where(n int) string {
	parts := make([]string, len(k.key))
	for i, v := range k.keyOf(n) {
		parts[i] = k.key[i] + " = " + v
	}
	return strings.Join(parts, " AND ")
}

// fill puts rows into a table, a hundred a statement.
func (w *writer) fill(k kind, rows int) {
	for rows > 0 {
		var values []string
		for range min(rows, 100) {
			values = append(values, w.row(k))
		}
		rows -= len(values)
		w.db.Exec(w.t, "INSERT INTO "+k.name+" ("+strings.Join(k.key, ", ")+", v, note, big) VALUES "+strings.Join(values, ", "))
	}
}

// row makes a new row.
func (w *writer) row(k kind) string {
	n := w.number()
	w.live[k.name] = append(w.live[k.name], n)
	return fmt.Sprintf("(%s, 1, 'note %d', %s)", strings.Join(k.keyOf(n), ", "), n, w.big())
}

func (w *writer) number() int {
	w.next++
	return w.next*w.n + w.me
}

// big is a value for the big column, as a literal: out of line every other time.
func (w *writer) big() string {
	w.bigs++
	if w.b.Big == nil || w.bigs%2 == 0 {
		return fmt.Sprintf("'small %d'", w.bigs)
	}
	return "'" + w.b.Big(w.bigs*1000+uint64(w.me)) + "'"
}

// transaction runs some statements, and commits most of the time.
func (w *writer) transaction(ks []kind) {
	w.conn.Exec(w.t, "BEGIN")
	before := map[string][]int{}
	for name, rows := range w.live {
		before[name] = append([]int(nil), rows...)
	}
	for range 1 + w.rnd.IntN(5) {
		w.conn.Exec(w.t, w.statement(ks[w.rnd.IntN(len(ks))]))
	}
	if w.rnd.IntN(6) == 0 {
		w.conn.Exec(w.t, "ROLLBACK")
		w.live = before
		return
	}
	w.conn.Exec(w.t, "COMMIT")
}

func (w *writer) statement(k kind) string {
	rows := w.live[k.name]
	what := w.rnd.IntN(10)
	if len(rows) == 0 || what < 3 {
		return "INSERT INTO " + k.name + " (" + strings.Join(k.key, ", ") + ", v, note, big) VALUES " + w.row(k)
	}
	i := w.rnd.IntN(len(rows))
	n := rows[i]
	switch {
	case what < 6:
		return fmt.Sprintf("UPDATE %s SET v = v + 1, note = 'note %d' WHERE %s", k.name, w.rnd.IntN(1000), k.where(n))
	case what < 7:
		return fmt.Sprintf("UPDATE %s SET v = v + 1, big = %s WHERE %s", k.name, w.big(), k.where(n))
	case what < 8:
		to := w.number()
		sets := make([]string, len(k.key))
		for j, v := range k.keyOf(to) {
			sets[j] = k.key[j] + " = " + v
		}
		w.live[k.name][i] = to
		return fmt.Sprintf("UPDATE %s SET v = v + 1, %s WHERE %s", k.name, strings.Join(sets, ", "), k.where(n))
	default:
		rows[i] = rows[len(rows)-1]
		w.live[k.name] = rows[:len(rows)-1]
		return "DELETE FROM " + k.name + " WHERE " + k.where(n)
	}
}
