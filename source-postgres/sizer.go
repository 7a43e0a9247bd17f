package main

import (
	"sync"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// sizer says how many units, pages or rows, of a table make a chunk of the wanted size, by what chunks of it turned out to
// be. It may be used from any goroutine.
type sizer struct {
	mu    sync.Mutex
	bytes float64 // a unit
	rows  float64 // a unit
	least float64 // bytes of a unit, rather too few
	most  uint64  // after a chunk was too large or took too long; grows again slowly; 0 means no limit
	last  uint64  // what was asked for last
	items uint64  // of one page, where a page is too large for a chunk; 0 means whole pages
}

// What a unit is assumed to be before one was seen.
const (
	guessPageRows  = 100
	guessPageBytes = 16 << 10
	guessRowBytes  = 1 << 10
)

// units is how much the next chunk should cover. The first chunk of a table is small, to learn from.
func (s *sizer) units(c cdc.Chunk, pages bool) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	bytes, rows := s.bytes, s.rows
	switch {
	case bytes > 0:
	case pages:
		bytes, rows = guessPageBytes, guessPageRows
	default:
		bytes, rows = guessRowBytes, 1
	}
	if !pages {
		rows = 1
	}
	n := uint64(min(float64(c.MaxRows)/max(rows, 1), float64(c.MaxBytes)/max(bytes, 1)))
	if s.most > 0 {
		n = min(n, s.most)
	}
	if pages && s.items > 0 {
		n = 1
	}
	s.last = max(n, 1)
	return s.last
}

// observe learns from units that were read. It leans towards the larger ones.
func (s *sizer) observe(units uint64, rows, bytes int) {
	if units == 0 || rows == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	blend := func(old, now float64) float64 {
		if now >= old {
			return now
		}
		return old*0.75 + now*0.25
	}
	n := float64(units)
	s.bytes, s.rows = blend(s.bytes, float64(bytes)/n), blend(s.rows, float64(rows)/n)
	if now := float64(bytes) / n; s.least == 0 || now < s.least {
		s.least = now
	} else {
		s.least = s.least*0.75 + now*0.25
	}
	if s.most > 0 {
		s.most += s.most/4 + 1
	}
}

// surely is how many bytes so many units have at least, unless they are smaller than those before; 0 if none was seen.
func (s *sizer) surely(units uint64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.least * float64(units) * 31 / 32)
}

// shrink halves what the next chunk covers, because the last one was too large or took too long.
func (s *sizer) shrink() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = max(s.last/2, 1)
}

// atMost has the next chunk cover no more than so many units.
func (s *sizer) atMost(units uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = max(min(s.most, units), 1)
}

// part is how many items of a page a chunk may cover; 0 if it may cover whole pages.
func (s *sizer) part() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.items
}

// cut has the next chunks cover no more than so many items of a page.
func (s *sizer) cut(items uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items = max(items, 1)
}

// mend lets chunks cover more items of a page again, and all of them from most on.
func (s *sizer) mend(most uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.items *= 2; s.items >= most {
		s.items = 0
	}
}
