package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/sluicedata/sluice/sdk/schema"
)

// What the schemas of lossless columns say about them.
const (
	exactTimeNote  = "RFC 3339; a value beyond that is as the server prints it."
	exactArrayNote = "An array whose bounds or nesting JSON cannot hold is a string, as the server prints it."
	jsonMediaType  = "application/json"
)

// jsonSchema is the schema of every value that the encoders write for a column of the type. asKey is for columns of a
// table's key: only strings, integers and booleans can be keys, so floats, arrays and JSON values are strings there. declared is
// the column's type as SQL has it.
func (t *dataType) jsonSchema(nullable, asKey bool, declared string) json.RawMessage {
	c := t.column(asKey)
	if t.kind == kindNumeric {
		if c.Decimal = t.digits; !c.Decimal.Bounded() {
			c.Decimal = digitsOf(declared)
		}
	}
	if t.kind != kindArray || asKey {
		return c.Schema(nullable)
	}
	// schema.Column has no elements.
	out := c.Schema(nullable)
	out = append(out[:len(out)-1:len(out)-1], `,"items":`...)
	out = append(out, t.itemSchema()...)
	return append(out, '}')
}

// digitsOf is the bound that numeric(10,2) has, and numeric has not. NaN is allowed by both.
func digitsOf(declared string) schema.Decimal {
	var precision, scale int
	if n, _ := fmt.Sscanf(declared, "numeric(%d,%d)", &precision, &scale); n < 2 {
		return schema.Decimal{}
	}
	return schema.DecimalOf(precision, scale)
}

func (t *dataType) column(asKey bool) schema.Column {
	text := schema.Column{Types: []string{"string"}}
	switch t.kind {
	case kindBool:
		return schema.Column{Types: []string{"boolean"}}
	case kindInt:
		return schema.Column{Types: []string{"integer"}}
	case kindNumeric:
		text.Format = "number"
	case kindFloat:
		text.Format = "number"
		if !asKey {
			text.Types = []string{"number", "string"}
		}
	case kindBytea:
		text.ContentEncoding = "base64"
	case kindJSON, kindJSONB:
		if !t.exact && !asKey {
			return schema.Column{}
		}
		text.ContentMediaType = jsonMediaType
	case kindDate:
		text.Format = "date"
	case kindTimestamp, kindTimestamptz:
		text.Format = "date-time"
	case kindTime, kindTimetz:
		text.Format = "time"
	case kindUUID:
		text.Format = "uuid"
	case kindArray:
		return t.arrayColumn(asKey)
	default:
	}
	if t.exact && text.ContentMediaType == "" {
		text.Format, text.Description = "", exactTimeNote
	}
	return text
}

func (t *dataType) arrayColumn(asKey bool) schema.Column {
	switch {
	case asKey:
		return schema.Column{Types: []string{"string"}}
	case t.exact:
		return schema.Column{Types: []string{"array", "string"}, Description: exactArrayNote}
	default:
		return schema.Column{Types: []string{"array"}}
	}
}

// itemSchema is the schema of an array's elements. Postgres does not tie a column to a number of dimensions, so any
// element may be an array again.
func (t *dataType) itemSchema() json.RawMessage {
	c := t.elem.column(false)
	if len(c.Types) > 0 && !slices.Contains(c.Types, "array") {
		c.Types = append(c.Types, "array")
	}
	return c.Schema(true)
}
