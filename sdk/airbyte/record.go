package airbyte

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/rowjson"
)

// What change captures of Airbyte add to their records: when a row changed, when it was deleted (null if it was not), and a
// number that orders the records of a key.
const (
	CursorField  = "_ab_cdc_cursor"
	updatedField = "_ab_cdc_updated_at"
	deletedField = "_ab_cdc_deleted_at"
	metaMember   = "_meta"
)

// Fields are what records get beside a document's own fields: names, and JSON pointers to numbers in the document's _meta.
// They are what Airbyte's own sources of that system have, such as _ab_cdc_lsn.
type Fields map[string]string

// schemas describe the fields.
func (f Fields) schemas() map[string]map[string]json.RawMessage {
	out := map[string]map[string]json.RawMessage{
		CursorField:  {"type": json.RawMessage(`["integer","null"]`)},
		updatedField: {"type": json.RawMessage(`["string","null"]`)},
		deletedField: {"type": json.RawMessage(`["string","null"]`)},
	}
	for name := range f {
		out[name] = map[string]json.RawMessage{"type": json.RawMessage(`["number","null"]`)}
	}
	return out
}

// A Recorder makes records of one stream's documents. It is used by one goroutine.
type Recorder struct {
	start    []byte // of a line, up to emitted_at
	names    []string
	pointers *jsonscan.Pointers
	values   [][]byte
}

// NewRecorder makes the recorder of a stream.
func NewRecorder(d Descriptor, fields Fields) *Recorder {
	r := &Recorder{start: []byte(`{"type":"RECORD","record":{`)}
	if d.Namespace != "" {
		r.start = append(rowjson.AppendText(append(r.start, `"namespace":`...), d.Namespace), ',')
	}
	r.start = append(rowjson.AppendText(append(r.start, `"stream":`...), d.Name), `,"emitted_at":`...)
	pointers := []string{"/op", "/source/ts_ms", "/ts_ms"}
	for name, pointer := range fields {
		r.names = append(r.names, name)
		pointers = append(pointers, pointer)
	}
	r.pointers = jsonscan.NewPointers(pointers)
	r.values = make([][]byte, len(pointers))
	return r
}

// Append appends a document as a record, on one line: its own fields without _meta, and what Fields and change captures have
// from there. The cursor orders records of one key. The document stays its caller's.
func (r *Recorder) Append(dst, doc []byte, now time.Time, cursor int64) []byte {
	dst = strconv.AppendInt(append(dst, r.start...), now.UnixMilli(), 10)
	dst = append(dst, `,"data":{`...)
	var meta []byte
	members := jsonscan.NewMembers(doc)
	for {
		key, value, ok := members.Next()
		if !ok {
			break
		}
		if string(key) == metaMember {
			meta = value
			continue
		}
		dst = append(append(append(dst, '"'), key...), '"', ':')
		dst = append(jsonscan.AppendLine(dst, value), ',')
	}
	dst = append(dst, `"`+CursorField+`":`...)
	dst = strconv.AppendInt(dst, cursor, 10)
	dst = r.appendMeta(dst, meta, now)
	return append(dst, "}}}\n"...)
}

func (r *Recorder) appendMeta(dst, meta []byte, now time.Time) []byte {
	clear(r.values)
	if len(meta) > 0 {
		r.pointers.Find(meta, r.values)
	}
	at := now
	for _, v := range r.values[1:3] {
		if ms, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			at = time.UnixMilli(ms)
			break
		}
	}
	dst = append(dst, `,"`+updatedField+`":`...)
	dst = appendTime(dst, at)
	dst = append(dst, `,"`+deletedField+`":`...)
	if string(r.values[0]) == `"d"` {
		dst = appendTime(dst, at)
	} else {
		dst = rowjson.AppendNull(dst)
	}
	for i, name := range r.names {
		dst = append(rowjson.AppendText(append(dst, ','), name), ':')
		if v := r.values[3+i]; len(v) > 0 {
			dst = append(dst, v...)
		} else {
			dst = rowjson.AppendNull(dst)
		}
	}
	return dst
}

func appendTime(dst []byte, at time.Time) []byte {
	return append(at.UTC().AppendFormat(append(dst, '"'), "2006-01-02T15:04:05.000Z"), '"')
}
