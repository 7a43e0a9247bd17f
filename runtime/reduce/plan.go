// Package reduce combines documents of one key, as the "reduce" annotations of their collection's JSON schema say.
//
// The documents are texts and stay texts: a merge walks both and copies slices, so the common case (a database row
// of which every column is replaced) costs a scan and one copy. What the strategies mean is the public documentation
// of Flow's schema annotations; conditions (if/then/else, anyOf, oneOf) are decided on the newer document.
package reduce

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"sort"
	"strings"

	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// Strategy names one way of reducing two values.
type strategy uint8

const (
	unset strategy = iota // no annotation: the last write wins
	lastWriteWins
	firstWriteWins
	merge
	appendArrays
	sum
	minimize
	maximize
)

var strategies = map[string]strategy{ //nolint:gochecknoglobals // a lookup table
	"lastWriteWins": lastWriteWins, "firstWriteWins": firstWriteWins, "merge": merge, "append": appendArrays,
	"sum": sum, "minimize": minimize, "maximize": maximize,
}

// A Plan is a schema's annotations, compiled. It is immutable and may be used by any number of goroutines, each
// with its own Merger.
type Plan struct {
	root *node
	mark mark
}

// A node is what one schema says about one location.
type node struct {
	strategy strategy
	deletes  bool
	key      []string // pointers, for minimize, maximize and merge of arrays
	props    map[string]*node
	others   *node // additionalProperties
	items    *node
	conds    []cond
	done     bool // it is compiled; until then it is part of a recursion
}

// A cond adds the annotations of another schema if its predicate holds of the newer value.
type cond struct {
	when      predicate // nil is always
	then, els *node     // either may be nil
	// marks: what it adds changes no reduction, and only tells that a document is a deletion.
	marks bool
}

// Compile reads the annotations of a schema. It fails on a strategy that does not exist or that this runtime does
// not have, naming it and where it stands.
func Compile(schema []byte) (*Plan, error) {
	dec := json.NewDecoder(bytes.NewReader(schema))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	c := &compiler{doc: doc, nodes: map[string]*node{}}
	root, err := c.node("", "", doc)
	if err != nil {
		return nil, err
	}
	p := &Plan{root: root, mark: root.findMark()}
	p.mark.created = p.mark.pointer != "" && lists(doc, p.mark.pointer, createdValue)
	return p, nil
}

type compiler struct {
	doc      any
	nodes    map[string]*node // by the schema's place and the kind of location, so that recursive schemas end
	external *external
}

// node compiles the schema at place (a pointer into the document) for a location of the data. location is "" for
// the root and anything else below it: a delete annotation has a meaning only at the root.
func (c *compiler) node(place, location string, schema any) (*node, error) {
	memo := place + "\x00"
	if location == "" {
		memo += "root"
	}
	if n := c.nodes[memo]; n != nil {
		return n, nil
	}
	n := &node{}
	c.nodes[memo] = n
	object, ok := schema.(map[string]any)
	if !ok {
		return n, nil
	}
	for _, step := range []func(*node, string, string, map[string]any) error{
		c.annotation, c.children, c.combined, c.conditional,
	} {
		if err := step(n, place, location, object); err != nil {
			return nil, err
		}
	}
	n.done = true
	return n, nil
}

func (c *compiler) annotation(n *node, place, location string, schema map[string]any) error {
	annotation, ok := schema["reduce"].(map[string]any)
	if !ok {
		return nil
	}
	name, _ := annotation["strategy"].(string)
	if n.strategy, ok = strategies[name]; !ok {
		return fmt.Errorf("the schema asks for the reduction strategy %q at %s, which is not supported: the choices are %s",
			name, orRoot(place), strings.Join(strategyNames(), ", "))
	}
	n.deletes, _ = annotation["delete"].(bool)
	if n.deletes && location != "" {
		return fmt.Errorf(`the schema's reduction at %s has "delete", which is supported only for whole documents`, orRoot(place))
	}
	keys, _ := annotation["key"].([]any)
	for _, k := range keys {
		if s, ok := k.(string); ok {
			n.key = append(n.key, s)
		}
	}
	return nil
}

