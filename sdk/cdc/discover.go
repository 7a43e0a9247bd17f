package cdc

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"unicode"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// metaColumn is the member of every document that describes the change, so that no column can have this name.
const metaColumn = "_meta"

// collections proposes a collection for every table, sorted by name.
func collections(tables []*Table, opts Options) ([]capture.Collection[Resource], error) {
	source, err := sourceMembers(opts.SourceSchema)
	if err != nil {
		return nil, err
	}
	tables = slices.Clone(tables)
	slices.SortFunc(tables, func(a, b *Table) int { return compareIDs(a.ID, b.ID) })
	names := collectionNames(tables)
	cs := make([]capture.Collection[Resource], 0, len(tables))
	for _, t := range tables {
		if hasMetaColumn(t) {
			continue // Check says why
		}
		cs = append(cs, capture.Collection[Resource]{
			Name:        names[t.ID],
			Resource:    Resource{Namespace: t.ID.Schema, Stream: t.ID.Name},
			Key:         collectionKey(t),
			Schema:      documentSchema(t, source, opts.placeholders()),
			FallbackKey: len(t.Key) == 0,
		})
	}
	return cs, nil
}

func compareIDs(a, b TableID) int {
	if c := strings.Compare(a.Schema, b.Schema); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

func hasMetaColumn(t *Table) bool {
	return slices.ContainsFunc(t.Columns, func(c Column) bool { return c.Name == metaColumn })
}

// errMetaColumn is the answer to a table that cannot be captured because of a column's name.
func errMetaColumn(id TableID) error {
	return usererr.New(nil, "Table %s has a column %q, which is the name of the member that describes the change in every document. "+
		"Rename the column to capture the table.", id, metaColumn)
}

// fallbackKey is the key of documents of a table without one: their place in the log.
func fallbackKey() []string {
	return []string{"/_meta/source/loc/0", "/_meta/source/loc/1", "/_meta/source/loc/2"}
}

// collectionKey is the table's key as JSON pointers (RFC 6901).
func collectionKey(t *Table) []string {
	if len(t.Key) == 0 {
		return fallbackKey()
	}
	key := make([]string, len(t.Key))
	for i, name := range t.Key {
		key[i] = "/" + strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
	}
	return key
}

// collectionNames finds a name for every table: schema/table in lower case, without the characters that a collection's name
// cannot have. A table whose own name suffers from that, and would then be named like another one, gets a suffix which
// depends on nothing but its name.
func collectionNames(tables []*Table) map[TableID]string {
	count := map[string]int{}
	for _, t := range tables {
		count[plainName(t.ID)]++
	}
	names := make(map[TableID]string, len(tables))
	for _, t := range tables {
		name := plainName(t.ID)
		if count[name] > 1 && name != t.ID.Schema+"/"+t.ID.Name {
			h := fnv.New32a()
			_, _ = h.Write([]byte(t.ID.Schema + "\x00" + t.ID.Name)) // never fails
			name += "_" + hex.EncodeToString(h.Sum(nil))
		}
		names[t.ID] = name
	}
	return names
}

func plainName(id TableID) string { return plainPart(id.Schema) + "/" + plainPart(id.Name) }

func plainPart(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_.", r) {
			return unicode.ToLower(r)
		}
		return '_'
	}, s)
}

// object writes one JSON object.
type object struct{ dst []byte }

func (o *object) member(name string, value []byte) {
	sep := byte(',')
	if len(o.dst) == 0 {
		sep = '{'
	}
	o.dst = rowjson.AppendText(append(o.dst, sep), name)
	o.dst = append(append(o.dst, ':'), value...)
}

func (o *object) raw(name, value string) { o.member(name, []byte(value)) }

func (o *object) close() json.RawMessage {
	if len(o.dst) == 0 {
		return json.RawMessage("{}")
	}
	return append(o.dst, '}')
}

func list(names []string) []byte {
	text, _ := json.Marshal(names) // texts always encode
	return text
}

// sourceMembers parses Options.SourceSchema, and adds what the core itself writes.
func sourceMembers(raw json.RawMessage) (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &members); err != nil {
			return nil, fmt.Errorf("parsing the schema of _meta.source: %w", err)
		}
	}
	members["snapshot"] = json.RawMessage(`{"type":"boolean","description":"True for rows that were read by a backfill."}`)
	if members["loc"] == nil {
		members["loc"] = json.RawMessage(`{"type":"array","items":{"type":"integer"}}`)
	}
	return members, nil
}

