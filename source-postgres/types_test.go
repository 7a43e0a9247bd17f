package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// typeCases are types with literals of theirs and what they become. Each is read by the backfill and by the stream.
var typeCases = []struct {
	typ    string
	values [][2]string // SQL, JSON
}{
	{"boolean", [][2]string{{`true`, `true`}, {`false`, `false`}}},
	{"smallint", [][2]string{{`-32768`, `-32768`}, {`32767`, `32767`}, {`0`, `0`}}},
	{"integer", [][2]string{{`-2147483648`, `-2147483648`}, {`2147483647`, `2147483647`}}},
	{"bigint", [][2]string{{`-9223372036854775808`, `-9223372036854775808`}, {`9223372036854775807`, `9223372036854775807`}}},
	{"oid", [][2]string{{`4294967295`, `4294967295`}}},
	{"real", [][2]string{
		{`1.5`, `1.5`},
		{`'-0'`, `-0`},
		{`'1e20'`, `1e+20`},
		{`'1e-20'`, `1e-20`},
		{`0.1`, `0.1`},
		{`'NaN'`, `"NaN"`},
		{`'inf'`, `"Infinity"`},
		{`'-inf'`, `"-Infinity"`},
		{`16777216`, `1.6777216e+07`},
	}},
	{"double precision", [][2]string{
		{`1.5`, `1.5`},
		{`0.1`, `0.1`},
		{`'1e300'`, `1e+300`},
		{`'-1e-300'`, `-1e-300`},
		{`'NaN'`, `"NaN"`},
		{`'infinity'`, `"Infinity"`},
		{`'-infinity'`, `"-Infinity"`},
		{`123456789012345678`, `1.2345678901234568e+17`},
	}},
	{"numeric", [][2]string{
		{`1.50`, `"1.50"`},
		{`'NaN'`, `"NaN"`},
		{`-0.00000000000000000001`, `"-0.00000000000000000001"`},
		{`12345678901234567890123456789012345678901234567890`, `"12345678901234567890123456789012345678901234567890"`},
	}},
	{"numeric(10,2)", [][2]string{{`1.5`, `"1.50"`}}},
	{"money", [][2]string{{`1234.5`, `"$1,234.50"`}}},
	{"text", [][2]string{
		{`''`, `""`},
		{`'plain'`, `"plain"`},
		{`E'quote " back \\ line \n tab \t bell \x07'`, `"quote \" back \\ line \n tab \t bell \u0007"`},
		{`'ünïcødé 😀'`, `"ünïcødé 😀"`},
		{`repeat('x', 3)`, `"xxx"`},
		{`'null'`, `"null"`},
	}},
	{"varchar(10)", [][2]string{{`'abc'`, `"abc"`}}},
	{"char(5)", [][2]string{{`'ab'`, `"ab   "`}}},
	{`"char"`, [][2]string{{`'x'`, `"x"`}}},
	{"name", [][2]string{{`'abc'`, `"abc"`}}},
	{"bytea", [][2]string{{`''`, `""`}, {`'\xdeadbeef'`, `"3q2+7w=="`}, {`'\x00'`, `"AA=="`}, {`decode(repeat('00ff', 300), 'hex')`, `"` + strings.Repeat("AP8A/wD/", 100) + `"`}}},
	{"date", [][2]string{
		{`'2024-02-29'`, `"2024-02-29"`},
		{`'0001-01-01'`, `"0001-01-01"`},
		{`'9999-12-31'`, `"9999-12-31"`},
		{`'10000-01-01'`, `"9999-12-31"`},
		{`'0044-03-15 BC'`, `"0001-01-01"`},
		{`'infinity'`, `"9999-12-31"`},
		{`'-infinity'`, `"0001-01-01"`},
		{`'1999-12-31'`, `"1999-12-31"`},
	}},
	{"timestamp", [][2]string{
		{`'2024-02-29 12:34:56.789012'`, `"2024-02-29T12:34:56.789012Z"`},
		{`'1969-12-31 23:59:59.5'`, `"1969-12-31T23:59:59.5Z"`},
		{`'0044-03-15 00:00:00 BC'`, `"0001-01-01T00:00:00Z"`},
		{`'infinity'`, `"9999-12-31T23:59:59Z"`},
		{`'-infinity'`, `"0001-01-01T00:00:00Z"`},
		{`'20000-01-01 00:00:00'`, `"9999-12-31T23:59:59Z"`},
		{`'2000-01-01 00:00:00'`, `"2000-01-01T00:00:00Z"`},
		{`'1999-12-31 23:59:59.999999'`, `"1999-12-31T23:59:59.999999Z"`},
	}},
	{"timestamptz", [][2]string{
		{`'2024-02-29 12:34:56.7+05:30'`, `"2024-02-29T07:04:56.7Z"`},
		{`'0001-01-01 00:00:00+00'`, `"0001-01-01T00:00:00Z"`},
		{`'0044-03-15 00:00:00+00 BC'`, `"0001-01-01T00:00:00Z"`},
		{`'infinity'`, `"9999-12-31T23:59:59Z"`},
		{`'-infinity'`, `"0001-01-01T00:00:00Z"`},
		{`'9999-12-31 23:59:59.999999+00'`, `"9999-12-31T23:59:59.999999Z"`},
		{`'10000-01-01 00:00:00+00'`, `"9999-12-31T23:59:59Z"`},
	}},
	{"time", [][2]string{{`'03:04:05.6'`, `"03:04:05.6Z"`}, {`'24:00:00'`, `"23:59:59.999999Z"`}, {`'00:00'`, `"00:00:00Z"`}}},
	{"timetz", [][2]string{{`'03:04:05.6+02'`, `"03:04:05.6+02:00"`}, {`'03:04:05-03:30'`, `"03:04:05-03:30"`}, {`'24:00:00+00'`, `"23:59:59.999999+00:00"`}, {`'01:00:00+00:53:28'`, `"01:00:00+00:53"`}}},
	{"interval", [][2]string{{`'1 year 2 mons 3 days 04:05:06.7'`, `"P1Y2M3DT4H5M6.7S"`}, {`'0'`, `"PT0S"`}}},
	{"uuid", [][2]string{{`'00112233-4455-6677-8899-AABBCCDDEEFF'`, `"00112233-4455-6677-8899-aabbccddeeff"`}}},
	{"jsonb", [][2]string{{`'{"b": [1, 2.50, null], "a": "x\ny"}'`, `{"a": "x\ny", "b": [1, 2.50, null]}`}, {`'null'`, `null`}, {`'"s"'`, `"s"`}}},
	{"json", [][2]string{
		{`E'{\n  "b" : [1 , 2],\r\n\t"a": "x y"}'`, `{"b":[1,2],"a":"x y"}`},
		{`'{"a": 1}'`, `{"a": 1}`},
		{`'"\ud800"'`, `"\ufffd"`},
		{`'"\ud83d\ude00 \udc00 \\ud800"'`, `"\ud83d\ude00 \ufffd \\ud800"`},
		{`'"\uD83D\uDE00 \u0041\u0000"'`, `"\uD83D\uDE00 \u0041\u0000"`},
	}},
	{"int[]", [][2]string{{`'{}'`, `[]`}, {`'{1,NULL,3}'`, `[1,null,3]`}, {`'{{1,2},{3,4}}'`, `[[1,2],[3,4]]`}, {`'[0:1]={5,6}'`, `[5,6]`}}},
	{"text[]", [][2]string{{`ARRAY['a b', 'c"d', 'e\f', 'NULL', NULL, '', '{x}', 'ü']`, `["a b","c\"d","e\\f","NULL",null,"","{x}","ü"]`}}},
	{"timestamptz[]", [][2]string{{`ARRAY['2024-01-02 03:04:05+00'::timestamptz, 'infinity']`, `["2024-01-02T03:04:05Z","9999-12-31T23:59:59Z"]`}}},
	{"jsonb[]", [][2]string{{`ARRAY['{"a": "b c"}'::jsonb, '1', NULL]`, `[{"a": "b c"},1,null]`}}},
	{"bool[]", [][2]string{{`'{t,f}'`, `[true,false]`}}},
	{"float8[]", [][2]string{{`'{1.5,NaN}'`, `[1.5,"NaN"]`}}},
	{"bytea[]", [][2]string{{`ARRAY['\xdead'::bytea]`, `["3q0="]`}}},
	{"box[]", [][2]string{{`'{(1,1),(0,0);(2,2),(1,1)}'`, `["(1,1),(0,0)","(2,2),(1,1)"]`}}},
	{"int2vector", [][2]string{{`'1 2 3'`, `"1 2 3"`}}},
	{"inet", [][2]string{{`'10.0.0.1/8'`, `"10.0.0.1/8"`}}},
	{"cidr", [][2]string{{`'10.0.0.0/8'`, `"10.0.0.0/8"`}}},
	{"macaddr", [][2]string{{`'08:00:2b:01:02:03'`, `"08:00:2b:01:02:03"`}}},
	{"bit(3)", [][2]string{{`B'101'`, `"101"`}}},
	{"int4range", [][2]string{{`'[1,5)'`, `"[1,5)"`}}},
	{"tstzrange", [][2]string{{`'[2024-01-02 03:04:05+00,)'`, `"[\"2024-01-02 03:04:05+00\",)"`}}},
	{"point", [][2]string{{`'(1,2)'`, `"(1,2)"`}}},
	{"tsvector", [][2]string{{`'a:1 b:2'`, `"'a':1 'b':2"`}}},
	{"xml", [][2]string{{`'<a b="c"/>'`, `"<a b=\"c\"/>"`}}},
	{"mood", [][2]string{{`'so la la'`, `"so la la"`}}},
	{"mood[]", [][2]string{{`ARRAY['sad'::mood, 'so la la']`, `["sad","so la la"]`}}},
	{"pair", [][2]string{{`ROW(1, 'a b')`, `"(1,\"a b\")"`}}},
	{"percent", [][2]string{{`50`, `50`}}},
	{"deep", [][2]string{{`'{1,2}'`, `[1,2]`}}},
	{"percent[]", [][2]string{{`ARRAY[1, 2]::percent[]`, `[1,2]`}}},
	{"moment", [][2]string{{`'2024-01-02 03:04:05+00'`, `"2024-01-02T03:04:05Z"`}}},
}

