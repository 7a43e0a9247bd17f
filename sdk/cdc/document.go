package cdc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

// The operation of a document, in _meta.op.
const (
	opCreate = 'c'
	opUpdate = 'u'
	opDelete = 'd'
)

// document is one change on its way to the transaction. The reader has one, which it fills for every document; append is
// bound once, so that emitting allocates nothing.
type document struct {
	op     byte
	row    Row // its columns and its source
	before Row // nil if there is nothing to say
}

// append appends the document:
//
//	{<columns>,"_meta":{"op":"u","before":{<columns>},"source":{<the driver's members>}}}
func (d *document) append(dst []byte) ([]byte, error) {
	dst, err := appendHead(dst, d.op, d.row)
	if err != nil {
		return dst, err
	}
	if d.before != nil {
		dst = append(dst, `,"before":{`...)
		if dst, err = d.before.AppendFields(dst); err != nil {
			return dst, err
		}
		dst = append(dst, '}')
	}
	dst = append(dst, `,"source":{`...)
	if dst, err = d.row.AppendSource(dst); err != nil {
		return dst, err
	}
	return append(dst, "}}}"...), nil
}

// appendSnapshot appends the document of a row that was read by a backfill.
func appendSnapshot(dst []byte, row Row) ([]byte, error) {
	dst, err := appendHead(dst, opCreate, row)
	if err != nil {
		return dst, err
	}
	dst = append(dst, `,"source":{`...)
	n := len(dst)
	if dst, err = row.AppendSource(dst); err != nil {
		return dst, err
	}
	if len(dst) > n {
		dst = append(dst, ',')
	}
	return append(dst, `"snapshot":true}}}`...), nil
}

// appendHead appends a document up to its operation.
func appendHead(dst []byte, op byte, row Row) ([]byte, error) {
	dst = append(dst, '{')
	n := len(dst)
	dst, err := row.AppendFields(dst)
	if err != nil {
		return dst, err
	}
	if len(dst) > n {
		dst = append(dst, ',')
	}
	dst = append(dst, `"_meta":{"op":"`...)
	return append(dst, op, '"'), nil
}

// appendPatch appends, of a document by appendSnapshot, an update that holds only the key and some columns. It is for rare
// cases, so it may parse the document. If the row has none of the columns it appends nothing.
func appendPatch(dst, doc []byte, key, columns []string) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(doc, &members); err != nil {
		return dst, fmt.Errorf("parsing a row to patch: %w", err)
	}
	start, found := len(dst), false
	dst = append(dst, '{')
	for i, name := range append(slices.Clip(key), columns...) {
		value, ok := members[name]
		if !ok {
			continue
		}
		found = found || i >= len(key)
		dst = append(append(rowjson.AppendText(dst, name), ':'), value...)
		dst = append(dst, ',')
	}
	if !found {
		return dst[:start], nil
	}
	dst = append(dst, `"_meta":`...)
	meta := bytes.Replace(members["_meta"], []byte(`"op":"c"`), []byte(`"op":"u"`), 1)
	return append(append(dst, meta...), '}'), nil
}
