package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/tuple"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// table is a binding in a session: everything about it that does not depend on rows, planned once.
type table struct {
	index   int
	name    tableName
	delta   bool
	loadAll bool
	columns []column // keys, values, document
	nkeys   int
	hasDoc  bool
	history *history // nil if the table is none
	doc     *document
	// results are the columns and echoes that Load asks for, in the order in which doc counts them.
	results []result
	// fresh, known, gone and keys are temporary tables: rows that are new to the runtime, rows that it has seen, keys
	// to be deleted and keys to be loaded.
	fresh, known, gone, keys string
}

// column is a selected field with the column that holds it.
type column struct {
	field    materialize.Field
	name     string
	kind     kind
	native   bool   // the column is of that kind; else values are cast
	typeName string // of the column, for people
	castName string // of the column, for casts
	equals   string // the operator that compares its values
	encode   encoder
	// echo says that the column may hold a key in another form than the runtime sent it, such as a moment in another
	// time zone. Loaded documents then take the key from the request, or the runtime would not recognise them.
	echo bool
}

// result is one column of what Load returns.
type result struct {
	expression string
	binary     bool
}

// planTable compares a binding with the table that exists.
func planTable(cat *catalog, b *materialize.Binding[resource], task string) (*table, error) {
	name := nameOf(b.Target.Path)
	have := cat.tables[name]
	if have == nil {
		return nil, missingTable(name)
	}
	if err := have.mayUse(name, task, b.Resource); err != nil {
		return nil, err
	}
	suffix := strconv.Itoa(b.Index)
	t := &table{
		index: b.Index, name: name, delta: b.Target.Delta, loadAll: have.loadAll, nkeys: len(b.Keys), hasDoc: b.Document != nil,
		fresh: "sluice_fresh_" + suffix, known: "sluice_known_" + suffix, gone: "sluice_gone_" + suffix, keys: "sluice_keys_" + suffix,
	}
	// Without the key's index every row would be searched for in the whole table.
	if err := have.sameKey(name, keyColumns(b)); err != nil {
		return nil, err
	}
	if have.history != b.Resource.History {
		return nil, have.sameMode(name, b.Resource)
	}
	if b.Resource.History != "" {
		h, err := planHistory(b)
		if err != nil {
			return nil, err
		}
		t.history, t.hasDoc = h, false
	}
	for i, f := range storedFields(b) {
		c, ok := have.column(columnName(f.Name))
		if !ok {
			return nil, usererr.New(nil, "Table %s has no column %q. If it was dropped by hand, exclude the field or increase the binding's backfill counter.", name, columnName(f.Name))
		}
		planned := planColumn(f, c, i < t.nkeys)
		if planned.kind == kindInterval && !cat.infiniteIntervals {
			planned.encode = encodeFiniteInterval
		}
		t.columns = append(t.columns, planned)
	}
	t.planDocument(b)
	return t, nil
}

func planColumn(f materialize.Field, have existingColumn, key bool) column {
	k, native := have.kind()
	c := column{field: f, name: have.name, kind: k, native: native, typeName: have.typeName, castName: have.castName, equals: have.equals, encode: encoderOf(k, f, key)}
	if key {
		switch k {
		case kindBool, kindDate:
			c.echo = false
		case kindText:
			c.echo = !native || !f.Is("string")
		default:
			c.echo = true
		}
	}
	return c
}

// result is the expression that loads the column, in the form that its decoder takes.
func (c *column) result() result {
	name := "t." + quote(c.name)
	switch {
	case c.kind == kindArray && slices.Contains(c.field.Items, "string") && !slices.Contains(c.field.Items, "number"):
		return result{"to_jsonb(" + name + "::text[])", false} // decimals are strings there
	case c.kind == kindArray:
		return result{"to_jsonb(" + name + ")", false}
	case c.native:
		return result{name, kinds[c.kind].binary}
	default:
		return result{name + "::text", false}
	}
}

// planDocument plans how loaded documents are made: from the column that holds them whole, or rebuilt from all others.
func (t *table) planDocument(b *materialize.Binding[resource]) {
	if t.delta {
		return // nothing is ever loaded
	}
	add := func(expression string, binary bool) int {
		t.results = append(t.results, result{expression, binary})
		return len(t.results) - 1
	}
	if t.hasDoc {
		c := t.columns[len(t.columns)-1]
		add("t."+quote(c.name), false)
		return
	}
	var places []place
	for i, c := range t.columns {
		tokens, ok := members(c.field.Pointer, b.Projections)
		if !ok {
			continue
		}
		p := place{field: c.field, tokens: tokens, decode: decoderOf(c.kind, c.field), echo: -1}
		if c.echo {
			p.echo = add(fmt.Sprintf("k.e%d", i), false)
		}
		loaded := c.result()
		p.column = add(loaded.expression, loaded.binary)
		places = append(places, p)
	}
	t.doc = newDocument(places)
}

