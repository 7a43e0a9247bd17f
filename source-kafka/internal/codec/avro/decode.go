package avro

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

const (
	// maxDepth is how deep a value may be nested.
	maxDepth = 1000
	// maxEmpty is how many elements of a record's arrays may take no byte at all: of those alone, a few bytes could claim
	// any number.
	maxEmpty = 1 << 20
)

var (
	errShort  = errors.New("it ends in the middle of a value")
	errVarint = errors.New("a number in it has too many bytes")
	errUTF8   = errors.New("a text in it holds bytes that are not UTF-8")
	errDepth  = errors.New("it is nested too deep")
	errEmpty  = errors.New("it claims too many elements")
	errNarrow = errors.New("an int in it has more than 32 bits")
)

// Append appends the JSON of one value, which must take all of data. An error is a phrase about the data, for people; dst
// may then hold a part of the value. Nothing is kept, and nothing allocated but room in dst.
func (s *Schema) Append(dst, data []byte) ([]byte, error) {
	d := decoder{data: data, key: s.key}
	dst, err := d.value(dst, s.root)
	if err != nil {
		return dst, err
	}
	if d.pos != len(data) {
		return dst, fmt.Errorf("%d bytes are left behind its value", len(data)-d.pos)
	}
	return dst, nil
}

// decoder is one value being read.
type decoder struct {
	data  []byte
	pos   int
	depth int
	empty int
	key   bool
}

func (d *decoder) value(dst []byte, t *typ) ([]byte, error) {
	switch t.kind {
	case kindNull:
		return append(dst, "null"...), nil
	case kindBoolean:
		return d.boolean(dst)
	case kindInt, kindLong:
		v, err := d.long()
		if err != nil {
			return dst, err
		}
		if t.kind == kindInt && int64(int32(v)) != v {
			return dst, errNarrow
		}
		if t.logical != logicalNone {
			return d.appendTime(dst, t, v)
		}
		return rowjson.AppendInt(dst, v), nil
	case kindFloat:
		b, err := d.take(4)
		if err != nil {
			return dst, err
		}
		return rowjson.AppendFloat(dst, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32), nil
	case kindDouble:
		b, err := d.take(8)
		if err != nil {
			return dst, err
		}
		return rowjson.AppendFloat(dst, math.Float64frombits(binary.LittleEndian.Uint64(b)), 64), nil
	case kindString:
		return d.text(dst)
	case kindUnion:
		return d.union(dst, t)
	case kindEnum:
		i, err := d.long()
		if err != nil {
			return dst, err
		}
		if i < 0 || i >= int64(len(t.symbols)) {
			return dst, fmt.Errorf("the enum %q has no symbol %d", t.name, i)
		}
		return append(dst, t.symbols[i]...), nil
	case kindBytes:
		b, err := d.sized()
		if err != nil {
			return dst, err
		}
		return appendBytes(dst, t, b)
	case kindFixed:
		b, err := d.take(t.size)
		if err != nil {
			return dst, err
		}
		return appendBytes(dst, t, b)
	default:
		return d.nested(dst, t)
	}
}

// nested reads what holds other values.
func (d *decoder) nested(dst []byte, t *typ) ([]byte, error) {
	if d.depth++; d.depth > maxDepth {
		return dst, errDepth
	}
	var err error
	switch t.kind {
	case kindRecord:
		dst, err = d.record(dst, t)
	case kindArray:
		dst, err = d.array(dst, t)
	default:
		dst, err = d.mapping(dst, t)
	}
	d.depth--
	return dst, err
}

func (d *decoder) record(dst []byte, t *typ) ([]byte, error) {
	if len(t.fields) == 0 {
		return append(dst, '{', '}'), nil
	}
	for i := range t.fields {
		f := &t.fields[i]
		if n := len(f.prefix); n <= len(f.short) {
			// An array of known length is copied without a call, and most names are short: what it is longer than the prefix is cut off.
			dst = append(dst, f.short[:]...)[:len(dst)+n]
		} else {
			dst = append(dst, f.prefix...)
		}
		var err error
		if dst, err = d.value(dst, f.typ); err != nil {
			return dst, d.at(err, f.name)
		}
	}
	return append(dst, '}'), nil
}

// fieldError says in which field of the record a value could not be read.
type fieldError struct {
	path  string
	cause error
}

func (e *fieldError) Error() string { return fmt.Sprintf("field %q: %s", e.path, e.cause.Error()) }
func (e *fieldError) Unwrap() error { return e.cause }

func (d *decoder) at(err error, name string) error {
	var f *fieldError
	if !errors.As(err, &f) {
		return &fieldError{path: name, cause: err}
	}
	// Names of deep nestings would make a message that nobody reads.
	if len(f.path) < 200 {
		f.path = name + "." + f.path
	}
	return f
}

