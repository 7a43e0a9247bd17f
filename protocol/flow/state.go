package flowpb

import (
	"bytes"
	"encoding/json"
	"fmt"
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

// MergePatch applies a JSON merge patch (RFC 7396) to a document. Values that are not merged keep their text, so numbers keep
// their digits; the keys of merged objects come out sorted. The result does not alias its arguments.
func MergePatch(doc, patch []byte) ([]byte, error) {
	merged, err := mergePatch(doc, patch)
	if err != nil {
		return nil, fmt.Errorf("merging a patch of %d bytes: %w", len(patch), err)
	}
	return merged, nil
}

func mergePatch(doc, patch []byte) ([]byte, error) {
	if !isObject(patch) {
		var out bytes.Buffer
		err := json.Compact(&out, patch)
		return out.Bytes(), err
	}
	var changes, members map[string]json.RawMessage
	if err := json.Unmarshal(patch, &changes); err != nil {
		return nil, err
	}
	if isObject(doc) {
		if err := json.Unmarshal(doc, &members); err != nil {
			return nil, err
		}
	}
	if members == nil {
		members = make(map[string]json.RawMessage, len(changes))
	}
	for name, change := range changes {
		if string(change) == "null" {
			delete(members, name)
			continue
		}
		merged, err := mergePatch(members[name], change)
		if err != nil {
			return nil, err
		}
		members[name] = merged
	}
	return encodeObject(members)
}

// encodeObject is json.Marshal without the escapes for HTML, which would change texts that nobody touched.
func encodeObject(members map[string]json.RawMessage) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(members); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

func isObject(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return len(text) > 0 && text[0] == '{'
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