// documentSchema is what every document of the table follows, with the annotations by which runtimes reduce documents of
// one key: they are merged, so that a column which a change leaves out keeps its value, and a delete ends the key.
func documentSchema(t *Table, source map[string]json.RawMessage, placeholders bool) json.RawMessage {
	var o object
	o.raw("type", `"object"`)
	o.member("required", list(append(slices.Clone(t.Key), metaColumn)))
	o.member("properties", properties(t, metaSchema(t, source, placeholders), placeholders))
	o.raw("reduce", `{"strategy":"merge"}`)
	o.raw("x-infer-schema", "true")
	if len(t.Key) > 0 {
		o.raw("if", `{"properties":{"_meta":{"properties":{"op":{"const":"d"}},"required":["op"]}},"required":["_meta"]}`)
		o.raw("then", `{"reduce":{"strategy":"merge","delete":true}}`)
	}
	return o.close()
}

// properties are the columns' schemas, and that of _meta unless it is nil. With placeholders, a value that is too large is null.
func properties(t *Table, meta json.RawMessage, placeholders bool) json.RawMessage {
	var o object
	for _, c := range t.Columns {
		s := c.Schema
		if len(s) == 0 {
			s = json.RawMessage("{}")
		}
		if placeholders && !c.Small && !slices.Contains(t.Key, c.Name) {
			s = orNull(s)
		}
		o.member(c.Name, s)
	}
	if meta != nil {
		o.member(metaColumn, meta)
	}
	return o.close()
}

func metaSchema(t *Table, source map[string]json.RawMessage, placeholders bool) json.RawMessage {
	names := make([]string, 0, len(source))
	for name := range source {
		names = append(names, name)
	}
	slices.Sort(names)
	var members object
	for _, name := range names {
		members.member(name, source[name])
	}
	var src object
	src.raw("type", `"object"`)
	if len(t.Key) == 0 {
		src.raw("required", `["loc"]`)
	}
	src.member("properties", members.close())

	var props object
	props.raw("op", `{"enum":["c","u","d"],"description":"What happened to the row: c created (or read by a backfill), u updated, d deleted."}`)
	props.raw("before", `{"type":"object","description":"The row, or its key, before the change, as far as the log has it.","reduce":{"strategy":"firstWriteWins"}}`)
	if placeholders {
		props.raw("omitted", `{"type":"object","additionalProperties":{"type":"integer","minimum":0},"reduce":{"strategy":"merge"},`+
			`"description":"Columns that are null here because their values are too large for a document, with how many bytes they have; 0 for a column that once was, and is not any more."}`)
	}
	props.member("source", src.close())

	var o object
	o.raw("type", `"object"`)
	o.raw("required", `["op","source"]`)
	o.member("properties", props.close())
	o.raw("reduce", `{"strategy":"merge"}`)
	return o.close()
}

// sourcedSchema is what the table itself says of its rows: closed and exact, for runtimes to widen what they inferred.
func sourcedSchema(t *Table, placeholders bool) json.RawMessage {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	var o object
	o.raw("type", `"object"`)
	o.member("required", list(names))
	o.member("properties", properties(t, nil, placeholders))
	o.raw("additionalProperties", "false")
	return o.close()
}

// orNull is a schema that allows null besides.
func orNull(schema json.RawMessage) json.RawMessage {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(schema, &members); err != nil || len(members) == 0 {
		return schema // anything
	}
	var one string
	var several []string
	_, hasEnum := members["enum"]
	_, hasConst := members["const"]
	switch raw := members["type"]; {
	case hasEnum, hasConst, raw == nil:
	case json.Unmarshal(raw, &one) == nil:
		several = []string{one}
	case json.Unmarshal(raw, &several) != nil:
	}
	if several == nil {
		return slices.Concat(json.RawMessage(`{"anyOf":[`), schema, json.RawMessage(`,{"type":"null"}]}`))
	}
	if slices.Contains(several, "null") {
		return schema
	}
	members["type"] = list(append(several, "null"))
	text, _ := json.Marshal(members) // it was JSON before
	return text
}
