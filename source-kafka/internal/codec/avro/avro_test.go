package avro

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/avro"
)

func compile(t testing.TB, text string, opts Options, refs ...Text) *Schema {
	s, err := Compile(text, refs, opts)
	require.NoError(t, err, "%s", text)
	return s
}

func zigzag(values ...int64) []byte {
	var b []byte
	for _, v := range values {
		b = binary.AppendVarint(b, v)
	}
	return b
}

func TestValues(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		schema string
		data   []byte
		want   string // or, with a leading "!", the error
	}{
		{`"int"`, zigzag(math.MinInt32), `-2147483648`},
		{`"int"`, zigzag(math.MaxInt32 + 1), `!an int in it has more than 32 bits`},
		{`"long"`, zigzag(math.MinInt64), `-9223372036854775808`},
		{`"long"`, []byte(strings.Repeat("\xff", 9) + "\x02"), `!a number in it has too many bytes`},
		{`"long"`, []byte(strings.Repeat("\xff", 11)), `!a number in it has too many bytes`},
		{`"long"`, []byte("\x80"), `!it ends in the middle of a value`},
		{`"long"`, []byte("\x02\x02"), `!1 bytes are left behind its value`},
		{`"boolean"`, []byte{2}, `!a boolean in it is the byte 2`},
		{`"string"`, append(zigzag(1), 0xff), `!a text in it holds bytes that are not UTF-8`},
		{`"string"`, zigzag(-1), `!it ends in the middle of a value`},
		{`"bytes"`, zigzag(math.MaxInt64), `!it ends in the middle of a value`},
		{`["null","long"]`, zigzag(2), `!a union of 2 branches has no branch 2`},
		{`["null","long"]`, zigzag(-1), `!a union of 2 branches has no branch -1`},
		{`{"type":"enum","name":"E","symbols":["A"]}`, zigzag(1), `!the enum "E" has no symbol 1`},
		{`{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"record","name":"S","fields":[{"name":"b","type":"int"}]}}]}`, nil, `!field "a.b": it ends in the middle of a value`},
		{`{"type":"record","name":"R","fields":[]}`, nil, `{}`},
		{
			`{"type":"record","name":"R","fields":[{"name":"a_name_of_20_letters","type":"int"},{"name":"a_name_of_22__letters_","type":"int"},{"name":"one_that_is_longer_than_those","type":"int"}]}`,
			zigzag(1, 2, 3), `{"a_name_of_20_letters":1,"a_name_of_22__letters_":2,"one_that_is_longer_than_those":3}`,
		},

		// Blocks: several, and with a size for those who skip.
		{`{"type":"array","items":"int"}`, zigzag(2, 1, 2, -1, 1, 3, 0), `[1,2,3]`},
		{`{"type":"array","items":"int"}`, zigzag(-1, 99, 3, 0), `!it ends in the middle of a value`},
		{`{"type":"array","items":"int"}`, zigzag(-1, -1, 3, 0), `!it ends in the middle of a value`},
		{`{"type":"array","items":"int"}`, zigzag(1<<40, 3, 0), `!it claims too many elements`},
		{`{"type":"array","items":"int"}`, zigzag(math.MinInt64, 0, 0), `!it claims too many elements`},
		{`{"type":"array","items":"int"}`, zigzag(1<<30, 3, 0), `!it ends in the middle of a value`},
		{`{"type":"array","items":"null"}`, zigzag(2, 0), `[null,null]`},
		{`{"type":"array","items":"null"}`, zigzag(1<<30, 0), `!it claims too many elements`},
		{`{"type":"array","items":{"type":"record","name":"R","fields":[]}}`, zigzag(1<<19, 1<<19, 1<<19, 0), `!it claims too many elements`},
		{`{"type":"map","values":"int"}`, append(append(zigzag(-1, 3, 1), "ab"[0]), zigzag(7, 0)...), `{"a":7}`},
		{`{"type":"map","values":"null"}`, zigzag(1<<30, 0), `!it ends in the middle of a value`},

		// Unions are plain unless two branches could be taken for each other.
		{`["null","string"]`, append(zigzag(1, 1), 'a'), `"a"`},
		{`["int","double"]`, zigzag(0, 5), `5`},
		{`["string",{"type":"enum","name":"E","symbols":["A"]}]`, zigzag(1, 0), `"A"`},
		{`["string","bytes"]`, append(zigzag(1, 1), 'a'), `{"bytes":"YQ=="}`},
		{`["string","bytes"]`, append(zigzag(0, 1), 'a'), `{"string":"a"}`},
		{`["null",{"type":"record","name":"a.R","fields":[]},{"type":"map","values":"int"}]`, zigzag(1), `{"a.R":{}}`},
		{`["null",{"type":"record","name":"a.R","fields":[]},{"type":"map","values":"int"}]`, zigzag(0), `null`},
		{`["null",{"type":"record","name":"a.R","fields":[]},"int"]`, zigzag(1), `{}`},

		{`{"type":"int","logicalType":"date"}`, zigzag(0), `"1970-01-01"`},
		{`{"type":"int","logicalType":"date"}`, zigzag(-719162), `"0001-01-01"`},
		{`{"type":"int","logicalType":"date"}`, zigzag(math.MinInt32), `"0001-01-01"`},
		{`{"type":"int","logicalType":"date"}`, zigzag(math.MaxInt32), `"9999-12-31"`},
		{`{"type":"int","logicalType":"time-millis"}`, zigzag(3_723_004), `"01:02:03.004Z"`},
		{`{"type":"int","logicalType":"time-millis"}`, zigzag(86_400_000), `!a time of day in it is 86400000, which no day has`},
		{`{"type":"long","logicalType":"time-micros"}`, zigzag(86_399_999_999), `"23:59:59.999999Z"`},
		{`{"type":"long","logicalType":"timestamp-millis"}`, zigzag(-1), `"1969-12-31T23:59:59.999Z"`},
		{`{"type":"long","logicalType":"timestamp-millis"}`, zigzag(math.MaxInt64), `"9999-12-31T23:59:59Z"`},
		{`{"type":"long","logicalType":"timestamp-micros"}`, zigzag(1_000_001), `"1970-01-01T00:00:01.000001Z"`},
		{`{"type":"long","logicalType":"timestamp-nanos"}`, zigzag(math.MinInt64), `"1677-09-21T00:12:43.145224192Z"`},
		{`{"type":"long","logicalType":"local-timestamp-millis"}`, zigzag(1000), `"1970-01-01T00:00:01Z"`},
		{`{"type":"long","logicalType":"date"}`, zigzag(5), `5`},

		{`{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`, zigzag(0), `"0.00"`},
		{`{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`, append(zigzag(1), 0xff), `"-0.01"`},
		{`{"type":"bytes","logicalType":"decimal","precision":4,"scale":4}`, append(zigzag(2), 0x30, 0x39), `"1.2345"`},
		{`{"type":"bytes","logicalType":"decimal","precision":20}`, append(zigzag(8), "\x80\x00\x00\x00\x00\x00\x00\x00"...), `"-9223372036854775808"`},
		{`{"type":"bytes","logicalType":"decimal","precision":2,"scale":3}`, append(zigzag(1), 1), `"AQ=="`},
		{`{"type":"bytes","logicalType":"big-decimal"}`, append(append(zigzag(3, 1), 123), zigzag(2)...), `"1.23"`},
		{`{"type":"bytes","logicalType":"big-decimal"}`, append(append(zigzag(3, 1), 123), zigzag(-2)...), `"123e2"`},
		{`{"type":"bytes","logicalType":"big-decimal"}`, append(append(zigzag(6, 1), 123), zigzag(1<<20)...), `!a big-decimal in it is none`},
		{`{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}`, []byte("0123456789abcdef"), `"30313233-3435-3637-3839-616263646566"`},
		{`{"type":"fixed","name":"U","size":2,"logicalType":"uuid"}`, []byte("ab"), `"YWI="`},
		{`{"type":"string","logicalType":"uuid"}`, append(zigzag(1), 'x'), `"x"`},
	} {
		got, err := compile(t, c.schema, Options{}).Append(nil, c.data)
		if want, ok := strings.CutPrefix(c.want, "!"); ok {
			require.EqualError(t, err, want, "%s of %x", c.schema, c.data)
			continue
		}
		require.NoError(t, err, "%s of %x", c.schema, c.data)
		require.Equal(t, c.want, string(got), "%s of %x", c.schema, c.data)
	}
}

