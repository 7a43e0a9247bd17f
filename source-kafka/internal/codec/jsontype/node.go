// Package jsontype describes JSON values as the decoders make them, and writes the description as a JSON schema.
package jsontype

import (
	"slices"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/schema"
)

// Node describes one value. The zero value is any value.
type Node struct {
	// Types are JSON types; none means any value unless Ref or AnyOf say more.
	Types []string
	// Format and Encoding narrow strings: "date-time"; "base64".
	Format, Encoding string
	// Decimal bounds the digits of strings that are numbers; the zero value means no bound.
	Decimal schema.Decimal
	// Title and Description are for people.
	Title, Description string
	// Props are the members of objects, in order. Others may come: a later version of the schema may add some.
	Props []Prop
	// Values are the members of an object whose names are data, Items the elements of an array.
	Values, Items *Node
	// AnyOf are alternatives.
	AnyOf []*Node
	// Ref is the name of a definition that describes the value; the node then says nothing else but Description.
	Ref string
}

// Prop is one member of an object.
type Prop struct {
	Name string
	Node *Node
	// Required tells that it is in every object.
	Required bool
}

// Document is a description with its definitions.
type Document struct {
	Root *Node
	// Defs are definitions by the names that nodes refer to them.
	Defs map[string]*Node
}

// Of is a node of one type.
func Of(types ...string) *Node { return &Node{Types: types} }

// OrNull is n, or null.
func OrNull(n *Node) *Node {
	switch {
	case n.Ref != "":
		return &Node{AnyOf: []*Node{n, Of("null")}}
	case len(n.AnyOf) > 0:
		c := *n
		c.AnyOf = append(slices.Clip(n.AnyOf), Of("null"))
		return &c
	case len(n.Types) == 0 || slices.Contains(n.Types, "null"):
		return n
	default:
		c := *n
		c.Types = append(slices.Clip(n.Types), "null")
		return &c
	}
}

// Follow resolves references.
func (d *Document) Follow(n *Node) *Node {
	for range len(d.Defs) + 1 {
		if n.Ref == "" {
			return n
		}
		n = d.Defs[n.Ref]
	}
	return n
}

// Keys are pointers to the scalars that together identify a value: "" if it is itself a scalar. They are nil if any part of
// it cannot be in a key, because it may be missing or null, has more than one type, or is a float, an array or a map: without
// that part two values would be taken for one.
func (d *Document) Keys() []string {
	keys, ok := d.keys(d.Root, "", nil, map[string]bool{})
	if !ok || len(keys) == 0 {
		return nil
	}
	return keys
}

func (d *Document) keys(n *Node, at string, keys []string, on map[string]bool) ([]string, bool) {
	if n.Ref != "" {
		if on[n.Ref] {
			return nil, false
		}
		on[n.Ref] = true
		defer delete(on, n.Ref)
		n = d.Follow(n)
	}
	if len(n.AnyOf) > 0 || len(n.Types) != 1 {
		return nil, false
	}
	switch n.Types[0] {
	case "string", "integer", "boolean":
		return append(keys, at), true
	case "object":
		if n.Values != nil {
			return nil, false
		}
		for _, p := range n.Props {
			var ok bool
			if !p.Required {
				return nil, false
			}
			if keys, ok = d.keys(p.Node, jsonscan.JoinPointer(at, p.Name), keys, on); !ok {
				return nil, false
			}
		}
		return keys, true
	default:
		return nil, false
	}
}

// Members are the names of all members that the value has, if it is always an object whose members are known.
func (d *Document) Members() (names []string, object bool) {
	n := d.Follow(d.Root)
	if len(n.AnyOf) > 0 || len(n.Types) != 1 || n.Types[0] != "object" {
		return nil, false
	}
	if n.Values != nil {
		return nil, true
	}
	names = make([]string, 0, len(n.Props))
	for _, p := range n.Props {
		names = append(names, p.Name)
	}
	return names, true
}
