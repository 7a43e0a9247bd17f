package cdc

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

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

// place stores a version in a free slot of its part, or at the end.
func (db *simDB) place(t *simTable, v *simVersion) {
	if db.chance(70) {
		var free []int
		for i, s := range t.slots {
			if s == nil && i >= t.parts[v.part] {
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
		if before != nil {
			v.part = before.part
		}
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
			vals[c.name] = db.newValue(c.name)
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
	unlogged := false
	for _, c := range t.cols {
		if c.name == "v" || slices.Contains(t.key, c.name) {
			continue
		}
		if db.chance(30) {
			vals[c.name] = db.newValue(c.name)
			if c.big && !db.cfg.fullRows && len(t.key) > 0 && db.chance(20) {
				omitted, unlogged = append(omitted, c.name), true
			}
		} else if _, ok := vals[c.name]; c.big && ok && !db.cfg.fullRows {
			omitted = append(omitted, c.name)
		}
	}
	v := db.write(txn, t, Update, old, vals, omitted)
	txn.writes[len(txn.writes)-1].unlogged = unlogged
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

func (db *simDB) newValue(column string) string {
	if db.cfg.huge && db.chance(12) {
		return simHuge + strconv.Itoa(db.versions+1)
	}
	return column + "." + strconv.Itoa(db.versions)
}
