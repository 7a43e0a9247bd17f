package cdc

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// simSlot is what the simulated server keeps of the log for the capture. Each one is another log.
type simSlot struct {
	num  int // 0 if there is none
	made int
	lost int // how often it was
}

func (l *simSlot) identity() string { return strconv.Itoa(l.num) }

// create makes a new log in the place of whatever is left of the one before. The connector may crash before or after.
func (l *simSlot) create(s *sim) error {
	if s.losses && s.db.chance(10) {
		return errSimCrash
	}
	l.made++
	l.num = l.made
	s.trace("db: log %d begins", l.num)
	if s.losses && s.db.chance(20) {
		return errSimCrash
	}
	return nil
}

// lose has the log dropped, and perhaps made again by somebody.
func (l *simSlot) lose(s *sim) {
	if !s.quiet.IsZero() {
		return
	}
	s.trace("db: log %d is lost", l.num)
	l.num = 0
	l.lost++
	if s.db.chance(40) {
		l.made++
		l.num = l.made
	}
}

// keep has the runtime keep that the log is lost, which the capture waits for, unless the connector crashes before.
func (s *sim) keep(tx *simTx) error {
	shared, ok := tx.shared.(*sharedState)
	if !ok || shared.Cursor != "" {
		return nil
	}
	if s.rnd.IntN(4) == 0 {
		return errSimCrash
	}
	if n := len(s.checkpoints) - 1; n > 0 { // else it has been acknowledged already
		s.acknowledge(n)
	}
	return nil
}

// outdate marks the output as that of a log which is lost: rows that changed or ended since are not mentioned again, except
// by a backfill.
func (s *sim) outdate() {
	for _, b := range s.bindings {
		for _, key := range sortedDocs(b.out) {
			doc := b.out.docs[key]
			s.journal = append(s.journal, journalEntry{b.out, key, doc})
			now := *doc
			now.outdated = true
			b.out.docs[key] = &now
		}
	}
}

func sortedDocs(out *simReduced) []string {
	keys := make([]string, 0, len(out.docs))
	for k := range out.docs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// lacks reports whether a document leaves out a column that the one before had.
func lacks(vals, before map[string]string) bool {
	for c := range before {
		if _, ok := vals[c]; !ok {
			return true
		}
	}
	return false
}

var errNotAnew = errors.New("the log is lost, but not everything is captured anew")

// checkLost checks a checkpoint without a position: nothing may be left of what was read.
func (s *sim) checkLost(c *simCheckpoint) error {
	for _, b := range s.bindings {
		st, ok := c.parsed[b.stateKey()]
		if !ok || b.disabled || s.mutation == mutateLossKeeps {
			continue
		}
		if st.Phase == Pending || st.Phase == Missing || st.Phase == Live && b.mode == OnlyChanges {
			if len(st.Ranges)+len(st.Holes)+len(st.Unseen) == 0 && st.Origin == "" || st.Phase == Missing {
				continue
			}
		}
		return fmt.Errorf("%s: %w: %+v", b.id, errNotAnew, st)
	}
	return nil
}

// acceptGaps has the tables of which only changes are captured begin anew, as the error says.
func (s *sim) acceptGaps() {
	for _, b := range s.bindings {
		if b.mode == OnlyChanges {
			b.backfill++
			b.out = &simReduced{docs: map[string]*simDoc{}}
		}
	}
}
