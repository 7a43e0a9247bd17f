package kafkalog

import (
	"bytes"
	"strconv"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// Key says where a collection's key is in its documents.
type Key struct {
	Pointers []string
	Defaults [][]byte // of each, as JSON, where a document does not have it; nil is null
}

// keyer takes the keys, and what headers say, out of documents. It is for one goroutine.
type keyer struct {
	pointers *jsonscan.Pointers
	defaults [][]byte
	found    [][]byte // the key's, and behind them op and position
	packed   []byte
	elements []tuple.Element
}

func newKeyer(k Key) *keyer {
	n := len(k.Pointers)
	y := &keyer{pointers: jsonscan.NewPointers(append(append([]string(nil), k.Pointers...), "/_meta/op", "/_meta/source")), defaults: make([][]byte, n)}
	for i := range y.defaults {
		y.defaults[i] = []byte("null")
		if i < len(k.Defaults) && len(k.Defaults[i]) > 0 {
			y.defaults[i] = k.Defaults[i]
		}
	}
	y.found = make([][]byte, y.pointers.Len())
	return y
}

// append appends the key of a document as a JSON array. Keys that are equal have the same text, however documents spell them: numbers
// without fraction and exponent are as short as they can be, others are doubles, in texts only what must be is escaped. op and position alias the document;
// they are nil if it has none.
func (y *keyer) append(dst, doc []byte) (key, op, position []byte, err error) {
	y.pointers.Find(doc, y.found)
	dst = append(dst, '[')
	for i, d := range y.defaults {
		if i > 0 {
			dst = append(dst, ',')
		}
		value := y.found[i]
		if value == nil {
			value = d
		}
		if settled(value) {
			dst = append(dst, value...)
			continue
		}
		if dst, err = y.normal(dst, value); err != nil {
			return nil, nil, nil, err
		}
	}
	n := len(y.defaults)
	if op = y.found[n]; len(op) >= 2 && op[0] == '"' {
		op = op[1 : len(op)-1]
	}
	return append(dst, ']'), op, y.found[n+1], nil
}

// settled tells whether a value is written in its only form already.
func settled(v []byte) bool {
	if v[0] == '"' {
		return bytes.IndexByte(v, '\\') < 0
	}
	if v[0] < '1' || v[0] > '9' || len(v) > 18 {
		return len(v) == 1 && v[0] == '0'
	}
	for _, c := range v[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// normal appends a value in its only form: what is left of it when it is packed, as the engine compares keys.
func (y *keyer) normal(dst, value []byte) ([]byte, error) {
	var err error
	if y.packed, err = tuple.AppendJSON(y.packed[:0], value); err != nil {
		return nil, err
	}
	if y.elements, err = tuple.AppendElements(y.elements[:0], y.packed); err != nil {
		return nil, err
	}
	switch v := y.elements[0].Value().(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case uint64:
		return strconv.AppendUint(dst, v, 10), nil
	case float64:
		return strconv.AppendFloat(dst, v, 'g', -1, 64), nil
	case string:
		return appendText(dst, v), nil
	case []byte:
		return append(dst, v...), nil
	}
	return append(dst, value...), nil
}

// appendText appends a text of which only what must be is escaped.
func appendText(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
