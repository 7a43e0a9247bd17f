package cdc

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// The simulated database. Log order, durability and visibility are three different things in it: a transaction commits by
// being appended to the log; the log up to some entry is flushed later; and the transaction becomes visible at another,
// later moment (a stalled commit), or before it is flushed (an asynchronous commit). Row locks are held until then.

// simDB is one server. A step changes it a little.
type simDB struct {
	rnd    *rand.Rand
	cfg    simConfig
	tables map[TableID]*simTable
	log    []*simTxn // committed, in log order
	// flushed is how many of them are durable.
	flushed   int
	next      int       // number of the next transaction
	running   []*simTxn // neither committed nor rolled back
	invisible []*simTxn // committed, and not visible yet
	versions  int
	epoch     int // counts crashes
	snapshots []*simSnapshot
	budget    int               // statements left
	ids       int               // incarnations and relfiles
	gone      []*simTable       // dropped, and not created again yet
	births    map[TableID][]int // when tables of this name were created or emptied, in versions
	trace     func(format string, args ...any)
	// reusable reports whether a column's name may be used again. See the limits of Column.Incarnation.
	reusable func(t *simTable, column string) bool
}

// simConfig is what differs between seeds.
type simConfig struct {
	allTables  bool // the log carries tables of its own accord
	physical   bool // plans are ranges of pages
	pageRows   int
	stalls     bool
	async      bool
	dropEvents bool // the log mentions dropped tables
	logTells   bool // the log tells columns of one name apart
	fullRows   bool // the log has whole rows
	bigColumns bool
	ddl        bool
	crashes    bool
}

type simTable struct {
	id          TableID
	incarnation int
	relfile     int
	rewrites    int
	key         []string
	cols        []simColumn
	slots       []*simVersion
	published   bool
	dropped     bool
	locks       map[string]*simTxn
	scans       int // in progress: they keep the table's shape locked
	colCount    int
	born        int // the last version before it
}

type simColumn struct {
	name, typ string
	big       bool // logged only when it changes
	filled    bool
	num       int // which column of this name it is
}

// simVersion is one version of a row. It does not change, except for xmax and what DDL does to all versions.
type simVersion struct {
	rowid int
	key   string
	vals  map[string]string // absent is null
	v     int
	xmin  *simTxn
	xmax  *simTxn
}

type simTxn struct {
	num    int
	id     TxnID
	writes []*simWrite
	pos    int // in the log, once committed
	async  bool
	slow   bool // stays invisible for long
	ended  bool // visible, or rolled back
	locks  []simLock
	ddl    func(s *simShadow) // what it did to a table as a whole
	about  string
	size   int // statements it still wants
}

type simLock struct {
	table *simTable
	key   string
}

// simWrite is one record of the log.
type simWrite struct {
	op      Op
	table   *simTable
	schema  *Table // the table's shape then
	before  *simVersion
	row     *simVersion
	old     map[string]string // before's values then
	vals    map[string]string // row's values then
	omitted []string
	carried bool // the log carried the table then
	v       int
}

func (t *simTable) shape() *Table {
	s := &Table{ID: t.id, Key: slices.Clone(t.key), Incarnation: strconv.Itoa(t.incarnation), Rows: int64(len(t.slots))}
	for _, c := range t.cols {
		s.Columns = append(s.Columns, Column{Name: c.name, Type: c.typ, Nullable: true, Filled: c.filled, Incarnation: strconv.Itoa(c.num), Schema: []byte(`{"type":["string","null"]}`)})
	}
	return s
}

func newSimDB(rnd *rand.Rand, cfg simConfig, trace func(string, ...any)) *simDB {
	return &simDB{rnd: rnd, cfg: cfg, tables: map[TableID]*simTable{}, births: map[TableID][]int{}, next: 1, trace: trace}
}

// chance is true n times of 100.
func (db *simDB) chance(n int) bool { return db.rnd.IntN(100) < n }