func TestKeysAreNeverTheNearestTime(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{`{"type":"int","logicalType":"date"}`, `{"type":"long","logicalType":"timestamp-millis"}`} {
		s := compile(t, schema, Options{Key: true})
		_, err := s.Append(nil, zigzag(math.MaxInt32))
		if strings.Contains(schema, "long") {
			_, err = s.Append(nil, zigzag(math.MaxInt64))
		}
		require.EqualError(t, err, "a time in it lies beyond the years 1 to 9999, which no key can hold")
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	// Names within a namespace, over references that need each other.
	refs := []Text{
		{"a.F", `{"type":"fixed","name":"F","namespace":"a","size":1}`},
		{"a.R", `{"type":"record","name":"a.R","fields":[{"name":"f","type":"F"},{"name":"g","type":"a.F"}]}`},
	}
	s := compile(t, `{"type":"record","name":"Top","namespace":"a","fields":[
		{"name":"r","type":"R"},{"name":"x","type":{"type":{"type":"string","avro.java.string":"String"}}},
		{"name":"e","type":{"type":"enum","name":"E","symbols":["A"],"default":"A"}},{"name":"again","type":["null","a.E"]}]}`, Options{}, refs...)
	require.Equal(t, "a.Top", s.Name())
	got, err := s.Append(nil, append([]byte("12"), zigzag(0, 0, 1, 0)...))
	require.NoError(t, err)
	require.Equal(t, `{"r":{"f":"MQ==","g":"Mg=="},"x":"","e":"A","again":"A"}`, string(got))

	got, err = compile(t, "a.F", Options{}, refs[0]).Append(nil, []byte("1"))
	require.NoError(t, err)
	require.Equal(t, `"MQ=="`, string(got))
}

// Every day of the years 1 to 9999 is what Go's calendar calls it.
func TestDays(t *testing.T) {
	t.Parallel()
	var got, want []byte
	for at := time.Unix(firstSecond, 0).UTC(); at.Unix() <= lastSecond; at = at.AddDate(0, 0, 1) {
		got, want = appendDay(got[:0], at.Unix()/secondsPerDay), at.AppendFormat(want[:0], time.DateOnly)
		if !bytes.Equal(want, got) {
			require.Equal(t, string(want), string(got))
		}
	}
	require.Equal(t, "9999-12-31", string(got))
}

// TestWrongSchemas holds what users read of schemas that cannot be used.
func TestWrongSchemas(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{`:                             `its text is no JSON: unexpected EOF`,
		`"nobody"`:                      `it names a type "nobody" that it does not define`,
		`5`:                             `5 is no type`,
		`{}`:                            `an object in it has no type`,
		`[]`:                            `it has a union without branches`,
		`["int",["int"]]`:               `it has a union directly within a union`,
		`{"type":"record","fields":[]}`: `a named type in it has no name`,
		`{"type":"record","name":"R"}`:  `the record "R" has no list of fields`,
		`{"type":"record","name":"R","fields":[{"type":"int"}]}`:                                  `field 1 of the record "R" has no name of its own`,
		`{"type":"record","name":"R","fields":[{"name":"a"}]}`:                                    `field "a" of the record "R": it has no type`,
		`{"type":"record","name":"R","fields":[{"name":"a","type":"x"}]}`:                         `field "a" of the record "R": it names a type "x" that it does not define`,
		`{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":1}]}`: `field 2 of the record "R" has no name of its own`,
		`[{"type":"fixed","name":"F","size":1},{"type":"fixed","name":"F","size":1}]`:             `branch 2 of a union: it defines "F" twice`,
		`{"type":"fixed","name":"F","size":-1}`:                                                   `the fixed "F" has no size`,
		`{"type":"enum","name":"E","symbols":[]}`:                                                 `the enum "E" has no symbols`,
		strings.Repeat(`{"type":"array","items":`, 2000) + `"int"` + strings.Repeat("}", 2000):    `it is nested too deep`,
	} {
		_, err := Compile(text, nil, Options{})
		require.Error(t, err, "%s", text)
		require.True(t, strings.HasSuffix(err.Error(), want), "%s: %s", text, err)
	}
	_, err := Compile(`"int"`, []Text{{"a.R", `"b"`}}, Options{})
	require.EqualError(t, err, `what it refers to as "a.R": it names a type "b" that it does not define`)
}

func TestValuesWithinThemselvesEnd(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}`, Options{})
	_, err := s.Append(nil, nil)
	require.ErrorContains(t, err, "it is nested too deep")
	s = compile(t, `{"type":"record","name":"R","fields":[{"name":"r","type":{"type":"array","items":"R"}}]}`, Options{})
	_, err = s.Append(nil, []byte(strings.Repeat("\x02", 5000)))
	require.ErrorContains(t, err, "it is nested too deep")
	require.Less(t, len(err.Error()), 500)
}

func TestDescription(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"type":"record","name":"a.R","doc":"a row","fields":[
		{"name":"id","type":"long","doc":"its number"},
		{"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
		{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
		{"name":"next","type":["null","a.R"]},
		{"name":"tags","type":{"type":"map","values":["null","string","int"]}},
		{"name":"inner","type":["null",{"type":"record","name":"S","fields":[{"name":"x","type":"double"}]}],"doc":"inside"}]}`, Options{})
	require.JSONEq(t, `{"$defs":{"a.R":`+body+`},`+body[1:], string(s.Describe().JSON("")))
}

