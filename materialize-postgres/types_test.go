package main

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// typeCase is a field and the values that it is stored with: as it is loaded again, and as Postgres shows it.
type typeCase struct {
	column  sinktest.Column
	sqlType string
	values  []typeValue
}

type typeValue struct{ in, loaded, sql string }

func same(in, sql string) typeValue { return typeValue{in, in, sql} }

func typeCases() []typeCase {
	text, null := "string", "null"
	return []typeCase{
		{sinktest.Column{Name: "flag", Types: []string{"boolean", null}}, "boolean", []typeValue{same("true", "true"), same("false", "false")}},
		{sinktest.Column{Name: "int", Types: []string{"integer", null}}, "bigint", []typeValue{
			same("9223372036854775807", "9223372036854775807"), same("-9223372036854775808", "-9223372036854775808"), {"3.0", "3", "3"},
		}},
		{sinktest.Column{Name: "big", Types: []string{"integer", null}, Max: math.MaxUint64}, "numeric", []typeValue{same("18446744073709551615", "18446744073709551615"), same("-1", "-1")}},
		{sinktest.Column{Name: "float", Types: []string{"number", null}}, "double precision", []typeValue{
			same("0.1", "0.1"), same("-1.7976931348623157e+308", "-1.7976931348623157e+308"), same("5e-324", "5e-324"), same("3", "3"),
		}},
		{sinktest.Column{Name: "numeric", Types: []string{text, null}, Format: "number"}, "numeric", []typeValue{
			same(`"1.50"`, "1.50"), same(`"-0.000000000000000000000000000001"`, "-0.000000000000000000000000000001"),
			same(`"123456789012345678901234567890.123456789"`, "123456789012345678901234567890.123456789"), same(`"NaN"`, "NaN"),
			same(`"Infinity"`, "Infinity"), same(`"-Infinity"`, "-Infinity"),
			{`"1e3"`, `"1000"`, "1000"},
			same(`"0.00"`, "0.00"),
			{`7`, `"7"`, "7"},
		}},
		{sinktest.Column{Name: "text", Types: []string{text, null}}, "text", []typeValue{
			same(`"plain"`, "plain"), same(`"ünïcödé 𝄞 \"quoted\" \\ back"`, `ünïcödé 𝄞 "quoted" \ back`), same(`""`, ""),
			{`"nul \u0000 inside"`, `"nul \ufffd inside"`, "nul \ufffd inside"},
			same(`"\\N"`, `\N`),
		}},
		{sinktest.Column{Name: "date", Types: []string{text, null}, Format: "date"}, "date", []typeValue{
			same(`"2024-02-29"`, "2024-02-29"), same(`"0001-01-01"`, "0001-01-01"), same(`"9999-12-31"`, "9999-12-31"), same(`"infinity"`, "infinity"),
		}},
		{sinktest.Column{Name: "at", Types: []string{text, null}, Format: "date-time"}, "timestamp with time zone", []typeValue{
			same(`"2024-02-29T12:34:56.789012Z"`, "2024-02-29 12:34:56.789012+00"), same(`"1969-12-31T23:59:59.5Z"`, "1969-12-31 23:59:59.5+00"),
			{`"2024-01-01T00:00:00+02:00"`, `"2023-12-31T22:00:00Z"`, "2023-12-31 22:00:00+00"},
			{`"2024-01-01T00:00:00.1234567Z"`, `"2024-01-01T00:00:00.123457Z"`, "2024-01-01 00:00:00.123457+00"},
			same(`"infinity"`, "infinity"), same(`"0001-01-01T00:00:00Z"`, "0001-01-01 00:00:00+00"),
		}},
		{sinktest.Column{Name: "time", Types: []string{text, null}, Format: "time"}, "time with time zone", []typeValue{
			same(`"03:04:05.6Z"`, "03:04:05.6+00"), same(`"23:59:59.999999Z"`, "23:59:59.999999+00"), same(`"00:00:00+05:30"`, "00:00:00+05:30"), same(`"12:00:00-15:59"`, "12:00:00-15:59"),
			same(`"24:00:00Z"`, "24:00:00+00"),
		}},
		{sinktest.Column{Name: "interval", Types: []string{text, null}, Format: "duration"}, "interval", []typeValue{
			same(`"P1Y2M3DT4H5M6.7S"`, "1 year 2 mons 3 days 04:05:06.7"), same(`"PT0S"`, "00:00:00"), same(`"P-1M2DT-3H"`, "-1 mons +2 days -03:00:00"),
			{`"P1W"`, `"P7D"`, "7 days"},
			{`"-P1DT0.000001S"`, `"P-1DT-0.000001S"`, "-1 days -00:00:00.000001"},
			same(`"PT2562047788H54.775807S"`, "2562047788:00:54.775807"),
		}},
		{sinktest.Column{Name: "ipv4", Types: []string{text, null}, Format: "ipv4"}, "inet", []typeValue{same(`"10.0.0.1"`, "10.0.0.1/32"), same(`"10.0.0.1/8"`, "10.0.0.1/8")}},
		{sinktest.Column{Name: "ipv6", Types: []string{text, null}, Format: "ipv6"}, "inet", []typeValue{same(`"::1"`, "::1/128"), same(`"2001:db8::ff:0"`, "2001:db8::ff:0/128"), same(`"::ffff:1.2.3.4"`, "::ffff:1.2.3.4/128")}},
		{sinktest.Column{Name: "cidr", Types: []string{text, null}, Format: "cidr"}, "cidr", []typeValue{same(`"10.0.0.0/8"`, "10.0.0.0/8"), same(`"2001:db8::/32"`, "2001:db8::/32")}},
		{sinktest.Column{Name: "mac", Types: []string{text, null}, Format: "macaddr"}, "macaddr", []typeValue{same(`"08:00:2b:01:02:03"`, "08:00:2b:01:02:03"), {`"08-00-2B-01-02-04"`, `"08:00:2b:01:02:04"`, "08:00:2b:01:02:04"}}},
		{sinktest.Column{Name: "mac8", Types: []string{text, null}, Format: "macaddr8"}, "macaddr8", []typeValue{same(`"08:00:2b:01:02:03:04:05"`, "08:00:2b:01:02:03:04:05")}},
		{sinktest.Column{Name: "double", Types: []string{"number", text, null}, Format: "number"}, "double precision", []typeValue{
			same("0.1", "0.1"), same(`"NaN"`, "NaN"), same(`"-Infinity"`, "-Infinity"), {`"1.50"`, "1.5", "1.5"},
		}},
		{sinktest.Column{Name: "jsontext", Types: []string{text, null}, MediaType: "application/json"}, "json", []typeValue{
			same(`"{\"b\" : 1,\n \"b\":2}"`, "{\"b\" : 1,\n \"b\":2}"), same(`"null"`, "null"), same(`"\"\\ud800 \\u0000\""`, `"\ud800 \u0000"`),
		}},
		{sinktest.Column{Name: "uuid", Types: []string{text, null}, Format: "uuid"}, "uuid", []typeValue{
			same(`"01234567-89ab-cdef-0123-456789abcdef"`, "01234567-89ab-cdef-0123-456789abcdef"),
		}},
		{sinktest.Column{Name: "bytes", Types: []string{text, null}, Encoding: "base64"}, "bytea", []typeValue{same(`"AAEC/w=="`, `\x000102ff`), same(`""`, `\x`)}},
		{sinktest.Column{Name: "object", Types: []string{"object", null}}, "jsonb", []typeValue{
			same(`{"a": [1, 2.50, null], "b": {"c": "d"}}`, `{"a": [1, 2.50, null], "b": {"c": "d"}}`),
			{`{"nul":"\u0000","half":"\ud800x","pair":"\ud834\udd1e","not":"\\u0000"}`, `{"nul":"` + "\ufffd" + `","half":"` + "\ufffd" + `x","pair":"𝄞","not":"\\u0000"}`, ""},
		}},
		{sinktest.Column{Name: "array", Types: []string{"array", null}}, "jsonb", []typeValue{same(`[1, "two", {"three": 3}]`, `[1, "two", {"three": 3}]`)}},
		{sinktest.Column{Name: "mixed", Types: []string{text, "integer", "boolean", null}}, "jsonb", []typeValue{same(`"7"`, `"7"`), same(`7`, `7`), same("true", "true")}},
		{sinktest.Column{Name: "inetchosen", Types: []string{text, null}, Config: `{"columnType":"inet"}`}, "inet", []typeValue{same(`"10.1.2.3/8"`, "10.1.2.3/8")}},
		{sinktest.Column{Name: "decimals", Types: []string{"number", text, null}, Format: "number", Config: `{"columnType":"numeric(40,20)"}`}, "numeric(40,20)", []typeValue{
			same(`"12345678901234567890.12345678901234567890"`, "12345678901234567890.12345678901234567890"),
		}},
		{sinktest.Column{Name: "short", Types: []string{"integer", null}, Config: `{"columnType":"int2"}`}, "smallint", []typeValue{same("-32768", "-32768"), same("32767", "32767")}},
		{sinktest.Column{Name: "four", Types: []string{"integer", null}, Config: `{"columnType":"integer"}`}, "integer", []typeValue{same("-2147483648", "-2147483648")}},
		{sinktest.Column{Name: "real", Types: []string{"number", null}, Config: `{"columnType":"real"}`}, "real", []typeValue{same("0.1", "0.1"), same("3", "3")}},
		{sinktest.Column{Name: "clock", Types: []string{text, null}, Format: "time", Config: `{"columnType":"time"}`}, "time without time zone", []typeValue{
			same(`"03:04:05.6Z"`, "03:04:05.6"), {`"00:30:00+01:00"`, `"23:30:00Z"`, "23:30:00"},
		}},
		{sinktest.Column{Name: "moment", Types: []string{text, null}, Format: "date-time", Config: `{"columnType":"timestamp"}`}, "timestamp without time zone", []typeValue{
			same(`"2024-01-02T03:04:05.6Z"`, "2024-01-02 03:04:05.6"), {`"2024-01-01T00:30:00+01:00"`, `"2023-12-31T23:30:00Z"`, "2023-12-31 23:30:00"},
		}},
		{sinktest.Column{Name: "length", Types: []string{text, null}, Config: `{"columnType":"varchar(5)"}`}, "character varying(5)", []typeValue{same(`"five5"`, "five5")}},
		{sinktest.Column{Name: "list", Types: []string{"array", null}, Items: []string{"integer"}, Config: `{"columnType":"numeric[]"}`}, "numeric[]", []typeValue{same(`[1,null,30]`, "{1,NULL,30}")}},
		{sinktest.Column{Name: "cast", Types: []string{"integer", null}, Config: `{"castToString":true}`}, "text", []typeValue{same("7", "7"), same("18446744073709551615", "18446744073709551615")}},
	}
}

