package main

import (
	"encoding/json"
	"fmt"
	"maps"

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
		if err := valueSchema(value, properties, definitions); err != nil {
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

// valueSchema adds the members that values have: their own, or the one that holds them if they are no objects.
func valueSchema(value *codec.Schema, properties, definitions schemaParts) error {
	root, err := hoist(value.JSON, definitions)
	if err != nil {
		return err
	}
	if !value.Object {
		if string(root) != "{}" { // where nothing is known, most values are objects
			properties[valueMember] = root
		}
		return nil
	}
	var parts schemaParts
	if err := json.Unmarshal(root, &parts); err != nil {
		return fmt.Errorf("reading the schema of values: %w", err)
	}
	var members schemaParts
	if parts["properties"] != nil {
		if err := json.Unmarshal(parts["properties"], &members); err != nil {
			return fmt.Errorf("reading the schema of values: %w", err)
		}
	}
	for name, member := range members {
		if reserved([]byte(name)) {
			name = "_" + name
		}
		properties[name] = member
	}
	return nil
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
