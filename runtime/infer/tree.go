// Package infer learns from documents what their schema does not say: which members they have, and of which types. A document in which
// there is nothing new costs the one walk that proves it to be JSON.
package infer

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	"github.com/sluicedata/sluice/runtime/schema"
	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// What is learned is bounded, since names of members may be data. What is beyond stays what it is, in the documents, and is no field.
const (
	maxMembers = 1000 // of all objects together
	maxBelow   = 100  // of one object that is not the document
	maxName    = 256  // bytes
	maxDepth   = 5    // of members, where the pipeline sets no limit
	maxDigits  = 38   // of integers: no destination has exact ones beyond
)

// Tree is what is known of the documents of one collection. It belongs to one goroutine.
type Tree struct {
	root    *node
	depth   int
	members int
	news    bool
	leftOut bool
}

// node is one place in documents.
type node struct {
	name   string
	quoted string // the name as it nearly always stands in documents, with its colon; "" if it has to be escaped
	plain  bool   // nothing is learned here, nor below
	types  bool   // types are learned; otherwise they are declared
	walk   bool   // there are members to look at
	grow   bool   // unknown members are learned
	level  int    // 0 is the document

	known schema.Types // what is known of values here
	seen  schema.Types // what documents had beyond what is announced
	big   bool         // integers beyond 64 bits
	props map[string]*node
	first *node // of the last document's members
	after *node // the member that came after this one
}

// New makes the tree of a collection: of its schema, and of what was announced and learned before, which may be nil. Depth is how
// deep members become fields, below zero without limit. nil is returned if the schema leaves nothing to be learned.
func New(written, sourced, learned *schema.Shape, depth int) *Tree {
	if !written.Infer {
		return nil
	}
	t := &Tree{depth: limit(depth)}
	t.root = t.node("", written, sourced, learned, 0)
	return t
}

// limit is how deep members are looked at. The first level always is: to take no fields at all is a choice for today.
func limit(depth int) int {
	if depth < 0 || depth > maxDepth {
		return maxDepth
	}
	return max(depth, 1)
}

func (t *Tree) node(name string, written, sourced, learned *schema.Shape, level int) *node {
	n := &node{name: name, level: level}
	if !bytes.ContainsFunc([]byte(name), func(r rune) bool { return r == '"' || r == '\\' || r < ' ' }) {
		n.quoted = `"` + name + `":`
	}
	if written != nil && !written.Infer {
		n.plain = true
		return n
	}
	n.types = written == nil || written.Types == schema.Any
	n.walk = level < t.depth
	n.grow = n.walk && (written == nil || !written.Closed)
	if learned != nil {
		n.seen, n.big = learned.Types, learned.Big()
	}
	n.known = n.seen
	if sourced != nil {
		n.known, n.big = n.known|sourced.Types, n.big || sourced.Big()
	}
	if !n.walk {
		return n
	}
	n.props = map[string]*node{}
	for i, s := range []*schema.Shape{written, sourced, learned} {
		if s == nil {
			continue
		}
		for name := range s.Props {
			if n.props[name] != nil {
				continue
			}
			if i == 2 {
				t.members++
			}
			n.props[name] = t.node(name, of(written, name), of(sourced, name), of(learned, name), level+1)
		}
	}
	return n
}

func of(s *schema.Shape, name string) *schema.Shape {
	if s == nil {
		return nil
	}
	return s.Props[name].Shape
}

// Valid tells whether a document is valid JSON, exactly as jsonscan.Valid does, and learns from it. What is learned of a text that turns
// out not to be valid is no harm: it only allows more.
func (t *Tree) Valid(doc []byte) bool {
	pos := t.value(t.root, doc, jsonscan.Space(doc, 0), 0)
	return pos >= 0 && jsonscan.Space(doc, pos) == len(doc)
}

// value returns the index behind the value at pos, -1 if it is not valid. It lies in depth objects; n is nil where nothing is learned.
func (t *Tree) value(n *node, text []byte, pos, depth int) int {
	if n == nil || n.plain || pos >= len(text) {
		return jsonscan.End(text, pos, depth)
	}
	var kind schema.Types
	var end int
	switch text[pos] {
	case '{':
		kind = schema.Object
		if n.walk {
			end = t.object(n, text, pos+1, depth+1)
		} else {
			end = jsonscan.End(text, pos, depth)
		}
	case '[':
		kind, end = schema.Array, jsonscan.End(text, pos, depth)
	case '"':
		kind, end = schema.String, jsonscan.End(text, pos, depth)
	case 't', 'f':
		kind, end = schema.Boolean, jsonscan.End(text, pos, depth)
	case 'n':
		kind, end = schema.Null, jsonscan.End(text, pos, depth)
	default:
		if end = jsonscan.End(text, pos, depth); end > 0 {
			t.number(n, text[pos:end])
		}
		return end
	}
	if n.types && n.known&kind == 0 {
		t.note(n, kind)
	}
	return end
}

