package codec

import (
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// decode is the JSON that a codec makes of one value, or the reason why it is bad.
func decode(t testing.TB, format Format, side Side, data []byte, headers ...kgo.RecordHeader) (string, string) {
	c, err := New(Options{Topic: "orders", Side: side, Format: format})
	require.NoError(t, err)
	rec := &kgo.Record{Value: data, Headers: headers}
	if side == Key {
		rec = &kgo.Record{Key: data, Headers: headers}
	}
	out, schema, err := c.Append(t.Context(), []byte("before"), rec)
	require.NotNil(t, schema)
	require.Equal(t, "before", string(out[:6]))
	if err == nil {
		require.True(t, json.Valid(out[6:]), "%q became %q", data, out)
		return string(out[6:]), ""
	}
	require.Equal(t, "before", string(out), "an error leaves the buffer as it was")
	if bad, ok := errors.AsType[*BadMessage](err); ok {
		return "", bad.Reason
	}
	return "", err.Error()
}

func TestRecordsWithoutSchema(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format Format
		side   Side
		data   string
		want   string // or, with a leading "!", a part of the reason
	}{
		{Auto, Value, `{"a":1}`, `{"a":1}`},
		{Auto, Value, "{\"a\":\n1}", `{"a":1}`},
		{Auto, Value, ` {"n":12345678901234567890.10} `, `{"n":12345678901234567890.10}`},
		{Auto, Value, `{"a":1,"a":2}`, `{"a":1,"a":2}`},
		{Auto, Value, `"\ud800"`, `"\ufffd"`},
		{Auto, Value, "null", "null"},
		{Auto, Value, "hello", "!it is no JSON. Set valueFormat to what the topic holds: string, bytes or csv"},
		{Auto, Value, "", "!it is empty, which is no JSON"},
		{Auto, Value, " \n", "!it is empty, which is no JSON"},
		{Auto, Value, "\"\xff\"", "!it holds bytes that are not UTF-8"},
		{Auto, Value, "\xff\xfe", "!it is no JSON, and not even text in UTF-8"},
		{Auto, Value, "\xef\xbb\xbf{}", "!it begins with a byte order mark"},
		{Auto, Value, "\x00\x00\x00\x00", "!it begins with a zero byte, but no schema id follows: it has only 4 bytes"},
		{Auto, Value, "\x00\xff\xff\xff\xff1", "!the number 4294967295 is too large"},
		{Auto, Value, "\x03\x00" + strings.Repeat("g", 16) + "x", "!AWS Glue"},
		{Auto, Value, "\x00\x00\x00\x00\x07data", `!Set schemaRegistry.endpoint, or set valueFormat to bytes`},
		{JSON, Value, "\x00\x00\x00\x00\x07{}", "!set valueFormat to auto"},
		{JSON, Key, `"k"`, `"k"`},
		{Auto, Key, "user-1", `"user-1"`},
		{Auto, Key, "123", `"123"`},
		{Auto, Key, `{"id":1}`, `"{\"id\":1}"`},
		{Auto, Key, "", `""`},
		{Auto, Key, "\xff", "!it holds bytes that are not UTF-8. Set keyFormat to what the topic holds"},
		{String, Value, "a\"b\\\n\x00\u2028é", `"a\"b\\\n\u0000` + "\u2028é\""},
		{String, Value, "\xc3", "!it holds bytes that are not UTF-8"},
		{Bytes, Value, "\x00\xff", `"AP8="`},
		{Bytes, Value, "", `""`},
		{CSV, Value, "a,,\"b,\"\"c\"\"\n\",d", `["a","","b,\"c\"\n","d"]`},
		{CSV, Value, "a,b\r\n", `["a","b"]`},
		{CSV, Value, "", `[""]`},
		{CSV, Value, "a,", `["a",""]`},
		{CSV, Value, "a\nb", "!field 1 holds a quote or a line break, but is not in quotes"},
		{CSV, Value, `a,"b`, "!field 2 has no closing quote"},
		{CSV, Value, `"b"c`, "!field 1 goes on behind its closing quote"},
		{CSV, Value, "\xff", "!it holds bytes that are not UTF-8"},
		{Avro, Value, `{"a":1}`, "!it names no schema of a registry, as values of the format avro do"},
		{JSONSchema, Key, `{"a":1}`, "!it names no schema of a registry"},
	} {
		got, reason := decode(t, c.format, c.side, []byte(c.data))
		if want, ok := strings.CutPrefix(c.want, "!"); ok {
			require.Contains(t, reason, want, "%q as %s", c.data, c.format)
			continue
		}
		require.Empty(t, reason, "%q as %s", c.data, c.format)
		require.Equal(t, c.want, got, "%q as %s", c.data, c.format)
	}
}

func TestNullIsNoMessage(t *testing.T) {
	t.Parallel()
	for _, f := range Formats() {
		got, reason := decode(t, f, Value, nil)
		require.Empty(t, reason)
		require.Equal(t, "null", got)
	}
}

func TestUnknownFormat(t *testing.T) {
	t.Parallel()
	_, err := New(Options{Format: "xml"})
	require.EqualError(t, err, `The format "xml" does not exist. Choose one of auto, json, avro, protobuf, json-schema, string, bytes, csv.`)
}

func TestHeadersThatNameNoSchema(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"":              "its header __value_schema_id holds no schema id: it is empty",
		"\x01abc":       "its header __value_schema_id holds no schema id: it has only 4 bytes",
		"\x07abcdefghi": "its header __value_schema_id holds no schema id: the first byte is 7",
	} {
		_, reason := decode(t, Auto, Value, []byte(`{}`), kgo.RecordHeader{Key: valueHeader, Value: []byte(value)})
		require.Equal(t, want, reason)
	}
	// The header of the other side says nothing, and formats without schemas do not look.
	got, _ := decode(t, Auto, Value, []byte(`{}`), kgo.RecordHeader{Key: keyHeader, Value: []byte("x")})
	require.Equal(t, `{}`, got)
	got, _ = decode(t, JSON, Value, []byte(`{}`), kgo.RecordHeader{Key: valueHeader, Value: []byte("x")})
	require.Equal(t, `{}`, got)
}

// FuzzText holds the formats without schema against the standard library.
func FuzzText(f *testing.F) {
	for _, s := range []string{`{"a":"\ud83d"}`, "a,\"b\"\"\",c\n", "\x00\x01", "é\xff", `"",`, "\"\r\n\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if data == nil {
			return
		}
		for _, format := range Formats() {
			got, reason := decode(t, format, Value, data)
			require.NotEqual(t, got == "", reason == "")
			if reason != "" {
				continue
			}
			switch format {
			case String:
				var s string
				require.NoError(t, json.Unmarshal([]byte(got), &s))
				require.Equal(t, string(data), s)
			case Bytes:
				require.Equal(t, `"`+base64.StdEncoding.EncodeToString(data)+`"`, got)
			case CSV:
				var fields []string
				require.NoError(t, json.Unmarshal([]byte(got), &fields))
				// The library drops empty lines and changes line breaks within quotes.
				if len(data) == 0 || data[0] == '\n' || strings.Contains(string(data), "\r") {
					continue
				}
				want, err := csv.NewReader(strings.NewReader(string(data))).Read()
				require.NoError(t, err)
				require.Equal(t, want, fields)
			default:
				require.True(t, utf8.Valid(data))
			}
		}
	})
}
