package main

import (
	"slices"

	"github.com/sluicedata/sluice/sdk/schema"
)

// kind is how a type's values are written as JSON.
type kind uint8

const (
	kindText kind = iota // whatever the server prints, as a string
	kindChar             // one byte
	kindBool
	kindInt
	kindNumeric
	kindFloat
	kindBytea
	kindJSON  // as the user wrote it
	kindJSONB // as the server wrote it: on one line, no lone surrogates
	kindDate
	kindTimestamp
	kindTimestamptz
	kindTime
	kindTimetz
	kindUUID
	kindArray
)

// isTime reports whether RFC 3339 is the kind's notation, which cannot hold all of its values.
func (k kind) isTime() bool {
	switch k {
	case kindDate, kindTimestamp, kindTimestamptz, kindTime, kindTimetz:
		return true
	default:
		return false
	}
}

// dataType is what the connector knows of a type of the server. It is immutable.
type dataType struct {
	kind   kind
	bytes  int            // of an integer in binary form
	elem   *dataType      // of an array
	delim  byte           // between an array's elements
	digits schema.Decimal // of a domain over numeric(10,2)
	// exact says that a value which the kind's JSON cannot hold comes as the server's text.
	exact bool
}

// lossless is which kinds of values come as the server's text where their JSON would lose something: what users write in
// advanced.lossless.
type lossless struct {
	times, arrays, json bool
}

// Entries of advanced.lossless.
const (
	losslessTimes  = "times"
	losslessArrays = "arrays"
	losslessJSON   = "json"
)

func (a advanced) lossless() lossless {
	return lossless{
		times:  slices.Contains(a.Lossless, losslessTimes),
		arrays: slices.Contains(a.Lossless, losslessArrays),
		json:   slices.Contains(a.Lossless, losslessJSON),
	}
}

// covers reports whether values of a kind are to be kept exactly.
func (l lossless) covers(k kind) bool {
	switch k {
	case kindArray:
		return l.arrays
	case kindJSON, kindJSONB:
		return l.json
	default:
		return l.times && k.isTime()
	}
}

// form is the notation for cdc.Column.Form: what advanced.lossless changes. In a key it changes no value: one that JSON's notation
// cannot hold is refused there, not replaced.
func (t *dataType) form(asKey bool) string {
	form := ""
	if asKey {
		return form
	}
	if t.exact {
		form = "lossless"
	}
	if t.elem == nil {
		return form
	}
	if elem := t.elem.form(false); elem != "" {
		form += "[" + elem + "]"
	}
	return form
}

// small reports whether no value of the type is ever too large for a document.
func (t *dataType) small() bool {
	switch t.kind {
	case kindBool, kindInt, kindNumeric, kindFloat, kindDate, kindTimestamp, kindTimestamptz, kindTime, kindTimetz, kindUUID:
		return true
	case kindText, kindChar, kindBytea, kindJSON, kindJSONB, kindArray:
	}
	return false
}

// Object identifiers of types that are the same on every server.
const (
	oidInt2vector = 22
	oidText       = 25
	oidOidvector  = 30
)

// scalars are the built-in types which are not just text, and the commonest of those which are, so that no question to
// the catalog is needed for them; arrays follow in arraysOf.
var scalars = map[uint32]*dataType{ //nolint:gochecknoglobals // a lookup table
	16:   {kind: kindBool},
	17:   {kind: kindBytea},
	20:   {kind: kindInt, bytes: 8},
	21:   {kind: kindInt, bytes: 2},
	23:   {kind: kindInt, bytes: 4},
	26:   {kind: kindInt}, // oid: unsigned, so it is read as text
	114:  {kind: kindJSON},
	700:  {kind: kindFloat},
	701:  {kind: kindFloat},
	1082: {kind: kindDate},
	1083: {kind: kindTime},
	1114: {kind: kindTimestamp},
	1184: {kind: kindTimestamptz},
	1266: {kind: kindTimetz},
	1700: {kind: kindNumeric},
	2950: {kind: kindUUID},
	3802: {kind: kindJSONB},
	18:   {kind: kindChar},
	19:   {}, 25: {}, 142: {}, 650: {}, 790: {}, 829: {}, 774: {}, 869: {}, 1042: {}, 1043: {}, 1186: {}, 1560: {},
	1562: {}, 3614: {}, 3615: {}, oidInt2vector: {}, oidOidvector: {},
}

// arraysOf maps built-in array types to their elements' types.
var arraysOf = map[uint32]uint32{ //nolint:gochecknoglobals // a lookup table
	199: 114, 143: 142, 651: 650, 775: 774, 791: 790, 1000: 16, 1001: 17, 1002: 18, 1003: 19, 1005: 21, 1007: 23, 1009: 25, 1014: 1042,
	1015: 1043, 1016: 20, 1021: 700, 1022: 701, 1028: 26, 1040: 829, 1041: 869, 1115: 1114, 1182: 1082, 1183: 1083, 1185: 1184,
	1187: 1186, 1231: 1700, 1270: 1266, 1561: 1560, 1563: 1562, 2951: 2950, 3643: 3614, 3645: 3615, 3807: 3802,
}