const typeSetup = `CREATE TYPE mood AS ENUM ('sad', 'so la la'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN percent AS int;
	CREATE DOMAIN deep AS int[]; CREATE DOMAIN moment AS timestamptz;`

// Every type gives the same bytes by the backfill and by the stream, they are what is documented, and the discovered JSON
// schema is true for them.
func TestTypesThroughBothPaths(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	var columns, nulls []string
	most := 0
	for i, c := range typeCases {
		columns = append(columns, fmt.Sprintf("c%d %s", i, c.typ))
		nulls = append(nulls, "NULL")
		most = max(most, len(c.values))
	}
	db.exec(typeSetup, "CREATE TABLE kinds (id int PRIMARY KEY, "+strings.Join(columns, ", ")+")")
	d := db.driver()
	table := db.tables(d, "kinds")[0]
	stream := db.open(d, table)
	for row := range most {
		values := append([]string(nil), nulls...)
		for i, c := range typeCases {
			if row < len(c.values) {
				values[i] = c.values[row][0]
			}
		}
		db.exec(fmt.Sprintf("INSERT INTO kinds VALUES (%d, %s)", row, strings.Join(values, ", ")))
	}
	db.exec(fmt.Sprintf("INSERT INTO kinds VALUES (%d, %s)", most, strings.Join(nulls, ", ")))

	streamed := stream.fence()
	scanned, _ := db.scanAll(d, table, 1000)
	require.Len(t, streamed, most+1)
	require.Len(t, scanned, most+1)
	schemas := make(map[string]*jsonschema.Schema)
	for _, c := range table.Columns {
		schemas[c.Name] = compileSchema(t, c.Schema)
	}
	for row, text := range streamed {
		require.Equal(t, "c kinds "+scanned[row], text, "row %d", row)
		var doc map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(scanned[row]), &doc))
		for i, c := range typeCases {
			name, want := fmt.Sprintf("c%d", i), "null"
			if row < len(c.values) {
				want = c.values[row][1]
			}
			require.Equal(t, want, string(doc[name]), "%s %q", c.typ, want)
			value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(doc[name])))
			require.NoError(t, err)
			require.NoError(t, schemas[name].Validate(value), "%s %s", c.typ, doc[name])
		}
	}
}