func (c *compiler) children(n *node, place, location string, schema map[string]any) (err error) {
	props, _ := schema["properties"].(map[string]any)
	for name, sub := range props {
		if n.props == nil {
			n.props = map[string]*node{}
		}
		at := jsonscan.JoinPointer(place+"/properties", name)
		if n.props[name], err = c.node(at, location+"/"+name, sub); err != nil {
			return err
		}
	}
	if sub, ok := schema["additionalProperties"].(map[string]any); ok {
		if n.others, err = c.node(place+"/additionalProperties", location+"/*", sub); err != nil {
			return err
		}
	}
	if n.others == nil {
		maps.DeleteFunc(n.props, func(_ string, child *node) bool { return child.done && child.empty() }) // most columns have nothing to say
	}
	if sub, ok := schema["items"].(map[string]any); ok {
		if n.items, err = c.node(place+"/items", location+"/*", sub); err != nil {
			return err
		}
	}
	return nil
}

// combined handles $ref and allOf, whose schemas hold always, and anyOf and oneOf, whose schemas hold if the value
// is valid against them.
func (c *compiler) combined(n *node, place, location string, schema map[string]any) error {
	if ref, ok := schema["$ref"].(string); ok {
		at, target, err := c.resolve(ref)
		if err != nil {
			return err
		}
		then, err := c.node(at, location, target)
		if err != nil {
			return err
		}
		n.conds = append(n.conds, cond{then: then})
	}
	for _, keyword := range []string{"allOf", "anyOf", "oneOf"} {
		list, _ := schema[keyword].([]any)
		for i, sub := range list {
			at := fmt.Sprintf("%s/%s/%d", place, keyword, i)
			then, err := c.node(at, location, sub)
			if err != nil {
				return err
			}
			if then.empty() {
				continue
			}
			var when predicate
			if keyword != "allOf" {
				if when, err = c.predicate(at, sub); err != nil {
					return err
				}
			}
			n.conds = append(n.conds, cond{when: when, then: then})
		}
	}
	return nil
}

func (c *compiler) conditional(n *node, place, location string, schema map[string]any) error {
	test, ok := schema["if"]
	if !ok {
		return nil
	}
	var branch cond
	for keyword, dst := range map[string]**node{"then": &branch.then, "else": &branch.els} {
		sub, ok := schema[keyword]
		if !ok {
			continue
		}
		compiled, err := c.node(place+"/"+keyword, location, sub)
		if err != nil {
			return err
		}
		if !compiled.empty() {
			*dst = compiled
		}
	}
	if branch.then == nil && branch.els == nil {
		return nil
	}
	var err error
	branch.marks = n.marks(branch.then) && n.marks(branch.els)
	branch.when, err = c.predicate(place+"/if", test)
	n.conds = append(n.conds, branch)
	return err
}

// marks tells whether a branch adds nothing to how n's own values are reduced. It must be asked before n has other conditions that
// do: the last annotation counts.
func (n *node) marks(branch *node) bool {
	if branch == nil {
		return true
	}
	plain := branch.done && len(branch.key) == 0 && branch.others == nil && branch.items == nil && len(branch.props) == 0 && len(branch.conds) == 0
	return plain && len(n.conds) == 0 && (branch.strategy == unset || branch.strategy == n.strategy && len(n.key) == 0)
}

// resolve finds the schema of a reference within the document.
func (c *compiler) resolve(ref string) (place string, schema any, err error) {
	if ref == "#" {
		return "", c.doc, nil
	}
	pointer, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return "", nil, fmt.Errorf("the schema refers to %q: only references within the schema, such as #/$defs/name, are supported", ref)
	}
	at := c.doc
	for _, token := range jsonscan.SplitPointer("/" + pointer) {
		switch v := at.(type) {
		case map[string]any:
			at, ok = v[token]
		default:
			ok = false
		}
		if !ok {
			return "", nil, fmt.Errorf("the schema refers to %q, which it does not contain", ref)
		}
	}
	return "/" + pointer, at, nil
}

// empty tells whether the node has nothing to say, so that its condition need not be evaluated.
func (n *node) empty() bool {
	return n.strategy == unset && !n.deletes && len(n.conds) == 0 && emptyAll(n.props) &&
		(n.others == nil || n.others.empty()) && (n.items == nil || n.items.empty())
}

func emptyAll(nodes map[string]*node) bool {
	for _, n := range nodes {
		// A node that is still being compiled looks empty here; it then is part of a recursion through this very
		// schema, and the other members decide.
		if !n.empty() {
			return false
		}
	}
	return true
}

func strategyNames() []string {
	names := make([]string, 0, len(strategies))
	for name := range strategies {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func orRoot(place string) string {
	if place == "" {
		return "its root"
	}
	return place
}