// Every type is stored as what it is, and loaded again as what it was, as a value and, where it can be one, as a key.
func TestTypesRoundTrip(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	c := db.sinkCase()
	for i, tc := range typeCases() {
		for _, asKey := range []bool{false, true} {
			if asKey && (slices.Contains(tc.column.Types, "object") || slices.Contains(tc.column.Types, "array") || tc.column.MediaType != "") {
				continue
			}
			codecs := []frame.Codec{frame.Proto, frame.JSON}
			if i%4 != 0 {
				codecs = codecs[:1] // they give the same elements (sdk/materialize)
			}
			for _, codec := range codecs {
				t.Run(fmt.Sprintf("%s/key=%t/%d", tc.column.Name, asKey, codec), func(t *testing.T) {
					t.Parallel()
					roundTrip(t, db, c, codec, tc, asKey)
				})
			}
		}
	}
}

func roundTrip(t *testing.T, db database, c sinktest.Case, codec frame.Codec, tc typeCase, asKey bool) {
	t.Helper()
	col := tc.column
	collection := sinktest.Collection{Name: "acme/t", Columns: []sinktest.Column{{Name: "id", Types: []string{"integer"}, Key: true}}}
	if asKey {
		col.Key = true
		col.Types = withoutNull(col.Types)
	} else {
		col.May = true
	}
	collection.Columns = append(collection.Columns, col, sinktest.Column{Name: "times", Types: []string{"integer"}, May: true})
	table := strings.ToLower(fmt.Sprintf("t_%s_%t_%d", col.Name, asKey, codec))
	r := sinktest.NewRuntime(t, c, codec, sinktest.Task{Name: "acme/" + table, Config: c.Config, Bindings: []sinktest.Binding{
		{Collection: collection, Resource: c.Resource(table, false)},
	}})
	r.Batch = len(tc.values) + 1
	if !asKey {
		r.Log = append(r.Log, sinktest.Change{Doc: fmt.Sprintf(`{"id":-1,%q:null,"times":1}`, col.Name)})
	}
	values := tc.values
	if asKey && col.Name == "text" {
		values = values[:3]
	}
	if asKey && col.Name == "at" {
		values = append(values[:3:3], values[4:]...)
	}
	r.Batch = len(values) + len(r.Log)
	for round := range 2 {
		if round == 1 && !asKey {
			r.Log = append(r.Log, sinktest.Change{Doc: `{"id":-1,"times":2}`})
		}
		for i, v := range values {
			doc := fmt.Sprintf(`{"id":%d,%q:%s,"times":%d}`, i, col.Name, v.in, round)
			if round == 1 && !asKey {
				doc = fmt.Sprintf(`{"id":%d,"times":%d}`, i, round)
			}
			r.Log = append(r.Log, sinktest.Change{Doc: doc})
		}
	}
	loaded := map[string]json.RawMessage{}
	r.OnLoaded = func(doc []byte) {
		var m map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(doc, &m))
		loaded[string(m["id"])] = m[col.Name]
	}
	r.MustApply()
	require.Equal(t, tc.sqlType, db.exec(t, fmt.Sprintf("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'public.%s'::regclass AND attname = '%s'", table, col.Name)))
	require.NoError(t, r.Run())
	for i, v := range values {
		want := v.loaded
		if asKey {
			want = v.in // a key comes back to the letter
		}
		require.Equal(t, decoded(t, want), decoded(t, string(loaded[fmt.Sprint(i)])), "loaded %s", v.in)
		if v.sql != "" {
			require.Equal(t, v.sql, db.exec(t, fmt.Sprintf("SET timezone = 'UTC'; SELECT %q::text FROM %s WHERE id = %d", col.Name, table, i)))
		}
	}
}

