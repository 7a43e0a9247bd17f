package reduce

import "github.com/sluicedata/sluice/sdk/jsonscan"

// Deletes tells whether the annotations make doc a deletion of its key.
func (p *Plan) Deletes(doc []byte) bool {
	var buf [8]*node
	for _, n := range expand(buf[:0], p.root, doc, true) {
		if n.deletes {
			return true
		}
	}
	return false
}

// Mark returns the one location that decides whether a document is a deletion, as a JSON pointer; false if it takes more to
// decide that. Who looks up other locations anyway spares itself a walk over the document: Marked tells what Deletes tells, except
// of a document in which something on the way is no object; to JSON schema that is valid, and so a deletion, and to Marked it is none.
func (p *Plan) Mark() (pointer string, ok bool) { return p.mark.pointer, p.mark.pointer != "" }

// Marked tells whether a document is a deletion that has value at the location which Mark returns; nil if it has none.
func (p *Plan) Marked(value []byte) bool { return value != nil && p.mark.values.holds(value) }

// mark is a condition of the form "the member op of the member _meta is there, and is one of some values".
type mark struct {
	pointer string
	values  equals
	created bool // the member may also say that the key is new
}

// findMark is the mark of documents, which are objects; the zero mark if there is no such condition, or something besides.
func (n *node) findMark() mark {
	if n.deletes || len(n.conds) != 1 {
		return mark{}
	}
	c := &n.conds[0]
	if !c.marks || c.then == nil || !c.then.deletes || c.els != nil {
		return mark{}
	}
	var found mark
	for when := c.when; ; {
		switch part := when.(type) {
		case *property:
			if !part.required {
				return mark{}
			}
			found.pointer = jsonscan.JoinPointer(found.pointer, part.name)
			when = part.then
		case equals:
			found.values = part
			return found
		default:
			return mark{}
		}
	}
}
