package parquet

import (
	"strconv"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// absence is the plan of looking for what documents lack. It is made of the values whose location need not exist.
type absence struct {
	root *location
	// fields are what the tree leads to.
	fields []absentField
}

type absentField struct {
	value int // index in a row's values
	name  []byte
}

// location is a place in documents.
type location struct {
	children map[string]*location
	fields   []int // indexes in absence.fields; none if the place is only on the way to some
}

// planAbsence returns nil if documents have every value.
func planAbsence(values []materialize.Field) *absence {
	a := &absence{root: &location{}}
	for i, f := range values {
		tokens := jsonscan.SplitPointer(f.Pointer)
		if f.Required || len(tokens) == 0 {
			continue
		}
		at := a.root
		for _, token := range tokens {
			next := at.children[token]
			if next == nil {
				next = &location{}
				if at.children == nil {
					at.children = map[string]*location{}
				}
				at.children[token] = next
			}
			at = next
		}
		at.fields = append(at.fields, len(a.fields))
		a.fields = append(a.fields, absentField{value: i, name: []byte(f.Name)})
	}
	if len(a.fields) == 0 {
		return nil
	}
	return a
}

// absentees looks documents through. It is for one goroutine.
type absentees struct {
	plan    *absence
	present []bool
}

// candidates reports whether a row has nulls that may stand for absent values.
func (a *absentees) candidates(values []tuple.Element) bool {
	for i := range a.plan.fields {
		if values[a.plan.fields[i].value].Kind == tuple.Nil {
			return true
		}
	}
	return false
}

// look notes which fields the document has.
func (a *absentees) look(doc []byte) {
	a.present = append(a.present[:0], make([]bool, len(a.plan.fields))...)
	a.walk(a.plan.root, doc)
}

func (a *absentees) walk(at *location, value []byte) {
	switch jsonscan.Kind(value) {
	case '{':
		members := jsonscan.NewMembers(value)
		for {
			key, member, ok := members.Next()
			if !ok {
				return
			}
			if child := at.children[string(jsonscan.Name(key))]; child != nil {
				a.found(child, member)
			}
		}
	case '[':
		elements := jsonscan.NewElements(value)
		for i := 0; ; i++ {
			element, ok := elements.Next()
			if !ok {
				return
			}
			if child := at.children[strconv.Itoa(i)]; child != nil {
				a.found(child, element)
			}
		}
	}
}

func (a *absentees) found(at *location, value []byte) {
	for _, i := range at.fields {
		a.present[i] = true
	}
	if at.children != nil {
		a.walk(at, value)
	}
}