func withoutNull(types []string) []string {
	var out []string
	for _, s := range types {
		if s != "null" {
			out = append(out, s)
		}
	}
	return out
}

// decoded compares JSON by value, but numbers by their text: 1.50 is not 1.5.
func decoded(t *testing.T, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	require.NoError(t, d.Decode(&v), text)
	return v
}

// Timestamps and dates agree with package time over the whole range that it shares with Postgres.
func TestTimestampsAgreeWithTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		micros := rapid.Int64Range(-62135596800_000000, 253402300799_999999).Draw(t, "micros")
		at := time.UnixMicro(micros).UTC()
		got, exact, err := parseTimestamp([]byte(at.Format("2006-01-02T15:04:05.999999Z")))
		require.NoError(t, err)
		require.True(t, exact)
		require.Equal(t, micros-946684800_000000, got)
		require.Equal(t, at.Format("2006-01-02T15:04:05.999999Z"), string(appendTimestamp(nil, got)))
		days, err := parseDate([]byte(at.Format("2006-01-02")))
		require.NoError(t, err)
		require.Equal(t, at.Format("2006-01-02"), string(appendDate(nil, days)))
	})
	for _, bad := range []string{"", "2024", "2024-13-01", "2023-02-29", "2024-01-01x", "24-01-01"} {
		_, err := parseDate([]byte(bad))
		require.Error(t, err, bad)
	}
	for _, bad := range []string{"2024-01-01", "2024-01-01T25:00:00Z", "2024-01-01T00:00:00", "2024-01-01T00:00Z", "2024-01-01T00:00:00+2", "2024-01-01T24:00:01Z"} {
		_, _, err := parseTimestamp([]byte(bad))
		require.Error(t, err, bad)
	}
}

