package capture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// The state document, which the runtime keeps and the connector patches (RFC 7396) with every checkpoint:
//
//	{"bindingStateV1": {"<state key>": S, …}, "shared": …}
//
// A binding whose backfill counter was raised gets another state key, and so begins anew.
const (
	bindingsMember = "bindingStateV1"
	sharedMember   = "shared"
)

// document is the state document as it was opened, and the part of it that does not belong to a binding.
type document struct {
	bindings map[string]json.RawMessage
	shared   json.RawMessage
}

func parseDocument(raw json.RawMessage) (*document, error) {
	d := &document{bindings: map[string]json.RawMessage{}}
	if len(bytes.TrimSpace(raw)) == 0 {
		return d, nil
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(raw, &top); err != nil {
		return nil, usererr.New(fmt.Errorf("parsing the state document: %w", err),
			"The stored state of this capture is not a JSON object, so it was not written by this connector.")
	}
	if text, ok := top[bindingsMember]; ok {
		if err := json.Unmarshal(text, &d.bindings); err != nil {
			return nil, usererr.New(fmt.Errorf("parsing %q of the state document: %w", bindingsMember, err),
				"The stored state of this capture is damaged: %q is not an object of bindings' states.", bindingsMember)
		}
	}
	for key, text := range d.bindings {
		d.bindings[key] = compact(text)
	}
	if text, ok := top[sharedMember]; ok && string(text) != "null" {
		d.shared = compact(text)
	}
	return d, nil
}

// compact removes whitespace from JSON that has been parsed already.
func compact(text json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return text
	}
	return b.Bytes()
}

// dormant lists the state keys that belong to none of the bindings.
func (d *document) dormant(bindings []*handle) []string {
	active := make(map[string]bool, len(bindings))
	for _, h := range bindings {
		active[h.key] = true
	}
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(d.bindings)) {
		if !active[key] {
			keys = append(keys, key)
		}
	}
	return keys
}

// patch makes the merge patch that a transaction commits, and remembers what will then be stored. It returns nil if the
// transaction changed nothing.
func (d *document) patch(tx *Tx) (json.RawMessage, error) {
	states := map[string]json.RawMessage{}
	for _, h := range tx.dirty {
		now, err := h.marshal()
		if err != nil {
			return nil, fmt.Errorf("writing the state of %s: %w", h.name, err)
		}
		diff, err := diffJSON(h.stored, now)
		if err != nil {
			return nil, fmt.Errorf("comparing the state of %s: %w", h.name, err)
		}
		if diff != nil {
			states[h.key], h.stored = diff, now
		}
	}
	for _, key := range tx.forget {
		if _, ok := d.bindings[key]; ok {
			states[key] = json.RawMessage("null")
			delete(d.bindings, key)
		}
	}
	var shared json.RawMessage
	if tx.shared != nil {
		now, err := json.Marshal(tx.shared)
		if err != nil {
			return nil, fmt.Errorf("writing the shared state: %w", err)
		}
		if shared, err = diffJSON(d.shared, now); err != nil {
			return nil, fmt.Errorf("comparing the shared state: %w", err)
		}
		if shared != nil {
			d.shared = now
		}
	}
	return appendPatch(states, shared), nil
}

func appendPatch(states map[string]json.RawMessage, shared json.RawMessage) json.RawMessage {
	if len(states) == 0 && shared == nil {
		return nil
	}
	out := []byte{'{'}
	if len(states) > 0 {
		out = append(rowjson.AppendText(out, bindingsMember), ':')
		out = append(appendObject(out, states), ',')
	}
	if shared != nil {
		out = append(rowjson.AppendText(out, sharedMember), ':')
		out = append(append(out, shared...), ',')
	}
	out[len(out)-1] = '}'
	return out
}

// appendObject appends the members sorted by name, so that equal changes give equal bytes.
func appendObject(dst []byte, members map[string]json.RawMessage) []byte {
	dst = append(dst, '{')
	for i, key := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(rowjson.AppendText(dst, key), ':')
		dst = append(dst, members[key]...)
	}
	return append(dst, '}')
}

// diffJSON is the merge patch that makes before into after; nil if there is nothing to change. Both are compact. A merge
// patch cannot store null: a member that is null in after is absent once the patch is applied, which is the same to
// encoding/json.
func diffJSON(before, after json.RawMessage) (json.RawMessage, error) {
	if bytes.Equal(before, after) {
		return nil, nil
	}
	if len(before) == 0 {
		if string(after) == "null" {
			return nil, nil
		}
		return after, nil
	}
	if before[0] != '{' || len(after) == 0 || after[0] != '{' {
		return after, nil
	}
	var old, now map[string]json.RawMessage
	if err := json.Unmarshal(before, &old); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(after, &now); err != nil {
		return nil, err
	}
	patch := map[string]json.RawMessage{}
	for key := range old {
		if _, ok := now[key]; !ok {
			patch[key] = json.RawMessage("null")
		}
	}
	for key, value := range now {
		diff, err := diffJSON(old[key], value)
		if err != nil {
			return nil, err
		}
		if diff != nil {
			patch[key] = diff
		}
	}
	if len(patch) == 0 {
		return nil, nil
	}
	return appendObject(nil, patch), nil
}
