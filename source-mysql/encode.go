package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

// encoder appends one value as JSON.
type encoder = rowjson.Encoder[[]byte]

var errValue = errors.New("a value is not of its column's type")

// codec is how the values of a column are written, whichever way they come: as a scan's text, or as the log's bytes.
type codec struct {
	typ      *columnType
	cs       *charset
	members  [][]byte // of an enumeration or a set, as JSON strings without quotes
	zero     string   // what becomes of dates that do not exist
	geoJSON  bool     // geometries come as GeoJSON
	location *time.Location
	asKey    bool
}

func (d *driver) codec(t *columnType, asKey bool) (*codec, error) {
	c := &codec{typ: t, zero: d.cfg.Advanced.ZeroDates, geoJSON: d.cfg.Advanced.Geometry == geoJSON, location: d.location, asKey: asKey}
	var err error
	if t.charset != "" {
		if c.cs, err = d.charsets.named(t.charset); err != nil {
			return nil, err
		}
	}
	for _, m := range t.members {
		quoted := rowjson.AppendText(nil, m)
		c.members = append(c.members, quoted[1:len(quoted)-1])
	}
	return c, nil
}

// expression is how a scan asks for the column, so that its text says all that the log does.
func (c *codec) expression(column string) string {
	switch c.typ.kind {
	case kindFloat, kindDouble: // a float alone is printed with six digits
		return column + " + 0e0"
	case kindBit:
		return column + " + 0"
	default:
		return column
	}
}

// orNull makes an encoder write null for nil.
func orNull(enc encoder) encoder {
	return func(dst, v []byte) ([]byte, error) {
		if v == nil {
			return rowjson.AppendNull(dst), nil
		}
		return enc(dst, v)
	}
}

// scanned is the encoder of values that a scan gives.
func (c *codec) scanned() encoder {
	switch c.typ.kind {
	case kindInt, kindUint, kindBit, kindYear:
		return orNull(func(dst, v []byte) ([]byte, error) { return append(dst, number(v)...), nil })
	case kindDecimal:
		return orNull(func(dst, v []byte) ([]byte, error) { return append(append(append(dst, '"'), number(v)...), '"'), nil })
	case kindFloat, kindDouble:
		return orNull(func(dst, v []byte) ([]byte, error) {
			f, err := strconv.ParseFloat(string(v), 64)
			if err != nil {
				return dst, fmt.Errorf("%w: %w", errValue, err)
			}
			return c.float(dst, f), nil
		})
	case kindEnum, kindSet:
		return orNull(c.text)
	case kindJSON:
		return orNull(func(dst, v []byte) ([]byte, error) { return compactJSON(dst, v), nil })
	case kindDate, kindDatetime, kindTimestamp:
		return orNull(c.scannedMoment())
	case kindTime, kindUUID, kindInet4, kindInet6:
		return orNull(func(dst, v []byte) ([]byte, error) { return rowjson.AppendString(dst, v), nil })
	default:
		return orNull(c.same())
	}
}

// logged is the encoder of values that the log has.
func (c *codec) logged() encoder {
	switch c.typ.kind {
	case kindInt:
		return orNull(func(dst, v []byte) ([]byte, error) { return strconv.AppendInt(dst, signed(v), 10), nil })
	case kindUint:
		return orNull(func(dst, v []byte) ([]byte, error) { return strconv.AppendUint(dst, unsigned(v), 10), nil })
	case kindBit:
		return orNull(func(dst, v []byte) ([]byte, error) {
			var n uint64
			for _, b := range v {
				n = n<<8 | uint64(b)
			}
			return strconv.AppendUint(dst, n, 10), nil
		})
	case kindYear:
		return orNull(func(dst, v []byte) ([]byte, error) {
			if v[0] == 0 {
				return append(dst, '0'), nil
			}
			return strconv.AppendInt(dst, int64(v[0])+1900, 10), nil
		})
	case kindDecimal:
		return orNull(func(dst, v []byte) ([]byte, error) {
			return append(appendDecimal(append(dst, '"'), v, c.typ.size, c.typ.scale), '"'), nil
		})
	case kindFloat:
		return orNull(func(dst, v []byte) ([]byte, error) {
			return c.float(dst, float64(math.Float32frombits(binary.LittleEndian.Uint32(v)))), nil
		})
	case kindDouble:
		return orNull(func(dst, v []byte) ([]byte, error) {
			return c.float(dst, math.Float64frombits(binary.LittleEndian.Uint64(v))), nil
		})
	case kindEnum, kindSet:
		return orNull(c.choice)
	case kindJSON:
		return orNull(appendJSONB)
	case kindDate, kindDatetime, kindTimestamp:
		return orNull(func(dst, v []byte) ([]byte, error) { return c.moment(dst, c.momentOf(v)) })
	case kindTime:
		return orNull(func(dst, v []byte) ([]byte, error) {
			return append(appendTime(append(dst, '"'), v, c.typ.scale), '"'), nil
		})
	case kindUUID, kindInet4, kindInet6:
		return orNull(c.address)
	default:
		return orNull(c.same())
	}
}

