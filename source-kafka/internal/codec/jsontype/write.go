package jsontype

import (
	"encoding/json"
	"net/url"
	"slices"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/schema"
)

// JSON is the document as a JSON schema (2020-12). A definition that is used once is written where it is used; those that
// are used more often, or by themselves, are in $defs, under their names behind the prefix.
func (d *Document) JSON(prefix string) json.RawMessage {
	return d.write(writer{prefix: prefix})
}

// Closed is JSON for values that were written by this very description: objects have no members beside those it names.
func (d *Document) Closed(prefix string) json.RawMessage {
	return d.write(writer{prefix: prefix, closed: true})
}

func (d *Document) write(w writer) json.RawMessage {
	w.doc, w.uses = d, map[string]int{}
	w.count(d.Root)
	w.open()
	w.members(d.Root, true)
	w.defs()
	w.closeObject()
	return w.dst
}

type writer struct {
	doc    *Document
	prefix string
	closed bool
	dst    []byte
	uses   map[string]int
}

// count counts how often each definition is used, from the root.
func (w *writer) count(n *Node) {
	if n == nil {
		return
	}
	if n.Ref != "" {
		w.uses[n.Ref]++
		if w.uses[n.Ref] == 1 {
			w.count(w.doc.Defs[n.Ref])
		}
		return
	}
	for _, p := range n.Props {
		w.count(p.Node)
	}
	w.count(n.Values)
	w.count(n.Items)
	for _, a := range n.AnyOf {
		w.count(a)
	}
}

// inline is the node itself, with what it refers to in its place if that is used nowhere else.
func (w *writer) inline(n *Node) *Node {
	if n.Ref == "" || w.uses[n.Ref] != 1 {
		return n
	}
	c := *w.inline(w.doc.Defs[n.Ref])
	if n.Description != "" {
		c.Description = n.Description
	}
	return &c
}

func (w *writer) defs() {
	var names []string
	for name, uses := range w.uses {
		if uses > 1 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	w.name("$defs")
	w.open()
	for _, name := range names {
		w.name(w.prefix + name)
		w.node(w.doc.Defs[name])
	}
	w.closeObject()
}

func (w *writer) node(n *Node) {
	w.open()
	w.members(n, false)
	w.closeObject()
}

// members writes a node's keywords. The root's are not a reference alone: readers look for its properties.
func (w *writer) members(n *Node, root bool) {
	n = w.inline(n)
	if root && n.Ref != "" {
		n = w.doc.Follow(n)
	}
	n = w.nullable(n)
	if n.Ref != "" {
		w.text("$ref", "#"+(&url.URL{Path: jsonscan.JoinPointer("/$defs", w.prefix+n.Ref)}).EscapedPath())
	}
	switch len(n.Types) {
	case 0:
	case 1:
		w.text("type", n.Types[0])
	default:
		w.strings("type", n.Types)
	}
	w.text("title", n.Title)
	w.text("description", n.Description)
	w.text("format", n.Format)
	if n.Decimal.Bounded() {
		w.name(schema.DecimalKeyword)
		w.dst = append(w.dst, n.Decimal.JSON()...)
	}
	w.text("contentEncoding", n.Encoding)
	if len(n.Props) > 0 {
		w.props(n.Props)
	}
	switch {
	case n.Values != nil:
		w.name("additionalProperties")
		w.node(n.Values)
	case w.closed && len(n.Props) > 0: // one without any may be one of which nothing is known
		w.name("additionalProperties")
		w.dst = append(w.dst, "false"...)
	}
	if n.Items != nil {
		w.name("items")
		w.node(n.Items)
	}
	if len(n.AnyOf) > 0 {
		w.name("anyOf")
		w.dst = append(w.dst, '[')
		for i, a := range n.AnyOf {
			if i > 0 {
				w.dst = append(w.dst, ',')
			}
			w.node(a)
		}
		w.dst = append(w.dst, ']')
	}
}

// nullable writes "an object or null" as one node of two types, which more readers understand than alternatives.
func (w *writer) nullable(n *Node) *Node {
	if len(n.AnyOf) != 2 || len(n.Types) > 0 {
		return n
	}
	one, null := w.inline(n.AnyOf[0]), w.inline(n.AnyOf[1])
	if len(one.Types) == 1 && one.Types[0] == "null" {
		one, null = null, one
	}
	if one.Ref != "" || len(one.AnyOf) > 0 || len(null.Types) != 1 || null.Types[0] != "null" {
		return n
	}
	c := *OrNull(one)
	if n.Description != "" {
		c.Description = n.Description
	}
	return &c
}

func (w *writer) props(props []Prop) {
	w.name("properties")
	w.open()
	var required []string
	for _, p := range props {
		w.name(p.Name)
		w.node(p.Node)
		if p.Required {
			required = append(required, p.Name)
		}
	}
	w.closeObject()
	if len(required) > 0 {
		w.strings("required", required)
	}
}

func (w *writer) open() { w.dst = append(w.dst, '{') }

func (w *writer) closeObject() { w.dst = append(w.dst, '}') }

// name begins a member, with a comma if it is not the first of its object.
func (w *writer) name(name string) {
	if w.dst[len(w.dst)-1] != '{' {
		w.dst = append(w.dst, ',')
	}
	w.dst = append(rowjson.AppendText(w.dst, name), ':')
}

// text writes a member unless it is empty.
func (w *writer) text(name, text string) {
	if text != "" {
		w.name(name)
		w.dst = rowjson.AppendText(w.dst, text)
	}
}

func (w *writer) strings(name string, all []string) {
	w.name(name)
	for i, s := range all {
		w.dst = append(w.dst, "[,"[min(i, 1)])
		w.dst = rowjson.AppendText(w.dst, s)
	}
	w.dst = append(w.dst, ']')
}
