package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Changes of parts of JSON values (hard case 38). With binlog_row_value_options = PARTIAL_JSON the log has, instead of the new value of a JSON
// column, what to do to the old one (https://dev.mysql.com/doc/dev/mysql-server/latest/classJson__diff__vector.html):
//
//	operation (1)  path (length, text)  value (length, binary JSON; not of removals)  …
//
// Of the old value only the containers on the paths are taken apart. Everything else is copied as it is, so the new value has to the
// last byte what the server's has: types, digits, the order of members.

var errJSONDiff = errors.New("a change of a part of a JSON value does not fit the value")

const (
	jsonReplace = 0
	jsonInsert  = 1
	jsonRemove  = 2
)

// jsonNode is a value that may be changed: as it came, or a container that was taken apart.
type jsonNode struct {
	typ   byte
	raw   []byte // its bytes, and maybe more behind them; nil if it was taken apart
	names [][]byte
	items []*jsonNode
}

// applyJSONDiffs gives what a JSON column's value, as the log has it, is after a list of changes. It is new memory.
func applyJSONDiffs(value, diffs []byte) ([]byte, error) {
	if len(value) == 0 {
		return nil, fmt.Errorf("%w: there is none", errJSONDiff)
	}
	root := &jsonNode{typ: value[0], raw: value[1:]}
	for len(diffs) > 0 {
		op := diffs[0]
		path, rest, ok := jsonDiffPart(diffs[1:])
		if !ok || op > jsonRemove {
			return nil, errJSON(diffs)
		}
		diffs = rest
		var with *jsonNode
		if op != jsonRemove {
			var v []byte
			if v, diffs, ok = jsonDiffPart(diffs); !ok || len(v) == 0 {
				return nil, errJSON(path)
			}
			with = &jsonNode{typ: v[0], raw: v[1:]}
		}
		legs, err := parseJSONPath(string(path))
		if err != nil {
			return nil, err
		}
		if err := root.apply(op, legs, with); err != nil {
			return nil, fmt.Errorf("%w, at %s", err, path)
		}
	}
	return root.appendTo([]byte{root.kind()})
}

// jsonDiffPart takes bytes behind their length.
func jsonDiffPart(b []byte) (part, rest []byte, ok bool) {
	n, rest, ok := packedNumber(b)
	if !ok || n > uint64(len(rest)) {
		return nil, nil, false
	}
	return rest[:n], rest[n:], true
}

// jsonLeg is one step of a path: a member of an object, or an item of an array, counted from its front or its end.
type jsonLeg struct {
	name    []byte // of a member; nil of an item
	index   int
	fromEnd bool
}

// parseJSONPath reads a path as the server writes it: $.name."any name"[2][last-1].
func parseJSONPath(path string) ([]jsonLeg, error) {
	bad := fmt.Errorf("%w: path %q", errValue, path)
	rest, ok := strings.CutPrefix(path, "$")
	if !ok {
		return nil, bad
	}
	var legs []jsonLeg
	for rest != "" {
		var leg jsonLeg
		switch rest[0] {
		case '.':
			end := endOfJSONName(rest[1:])
			quoted := rest[1 : 1+end]
			if !strings.HasPrefix(quoted, `"`) {
				quoted = `"` + quoted + `"`
			}
			var name string
			if json.Unmarshal([]byte(quoted), &name) != nil {
				return nil, bad
			}
			leg.name, rest = append([]byte{}, name...), rest[1+end:]
		case '[':
			inner, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				return nil, bad
			}
			rest = after
			digits, fromEnd := strings.CutPrefix(inner, "last")
			if leg.fromEnd = fromEnd; fromEnd {
				digits = strings.TrimPrefix(digits, "-")
			}
			if digits != "" || !fromEnd {
				n, err := strconv.ParseUint(digits, 10, 31)
				if err != nil {
					return nil, bad
				}
				leg.index = int(n) //nolint:gosec // 31 bits
			}
		default:
			return nil, bad
		}
		legs = append(legs, leg)
	}
	return legs, nil
}

