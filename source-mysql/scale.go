package main

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// scale tells where values of a type lie between others. It need not be exact, nor in the server's order: it only serves to guess.
type scale struct {
	// number is where a value lies, as the server prints it; nil if that cannot be told.
	number func(v []byte) *big.Rat
	// value is a value that lies about there, of the same kind as another one; nil if there is none.
	value func(at *big.Rat, like []byte) []byte
}

// scale is that of the key's type. Texts and bytes have none.
func (k keyTerm) scale() (scale, bool) {
	switch k.kind {
	case kindInt, kindUint, kindBit, kindYear, kindEnum:
		return scale{rational, func(at *big.Rat, _ []byte) []byte { return []byte(at.FloatString(0)) }}, true
	case kindDecimal:
		return scale{rational, func(at *big.Rat, _ []byte) []byte { return []byte(at.FloatString(30)) }}, true
	case kindFloat, kindDouble:
		return scale{rational, func(at *big.Rat, _ []byte) []byte {
			f, _ := at.Float64() // near enough
			return strconv.AppendFloat(nil, f, 'e', -1, 64)
		}}, true
	case kindDate, kindDatetime, kindTimestamp:
		return scale{ofMoment, func(at *big.Rat, like []byte) []byte { return momentAt(at, len(like) > len("2006-01-02")) }}, true
	case kindTime:
		return scale{ofTime, timeAt}, true
	case kindUUID:
		return scale{ofUUID, uuidAt}, true
	case kindInet4, kindInet6:
		return scale{ofAddress, addressAt}, true
	default:
		return scale{}, false
	}
}

// maxBisections is how many guesses halve the largest numbers down to neighbours.
const maxBisections = 64

// guesses halves what lies between two values, and then the half that is chosen: most values may lie near one end.
func (c scale) guesses(low, high []byte) func(higher bool) []byte {
	from, to := c.number(low), c.number(high)
	var at *big.Rat
	left := maxBisections
	return func(higher bool) []byte {
		if left--; left < 0 || from == nil || to == nil {
			return nil
		}
		switch {
		case at == nil:
		case higher:
			from = at
		default:
			to = at
		}
		at = new(big.Rat).Add(from, to)
		at.Mul(at, big.NewRat(1, 2))
		return c.value(at, low)
	}
}

func rational(v []byte) *big.Rat {
	if f, err := strconv.ParseFloat(string(v), 64); err != nil || math.IsInf(f, 0) || math.Abs(f) < 1e-100 && f != 0 {
		return nil // exact, it would have hundreds of digits
	}
	r, ok := new(big.Rat).SetString(string(v))
	if !ok {
		return nil
	}
	return r
}

// integer is a number without its fraction.
func integer(r *big.Rat) *big.Int { return new(big.Int).Quo(r.Num(), r.Denom()) }

// ofMoment numbers dates and times so that later ones have larger numbers, as if months had 32 days.
func ofMoment(v []byte) *big.Rat {
	m, err := parseMoment(v)
	if err != nil {
		return nil
	}
	days := int64(m.year*12+max(m.month, 1)-1)*32 + int64(m.day)
	return big.NewRat(days*86400+int64(m.hour*3600+m.minute*60+m.second), 1)
}

func momentAt(at *big.Rat, withTime bool) []byte {
	n := integer(at).Int64()
	seconds, days := n%86400, n/86400
	months := days / 32
	// Every month has these days. The server takes no other ones in a comparison.
	day := min(max(days%32, 1), 28)
	text := fmt.Sprintf("%04d-%02d-%02d", months/12, months%12+1, day)
	if withTime {
		text += fmt.Sprintf(" %02d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60)
	}
	return []byte(text)
}

func ofTime(v []byte) *big.Rat {
	text, negative := strings.CutPrefix(string(v), "-")
	var h, m, s int64
	if n, err := fmt.Sscanf(text, "%d:%d:%d", &h, &m, &s); err != nil || n != 3 {
		return nil
	}
	at := h*3600 + m*60 + s
	if negative {
		at = -at
	}
	return big.NewRat(at, 1)
}

func timeAt(at *big.Rat, _ []byte) []byte {
	n, sign := integer(at).Int64(), ""
	if n < 0 {
		n, sign = -n, "-"
	}
	return fmt.Appendf(nil, "%s%02d:%02d:%02d", sign, n/3600, n/60%60, n%60)
}

// ofUUID numbers UUIDs as MariaDB sorts them: by the last group first, but for those of version 6 and newer.
func ofUUID(v []byte) *big.Rat {
	raw, err := hex.DecodeString(strings.ReplaceAll(string(v), "-", ""))
	if err != nil || len(raw) != 16 {
		return nil
	}
	if !inOrder(raw) {
		raw = slices.Concat(raw[10:], raw[8:10], raw[6:8], raw[4:6], raw[:4])
	}
	return new(big.Rat).SetInt(new(big.Int).SetBytes(raw))
}

func inOrder(uuid []byte) bool { return uuid[6]>>4 >= 6 && uuid[8]&0x80 != 0 }

func uuidAt(at *big.Rat, like []byte) []byte {
	model, err := hex.DecodeString(strings.ReplaceAll(string(like), "-", ""))
	if err != nil || len(model) != 16 || integer(at).BitLen() > 128 {
		return nil
	}
	raw := integer(at).FillBytes(make([]byte, 16))
	if !inOrder(model) {
		raw = slices.Concat(raw[12:], raw[10:12], raw[8:10], raw[6:8], raw[:6])
	}
	raw[6], raw[8] = raw[6]&0x0f|model[6]&0xf0, raw[8]&0x3f|model[8]&0xc0
	return fmt.Appendf(nil, "%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
}

func ofAddress(v []byte) *big.Rat {
	a, err := netip.ParseAddr(string(v))
	if err != nil {
		return nil
	}
	return new(big.Rat).SetInt(new(big.Int).SetBytes(a.AsSlice()))
}

func addressAt(at *big.Rat, like []byte) []byte {
	model, err := netip.ParseAddr(string(like))
	n := integer(at)
	if err != nil || n.BitLen() > model.BitLen() {
		return nil
	}
	a, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, model.BitLen()/8)))
	return []byte(a.String())
}
