package reduce

import (
	"bytes"
	"fmt"
	"math/big"
	"sort"
	"strings"

	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// A Merger reduces documents by a plan. It keeps scratch memory and is for one goroutine.
type Merger struct {
	plan  *Plan
	stack []member // members of the objects on the way down; a stack, so that nested merges share it
}

type member struct {
	name  string // only where members are sorted
	key   []byte // as written, without quotes
	value []byte
	taken bool
}

// NewMerger returns a Merger for the plan.
func (p *Plan) NewMerger() *Merger { return &Merger{plan: p} }

// Merge appends the reduction of an older (left) and a newer (right) document. It keeps no reference to either.
// It fails if a strategy does not fit the values, naming both.
func (m *Merger) Merge(dst, left, right []byte) ([]byte, error) {
	var buf [8]*node
	m.stack = m.stack[:0]
	return m.value(dst, left, right, expand(buf[:0], m.plan.root, right, false))
}

// expand appends the node and all that apply to the value by its conditions, in the order of the schema; those that only mark
// deletions if they are asked for.
func expand(active []*node, n *node, value []byte, marks bool) []*node {
	if n == nil {
		return active
	}
	active = append(active, n)
	for i := range n.conds {
		c := &n.conds[i]
		switch {
		case c.marks && !marks:
		case c.when == nil || c.when.holds(value):
			active = expand(active, c.then, value, marks)
		default:
			active = expand(active, c.els, value, marks)
		}
	}
	return active
}

// value reduces two values under the schemas that are active at their location.
func (m *Merger) value(dst, left, right []byte, active []*node) ([]byte, error) {
	by := unset
	var key []string
	for _, n := range active {
		if n.strategy != unset {
			by, key = n.strategy, n.key
		}
	}
	switch by {
	case unset, lastWriteWins:
		return append(dst, right...), nil
	case firstWriteWins:
		return append(dst, left...), nil
	case merge:
		return m.merge(dst, left, right, active, key)
	case appendArrays:
		return concat(dst, left, right)
	case sum:
		return add(dst, left, right)
	case minimize, maximize:
		return m.extreme(dst, left, right, active, key, by)
	}
	return dst, fmt.Errorf("reducing by strategy %d: it does not exist", by)
}

func (m *Merger) merge(dst, left, right []byte, active []*node, key []string) ([]byte, error) {
	kind := jsonscan.Kind(right)
	switch {
	case kind != jsonscan.Kind(left):
		return append(dst, right...), nil
	case kind == '{':
		return m.objects(dst, left, right, active)
	case kind == '[' && len(key) > 0:
		return m.sortedArrays(dst, left, right, active, key)
	case kind == '[':
		return m.arrays(dst, left, right, active)
	}
	return append(dst, right...), nil
}

// objects merges member by member: first the older object's members in their order, then what is new.
func (m *Merger) objects(dst, left, right []byte, active []*node) ([]byte, error) {
	base := len(m.stack)
	m.push(left)
	mid := len(m.stack)
	m.push(right)
	end := len(m.stack)
	defer func() { m.stack = m.stack[:base] }()

	dst = append(dst, '{')
	first := true
	guess := mid // documents of one collection mostly have the same members in the same order
	var err error
	for i := base; i < mid; i++ {
		old := m.stack[i]
		dst = appendName(dst, old.key, &first)
		j := m.find(old.key, mid, guess, end)
		if j < 0 {
			dst = append(dst, old.value...)
			continue
		}
		guess = j + 1
		m.stack[j].taken = true
		if dst, err = m.child(dst, old.key, old.value, m.stack[j].value, active); err != nil {
			return dst, err
		}
	}
	for j := mid; j < end; j++ {
		if !m.stack[j].taken {
			dst = append(appendName(dst, m.stack[j].key, &first), m.stack[j].value...)
		}
	}
	return append(dst, '}'), nil
}

// child reduces one member of two objects.
func (m *Merger) child(dst, key, left, right []byte, active []*node) ([]byte, error) {
	var buf [8]*node
	below := buf[:0]
	name := jsonscan.Name(key)
	for _, n := range active {
		if child := n.props[string(name)]; child != nil {
			below = expand(below, child, right, false)
		} else if n.others != nil {
			below = expand(below, n.others, right, false)
		}
	}
	if len(below) == 0 {
		return append(dst, right...), nil
	}
	dst, err := m.value(dst, left, right, below)
	if err != nil {
		return dst, fmt.Errorf("%s: %w", name, err)
	}
	return dst, nil
}

func (m *Merger) push(object []byte) {
	members := jsonscan.NewMembers(object)
	for {
		key, value, ok := members.Next()
		if !ok {
			return
		}
		m.stack = append(m.stack, member{key: key, value: value})
	}
}

func (m *Merger) find(key []byte, from, guess, to int) int {
	for j := guess; j < to; j++ {
		if sameName(m.stack[j].key, key) {
			return j
		}
	}
	for j := from; j < guess; j++ {
		if sameName(m.stack[j].key, key) {
			return j
		}
	}
	return -1
}

func sameName(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if bytes.IndexByte(a, '\\') < 0 && bytes.IndexByte(b, '\\') < 0 {
		return false
	}
	return bytes.Equal(jsonscan.Name(a), jsonscan.Name(b))
}

func appendName(dst, key []byte, first *bool) []byte {
	if !*first {
		dst = append(dst, ',')
	}
	*first = false
	dst = append(dst, '"')
	dst = append(dst, key...)
	return append(dst, '"', ':')
}

// itemsOf collects what the active schemas say of an array's elements.
func itemsOf(dst, active []*node, value []byte) []*node {
	for _, n := range active {
		if n.items != nil {
			dst = expand(dst, n.items, value, false)
		}
	}
	return dst
}

// arrays merges element by element.
func (m *Merger) arrays(dst, left, right []byte, active []*node) ([]byte, error) {
	older, newer := jsonscan.NewElements(left), jsonscan.NewElements(right)
	dst = append(dst, '[')
	var err error
	for i := 0; ; i++ {
		l, okl := older.Next()
		r, okr := newer.Next()
		if !okl && !okr {
			return append(dst, ']'), nil
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		switch {
		case !okr:
			dst = append(dst, l...)
		case !okl:
			dst = append(dst, r...)
		default:
			var buf [8]*node
			if dst, err = m.value(dst, l, r, itemsOf(buf[:0], active, r)); err != nil {
				return dst, err
			}
		}
	}
}

// sortedArrays merges two arrays that are sorted by a key, as a merge join.
func (m *Merger) sortedArrays(dst, left, right []byte, active []*node, key []string) ([]byte, error) {
	older, newer := jsonscan.NewElements(left), jsonscan.NewElements(right)
	pointers := jsonscan.NewPointers(key)
	l, okl := older.Next()
	r, okr := newer.Next()
	dst = append(dst, '[')
	var err error
	for first := true; okl || okr; first = false {
		if !first {
			dst = append(dst, ',')
		}
		var c int
		switch {
		case !okl:
			c = 1
		case !okr:
			c = -1
		default:
			c = compareBy(pointers, l, r)
		}
		switch {
		case c < 0:
			dst = append(dst, l...)
			l, okl = older.Next()
		case c > 0:
			dst = append(dst, r...)
			r, okr = newer.Next()
		default:
			var buf [8]*node
			if dst, err = m.value(dst, l, r, itemsOf(buf[:0], active, r)); err != nil {
				return dst, err
			}
			l, okl = older.Next()
			r, okr = newer.Next()
		}
	}
	return append(dst, ']'), nil
}

func (m *Merger) extreme(dst, left, right []byte, active []*node, key []string, by strategy) ([]byte, error) {
	var c int
	if len(key) == 0 {
		c = compare(left, right)
	} else {
		c = compareBy(jsonscan.NewPointers(key), left, right)
	}
	if by == maximize {
		c = -c
	}
	switch {
	case c < 0:
		return append(dst, left...), nil
	case c > 0:
		return append(dst, right...), nil
	case len(key) > 0:
		return m.merge(dst, left, right, active, nil)
	}
	return append(dst, left...), nil
}

func compareBy(key *jsonscan.Pointers, a, b []byte) int {
	va, vb := make([][]byte, key.Len()), make([][]byte, key.Len())
	key.Find(a, va)
	key.Find(b, vb)
	for i := range va {
		if c := compare(orNull(va[i]), orNull(vb[i])); c != 0 {
			return c
		}
	}
	return 0
}

func orNull(value []byte) []byte {
	if value == nil {
		return []byte("null")
	}
	return value
}

// concat appends arrays. Null is an empty array.
func concat(dst, left, right []byte) ([]byte, error) {
	for _, v := range [][]byte{left, right} {
		if k := jsonscan.Kind(v); k != '[' && k != 'n' {
			return dst, fmt.Errorf("the reduction strategy append needs arrays, but got %s", excerpt(v))
		}
	}
	if jsonscan.IsNull(left) {
		return append(dst, right...), nil
	}
	dst = append(dst, '[')
	first := true
	for _, v := range [][]byte{left, right} {
		elements := jsonscan.NewElements(v)
		for {
			e, ok := elements.Next()
			if !ok {
				break
			}
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = append(dst, e...)
		}
	}
	return append(dst, ']'), nil
}

// add sums numbers, exactly as far as both are written without an exponent. Null is nothing to add.
func add(dst, left, right []byte) ([]byte, error) {
	switch {
	case jsonscan.IsNull(left):
		return append(dst, right...), nil
	case jsonscan.IsNull(right):
		return append(dst, left...), nil
	}
	for _, v := range [][]byte{left, right} {
		if jsonscan.Kind(v) != '0' {
			return dst, fmt.Errorf("the reduction strategy sum needs numbers, but got %s", excerpt(v))
		}
	}
	total := new(big.Rat).Add(number(left), number(right))
	digits := max(decimals(left), decimals(right))
	if bytes.ContainsAny(left, "eE") || bytes.ContainsAny(right, "eE") {
		f, _ := total.Float64()
		return fmt.Appendf(dst, "%g", f), nil
	}
	return append(dst, total.FloatString(digits)...), nil
}

func decimals(value []byte) int {
	value = jsonscan.Trim(value)
	if i := bytes.IndexByte(value, '.'); i >= 0 {
		return len(value) - i - 1
	}
	return 0
}

func sortedMembers(object []byte) []member {
	var list []member
	members := jsonscan.NewMembers(object)
	for {
		key, value, ok := members.Next()
		if !ok {
			break
		}
		list = append(list, member{name: string(jsonscan.Name(key)), value: value})
	}
	sort.SliceStable(list, func(i, j int) bool { return strings.Compare(list[i].name, list[j].name) < 0 })
	return list
}

func excerpt(value []byte) string {
	if len(value) > 40 {
		return string(value[:40]) + "…"
	}
	return string(value)
}
