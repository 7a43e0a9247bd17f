package cdc

import (
	"slices"
)

// window remembers, of one table in backfill, which emitted changes a chunk may not have seen. A chunk's row whose key was
// changed by an emitted transaction that the chunk's snapshot does not see is older than what was emitted already.
//
// It belongs to the reader's goroutine.
type window struct {
	txns  []*changes // in the order of the log, as far as they are still of interest
	keys  map[string][]touch
	bytes int // roughly what keys and txns hold
	lacks [][]string
}

// changes is what one transaction changed in the table.
type changes struct {
	txn    TxnID
	all    bool     // which keys is not known: a chunk that does not see the transaction cannot be used
	keys   []string // unless all
	unseen bool     // by the snapshot that was judged last
}

// touch is one transaction's change of one key.
type touch struct {
	by *changes
	// lacks are the columns that the key's documents of this transaction leave out because they did not change. A row
	// that is dropped because of the touch still has to give these.
	lacks []string
}

// What a touch and a transaction take in memory, roughly, beyond the key's own bytes.
const (
	touchBytes   = 96
	changesBytes = 96
)

// begin opens the list of a transaction's changes.
func (w *window) begin(txn TxnID) *changes {
	c := &changes{txn: txn}
	w.txns = append(w.txns, c)
	w.bytes += changesBytes
	return c
}

// require says that chunks must see these transactions.
func (w *window) require(txns []TxnID) {
	for _, txn := range txns {
		w.begin(txn).all = true
	}
}

// add records that the transaction changed the key, with documents that lack some unchanged columns. It copies its
// arguments.
func (w *window) add(c *changes, key []byte, lacks []string) {
	if c.all {
		return
	}
	if w.keys == nil {
		w.keys = map[string][]touch{}
	}
	touches := w.keys[string(key)]
	if n := len(touches); n > 0 && touches[n-1].by == c {
		touches[n-1].lacks = intersect(touches[n-1].lacks, lacks)
		return
	}
	k := string(key)
	w.keys[k] = append(touches, touch{by: c, lacks: w.intern(lacks)})
	c.keys = append(c.keys, k)
	w.bytes += len(k) + touchBytes
}

// intern copies a list of column names, once for all touches that lack the same.
func (w *window) intern(names []string) []string {
	if len(names) == 0 {
		return nil
	}
	for _, known := range w.lacks {
		if slices.Equal(known, names) {
			return known
		}
	}
	w.lacks = append(w.lacks, slices.Clone(names))
	return w.lacks[len(w.lacks)-1]
}

// intersect returns the names that are in both lists, without changing either.
func intersect(a, b []string) []string {
	var both []string
	for _, name := range a {
		if slices.Contains(b, name) {
			both = append(both, name)
		}
	}
	return both
}

// collapse forgets which keys were changed, and remembers only by whom.
func (w *window) collapse() {
	for _, c := range w.txns {
		c.all, c.keys = true, nil
	}
	w.keys, w.lacks = nil, nil
	w.bytes = len(w.txns) * changesBytes
}

// judge compares the window with a chunk's snapshot, for the calls of fate that follow. If blocked is not empty the chunk
// cannot be used: its snapshot does not see these, and what they changed is not known. If clean, no row needs a look.
func (w *window) judge(v Visibility) (clean bool, blocked []TxnID) {
	clean = true
	for _, c := range w.txns {
		c.unseen = !v.Sees(c.txn)
		if !c.unseen {
			continue
		}
		clean = false
		if c.all {
			blocked = append(blocked, c.txn)
		}
	}
	return clean, blocked
}

// fate says what becomes of a row of the chunk that was judged last: whether its key was changed by what the chunk does
// not see, and if so, which of the row's columns none of these changes has brought.
func (w *window) fate(key []byte) (drop bool, lacks []string) {
	for _, t := range w.keys[string(key)] {
		if !t.by.unseen {
			continue
		}
		if drop {
			lacks = intersect(lacks, t.lacks)
		} else {
			drop, lacks = true, t.lacks
		}
	}
	return drop, lacks
}

// prune forgets the transactions that every chunk to come is sure to see.
func (w *window) prune(needed func(TxnID) bool) {
	kept := w.txns[:0]
	for _, c := range w.txns {
		if needed(c.txn) {
			kept = append(kept, c)
			continue
		}
		w.bytes -= changesBytes
		for _, k := range c.keys {
			w.forget(c, k)
		}
	}
	clear(w.txns[len(kept):])
	w.txns = kept
	if len(kept) == 0 {
		w.reset()
	}
}

// forget removes a transaction's touch of one key.
func (w *window) forget(c *changes, key string) {
	touches := slices.DeleteFunc(w.keys[key], func(t touch) bool { return t.by == c })
	if len(touches) == 0 {
		delete(w.keys, key)
	} else {
		w.keys[key] = touches
	}
	w.bytes -= len(key) + touchBytes
}

// reset forgets everything.
func (w *window) reset() { *w = window{} }

// unseen lists, in the order of the log, the transactions that a snapshot does not see, without repetitions. Nil stands for
// a snapshot that sees nothing. With more than limit of them it returns false.
func (w *window) unseen(v Visibility, limit int) (txns []TxnID, ok bool) {
	for _, c := range w.txns {
		if v != nil && v.Sees(c.txn) || slices.Contains(txns, c.txn) {
			continue
		}
		if len(txns) == limit {
			return nil, false
		}
		txns = append(txns, c.txn)
	}
	return txns, true
}
