package airbyte

import (
	"encoding/json"
	"maps"
	"strings"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// The sync modes.
const (
	FullRefresh = "full_refresh"
	Incremental = "incremental"
)

// Catalog lists streams.
type Catalog struct {
	Streams []*Stream `json:"streams"`
}

// Stream is what a source can read.
type Stream struct {
	Name                    string          `json:"name"`
	Namespace               string          `json:"namespace,omitempty"`
	JSONSchema              json.RawMessage `json:"json_schema"`
	SupportedSyncModes      []string        `json:"supported_sync_modes"`
	SourceDefinedCursor     bool            `json:"source_defined_cursor,omitempty"`
	DefaultCursorField      []string        `json:"default_cursor_field,omitempty"`
	SourceDefinedPrimaryKey [][]string      `json:"source_defined_primary_key,omitempty"`
	IsResumable             bool            `json:"is_resumable,omitempty"`
}

// Descriptor names the stream.
func (s *Stream) Descriptor() Descriptor { return Descriptor{Name: s.Name, Namespace: s.Namespace} }

// ConfiguredCatalog says what is to be read, and how.
type ConfiguredCatalog struct {
	Streams []*ConfiguredStream `json:"streams"`
}

// ConfiguredStream is one stream that is to be read.
type ConfiguredStream struct {
	Stream              *Stream    `json:"stream"`
	SyncMode            string     `json:"sync_mode"`
	DestinationSyncMode string     `json:"destination_sync_mode"`
	CursorField         []string   `json:"cursor_field,omitempty"`
	PrimaryKey          [][]string `json:"primary_key,omitempty"`
}

// ParseConfigured reads a configured catalog.
func ParseConfigured(text json.RawMessage) (*ConfiguredCatalog, error) {
	c := &ConfiguredCatalog{}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, usererr.New(err, "The catalog is not a configured catalog of the Airbyte protocol.")
	}
	for i, s := range c.Streams {
		switch {
		case s == nil || s.Stream == nil || s.Stream.Name == "":
			return nil, usererr.New(nil, "Stream %d of the configured catalog has no name.", i+1)
		case s.SyncMode != Incremental && s.SyncMode != FullRefresh:
			return nil, usererr.New(nil, "The sync mode of stream %s is %q; it may be incremental or full_refresh.", s.Stream.Descriptor(), s.SyncMode)
		}
	}
	if len(c.Streams) == 0 {
		return nil, usererr.New(nil, "The configured catalog has no streams, so there is nothing to read.")
	}
	return c, nil
}

// NewStream describes a binding that was discovered. Fields are those that records get beside the document's own.
func NewStream(b *capturepb.Response_Discovered_Binding, fields Fields) (*Stream, error) {
	d := NewDescriptor(b.ResourcePath)
	s := &Stream{
		Name: d.Name, Namespace: d.Namespace, SupportedSyncModes: []string{FullRefresh, Incremental},
		SourceDefinedCursor: true, DefaultCursorField: []string{CursorField}, IsResumable: true,
	}
	keyed := !b.IsFallbackKey
	var key [][]string
	for _, pointer := range b.Key {
		path := jsonscan.SplitPointer(pointer)
		if len(path) == 0 || path[0] == metaMember {
			keyed = false // records do not have it
		}
		key = append(key, path)
	}
	if keyed {
		s.SourceDefinedPrimaryKey = key
	}
	schema, err := streamSchema(b.DocumentSchemaJson, fields)
	s.JSONSchema = schema
	return s, err
}

// streamSchema is the schema of a stream's records: that of the documents' own fields, without the notation that runtimes of
// captures read, and what every record gets.
func streamSchema(document json.RawMessage, fields Fields) (json.RawMessage, error) {
	var doc struct {
		Properties map[string]map[string]json.RawMessage `json:"properties"`
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, err
	}
	properties := map[string]map[string]json.RawMessage{}
	for name, p := range doc.Properties {
		if name != metaMember {
			properties[name] = property(p)
		}
	}
	maps.Copy(properties, fields.schemas())
	return json.Marshal(map[string]any{"type": "object", "properties": properties})
}

// property is what Airbyte needs to know of a field. Its types of times are in a member of their own.
func property(p map[string]json.RawMessage) map[string]json.RawMessage {
	out := maps.Clone(p)
	maps.DeleteFunc(out, func(name string, _ json.RawMessage) bool {
		return strings.HasPrefix(name, "x-") || name == "reduce" || name == "default"
	})
	if _, ok := out["type"]; !ok {
		out["type"] = json.RawMessage(`["object","array","string","number","boolean","null"]`)
	}
	switch string(p["format"]) {
	case `"date-time"`:
		out["airbyte_type"] = json.RawMessage(`"timestamp_with_timezone"`)
	case `"date"`, `"time"`:
	default:
		delete(out, "format") // none that Airbyte knows
	}
	return out
}
