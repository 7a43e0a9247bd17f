package codec

import "encoding/json"

// Schema describes the JSON values that a codec makes of the records of one schema. It is immutable.
type Schema struct {
	// ID is the registry's number of it, 0 for values without.
	ID int
	// Name is what people call it: the full name of an Avro record or Protobuf message, or its title; empty for none.
	Name string
	// JSON is a JSON schema (2020-12) that every value follows. {} where nothing is known.
	JSON json.RawMessage
	// Closed is JSON, but objects have no members beside those it names; nil where others may come, or nothing is known.
	Closed json.RawMessage
	// Object tells that every value is a JSON object; if not, any kind of value may come unless JSON says more.
	Object bool
	// Members are the names of all members that the values, objects, can have; nil if others may come.
	Members []string
	// Keys are pointers to members that can be a collection's key: always there, never null, of one type that compares
	// exactly. "" means the value itself. They are in the order of the schema.
	Keys []string
}

//nolint:gochecknoglobals // immutable, compared by their pointers
var (
	nullSchema   = &Schema{JSON: json.RawMessage(`{"type":"null"}`)}
	anySchema    = &Schema{JSON: json.RawMessage(`{}`)}
	stringSchema = scalars(`{"type":"string"}`)
	bytesSchema  = scalars(`{"type":"string","contentEncoding":"base64"}`)
	csvSchema    = &Schema{JSON: json.RawMessage(csvJSON), Closed: json.RawMessage(csvJSON)}
)

const csvJSON = `{"type":"array","items":{"type":"string"}}`

// scalars is the schema of values that are themselves a key.
func scalars(schema string) *Schema {
	return &Schema{JSON: json.RawMessage(schema), Closed: json.RawMessage(schema), Keys: []string{""}}
}

// Unframed is the schema of records that name none in a registry; nil for a format of which all records name one.
func Unframed(side Side, format Format) *Schema {
	if format == "" || format == Auto {
		format = side.unframed()
	}
	if appender, schema := textFormats(format); appender != nil {
		return schema
	}
	return nil
}
