package cdc

import "github.com/sluicedata/sluice/sdk/capture"

// MaxRow is how many bytes of one row, and the row before it, a driver needs to hold: what is beyond it fits into no document.
// It leaves room for what a document has besides values.
const MaxRow = capture.MaxDocument - 1<<20

// A Sieve chooses which values are kept of a row that is too large as a whole: those of the old row go first, then those of the
// row, the largest first; what is beyond the limit by itself goes before all. The choice depends on the values' sizes and order alone, and not on how they are read, so that it is the
// same whether a row comes from the log or from a scan; and what is kept never exceeds the limit, also while the row is being
// read. The zero value keeps nothing; see Reset. Sizes are in whatever unit the driver uses for both, best the bytes of the value
// as text.
type Sieve struct {
	limit, held int
	kept        []sieved
	out         []int
}

type sieved struct {
	place, size int
	old         bool
}

// Reset makes the sieve ready for the next row.
func (s *Sieve) Reset(limit int) { s.limit, s.held, s.kept = limit, 0, s.kept[:0] }

// Offer says what becomes of the next value, before it is read: whether it is kept, and which of those that were kept before are
// to be given up for it. A place is the caller's name for a value; old is a value of the row before the
// change, which come first. The slice is valid until the next call.
func (s *Sieve) Offer(place, size int, old bool) (keep bool, drop []int) {
	s.out = s.out[:0]
	if size > s.limit {
		return false, s.out
	}
	s.kept, s.held = append(s.kept, sieved{place, size, old}), s.held+size
	for s.held > s.limit {
		i := s.worst()
		v := s.kept[i]
		s.held -= v.size
		s.kept = append(s.kept[:i], s.kept[i+1:]...)
		if v.place == place {
			return false, s.out
		}
		s.out = append(s.out, v.place)
	}
	return true, s.out
}

// worst is the value to be given up next. Of two as large as each other it is the later one.
func (s *Sieve) worst() int {
	worst := 0
	for i, v := range s.kept {
		w := s.kept[worst]
		if v.old != w.old {
			if v.old {
				worst = i
			}
		} else if v.size >= w.size {
			worst = i
		}
	}
	return worst
}