// The binary form of numerics is what Postgres itself sends for the same text.
func TestNumericsAgreeWithPostgres(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	c := db.connect(t)
	defer c.close()
	texts := []string{
		"0", "0.0", "0.00000", "1", "-1", "10", "9999", "10000", "10001", "100000000", "0.1", "0.0001", "0.00001", "0.12345", "1234.5678", "12345.678901",
		"99999999999999999999.99999999999999999999", "1e10", "1e-10", "1.5e3", "-1.23E-5", "123e20", "1e100", "0.0010", "1000000000000000000000000.0001", "NaN", "Infinity", "-Infinity",
	}
	for i := range 200 {
		v := uint64(i)*0x9e3779b97f4a7c15 + 12345
		s := fmt.Sprint(v)
		cut := i % len(s)
		texts = append(texts, s[:cut]+"0."+s[cut:]+"e"+fmt.Sprint(i%40-20))
	}
	for _, text := range texts {
		got, err := appendNumeric(nil, []byte(text))
		require.NoError(t, err, text)
		rows, err := c.rows(t.Context(), "SELECT encode(numeric_send($1::numeric), 'hex')", text)
		require.NoError(t, err)
		require.Equal(t, string(rows[0][0]), fmt.Sprintf("%x", got[4:]), text)
	}
	for _, bad := range []string{"", "-", ".", "1.2.3", "1e", "x", "1e99999999", " 1", "0x10"} {
		_, err := appendNumeric(nil, []byte(bad))
		require.Error(t, err, bad)
	}
}

