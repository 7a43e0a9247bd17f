// Package jsonschema reads JSON Schemas of all drafts as descriptions of the values that follow them.
package jsonschema

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/source-kafka/internal/codec/jsontype"
)

// Text is the text of one schema under the address that others refer to it by.
type Text struct {
	Name, Schema string
}

// Convert describes the values that follow a schema: their types, members, elements and alternatives, with titles and formats.
// What else a schema can say (patterns, bounds, required members, no other members) is left out: the description is then
// true of more values, and stays true when a later version says less. So it does not matter which draft the schema is
// written in. What it refers to is in refs; a reference that leads nowhere describes any value. Errors are phrases about the
// schema, for people.
func Convert(text string, refs []Text) (*jsontype.Document, error) {
	c := converter{
		doc: &jsontype.Document{Defs: map[string]*jsontype.Node{}}, files: map[string]any{}, ids: map[string]string{},
	}
	for _, r := range append([]Text{{Schema: text}}, refs...) {
		var v any
		if err := json.Unmarshal([]byte(r.Schema), &v); err != nil {
			return nil, fmt.Errorf("its text is no JSON: %w", err)
		}
		switch v := v.(type) {
		case bool:
		case map[string]any:
			if id := text1(v, "$id", "id"); id != "" {
				c.ids[strings.TrimSuffix(id, "#")] = r.Name
			}
		default:
			return nil, errors.New("it is neither an object nor a boolean")
		}
		c.files[r.Name] = v
	}
	root, err := c.node(c.files[""], "", 0)
	if err != nil {
		return nil, err
	}
	c.doc.Root = root
	return c.doc, nil
}

type converter struct {
	doc   *jsontype.Document
	files map[string]any    // by the name of the reference; "" is the schema itself
	ids   map[string]string // the name by the schema's own address
}

const maxDepth = 500

// text1 is the first of the members that is a text.
func text1(v map[string]any, names ...string) string {
	for _, n := range names {
		if s, ok := v[n].(string); ok {
			return s
		}
	}
	return ""
}

// node describes the schema v of a file.
func (c *converter) node(v any, file string, depth int) (*jsontype.Node, error) {
	if depth > maxDepth {
		return nil, errors.New("it is nested too deep")
	}
	m, ok := v.(map[string]any)
	if !ok {
		return &jsontype.Node{}, nil // true, and what is none
	}
	if ref, ok := m["$ref"].(string); ok {
		return c.ref(ref, file, text1(m, "description"), depth)
	}
	n := &jsontype.Node{
		Types: types(m["type"]), Title: text1(m, "title"), Description: text1(m, "description"),
		Format: text1(m, "format"), Encoding: text1(m, "contentEncoding"),
	}
	if !slices.Contains(n.Types, "string") {
		n.Format, n.Encoding = "", ""
	}
	if err := c.parts(n, m, file, depth); err != nil {
		return nil, err
	}
	for _, word := range []string{"anyOf", "oneOf"} {
		if err := c.alternatives(n, m[word], file, depth); err != nil {
			return nil, err
		}
	}
	all, _ := m["allOf"].([]any)
	for _, part := range all {
		p, err := c.node(part, file, depth+1)
		if err != nil {
			return nil, err
		}
		c.and(n, p)
	}
	return n, nil
}