func compileSchema(t testing.TB, text json.RawMessage) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	require.NoError(t, compiler.AddResource("column.json", doc))
	schema, err := compiler.Compile("column.json")
	require.NoError(t, err)
	return schema
}

// A key has the same bytes whether it comes from the log or from a scan, and a row can be found by it again.
func TestKeysThroughBothPaths(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(typeSetup)
	skip := map[string]bool{"json": true, "xml": true, "point": true, "box[]": true}
	for i, c := range typeCases {
		if skip[c.typ] {
			continue // has no equality, so no key of it
		}
		db.exec(fmt.Sprintf("CREATE TABLE k%d (k %s PRIMARY KEY, n int)", i, c.typ))
	}
	d := db.driver()
	for i, c := range typeCases {
		if skip[c.typ] {
			continue
		}
		name := fmt.Sprintf("k%d", i)
		table := db.tables(d, name)[0]
		d.slot = fmt.Sprintf("%s_%d", db.cfg.Advanced.SlotName, i)
		stream := db.open(d, table)
		for n, v := range c.values {
			db.exec(fmt.Sprintf("INSERT INTO %s VALUES (%s, %d) ON CONFLICT DO NOTHING", name, v[0], n))
		}
		_, scanned := db.scanAll(d, table, 2)
		var streamed [][]byte
		require.NoError(t, stream.Fence(t.Context(), d.mark(mustLSN(t, db.exec("SELECT pg_current_wal_insert_lsn()")))))
		for {
			ev, err := stream.Next(t.Context(), patience)
			require.NoError(t, err)
			if ev.Row != nil {
				key, err := ev.Row.AppendKey(nil)
				require.NoError(t, err)
				streamed = append(streamed, key)
			}
			if ev.Mark != "" {
				break
			}
		}
		require.ElementsMatch(t, streamed, scanned, c.typ)
		found := db.scanKeys(d, table, scanned)
		require.Len(t, found, len(scanned), c.typ)
		stream.close()
		db.dropSlot(d)
	}
}

func mustLSN(t testing.TB, text string) lsn {
	t.Helper()
	at, err := parseLSN(strings.TrimSpace(text))
	require.NoError(t, err)
	return at
}
