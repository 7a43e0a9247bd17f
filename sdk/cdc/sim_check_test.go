package cdc

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/tuple"
)

// loggedBefore lists the transactions whose commit is in the log before a mark: what a window by log positions takes for
// visible.
func (s *sim) loggedBefore(m Mark) []int {
	n, _ := strconv.Atoi(string(m))
	nums := []int{}
	for _, txn := range s.db.log[:min(n, len(s.db.log))] {
		nums = append(nums, txn.num)
	}
	slices.Sort(nums)
	return nums
}

// check compares the reduced output with the tables at the checkpoint's position in the log:
//
//   - no value of a key differs from the table's, and no key is there that the table does not have;
//   - every key that is backfilled is there, with all its values. Backfilled is every key of a table that the state calls
//     live, and every key that a scan of a part of the table has read which the state's ranges no longer have. Left out are
//     the keys that the state itself lists as holes.
//
// Columns whose values changed without a word in the log (refilled ones) are looked at only in the end (strict), when the
// table was backfilled again; keys that ended without a word in the log may stay.
func (s *sim) check(c *simCheckpoint, strict bool) error {
	var shared sharedState
	if err := json.Unmarshal(c.shared, &shared); err != nil {
		return err
	}
	if shared.Cursor == "" {
		return s.checkLost(c)
	}
	pos, err := strconv.Atoi(string(shared.Cursor))
	if err != nil {
		return err
	}
	s.shadow.advance(s.db.log, pos)
	for _, b := range s.bindings {
		st, ok := c.parsed[b.stateKey()]
		if !ok || b.disabled {
			continue
		}
		if b.key == nil {
			err = s.checkKeyless(b, st)
		} else {
			err = s.checkTable(b, st, strict)
		}
		if err != nil {
			return fmt.Errorf("at log position %d, in %s: %w", pos, b.id, err)
		}
	}
	return nil
}

func (s *sim) checkTable(b *simBinding, st *TableState, strict bool) error {
	sh := s.shadow.tables[b.id]
	if n, _ := strconv.Atoi(st.Incarnation); n > sh.table.incarnation || st.Phase == Missing {
		return nil // the capture knows already that the table of that position is gone, and follows it no further
	}
	strict = strict && b.mode == Normal
	keys := make([]string, 0, len(b.out.docs))
	for k := range b.out.docs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		doc := b.out.docs[k]
		row, ok := sh.rows[k]
		switch {
		case doc.deleted, doc.outdated, sh.skipped[k], sh.ghost(k, doc.v) && (!ok || row.v > doc.v):
		case !ok:
			return fmt.Errorf("key %s is not in the table any more, but the output has %v", k, doc.vals)
		default:
			if err := sh.compare(b, doc, row, false, strict); err != nil {
				return fmt.Errorf("key %s, output version %d, table version %d: %w", k, doc.v, row.v, err)
			}
		}
	}
	return s.checkCovered(b, st, sh, strict)
}

// checkCovered checks that what is backfilled is there.
func (s *sim) checkCovered(b *simBinding, st *TableState, sh *shadowTable, strict bool) error {
	if b.mode == OnlyChanges || st.Incarnation != strconv.Itoa(sh.table.incarnation) || st.Lossy {
		return nil
	}
	var covered []string
	switch st.Phase {
	case Live:
		for k := range sh.rows {
			covered = append(covered, k)
		}
	case Scanning:
		covered = s.scanned(sh, st)
	default:
		return nil
	}
	slices.Sort(covered)
	holes := holeKeys(st)
	for _, k := range covered {
		row, ok := sh.rows[k]
		unread := !strict && row.part != 0 && !slices.Contains(st.Parts, strconv.Itoa(row.part)) // the capture does not know the part yet
		if !ok || holes[k] || sh.skipped[k] || unread {
			continue
		}
		doc := b.out.docs[k]
		if doc == nil || doc.deleted {
			return fmt.Errorf("key %s is backfilled, but not in the output", k)
		}
		if err := sh.compare(b, doc, row, true, strict); err != nil {
			return fmt.Errorf("key %s is backfilled, output version %d, table version %d: %w", k, doc.v, row.v, err)
		}
	}
	return nil
}

