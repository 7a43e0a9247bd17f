package capture

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// newBinding joins a binding's specification with its parsed resource and its stored state.
func newBinding[R, S any](spec *flowpb.CaptureSpec_Binding, r R, path []string, stored json.RawMessage) (*Binding[R, S], error) {
	b := &Binding[R, S]{Resource: r, New: stored == nil, StateKey: spec.StateKey, Path: path}
	b.h = handle{name: strings.Join(path, "."), key: spec.StateKey, stored: stored}
	b.h.marshal = func() (json.RawMessage, error) { return json.Marshal(&b.State) }
	b.h.lineStart = append(rowjson.AppendText([]byte(`{"binding":`), b.h.name), `,"document":`...)
	if stored == nil {
		return b, nil
	}
	if err := json.Unmarshal(stored, &b.State); err != nil {
		return nil, usererr.New(fmt.Errorf("parsing the state of %s: %w", b.h.name, err),
			"The stored state of %s cannot be read by this version of the connector. Backfill the binding to begin anew.", b.h.name)
	}
	return b, nil
}

// destination describes the binding's collection.
func destination(c *flowpb.CollectionSpec) Destination {
	return Destination{Name: c.GetName(), Key: c.GetKey(), Schema: c.GetWriteSchemaJson()}
}

// resourcePath takes the values that the pointers name out of a resource's configuration. A value that is absent or empty
// is left out if it is not the last: a default namespace is part of no path.
func resourcePath(resource json.RawMessage, pointers []string) ([]string, error) {
	var doc any
	if err := json.Unmarshal(resource, &doc); err != nil {
		return nil, fmt.Errorf("reading the resource's path: %w", err)
	}
	var path []string
	for _, pointer := range pointers {
		switch v := locate(doc, pointer).(type) {
		case nil:
		case string:
			if v != "" {
				path = append(path, v)
			}
		case float64, bool:
			path = append(path, fmt.Sprint(v))
		default:
			return nil, usererr.New(nil, "%q must be a text, for it names the resource.", strings.TrimPrefix(pointer, "/"))
		}
	}
	if len(path) == 0 {
		return nil, usererr.New(nil, "%q must not be empty, for it names the resource.",
			strings.TrimPrefix(pointers[len(pointers)-1], "/"))
	}
	return path, nil
}

// locate follows a JSON pointer through objects; nil if there is nothing.
func locate(doc any, pointer string) any {
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		members, ok := doc.(map[string]any)
		if !ok {
			return nil
		}
		doc = members[unescape.Replace(part)]
	}
	return doc
}

// collectionName replaces what names of collections cannot hold: they consist of letters, digits and -_+/. only.
func collectionName(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_+/.", r) {
			return r
		}
		return '_'
	}, name)
	return strings.Trim(name, "/")
}