// create makes a table and puts rows into it.
func (db *simDB) create(id TableID, key []string, rows int) *simTable {
	db.ids++
	t := &simTable{id: id, incarnation: db.ids, relfile: db.ids, born: db.versions, key: key, locks: map[string]*simTxn{}, published: db.cfg.allTables}
	for _, k := range key {
		t.cols = append(t.cols, simColumn{name: k, typ: "text"})
	}
	t.cols = append(t.cols, simColumn{name: "v", typ: "text"}, simColumn{name: "a", typ: "text"})
	if db.cfg.bigColumns {
		t.cols = append(t.cols, simColumn{name: "big1", typ: "text", big: true}, simColumn{name: "big2", typ: "text", big: true})
	}
	db.births[id] = append(db.births[id], t.born)
	db.ddlTxn("create "+id.String(), func(s *simShadow) { s.create(t) }, func(txn *simTxn) {
		if old := db.tables[id]; old != nil {
			old.dropped = true
		}
		db.tables[id] = t
	})
	txn := db.begin()
	for range rows {
		db.insert(txn, t)
	}
	db.commit(txn)
	return t
}

// reborn reports whether the table was created anew, or emptied, between two versions.
func (db *simDB) reborn(id TableID, before, now int) bool {
	return slices.ContainsFunc(db.births[id], func(b int) bool { return before <= b && b < now })
}

// ddlTxn runs a change of a table as a whole, which is durable and visible at once.
func (db *simDB) ddlTxn(about string, shadow func(*simShadow), f func(*simTxn)) *simTxn {
	txn := db.begin()
	txn.about, txn.ddl = about, shadow
	f(txn)
	db.running = slices.DeleteFunc(db.running, func(o *simTxn) bool { return o == txn })
	txn.pos = len(db.log)
	db.log = append(db.log, txn)
	db.flushed = len(db.log)
	txn.ended = true
	db.trace("db: %s by txn %s, flushed to %d", about, txn.id, db.flushed)
	return txn
}

func (db *simDB) begin() *simTxn {
	txn := &simTxn{num: db.next, id: TxnID(strconv.Itoa(db.next)), pos: -1}
	db.next++
	db.running = append(db.running, txn)
	return txn
}

// sees reports whether a statement of the transaction sees a version.
func (txn *simTxn) sees(v *simVersion) bool {
	return (v.xmin == txn || v.xmin.ended) && (v.xmax == nil || v.xmax != txn && !v.xmax.ended)
}

// lockable reports whether the transaction may change the key now.
func (t *simTable) lockable(txn *simTxn, key string) bool {
	holder := t.locks[key]
	if whole := t.locks[""]; whole != nil && whole != txn {
		return false
	}
	return holder == nil || holder == txn
}

func (t *simTable) lock(txn *simTxn, key string) {
	if t.locks[key] == nil {
		t.locks[key] = txn
		txn.locks = append(txn.locks, simLock{t, key})
	}
}

// live lists the rows a transaction sees and can change.
func (t *simTable) live(txn *simTxn) []*simVersion {
	var vs []*simVersion
	for _, v := range t.slots {
		if v != nil && txn.sees(v) && t.lockable(txn, v.key) {
			vs = append(vs, v)
		}
	}
	return vs
}

// exists reports whether the transaction sees a row with the key, or one that is not decided yet.
func (t *simTable) exists(txn *simTxn, key string) bool {
	for _, v := range t.slots {
		if v != nil && v.key == key && (txn.sees(v) || !v.xmin.ended && v.xmin != txn) {
			return true
		}
	}
	return false
}

// place stores a version in a free slot, or at the end.
func (db *simDB) place(t *simTable, v *simVersion) {
	if db.chance(70) {
		var free []int
		for i, s := range t.slots {
			if s == nil {
				free = append(free, i)
			}
		}
		if len(free) > 0 {
			t.slots[free[db.rnd.IntN(len(free))]] = v
			return
		}
	}
	t.slots = append(t.slots, v)
}

