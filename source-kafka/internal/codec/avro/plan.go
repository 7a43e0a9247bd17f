package avro

import (
	"fmt"
	"strings"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

// Schema is a writer's schema with the plan to decode what was written by it. It is immutable and may be used from any
// goroutine.
type Schema struct {
	root *typ
	key  bool
}

// Text is one schema's text, and the name for messages.
type Text struct {
	Name, Schema string
}

// Options say how values are written where there is a choice.
type Options struct {
	// Key refuses values that only the nearest JSON form could be written of, such as dates beyond the year 9999: two keys
	// would become one.
	Key bool
}

// Compile plans a schema. The named types that it refers to without defining them are in refs, each before those that
// need it. Errors are phrases about the schema, for people.
func Compile(text string, refs []Text, opts Options) (*Schema, error) {
	p := &parser{names: map[string]*typ{}}
	for _, r := range refs {
		if _, err := p.parse(r.Schema); err != nil {
			return nil, fmt.Errorf("what it refers to as %q: %w", r.Name, err)
		}
	}
	root, err := p.parse(text)
	if err != nil {
		return nil, err
	}
	m := measure{on: map[*typ]bool{}, done: map[*typ]bool{}}
	m.least(root)
	return &Schema{root: root, key: opts.Key}, nil
}

// Name is the full name of the root, if it has one.
func (s *Schema) Name() string {
	if s.root.kind == kindRecord || s.root.kind == kindEnum || s.root.kind == kindFixed {
		return s.root.name
	}
	return ""
}

func quote(s string) []byte { return rowjson.AppendText(nil, strings.ToValidUTF8(s, "\ufffd")) }

// prefix stands before the value of the i-th member of an object.
func prefix(i int, name string) []byte {
	open := byte(',')
	if i == 0 {
		open = '{'
	}
	return append(append([]byte{open}, quote(name)...), ':')
}

// measure finds the least size of every type.
type measure struct{ on, done map[*typ]bool }

func (m *measure) least(t *typ) int {
	if m.done[t] {
		return t.least
	}
	if m.on[t] {
		return 0 // within itself: at least nothing
	}
	m.on[t] = true
	switch t.kind {
	case kindNull:
		t.least = 0
	case kindFloat:
		t.least = 4
	case kindDouble:
		t.least = 8
	case kindFixed:
	case kindRecord:
		sum := 0
		for _, f := range t.fields {
			sum = min(sum+m.least(f.typ), 1<<20)
		}
		t.least = sum
	case kindArray, kindMap:
		m.least(t.items)
		t.least = 1
	case kindUnion:
		for _, b := range t.branches {
			m.least(b.typ)
		}
		t.least = 1
	default:
		t.least = 1
	}
	delete(m.on, t)
	m.done[t] = true
	return t.least
}

// form is the kind of JSON that a branch becomes, as far as branches of a union can be told apart by it. Numbers are
// numbers and texts are texts, whatever they were written as; but a text in base64 or with digits of a decimal is not told
// from a plain text, nor a record from another record or from a map.
type form uint8

const (
	formNull form = iota
	formBoolean
	formNumber
	formText
	formNotation
	formObject
	formArray
)

func (t *typ) form() form {
	switch t.kind {
	case kindNull:
		return formNull
	case kindBoolean:
		return formBoolean
	case kindInt, kindLong, kindFloat, kindDouble:
		if t.logical != logicalNone {
			return formNotation
		}
		return formNumber
	case kindString, kindEnum:
		return formText
	case kindBytes, kindFixed:
		return formNotation
	case kindRecord, kindMap:
		return formObject
	default:
		return formArray
	}
}

// tagAmbiguous puts values into an object with the branch's name, as Avro's own JSON does for all, where another branch of
// the union could look the same.
func tagAmbiguous(branches []branch) {
	var objects, texts, notations int
	for _, b := range branches {
		switch b.typ.form() {
		case formObject:
			objects++
		case formText:
			texts++
		case formNotation:
			notations++
		default:
		}
	}
	for i := range branches {
		b := &branches[i]
		f := b.typ.form()
		if (f == formObject && objects > 1) || ((f == formText || f == formNotation) && notations > 0 && texts+notations > 1) {
			b.open, b.end = prefix(0, b.typ.name), []byte{'}'}
		}
	}
}
