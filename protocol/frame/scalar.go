package frame

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluicedata/sluice/protocol/internal/rawjson"
)

// scalar takes a value which is not a message. known is false for a name that an enum of this version lacks: it is dropped,
// as an unknown field is.
func (d *decoder) scalar(fd protoreflect.FieldDescriptor, raw bool) (v protoreflect.Value, known bool, err error) {
	text, err := d.Value()
	if err != nil {
		return v, false, err
	}
	if raw {
		return protoreflect.ValueOfBytes(bytes.Clone(text)), true, nil
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		s, err := rawjson.Unquote(text)
		return protoreflect.ValueOfString(s), true, err
	case protoreflect.BytesKind:
		b, err := parseBase64(text)
		return protoreflect.ValueOfBytes(b), true, err
	case protoreflect.BoolKind:
		if s := string(text); s != "true" && s != "false" {
			return v, false, fmt.Errorf("expected true or false, found %s", cut("%s", text, 32))
		}
		return protoreflect.ValueOfBool(text[0] == 't'), true, nil
	case protoreflect.EnumKind:
		return parseEnum(fd.Enum(), text)
	case protoreflect.Int32Kind:
		n, err := parseInt(text, 32)
		return protoreflect.ValueOfInt32(int32(n)), true, err
	case protoreflect.Int64Kind:
		n, err := parseInt(text, 64)
		return protoreflect.ValueOfInt64(n), true, err
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		n, err := parseUint(text, 32)
		return protoreflect.ValueOfUint32(uint32(n)), true, err
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		n, err := parseUint(text, 64)
		return protoreflect.ValueOfUint64(n), true, err
	case protoreflect.DoubleKind:
		f, err := parseDouble(text)
		return protoreflect.ValueOfFloat64(f), true, err
	default: // the protocol has no fields of the other kinds, which a test of all fields shows
		return v, false, fmt.Errorf("no JSON form for the kind %v", fd.Kind())
	}
}

// number is a number's text; numbers may stand in quotes, whatever their size.
func number(text []byte) string {
	if len(text) >= 2 && text[0] == '"' {
		text = text[1 : len(text)-1]
	}
	return string(text)
}

func parseInt(text []byte, bits int) (int64, error) {
	s := number(text)
	n, err := strconv.ParseInt(s, 10, bits)
	if err == nil {
		return n, nil
	}
	if f, ok := integral(s); ok && f >= -math.Ldexp(1, bits-1) && f < math.Ldexp(1, bits-1) {
		return int64(f), nil
	}
	return 0, fmt.Errorf("expected an integer of %d bits, found %s", bits, cut("%s", text, 32))
}

func parseUint(text []byte, bits int) (uint64, error) {
	s := number(text)
	n, err := strconv.ParseUint(s, 10, bits)
	if err == nil {
		return n, nil
	}
	if f, ok := integral(s); ok && f >= 0 && f < math.Ldexp(1, bits) {
		return uint64(f), nil
	}
	return 0, fmt.Errorf("expected an unsigned integer of %d bits, found %s", bits, cut("%s", text, 32))
}

// integral reads 1.0 and 1e3, which some JSON writers make of integers.
func integral(s string) (float64, bool) {
	if !strings.ContainsAny(s, ".eE") || strings.ContainsAny(s, "xX_iIpP") {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && f == math.Trunc(f)
}

func parseDouble(text []byte) (float64, error) {
	switch s := number(text); s {
	case "NaN":
		return math.NaN(), nil
	case "Infinity":
		return math.Inf(1), nil
	case "-Infinity":
		return math.Inf(-1), nil
	default:
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || rawjson.Check([]byte(s)) != nil {
			return 0, fmt.Errorf("expected a number, found %s", cut("%s", text, 32))
		}
		return f, nil
	}
}

func parseEnum(ed protoreflect.EnumDescriptor, text []byte) (v protoreflect.Value, known bool, err error) {
	if text[0] != '"' {
		n, err := parseInt(text, 32)
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n)), err == nil, err
	}
	name, err := rawjson.Unquote(text)
	if err != nil {
		return v, false, err
	}
	value := ed.Values().ByName(protoreflect.Name(name))
	if value == nil {
		return v, false, nil
	}
	return protoreflect.ValueOfEnum(value.Number()), true, nil
}

// parseBase64 takes the standard and the URL alphabet, with and without padding.
func parseBase64(text []byte) ([]byte, error) {
	s, err := rawjson.Unquote(text)
	if err != nil {
		return nil, errors.New("expected base64 in quotes")
	}
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		encoding = base64.RawURLEncoding
	}
	out, err := encoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return nil, fmt.Errorf("decoding base64: %w", err)
	}
	return out, nil
}

func (d *decoder) timestamp(m protoreflect.Message) error {
	text, err := d.Value()
	if err != nil {
		return err
	}
	s, err := rawjson.Unquote(text)
	if err != nil {
		return fmt.Errorf("expected a time in RFC 3339, found %s", cut("%s", text, 32))
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.UTC().Year() < 1 || t.UTC().Year() > 9999 {
		return fmt.Errorf("expected a time in RFC 3339, found %s", cut("%s", text, 32))
	}
	setSecondsNanos(m, t.Unix(), int32(t.Nanosecond()))
	return nil
}

// duration reads "300s" and "-1.5s".
func (d *decoder) duration(m protoreflect.Message) error {
	text, err := d.Value()
	if err != nil {
		return err
	}
	bad := fmt.Errorf(`expected a duration such as "1.5s", found %s`, cut("%s", text, 32))
	s, err := rawjson.Unquote(text)
	if err != nil || !strings.HasSuffix(s, "s") {
		return bad
	}
	s, negative := strings.CutPrefix(s[:len(s)-1], "-")
	whole, fraction, _ := strings.Cut(s, ".")
	if len(fraction) > 9 {
		return bad
	}
	seconds, err := strconv.ParseUint(whole, 10, 40)
	if err != nil || seconds > 315_576_000_000 { // ten thousand years, the most that a Duration may hold
		return bad
	}
	nanos, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	if err != nil {
		return bad
	}
	if negative {
		setSecondsNanos(m, -int64(seconds), -int32(nanos))
	} else {
		setSecondsNanos(m, int64(seconds), int32(nanos))
	}
	return nil
}

// setSecondsNanos fills a Timestamp or Duration, whose fields 1 and 2 these are.
func setSecondsNanos(m protoreflect.Message, seconds int64, nanos int32) {
	fields := m.Descriptor().Fields()
	m.Set(fields.ByNumber(1), protoreflect.ValueOfInt64(seconds))
	m.Set(fields.ByNumber(2), protoreflect.ValueOfInt32(nanos))
}