func (db *simDB) newKey(t *simTable) map[string]string {
	vals := map[string]string{}
	for i, k := range t.key {
		n := db.rnd.IntN(24)
		if len(t.key) > 1 {
			n = db.rnd.IntN(6)
		}
		if i%2 == 0 {
			vals[k] = strconv.Itoa(n)
		} else {
			vals[k] = string(rune('a' + n))
		}
	}
	return vals
}

func (t *simTable) keyOf(vals map[string]string, rowid int) string {
	if len(t.key) == 0 {
		return "row" + strconv.Itoa(rowid)
	}
	parts := make([]string, len(t.key))
	for i, k := range t.key {
		parts[i] = vals[k]
	}
	return strings.Join(parts, "|")
}

// write adds a version, or none for a delete, and its log record.
func (db *simDB) write(txn *simTxn, t *simTable, op Op, before *simVersion, vals map[string]string, omitted []string) *simVersion {
	db.versions++
	w := &simWrite{op: op, table: t, schema: t.shape(), before: before, omitted: omitted, carried: t.published, v: db.versions}
	if before != nil {
		w.old = before.vals
		before.xmax = txn
		t.lock(txn, before.key)
	}
	if vals != nil {
		v := &simVersion{vals: vals, v: db.versions, xmin: txn, rowid: db.versions}
		vals["v"] = strconv.Itoa(db.versions)
		v.key = t.keyOf(vals, v.rowid)
		t.lock(txn, v.key)
		db.place(t, v)
		w.row, w.vals = v, vals
	}
	txn.writes = append(txn.writes, w)
	return w.row
}

func (db *simDB) insert(txn *simTxn, t *simTable) {
	vals := db.newKey(t)
	if key := t.keyOf(vals, 0); len(t.key) > 0 && (!t.lockable(txn, key) || t.exists(txn, key)) {
		return
	}
	if t.locks[""] != nil {
		return
	}
	for _, c := range t.cols {
		if c.name != "v" && !slices.Contains(t.key, c.name) && (c.big || db.chance(70)) {
			vals[c.name] = c.name + "." + strconv.Itoa(db.versions)
		}
	}
	v := db.write(txn, t, Insert, nil, vals, nil)
	db.trace("db: txn %s inserts %s %s v%d", txn.id, t.id, v.key, v.v)
}

func (db *simDB) update(txn *simTxn, t *simTable, old *simVersion, rekey bool) {
	vals := map[string]string{}
	maps.Copy(vals, old.vals)
	if rekey {
		maps.Copy(vals, db.newKey(t))
		if key := t.keyOf(vals, 0); key == old.key || !t.lockable(txn, key) || t.exists(txn, key) {
			return
		}
	}
	var omitted []string
	for _, c := range t.cols {
		if c.name == "v" || slices.Contains(t.key, c.name) {
			continue
		}
		if db.chance(30) {
			vals[c.name] = c.name + "." + strconv.Itoa(db.versions)
		} else if _, ok := vals[c.name]; c.big && ok && !db.cfg.fullRows {
			omitted = append(omitted, c.name)
		}
	}
	v := db.write(txn, t, Update, old, vals, omitted)
	db.trace("db: txn %s updates %s %s v%d to %s v%d without %v", txn.id, t.id, old.key, old.v, v.key, v.v, omitted)
}

// statement runs one statement of the transaction on a table.
func (db *simDB) statement(txn *simTxn, t *simTable) {
	if whole := t.locks[""]; whole != nil {
		return
	}
	rows := t.live(txn)
	kind := db.rnd.IntN(10)
	if len(rows) == 0 || kind < 3 {
		db.insert(txn, t)
		return
	}
	old := rows[db.rnd.IntN(len(rows))]
	switch {
	case kind < 7:
		db.update(txn, t, old, false)
	case kind < 8 && len(t.key) > 0:
		db.update(txn, t, old, true)
	default:
		db.write(txn, t, Delete, old, nil, nil)
		db.trace("db: txn %s deletes %s %s v%d", txn.id, t.id, old.key, old.v)
	}
}

