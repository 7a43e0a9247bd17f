package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"

	"github.com/sluicedata/sluice/sdk/materialize"
)

// kind is a type of column that the connector encodes and decodes itself. A column of any other type is read and
// written as text, which Postgres casts.
type kind uint8

const (
	kindText kind = iota
	kindBool
	kindInt2
	kindInt4
	kindInt8
	kindFloat4
	kindFloat8
	kindNumeric
	kindDate
	kindTime
	kindTimetz
	kindTimestamp
	kindTimestamptz
	kindInterval
	kindUUID
	kindInet
	kindCidr
	kindMacaddr
	kindMacaddr8
	kindBytea
	kindJSONB
	kindJSON
	kindArray // of anything; its values travel as the text of arrays
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
	kindInt2:        {"smallint", 21, true},
	kindInt4:        {"integer", 23, true},
	kindInt8:        {"bigint", 20, true},
	kindFloat4:      {"real", 700, true},
	kindFloat8:      {"double precision", 701, true},
	kindNumeric:     {"numeric", 1700, false},
	kindDate:        {"date", 1082, true},
	kindTime:        {"time without time zone", 1083, true},
	kindTimetz:      {"time with time zone", 1266, true},
	kindTimestamp:   {"timestamp without time zone", 1114, true},
	kindTimestamptz: {"timestamp with time zone", 1184, true},
	kindInterval:    {"interval", 1186, false},
	kindUUID:        {"uuid", 2950, true},
	kindInet:        {"inet", 869, false},
	kindCidr:        {"cidr", 650, false},
	kindMacaddr:     {"macaddr", 829, false},
	kindMacaddr8:    {"macaddr8", 774, false},
	kindBytea:       {"bytea", 17, true},
	kindJSONB:       {"jsonb", 3802, false},
	kindJSON:        {"json", 114, false},
	kindArray:       {"text", 0, false},
}

// String is the type that values of the kind travel as.
func (k kind) String() string { return kinds[k].name }

// kindOfType returns the kind of an existing column's type, and false for types that values are cast to.
func kindOfType(oid uint32, array bool) (k kind, native bool) {
	if array {
		return kindArray, false
	}
	for k := range kindArray {
		if kinds[k].oid == oid {
			return k, true
		}
	}
	return kindText, false
}

// fieldConfig is what users can configure for a single field.
type fieldConfig struct {
	CastToString bool   `json:"castToString"`
	ColumnType   string `json:"columnType"`
}

var errTwoTypes = errors.New("castToString and columnType exclude each other")

// configOf reads a field's configuration. The error is for people.
func configOf(f materialize.Field) (c fieldConfig, err error) {
	if len(f.Config) == 0 {
		return c, nil
	}
	d := json.NewDecoder(bytes.NewReader(f.Config))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return fieldConfig{}, err
	}
	if c.CastToString && c.ColumnType != "" {
		return fieldConfig{}, errTwoTypes
	}
	return c, nil
}

// wanted is the type that a field's column is to have.
type wanted struct {
	kind kind
	// name is how a definition writes it, base the type without a length.
	name, base string
	// explicit says that the user asked for just this type: no other one will do.
	explicit bool
	// array is the array type that would hold the field, empty if none does.
	array string
	// number says that a decimal in the field is a JSON number, at least sometimes; jsonText that its strings are JSON.
	number, jsonText bool
	// full is the type as a column's is shown, with its length, which modifier is in the server's form; -1 if it has none.
	full     string
	modifier int32
}

func natural(k kind) wanted { return wanted{kind: k, name: k.String(), base: k.String()} }

// wantedType is the type of a field's column, if there is none yet. A configuration that is refused elsewhere counts as none.
// The catalog completes a type that the user chose.
func wantedType(cfg config, f materialize.Field) wanted {
	switch c, _ := configOf(f); {
	case f.Pointer == "":
		return natural(kindJSON) // the whole document, to the letter
	case c.CastToString:
		return wanted{kind: kindText, name: kindText.String(), base: kindText.String(), explicit: true, jsonText: jsonText(f), full: kindText.String(), modifier: -1}
	case c.ColumnType != "":
		return wanted{name: c.ColumnType, explicit: true}
	}
	w := natural(naturalKind(f))
	if element, ok := elementOf(f); ok {
		w.array = element.String() + "[]"
		if cfg.Advanced.NativeArrays {
			w.kind, w.name, w.base = kindArray, w.array, w.array
		}
	}
	w.number = slices.Contains(f.Types, "integer") || slices.Contains(f.Types, "number")
	return w
}

// elementOf is the type of the elements of an array, which may be nested, if all of them have the same one.
func elementOf(f materialize.Field) (kind, bool) {
	if !f.Is("array") {
		return 0, false
	}
	items := slices.DeleteFunc(slices.Clone(f.Items), func(t string) bool { return t == "null" || t == "array" })
	if len(items) != 1 {
		return 0, false
	}
	switch items[0] {
	case "boolean":
		return kindBool, true
	case "integer":
		return kindInt8, true
	case "number":
		return kindFloat8, true
	case "string":
		return kindText, true
	default:
		return 0, false
	}
}

// naturalKind chooses the column type of a field by what its schema says.
func naturalKind(f materialize.Field) kind {
	switch {
	case f.Is("boolean"):
		return kindBool
	case f.Is("integer"):
		if beyondInt8(f.Minimum) || beyondInt8(f.Maximum) {
			return kindNumeric
		}
		return kindInt8
	case f.Is("number"), f.Is("number", "string") && f.Format == "number":
		return kindFloat8 // as a string it is NaN or infinite
	case f.Is("string") || f.Is("string", "integer"):
		return kindOfString(f)
	default:
		return kindJSONB
	}
}

func beyondInt8(bound *float64) bool {
	return bound != nil && (*bound < -(1<<63) || *bound >= 1<<63)
}

// jsonText says whether a field's strings are JSON, to be kept to the letter.
func jsonText(f materialize.Field) bool {
	return f.Is("string") && f.ContentMediaType == "application/json" && !f.Key
}

func kindOfString(f materialize.Field) kind {
	if f.Format == "integer" || f.Format == "number" {
		return kindNumeric
	}
	if !f.Is("string") {
		return kindJSONB
	}
	if f.ContentEncoding == "base64" {
		return kindBytea
	}
	if jsonText(f) {
		return kindJSON
	}
	switch f.Format {
	case "date":
		return kindDate
	case "date-time":
		return kindTimestamptz
	case "time":
		return kindTimetz
	case "duration":
		return kindInterval
	case "uuid":
		return kindUUID
	case "ipv4", "ipv6":
		return kindInet
	case "cidr":
		return kindCidr
	case "macaddr":
		return kindMacaddr
	case "macaddr8":
		return kindMacaddr8
	default:
		return kindText
	}
}
