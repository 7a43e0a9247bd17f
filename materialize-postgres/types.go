package main

import (
	"encoding/json"
	"slices"

	"github.com/sluicedata/sluice/sdk/materialize"
)

// kind is a type of column that the connector encodes and decodes itself. A column of any other type is read and
// written as text, which Postgres casts.
type kind uint8

const (
	kindText kind = iota
	kindBool
	kindInt8
	kindFloat8
	kindNumeric
	kindDate
	kindTimestamptz
	kindUUID
	kindBytea
	kindJSONB
	kindJSON
)

// kindInfo says what Postgres calls a kind.
type kindInfo struct {
	name string
	oid  uint32
	// binary says that results are asked for in the binary format.
	binary bool
}

//nolint:gochecknoglobals // a lookup table
var kinds = [...]kindInfo{
	kindText:        {"text", 25, false},
	kindBool:        {"boolean", 16, true},
	kindInt8:        {"bigint", 20, true},
	kindFloat8:      {"double precision", 701, true},
	kindNumeric:     {"numeric", 1700, false},
	kindDate:        {"date", 1082, true},
	kindTimestamptz: {"timestamp with time zone", 1184, true},
	kindUUID:        {"uuid", 2950, true},
	kindBytea:       {"bytea", 17, true},
	kindJSONB:       {"jsonb", 3802, false},
	kindJSON:        {"json", 114, false},
}

func (k kind) String() string { return kinds[k].name }

// kindOfOID returns the kind of an existing column, and false for types that go through text.
func kindOfOID(oid uint32) (kind, bool) {
	for k := range kinds {
		if kinds[k].oid == oid {
			return kind(k), true
		}
	}
	return kindText, false
}

// fieldConfig is what users can configure for a single field.
type fieldConfig struct {
	CastToString bool `json:"castToString"`
}

func configOf(f materialize.Field) fieldConfig {
	var c fieldConfig
	if len(f.Config) > 0 {
		_ = json.Unmarshal(f.Config, &c)
	}
	return c
}

// kindFor chooses the natural column type of a field.
func kindFor(f materialize.Field) kind {
	switch {
	case f.Pointer == "":
		return kindJSON // the whole document, to the letter
	case configOf(f).CastToString:
		return kindText
	case f.Is("boolean"):
		return kindBool
	case f.Is("integer"):
		if beyondInt8(f.Minimum) || beyondInt8(f.Maximum) {
			return kindNumeric
		}
		return kindInt8
	case f.Is("number"):
		return kindFloat8
	case numericString(f):
		return kindNumeric
	case f.Is("string"):
		return kindOfString(f)
	default:
		return kindJSONB
	}
}

func beyondInt8(bound *float64) bool {
	return bound != nil && (*bound < -(1<<63) || *bound >= 1<<63)
}

// numericString says whether a field holds numbers that are written as strings, perhaps next to plain numbers.
func numericString(f materialize.Field) bool {
	if f.Format != "integer" && f.Format != "number" {
		return false
	}
	return slices.Contains(f.Types, "string") && (f.Is("string") || f.Is("string", "integer") || f.Is("string", "number"))
}

func kindOfString(f materialize.Field) kind {
	switch {
	case f.ContentEncoding == "base64":
		return kindBytea
	case f.Format == "date":
		return kindDate
	case f.Format == "date-time":
		return kindTimestamptz
	case f.Format == "uuid":
		return kindUUID
	default:
		return kindText
	}
}

// fit says what to do about an existing column for a field that would naturally be stored otherwise.
type fit uint8

const (
	fits        fit = iota // the column holds every value of the field
	widens                 // the column can become one that does, keeping its values
	cannotWiden            // only a new table can
)

// fitting compares an existing column's kind with the field's natural one. For widens, it says what to widen to.
func fitting(have, want kind) (fit, kind) {
	if have == want {
		return fits, have
	}
	switch have {
	case kindJSONB, kindJSON:
		return fits, have // holds any value
	case kindText:
		if want == kindJSONB || want == kindJSON {
			return widens, want
		}
		return fits, have // every scalar has a text
	case kindNumeric:
		if want == kindInt8 || want == kindFloat8 {
			return fits, have
		}
	case kindInt8, kindFloat8:
		// A double does not hold every bigint, nor the other way round; numeric holds both.
		if want == kindInt8 || want == kindFloat8 || want == kindNumeric {
			return widens, kindNumeric
		}
	default:
	}
	if want == kindText || want == kindJSONB || want == kindJSON {
		return widens, want
	}
	return cannotWiden, want
}

// widening is the expression that turns a column's old values into new ones, in the form in which a document has them.
func widening(column string, from, to kind) string {
	c := quote(column)
	text := c + "::text"
	switch from {
	case kindTimestamptz:
		text = "to_char(" + c + " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
	case kindBytea:
		text = "translate(encode(" + c + ", 'base64'), E'\\n', '')"
	default:
	}
	switch to {
	case kindText:
		return text
	case kindJSONB, kindJSON:
		switch from {
		case kindTimestamptz, kindBytea, kindDate, kindUUID:
			return "to_" + to.String() + "(" + text + ")"
		default:
			return "to_" + to.String() + "(" + c + ")"
		}
	default:
		return c + "::" + to.String()
	}
}