func (d *decoder) union(dst []byte, t *typ) ([]byte, error) {
	if d.depth >= maxDepth {
		return dst, errDepth
	}
	i, err := d.long()
	if err != nil {
		return dst, err
	}
	if i < 0 || i >= int64(len(t.branches)) {
		return dst, fmt.Errorf("a union of %d branches has no branch %d", len(t.branches), i)
	}
	b := &t.branches[i]
	if b.typ.kind == kindNull && b.open == nil {
		return append(dst, "null"...), nil
	}
	d.depth++
	dst = append(dst, b.open...)
	if dst, err = d.value(dst, b.typ); err != nil {
		return dst, err
	}
	d.depth--
	return append(dst, b.end...), nil
}

// block reads how many elements follow, 0 at the end, and holds the claim against the bytes that are left.
func (d *decoder) block(least int) (int, error) {
	n, err := d.long()
	if err != nil {
		return 0, err
	}
	if n < 0 {
		// The size of the block in bytes follows, for readers that skip.
		size, err := d.long()
		if err != nil {
			return 0, err
		}
		if n = -n; size < 0 || size > int64(len(d.data)-d.pos) {
			return 0, errShort
		}
	}
	switch {
	case n == 0:
		return 0, nil
	case n < 0 || n > math.MaxInt32:
		return 0, errEmpty
	case least > 0 && n > int64((len(d.data)-d.pos)/least):
		return 0, errShort
	case least == 0:
		if d.empty += int(n); d.empty > maxEmpty {
			return 0, errEmpty
		}
	}
	return int(n), nil
}

func (d *decoder) array(dst []byte, t *typ) ([]byte, error) {
	dst = append(dst, '[')
	for first := true; ; {
		n, err := d.block(t.items.least)
		if err != nil {
			return dst, err
		}
		if n == 0 {
			return append(dst, ']'), nil
		}
		for range n {
			if !first {
				dst = append(dst, ',')
			}
			first = false
			if dst, err = d.value(dst, t.items); err != nil {
				return dst, err
			}
		}
	}
}

func (d *decoder) mapping(dst []byte, t *typ) ([]byte, error) {
	dst = append(dst, '{')
	for first := true; ; {
		n, err := d.block(t.items.least + 1)
		if err != nil {
			return dst, err
		}
		if n == 0 {
			return append(dst, '}'), nil
		}
		for range n {
			if !first {
				dst = append(dst, ',')
			}
			first = false
			if dst, err = d.text(dst); err != nil {
				return dst, err
			}
			dst = append(dst, ':')
			if dst, err = d.value(dst, t.items); err != nil {
				return dst, err
			}
		}
	}
}

func (d *decoder) boolean(dst []byte) ([]byte, error) {
	b, err := d.take(1)
	if err != nil {
		return dst, err
	}
	if b[0] > 1 {
		return dst, fmt.Errorf("a boolean in it is the byte %d", b[0])
	}
	return rowjson.AppendBool(dst, b[0] == 1), nil
}

func (d *decoder) text(dst []byte) ([]byte, error) {
	b, err := d.sized()
	if err != nil {
		return dst, err
	}
	dst, ok := rowjson.AppendUTF8(dst, b)
	if !ok {
		return dst, errUTF8
	}
	return dst, nil
}

// sized reads a length and as many bytes, which alias the data.
func (d *decoder) sized() ([]byte, error) {
	n, err := d.long()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > int64(len(d.data)-d.pos) {
		return nil, errShort
	}
	b := d.data[d.pos : d.pos+int(n)]
	d.pos += int(n)
	return b, nil
}

func (d *decoder) take(n int) ([]byte, error) {
	if n > len(d.data)-d.pos {
		return nil, errShort
	}
	b := d.data[d.pos : d.pos+n]
	d.pos += n
	return b, nil
}

// long reads a zigzag number of up to ten bytes. Most have one: lengths, branches, small numbers.
func (d *decoder) long() (int64, error) {
	if d.pos < len(d.data) {
		if c := d.data[d.pos]; c < 0x80 {
			d.pos++
			return int64(c>>1) ^ -int64(c&1), nil
		}
	}
	return d.longer()
}

//go:noinline
func (d *decoder) longer() (int64, error) {
	var u uint64
	for shift := uint(0); shift < 64; shift += 7 {
		if d.pos >= len(d.data) {
			return 0, errShort
		}
		c := d.data[d.pos]
		d.pos++
		if shift == 63 && c > 1 {
			return 0, errVarint
		}
		u |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return int64(u>>1) ^ -int64(u&1), nil
		}
	}
	return 0, errVarint
}
