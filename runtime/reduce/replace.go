package reduce

import "github.com/sluicedata/sluice/sdk/jsonscan"

// Replaces tells whether the value that a newer document has at a location takes the place of whatever an older one has there,
// always. It says no where that depends on more than annotations.
func (p *Plan) Replaces(pointer string) bool {
	at := []*node{p.root}
	for _, token := range jsonscan.SplitPointer(pointer) {
		by, ok := certain(at)
		switch {
		case !ok:
			return false
		case by == unset || by == lastWriteWins:
			return true
		case by != merge:
			return false
		}
		if at, ok = below(at, token); !ok {
			return false
		}
	}
	by, ok := certain(at)
	return ok && (by == unset || by == lastWriteWins)
}

// certain is the strategy of some schemas at one location; false if it depends on the value.
func certain(active []*node) (strategy, bool) {
	by := unset
	for _, n := range active {
		for i := range n.conds {
			if !n.conds[i].marks {
				return unset, false
			}
		}
		if n.strategy != unset {
			by = n.strategy
		}
	}
	return by, true
}

// below lists the schemas of a member; false if the location may be an array, whose elements have others.
func below(active []*node, member string) (list []*node, ok bool) {
	for _, n := range active {
		if n.items != nil {
			return nil, false
		}
		if child := n.props[member]; child != nil {
			list = append(list, child)
		} else if n.others != nil {
			list = append(list, n.others)
		}
	}
	return list, true
}

// TellsCreation tells whether the location of Mark says of a document if it is the first of its key, as change captures do: the schema
// lists "c" among the values there. Created asks for it.
func (p *Plan) TellsCreation() bool { return p.mark.created }

// Created tells what a document says that has value at the location of Mark: that its key is new. It may be wrong: what a capture
// reads again, it calls created again.
func (p *Plan) Created(value []byte) bool {
	return p.mark.created && equals{[]byte(createdValue)}.holds(value)
}

const createdValue = `"c"`

// lists tells whether the enumeration of a schema's location, reached by properties alone, has a value.
func lists(schema any, pointer, value string) bool {
	for _, token := range jsonscan.SplitPointer(pointer) {
		object, _ := schema.(map[string]any)
		properties, _ := object["properties"].(map[string]any)
		schema = properties[token]
	}
	object, _ := schema.(map[string]any)
	values, _ := object["enum"].([]any)
	for _, v := range values {
		if string(encode(v)) == value {
			return true
		}
	}
	return false
}
