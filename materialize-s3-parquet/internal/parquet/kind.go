package parquet

import (
	pq "github.com/parquet-go/parquet-go"
)

// kind is a type of column. The first ones are kept as 64-bit integers, the others as bytes.
type kind uint8

const (
	kindBool kind = iota
	kindInt
	kindDate      // days since 1970
	kindTime      // microseconds since midnight
	kindTimestamp // microseconds since 1970, UTC
	kindDouble    // its bits
	kindDecimal   // up to 18 digits as an integer, more as 16 bytes, big-endian
	kindUUID      // 16 bytes
	kindString
	kindText     // any value as its text
	kindJSON     // any value as JSON
	kindJSONText // a string that holds JSON
	kindBinary
	kindList
)

//nolint:gochecknoglobals // a lookup table
var kindNames = [...]string{
	kindBool: "BOOLEAN", kindInt: "BIGINT", kindDate: "DATE", kindTime: "TIME", kindTimestamp: "TIMESTAMP WITH TIME ZONE",
	kindDouble: "DOUBLE", kindDecimal: "DECIMAL", kindUUID: "UUID", kindString: "VARCHAR", kindText: "VARCHAR", kindJSON: "JSON",
	kindJSONText: "JSON", kindBinary: "BLOB", kindList: "LIST",
}

const (
	// maxDigits is how many digits a decimal can have everywhere.
	maxDigits = 38
	// shortDigits and longDigits are how many an integer of 32 or 64 bits holds; more are kept in 16 bytes.
	shortDigits = 9
	longDigits  = 18
)

// wide says that a column's values are bytes rather than integers.
func wide(k kind, digits int) bool {
	return k > kindDecimal || (k == kindDecimal && digits > longDigits)
}

// leaf is the Parquet type of a kind. Integers are stored as differences, which suits keys and times and costs others
// nothing; texts and floats by a dictionary, for as long as it stays small.
func leaf(k kind, digits, scale int, key bool) pq.Node {
	switch k {
	case kindBool:
		return pq.Leaf(pq.BooleanType)
	case kindInt:
		return pq.Encoded(pq.Leaf(pq.Int64Type), &pq.DeltaBinaryPacked)
	case kindDate:
		return pq.Encoded(pq.Date(), &pq.DeltaBinaryPacked)
	case kindTime:
		return pq.Encoded(pq.TimeAdjusted(pq.Microsecond, false), &pq.DeltaBinaryPacked)
	case kindTimestamp:
		return pq.Encoded(pq.Timestamp(pq.Microsecond), &pq.DeltaBinaryPacked)
	case kindDouble:
		return pq.Encoded(pq.Leaf(pq.DoubleType), &pq.RLEDictionary)
	case kindDecimal:
		return decimalLeaf(digits, scale)
	case kindUUID:
		return pq.UUID()
	case kindJSON, kindJSONText:
		return pq.JSON()
	case kindBinary:
		return pq.Leaf(pq.ByteArrayType)
	default:
		if key {
			return pq.String() // of keys hardly any is like another
		}
		return pq.Encoded(pq.String(), &pq.RLEDictionary)
	}
}

func decimalLeaf(digits, scale int) pq.Node {
	switch {
	case digits <= shortDigits:
		return pq.Encoded(pq.Decimal(scale, digits, pq.Int32Type), &pq.DeltaBinaryPacked)
	case digits <= longDigits:
		return pq.Encoded(pq.Decimal(scale, digits, pq.Int64Type), &pq.DeltaBinaryPacked)
	default:
		return pq.Decimal(scale, digits, pq.FixedLenByteArrayType(16))
	}
}

// group is a row. Unlike the library's own it keeps the order of its fields.
type group struct {
	pq.Group
	fields []pq.Field
}

func (g group) Fields() []pq.Field { return g.fields }

// fileSchema is the schema as the library has it.
func (s *Schema) fileSchema() *pq.Schema {
	nodes := pq.Group{}
	for i := range s.columns {
		c := &s.columns[i]
		var node pq.Node
		if c.kind == kindList {
			node = pq.List(pq.Optional(leaf(c.item, 0, 0, false)))
		} else {
			node = leaf(c.kind, c.digits, c.scale, c.key)
		}
		if index, ok := c.pageIndex(); ok {
			node = pq.Leaf(indexed{node.Type(), index})
		}
		if !c.required {
			node = pq.Optional(node)
		}
		nodes[c.name] = node
	}
	byName := map[string]pq.Field{}
	for _, f := range nodes.Fields() {
		byName[f.Name()] = f
	}
	g := group{Group: nodes}
	for i := range s.columns {
		g.fields = append(g.fields, byName[s.columns[i].name])
	}
	return pq.NewSchema("row", g)
}

// boundless are columns without bounds: of decimals in bytes the library would write wrong ones, since it compares them as if
// they had no sign, and of JSON and binary values, which may be very long, none are of use.
func (s *Schema) boundless() []pq.WriterOption {
	var out []pq.WriterOption
	for i := range s.columns {
		if c := &s.columns[i]; c.boundless() {
			out = append(out, pq.SkipPageBounds(c.name))
		}
	}
	return out
}

func (c *column) boundless() bool {
	return c.kind == kindJSON || c.kind == kindJSONText || c.kind == kindBinary || (c.kind == kindDecimal && wide(c.kind, c.digits))
}

// filters are the Bloom filters of the key's columns.
func (s *Schema) filters() []pq.BloomFilterColumn {
	const bitsPerValue = 10
	var out []pq.BloomFilterColumn
	for i := range s.columns {
		if c := &s.columns[i]; c.key && c.kind != kindBool && c.kind != kindList {
			out = append(out, pq.SplitBlockFilter(bitsPerValue, c.name))
		}
	}
	return out
}
