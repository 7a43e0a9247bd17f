package main

import (
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/source-mysql/internal/gtid"
)

// gtidSet is a set of MySQL's transactions that is not changed any more.
type gtidSet struct{ set *gtid.Set }

// setMark is what the name of all transactions of a set begins with: "all of uuid:1-5".
const setMark = "all of "

// sees reports whether a transaction, by its GTID, or all of a set are in the set.
func (g gtidSet) sees(txn cdc.TxnID) bool {
	if text, ok := strings.CutPrefix(string(txn), setMark); ok {
		other, err := gtid.Parse(text)
		return err == nil && g.set.Contains(other)
	}
	before, after, _ := cutLast(string(txn), ':')
	source, err := gtid.ParseSource(before)
	if err != nil {
		return false
	}
	number, err := strconv.ParseInt(after, 10, 64)
	return err == nil && g.set.Has(source, number)
}
