package flowpb

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/sluicedata/sluice/protocol/internal/rawjson"
)

// ReduceState applies a connector's state update to the stored state and returns the new one: it merges if the update says so, and
// replaces the whole state if not. base is what is stored, nothing standing for {}; a nil update changes nothing.
// The base is {} and never empty, so that a first patch with nulls is applied and not stored as it is.
func ReduceState(base []byte, update *ConnectorState) ([]byte, error) {
	if len(base) == 0 {
		base = []byte("{}")
	}
	if update == nil {
		return base, nil
	}
	if err := update.Validate(); err != nil {
		return nil, fmt.Errorf("reducing state: %w", err)
	}
	if !update.GetMergePatch() {
		base = []byte("{}") // replacing is merging into nothing: nulls are dropped here as well
	}
	return MergePatch(base, update.GetUpdatedJson())
}

// MergePatch applies a JSON merge patch (RFC 7396) to a document. What the patch does not touch keeps its text and its order,
// and costs only a scan: states may hold thousands of bindings, of which a checkpoint changes one. The result does not
// alias its arguments.
func MergePatch(doc, patch []byte) ([]byte, error) {
	err := rawjson.Check(patch)
	if err == nil && len(doc) > 0 {
		err = rawjson.Check(doc)
	}
	if err != nil {
		return nil, fmt.Errorf("merging a patch of %d bytes into %d bytes: %w", len(patch), len(doc), err)
	}
	return appendMerged(make([]byte, 0, len(doc)+len(patch)), doc, patch), nil
}

// appendMerged appends doc with the patch applied. Both are valid; an empty doc is nothing.
func appendMerged(dst, doc, patch []byte) []byte {
	changes := rawjson.NewScanner(patch)
	if !changes.Accept('{') {
		return rawjson.AppendLine(dst, bytes.TrimSpace(patch))
	}
	order, values := membersOf(&changes)
	dst = append(dst, '{')
	empty := len(dst)
	name := func(key []byte) {
		if len(dst) > empty {
			dst = append(dst, ',')
		}
		dst = append(append(dst, key...), ':')
	}
	old := rawjson.NewScanner(doc)
	if old.Accept('{') {
		for key, value := range old.Members() {
			change, changed := lookUp(values, key)
			switch {
			case !changed:
				name(key)
				dst = rawjson.AppendLine(dst, value)
				continue
			case !isNull(change):
				name(key)
				dst = appendMerged(dst, value, change)
			}
			values[canonical(key)] = nil // done
		}
	}
	for _, key := range order {
		if change := values[key]; !isNull(change) {
			name([]byte(key))
			dst = appendMerged(dst, nil, change)
		}
	}
	return append(dst, '}')
}

// isNull tells whether a change removes its member; one that is done has nothing left to add.
func isNull(change []byte) bool { return change == nil || string(change) == "null" }

// lookUp does not allocate for keys without escapes.
func lookUp(values map[string][]byte, key []byte) (change []byte, ok bool) {
	if bytes.IndexByte(key, '\\') < 0 {
		change, ok = values[string(key)]
		return change, ok
	}
	change, ok = values[canonical(key)]
	return change, ok
}

// membersOf reads the rest of an object: its keys in the order of their first appearance, and the last value of each.
func membersOf(s *rawjson.Scanner) (order []string, values map[string][]byte) {
	values = map[string][]byte{}
	for key, value := range s.Members() {
		name := canonical(key)
		if _, seen := values[name]; !seen {
			order = append(order, name)
		}
		values[name] = value
	}
	return order, values
}

// canonical is the one spelling, in quotes, of keys that are equal but may be escaped differently.
func canonical(key []byte) string {
	if bytes.IndexByte(key, '\\') < 0 {
		return string(key)
	}
	if text, err := rawjson.Unquote(key); err == nil {
		if quoted, err := rawjson.AppendString(nil, text); err == nil {
			return string(quoted)
		}
	}
	return string(key)
}

// SplitPatches takes a list of state patches apart, as Flush, StartCommit and Acknowledge carry it: a JSON array, whose elements peers
// end with a tab or a line break. Nothing, white space and null are an empty list. The elements are copies.
func SplitPatches(text []byte) ([]json.RawMessage, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	var patches []json.RawMessage
	if err := json.Unmarshal(text, &patches); err != nil {
		return nil, fmt.Errorf("splitting state patches: %w", err)
	}
	return patches, nil
}

// ReducePatches applies a list of state patches to a state document, in order. The patch null starts anew from {}.
func ReducePatches(base, patches []byte) ([]byte, error) {
	list, err := SplitPatches(patches)
	if err != nil {
		return nil, err
	}
	if len(base) == 0 {
		base = []byte("{}")
	}
	for _, patch := range list {
		if string(patch) == "null" {
			base = []byte("{}")
			continue
		}
		if base, err = MergePatch(base, patch); err != nil {
			return nil, err
		}
	}
	return base, nil
}
