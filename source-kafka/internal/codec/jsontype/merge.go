package jsontype

import (
	"reflect"
	"slices"
)

// Merge describes the values that any of the documents describes, as a topic holds them that was written with several
// versions of a schema. Objects are merged member by member; a member is required if it is in all of them.
func Merge(docs ...*Document) *Document {
	if len(docs) == 0 {
		return &Document{Root: &Node{}}
	}
	all := &Document{Root: docs[0].Root, Defs: map[string]*Node{}}
	for i, d := range docs {
		for name, n := range d.Defs {
			if old, ok := all.Defs[name]; ok {
				n = merge(old, n)
			}
			all.Defs[name] = n
		}
		if i == 0 {
			continue
		}
		// Records of one topic mostly have one name; where they do not, the topic holds several kinds of values.
		all.Root = merge(all.Root, d.Root)
	}
	return all
}

// Optional is the document without required members, at any depth.
func (d *Document) Optional() *Document {
	o := &Document{Root: optional(d.Root), Defs: map[string]*Node{}}
	for name, n := range d.Defs {
		o.Defs[name] = optional(n)
	}
	return o
}

func optional(n *Node) *Node {
	if n == nil {
		return nil
	}
	c := *n
	c.Props = slices.Clone(n.Props)
	for i := range c.Props {
		c.Props[i].Required, c.Props[i].Node = false, optional(c.Props[i].Node)
	}
	c.AnyOf = slices.Clone(n.AnyOf)
	for i := range c.AnyOf {
		c.AnyOf[i] = optional(c.AnyOf[i])
	}
	c.Values, c.Items = optional(n.Values), optional(n.Items)
	return &c
}

func merge(a, b *Node) *Node {
	switch {
	case a == b || reflect.DeepEqual(a, b):
		return a
	case a.Ref != "" && a.Ref == b.Ref:
		return a
	case a.Ref == "" && b.Ref == "" && len(a.AnyOf)+len(b.AnyOf) == 0 && compatible(a, b):
		return mergeOne(a, b)
	default:
		return alternatives(a, b)
	}
}

// compatible tells whether the two can be one node without saying less.
func compatible(a, b *Node) bool {
	if len(a.Types) == 0 || len(b.Types) == 0 {
		return len(a.Types) == len(b.Types)
	}
	if nullOnly(a) || nullOnly(b) {
		return true
	}
	object := slices.Contains(a.Types, "object") && slices.Contains(b.Types, "object")
	return a.Format == b.Format && a.Encoding == b.Encoding && (a.Items == nil) == (b.Items == nil) &&
		(a.Values == nil) == (b.Values == nil) && (object || len(a.Props)+len(b.Props) == 0)
}

func nullOnly(n *Node) bool { return len(n.Types) == 1 && n.Types[0] == "null" }

func mergeOne(a, b *Node) *Node {
	if nullOnly(a) {
		a, b = b, a
	}
	m := *a
	m.Types = slices.Clone(a.Types)
	for _, t := range b.Types {
		if !slices.Contains(m.Types, t) {
			m.Types = append(m.Types, t)
		}
	}
	if nullOnly(b) {
		return &m
	}
	m.Decimal = a.Decimal.Union(b.Decimal)
	// The newer version's words count.
	if b.Title != "" {
		m.Title = b.Title
	}
	if b.Description != "" {
		m.Description = b.Description
	}
	if a.Items != nil {
		m.Items = merge(a.Items, b.Items)
	}
	if a.Values != nil {
		m.Values = merge(a.Values, b.Values)
	}
	m.Props = mergeProps(a.Props, b.Props)
	return &m
}

func mergeProps(a, b []Prop) []Prop {
	var props []Prop
	at := map[string]int{}
	for _, p := range a {
		at[p.Name] = len(props)
		props = append(props, p)
	}
	seen := map[string]bool{}
	for _, p := range b {
		seen[p.Name] = true
		i, ok := at[p.Name]
		if !ok {
			p.Required = false
			props = append(props, p)
			continue
		}
		props[i].Node = merge(props[i].Node, p.Node)
		props[i].Required = props[i].Required && p.Required
	}
	for i := range props {
		props[i].Required = props[i].Required && seen[props[i].Name]
	}
	return props
}

func alternatives(a, b *Node) *Node {
	m := &Node{}
	for _, n := range []*Node{a, b} {
		parts := []*Node{n}
		if len(n.AnyOf) > 0 && len(n.Types) == 0 {
			parts = n.AnyOf
		}
		for _, p := range parts {
			if !slices.ContainsFunc(m.AnyOf, func(o *Node) bool { return reflect.DeepEqual(o, p) }) {
				m.AnyOf = append(m.AnyOf, p)
			}
		}
	}
	return m
}
