package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

// typeCatalog resolves types by their object identifiers, the unknown ones from the server's catalog: domains to their
// base, arrays to their elements, everything else to text. It may be used from any goroutine.
type typeCatalog struct {
	mu    sync.Mutex
	known map[uint32]*dataType
	bases map[uint32]uint32 // of domains
	names map[uint32]string // of domains' bases, as SQL
	// operators are the operators > that sort a type's values, unless they are in pg_catalog.
	operators map[uint32]operator
	exact     lossless
}

func newTypeCatalog(exact lossless) *typeCatalog {
	c := &typeCatalog{
		known:     make(map[uint32]*dataType, len(scalars)+len(arraysOf)),
		bases:     make(map[uint32]uint32),
		names:     make(map[uint32]string),
		operators: make(map[uint32]operator),
		exact:     exact,
	}
	for oid, t := range scalars {
		if exact.covers(t.kind) {
			kept := *t
			kept.exact = true
			t = &kept
		}
		c.known[oid] = t
	}
	for oid, elem := range arraysOf {
		c.known[oid] = c.arrayOf(c.known[elem], ',')
	}
	return c
}

func (c *typeCatalog) arrayOf(elem *dataType, delim byte) *dataType {
	return &dataType{kind: kindArray, elem: elem, delim: delim, exact: c.exact.arrays}
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
	return scalars[oidText]
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

// comparable is a column as a query compares it: one of a domain as what is below it, since the operators of enums and
// composite types do not take domains. (The server's indexes do not mind.)
func (c *typeCatalog) comparable(column string, oid uint32) string {
	base := c.base(oid)
	c.mu.Lock()
	defer c.mu.Unlock()
	if name := c.names[base]; base != oid && name != "" {
		return quoteIdent(column) + "::" + name
	}
	return quoteIdent(column)
}

// operator is what a type's values are sorted by. It is zero for operators of pg_catalog.
type operator struct{ schema, name string }

// operator is where the server finds the operators that sort values of a type: citext and its like bring their own, in
// whatever schema the extension was put, and a query that does not look there would compare by another type's.
func (c *typeCatalog) operator(oid uint32) operator {
	base := c.base(oid)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.operators[base]
}

// catalogType is a row of pg_type.
type catalogType struct {
	OID      uint32
	Class    string // typtype
	Base     uint32 // of a domain
	BaseText string // the same as SQL, with its length or digits
	Elem     uint32 // of an array
	IsArray  bool
	DelimStr string
	Schema   string
	Name     string
	OpSchema string // of the type's own operator >
	Operator string // its name
}

// Arrays are told by how they print: some types have elements, or are called arrays, and print in another way.
const queryTypes = `
	WITH RECURSIVE wanted(oid) AS (
		SELECT unnest($1::oid[])
		UNION
		SELECT n.oid FROM wanted w JOIN pg_catalog.pg_type t ON t.oid = w.oid
			CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) AS n(oid) WHERE n.oid <> 0
	)
	SELECT t.oid, t.typtype::text, t.typbasetype, pg_catalog.format_type(t.typbasetype, t.typtypmod), t.typelem, t.typoutput = 'pg_catalog.array_out'::pg_catalog.regproc, t.typdelim::text,
		(SELECT nspname FROM pg_catalog.pg_namespace n WHERE n.oid = t.typnamespace), t.typname,
		coalesce(o.nspname, ''), coalesce(o.oprname, '')
	FROM wanted w JOIN pg_catalog.pg_type t ON t.oid = w.oid
		LEFT JOIN LATERAL (SELECT n.nspname, p.oprname FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
			JOIN pg_catalog.pg_amop o ON o.amopfamily = c.opcfamily AND o.amoplefttype = t.oid AND o.amoprighttype = t.oid AND o.amopstrategy = 5
			JOIN pg_catalog.pg_operator p ON p.oid = o.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = p.oprnamespace
			WHERE c.opcdefault AND c.opcintype = t.oid AND n.nspname <> 'pg_catalog' LIMIT 1) o ON true`

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
	for oid, t := range byOID {
		if t.Operator != "" {
			c.operators[oid] = operator{t.OpSchema, t.Operator}
		}
	}
	for _, oid := range missing {
		c.known[oid] = c.resolve(oid, byOID, 0)
		base := oid
		for byOID[base].Class == "d" {
			base = byOID[base].Base
		}
		c.bases[oid], c.names[base] = base, quoteTable(byOID[base].Schema, byOID[base].Name)
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
		return scalars[oidText]
	case t.Class == "d":
		return c.resolve(t.Base, from, depth+1).limited(t.BaseText)
	case t.IsArray && t.Elem != 0 && len(t.DelimStr) == 1:
		return c.arrayOf(c.resolve(t.Elem, from, depth+1), t.DelimStr[0])
	}
	return scalars[oidText]
}

// limited is the type as a domain has it that is declared over it.
func (t *dataType) limited(declared string) *dataType {
	digits := digitsOf(declared)
	if t.kind != kindNumeric || !digits.Bounded() {
		return t
	}
	out := *t
	out.digits = digits
	return &out
}
