package main

import (
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
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
	uuid, number, ok := splitGTID(string(txn))
	return ok && g.set.Has(uuid, number)
}

func splitGTID(text string) (uuid [16]byte, number int64, ok bool) {
	before, after, found := cutLast(text, ':')
	raw, err := hex.DecodeString(strings.ReplaceAll(before, "-", ""))
	if err != nil || len(raw) != 16 || !found {
		return uuid, 0, false
	}
	number, err = strconv.ParseInt(after, 10, 64)
	return [16]byte(raw), number, err == nil
}

// parseGTIDSet reads a set that the server printed.
func parseGTIDSet(text string) (*gtid.Set, error) {
	set, err := gtid.Parse(text)
	if errors.Is(err, gtid.ErrTagged) {
		return nil, usererr.New(err, "The server has transactions whose GTIDs have tags, which cannot be captured yet.")
	}
	return set, err //nolint:wrapcheck // it says what it is
}
