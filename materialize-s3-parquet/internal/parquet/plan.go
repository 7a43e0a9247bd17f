package parquet

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// AbsentColumn lists for every row the columns whose location its document did not have. A file's null stands for both a
// null and an absent value; only the latter means that the row's previous value still holds.
const AbsentColumn = "_meta/absent"

// Selection is what is stored of a collection's documents, in the order in which rows carry it.
type Selection struct {
	Keys, Values []materialize.Field
	// Document is the field of the whole document, nil if rows do not come with it. It is needed to tell absent values
	// from null ones, and becomes a column only with StoreDocument.
	Document      *materialize.Field
	StoreDocument bool
}

// Schema is how the rows of one selection are stored. It is immutable and may be used by many Writers.
type Schema struct {
	columns []column
	// keys and values say how many of the columns come from a row's key and values, which are the first ones.
	keys, values int
	document     int // index of the document's column, -1 if there is none
	absent       *absence
	zstd         zstd.Codec // which keeps what it compresses with for the next file: some megabytes that would have to be cleared anew
}

// column is the plan of one column.
type column struct {
	name     string
	kind     kind
	item     kind // of lists
	scale    int  // digits behind the point of decimals
	digits   int  // all digits of decimals
	required bool
	key      bool
}

// Column describes a column to people and programs.
type Column struct {
	Name string
	// Type is the column's type as SQL calls it, such as BIGINT, DECIMAL(18,2) or VARCHAR[].
	Type     string
	Required bool
}

// fieldConfig is what users can configure for a field.
type fieldConfig struct {
	// CastToString stores any value as its text.
	CastToString bool `json:"castToString"`
	// Decimal is "precision,scale".
	Decimal string `json:"decimal"`
}

// Constrain says whether a field can be stored, for Sink.Constrain. It is pure.
func Constrain(f materialize.Field) materialize.Constraint {
	if f.Pointer == "" {
		return materialize.Constraint{
			Choice: materialize.LocationRequired,
			Reason: "Documents are needed to tell values that are absent, and so still hold, from those that are null.",
		}
	}
	if f.Name == AbsentColumn {
		return materialize.Constraint{Choice: materialize.Forbidden, Reason: "The connector writes a column of this name itself."}
	}
	c, err := planColumn(f)
	switch {
	case err != nil:
		return materialize.Constraint{Choice: materialize.Forbidden, Reason: usererr.Message(err)}
	case f.Pointer == "/_meta/op" || f.Pointer == "/_meta/source/loc":
		return materialize.Constraint{Choice: materialize.LocationRequired, Reason: "Readers need it to find the latest version of a row."}
	case welcome(f.Pointer):
		return materialize.Constraint{Choice: materialize.Recommended, Reason: "It is stored as " + c.typeName() + "."}
	}
	return materialize.Constraint{Reason: "It can be stored as " + c.typeName() + "."}
}

// welcome says which fields are stored unless the user decides otherwise: the members of the document, and of what captures
// add about the change its kind and its place in the source.
func welcome(pointer string) bool {
	return strings.HasPrefix(pointer, "/_meta/source/") || (strings.Count(pointer, "/") == 1 && pointer != "/_meta")
}

// Plan chooses a type for every selected field. It is pure; errors are for people.
func Plan(s Selection) (*Schema, error) {
	p := &Schema{keys: len(s.Keys), values: len(s.Values), document: -1, zstd: zstd.Codec{Level: zstd.SpeedFastest}}
	for _, f := range slices.Concat(s.Keys, s.Values) {
		c, err := planColumn(f)
		if err != nil {
			return nil, err
		}
		p.columns = append(p.columns, c)
	}
	if s.Document == nil {
		return p, nil
	}
	if s.StoreDocument {
		p.document = len(p.columns)
		p.columns = append(p.columns, column{name: s.Document.Name, kind: kindJSON, required: true})
	}
	if p.absent = planAbsence(s.Values); p.absent != nil {
		p.columns = append(p.columns, column{name: AbsentColumn, kind: kindList, item: kindString, required: true})
	}
	return p, nil
}

// Columns describes the columns in their order. The result is a new slice.
func (s *Schema) Columns() []Column {
	out := make([]Column, len(s.columns))
	for i := range s.columns {
		out[i] = Column{Name: s.columns[i].name, Type: s.columns[i].typeName(), Required: s.columns[i].required}
	}
	return out
}

