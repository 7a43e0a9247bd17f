package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/rowjson"
)

// A decoder appends one non-null result value as JSON, in the form in which documents of the collection have it.
type decoder func(dst, value []byte) ([]byte, error)

var errCutResult = errors.New("the server sent a value of unexpected length")

// decoderOf returns the decoder of a column's result for a field.
func decoderOf(k kind, f materialize.Field) decoder {
	c, _ := configOf(f)
	text := slices.Contains(f.Types, "string") && !c.CastToString
	switch k {
	case kindBool:
		return decodeBool
	case kindInt2, kindInt4, kindInt8:
		return quotedIf(text && f.Format == "integer" && f.Is("string"), decodeInteger)
	case kindFloat4:
		return decodeFloat4
	case kindFloat8:
		return decodeFloat8
	case kindNumeric:
		if text {
			return decodeText
		}
		return decodeNumber
	case kindDate:
		return decodeDate
	case kindTime, kindTimetz:
		return decodeTime
	case kindTimestamp, kindTimestamptz:
		return decodeTimestamp
	case kindUUID:
		return decodeUUID
	case kindBytea:
		return decodeBytea
	case kindJSONB, kindJSON:
		if jsonText(f) {
			return decodeText
		}
		return decodeJSON
	case kindArray:
		return decodeJSON
	case kindInterval, kindInet, kindCidr, kindMacaddr, kindMacaddr8:
		return decodeText
	default:
		switch {
		case !slices.Contains(f.Types, "string"):
			return decodeTextValue
		case slices.Contains(f.Types, "object") || slices.Contains(f.Types, "array"):
			return decodeTextOrParts
		default:
			return decodeText
		}
	}
}

func quotedIf(quoted bool, d decoder) decoder {
	if !quoted {
		return d
	}
	return func(dst, v []byte) ([]byte, error) {
		dst, err := d(append(dst, '"'), v)
		return append(dst, '"'), err
	}
}

func decodeBool(dst, v []byte) ([]byte, error) {
	if len(v) != 1 {
		return dst, errCutResult
	}
	return rowjson.AppendBool(dst, v[0] != 0), nil
}

func decodeInteger(dst, v []byte) ([]byte, error) {
	switch len(v) {
	case 2:
		return rowjson.AppendInt(dst, int64(int16(binary.BigEndian.Uint16(v)))), nil
	case 4:
		return rowjson.AppendInt(dst, int64(int32(binary.BigEndian.Uint32(v)))), nil
	case 8:
		return rowjson.AppendInt(dst, int64(binary.BigEndian.Uint64(v))), nil
	default:
		return dst, errCutResult
	}
}

func decodeFloat4(dst, v []byte) ([]byte, error) {
	if len(v) != 4 {
		return dst, errCutResult
	}
	return rowjson.AppendFloat(dst, float64(math.Float32frombits(binary.BigEndian.Uint32(v))), 32), nil
}

func decodeFloat8(dst, v []byte) ([]byte, error) {
	if len(v) != 8 {
		return dst, errCutResult
	}
	return rowjson.AppendFloat(dst, math.Float64frombits(binary.BigEndian.Uint64(v)), 64), nil
}

// decodeTime is for times of day with a zone or, eight bytes long, without one.
func decodeTime(dst, v []byte) ([]byte, error) {
	if len(v) != 8 && len(v) != 12 {
		return dst, errCutResult
	}
	c := clock{micros: int64(binary.BigEndian.Uint64(v))}
	if len(v) == 12 {
		c.east = -int(int32(binary.BigEndian.Uint32(v[8:])))
	}
	return append(appendTime(append(dst, '"'), c), '"'), nil
}

func decodeDate(dst, v []byte) ([]byte, error) {
	if len(v) != 4 {
		return dst, errCutResult
	}
	return append(appendDate(append(dst, '"'), int32(binary.BigEndian.Uint32(v))), '"'), nil
}

func decodeTimestamp(dst, v []byte) ([]byte, error) {
	if len(v) != 8 {
		return dst, errCutResult
	}
	return append(appendTimestamp(append(dst, '"'), int64(binary.BigEndian.Uint64(v))), '"'), nil
}

func decodeUUID(dst, v []byte) ([]byte, error) { return rowjson.AppendUUID(dst, v) }

func decodeBytea(dst, v []byte) ([]byte, error) { return rowjson.AppendBase64(dst, v), nil }

func decodeText(dst, v []byte) ([]byte, error) { return rowjson.AppendString(dst, v), nil }

func decodeJSON(dst, v []byte) ([]byte, error) { return append(dst, v...), nil }

