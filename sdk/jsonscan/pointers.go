package jsonscan

import (
	"strconv"
	"strings"
)

// Pointers looks up a fixed set of JSON pointers in one walk over a document. It remembers the order of the members that it
// met, and expects it again: so it is for one goroutine, and best for documents of one kind.
type Pointers struct {
	root *pointerNode
	n    int
	walk uint64 // how many there have been
}

type pointerNode struct {
	slots    []int                   // of the pointers that end here
	children map[string]*pointerNode // by member name, or index in an array
	inside   int                     // how many pointers end here or below
	trail    []step                  // the members of the last object, as far as they were looked at
	walk     uint64                  // the last walk that came here
}

// step is one member of an object: its key as it is written, with its quotes and the colon, and where it leads; nil if nothing below
// it is looked for.
type step struct {
	key  []byte
	node *pointerNode
}

// What is remembered of one object is bounded, since its keys may be data.
const (
	maxTrail = 2000 // members
	maxKey   = 256  // bytes
)

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
				child = &pointerNode{}
				node.children[token] = child
			}
			child.inside++
			node = child
		}
		node.slots = append(node.slots, slot)
	}
	return p
}

// Len is the number of pointers.
func (p *Pointers) Len() int { return p.n }

// Find sets values[i] to the value at pointer i, aliasing doc, or to nil where there is none. values must have Len
// elements. It allocates nothing for a document whose members come in the order of the one before. Of members of one name the first
// counts, since the walk ends where all is found.
func (p *Pointers) Find(doc []byte, values [][]byte) {
	clear(values)
	p.walk++
	p.root.find(doc, values, p.walk)
}

func (n *pointerNode) find(value []byte, values [][]byte, walk uint64) {
	for _, slot := range n.slots {
		values[slot] = value
	}
	if len(n.children) == 0 {
		return
	}
	switch Kind(value) {
	case '{':
		n.findMembers(value, values, walk)
	case '[':
		n.findElements(value, values, walk)
	}
}

func (n *pointerNode) findMembers(object []byte, values [][]byte, walk uint64) {
	members := NewMembers(object)
	left := n.inside - len(n.slots)
	for i := 0; left > 0; i++ {
		child, ok := n.child(i, &members)
		switch {
		case !ok:
			return
		case child == nil || child.walk == walk:
			members.value()
			continue
		}
		child.walk = walk
		if child.inside == left && len(child.slots) == 0 {
			child.find(members.text[members.pos:], values, walk) // nothing behind it is looked for, so its end does not matter
			return
		}
		child.find(members.value(), values, walk)
		left -= child.inside
	}
}

// child goes to the value of an object's i-th member, and returns where that leads; false if there is none.
func (n *pointerNode) child(i int, members *Members) (*pointerNode, bool) {
	if i < len(n.trail) && members.expect(n.trail[i].key) {
		return n.trail[i].node, true
	}
	key, ok := members.key()
	if !ok {
		return nil, false
	}
	child := n.children[string(Name(key))]
	switch {
	case len(key) > maxKey:
	case i < len(n.trail):
		n.trail[i] = step{appendKey(n.trail[i].key[:0], key), child}
	case i == len(n.trail) && i < maxTrail:
		n.trail = append(n.trail, step{appendKey(nil, key), child})
	}
	return child, true
}

// appendKey appends a member's key as expect takes it.
func appendKey(dst, key []byte) []byte { return append(append(append(dst, '"'), key...), '"', ':') }

func (n *pointerNode) findElements(array []byte, values [][]byte, walk uint64) {
	elements := NewElements(array)
	for i := 0; ; i++ {
		value, ok := elements.Next()
		if !ok {
			return
		}
		if child := n.children[strconv.Itoa(i)]; child != nil {
			child.find(value, values, walk)
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