func (t *Tree) note(n *node, kind schema.Types) {
	n.seen, n.known, t.news = n.seen|kind, n.known|kind, true
	if n.seen&schema.Number != 0 {
		n.seen &^= schema.Integer
	}
}

// number takes in a valid number. Integers of more digits than any destination keeps count as numbers.
func (t *Tree) number(n *node, text []byte) {
	if !n.types || n.known&schema.Number != 0 {
		return
	}
	if bytes.IndexByte(text, '.') >= 0 || bytes.IndexByte(text, 'e') >= 0 || bytes.IndexByte(text, 'E') >= 0 || len(text) > maxDigits {
		t.note(n, schema.Number)
		return
	}
	if n.known&schema.Integer == 0 {
		t.note(n, schema.Integer)
	}
	if len(text) < 19 || n.big {
		return
	}
	if _, err := strconv.ParseInt(string(text), 10, 64); err != nil {
		n.seen, n.big, t.news = n.seen|schema.Integer, true, true
	}
}

// object begins behind the opening bracket. Members are expected in the order in which they came before.
func (t *Tree) object(n *node, text []byte, pos, depth int) int {
	if pos = jsonscan.Space(text, pos); pos < len(text) && text[pos] == '}' {
		return pos + 1
	}
	for expected := &n.first; ; {
		child := *expected
		if child != nil && child.quoted != "" && hasPrefix(text[pos:], child.quoted) {
			pos += len(child.quoted)
		} else {
			if pos >= len(text) || text[pos] != '"' {
				return -1
			}
			begin := pos + 1
			if pos = jsonscan.End(text, pos, depth); pos < 0 {
				return -1
			}
			if child = t.member(n, text[begin:pos-1]); child != nil {
				*expected = child
			}
			if pos = jsonscan.Space(text, pos); pos >= len(text) || text[pos] != ':' {
				return -1
			}
			pos++
		}
		if child != nil {
			expected = &child.after
		}
		if pos = t.value(child, text, jsonscan.Space(text, pos), depth); pos < 0 {
			return -1
		}
		if pos = jsonscan.Space(text, pos); pos >= len(text) {
			return -1
		}
		switch text[pos] {
		case '}':
			return pos + 1
		case ',':
			pos = jsonscan.Space(text, pos+1)
		default:
			return -1
		}
	}
}

func hasPrefix(text []byte, prefix string) bool {
	return len(text) >= len(prefix) && string(text[:len(prefix)]) == prefix
}

// member finds the node of a member, and learns of it if there is none. It is nil if nothing is to be learned there.
func (t *Tree) member(n *node, raw []byte) *node {
	child := n.props[string(raw)]
	if child == nil || bytes.IndexByte(raw, '\\') >= 0 {
		raw = jsonscan.Name(raw)
		child = n.props[string(raw)]
	}
	switch {
	case child != nil || !n.grow || len(raw) == 0:
		return child
	case len(raw) > maxName || !utf8.Valid(raw) || t.members >= maxMembers || n.level > 0 && len(n.props) >= maxBelow:
		t.leftOut = true
		return nil
	}
	t.members++
	child = t.node(string(raw), nil, nil, nil, n.level+1)
	n.props[child.name] = child
	return child
}

// News tells whether something was learned since the tree was made, or since Learned was called.
func (t *Tree) News() bool { return t.news }

// LeftOut tells whether documents have members that are not learned, because there are too many or their names cannot be those of fields.
func (t *Tree) LeftOut() bool { return t.leftOut }

// Learned is all that was learned from documents, here and before.
func (t *Tree) Learned() *schema.Shape {
	t.news = false
	s := t.root.shape()
	if s == nil {
		s = &schema.Shape{}
	}
	s.Types |= schema.Object
	return s
}

// shape is what was learned here and below; nil if that is nothing.
func (n *node) shape() *schema.Shape {
	s := &schema.Shape{Types: n.seen}
	if n.seen&schema.Number != 0 {
		s.Types &^= schema.Integer
	}
	if n.big && n.seen&schema.Integer != 0 {
		s.SetBig()
	}
	for _, child := range n.props {
		below := child.shape()
		if below == nil {
			continue
		}
		if s.Props == nil {
			s.Props = map[string]schema.Property{}
		}
		s.Props[child.name] = schema.Property{Shape: below}
		s.Types |= schema.Object
	}
	if s.Types == 0 {
		return nil
	}
	return s
}