// members takes a pointer apart, and reports whether it leads through objects only.
func members(pointer string, projections []materialize.Field) ([]string, bool) {
	if pointer == "" {
		return nil, false
	}
	tokens := strings.Split(pointer[1:], "/")
	parent := ""
	for i, token := range tokens {
		if isArray(parent, projections) && (token == "-" || isIndex(token)) {
			return nil, false
		}
		parent += "/" + token
		tokens[i] = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
	}
	return tokens, true
}

func isIndex(token string) bool {
	_, err := strconv.ParseUint(token, 10, 32)
	return err == nil
}

func isArray(pointer string, projections []materialize.Field) bool {
	return slices.ContainsFunc(projections, func(f materialize.Field) bool {
		return f.Pointer == pointer && slices.Contains(f.Types, "array")
	})
}

// appendRow appends a row in the form of binary COPY.
func (t *table) appendRow(dst []byte, r *materialize.Row) ([]byte, error) {
	start := len(dst)
	n := len(t.columns)
	dst = append(dst, byte(n>>8), byte(n))
	dst, err := t.appendElements(dst, 0, r.Key, r.Key)
	if err == nil {
		dst, err = t.appendElements(dst, t.nkeys, r.Values, r.Key)
	}
	if err != nil {
		return dst[:start], err
	}
	if t.hasDoc {
		dst = appendBytes(dst, r.Doc)
	}
	return dst, nil
}

// appendGone appends the key of a row to be deleted.
func (t *table) appendGone(dst []byte, r *materialize.Row) ([]byte, error) {
	return t.appendKey(dst, r.Key)
}

// appendKey appends only the key of a row.
func (t *table) appendKey(dst []byte, key []tuple.Element) ([]byte, error) {
	start := len(dst)
	dst, err := t.appendElements(append(dst, byte(t.nkeys>>8), byte(t.nkeys)), 0, key, key)
	if err != nil {
		return dst[:start], err
	}
	return dst, nil
}

// appendLoadKey appends a key and the echoes of those of its elements that need one.
func (t *table) appendLoadKey(dst []byte, key []tuple.Element) ([]byte, error) {
	start := len(dst)
	dst, err := t.appendKey(dst, key)
	if err != nil {
		return dst, err
	}
	n := t.nkeys
	for i := range t.nkeys {
		if !t.columns[i].echo {
			continue
		}
		n++
		if key[i].Kind == tuple.Int && t.columns[i].kind <= kindInt8 && t.columns[i].kind >= kindInt2 {
			dst = appendNull(dst) // the column says it
			continue
		}
		dst, err = measured(dst, func(dst []byte) ([]byte, error) { return appendEcho(dst, key[i]), nil })
		if err != nil {
			return dst[:start], err
		}
	}
	dst[start], dst[start+1] = byte(n>>8), byte(n)
	return dst, nil
}

// appendEcho appends a key's element as JSON that packs to the same element again: a float stays one. Text columns have
// no NUL character, but its escape is none.
func appendEcho(dst []byte, e tuple.Element) []byte {
	start := len(dst)
	dst = appendJSONValue(dst, e)
	if e.Kind == tuple.Float && !bytes.ContainsAny(dst[start:], ".eE\"") {
		dst = append(dst, ".0"...)
	}
	return dst
}

func (t *table) appendElements(dst []byte, first int, elements, key []tuple.Element) ([]byte, error) {
	var err error
	for i := range elements {
		c := &t.columns[first+i]
		if dst, err = c.encode(dst, elements[i]); err != nil {
			return dst, t.unstorable(c, elements[i], key, err)
		}
	}
	return dst, nil
}

const unstorableText = "The value %s of field %q cannot be stored in column %q of %s, which is of type %s: %v. The row's key is %s. " +
	"Correct the value, or set castToString or another columnType in the field's configuration and increase the binding's backfill counter."

func (t *table) unstorable(c *column, e tuple.Element, key []tuple.Element, cause error) error {
	return usererr.New(cause, unstorableText, describe(e), c.field.Name, c.name, t.name, c.typeName, cause, describeKey(key))
}