// scanned lists the keys in the parts of a table that were read and are not left to be read.
func (s *sim) scanned(sh *shadowTable, st *TableState) []string {
	var keys []string
	for _, scan := range s.scans {
		if scan.table != sh.table || slices.ContainsFunc(st.Ranges, func(r Range) bool { return overlap(scan.part, r) }) {
			continue
		}
		keys = append(keys, scan.keys...)
	}
	return keys
}

// overlap reports whether two parts of a table overlap, or are of different plans.
func overlap(a, b Range) bool {
	if strings.HasPrefix(string(a), "p:") {
		var relA, fromA, toA, relB, fromB, toB int
		_, errA := fmt.Sscanf(string(a), "p:%d:%d:%d", &relA, &fromA, &toA)
		_, errB := fmt.Sscanf(string(b), "p:%d:%d:%d", &relB, &fromB, &toB)
		return errA != nil || errB != nil || relA != relB || (toB < 0 || fromA < toB) && fromB < toA
	}
	pa, pb := strings.SplitN(string(a), ":", 3), strings.SplitN(string(b), ":", 3)
	return (pb[2] == "" || pa[1] < pb[2]) && (pa[2] == "" || pb[1] < pa[2])
}

// checkKeyless checks, once a table without a key is live, that every row it has was emitted, and the end of every row that
// was emitted and that it does not have any more.
func (s *sim) checkKeyless(b *simBinding, st *TableState) error {
	sh := s.shadow.tables[b.id]
	if b.mode == OnlyChanges || st.Phase != Live || st.Incarnation != strconv.Itoa(sh.table.incarnation) {
		return nil
	}
	for _, row := range sh.rows {
		if s.shadow.skips && (sh.skipped["row"+strconv.Itoa(row.v)] || len(largeOf(sh.table.shape(), row.vals, nil, nil)) > 0) {
			continue
		}
		if b.out.docs["row"+strconv.Itoa(row.v)] == nil {
			return fmt.Errorf("version %d of a row was not emitted", row.v)
		}
	}
	if s.shadow.skips || sh.table.rewrites > 0 || s.slot.lost > 0 {
		return nil
	}
	for _, key := range sortedDocs(b.out) {
		digits, isRow := strings.CutPrefix(key, "row")
		doc := b.out.docs[key]
		if _, there := sh.rows[key]; isRow && !there && b.out.docs["end"+digits] == nil && !sh.ghost(key, doc.v) {
			return fmt.Errorf("the end of version %d of a row was not emitted", doc.v)
		}
	}
	return nil
}

// final checks the end: the reduced output is what the tables hold, and so is the shadow, which was made of the log.
func (s *sim) final() error {
	last := s.checkpoints[len(s.checkpoints)-1]
	if err := s.check(last, true); err != nil {
		return fmt.Errorf("in the end, %w", err)
	}
	for id, t := range s.db.tables {
		rows := s.shadow.tables[id].rows
		n := 0
		for _, v := range t.slots {
			if v == nil || v.xmax != nil {
				continue
			}
			n++
			if rows[v.key].v != v.v {
				return fmt.Errorf("the simulation is wrong: row %s of %s has version %d, by its log %d", v.key, id, v.v, rows[v.key].v)
			}
		}
		if n != len(rows) {
			return fmt.Errorf("the simulation is wrong: %s has %d rows, by its log %d", id, n, len(rows))
		}
	}
	return nil
}

// holeKeys are the keys that a state lists as holes.
func holeKeys(st *TableState) map[string]bool {
	keys := map[string]bool{}
	for _, h := range st.Holes {
		values, err := tuple.Unpack(h)
		if err != nil {
			panic(err)
		}
		parts := make([]string, len(values))
		for i, v := range values {
			parts[i] = fmt.Sprint(v)
		}
		keys[strings.Join(parts, "|")] = true
	}
	return keys
}
