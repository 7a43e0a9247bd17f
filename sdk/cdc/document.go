package cdc

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

// The operation of a document, in _meta.op.
const (
	opCreate = 'c'
	opUpdate = 'u'
	opDelete = 'd'
)

// document is one change, or one row that a backfill read, on its way to a transaction. The reader and every chunk have one,
// which is filled for every document; append is bound once, so that emitting allocates nothing.
type document struct {
	op       byte
	row      Row // its columns and its source
	before   Row // nil if there is nothing to say
	snapshot bool
	rules    *rules // of its table
	// large is what the last document says of values that are too large for it (OversizePlaceholder).
	large []LargeValue
}

// append appends the document:
//
//	{<columns>,"_meta":{"op":"u","before":{<columns>},"source":{<the driver's members>}}}
func (d *document) append(dst []byte) ([]byte, error) {
	start := len(dst)
	d.large = nil
	if len(d.rules.cleared) > 0 || len(largeValues(d.row)) > 0 {
		return d.appendFitting(dst)
	}
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
	if dst, err = d.appendTail(dst); err != nil {
		return dst, err
	}
	if len(dst)-start > d.rules.limit {
		return d.appendFitting(dst[:start])
	}
	return dst, nil
}

// appendTail appends what follows the operation, and what was before: the source, and the end.
func (d *document) appendTail(dst []byte) ([]byte, error) {
	dst = append(dst, `,"source":{`...)
	n := len(dst)
	dst, err := d.row.AppendSource(dst)
	const end = `,"snapshot":true}}}`
	switch {
	case err != nil || !d.snapshot:
		return append(dst, "}}}"...), err
	case len(dst) == n:
		return append(dst, end[1:]...), nil
	}
	return append(dst, end...), nil
}

// appendHead appends a document up to its operation.
func appendHead(dst []byte, op byte, row Row) ([]byte, error) {
	dst = append(dst, '{')
	n := len(dst)
	dst, err := row.AppendFields(dst)
	if err != nil {
		return dst, err
	}
	const meta = `,"_meta":{"op":"u"`
	if len(dst) > n {
		dst = append(dst, meta...)
	} else {
		dst = append(dst, meta[1:]...)
	}
	dst[len(dst)-2] = op
	return dst, nil
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
	meta, err := patchMeta(members[metaColumn], columns)
	if err != nil {
		return dst[:start], err
	}
	dst = append(dst, `"_meta":`...)
	return append(append(dst, meta...), '}'), nil
}

// patchMeta makes the _meta of a row that of an update of some columns.
func patchMeta(meta json.RawMessage, columns []string) ([]byte, error) {
	var members map[string]json.RawMessage
	var omitted map[string]int64
	if err := json.Unmarshal(meta, &members); err != nil {
		return nil, fmt.Errorf("parsing a row to patch: %w", err)
	}
	var o object
	o.raw("op", `"u"`)
	if raw, ok := members["omitted"]; ok {
		if err := json.Unmarshal(raw, &omitted); err != nil {
			return nil, fmt.Errorf("parsing a row to patch: %w", err)
		}
		maps.DeleteFunc(omitted, func(c string, _ int64) bool { return !slices.Contains(columns, c) })
	}
	if len(omitted) > 0 {
		text, _ := json.Marshal(omitted) // numbers always encode
		o.member("omitted", text)
	}
	o.member("source", members["source"])
	return o.close(), nil
}
