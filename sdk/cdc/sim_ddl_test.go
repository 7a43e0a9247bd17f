package cdc

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// alterSome changes a table as a whole, if nobody uses it.
func (db *simDB) alterSome() {
	ts := slices.DeleteFunc(db.sortedTables(), func(t *simTable) bool { return len(t.locks) > 0 || t.scans > 0 })
	if len(ts) == 0 {
		return
	}
	t := ts[db.rnd.IntN(len(ts))]
	n := db.rnd.IntN(8)
	if t.parts != nil {
		n = db.rnd.IntN(11)
	}
	switch n {
	case 8, 9:
		db.attach(t)
	case 10:
		db.detach(t)
	case 0:
		db.addColumn(t, true)
	case 1, 2:
		db.addColumn(t, false)
	case 3:
		db.dropColumn(t)
	case 4:
		db.retype(t)
	case 5:
		db.truncate(t)
	case 6:
		db.rewrite(t)
	default:
		db.recreate(t)
	}
}

func (db *simDB) addColumn(t *simTable, filled bool) {
	t.colCount++
	col := simColumn{name: "c" + strconv.Itoa(db.rnd.IntN(4)), typ: "text", filled: filled, num: t.colCount}
	if slices.ContainsFunc(t.cols, func(c simColumn) bool { return c.name == col.name }) || !db.reusable(t, col.name) {
		return
	}
	value := fmt.Sprintf("default.%s.%d", col.name, col.num)
	fill := func(vals map[string]string) {
		if filled {
			vals[col.name] = value
		}
	}
	db.ddlTxn("adding column "+col.name+mark(filled, " with a default")+" to "+t.id.String(),
		func(s *simShadow) { s.alter(t, col.name, filled, false, fill) },
		func(*simTxn) {
			t.cols = append(slices.Clone(t.cols), col)
			for _, v := range t.slots {
				if v != nil {
					v.vals = with(v.vals, fill)
				}
			}
		})
}

// with copies a row and changes it; log records keep the row as it was.
func with(vals map[string]string, f func(map[string]string)) map[string]string {
	c := make(map[string]string, len(vals)+1)
	maps.Copy(c, vals)
	f(c)
	return c
}

func (db *simDB) dropColumn(t *simTable) {
	i := slices.IndexFunc(t.cols, func(c simColumn) bool { return c.name[0] == 'c' })
	if i < 0 {
		return
	}
	name := t.cols[i].name
	drop := func(vals map[string]string) { delete(vals, name) }
	db.ddlTxn("dropping column "+name+" of "+t.id.String(), func(s *simShadow) { s.alter(t, name, false, true, drop) }, func(*simTxn) {
		t.cols = slices.Delete(slices.Clone(t.cols), i, i+1)
		for _, v := range t.slots {
			if v != nil {
				v.vals = with(v.vals, drop)
			}
		}
	})
}

// retype rewrites a column's values, and with them the table, without a word in the log.
func (db *simDB) retype(t *simTable) {
	i := slices.IndexFunc(t.cols, func(c simColumn) bool { return c.name == "a" })
	db.ids++
	suffix := "#" + strconv.Itoa(db.ids)
	change := func(vals map[string]string) {
		if x, ok := vals["a"]; ok {
			vals["a"] = x + suffix
		}
	}
	db.ddlTxn("retyping column a of "+t.id.String(), func(s *simShadow) { s.alter(t, "a", true, false, change) }, func(*simTxn) {
		t.cols = slices.Clone(t.cols)
		t.cols[i].typ += suffix
		db.compact(t, change)
	})
}

// rewrite moves all rows.
func (db *simDB) rewrite(t *simTable) {
	db.ddlTxn("rewriting "+t.id.String(), nil, func(*simTxn) { db.compact(t, func(map[string]string) {}) })
}

func (db *simDB) compact(t *simTable, change func(map[string]string)) {
	var slots []*simVersion
	for _, v := range t.slots {
		if v != nil && v.xmax == nil {
			v.vals = with(v.vals, change)
			slots = append(slots, v)
		}
	}
	db.rnd.Shuffle(len(slots), func(i, j int) { slots[i], slots[j] = slots[j], slots[i] })
	t.slots = slots
	for n := range t.parts {
		t.parts[n] = 0
	}
	db.ids++
	t.relfile = db.ids
	t.rewrites++
}

func (db *simDB) truncate(t *simTable) {
	db.ddlTxn("truncating "+t.id.String(), func(s *simShadow) { s.empty(t) }, func(txn *simTxn) {
		t.slots = nil
		db.births[t.id] = append(db.births[t.id], db.versions)
		db.ids++
		t.relfile = db.ids
		t.rewrites++
		txn.writes = append(txn.writes, &simWrite{op: Truncate, table: t, schema: t.shape(), carried: t.published})
	})
}

// recreate drops a table, and creates another one of the same name now or later.
func (db *simDB) recreate(t *simTable) {
	db.ddlTxn("dropping "+t.id.String(), func(s *simShadow) { s.empty(t) }, func(txn *simTxn) {
		t.dropped = true
		delete(db.tables, t.id)
		if db.cfg.dropEvents {
			txn.writes = append(txn.writes, &simWrite{op: Drop, table: t, schema: t.shape(), carried: t.published})
		}
	})
	if db.chance(50) {
		db.create(t.id, t.key, db.rnd.IntN(12))
	} else {
		db.gone = append(db.gone, t)
	}
}

// comeBack creates a table that was dropped a while ago.
func (db *simDB) comeBack() {
	t := db.gone[0]
	db.gone = db.gone[1:]
	db.create(t.id, t.key, db.rnd.IntN(12))
}

// attach adds a part with rows that the log knows nothing of.
func (db *simDB) attach(t *simTable) {
	db.ids++
	part := db.ids
	var rows []*simVersion
	txn := db.ddlTxn("attaching a part to "+t.id.String(), func(s *simShadow) { s.attach(t, rows) }, func(txn *simTxn) {
		for len(t.slots)%db.cfg.pageRows != 0 {
			t.slots = append(t.slots, nil)
		}
		t.parts[part] = len(t.slots)
		for range db.rnd.IntN(6) {
			vals := db.newKey(t)
			key := t.keyOf(vals, 0)
			if t.exists(txn, key) {
				continue
			}
			db.versions++
			vals["v"] = strconv.Itoa(db.versions)
			for _, c := range t.cols {
				if c.big {
					vals[c.name] = c.name + ".attached." + strconv.Itoa(db.versions)
				}
			}
			v := &simVersion{vals: vals, v: db.versions, xmin: txn, rowid: db.versions, part: part, key: key}
			rows = append(rows, v)
			t.slots = append(t.slots, v)
		}
	})
	db.trace("db: txn %s attached part %d with %d rows", txn.id, part, len(rows))
}

// detach takes a part's rows away without a word in the log.
func (db *simDB) detach(t *simTable) {
	part := 0
	for n := range t.parts {
		part = max(part, n)
	}
	if part == 0 {
		return
	}
	var keys []string
	db.ddlTxn("detaching part "+strconv.Itoa(part)+" of "+t.id.String(), func(s *simShadow) { s.detach(t, keys) }, func(*simTxn) {
		delete(t.parts, part)
		for i, v := range t.slots {
			if v != nil && v.part == part {
				if v.xmax == nil {
					keys = append(keys, v.key)
				}
				t.slots[i] = nil
			}
		}
	})
}
