package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/sluicedata/sluice/source-kafka/internal/codec"
)

// metaSchema describes where a record comes from.
const metaSchema = `{"type":"object","required":["op","topic","partition","offset"],"properties":{` +
	`"op":{"type":"string","enum":["u","d"],"description":"u for a record, d for one without a value, which deletes what its key stands for in a compacted topic."},` +
	`"topic":{"type":"string","description":"The topic."},` +
	`"partition":{"type":"integer","minimum":0,"description":"The partition."},` +
	`"offset":{"type":"integer","minimum":0,"description":"The record's place in the partition."},` +
	`"epoch":{"type":"integer","minimum":0,"description":"The epoch of the leader that wrote the record."},` +
	`"ts_ms":{"type":"integer","description":"The record's time, in milliseconds since 1970."},` +
	`"ts_type":{"type":"string","enum":["create","append"],"description":"Whether the time is the producer's, or the broker's when it appended the record."},` +
	`"headers":{"type":"array","description":"The record's headers in their order; a name may repeat.","items":{"type":"object","required":["name"],"properties":{` +
	`"name":{"type":"string"},"value":{"type":["string","null"],"description":"The value, if it is text."},"base64":{"type":"string","contentEncoding":"base64","description":"The value, if it is not."}}}},` +
	`"bad":{"type":"object","description":"Of a record that could not be decoded: what is wrong, and its bytes.","required":["side","reason"],"properties":{` +
	`"side":{"type":"string","enum":["key","value"]},"reason":{"type":"string"},"key":{"type":"string","contentEncoding":"base64"},"value":{"type":"string","contentEncoding":"base64"}}}}}`

// schemaParts are the members of a JSON schema.
type schemaParts = map[string]json.RawMessage

// documentSchema is what every document of a topic follows, tombstones and dead letters included: so nothing of the value is
// required. A document of a key takes the place of the one before as a whole, for so it is with records.
func documentSchema(key, value *codec.Schema, keyed bool) (json.RawMessage, error) {
	properties, definitions := schemaParts{}, schemaParts{}
	if value != nil {
		if _, err := valueSchema(value.JSON, value.Object, properties, definitions); err != nil {
			return nil, err
		}
	}
	if key != nil {
		root, err := hoist(key.JSON, definitions)
		if err != nil {
			return nil, err
		}
		properties[keyMember] = root
	}
	properties[metaMember] = json.RawMessage(metaSchema)
	doc := map[string]any{"type": "object", "properties": properties, "required": []string{metaMember}, "x-infer-schema": true}
	if len(definitions) > 0 {
		doc["$defs"] = definitions
	}
	if keyed {
		doc["required"] = []string{keyMember, metaMember}
		doc["reduce"] = json.RawMessage(`{"strategy":"lastWriteWins"}`)
		doc["if"] = json.RawMessage(`{"properties":{"` + metaMember + `":{"properties":{"op":{"const":"d"}},"required":["op"]}},"required":["` + metaMember + `"]}`)
		doc["then"] = json.RawMessage(`{"reduce":{"strategy":"lastWriteWins","delete":true}}`)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("writing the schema of documents: %w", err)
	}
	return text, nil
}

// sourcedSchema is what a registry says of the documents whose key and value follow these schemas: closed and exact, for runtimes
// to widen what they know. It is nil if no schema of a registry is among them, or if what the collection's key is in is not
// known. A member is required only if the collection's key is in it: tombstones and dead letters have no others.
func (d *documents) sourcedSchema(key, value *codec.Schema) (json.RawMessage, error) {
	known := func(s *codec.Schema) bool { return s != nil && s.Closed != nil }
	named := known(key) && key.ID > 0 || known(value) && value.ID > 0
	if !named || d.id.inKey && !known(key) || d.id.inValue && !known(value) {
		return nil, nil //nolint:nilnil // nothing to say
	}
	properties, definitions, required := schemaParts{}, schemaParts{}, []string{metaMember}
	if known(value) {
		always, err := valueSchema(value.Closed, value.Object, properties, definitions)
		if err != nil {
			return nil, err
		}
		if d.id.inValue {
			required = append(required, always...)
		}
	}
	if known(key) {
		root, err := hoist(key.Closed, definitions)
		if err != nil {
			return nil, err
		}
		properties[keyMember] = root
		if d.id.inKey {
			required = append(required, keyMember)
		}
	}
	properties[metaMember] = json.RawMessage(strings.ReplaceAll(metaSchema, `"type":"object",`, `"type":"object","additionalProperties":false,`))
	doc := map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
	if len(definitions) > 0 {
		doc["$defs"] = definitions
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("writing the schema of documents: %w", err)
	}
	return text, nil
}

// valueSchema adds the members that documents have by their values: the values' own, or the one that holds those that are no
// objects. It returns those that are always there.
func valueSchema(schema json.RawMessage, object bool, properties, definitions schemaParts) (required []string, err error) {
	root, err := hoist(schema, definitions)
	if err != nil {
		return nil, err
	}
	var parts struct {
		Type       json.RawMessage `json:"type"`
		Properties schemaParts     `json:"properties"`
		Required   []string        `json:"required"`
	}
	if err := json.Unmarshal(root, &parts); err != nil {
		return nil, fmt.Errorf("reading the schema of values: %w", err)
	}
	if !object {
		switch {
		case len(parts.Type) == 0: // objects may be among them, whose members are the document's
			for name, member := range parts.Properties {
				properties[documentMember(name)] = member
			}
			return nil, nil
		case bytes.Contains(parts.Type, []byte(`"object"`)):
			return nil, nil
		}
		properties[valueMember] = root
		return []string{valueMember}, nil
	}
	for name, member := range parts.Properties {
		properties[documentMember(name)] = member
	}
	for _, name := range parts.Required {
		required = append(required, documentMember(name))
	}
	return required, nil
}

// documentMember is what a member of a value is called in the document.
func documentMember(name string) string {
	if reserved([]byte(name)) {
		return "_" + name
	}
	return name
}

// hoist takes the definitions out of a schema, so that it can be a part of another one.
func hoist(schema json.RawMessage, definitions schemaParts) (json.RawMessage, error) {
	var parts schemaParts
	if err := json.Unmarshal(schema, &parts); err != nil {
		return nil, fmt.Errorf("reading a schema: %w", err)
	}
	var own schemaParts
	if parts["$defs"] != nil {
		if err := json.Unmarshal(parts["$defs"], &own); err != nil {
			return nil, fmt.Errorf("reading the definitions of a schema: %w", err)
		}
	}
	maps.Copy(definitions, own)
	delete(parts, "$defs")
	delete(parts, "$schema")
	return json.Marshal(parts)
}
