package cdc

import (
	"slices"
)

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
