// Package patch keeps the state documents of connectors: JSON that each checkpoint changes by a merge patch (RFC 7396).
package patch

import (
	"bytes"
	"fmt"

	flowpb "github.com/sluicedata/sluice/protocol/flow"

	"github.com/sluicedata/sluice/runtime/jsonscan"
)

// Empty is the state of a task that never ran. The base of the first patch is this, never null: a first patch that
// contains a null would otherwise be kept as it is.
const Empty = "{}"

// Reduce returns the state after an update by a connector, in new memory. A nil or empty update changes nothing; one
// without merge_patch replaces the whole state. It fails on updates that are not JSON.
func Reduce(state []byte, update *flowpb.ConnectorState) ([]byte, error) {
	text := jsonscan.Trim(update.GetUpdatedJson())
	if len(text) == 0 {
		return state, nil
	}
	if !jsonscan.Valid(text) {
		return nil, fmt.Errorf("reading the connector's state: it is not JSON: %.60q", text)
	}
	base := state
	if !update.MergePatch || len(jsonscan.Trim(base)) == 0 {
		base = []byte(Empty)
	}
	return Merge(nil, base, text), nil
}

// Merge appends the result of applying a merge patch to a target. Both must be valid JSON.
func Merge(dst, target, patch []byte) []byte {
	if jsonscan.Kind(patch) != '{' {
		return append(dst, jsonscan.Trim(patch)...)
	}
	changes := members(patch)
	dst = append(dst, '{')
	first := true
	name := func(key []byte) {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(append(append(dst, '"'), key...), '"', ':')
	}
	old := jsonscan.NewMembers(target)
	for {
		key, value, ok := old.Next()
		if !ok {
			break
		}
		change := take(changes, key)
		switch {
		case change == nil:
			name(key)
			dst = append(dst, value...)
		case !jsonscan.IsNull(change):
			name(key)
			dst = Merge(dst, value, change)
		}
	}
	for _, c := range changes {
		if !c.taken && !jsonscan.IsNull(c.value) {
			name(c.key)
			dst = Merge(dst, nil, c.value)
		}
	}
	return append(dst, '}')
}

type member struct {
	key, value []byte
	taken      bool
}

// members lists an object's members; of a name that comes twice the last one counts.
func members(object []byte) []member {
	var list []member
	it := jsonscan.NewMembers(object)
	for {
		key, value, ok := it.Next()
		if !ok {
			return list
		}
		take(list, key)
		list = append(list, member{key: key, value: value})
	}
}

func take(list []member, key []byte) []byte {
	for i := range list {
		if !list[i].taken && bytes.Equal(jsonscan.Name(list[i].key), jsonscan.Name(key)) {
			list[i].taken = true
			return list[i].value
		}
	}
	return nil
}