// decodeNumber is for numeric columns of fields that hold plain numbers; what JSON has no number for is text.
func decodeNumber(dst, v []byte) ([]byte, error) {
	if len(v) > 0 && (v[0] == '-' || v[0] >= '0' && v[0] <= '9') && string(v) != "-Infinity" {
		return append(dst, v...), nil
	}
	return rowjson.AppendString(dst, v), nil
}

// decodeTextOrParts is for text columns of fields that can be strings as well as objects or arrays, of which it holds the JSON
// text. Any other value is read as a string, whatever it was: stored again, that is the same text, which a number need not be.
func decodeTextOrParts(dst, v []byte) ([]byte, error) {
	if len(v) > 0 && (v[0] == '{' || v[0] == '[') && json.Valid(v) {
		return append(dst, v...), nil
	}
	return rowjson.AppendString(dst, v), nil
}

// decodeTextValue is for text columns of fields that are never strings: a column that was widened holds the JSON text.
func decodeTextValue(dst, v []byte) ([]byte, error) {
	if json.Valid(v) && len(v) > 0 && v[0] != '"' {
		return append(dst, v...), nil
	}
	return rowjson.AppendString(dst, v), nil
}

// member is a node of the tree of a document that is rebuilt from columns.
type member struct {
	name     []byte // the member's name as JSON, with the colon
	column   int    // index into the result, -1 if no column holds this location
	echo     int    // index of a key's own words for it, -1 if the column's will do
	decode   decoder
	null     bool // a NULL column means an explicit null
	children []*member
}

// document rebuilds documents from rows. It is planned once per binding.
type document struct{ root *member }

// place is one selected field with the result column that holds it.
type place struct {
	field  materialize.Field
	tokens []string
	column int
	echo   int // index of the result that repeats the key as it was asked for, -1 if there is none
	decode decoder
}

// newDocument plans the documents of places. A location inside an array cannot be rebuilt and is left out; it is
// derived from the array whenever that is stored.
func newDocument(places []place) *document {
	root := &member{column: -1}
	for _, p := range places {
		if root.leads(p.tokens) {
			root.add(p)
		}
	}
	return &document{root}
}

// leads reports whether a location can be a member of objects all the way down.
func (m *member) leads(tokens []string) bool { return len(tokens) > 0 && !slices.Contains(tokens, "-") }

func (m *member) add(p place) {
	for _, token := range p.tokens {
		name := append(rowjson.AppendText(nil, token), ':')
		i := slices.IndexFunc(m.children, func(c *member) bool { return string(c.name) == string(name) })
		if i < 0 {
			i = len(m.children)
			m.children = append(m.children, &member{name: name, column: -1, echo: -1})
		}
		m = m.children[i]
	}
	if m.column >= 0 {
		return // another field has the same location
	}
	m.column, m.echo, m.decode = p.column, p.echo, p.decode
	// Absent and null are both NULL in a column. Where the location can be absent, absence keeps more documents as
	// they were; not so where an absent one would get a default.
	m.null = p.field.Nullable && (p.field.Required || len(p.field.Default) > 0)
}

// append adds the document of a row.
func (d *document) append(dst []byte, row [][]byte) ([]byte, error) {
	return d.root.appendObject(dst, row)
}

func (m *member) appendObject(dst []byte, row [][]byte) ([]byte, error) {
	dst = append(dst, '{')
	start := len(dst)
	for _, c := range m.children {
		before := len(dst)
		if before > start {
			dst = append(dst, ',')
		}
		after, some, err := c.append(dst, row)
		if err != nil {
			return dst, fmt.Errorf("rebuilding %s %w", c.name, err)
		}
		if dst = after; !some {
			dst = dst[:before]
		}
	}
	return append(dst, '}'), nil
}

// append adds the member with its name, or nothing. A column that holds the whole location counts before its parts,
// which may be older or fewer.
func (m *member) append(dst []byte, row [][]byte) (out []byte, some bool, err error) {
	dst = append(dst, m.name...)
	if m.echo >= 0 && row[m.echo] != nil {
		return append(dst, row[m.echo]...), true, nil
	}
	if m.column >= 0 && row[m.column] != nil {
		dst, err = m.decode(dst, row[m.column])
		return dst, true, err
	}
	if len(m.children) > 0 {
		before := len(dst)
		if dst, err = m.appendObject(dst, row); err != nil || len(dst) > before+2 {
			return dst, true, err
		}
		dst = dst[:before]
	}
	return append(dst, "null"...), m.null, nil
}