func (db *simDB) commit(txn *simTxn) {
	db.running = slices.DeleteFunc(db.running, func(o *simTxn) bool { return o == txn })
	txn.pos = len(db.log)
	txn.async = db.cfg.async && db.chance(40)
	txn.slow = db.cfg.stalls && db.chance(25)
	db.log = append(db.log, txn)
	db.invisible = append(db.invisible, txn)
	db.trace("db: txn %s commits at %d%s%s", txn.id, txn.pos, mark(txn.async, " async"), mark(txn.slow, " slow"))
}

func mark(b bool, s string) string {
	if b {
		return s
	}
	return ""
}

func (db *simDB) rollback(txn *simTxn) {
	db.trace("db: txn %s rolls back", txn.id)
	db.running = slices.DeleteFunc(db.running, func(o *simTxn) bool { return o == txn })
	db.undo(txn)
}

// undo removes what a transaction wrote, the latest first.
func (db *simDB) undo(txn *simTxn) {
	for _, w := range slices.Backward(txn.writes) {
		if w.row != nil {
			if i := slices.Index(w.table.slots, w.row); i >= 0 {
				w.table.slots[i] = nil
			}
		}
		if w.before != nil {
			w.before.xmax = nil
		}
	}
	db.end(txn)
}

// end makes the transaction one whose effects are decided, and releases its locks.
func (db *simDB) end(txn *simTxn) {
	txn.ended = true
	for _, l := range txn.locks {
		if l.table.locks[l.key] == txn {
			delete(l.table.locks, l.key)
		}
	}
	txn.locks = nil
}

// show makes a committed transaction visible.
func (db *simDB) show(txn *simTxn) {
	db.invisible = slices.DeleteFunc(db.invisible, func(o *simTxn) bool { return o == txn })
	db.end(txn)
	db.trace("db: txn %s becomes visible", txn.id)
}

func (db *simDB) flush(to int) {
	if to > db.flushed {
		db.flushed = to
		db.trace("db: flushed to %d", to)
	}
}

// vacuum frees the slots of versions that nobody can see any more.
func (db *simDB) vacuum(t *simTable) {
	for i, v := range t.slots {
		if v == nil || v.xmax == nil || !v.xmax.ended || v.xmax.pos >= db.flushed {
			continue
		}
		if !slices.ContainsFunc(db.snapshots, func(s *simSnapshot) bool { return !s.seesNum(v.xmax.num) }) {
			t.slots[i] = nil
		}
	}
}

// crash ends the server and starts it again: what was not flushed is lost, what was flushed is visible.
func (db *simDB) crash() {
	db.trace("db: CRASH, %d of %d log entries survive", db.flushed, len(db.log))
	db.epoch++
	for _, txn := range slices.Backward(db.running) {
		db.undo(txn)
	}
	db.running = nil
	for _, txn := range slices.Backward(db.log[db.flushed:]) {
		db.undo(txn)
	}
	db.log = db.log[:db.flushed]
	for _, txn := range slices.Clone(db.invisible) {
		if txn.pos < db.flushed {
			db.show(txn)
		}
	}
	db.invisible = nil
	// Numbers of transactions of which nothing is left are given out again.
	db.next = 1
	for _, txn := range db.log {
		db.next = max(db.next, txn.num+1)
	}
	for _, t := range db.tables {
		t.scans = 0
	}
	db.snapshots = nil
}

// simSnapshot is a snapshot of the server. It does not change.
type simSnapshot struct {
	next       int
	inProgress []int
	byLog      []int // with the mutation that takes log positions for visibility: the numbers it sees
}

