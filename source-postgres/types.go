package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"

	"github.com/jackc/pgx/v5"
)

// kind is how a type's values are written as JSON.
type kind uint8

const (
	kindText kind = iota // whatever the server prints, as a string
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

// dataType is what the connector knows of a type of the server. It is immutable.
type dataType struct {
	kind  kind
	bytes int       // of an integer in binary form
	elem  *dataType // of an array
	delim byte      // between an array's elements
}

// Object identifiers of types that are the same on every server.
const (
	oidInt2vector = 22
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
	18:   {}, 19: {}, 25: {}, 142: {}, 650: {}, 790: {}, 829: {}, 774: {}, 869: {}, 1042: {}, 1043: {}, 1186: {}, 1560: {},
	1562: {}, 3614: {}, 3615: {}, oidInt2vector: {}, oidOidvector: {},
}

// arraysOf maps built-in array types to their elements' types.
var arraysOf = map[uint32]uint32{ //nolint:gochecknoglobals // a lookup table
	199: 114, 143: 142, 651: 650, 775: 774, 791: 790, 1000: 16, 1001: 17, 1002: 18, 1003: 19, 1005: 21, 1007: 23, 1009: 25, 1014: 1042,
	1015: 1043, 1016: 20, 1021: 700, 1022: 701, 1028: 26, 1040: 829, 1041: 869, 1115: 1114, 1182: 1082, 1183: 1083, 1185: 1184,
	1187: 1186, 1231: 1700, 1270: 1266, 1561: 1560, 1563: 1562, 2951: 2950, 3643: 3614, 3645: 3615, 3807: 3802,
}

// typeCatalog resolves types by their object identifiers, the unknown ones from the server's catalog: domains to their
// base, arrays to their elements, everything else to text. It may be used from any goroutine.
type typeCatalog struct {
	mu    sync.Mutex
	known map[uint32]*dataType
	bases map[uint32]uint32 // of domains
}

func newTypeCatalog() *typeCatalog {
	c := &typeCatalog{known: make(map[uint32]*dataType, len(scalars)+len(arraysOf)), bases: make(map[uint32]uint32)}
	maps.Copy(c.known, scalars)
	for oid, elem := range arraysOf {
		c.known[oid] = &dataType{kind: kindArray, elem: scalars[elem], delim: ','}
	}
	return c
}

func (c *typeCatalog) lookup(oid uint32) (*dataType, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.known[oid]
	return t, ok
}

// get is lookup for a type that load has been called for.
func (c *typeCatalog) get(oid uint32) *dataType {
	if t, ok := c.lookup(oid); ok {
		return t
	}
	return scalars[25]
}

// base is what a result calls a type: of a domain, the type below it.
func (c *typeCatalog) base(oid uint32) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if base, ok := c.bases[oid]; ok {
		return base
	}
	return oid
}

// catalogType is a row of pg_type.
type catalogType struct {
	OID      uint32
	Class    string // typtype
	Base     uint32 // of a domain
	Elem     uint32 // of an array
	IsArray  bool
	DelimStr string
}

// Arrays are told by their element and their category: some types of fixed length have elements without printing as
// arrays.
const queryTypes = `
	WITH RECURSIVE wanted(oid) AS (
		SELECT unnest($1::oid[])
		UNION
		SELECT n.oid FROM wanted w JOIN pg_catalog.pg_type t ON t.oid = w.oid
			CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) AS n(oid) WHERE n.oid <> 0
	)
	SELECT t.oid, t.typtype::text, t.typbasetype, t.typelem, t.typcategory = 'A' AND t.typlen = -1 AND t.typtype = 'b', t.typdelim::text
	FROM wanted w JOIN pg_catalog.pg_type t ON t.oid = w.oid`

// load makes sure that the types are known. A type that the catalog no longer has is text, which every type's output is.
func (c *typeCatalog) load(ctx context.Context, conn *pgx.Conn, oids []uint32) error {
	var missing []uint32
	for _, oid := range oids {
		if _, ok := c.lookup(oid); !ok {
			missing = append(missing, oid)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, queryTypes, missing)
	if err != nil {
		return fmt.Errorf("reading types: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[catalogType])
	if err != nil {
		return fmt.Errorf("reading types: %w", err)
	}
	byOID := make(map[uint32]catalogType, len(found))
	for _, t := range found {
		byOID[t.OID] = t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, oid := range missing {
		c.known[oid] = c.resolve(oid, byOID, 0)
		base := oid
		for byOID[base].Class == "d" {
			base = byOID[base].Base
		}
		c.bases[oid] = base
	}
	return nil
}

// resolve finds out about one type. Domains over domains and arrays of domains are as deep as people make them, so the
// depth is only a guard against a broken catalog.
func (c *typeCatalog) resolve(oid uint32, from map[uint32]catalogType, depth int) *dataType {
	if t, ok := c.known[oid]; ok {
		return t
	}
	t, ok := from[oid]
	switch {
	case !ok || depth > 32:
		return scalars[25]
	case t.Class == "d":
		return c.resolve(t.Base, from, depth+1)
	case t.IsArray && t.Elem != 0 && len(t.DelimStr) == 1:
		return &dataType{kind: kindArray, elem: c.resolve(t.Elem, from, depth+1), delim: t.DelimStr[0]}
	}
	return scalars[25]
}

// jsonSchema is the schema of every value that the encoders write for a column of the type. asKey is for columns of a
// table's key: JSON numbers with fractions cannot be keys, so floats are strings there.
func (t *dataType) jsonSchema(nullable, asKey bool) json.RawMessage {
	var names []string
	members := ""
	switch t.kind {
	case kindBool:
		names = []string{"boolean"}
	case kindInt:
		names = []string{"integer"}
	case kindNumeric:
		names, members = []string{"string"}, `,"format":"number"`
	case kindFloat:
		names, members = []string{"number", "string"}, `,"format":"number"`
		if asKey {
			names = names[1:]
		}
	case kindBytea:
		names, members = []string{"string"}, `,"contentEncoding":"base64"`
	case kindJSON, kindJSONB:
		return json.RawMessage(`{}`)
	case kindDate:
		names, members = []string{"string"}, `,"format":"date"`
	case kindTimestamp, kindTimestamptz:
		names, members = []string{"string"}, `,"format":"date-time"`
	case kindTime, kindTimetz:
		names, members = []string{"string"}, `,"format":"time"`
	case kindUUID:
		names, members = []string{"string"}, `,"format":"uuid"`
	case kindArray:
		names, members = []string{"array"}, `,"items":`+string(t.itemSchema())
	default:
		names = []string{"string"}
	}
	if nullable {
		names = append(names, "null")
	}
	var typ any = names
	if len(names) == 1 {
		typ = names[0]
	}
	text, _ := json.Marshal(typ) // a string or strings: cannot fail
	return json.RawMessage(`{"type":` + string(text) + members + `}`)
}

// itemSchema is the schema of an array's elements. Postgres does not tie a column to a number of dimensions, so any
// element may be an array again.
func (t *dataType) itemSchema() json.RawMessage {
	if t.elem.kind == kindJSON || t.elem.kind == kindJSONB {
		return json.RawMessage(`{}`)
	}
	var schema map[string]any
	if err := json.Unmarshal(t.elem.jsonSchema(true, false), &schema); err != nil {
		return json.RawMessage(`{}`)
	}
	if names, ok := schema["type"].([]any); ok {
		schema["type"] = append(names, "array")
	}
	text, err := json.Marshal(schema)
	if err != nil {
		return json.RawMessage(`{}`)
	}
	return text
}