const body = `{"type":"object","title":"a.R","description":"a row","required":["id","price","at","next","tags","inner"],"properties":{
	"id":{"type":"integer","description":"its number"},
	"price":{"type":"string","format":"number","x-decimal":{"precision":9,"scale":2}},
	"at":{"type":["string","null"],"format":"date-time"},
	"next":{"anyOf":[{"$ref":"#/$defs/a.R"},{"type":"null"}]},
	"tags":{"type":"object","additionalProperties":{"type":["string","integer","null"]}},
	"inner":{"type":["object","null"],"title":"a.S","description":"inside","required":["x"],"properties":{"x":{"type":["number","string"],"format":"number"}}}}}`

func TestKeys(t *testing.T) {
	t.Parallel()
	fields := func(f string) string { return `{"type":"record","name":"R","fields":[` + f + `]}` }
	id := `{"name":"id","type":"long"}`
	for text, want := range map[string][]string{
		`"string"`:          {""},
		`"double"`:          nil,
		`["null","string"]`: nil,
		fields(``):          nil,
		fields(id):          {"/id"},
		fields(id + `,{"name":"a~b","type":{"type":"record","name":"S","fields":[{"name":"x","type":"bytes"}]}}`): {"/id", "/a~0b/x"},
		fields(id + `,{"name":"o","type":["null","int"]}`):                                                        nil,
		fields(id + `,{"name":"o","type":["string","int"]}`):                                                      nil,
		fields(id + `,{"name":"o","type":"float"}`):                                                               nil,
		fields(id + `,{"name":"o","type":{"type":"array","items":"int"}}`):                                        nil,
		fields(id + `,{"name":"o","type":{"type":"map","values":"int"}}`):                                         nil,
		fields(id + `,{"name":"o","type":"R"}`):                                                                   nil,
		fields(`{"name":"d","type":{"type":"int","logicalType":"date"}}`):                                         {"/d"},
		fields(`{"name":"e","type":{"type":"enum","name":"E","symbols":["A"]}}`):                                  {"/e"},
	} {
		require.Equal(t, want, compile(t, text, Options{}).Describe().Keys(), "%s", text)
	}
}

