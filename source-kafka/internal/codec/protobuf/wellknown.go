package protobuf

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

// wellKnown appends a message of a type that has a JSON form of its own; its fields' spans begin at the given index.
type wellKnown func(d *Decoder, dst []byte, m *message, at int) ([]byte, error)

// wellKnownType is how messages of a well-known type are written; nil for all other types.
func wellKnownType(name protoreflect.FullName) wellKnown {
	switch name {
	case "google.protobuf.Timestamp":
		return appendTimestamp
	case "google.protobuf.Duration":
		return appendDuration
	case "google.protobuf.FieldMask":
		return appendFieldMask
	case "google.protobuf.Value":
		return appendValue
	case "google.protobuf.Any":
		return appendAny
	case "google.protobuf.Struct", "google.protobuf.ListValue", "google.protobuf.DoubleValue", "google.protobuf.FloatValue",
		"google.protobuf.Int64Value", "google.protobuf.UInt64Value", "google.protobuf.Int32Value", "google.protobuf.UInt32Value",
		"google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue":
		return appendFirst
	default:
		return nil
	}
}

// appendFirst appends a message of one field as that field: wrappers, structures and their lists.
func appendFirst(d *Decoder, dst []byte, m *message, at int) ([]byte, error) {
	return d.field(dst, &m.fields[0], d.spans[at])
}

// appendValue appends any JSON value: the one field that is set.
func appendValue(d *Decoder, dst []byte, m *message, at int) ([]byte, error) {
	for i := range m.fields {
		f := &m.fields[i]
		if s := d.spans[at+i]; s.first >= 0 && f.name != "null_value" {
			return d.field(dst, f, s)
		}
	}
	return append(dst, "null"...), nil
}

// The seconds of the years 1 to 9999, which is what the type allows.
const (
	firstSecond = -62135596800
	lastSecond  = 253402300799
	maxSeconds  = 315576000000 // of a duration, by its definition
)

func appendTimestamp(d *Decoder, dst []byte, m *message, at int) ([]byte, error) {
	seconds, nanos := d.number(m, at, "seconds"), int64(int32(d.number(m, at, "nanos")))
	if seconds < firstSecond || seconds > lastSecond || nanos < 0 || nanos >= 1e9 {
		return dst, errors.New("a Timestamp in it lies beyond the years 1 to 9999")
	}
	dst = time.Unix(seconds, 0).UTC().AppendFormat(append(dst, '"'), "2006-01-02T15:04:05")
	return append(appendNanos(dst, nanos), 'Z', '"'), nil
}

func appendDuration(d *Decoder, dst []byte, m *message, at int) ([]byte, error) {
	seconds, nanos := d.number(m, at, "seconds"), int64(int32(d.number(m, at, "nanos")))
	if seconds < -maxSeconds || seconds > maxSeconds || nanos <= -1e9 || nanos >= 1e9 ||
		(seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0) {
		return dst, errors.New("a Duration in it is none")
	}
	dst = append(dst, '"')
	if seconds < 0 || nanos < 0 {
		dst = append(dst, '-')
		seconds, nanos = -seconds, -nanos
	}
	dst = strconv.AppendInt(dst, seconds, 10)
	return append(appendNanos(dst, nanos), 's', '"'), nil
}

// appendNanos appends a part of a second in 3, 6 or 9 digits, nothing if it is zero.
func appendNanos(dst []byte, nanos int64) []byte {
	if nanos == 0 {
		return dst
	}
	dst = append(dst, '.')
	digits := 9
	for digits > 3 && nanos%1000 == 0 {
		nanos /= 1000
		digits -= 3
	}
	for scale := [10]int64{3: 100, 6: 100_000, 9: 100_000_000}[digits]; scale > 0; scale /= 10 {
		dst = append(dst, byte('0'+nanos/scale%10))
	}
	return dst
}

// appendFieldMask appends paths, separated by commas, as they are.
func appendFieldMask(d *Decoder, dst []byte, _ *message, at int) ([]byte, error) {
	var all []byte
	for e := d.spans[at].first; e >= 0; e = d.entries[e].next {
		if len(all) > 0 {
			all = append(all, ',')
		}
		all = append(all, d.entries[e].value...)
	}
	if !utf8.Valid(all) {
		return dst, errUTF8
	}
	return rowjson.AppendString(dst, all), nil
}

// appendAny appends a message of any type: with its fields if the schema or its imports know the type, else with its bytes.
func appendAny(d *Decoder, dst []byte, m *message, at int) ([]byte, error) {
	url := d.single(m, at, "type_url")
	data := d.single(m, at, "value")
	if !utf8.Valid(url) {
		return dst, errUTF8
	}
	dst = rowjson.AppendString(append(dst, `{"@type":`...), url)
	inner, ok := d.file.types[protoreflect.FullName(lastSegment(url))]
	if !ok || len(bytes.TrimSpace(url)) == 0 {
		dst = rowjson.AppendBase64(append(dst, `,"value":`...), data)
		return append(dst, '}'), nil
	}
	plan := d.file.plan(inner)
	if plan.known != nil {
		dst, err := d.message(append(dst, `,"value":`...), plan, data)
		return append(dst, '}'), err
	}
	if d.depth++; d.depth > maxDepth {
		return dst, errDepth
	}
	entries := len(d.entries)
	spans, err := d.scan(plan, data)
	d.used = max(d.used, len(d.entries))
	if err == nil {
		dst, err = d.members(dst, plan, spans, false)
	}
	d.spans, d.entries = d.spans[:spans], d.entries[:entries]
	d.depth--
	if err != nil {
		return dst, fmt.Errorf("an Any of %s: %w", inner.FullName(), err)
	}
	return append(dst, '}'), nil
}
