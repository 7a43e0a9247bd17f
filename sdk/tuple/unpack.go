package tuple

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// Kind is the type of an Element.
type Kind uint8

// The kinds of elements.
const (
	Nil    Kind = iota
	Bytes       // Element.Bytes
	String      // Element.Bytes
	Int         // Element.Int
	Uint        // Element.Uint: an integer above the largest int64
	Float       // Element.Float
	Bool        // Element.Bool
)

// Element is one decoded element. Only the member that Kind names is set.
type Element struct {
	Kind  Kind
	Bool  bool
	Int   int64
	Uint  uint64
	Float float64
	// Bytes holds a byte string or a text. It aliases the packed tuple where nothing had to be unescaped.
	Bytes []byte
}

// Value is the element as nil, []byte, string, int64, uint64, float64 or bool. A []byte aliases what Bytes aliases.
func (e Element) Value() any {
	switch e.Kind {
	case Bytes:
		return e.Bytes
	case String:
		return string(e.Bytes)
	case Int:
		return e.Int
	case Uint:
		return e.Uint
	case Float:
		return e.Float
	case Bool:
		return e.Bool
	default:
		return nil
	}
}

// Next decodes the first element of a packed tuple and returns what follows it. The element's bytes alias b where they
// need no unescaping. It fails on an unknown type code and on a cut element; it does not fail on anything that the Append
// functions produce.
func Next(b []byte) (e Element, rest []byte, err error) {
	if len(b) == 0 {
		return Element{}, nil, fmt.Errorf("decoding tuple: no element is left")
	}
	code := b[0]
	switch {
	case code == codeNil:
		return Element{Kind: Nil}, b[1:], nil
	case code == codeBytes || code == codeString:
		text, rest, err := nextEscaped(b[1:])
		return Element{Kind: Bytes + Kind(code-codeBytes), Bytes: text}, rest, err
	case code >= codeIntMin && code <= codeIntMax:
		return nextInt(b)
	case code == codeDouble:
		if len(b) < 9 {
			return Element{}, nil, fmt.Errorf("decoding tuple: a float is cut after %d of 8 bytes", len(b)-1)
		}
		bits := binary.BigEndian.Uint64(b[1:])
		if bits>>63 != 0 {
			bits &^= 1 << 63
		} else {
			bits = ^bits
		}
		return Element{Kind: Float, Float: math.Float64frombits(bits)}, b[9:], nil
	case code == codeFalse || code == codeTrue:
		return Element{Kind: Bool, Bool: code == codeTrue}, b[1:], nil
	default:
		return Element{}, nil, fmt.Errorf("decoding tuple: unknown type code 0x%02x", code)
	}
}

// AppendElements decodes all elements of a packed tuple, as Next does, behind those in dst. It allocates nothing where dst has room and nothing
// needs unescaping. On failure the last element is not one.
func AppendElements(dst []Element, packed []byte) ([]Element, error) {
	for len(packed) > 0 {
		dst = append(dst, Element{})
		e := &dst[len(dst)-1]
		var err error
		if code := packed[0]; code == codeBytes || code == codeString {
			e.Kind = Bytes + Kind(code-codeBytes) // most are texts, which are not worth a copy of an element
			e.Bytes, packed, err = nextEscaped(packed[1:])
		} else {
			*e, packed, err = Next(packed)
		}
		if err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// nextEscaped returns the bytes before the terminator, unescaped. Only escaped bytes are copied.
func nextEscaped(b []byte) (text, rest []byte, err error) {
	var owned []byte
	for from := 0; ; {
		i := bytes.IndexByte(b[from:], 0)
		if i < 0 {
			return nil, nil, fmt.Errorf("decoding tuple: a string of %d bytes has no end", len(b))
		}
		end := from + i
		if end+1 >= len(b) || b[end+1] != escape {
			if owned == nil {
				return b[:end:end], b[end+1:], nil
			}
			return append(owned, b[from:end]...), b[end+1:], nil
		}
		owned = append(owned, b[from:end+1]...)
		from = end + 2
	}
}

func nextInt(b []byte) (Element, []byte, error) {
	n := int(b[0]) - codeZero
	negative := n < 0
	if negative {
		n = -n
	}
	if len(b) < 1+n {
		return Element{}, nil, fmt.Errorf("decoding tuple: an integer is cut after %d of %d bytes", len(b)-1, n)
	}
	v := leadingBytes(b[1:], n)
	if negative {
		v = ^v & (1<<(8*n) - 1)
	}
	rest := b[1+n:]
	switch {
	case !negative && v > math.MaxInt64:
		return Element{Kind: Uint, Uint: v}, rest, nil
	case !negative:
		return Element{Kind: Int, Int: int64(v)}, rest, nil
	case v > 1<<63:
		return Element{}, nil, fmt.Errorf("decoding tuple: the integer -%d is below the smallest of 64 bits", v)
	default:
		return Element{Kind: Int, Int: -int64(v-1) - 1}, rest, nil
	}
}

// leadingBytes is the number that the first n bytes, at most eight, are in big-endian order.
func leadingBytes(b []byte, n int) uint64 {
	if len(b) >= 8 {
		return binary.BigEndian.Uint64(b) >> (8 * (8 - n))
	}
	var v uint64
	for _, c := range b[:n] {
		v = v<<8 | uint64(c)
	}
	return v
}

// Unpack decodes a whole tuple into the values of Element.Value, with copied bytes. It is for tests and messages; hot
// paths use Next.
func Unpack(b []byte) ([]any, error) {
	var values []any
	for len(b) > 0 {
		e, rest, err := Next(b)
		if err != nil {
			return nil, err
		}
		e.Bytes = bytes.Clone(e.Bytes)
		values = append(values, e.Value())
		b = rest
	}
	return values, nil
}
