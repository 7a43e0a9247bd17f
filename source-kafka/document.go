package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/source-kafka/internal/codec"
	"github.com/sluicedata/sluice/source-kafka/internal/registry"
)

// Members that documents have beside those of the record's value.
const (
	keyMember   = "_key"   // the record's key
	valueMember = "_value" // the record's value, if it is no object
	metaMember  = "_meta"
)

// documents makes the documents of one topic. It belongs to one goroutine.
type documents struct {
	topic      string
	key, value *codec.Codec
	id         *identity
	meta       metaText
	// The schemas that the last key and the last value followed, and those that were followed when the runtime was last told.
	now, told shapes
	announced map[shapes]bool // since the session began
}

// shapes are the schemas of a key and a value; nil while none has come.
type shapes struct{ key, value *codec.Schema }

func newDocuments(r resource, collectionKey []string, reg *registry.Client) (*documents, error) {
	d := &documents{topic: r.Topic, id: newIdentity(collectionKey), announced: map[shapes]bool{}}
	var errs [2]error
	d.key, errs[0] = codec.New(codec.Options{Topic: r.Topic, Side: codec.Key, Format: codec.Format(r.KeyFormat), Registry: reg})
	d.value, errs[1] = codec.New(codec.Options{Topic: r.Topic, Side: codec.Value, Format: codec.Format(r.ValueFormat), Registry: reg})
	d.meta.topic = append(rowjson.AppendText([]byte(`"topic":`), r.Topic), `,"partition":`...)
	return d, errors.Join(errs[:]...)
}

// append appends the document of a record. A record that cannot be one is a *codec.BadMessage.
func (d *documents) append(ctx context.Context, dst []byte, rec *kgo.Record) ([]byte, error) {
	if err := d.id.missing(rec); err != nil {
		return dst, err
	}
	begin := len(dst)
	dst, err := d.appendValue(ctx, dst, rec)
	if err != nil {
		return dst, err
	}
	if dst, err = d.appendKey(ctx, dst, rec); err != nil {
		return dst, err
	}
	dst = append(d.appendMeta(dst, rec), "}}"...)
	return dst, d.id.check(dst[begin:], rec, d.now.key)
}

// announcement is what the runtime is to be told of the documents' schema, nil if there is nothing new. It is asked for after each
// document; nearly every one follows the schemas of the one before.
func (d *documents) announcement() (json.RawMessage, error) {
	if d.now == d.told {
		return nil, nil //nolint:nilnil // nothing to say
	}
	d.told = d.now
	if d.announced[d.now] {
		return nil, nil //nolint:nilnil // nothing to say
	}
	d.announced[d.now] = true
	return d.sourcedSchema(d.now.key, d.now.value)
}

// appendValue begins the document with the members of the record's value. A tombstone has none.
func (d *documents) appendValue(ctx context.Context, dst []byte, rec *kgo.Record) ([]byte, error) {
	if rec.Value == nil {
		return append(dst, '{'), nil
	}
	begin := len(dst)
	dst, schema, err := d.value.Append(ctx, dst, rec)
	if err != nil {
		return dst, err
	}
	d.now.value = schema
	if dst[begin] != '{' {
		dst = slices.Insert(dst, begin, []byte(`{"`+valueMember+`":`)...)
		return append(dst, ','), nil
	}
	if mayHoldReserved(dst[begin:]) {
		dst = renameMembers(dst, begin)
	}
	dst = dst[:len(dst)-1]
	for c := dst[len(dst)-1]; c == ' ' || c == '\t'; c = dst[len(dst)-1] {
		dst = dst[:len(dst)-1]
	}
	if len(dst) > begin+1 {
		dst = append(dst, ',')
	}
	return dst, nil
}

// appendKey appends the record's key, if it has one.
func (d *documents) appendKey(ctx context.Context, dst []byte, rec *kgo.Record) ([]byte, error) {
	if rec.Key == nil {
		return dst, nil
	}
	dst, schema, err := d.key.Append(ctx, append(dst, `"`+keyMember+`":`...), rec)
	if err != nil {
		return dst, err
	}
	d.now.key = schema
	return append(dst, ','), nil
}

// metaText is what many records of a topic have in common in _meta: all but the offset, while they come from one partition, and from
// one millisecond.
type metaText struct {
	topic         []byte // the first member behind op, and the name of the second
	before, after []byte // the offset of records that are like the last one
	like          kgo.Record
}

// follow makes the text that of records which are like rec.
func (m *metaText) follow(rec *kgo.Record) {
	if l := &m.like; m.before != nil && l.Partition == rec.Partition && l.LeaderEpoch == rec.LeaderEpoch && l.Attrs == rec.Attrs && l.Timestamp.Equal(rec.Timestamp) {
		return
	}
	m.like = kgo.Record{Partition: rec.Partition, LeaderEpoch: rec.LeaderEpoch, Attrs: rec.Attrs, Timestamp: rec.Timestamp}
	m.before = append(rowjson.AppendInt(append(m.before[:0], m.topic...), int64(rec.Partition)), `,"offset":`...)
	after := m.after[:0]
	if rec.LeaderEpoch >= 0 {
		after = rowjson.AppendInt(append(after, `,"epoch":`...), int64(rec.LeaderEpoch))
	}
	if ms := rec.Timestamp.UnixMilli(); ms > 0 {
		after = rowjson.AppendInt(append(after, `,"ts_ms":`...), ms)
		if rec.Attrs.TimestampType() == 1 {
			after = append(after, `,"ts_type":"append"`...)
		} else {
			after = append(after, `,"ts_type":"create"`...)
		}
	}
	m.after = after
}

