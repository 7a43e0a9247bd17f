package schema

import (
	"encoding/json"
	"fmt"
)

// DecimalKeyword is the annotation that bounds the digits of numbers that are strings: {"precision": 18, "scale": 2}. JSON
// Schema has nothing that says so of a string; runtimes and destinations that do not know the annotation ignore it.
const DecimalKeyword = "x-decimal"

// Decimal bounds the digits of numbers, as SQL's DECIMAL(precision, scale) does. The zero value is no bound.
type Decimal struct {
	// Precision is how many digits there are at most once Scale of them stand behind the point.
	Precision int `json:"precision"`
	// Scale is how many digits are behind the point at most, from 0 to Precision.
	Scale int `json:"scale"`
}

// maxPrecision is beyond what any database has.
const maxPrecision = 1 << 20

// DecimalOf makes a bound of what a database says of a column. A negative scale (the last digits before the point are zeros), and
// one above the precision (the first digits behind it are) become the bound that every engine understands and that holds the
// same numbers, and more.
func DecimalOf(precision, scale int) Decimal {
	if scale < 0 {
		precision, scale = precision-scale, 0
	}
	return Decimal{Precision: max(precision, scale), Scale: scale}
}

// ParseDecimal reads the annotation's value, decoded with numbers as json.Number. What makes no sense is no bound.
func ParseDecimal(annotation any) Decimal {
	m, ok := annotation.(map[string]any)
	if !ok {
		return Decimal{}
	}
	count := func(name string) int64 {
		n, ok := m[name].(json.Number)
		if !ok {
			return -1
		}
		i, err := n.Int64()
		if err != nil || i > maxPrecision {
			return -1
		}
		return i
	}
	d := Decimal{Precision: int(count("precision")), Scale: int(count("scale"))}
	if !d.Bounded() {
		return Decimal{}
	}
	return d
}

// Bounded reports whether there is a bound, and one that makes sense.
func (d Decimal) Bounded() bool {
	return d.Precision > 0 && d.Precision <= maxPrecision && d.Scale >= 0 && d.Scale <= d.Precision
}

// Union is the narrowest bound that holds the numbers of both: no bound if one of them has none.
func (d Decimal) Union(e Decimal) Decimal {
	if !d.Bounded() || !e.Bounded() {
		return Decimal{}
	}
	scale := max(d.Scale, e.Scale)
	return Decimal{Precision: max(d.Precision-d.Scale, e.Precision-e.Scale) + scale, Scale: scale}
}

// JSON is the annotation's value.
func (d Decimal) JSON() string {
	return fmt.Sprintf(`{"precision":%d,"scale":%d}`, d.Precision, d.Scale)
}
