package cdc

import (
	"math/rand/v2"
	"slices"
	"strconv"
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
	huge       bool // values that are too large for a document
	ddl        bool
	parts      bool
	crashes    bool
	once       bool // tables without a key are read in one pass
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
	scans       int         // in progress: they keep the table's shape locked
	parts       map[int]int // of a table that has parts: by number, the first slot that it may have; 0 is the table's own
	colCount    int
	born        int // the last version before it
}

type simColumn struct {
	name, typ string
	big       bool // logged only when it changes
	filled    bool
	num       int // which of the table's columns it is
}

// simVersion is one version of a row. It does not change, except for xmax and what DDL does to all versions.
type simVersion struct {
	rowid int
	part  int
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
	// unlogged says that some of these have changed.
	unlogged bool
	carried  bool // the log carried the table then
	v        int
}

func (t *simTable) shape() *Table {
	s := &Table{ID: t.id, Key: slices.Clone(t.key), Incarnation: strconv.Itoa(t.incarnation), Rows: int64(len(t.slots))}
	for n := range t.parts {
		s.Parts = append(s.Parts, strconv.Itoa(n))
	}
	slices.Sort(s.Parts)
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
	if db.cfg.parts && len(key) > 0 {
		t.parts = map[int]int{0: 0}
	}
	for i := range t.cols {
		t.colCount++
		t.cols[i].num = t.colCount
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
