// Package avro decodes Avro's binary encoding straight to JSON, by a plan made once for the writer's schema.
package avro

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sluicedata/sluice/sdk/schema"
)

// kind is what is read from the wire.
type kind uint8

const (
	kindNull kind = iota
	kindBoolean
	kindInt
	kindLong
	kindFloat
	kindDouble
	kindBytes
	kindString
	kindRecord
	kindEnum
	kindArray
	kindMap
	kindUnion
	kindFixed
)

//nolint:gochecknoglobals // a lookup table
var primitives = map[string]kind{
	"null": kindNull, "boolean": kindBoolean, "int": kindInt, "long": kindLong, "float": kindFloat, "double": kindDouble,
	"bytes": kindBytes, "string": kindString,
}

// typ is one type of a schema. Named types are shared, so a recursive schema is a graph with circles.
type typ struct {
	kind    kind
	name    string // full name of record, enum and fixed; of others the name of the type
	doc     string
	logical logical
	digits  schema.Decimal // decimal

	fields   []field  // record
	symbols  [][]byte // enum: quoted
	items    *typ     // array, map
	size     int      // fixed
	branches []branch // union
	// least is the least number of bytes that a value takes; 0 also where that is not known, within recursion.
	least int
}

type field struct {
	name   string
	doc    string
	prefix []byte   // {"name": or ,"name":
	short  [24]byte // the prefix, if it is not longer
	typ    *typ
}

type branch struct {
	typ *typ
	// open and end stand around values that another branch could be taken for; empty if none could.
	open, end []byte
}

// parser reads schemas that may use each other's names.
type parser struct {
	names map[string]*typ
}

// parse reads the text of a schema. Types that it names are found among those of the texts before.
func (p *parser) parse(text string) (*typ, error) {
	var v any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		// A registry may give a bare name, without quotes.
		if t, ok := p.lookup(strings.TrimSpace(text), ""); ok {
			return t, nil
		}
		return nil, fmt.Errorf("its text is no JSON: %s", err.Error())
	}
	return p.typ(v, "", 0)
}

func (p *parser) lookup(name, space string) (*typ, bool) {
	if k, ok := primitives[name]; ok {
		return &typ{kind: k, name: name}, true
	}
	if !strings.Contains(name, ".") && space != "" {
		if t, ok := p.names[space+"."+name]; ok {
			return t, true
		}
	}
	t, ok := p.names[name]
	return t, ok
}

func (p *parser) typ(v any, space string, depth int) (*typ, error) {
	if depth > maxDepth {
		return nil, errors.New("it is nested too deep")
	}
	switch v := v.(type) {
	case string:
		if t, ok := p.lookup(v, space); ok {
			return t, nil
		}
		return nil, fmt.Errorf("it names a type %q that it does not define", v)
	case []any:
		return p.union(v, space, depth)
	case map[string]any:
		return p.object(v, space, depth)
	default:
		return nil, fmt.Errorf("%v is no type", v)
	}
}

func (p *parser) object(v map[string]any, space string, depth int) (*typ, error) {
	name, ok := v["type"].(string)
	if !ok {
		if v["type"] == nil {
			return nil, errors.New("an object in it has no type")
		}
		return p.typ(v["type"], space, depth+1) // {"type": {"type": "int"}}
	}
	switch name {
	case "record", "error":
		return p.record(v, space, depth)
	case "enum":
		return p.enum(v, space)
	case "fixed":
		return p.fixed(v, space)
	case "array", "map":
		inner := v["items"]
		t := &typ{kind: kindArray, name: name, least: 1}
		if name == "map" {
			inner, t.kind = v["values"], kindMap
		}
		var err error
		if t.items, err = p.typ(inner, space, depth+1); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return t, nil
	}
	t, err := p.typ(name, space, depth+1)
	if err != nil {
		return nil, err
	}
	if _, primitive := primitives[name]; primitive {
		setLogical(t, v)
	}
	return t, nil
}