// appendMeta appends where the record comes from, up to and without the brackets that end the document.
func (d *documents) appendMeta(dst []byte, rec *kgo.Record) []byte {
	d.meta.follow(rec)
	if rec.Value == nil {
		dst = append(dst, `"`+metaMember+`":{"op":"d",`...)
	} else {
		dst = append(dst, `"`+metaMember+`":{"op":"u",`...)
	}
	dst = rowjson.AppendInt(append(dst, d.meta.before...), rec.Offset)
	dst = append(dst, d.meta.after...)
	if len(rec.Headers) > 0 {
		dst = appendHeaders(append(dst, `,"headers":`...), rec.Headers)
	}
	return dst
}

// appendHeaders appends headers in their order, names that repeat included. Values that are no text become base64.
func appendHeaders(dst []byte, headers []kgo.RecordHeader) []byte {
	for i, h := range headers {
		dst = append(dst, "[,"[min(i, 1)])
		dst = rowjson.AppendText(append(dst, `{"name":`...), h.Key)
		switch {
		case h.Value == nil:
			dst = append(dst, `,"value":null}`...)
		case utf8.Valid(h.Value):
			dst = append(rowjson.AppendString(append(dst, `,"value":`...), h.Value), '}')
		default:
			dst = append(rowjson.AppendBase64(append(dst, `,"base64":`...), h.Value), '}')
		}
	}
	return append(dst, ']')
}

// deadletter appends the document of a record that cannot be decoded: what is wrong with it, and its bytes. It fails if the
// collection's key cannot be had.
func (d *documents) deadletter(ctx context.Context, dst []byte, rec *kgo.Record, bad *codec.BadMessage) ([]byte, error) {
	if d.id.inValue || d.id.inKey && (rec.Key == nil || bad.Side == codec.Key) {
		return dst, fmt.Errorf("the collection's key is in the part that is bad: %w", bad)
	}
	begin := len(dst)
	dst = append(dst, '{')
	if bad.Side == codec.Value {
		var err error
		if dst, err = d.appendKey(ctx, dst, rec); err != nil {
			if _, isBad := errors.AsType[*codec.BadMessage](err); d.id.inKey || !isBad {
				return dst[:begin], err
			}
			dst = append(dst[:begin], '{') // both halves are bad, and both are below
		}
	}
	dst = d.appendMeta(dst, rec)
	dst = append(append(dst, `,"bad":{"side":"`...), bad.Side.String()...)
	dst = rowjson.AppendText(append(dst, `","reason":`...), bad.Reason)
	for _, half := range []struct {
		name  string
		bytes []byte
	}{{`,"key":`, rec.Key}, {`,"value":`, rec.Value}} {
		if half.bytes != nil {
			dst = rowjson.AppendBase64(append(dst, half.name...), half.bytes)
		}
	}
	return append(dst, "}}}"...), nil
}

// renameMembers gives members of the object that begins at begin one more underscore if their names are those of our own
// members with any number of underscores before them. So nothing is lost, and no two names become the same.
func renameMembers(dst []byte, begin int) []byte {
	object := dst[begin:]
	found := false
	members := jsonscan.NewMembers(object)
	for name, _, ok := members.Next(); ok && !found; name, _, ok = members.Next() {
		found = reserved(jsonscan.Name(name))
	}
	if !found {
		return dst
	}
	renamed := make([]byte, 0, len(object)+16)
	members = jsonscan.NewMembers(object)
	for name, value, ok := members.Next(); ok; name, value, ok = members.Next() {
		renamed = append(renamed, "{,"[min(len(renamed), 1)])
		if plain := jsonscan.Name(name); reserved(plain) {
			renamed = rowjson.AppendText(renamed, "_"+string(plain))
		} else {
			renamed = append(append(append(renamed, '"'), name...), '"')
		}
		renamed = append(append(renamed, ':'), value...)
	}
	return append(append(dst[:begin], renamed...), '}')
}

// mayHoldReserved finds every object with a member that is named as ours are, and some without. Nearly no value has one, and
// looking for underscores behind quotes costs next to nothing.
func mayHoldReserved(object []byte) bool {
	for rest := object; ; {
		i := bytes.IndexByte(rest, '_')
		if i < 0 {
			break
		}
		if i > 0 && rest[i-1] == '"' {
			return true
		}
		rest = rest[i+1:]
	}
	return bytes.IndexByte(object, '\\') >= 0 && bytes.Contains(object, []byte(`"\u005`))
}

func reserved(name []byte) bool {
	bare := bytes.TrimLeft(name, "_")
	return len(bare) < len(name) && (string(bare) == "key" || string(bare) == "value" || string(bare) == "meta")
}