// parts describes what objects and arrays hold.
func (c *converter) parts(n *jsontype.Node, m map[string]any, file string, depth int) error {
	props, _ := m["properties"].(map[string]any)
	for _, name := range order(props) {
		p, err := c.node(props[name], file, depth+1)
		if err != nil {
			return fmt.Errorf("property %q: %w", name, err)
		}
		n.Props = append(n.Props, jsontype.Prop{Name: name, Node: p})
	}
	if values, ok := m["additionalProperties"].(map[string]any); ok && len(props) == 0 && m["patternProperties"] == nil {
		var err error
		if n.Values, err = c.node(values, file, depth+1); err != nil {
			return err
		}
	}
	// A list of schemas, an older draft's tuple, describes each element on its own.
	if items, ok := m["items"].(map[string]any); ok && m["prefixItems"] == nil {
		var err error
		if n.Items, err = c.node(items, file, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// order sorts members as Connect's serializers number them, and then by name: a JSON object has no order.
func order(props map[string]any) []string {
	names := make([]string, 0, len(props))
	for name := range props {
		names = append(names, name)
	}
	index := func(name string) int {
		m, _ := props[name].(map[string]any)
		if i, ok := m["connect.index"].(float64); ok {
			return int(i)
		}
		return 1 << 30
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := index(a) - index(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return names
}

// alternatives adds anyOf or oneOf. Alternatives that only say more about members of the same object become no alternatives.
func (c *converter) alternatives(n *jsontype.Node, v any, file string, depth int) error {
	list, _ := v.([]any)
	if len(list) == 0 {
		return nil
	}
	var all []*jsontype.Node
	for _, a := range list {
		p, err := c.node(a, file, depth+1)
		if err != nil {
			return err
		}
		all = append(all, p)
	}
	if len(n.Types) > 0 || len(n.Props) > 0 || len(n.AnyOf) > 0 {
		return nil // what stands beside it is true already
	}
	if len(all) == 1 {
		n.AnyOf = nil
		c.and(n, all[0])
		return nil
	}
	n.AnyOf = all
	return nil
}

// and adds what another schema says of the same value.
func (c *converter) and(n, more *jsontype.Node) {
	more = c.doc.Follow(more)
	if more == nil {
		return
	}
	if len(n.Types) == 0 {
		n.Types = more.Types
	}
	if n.Title == "" {
		n.Title = more.Title
	}
	if n.Description == "" {
		n.Description = more.Description
	}
	if n.Format == "" && slices.Equal(n.Types, more.Types) {
		n.Format, n.Encoding = more.Format, more.Encoding
	}
	if n.Items == nil {
		n.Items = more.Items
	}
	if n.Values == nil && len(n.Props) == 0 {
		n.Values = more.Values
	}
	if len(n.AnyOf) == 0 && len(n.Types) == 0 {
		n.AnyOf = more.AnyOf
	}
	for _, p := range more.Props {
		if !slices.ContainsFunc(n.Props, func(o jsontype.Prop) bool { return o.Name == p.Name }) {
			n.Props = append(n.Props, p)
		}
	}
}

// ref follows a reference within the file or to another one, to a definition of its own.
func (c *converter) ref(ref, file, description string, depth int) (*jsontype.Node, error) {
	target, fragment, _ := strings.Cut(ref, "#")
	if target != "" {
		other, ok := c.find(target, file)
		if !ok {
			return &jsontype.Node{Description: description}, nil
		}
		file = other
	}
	name := strings.TrimPrefix(file+"#"+fragment, "#")
	for _, prefix := range []string{"/definitions/", "/$defs/"} {
		if file == "" && strings.HasPrefix(fragment, prefix) {
			name = fragment[len(prefix):]
		}
	}
	if name == "" {
		name = "root"
	}
	n := &jsontype.Node{Ref: name, Description: description}
	if _, ok := c.doc.Defs[name]; ok {
		return n, nil
	}
	v, ok := c.lookup(c.files[file], fragment)
	if !ok {
		return &jsontype.Node{Description: description}, nil
	}
	def := &jsontype.Node{}
	c.doc.Defs[name] = def // before it is read: it may refer to itself
	read, err := c.node(v, file, depth+1)
	if err != nil {
		return nil, err
	}
	*def = *read
	return n, nil
}

// find is the name of the file that an address leads to, seen from another file.
func (c *converter) find(target, from string) (string, bool) {
	if _, ok := c.files[target]; ok {
		return target, true
	}
	if name, ok := c.ids[target]; ok {
		return name, true
	}
	for id, name := range c.ids {
		if name != from {
			continue
		}
		base, err := url.Parse(id)
		if err != nil {
			continue
		}
		full, err := base.Parse(target)
		if err != nil {
			continue
		}
		if other, ok := c.ids[full.String()]; ok {
			return other, true
		}
	}
	return "", false
}

// lookup walks a JSON pointer, or finds an anchor.
func (c *converter) lookup(v any, fragment string) (any, bool) {
	if fragment == "" {
		return v, true
	}
	if !strings.HasPrefix(fragment, "/") {
		return anchor(v, fragment, 0)
	}
	if plain, err := url.PathUnescape(fragment); err == nil {
		fragment = plain
	}
	for _, token := range jsonscan.SplitPointer(fragment) {
		switch in := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = in[token]; !ok {
				return nil, false
			}
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(in) {
				return nil, false
			}
			v = in[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// anchor finds the schema that is named by $anchor, or by "#name" in older drafts.
func anchor(v any, name string, depth int) (any, bool) {
	if depth > maxDepth {
		return nil, false
	}
	switch v := v.(type) {
	case map[string]any:
		if text1(v, "$anchor") == name || text1(v, "$id", "id") == "#"+name {
			return v, true
		}
		for _, inner := range v {
			if found, ok := anchor(inner, name, depth+1); ok {
				return found, true
			}
		}
	case []any:
		for _, inner := range v {
			if found, ok := anchor(inner, name, depth+1); ok {
				return found, true
			}
		}
	}
	return nil, false
}

// types are the types of a schema; none if it does not say, or says one that does not exist.
func types(v any) []string {
	var names []string
	switch v := v.(type) {
	case string:
		names = []string{v}
	case []any:
		for _, t := range v {
			s, ok := t.(string)
			if !ok {
				return nil // draft 3 had schemas here
			}
			names = append(names, s)
		}
	}
	for _, n := range names {
		switch n {
		case "string", "integer", "number", "boolean", "object", "array", "null":
		default:
			return nil
		}
	}
	return names
}