// define gives a named type its full name and makes it known, before its inner types are read: they may name it.
func (p *parser) define(t *typ, v map[string]any, space string) (string, error) {
	name, _ := v["name"].(string)
	if name == "" {
		return "", errors.New("a named type in it has no name")
	}
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		space = name[:i]
		name = name[i+1:]
	} else if s, ok := v["namespace"].(string); ok {
		space = s
	}
	t.name = name
	if space != "" {
		t.name = space + "." + name
	}
	t.doc, _ = v["doc"].(string)
	if _, taken := p.names[t.name]; taken {
		return "", fmt.Errorf("it defines %q twice", t.name)
	}
	p.names[t.name] = t
	return space, nil
}

func (p *parser) record(v map[string]any, space string, depth int) (*typ, error) {
	t := &typ{kind: kindRecord}
	space, err := p.define(t, v, space)
	if err != nil {
		return nil, err
	}
	fields, ok := v["fields"].([]any)
	if !ok {
		return nil, fmt.Errorf("the record %q has no list of fields", t.name)
	}
	seen := map[string]bool{}
	for i, f := range fields {
		f, ok := f.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("field %d of the record %q is no object", i+1, t.name)
		}
		name, _ := f["name"].(string)
		if name == "" || seen[name] {
			return nil, fmt.Errorf("field %d of the record %q has no name of its own", i+1, t.name)
		}
		seen[name] = true
		inner, err := p.fieldType(f, space, depth)
		if err != nil {
			return nil, fmt.Errorf("field %q of the record %q: %w", name, t.name, err)
		}
		doc, _ := f["doc"].(string)
		made := field{name: name, doc: doc, prefix: prefix(i, name), typ: inner}
		copy(made.short[:], made.prefix)
		t.fields = append(t.fields, made)
	}
	return t, nil
}

// fieldType reads the type of a field. Some writers put the logical type beside the type instead of into it; Avro ignores
// that, and so do we.
func (p *parser) fieldType(f map[string]any, space string, depth int) (*typ, error) {
	if f["type"] == nil {
		return nil, errors.New("it has no type")
	}
	return p.typ(f["type"], space, depth+1)
}

func (p *parser) enum(v map[string]any, space string) (*typ, error) {
	t := &typ{kind: kindEnum, least: 1}
	if _, err := p.define(t, v, space); err != nil {
		return nil, err
	}
	symbols, ok := v["symbols"].([]any)
	if !ok || len(symbols) == 0 {
		return nil, fmt.Errorf("the enum %q has no symbols", t.name)
	}
	for _, s := range symbols {
		text, ok := s.(string)
		if !ok {
			return nil, fmt.Errorf("the enum %q has a symbol that is no string", t.name)
		}
		t.symbols = append(t.symbols, quote(text))
	}
	return t, nil
}

func (p *parser) fixed(v map[string]any, space string) (*typ, error) {
	t := &typ{kind: kindFixed}
	if _, err := p.define(t, v, space); err != nil {
		return nil, err
	}
	size, ok := integer(v["size"])
	if !ok || size < 0 || size > 1<<30 {
		return nil, fmt.Errorf("the fixed %q has no size", t.name)
	}
	t.size, t.least = size, size
	setLogical(t, v)
	return t, nil
}

func (p *parser) union(v []any, space string, depth int) (*typ, error) {
	t := &typ{kind: kindUnion, name: "union", least: 1}
	for i, b := range v {
		if _, nested := b.([]any); nested {
			return nil, errors.New("it has a union directly within a union")
		}
		inner, err := p.typ(b, space, depth+1)
		if err != nil {
			return nil, fmt.Errorf("branch %d of a union: %w", i+1, err)
		}
		t.branches = append(t.branches, branch{typ: inner})
	}
	if len(v) == 0 {
		return nil, errors.New("it has a union without branches")
	}
	tagAmbiguous(t.branches)
	return t, nil
}

func integer(v any) (int, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	return int(i), err == nil
}
