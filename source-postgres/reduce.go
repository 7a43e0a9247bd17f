package main

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// A reducer takes in a message that holds a row and is too large for memory, piece by piece, and keeps what cdc.Sieve keeps of its
// values; the others it passes over. What remains is a message of the same form:
//
//	DataRow      'D' length u32 · n u16 · n × (length i32 · value)               a value that is left out becomes null
//	CopyData     'd' length u32 · 'w' · 24 bytes · [xid u32] a row of pgoutput    a value that is left out becomes 'x' length u64
//
// It never holds more than the sieve's limit, in the bytes that values take in a document, and a little for what is small.
type reducer struct {
	// bytesOf says how many bytes of a document a value takes that the server sends in so many.
	bytesOf func(relation uint32, column, n int) int
	xid     bool // row messages have one behind their kind

	sieve    cdc.Sieve
	out      []byte
	left     int    // of the message
	copying  int    // bytes of a value
	skipping int    // bytes of a value
	field    []byte // that is being gathered
	want     int    // its length
	then     func() error

	isCopy   bool
	relation uint32
	old      bool
	columns  int // left of the tuple
	column   int
	kept     []keptValue
	lacks    []leftValue
}

// keptValue is a value in out. A place is its number among all of the message.
type keptValue struct {
	place, start, end int // with its length
	leftValue
}

// leftValue is a value that was left out.
type leftValue struct {
	old    bool
	column int
	bytes  int
}

const (
	// Values that are smaller are always kept.
	smallValue   = 64
	copyDataHead = 5 + 25
)

var errNoRow = errors.New("a message that is no row is too large")

// newReducer begins a message of so many bytes, its kind included.
func newReducer(size, limit int, bytesOf func(relation uint32, column, n int) int) *reducer {
	r := &reducer{left: size, bytesOf: bytesOf}
	r.sieve.Reset(limit)
	r.gather(5, r.kind)
	return r
}

func (r *reducer) gather(n int, then func() error) { r.field, r.want, r.then = r.field[:0], n, then }

// take takes in what it needs of the bytes, and returns how many these are. It is done when left is 0.
func (r *reducer) take(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 && r.left > 0 {
		var n int
		switch {
		case r.skipping > 0:
			n = min(r.skipping, len(p), r.left)
			r.skipping -= n
		case r.copying > 0:
			n = min(r.copying, len(p), r.left)
			r.out = append(r.out, p[:n]...)
			r.copying -= n
		default:
			n = min(r.want-len(r.field), len(p), r.left)
			r.field = append(r.field, p[:n]...)
		}
		p, r.left = p[n:], r.left-n
		if r.skipping == 0 && r.copying == 0 && len(r.field) == r.want {
			if err := r.then(); err != nil {
				return all - len(p), err
			}
		}
	}
	if r.left == 0 {
		binary.BigEndian.PutUint32(r.out[1:], uint32(len(r.out)-1)) //nolint:gosec // smaller than the message was
	}
	return all - len(p), nil
}

// rest implements taker.
func (r *reducer) rest() ([]byte, bool) { return r.out, r.left == 0 }

func (r *reducer) keepField() { r.out = append(r.out, r.field...) }

func (r *reducer) kind() error {
	r.keepField()
	switch r.field[0] {
	case 'D':
		r.gather(2, r.count)
	case 'd':
		r.isCopy = true
		head := copyDataHead - 5 + 1 + 4
		if r.xid {
			head += 4
		}
		r.gather(head, r.change)
	default:
		return errNoRow
	}
	return nil
}

// change has the head of a row of pgoutput, up to its table.
func (r *reducer) change() error {
	r.keepField()
	switch r.field[copyDataHead-5] {
	case 'I', 'U', 'D':
	default:
		return errNoRow
	}
	r.relation = binary.BigEndian.Uint32(r.field[len(r.field)-4:])
	r.gather(3, r.tuple)
	return nil
}

func (r *reducer) tuple() error {
	r.old = r.field[0] != 'N'
	r.keepField()
	return r.counted(r.field[1:])
}

func (r *reducer) count() error {
	r.keepField()
	return r.counted(r.field)
}

func (r *reducer) counted(n []byte) error {
	r.columns, r.column = int(binary.BigEndian.Uint16(n)), -1
	return r.next()
}

// next goes on behind a value.
func (r *reducer) next() error {
	r.column++
	switch {
	case r.column == r.columns && r.left > 0 && !r.isCopy:
		return errFrame
	case r.column == r.columns:
		r.gather(3, r.tuple)
	case r.isCopy:
		r.gather(1, r.valueKind)
	default:
		r.gather(4, r.value)
	}
	return nil
}

func (r *reducer) valueKind() error {
	switch r.field[0] {
	case 't', 'b':
		r.gather(4, r.valueOf(r.field[0]))
		return nil
	case 'n', 'u':
		r.keepField()
		return r.next()
	default:
		return errFrame
	}
}

func (r *reducer) valueOf(kind byte) func() error {
	return func() error {
		r.field = slices.Insert(r.field, 0, kind)
		return r.value()
	}
}

// value has the length of a value, and decides what becomes of it.
func (r *reducer) value() error {
	n := int(int32(binary.BigEndian.Uint32(r.field[len(r.field)-4:]))) //nolint:gosec // -1 is null
	if n > r.left || n < -1 || (n < 0 && r.isCopy) {
		return errFrame
	}
	if n < smallValue {
		r.keepField()
		return r.pass(n, true)
	}
	place := len(r.kept) + len(r.lacks)
	this := leftValue{r.old, r.column, n}
	keep, drop := r.sieve.Offer(place, r.bytesOf(r.relation, r.column, n), r.old)
	for _, p := range drop {
		r.drop(p)
	}
	if !keep {
		r.lacks = append(r.lacks, this)
		r.out = r.appendLeft(r.out, n)
		return r.pass(n, false)
	}
	if need := len(r.out) + len(r.field) + n; need > cap(r.out) {
		r.out = append(make([]byte, 0, need+4096), r.out...)
	}
	r.kept = append(r.kept, keptValue{place: place, start: len(r.out), end: len(r.out) + len(r.field) + n, leftValue: this})
	r.keepField()
	return r.pass(n, true)
}

// pass goes over the bytes of a value.
func (r *reducer) pass(n int, keep bool) error {
	r.then, r.field, r.want = r.next, r.field[:0], 0
	switch {
	case n <= 0:
		return r.next()
	case keep:
		r.copying = n
	default:
		r.skipping = n
	}
	return nil
}

// appendLeft appends what stands for a value that is left out.
func (r *reducer) appendLeft(dst []byte, n int) []byte {
	if !r.isCopy {
		return append(dst, 0xff, 0xff, 0xff, 0xff)
	}
	return binary.BigEndian.AppendUint64(append(dst, 'x'), uint64(n)) //nolint:gosec // a length
}

// drop gives up a value that was kept.
func (r *reducer) drop(place int) {
	i := slices.IndexFunc(r.kept, func(k keptValue) bool { return k.place == place })
	k := r.kept[i]
	mark := r.appendLeft(nil, k.bytes)
	r.out = append(append(r.out[:k.start], mark...), r.out[k.end:]...)
	for j := i + 1; j < len(r.kept); j++ {
		shift := k.end - k.start - len(mark)
		r.kept[j].start, r.kept[j].end = r.kept[j].start-shift, r.kept[j].end-shift
	}
	r.kept = slices.Delete(r.kept, i, i+1)
	r.lacks = append(r.lacks, k.leftValue)
}