// same is the encoder of values of which scan and log have the same bytes.
func (c *codec) same() encoder {
	switch c.typ.kind {
	case kindText:
		if c.cs.utf8 {
			return func(dst, v []byte) ([]byte, error) { return rowjson.AppendString(dst, v), nil }
		}
		return c.text
	case kindBinary:
		return func(dst, v []byte) ([]byte, error) {
			if len(v) < c.typ.size { // the log leaves zeros at the end out
				v = append(bytes.Clone(v), make([]byte, c.typ.size-len(v))...)
			}
			return rowjson.AppendBase64(dst, v), nil
		}
	case kindBytes:
		return func(dst, v []byte) ([]byte, error) { return rowjson.AppendBase64(dst, v), nil }
	case kindGeometry:
		return func(dst, v []byte) ([]byte, error) { return appendGeometry(dst, v, c.geoJSON) }
	case kindVector:
		return appendVector
	default:
		return func(dst, _ []byte) ([]byte, error) { return dst, fmt.Errorf("%w: %s", errValue, c.typ.text()) }
	}
}

// text appends text in the column's character set.
func (c *codec) text(dst, v []byte) ([]byte, error) {
	if c.cs.utf8 || isASCII(v) && c.cs.longest == 1 {
		return rowjson.AppendString(dst, v), nil
	}
	text, err := c.cs.decode(make([]byte, 0, 2*len(v)), v)
	if err != nil {
		return dst, err
	}
	return rowjson.AppendString(dst, text), nil
}

// choice appends the member of an enumeration, or those of a set.
func (c *codec) choice(dst, v []byte) ([]byte, error) {
	n := unsigned(v)
	dst = append(dst, '"')
	if c.typ.kind == kindEnum {
		switch {
		case n == 0: // what the server stores for a value that is none
		case n > uint64(len(c.members)):
			return dst, fmt.Errorf("%w: member %d of %d", errValue, n, len(c.members))
		default:
			dst = append(dst, c.members[n-1]...)
		}
		return append(dst, '"'), nil
	}
	first := true
	for i := 0; n != 0; i, n = i+1, n>>1 {
		if n&1 == 0 {
			continue
		}
		if i >= len(c.members) {
			return dst, fmt.Errorf("%w: member %d of %d", errValue, i+1, len(c.members))
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, c.members[i]...)
	}
	return append(dst, '"'), nil
}

func (c *codec) float(dst []byte, f float64) []byte {
	size := 64
	if c.typ.kind == kindFloat {
		size, f = 32, float64(float32(f))
	}
	if c.asKey {
		return append(rowjson.AppendFloat(append(dst, '"'), f, size), '"')
	}
	return rowjson.AppendFloat(dst, f, size)
}

// address appends one of MariaDB's types that are strings of bytes in the log, which leaves zeros at the end out.
func (c *codec) address(dst, v []byte) ([]byte, error) {
	size := c.typ.fixed()
	if len(v) > size {
		return dst, fmt.Errorf("%w: %d bytes for %s", errValue, len(v), c.typ.name)
	}
	var b [16]byte
	copy(b[:], v)
	switch c.typ.kind {
	case kindUUID:
		// Stored with the time's parts last, so that what was made later sorts behind, except for those that sort by themselves.
		if b[6]&^b[8]&0x80 != 0 {
			swapped := b
			copy(b[0:4], swapped[12:16])
			copy(b[4:6], swapped[10:12])
			copy(b[6:8], swapped[8:10])
			copy(b[8:10], swapped[6:8])
			copy(b[10:16], swapped[0:6])
		}
		return rowjson.AppendUUID(dst, b[:])
	case kindInet4:
		return append(netip.AddrFrom4([4]byte(b[:4])).AppendTo(append(dst, '"')), '"'), nil
	default:
		return append(appendInet6(append(dst, '"'), b), '"'), nil
	}
}

