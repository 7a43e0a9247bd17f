package cdc

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
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

// origin is the snapshot as Table.Origin.
func (s *simSnapshot) origin() string {
	text := strconv.Itoa(s.next)
	for _, num := range s.inProgress {
		text += "," + strconv.Itoa(num)
	}
	return text
}

func parseOrigin(text string) *simSnapshot {
	var nums []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil {
			panic(fmt.Sprintf("a foreign origin %q", text))
		}
		nums = append(nums, n)
	}
	return &simSnapshot{next: nums[0], inProgress: nums[1:]}
}