// endOfJSONName is where a name at the front of a path ends.
func endOfJSONName(path string) int {
	if !strings.HasPrefix(path, `"`) {
		if end := strings.IndexAny(path, ".["); end >= 0 {
			return end
		}
		return len(path)
	}
	for i := 1; i < len(path); i++ {
		switch path[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(path)
}

// apply changes what a path leads to.
func (n *jsonNode) apply(op byte, path []jsonLeg, with *jsonNode) error {
	if len(path) == 0 {
		return errJSONDiff // the server writes whole values then
	}
	for _, leg := range path[:len(path)-1] {
		at, found, err := n.find(leg)
		if err != nil {
			return err
		}
		if !found {
			return errJSONDiff
		}
		n = n.items[at]
	}
	at, found, err := n.find(path[len(path)-1])
	if err != nil {
		return err
	}
	array := n.names == nil
	switch {
	case op == jsonInsert && (array || !found):
		n.items = slices.Insert(n.items, at, with)
		if !array {
			n.names = slices.Insert(n.names, at, path[len(path)-1].name)
		}
	case op == jsonReplace && found:
		n.items[at] = with
	case op == jsonRemove && found:
		n.items = slices.Delete(n.items, at, at+1)
		if !array {
			n.names = slices.Delete(n.names, at, at+1)
		}
	default:
		return errJSONDiff
	}
	return nil
}

// find takes a container apart, and gives the place of an item or member in it: where it is, or where it would be.
func (n *jsonNode) find(leg jsonLeg) (at int, found bool, err error) {
	if err := n.open(); err != nil {
		return 0, false, err
	}
	if (leg.name != nil) != (n.names != nil) {
		return 0, false, errJSONDiff
	}
	if leg.name != nil {
		at, found = slices.BinarySearchFunc(n.names, leg.name, compareJSONNames)
		return at, found, nil
	}
	count := len(n.items)
	if leg.fromEnd {
		return max(count-1-leg.index, 0), leg.index < count, nil
	}
	return min(leg.index, count), leg.index < count, nil
}

// compareJSONNames is the order of an object's members.
func compareJSONNames(a, b []byte) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare(a, b)
}

// open takes a container apart.
func (n *jsonNode) open() error {
	if n.raw == nil {
		return nil
	}
	if n.typ > jsonLargeArray {
		return errJSONDiff
	}
	c, err := parseJSONContainer(n.typ, n.raw)
	if err != nil {
		return err
	}
	n.items = make([]*jsonNode, c.count)
	if c.object {
		n.names = make([][]byte, c.count)
	}
	for i := range c.count {
		if c.object {
			if n.names[i], err = c.name(i); err != nil {
				return err
			}
		}
		typ, v, err := c.value(i)
		if err != nil {
			return err
		}
		n.items[i] = &jsonNode{typ: typ, raw: v}
	}
	n.raw = nil
	return nil
}

// kind is the type under which the node is written: containers that were taken apart are large ones.
func (n *jsonNode) kind() byte {
	switch {
	case n.raw != nil:
		return n.typ
	case n.names != nil:
		return jsonLargeObject
	default:
		return jsonLargeArray
	}
}

// appendTo appends the value without its type.
func (n *jsonNode) appendTo(dst []byte) ([]byte, error) {
	if n.raw != nil {
		size, err := jsonSize(n.typ, n.raw)
		if err != nil {
			return dst, err
		}
		return append(dst, n.raw[:size]...), nil
	}
	const width = 4
	le, start := binary.LittleEndian, len(dst)
	dst = le.AppendUint32(dst, uint32(len(n.items))) //nolint:gosec // as many as the server's value has
	dst = le.AppendUint32(dst, 0)                    // the size
	values := len(dst) + len(n.names)*(width+2)
	place := values - start + len(n.items)*(1+width)
	for _, name := range n.names {
		dst = le.AppendUint32(dst, uint32(place))     //nolint:gosec // below the size of a value
		dst = le.AppendUint16(dst, uint16(len(name))) //nolint:gosec // the server's limit
		place += len(name)
	}
	dst = append(dst, make([]byte, len(n.items)*(1+width))...)
	for _, name := range n.names {
		dst = append(dst, name...)
	}
	for i, item := range n.items {
		entry := values + i*(1+width)
		dst[entry] = item.kind()
		if jsonInline(item.kind(), width) {
			size, err := jsonSize(item.typ, item.raw)
			if err != nil {
				return dst, err
			}
			copy(dst[entry+1:entry+1+width], item.raw[:size])
			continue
		}
		le.PutUint32(dst[entry+1:], uint32(len(dst)-start)) //nolint:gosec // below the size of a value
		var err error
		if dst, err = item.appendTo(dst); err != nil {
			return dst, err
		}
	}
	le.PutUint32(dst[start+width:], uint32(len(dst)-start)) //nolint:gosec // below the size of a value
	return dst, nil
}