// TestAppendAllocatesNothing keeps the hot path free of allocations.
func TestAppendAllocatesNothing(t *testing.T) {
	s := compile(t, tenFields, Options{})
	data := tenFieldsRecord(t)
	dst := make([]byte, 0, 4096)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if _, err := s.Append(dst, data); err != nil {
			t.Fatal(err)
		}
	}))
}

// tenFields is a row as applications have it.
const tenFields = `{"type":"record","name":"shop.Order","fields":[
	{"name":"id","type":"long"},{"name":"customer","type":"string"},{"name":"email","type":["null","string"]},
	{"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
	{"name":"status","type":{"type":"enum","name":"Status","symbols":["NEW","PAID","SENT"]}},
	{"name":"created","type":{"type":"long","logicalType":"timestamp-micros"}},
	{"name":"weight","type":"double"},{"name":"express","type":"boolean"},
	{"name":"note","type":["null","string"]},{"name":"quantity","type":"int"}]}`

func tenFieldsRecord(t testing.TB) []byte {
	library, err := avro.Parse(tenFields)
	require.NoError(t, err)
	data, err := library.Encode(map[string]any{
		"id": int64(123456789), "customer": "Ada Lovelace, London", "email": "ada@example.com",
		"amount": json.Number("1234.56"), "status": "PAID", "created": int64(1_760_000_000_123_456), "weight": 12.75,
		"express": true, "note": nil, "quantity": int32(3),
	})
	require.NoError(t, err)
	return data
}

