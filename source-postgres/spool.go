package main

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sync/atomic"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// A spool keeps the bytes of many transactions, each in the order in which it was given them. All of them together have
// spoolMemory; what is more goes to one temporary file, which has no name any more, so nothing is left of it when the process
// ends, however it ends. The file consists of pages, which are given back when their transaction is dropped. So there is one
// open file, whatever the number of transactions. A spool is used by one goroutine, except for kept.
type spool struct {
	folder string
	file   *os.File
	table  *crc32.Table
	limit  int // bytes of memory

	held    int      // bytes of memory that transactions have
	spare   [][]byte // buffers of a page each, to be used again
	holders map[*spooled]struct{}

	free []uint32 // pages of the file that nobody has
	end  uint32   // pages from here on were never used
	kept atomic.Int64
}

// spooled is what a spool has of one transaction. Its pages in the file come before those in memory.
type spooled struct {
	size   int64
	disk   []diskPage
	memory [][]byte
	filled bool // it had a whole page once
}

// diskPage is a page of the file.
type diskPage struct {
	at, n uint32 // which page, and how many bytes of it
	sum   uint32 // CRC-32C
}

const (
	// spoolMemory bounds what all transactions in progress have in memory together.
	spoolMemory = 8 << 20
	spoolPage   = 256 << 10
	// A transaction's first page begins this small.
	firstPage = 1 << 10
)

// newSpool makes a spool, and its file in a folder.
func newSpool(folder string) (*spool, error) {
	f, err := os.CreateTemp(folder, "sluice-transactions-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("making a temporary file: %w", errors.Join(err, f.Close()))
	}
	return &spool{folder: folder, file: f, table: crc32.MakeTable(crc32.Castagnoli), limit: spoolMemory, holders: map[*spooled]struct{}{}}, nil
}

func (s *spool) close() error { return s.file.Close() }

// append adds a copy of p to what is kept of a transaction.
func (s *spool) append(t *spooled, p []byte) error {
	t.size += int64(len(p))
	s.kept.Add(int64(len(p)))
	for len(p) > 0 {
		if err := s.room(t); err != nil {
			return err
		}
		last := &t.memory[len(t.memory)-1]
		n := copy((*last)[len(*last):cap(*last)], p)
		*last, p = (*last)[:len(*last)+n], p[n:]
	}
	return nil
}

// room sees to it that a transaction's last page is in memory and can take a byte.
func (s *spool) room(t *spooled) error {
	if n := len(t.memory); n > 0 && len(t.memory[n-1]) < cap(t.memory[n-1]) {
		return nil
	}
	if s.held >= s.limit {
		if err := s.flush(); err != nil {
			return err
		}
	}
	s.holders[t] = struct{}{}
	if n := len(t.memory); n > 0 && cap(t.memory[n-1]) < spoolPage {
		old := t.memory[n-1]
		t.memory[n-1] = append(s.buffer(2*cap(old)), old...)
		s.held -= cap(old)
		return nil
	}
	if len(t.memory) > 0 {
		t.filled = true
	}
	if t.filled {
		t.memory = append(t.memory, s.buffer(spoolPage))
	} else {
		t.memory = append(t.memory, s.buffer(firstPage))
	}
	return nil
}

// buffer gives memory to a transaction.
func (s *spool) buffer(size int) []byte {
	s.held += size
	if n := len(s.spare); size == spoolPage && n > 0 {
		b := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return b
	}
	for len(s.spare) > 0 && s.held+len(s.spare)*spoolPage > s.limit {
		s.spare = s.spare[:len(s.spare)-1]
	}
	return make([]byte, 0, size)
}

// recycle takes a transaction's memory back.
func (s *spool) recycle(t *spooled) {
	for _, b := range t.memory {
		s.held -= cap(b)
		if cap(b) == spoolPage && s.held+(len(s.spare)+1)*spoolPage <= s.limit {
			s.spare = append(s.spare, b[:0])
		}
	}
	t.memory = nil
	delete(s.holders, t)
}

// flush writes all that is in memory to the file.
func (s *spool) flush() error {
	for t := range s.holders {
		for _, b := range t.memory {
			at := s.page()
			if _, err := s.file.WriteAt(b, int64(at)*spoolPage); err != nil {
				return s.noRoom(err)
			}
			t.disk = append(t.disk, diskPage{at: at, n: uint32(len(b)), sum: crc32.Checksum(b, s.table)}) //nolint:gosec // a page at most
		}
		s.recycle(t)
	}
	return nil
}

// page takes a page of the file.
func (s *spool) page() uint32 {
	if n := len(s.free); n > 0 {
		at := s.free[n-1]
		s.free = s.free[:n-1]
		return at
	}
	s.end++
	return s.end - 1
}

func (s *spool) noRoom(err error) error {
	return usererr.New(err, "There is no room for transactions that are still open on the server: so far they need %d MiB in the folder for temporary files, %s, and that cannot be written (%s). "+
		"Make room there, have the environment variable TMPDIR name a folder on a larger disk, or set advanced.streamTransactions to off, so that the server keeps transactions on its own disk until they commit.",
		(s.kept.Load()+1<<20-1)>>20, s.folder, errors.Unwrap(err))
}

// drop forgets a transaction, and gives its disk space back.
func (s *spool) drop(t *spooled) {
	s.kept.Add(-t.size)
	s.recycle(t)
	pages := make([]uint32, len(t.disk))
	for i, p := range t.disk {
		pages[i] = p.at
	}
	*t = spooled{}
	if len(pages) == 0 {
		return
	}
	s.free = append(s.free, pages...)
	if len(s.free) == int(s.end) {
		s.free, s.end = nil, 0
		_ = s.file.Truncate(0) // a file that stays large is no harm but its size
		return
	}
	slices.Sort(pages)
	for len(pages) > 0 {
		n := 1
		for n < len(pages) && pages[n] == pages[0]+uint32(n) { //nolint:gosec // a number of pages
			n++
		}
		punchHole(s.file, int64(pages[0])*spoolPage, int64(n)*spoolPage)
		pages = pages[n:]
	}
}

// A spoolReader gives what was kept of a transaction. Nothing may be appended to that any more.
type spoolReader struct {
	s    *spool
	t    *spooled
	page int    // the next one
	rest []byte // of the page at hand
	buf  []byte
	left int64 // that was not given
}

func (s *spool) read(t *spooled) *spoolReader { return &spoolReader{s: s, t: t, left: t.size} }

// Read implements io.Reader.
func (r *spoolReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if err := r.turn(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.left -= int64(n)
	return n, nil
}

// turn goes on to the next page.
func (r *spoolReader) turn() error {
	i := r.page
	r.page++
	if i >= len(r.t.disk) {
		if i -= len(r.t.disk); i >= len(r.t.memory) {
			return io.EOF
		}
		r.rest = r.t.memory[i]
		return nil
	}
	if r.buf == nil {
		r.buf = make([]byte, spoolPage)
	}
	page := r.t.disk[i]
	r.rest = r.buf[:page.n]
	if _, err := r.s.file.ReadAt(r.rest, int64(page.at)*spoolPage); err != nil {
		return fmt.Errorf("reading a transaction back from the folder %s: %w", r.s.folder, err)
	}
	if crc32.Checksum(r.rest, r.s.table) != page.sum {
		return fmt.Errorf("reading a transaction back from the folder %s: %w", r.s.folder, errDamaged)
	}
	return nil
}

var errDamaged = errors.New("the disk does not give back what was written to it")