// Sees implements Visibility.
func (s *simSnapshot) Sees(id TxnID) bool {
	num, err := strconv.Atoi(string(id))
	if err != nil {
		panic(fmt.Sprintf("a foreign transaction %q", id))
	}
	if s.byLog != nil {
		_, found := slices.BinarySearch(s.byLog, num)
		return found
	}
	return s.seesNum(num)
}

func (s *simSnapshot) seesNum(num int) bool {
	return num < s.next && !slices.Contains(s.inProgress, num)
}

// sees reports whether a version is in the snapshot.
func (s *simSnapshot) sees(v *simVersion) bool {
	return s.seesNum(v.xmin.num) && (v.xmax == nil || !s.seesNum(v.xmax.num))
}

func (db *simDB) snapshot() *simSnapshot {
	s := &simSnapshot{next: db.next}
	for _, txn := range db.running {
		s.inProgress = append(s.inProgress, txn.num)
	}
	for _, txn := range db.invisible {
		s.inProgress = append(s.inProgress, txn.num)
	}
	sort.Ints(s.inProgress)
	return s
}

// sortedTables lists the tables in a fixed order.
func (db *simDB) sortedTables() []*simTable {
	ts := make([]*simTable, 0, len(db.tables))
	for _, t := range db.tables {
		ts = append(ts, t)
	}
	slices.SortFunc(ts, func(a, b *simTable) int { return compareIDs(a.id, b.id) })
	return ts
}

// step lets something happen at random.
func (db *simDB) step() {
	switch n := db.rnd.IntN(100); {
	case n < 35 && len(db.running) > 0 && len(db.tables) > 0:
		db.work(db.running[db.rnd.IntN(len(db.running))])
	case n < 45 && len(db.running) < 4 && db.budget > 0:
		txn := db.begin()
		txn.size = 1 + db.rnd.IntN(4)
		if db.chance(3) {
			txn.size = 30
		}
	case n < 58 && len(db.running) > 0:
		txn := db.running[db.rnd.IntN(len(db.running))]
		if txn.size > 0 && db.budget > 0 {
			db.work(txn)
		} else if db.chance(85) {
			db.commit(txn)
		} else {
			db.rollback(txn)
		}
	case n < 75:
		if db.flushed < len(db.log) {
			db.flush(db.flushed + 1 + db.rnd.IntN(len(db.log)-db.flushed))
		}
	case n < 90:
		db.showSome()
	case n < 96 && len(db.tables) > 0:
		ts := db.sortedTables()
		db.vacuum(ts[db.rnd.IntN(len(ts))])
	case n < 98 && db.cfg.ddl && db.budget > 0:
		db.alterSome()
	case n == 99 && len(db.gone) > 0 && db.chance(30):
		db.comeBack()
	}
}

// work runs a statement of a transaction.
func (db *simDB) work(txn *simTxn) {
	if db.budget <= 0 || txn.size <= 0 || len(db.tables) == 0 {
		return
	}
	db.budget--
	txn.size--
	ts := db.sortedTables()
	db.statement(txn, ts[db.rnd.IntN(len(ts))])
}

// showSome makes a committed transaction visible, if it may be.
func (db *simDB) showSome() {
	if len(db.invisible) == 0 {
		return
	}
	txn := db.invisible[db.rnd.IntN(len(db.invisible))]
	if !txn.async && txn.pos >= db.flushed || txn.slow && !db.chance(6) {
		return
	}
	db.show(txn)
}

// quiesce brings everything to an end.
func (db *simDB) quiesce() {
	db.budget = 0
	if len(db.gone) > 0 && db.chance(60) {
		db.comeBack()
	}
	for _, txn := range slices.Clone(db.running) {
		db.rollback(txn)
	}
	db.flush(len(db.log))
	for _, txn := range slices.Clone(db.invisible) {
		db.show(txn)
	}
}