func BenchmarkAppend(b *testing.B) {
	s := compile(b, tenFields, Options{})
	data := tenFieldsRecord(b)
	out, err := s.Append(nil, data)
	require.NoError(b, err)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(out)))
		var dst []byte
		for b.Loop() {
			dst, _ = s.Append(dst[:0], data)
		}
	})
	// What the library offers: decode into maps, then write them as JSON.
	library, err := avro.Parse(tenFields)
	require.NoError(b, err)
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(out)))
		var dst []byte
		for b.Loop() {
			var v any
			if _, err := library.Decode(data, &v); err != nil {
				b.Fatal(err)
			}
			if dst, err = library.AppendEncodeJSON(dst[:0], v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// FuzzAppend holds that no bytes, whatever schema they are read by, make a panic, invalid JSON, or more output than they
// can pay for.
func FuzzAppend(f *testing.F) {
	f.Add([]byte(tenFields), tenFieldsRecord(f))
	f.Add([]byte(`{"type":"array","items":["null","string","bytes",{"type":"map","values":"float"}]}`), zigzag(2, 0, 3, 1, 0, 0, 0))
	f.Add([]byte(`{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}`), zigzag(1, 1, 0))
	f.Add([]byte(`{"type":"bytes","logicalType":"big-decimal"}`), append(append(zigzag(3, 1), 123), zigzag(2)...))
	f.Fuzz(func(t *testing.T, text, data []byte) {
		s, err := Compile(string(text), nil, Options{})
		if err != nil {
			return
		}
		out, err := s.Append(nil, data)
		if err != nil {
			return
		}
		require.True(t, json.Valid(out), "%q", out)
		validate(t, compileJSONSchema(t, s.Describe().JSON("")), out)
	})
}
