package jsonscan

import (
	"strconv"
	"strings"
)

// Pointers looks up a fixed set of JSON pointers in one walk over a document. It is immutable and may be used by
// any number of goroutines.
type Pointers struct {
	root *pointerNode
	n    int
}

type pointerNode struct {
	slots    []int                   // of the pointers that end here
	children map[string]*pointerNode // by member name, or index in an array
	spell    string                  // the name, to compare without a map look-up
	only     *pointerNode            // set if there is just one child
	inside   int                     // how many pointers end here or below
}

// NewPointers compiles pointers (RFC 6901; "" is the whole document).
func NewPointers(pointers []string) *Pointers {
	p := &Pointers{root: &pointerNode{}, n: len(pointers)}
	for slot, ptr := range pointers {
		node := p.root
		node.inside++
		for _, token := range SplitPointer(ptr) {
			child := node.children[token]
			if child == nil {
				if node.children == nil {
					node.children = map[string]*pointerNode{}
				}
				child = &pointerNode{spell: token}
				node.children[token] = child
			}
			child.inside++
			node = child
		}
		node.slots = append(node.slots, slot)
	}
	p.root.finish()
	return p
}

func (n *pointerNode) finish() {
	for _, child := range n.children {
		child.finish()
		if len(n.children) == 1 {
			n.only = child
		}
	}
}

// Len is the number of pointers.
func (p *Pointers) Len() int { return p.n }

// Find sets values[i] to the value at pointer i, aliasing doc, or to nil where there is none. values must have Len
// elements.
func (p *Pointers) Find(doc []byte, values [][]byte) {
	clear(values)
	p.root.find(doc, values)
}

func (n *pointerNode) find(value []byte, values [][]byte) {
	for _, slot := range n.slots {
		values[slot] = value
	}
	if len(n.children) == 0 {
		return
	}
	switch Kind(value) {
	case '{':
		n.findMembers(value, values)
	case '[':
		n.findElements(value, values)
	}
}

func (n *pointerNode) findMembers(object []byte, values [][]byte) {
	members := NewMembers(object)
	left := n.inside - len(n.slots)
	for left > 0 {
		key, value, ok := members.Next()
		if !ok {
			return
		}
		if child := n.child(key); child != nil {
			child.find(value, values)
			left -= child.inside
		}
	}
}

func (n *pointerNode) child(key []byte) *pointerNode {
	key = Name(key)
	if n.only != nil {
		if string(key) == n.only.spell {
			return n.only
		}
		return nil
	}
	return n.children[string(key)]
}

func (n *pointerNode) findElements(array []byte, values [][]byte) {
	elements := NewElements(array)
	for i := 0; ; i++ {
		value, ok := elements.Next()
		if !ok {
			return
		}
		if child := n.children[strconv.Itoa(i)]; child != nil {
			child.find(value, values)
		}
	}
}

// SplitPointer returns the unescaped tokens of a JSON pointer.
func SplitPointer(ptr string) []string {
	if ptr == "" {
		return nil
	}
	tokens := strings.Split(strings.TrimPrefix(ptr, "/"), "/")
	for i, token := range tokens {
		tokens[i] = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
	}
	return tokens
}

// JoinPointer appends one token to a pointer, escaping it.
func JoinPointer(ptr, token string) string {
	return ptr + "/" + strings.ReplaceAll(strings.ReplaceAll(token, "~", "~0"), "/", "~1")
}