// number is a number as the server prints it, without the zeros that ZEROFILL puts in front.
func number(v []byte) []byte {
	for len(v) > 1 && v[0] == '0' && v[1] != '.' {
		v = v[1:]
	}
	return v
}

// signed reads a little-endian integer of 1 to 8 bytes.
func signed(v []byte) int64 {
	shift := 64 - 8*len(v)
	return int64(unsigned(v)<<shift) >> shift //nolint:gosec // the sign is meant
}

func unsigned(v []byte) uint64 {
	switch len(v) {
	case 8:
		return binary.LittleEndian.Uint64(v)
	case 4:
		return uint64(binary.LittleEndian.Uint32(v))
	}
	var n uint64
	for i, b := range v {
		n |= uint64(b) << (8 * i)
	}
	return n
}

// digitBytes is how many bytes up to nine decimal digits take.
var digitBytes = [...]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4} //nolint:gochecknoglobals // a table

// appendDecimal appends a decimal of the log: groups of nine digits in four bytes, big-endian, the ones at the ends shorter; the
// first bit is inverted, and everything if the number is negative.
func appendDecimal(dst, v []byte, precision, scale int) []byte {
	if len(v) == 0 {
		return append(dst, '0')
	}
	negative := v[0]&0x80 == 0
	var digits [96]byte
	out := digits[:0]
	at := 0
	group := func(n int) {
		size := digitBytes[n]
		var x uint32
		for i := range size {
			b := v[at+i]
			if at+i == 0 {
				b ^= 0x80
			}
			if negative {
				b = ^b
			}
			x = x<<8 | uint32(b)
		}
		at += size
		end := len(out) + n
		out = out[:end]
		for i := end - 1; i >= end-n; i-- {
			out[i] = byte('0' + x%10)
			x /= 10
		}
	}
	whole := precision - scale
	if n := whole % 9; n > 0 {
		group(n)
	}
	for range whole / 9 {
		group(9)
	}
	point := len(out)
	for range scale / 9 {
		group(9)
	}
	if n := scale % 9; n > 0 {
		group(n)
	}
	if negative && len(bytes.Trim(out, "0")) > 0 {
		dst = append(dst, '-')
	}
	integer := bytes.TrimLeft(out[:point], "0")
	if len(integer) == 0 {
		integer = []byte{'0'}
	}
	dst = append(dst, integer...)
	if scale > 0 {
		dst = append(append(dst, '.'), out[point:]...)
	}
	return dst
}

// appendInet6 appends an address as MariaDB prints it.
func appendInet6(dst []byte, b [16]byte) []byte {
	addr := netip.AddrFrom16(b)
	if addr.Is4In6() {
		return addr.AppendTo(dst)
	}
	// Addresses that begin with 96 zero bits are printed with dots, except for small numbers.
	if [12]byte(b[:12]) == [12]byte{} && binary.BigEndian.Uint16(b[12:]) != 0 {
		return netip.AddrFrom4([4]byte(b[12:])).AppendTo(append(dst, "::"...))
	}
	return addr.AppendTo(dst)
}

// appendVector appends a vector: numbers of four bytes.
func appendVector(dst, v []byte) ([]byte, error) {
	if len(v)%4 != 0 {
		return dst, fmt.Errorf("%w: a vector of %d bytes", errValue, len(v))
	}
	dst = append(dst, '[')
	for i := 0; i < len(v); i += 4 {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = rowjson.AppendFloat(dst, float64(math.Float32frombits(binary.LittleEndian.Uint32(v[i:]))), 32)
	}
	return append(dst, ']'), nil
}

// hexText is what bytes look like in errors.
func hexText(v []byte) string { return hex.EncodeToString(v[:min(len(v), 16)]) }