func FuzzNumeric(f *testing.F) {
	f.Add("1.5e3")
	f.Fuzz(func(t *testing.T, text string) {
		dst, err := appendNumeric([]byte("x"), []byte(text))
		if err != nil {
			require.Equal(t, "x", string(dst))
		}
	})
}

func FuzzTimestamp(f *testing.F) {
	f.Add("2024-01-01T00:00:00.5+01:00")
	f.Fuzz(func(t *testing.T, text string) {
		if micros, _, err := parseTimestamp([]byte(text)); err == nil {
			again, exact, err := parseTimestamp(appendTimestamp(nil, micros))
			require.NoError(t, err)
			require.True(t, exact)
			require.Equal(t, micros, again)
		}
	})
}

// What is stored as jsonb must be something that jsonb accepts, and must not change otherwise.
func FuzzStorable(f *testing.F) {
	f.Add(`{"a":"\u0000\ud800\\u0000"}`)
	f.Fuzz(func(t *testing.T, text string) {
		if !json.Valid([]byte(text)) {
			return
		}
		out := appendStorable(nil, tuple.Element{Kind: tuple.Bytes, Bytes: []byte(text)})
		require.Len(t, out, len(text))
		require.True(t, json.Valid(out))
		if !strings.Contains(text, `\u`) {
			require.Equal(t, text, string(out))
		}
	})
}

func TestRowsAreEncodedWithoutAllocation(t *testing.T) {
	elements := []tuple.Element{
		{Kind: tuple.Int, Int: 1},
		{Kind: tuple.String, Bytes: []byte("12.50")},
		{Kind: tuple.String, Bytes: []byte("2024-01-01T00:00:00Z")},
		{Kind: tuple.Bytes, Bytes: []byte(`{"a":1}`)},
		{Kind: tuple.String, Bytes: []byte("text")},
		{Kind: tuple.Float, Float: 1.5},
	}
	ks := []kind{kindInt8, kindNumeric, kindTimestamptz, kindJSONB, kindText, kindFloat8}
	buf := make([]byte, 0, 1024)
	allocs := testing.AllocsPerRun(100, func() {
		dst := buf
		var err error
		for i, k := range ks {
			if dst, err = encoderOf(k, materialize.Field{}, false)(dst, elements[i]); err != nil {
				panic(err)
			}
		}
	})
	require.Zero(t, allocs)
	require.Equal(t, `"x"`, string(rowjson.AppendText(nil, "x")))
}
