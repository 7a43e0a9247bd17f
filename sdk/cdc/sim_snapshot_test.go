package cdc

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
)

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