func planColumn(f materialize.Field) (column, error) {
	c := column{name: f.Name, required: f.Required && !f.Nullable, key: f.Key}
	var config fieldConfig
	if len(f.Config) > 0 {
		if err := json.Unmarshal(f.Config, &config); err != nil {
			return c, usererr.New(err, "What is configured for the field %q is not {castToString: true} or {decimal: \"precision,scale\"}: %v.", f.Name, err)
		}
	}
	switch {
	case config.CastToString:
		c.kind = kindText
	case config.Decimal != "":
		return planDecimal(c, f, config.Decimal)
	case len(f.Types) == 0:
		return c, usererr.New(nil, "No value of the field %q has been seen yet, so its type is not known.", f.Name)
	case f.Pointer == "":
		c.kind = kindJSON
	case f.Is("array"):
		c.kind, c.item = kindOfArray(f.Items)
	case boundedNumber(f):
		c.kind, c.digits, c.scale = kindDecimal, f.Decimal.Precision, f.Decimal.Scale
	default:
		c.kind, c.digits = kindOf(f)
	}
	return c, nil
}

// boundedNumber reports whether a field's strings are numbers of as few digits as a decimal can have, by the schema's word.
func boundedNumber(f materialize.Field) bool {
	return f.Is("string") && f.Format == "number" && f.Decimal.Bounded() && f.Decimal.Precision <= maxDigits
}

// kindOf chooses the type of what is no array; digits is that of decimals.
func kindOf(f materialize.Field) (k kind, digits int) {
	switch {
	case f.Is("boolean"):
		return kindBool, 0
	case f.Is("integer") && (beyond(f.Minimum) || beyond(f.Maximum)):
		return kindDecimal, maxDigits
	case f.Is("integer"):
		return kindInt, 0
	case f.Is("number"):
		return kindDouble, 0
	case f.Format == "number" && f.Is("number", "string"):
		return kindDouble, 0 // as databases write floats: what JSON has no number for is a string
	case f.Is("string") && f.Format == "integer" && f.MaxLength > 0 && f.MaxLength <= maxDigits:
		return kindDecimal, int(f.MaxLength)
	case f.Is("string"):
		return kindOfString(f), 0
	default:
		return kindJSON, 0
	}
}

// beyond reports whether a bound of integers lies outside of 64 bits with a sign.
func beyond(bound *float64) bool { return bound != nil && (*bound < -(1<<63) || *bound >= 1<<63) }

func kindOfString(f materialize.Field) kind {
	if f.ContentEncoding == "base64" {
		return kindBinary
	}
	if f.ContentMediaType == "application/json" {
		return kindJSONText
	}
	switch f.Format {
	case "date":
		return kindDate
	case "date-time":
		return kindTimestamp
	case "time":
		return kindTime
	case "uuid":
		return kindUUID
	default:
		return kindString
	}
}

// kindOfArray makes an array a list if all its items are of one scalar type.
func kindOfArray(items []string) (k, item kind) {
	types := slices.DeleteFunc(slices.Clone(items), func(t string) bool { return t == "null" })
	if slices.Equal(types, []string{"integer", "number"}) {
		return kindList, kindDouble
	}
	if len(types) == 1 {
		switch types[0] {
		case "boolean":
			return kindList, kindBool
		case "integer":
			return kindList, kindInt
		case "number":
			return kindList, kindDouble
		case "string":
			return kindList, kindString
		}
	}
	return kindJSON, 0
}

// planDecimal is for a field of which the user knows how many digits it has.
func planDecimal(c column, f materialize.Field, text string) (column, error) {
	precision, scale, _ := strings.Cut(text, ",")
	p, err1 := strconv.Atoi(strings.TrimSpace(precision))
	s, err2 := strconv.Atoi(strings.TrimSpace(scale))
	if err1 != nil || err2 != nil || p < 1 || p > maxDigits || s < 0 || s > p {
		return c, usererr.New(nil, "decimal %q of the field %q is not \"precision,scale\" with a precision of up to %d and a scale of at most that.", text, f.Name, maxDigits)
	}
	for _, t := range f.Types {
		if t != "string" && t != "integer" && t != "number" {
			return c, usererr.New(nil, "The field %q can be of type %s, so it cannot be a decimal.", f.Name, t)
		}
	}
	c.kind, c.digits, c.scale = kindDecimal, p, s
	return c, nil
}

func (c *column) typeName() string {
	switch c.kind {
	case kindDecimal:
		return fmt.Sprintf("DECIMAL(%d,%d)", c.digits, c.scale)
	case kindList:
		return kindNames[c.item] + "[]"
	default:
		return kindNames[c.kind]
	}
}
