package frame

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sluicedata/sluice/protocol/internal/fieldpath"
	"github.com/sluicedata/sluice/protocol/internal/rawjson"
)

const (
	internalName = "$internal" // private to a foreign runtime's parts: never read, never written

	timestampName protoreflect.FullName = "google.protobuf.Timestamp"
	durationName  protoreflect.FullName = "google.protobuf.Duration"
)

// alwaysWritten are fields whose zero value a peer does not assume when the name is missing: the Python connectors
// require the interval to be there, and take a missing end of a range for the full range's end.
//
//nolint:gochecknoglobals // lookup table
var alwaysWritten = map[protoreflect.FullName]bool{
	"sluice.flow.CaptureSpec.interval_seconds": true,
	"sluice.flow.RangeSpec.key_end":            true,
	"sluice.flow.RangeSpec.r_clock_end":        true,
}

// isRaw tells whether a field holds JSON text, which the JSON codec embeds as it is. The name says so.
func isRaw(fd protoreflect.FieldDescriptor) bool {
	value := fd
	if fd.IsMap() {
		value = fd.MapValue()
	}
	if value.Kind() != protoreflect.BytesKind {
		return false
	}
	name := string(fd.Name())
	return strings.HasSuffix(name, "_json") || strings.HasSuffix(name, "_json_map") || strings.HasSuffix(name, "_json_vec")
}

// appendJSON appends a message as one JSON object on one line, with its fields in the order of the .proto file.
func appendJSON(dst []byte, m protoreflect.Message) ([]byte, error) {
	switch m.Descriptor().FullName() {
	case timestampName:
		return appendTimestamp(dst, m.Interface())
	case durationName:
		return appendDuration(dst, m.Interface())
	}
	dst = append(dst, '{')
	first := true
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if fd.JSONName() == internalName || !m.Has(fd) && !alwaysWritten[fd.FullName()] {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(append(append(dst, '"'), fd.JSONName()...), '"', ':')
		var err error
		if dst, err = appendField(dst, fd, m.Get(fd)); err != nil {
			return dst, fieldpath.In(fd.JSONName(), err)
		}
	}
	return append(dst, '}'), nil
}

func appendField(dst []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) ([]byte, error) {
	switch {
	case fd.IsMap():
		return appendMap(dst, fd, v.Map())
	case fd.IsList():
		return appendList(dst, fd, v.List())
	case isRaw(fd):
		return appendRaw(dst, v.Bytes())
	}
	return appendValue(dst, fd, v)
}

func appendList(dst []byte, fd protoreflect.FieldDescriptor, list protoreflect.List) ([]byte, error) {
	dst = append(dst, '[')
	for i := range list.Len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if isRaw(fd) {
			dst, err = appendRaw(dst, list.Get(i).Bytes())
		} else {
			dst, err = appendValue(dst, fd, list.Get(i))
		}
		if err != nil {
			return dst, fieldpath.At(i, err)
		}
	}
	return append(dst, ']'), nil
}

// appendMap writes the entries in the order of their keys. All maps of the protocol have string keys.
func appendMap(dst []byte, fd protoreflect.FieldDescriptor, m protoreflect.Map) ([]byte, error) {
	keys := make([]string, 0, m.Len())
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k.String())
		return true
	})
	slices.Sort(keys)
	dst = append(dst, '{')
	for i, key := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = rawjson.AppendString(dst, key); err != nil {
			return dst, err
		}
		dst = append(dst, ':')
		value := m.Get(protoreflect.ValueOfString(key).MapKey())
		if isRaw(fd) {
			dst, err = appendRaw(dst, value.Bytes())
		} else {
			dst, err = appendValue(dst, fd.MapValue(), value)
		}
		if err != nil {
			return dst, fieldpath.In(strconv.Quote(key), err)
		}
	}
	return append(dst, '}'), nil
}

func appendRaw(dst, text []byte) ([]byte, error) {
	if len(text) == 0 { // an entry of a map or list that says nothing
		return append(dst, "null"...), nil
	}
	if err := rawjson.Check(text); err != nil {
		return dst, err
	}
	return rawjson.AppendLine(dst, text), nil
}

func appendValue(dst []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) ([]byte, error) {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return appendJSON(dst, v.Message())
	case protoreflect.StringKind:
		return rawjson.AppendString(dst, v.String())
	case protoreflect.BytesKind:
		dst = base64.StdEncoding.AppendEncode(append(dst, '"'), v.Bytes())
		return append(dst, '"'), nil
	case protoreflect.BoolKind:
		return strconv.AppendBool(dst, v.Bool()), nil
	case protoreflect.EnumKind:
		return appendEnum(dst, fd.Enum(), v.Enum()), nil
	case protoreflect.Int32Kind:
		return strconv.AppendInt(dst, v.Int(), 10), nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return strconv.AppendUint(dst, v.Uint(), 10), nil
	case protoreflect.Int64Kind:
		return append(strconv.AppendInt(append(dst, '"'), v.Int(), 10), '"'), nil
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return append(strconv.AppendUint(append(dst, '"'), v.Uint(), 10), '"'), nil
	case protoreflect.DoubleKind:
		return appendDouble(dst, v.Float()), nil
	default: // the protocol has no fields of the other kinds, which a test of all fields shows
		return dst, fmt.Errorf("no JSON form for the kind %v", fd.Kind())
	}
}

// appendEnum writes the value's name, or its number when this version knows no name for it.
func appendEnum(dst []byte, ed protoreflect.EnumDescriptor, n protoreflect.EnumNumber) []byte {
	if value := ed.Values().ByNumber(n); value != nil {
		return append(append(append(dst, '"'), value.Name()...), '"')
	}
	return strconv.AppendInt(dst, int64(n), 10)
}

func appendDouble(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

func appendTimestamp(dst []byte, m proto.Message) ([]byte, error) {
	t, ok := m.(*timestamppb.Timestamp)
	if !ok {
		return dst, errors.New("timestamps of other Go types are not supported")
	}
	if err := t.CheckValid(); err != nil {
		return dst, err
	}
	return append(t.AsTime().AppendFormat(append(dst, '"'), time.RFC3339Nano), '"'), nil
}

func appendDuration(dst []byte, m proto.Message) ([]byte, error) {
	d, ok := m.(*durationpb.Duration)
	if !ok {
		return dst, errors.New("durations of other Go types are not supported")
	}
	if err := d.CheckValid(); err != nil {
		return dst, err
	}
	seconds, nanos := d.GetSeconds(), d.GetNanos()
	dst = append(dst, '"')
	if seconds < 0 || nanos < 0 {
		dst, seconds, nanos = append(dst, '-'), -seconds, -nanos
	}
	dst = strconv.AppendInt(dst, seconds, 10)
	if nanos != 0 {
		dst = append(dst, '.')
		dst = append(dst, strings.TrimRight(fmt.Sprintf("%09d", nanos), "0")...)
	}
	return append(dst, 's', '"'), nil
}
