package main

import (
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// A transaction in the core's words (cdc.TxnID) is its identifier, "8812". The stream of a standby adds where its commit
// stands in the log, "8812@26505056", because there that is what tells who sees it. "<8812" means all the transactions below
// one: a snapshot sees that when all of them have ended.
type transaction struct {
	xid    uint64
	commit lsn // where the record of its commit begins; 0 if unknown
	below  bool
}

// txnID is a transaction of which nothing but its identifier matters.
func txnID(xid uint64) cdc.TxnID { return transaction{xid: xid}.id() }

func (t transaction) id() cdc.TxnID {
	var b [48]byte
	out := b[:0]
	if t.below {
		out = append(out, '<')
	}
	out = strconv.AppendUint(out, t.xid, 10)
	if t.commit != 0 {
		out = strconv.AppendUint(append(out, '@'), uint64(t.commit), 10)
	}
	return cdc.TxnID(out)
}

func parseTransaction(id cdc.TxnID) (t transaction, ok bool) {
	text, below := strings.CutPrefix(string(id), "<")
	xid, commit, has := strings.Cut(text, "@")
	var err error
	if t.xid, err = strconv.ParseUint(xid, 10, 64); err != nil {
		return t, false
	}
	if t.below = below; !has {
		return t, true
	}
	at, err := strconv.ParseUint(commit, 10, 64)
	t.commit = lsn(at)
	return t, err == nil
}

// Sees implements cdc.Visibility.
func (s *snapshot) Sees(txn cdc.TxnID) bool {
	t, ok := parseTransaction(txn)
	switch {
	case !ok:
		return false
	case t.below:
		return s.xmin >= t.xid
	}
	return s.sees(t.xid)
}

// replayed is the visibility of a snapshot that was taken on a standby. It implements cdc.Visibility and is immutable.
//
// A standby makes transactions visible in the order of the log, by replaying it: a snapshot sees all whose commits had been
// replayed when it was taken, and no other. The snapshot itself would not say so: the list of transactions in progress that a
// standby's pg_current_snapshot() gives is always empty, and only its lower limit means something.
type replayed struct {
	before lsn    // replayed completely before the snapshot was taken
	xmin   uint64 // everything below it had ended
}

// Sees implements cdc.Visibility. Of what was replayed while the snapshot was being taken it says no, which is safe.
func (r *replayed) Sees(txn cdc.TxnID) bool {
	t, ok := parseTransaction(txn)
	switch {
	case !ok:
		return false
	case t.below:
		return r.xmin >= t.xid
	case t.commit != 0:
		return t.commit < r.before
	}
	return t.xid < r.xmin
}
