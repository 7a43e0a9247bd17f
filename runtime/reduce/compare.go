package reduce

import (
	"bytes"
	"math/big"
	"strings"

	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// equal tells whether two JSON values are the same value, however they are written.
func equal(a, b []byte) bool {
	a, b = jsonscan.Trim(a), jsonscan.Trim(b)
	if bytes.Equal(a, b) {
		return true
	}
	if jsonscan.Kind(a) == '"' && bytes.IndexByte(a, '\\') < 0 && bytes.IndexByte(b, '\\') < 0 {
		return false // a string without escapes is written in one way
	}
	return compare(a, b) == 0
}

// compare orders JSON values: null, false and true, numbers, strings, arrays, objects; within a kind by value.
// Objects are compared as sorted lists of members.
func compare(a, b []byte) int {
	ka, kb := rank(a), rank(b)
	if ka != kb {
		return ka - kb
	}
	switch jsonscan.Kind(a) {
	case '0':
		return number(a).Cmp(number(b))
	case '"':
		sa, _ := jsonscan.Text(a)
		sb, _ := jsonscan.Text(b)
		return strings.Compare(sa, sb)
	case '[':
		return compareArrays(a, b)
	case '{':
		return compareObjects(a, b)
	}
	return 0
}

func rank(value []byte) int {
	return strings.IndexByte("nft0\"[{", jsonscan.Kind(value))
}

// number reads a JSON number exactly. Absurd exponents, whose exact value would not fit into memory, become a float.
func number(value []byte) *big.Rat {
	text := string(jsonscan.Trim(value))
	if i := strings.IndexAny(text, "eE"); i >= 0 && len(text)-i > 5 {
		f, _, err := big.ParseFloat(text, 10, 64, big.ToNearestEven)
		if err != nil || f.IsInf() || f.MantExp(nil) > 4096 || f.MantExp(nil) < -4096 {
			return new(big.Rat)
		}
		r, _ := f.Rat(nil)
		return r
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return new(big.Rat)
	}
	return r
}

func compareArrays(a, b []byte) int {
	ea, eb := jsonscan.NewElements(a), jsonscan.NewElements(b)
	for {
		va, oka := ea.Next()
		vb, okb := eb.Next()
		switch {
		case !oka && !okb:
			return 0
		case !oka:
			return -1
		case !okb:
			return 1
		}
		if c := compare(va, vb); c != 0 {
			return c
		}
	}
}

func compareObjects(a, b []byte) int {
	ma, mb := sortedMembers(a), sortedMembers(b)
	for i := range min(len(ma), len(mb)) {
		if c := strings.Compare(ma[i].name, mb[i].name); c != 0 {
			return c
		}
		if c := compare(ma[i].value, mb[i].value); c != 0 {
			return c
		}
	}
	return len(ma) - len(mb)
}
