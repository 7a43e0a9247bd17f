package airbyte

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/sdk/airbyte"
	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// deletedField is not null in records of rows that were deleted.
const deletedField = "_ab_cdc_deleted_at"

// form is what a source can be configured with.
type form struct {
	Schema           json.RawMessage
	DocumentationURL string
	Secrets          []string // names of fields that are secret, wherever they stand
}

// parseForm reads a SPEC message. What is secret in Airbyte's notation becomes so in Flow's.
func parseForm(line []byte) (*form, error) {
	var m struct {
		Spec struct {
			DocumentationURL        string `json:"documentationUrl"`
			ConnectionSpecification any    `json:"connectionSpecification"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return nil, fmt.Errorf("reading a SPEC message: %w", err)
	}
	f := &form{DocumentationURL: m.Spec.DocumentationURL}
	f.markSecrets("", m.Spec.ConnectionSpecification)
	var err error
	f.Schema, err = json.Marshal(m.Spec.ConnectionSpecification)
	return f, err
}

func (f *form) markSecrets(name string, node any) {
	switch v := node.(type) {
	case map[string]any:
		if secret, _ := v["airbyte_secret"].(bool); secret {
			v["secret"] = true
			f.Secrets = append(f.Secrets, name)
		}
		for inner, value := range v {
			f.markSecrets(inner, value)
		}
	case []any:
		for _, value := range v {
			f.markSecrets(name, value)
		}
	}
}

// offer is a stream of a catalog.
type offer struct {
	airbyte.Stream
	raw json.RawMessage // as the source wrote it, which is how it wants it back
}

func parseCatalog(line []byte) ([]*offer, error) {
	var m struct {
		Catalog struct {
			Streams []json.RawMessage `json:"streams"`
		} `json:"catalog"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return nil, fmt.Errorf("reading a CATALOG message: %w", err)
	}
	list := make([]*offer, len(m.Catalog.Streams))
	for i, raw := range m.Catalog.Streams {
		list[i] = &offer{raw: raw}
		if err := json.Unmarshal(raw, &list[i].Stream); err != nil {
			return nil, fmt.Errorf("reading stream %d of a CATALOG message: %w", i+1, err)
		}
	}
	return list, nil
}

// mode is how the stream is read unless its resource says otherwise: what is new, if the source knows by itself how to tell.
func (o *offer) mode() string {
	if slices.Contains(o.SupportedSyncModes, airbyte.Incremental) && (o.SourceDefinedCursor || len(o.DefaultCursorField) > 0) {
		return airbyte.Incremental
	}
	return airbyte.FullRefresh
}

// binding is the stream as something that can be captured.
func (o *offer) binding() (*capturepb.Response_Discovered_Binding, error) {
	r := resource{Stream: o.Name, Namespace: o.Namespace, SyncMode: o.mode()}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	b := &capturepb.Response_Discovered_Binding{
		RecommendedName: collectionName(strings.Join(r.path(), "/")), ResourceConfigJson: text, ResourcePath: r.path(),
	}
	b.DocumentSchemaJson, b.Key, err = o.documents()
	b.IsFallbackKey = len(b.Key) > 0 && strings.HasPrefix(b.Key[0], "/_meta/")
	return b, err
}

// collectionName replaces what names of collections cannot hold.
func collectionName(name string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_+/.", r) {
			return r
		}
		return '_'
	}, name), "/")
}

// documents are the schema and the key of the stream's documents: those of its records, with what the adapter adds.
func (o *offer) documents() (json.RawMessage, []string, error) {
	var root map[string]any
	if err := json.Unmarshal(o.JSONSchema, &root); err != nil || root == nil {
		return nil, nil, usererr.New(err, "The stream %s has no JSON schema that can be read.", o.Descriptor())
	}
	translate(root)
	delete(root, "$schema")
	root["type"] = "object"
	properties, ok := root["properties"].(map[string]any)
	if !ok {
		properties = map[string]any{}
		root["properties"] = properties
	}
	if more, ok := root["additionalProperties"].(bool); !ok || more {
		root["x-infer-schema"] = true // schemas of sources are often not complete
	}
	key, ok := o.key(root)
	_, deletes := properties[deletedField]
	switch {
	case !ok:
		key = []string{"/_meta/sync", "/_meta/row"}
		properties["_meta"] = object(map[string]any{
			"sync": map[string]any{"type": "string", "description": "When the sync began that read the record."},
			"row":  map[string]any{"type": "integer", "description": "The number of the record in its stream and sync."},
		})
		demand(root, "_meta")
	case deletes:
		properties["_meta"] = object(map[string]any{"op": map[string]any{"enum": []string{"u", "d"}, "description": "d in the record of a row that was deleted."}})
		demand(root, "_meta")
		root["if"] = json.RawMessage(`{"properties":{"_meta":{"properties":{"op":{"const":"d"}},"required":["op"]}},"required":["_meta"]}`)
		root["then"] = json.RawMessage(`{"reduce":{"strategy":"lastWriteWins","delete":true}}`)
	}
	text, err := json.Marshal(root)
	return text, key, err
}

func object(properties map[string]any) map[string]any {
	o := map[string]any{"type": "object", "properties": properties}
	for name := range properties {
		demand(o, name)
	}
	return o
}

func demand(node map[string]any, name string) {
	required, _ := node["required"].([]any)
	if !slices.Contains(required, any(name)) {
		node["required"] = append(required, name)
	}
}

// translate writes types in the notation that others know: a format is removed from texts that are times without a zone, which would be
// taken for RFC 3339, and numbers that Airbyte says are integers are.
func translate(node any) {
	switch v := node.(type) {
	case map[string]any:
		if kind, _ := v["airbyte_type"].(string); strings.HasSuffix(kind, "_without_timezone") || strings.HasPrefix(kind, "time_") {
			delete(v, "format")
		}
		if v["airbyte_type"] == "integer" {
			v["type"] = renamed(v["type"], "number", "integer")
		}
		for _, inner := range v {
			translate(inner)
		}
	case []any:
		for _, inner := range v {
			translate(inner)
		}
	}
}

func renamed(types any, from, to string) any {
	if list, ok := types.([]any); ok {
		for i := range list {
			list[i] = renamed(list[i], from, to)
		}
	}
	if name, _ := types.(string); name == from {
		return to
	}
	return types
}

// key is the primary key as JSON pointers. Its fields are made to be required, and to have a type that keys can have. A stream has none if a field of it is
// not in the schema, or can be no key.
func (o *offer) key(root map[string]any) ([]string, bool) {
	var key []string
	for _, path := range o.SourceDefinedPrimaryKey {
		node, pointer := root, ""
		for _, name := range path {
			properties, _ := node["properties"].(map[string]any)
			inner, ok := properties[name].(map[string]any)
			if !ok {
				return nil, false
			}
			demand(node, name)
			if types, ok := inner["type"].([]any); ok {
				inner["type"] = slices.DeleteFunc(types, func(t any) bool { return t == "null" })
			}
			node, pointer = inner, jsonscan.JoinPointer(pointer, name)
		}
		if !scalar(node["type"]) {
			return nil, false
		}
		key = append(key, pointer)
	}
	return key, len(key) > 0
}

// scalar tells whether all types can be part of a key.
func scalar(types any) bool {
	list, ok := types.([]any)
	if !ok {
		list = []any{types}
	}
	for _, t := range list {
		if t != "string" && t != "integer" && t != "boolean" {
			return false
		}
	}
	return len(list) > 0
}
