package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// typeCase is a column type with values, as SQL expressions, and what they become.
type typeCase struct {
	flavor string // only of this server; empty for both
	typ    string
	values []string // SQL
	want   []string // JSON
	noKey  bool     // it cannot be a key
}

func typeCases() []typeCase {
	long := strings.Repeat("9", 35)
	return []typeCase{
		{typ: "TINYINT", values: []string{"-128", "127", "0"}, want: []string{"-128", "127", "0"}},
		{typ: "TINYINT(1)", values: []string{"TRUE", "FALSE", "7"}, want: []string{"1", "0", "7"}},
		{typ: "SMALLINT UNSIGNED", values: []string{"0", "65535"}, want: []string{"0", "65535"}},
		{typ: "MEDIUMINT", values: []string{"-8388608", "8388607"}, want: []string{"-8388608", "8388607"}},
		{typ: "MEDIUMINT UNSIGNED", values: []string{"16777215"}, want: []string{"16777215"}},
		{typ: "INT", values: []string{"-2147483648", "2147483647"}, want: []string{"-2147483648", "2147483647"}},
		{typ: "INT(8) UNSIGNED ZEROFILL", values: []string{"0", "42", "4294967295"}, want: []string{"0", "42", "4294967295"}},
		{typ: "BIGINT", values: []string{"-9223372036854775808", "9223372036854775807"}, want: []string{"-9223372036854775808", "9223372036854775807"}},
		{typ: "BIGINT UNSIGNED", values: []string{"0", "18446744073709551615"}, want: []string{"0", "18446744073709551615"}},
		{typ: "YEAR", values: []string{"0", "1901", "2155"}, want: []string{"0", "1901", "2155"}},
		{typ: "BIT(1)", values: []string{"b'0'", "b'1'"}, want: []string{"0", "1"}},
		{typ: "BIT(64)", values: []string{"b'0'", "~0", "b'1010101010'"}, want: []string{"0", "18446744073709551615", "682"}},
		{typ: "DECIMAL(65,30)", values: []string{"-" + long + "." + long[:30], "0", "0.000000000000000000000000000001", "-1.5"}, want: []string{
			`"-` + long + "." + long[:30] + `"`, `"0.` + strings.Repeat("0", 30) + `"`, `"0.000000000000000000000000000001"`, `"-1.5` + strings.Repeat("0", 29) + `"`,
		}},
		{typ: "DECIMAL(10,0)", values: []string{"-9999999999", "1234567890", "-0"}, want: []string{`"-9999999999"`, `"1234567890"`, `"0"`}},
		{typ: "DECIMAL(5,5)", values: []string{"0.12345", "-0.00001"}, want: []string{`"0.12345"`, `"-0.00001"`}},
		{typ: "DECIMAL(12,3) UNSIGNED ZEROFILL", values: []string{"0", "1.5"}, want: []string{`"0.000"`, `"1.500"`}},
		{typ: "FLOAT", values: []string{"16777217", "0.1", "-3.4028235e38", "1e-30"}, want: []string{"16777216", "0.1", "-3.4028235e+38", "1e-30"}},
		{typ: "DOUBLE", values: []string{"0.1", "1.7976931348623157e308", "-123456789.123456789", "5e-324"}, want: []string{"0.1", "1.7976931348623157e+308", "-123456789.12345679", "5e-324"}},
		{typ: "CHAR(5)", values: []string{"'ab'", "''", "'日本😀é'"}, want: []string{`"ab"`, `""`, `"日本😀é"`}},
		{typ: "CHAR(255)", values: []string{"'" + strings.Repeat("😀", 255) + "'"}, want: []string{`"` + strings.Repeat("😀", 255) + `"`}},
		{typ: "VARCHAR(20)", values: []string{"'a  '", "'\"\\\\\n\t'", "''"}, want: []string{`"a  "`, `"\"\\\n\t"`, `""`}},
		{typ: "VARCHAR(300)", values: []string{"REPEAT('x', 300)"}, want: []string{`"` + strings.Repeat("x", 300) + `"`}},
		{typ: "VARCHAR(20) CHARACTER SET latin1", values: []string{"'é€œ'", "'abc'"}, want: []string{`"é€œ"`, `"abc"`}},
		{typ: "VARCHAR(20) CHARACTER SET latin2", values: []string{"'čšž'"}, want: []string{`"čšž"`}},
		{typ: "VARCHAR(20) CHARACTER SET koi8r", values: []string{"'привет'"}, want: []string{`"привет"`}},
		{typ: "VARCHAR(20) CHARACTER SET cp1251", values: []string{"'привет'"}, want: []string{`"привет"`}},
		{typ: "VARCHAR(20) CHARACTER SET greek", values: []string{"'γειά'"}, want: []string{`"γειά"`}},
		{typ: "VARCHAR(20) CHARACTER SET ascii", values: []string{"'plain'"}, want: []string{`"plain"`}},
		{typ: "VARCHAR(20) CHARACTER SET utf8mb3", values: []string{"'日本é'"}, want: []string{`"日本é"`}},
		{typ: "VARCHAR(20) CHARACTER SET ucs2", values: []string{"'日本é'"}, want: []string{`"日本é"`}},
		{typ: "VARCHAR(20) CHARACTER SET utf16", values: []string{"'日😀é'"}, want: []string{`"日😀é"`}},
		{typ: "VARCHAR(20) CHARACTER SET utf16le", values: []string{"'日😀é'"}, want: []string{`"日😀é"`}},
		{typ: "VARCHAR(20) CHARACTER SET utf32", values: []string{"'日😀é'"}, want: []string{`"日😀é"`}},
		{typ: "VARCHAR(20) CHARACTER SET gbk", values: []string{"'汉字abc'"}, want: []string{`"汉字abc"`}},
		{typ: "VARCHAR(20) CHARACTER SET big5", values: []string{"'漢字'"}, want: []string{`"漢字"`}},
		{typ: "VARCHAR(20) CHARACTER SET sjis", values: []string{"'日本カタ'"}, want: []string{`"日本カタ"`}},
		{typ: "VARCHAR(20) CHARACTER SET ujis", values: []string{"'日本カタ'"}, want: []string{`"日本カタ"`}},
		{typ: "VARCHAR(20) CHARACTER SET euckr", values: []string{"'한국어'"}, want: []string{`"한국어"`}},
		{typ: "VARCHAR(20) COLLATE utf8mb4_bin", values: []string{"'A'", "'a'"}, want: []string{`"A"`, `"a"`}},
		{typ: "TINYTEXT", values: []string{"'é'", "''"}, want: []string{`"é"`, `""`}, noKey: true},
		{typ: "TEXT", values: []string{"REPEAT('ab', 20000)"}, want: []string{`"` + strings.Repeat("ab", 20000) + `"`}, noKey: true},
		{typ: "MEDIUMTEXT", values: []string{"REPEAT('ab', 50000)"}, want: []string{`"` + strings.Repeat("ab", 50000) + `"`}, noKey: true},
		{typ: "LONGTEXT CHARACTER SET latin1", values: []string{"'é'"}, want: []string{`"é"`}, noKey: true},
		{typ: "BINARY(4)", values: []string{"X'0102'", "X'00000000'", "X'01020304'"}, want: []string{`"AQIAAA=="`, `"AAAAAA=="`, `"AQIDBA=="`}},
		{typ: "VARBINARY(10)", values: []string{"X'0100'", "''"}, want: []string{`"AQA="`, `""`}},
		{typ: "BLOB", values: []string{"X'00FF'", "''"}, want: []string{`"AP8="`, `""`}, noKey: true},
		{typ: "TINYBLOB", values: []string{"X'00'"}, want: []string{`"AA=="`}, noKey: true},
		{typ: "LONGBLOB", values: []string{"X'00'"}, want: []string{`"AA=="`}, noKey: true},
		{typ: "ENUM('b','a','it''s','é')", values: []string{"'b'", "'a'", "'it''s'", "'é'"}, want: []string{`"b"`, `"a"`, `"it's"`, `"é"`}},
		{typ: "ENUM('x','')", values: []string{"'x'", "2", "0"}, want: []string{`"x"`, `""`, `""`}, noKey: true},
		{typ: "ENUM('é','ü') CHARACTER SET latin1", values: []string{"'ü'"}, want: []string{`"ü"`}},
		{typ: "SET('a','b','c')", values: []string{"''", "'a'", "'c,a'"}, want: []string{`""`, `"a"`, `"a,c"`}},
		{typ: "DATE", values: []string{"'2024-02-29'", "'1000-01-01'", "'9999-12-31'", "'0000-00-00'", "'2024-02-00'", "'2024-00-00'"}, want: []string{
			`"2024-02-29"`, `"1000-01-01"`, `"9999-12-31"`, `"0001-01-01"`, `"2024-02-01"`, `"2024-01-01"`,
		}, noKey: true},
		{typ: "DATETIME", values: []string{"'2024-02-29 23:59:59'", "'0000-00-00 00:00:00'"}, want: []string{`"2024-02-29T23:59:59Z"`, `"0001-01-01T00:00:00Z"`}, noKey: true},
		{typ: "DATETIME(3)", values: []string{"'2024-02-29 23:59:59.123'", "'1000-01-01 00:00:00.001'"}, want: []string{`"2024-02-29T23:59:59.123Z"`, `"1000-01-01T00:00:00.001Z"`}},
		{typ: "DATETIME(6)", values: []string{"'9999-12-31 23:59:59.999999'"}, want: []string{`"9999-12-31T23:59:59.999999Z"`}},
		{typ: "TIMESTAMP(1) NULL", values: []string{"'2024-07-01 12:00:00.9'"}, want: []string{`"2024-07-01T20:00:00.9Z"`}, noKey: true},
		{typ: "TIMESTAMP NULL", values: []string{"'2024-07-01 12:00:00'", "'0000-00-00 00:00:00'"}, want: []string{`"2024-07-01T20:00:00Z"`, `"0001-01-01T00:00:00Z"`}, noKey: true},
		{typ: "TIMESTAMP(6) NOT NULL DEFAULT '2000-01-01 00:00:00'", values: []string{"'2024-07-01 12:00:00.123456'"}, want: []string{`"2024-07-01T20:00:00.123456Z"`}},
		{typ: "TIME", values: []string{"'-838:59:59'", "'00:00:00'", "'100:00:01'", "'-00:00:01'"}, want: []string{`"-838:59:59"`, `"00:00:00"`, `"100:00:01"`, `"-00:00:01"`}},
		{typ: "TIME(1)", values: []string{"'-00:00:00.1'", "'00:00:00.9'", "'-10:11:12.3'"}, want: []string{`"-00:00:00.1"`, `"00:00:00.9"`, `"-10:11:12.3"`}},
		{typ: "TIME(4)", values: []string{"'-00:00:01.0100'", "'838:59:58.9999'"}, want: []string{`"-00:00:01.0100"`, `"838:59:58.9999"`}},
		{typ: "TIME(6)", values: []string{"'-00:00:00.000001'", "'12:34:56.789012'"}, want: []string{`"-00:00:00.000001"`, `"12:34:56.789012"`}},
		{typ: "POINT", values: []string{"ST_GeomFromText('POINT(1 -2.5)')"}, want: []string{`"POINT(1 -2.5)"`}, noKey: true},
		{typ: "GEOMETRY", values: []string{
			"ST_GeomFromText('LINESTRING(0 0,1 1)')", "ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 0),(1 1,2 1,2 2,1 1))')", "ST_GeomFromText('MULTIPOINT(1 2,3 4)')",
			"ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1e30 1))')", "ST_GeomFromText('MULTIPOLYGON(((0 0,1 0,1 1,0 0)))')",
		}, want: []string{
			`"LINESTRING(0 0,1 1)"`, `"POLYGON((0 0,4 0,4 4,0 0),(1 1,2 1,2 2,1 1))"`, `"MULTIPOINT((1 2),(3 4))"`,
			`"GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1e+30 1))"`, `"MULTIPOLYGON(((0 0,1 0,1 1,0 0)))"`,
		}, noKey: true},
		{flavor: mysqld.MariaDB, typ: "JSON", values: []string{`'{"a": [1, 2]}'`}, want: []string{`"{\"a\": [1, 2]}"`}, noKey: true},
		{flavor: mysqld.MySQL, typ: "JSON", values: []string{
			`'{"b": [1, -2, 3.0, 1e20, 1.5e-10, true, null], "a": {"c": "x\\"y\\\\ é😀\\n"}, "": {}}'`, `'[]'`, `'"text"'`, `'18446744073709551615'`, `'-9223372036854775808'`, `'70000'`, `'0.1'`,
			`JSON_OBJECT('d', CAST(123456789012345678901234567890.123456789 AS DECIMAL(60,9)), 't', CAST('2024-01-02 03:04:05.678' AS DATETIME(3)), 'u', CAST('-10:11:12' AS TIME), 'v', CAST('2024-01-02' AS DATE))`,
			`JSON_ARRAY(123456789012345678.0e0, 1e15, 999999999999999.0e0, 1e-14, 1e-15, 1e-16, -0.5)`, `JSON_ARRAY(REPEAT('long', 20000))`, "NULL",
		}, want: []string{
			`{"":{},"a":{"c":"x\"y\\ é😀\n"},"b":[1,-2,3.0,1e20,0.00000000015,true,null]}`, `[]`, `"text"`, `18446744073709551615`, `-9223372036854775808`, `70000`, `0.1`,
			`{"d":123456789012345678901234567890.123456789,"t":"2024-01-02 03:04:05.678000","u":"-10:11:12.000000","v":"2024-01-02"}`,
			`[1.2345678901234568e17,1e15,999999999999999.0,0.00000000000001,0.000000000000001,1e-16,-0.5]`, `["` + strings.Repeat("long", 20000) + `"]`, "null",
		}, noKey: true},
		{flavor: mysqld.MySQL, typ: "VECTOR(3)", values: []string{"STRING_TO_VECTOR('[1,-2.5,0.1]')"}, want: []string{"[1,-2.5,0.1]"}, noKey: true},
		{flavor: mysqld.MariaDB, typ: "UUID", values: []string{
			"'6ccd780c-baba-1026-9564-5b8c656024db'", "'123e4567-e89b-42d3-a456-426614174000'", "'0190163d-8694-739b-aea5-966c26f8ad91'", "'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
		}, want: []string{
			`"6ccd780c-baba-1026-9564-5b8c656024db"`, `"123e4567-e89b-42d3-a456-426614174000"`, `"0190163d-8694-739b-aea5-966c26f8ad91"`, `"00000000-0000-0000-0000-000000000000"`, `"ffffffff-ffff-ffff-ffff-ffffffffffff"`,
		}},
		{flavor: mysqld.MariaDB, typ: "INET6", values: []string{"'2001:db8::ff00:42:8329'", "'::'", "'::1'", "'::ffff:1.2.3.4'", "'::1.2.3.4'", "'fe80::'"}, want: []string{
			`"2001:db8::ff00:42:8329"`, `"::"`, `"::1"`, `"::ffff:1.2.3.4"`, `"::1.2.3.4"`, `"fe80::"`,
		}},
		{flavor: mysqld.MariaDB, typ: "INET4", values: []string{"'1.2.3.4'", "'0.0.0.0'", "'255.255.255.255'"}, want: []string{`"1.2.3.4"`, `"0.0.0.0"`, `"255.255.255.255"`}},
	}
}

// Every type gives the same values whether they are read by a backfill or come from the log, and as a key (hard cases 43 to 46).
func TestTypes(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) { testTypes(t, newDatabase(t, flavor), flavor) })
}

func testTypes(t *testing.T, db *database, flavor string) {
	t.Helper()
	cases := slices.DeleteFunc(typeCases(), func(c typeCase) bool { return c.flavor != "" && c.flavor != flavor })
	var names []string
	setup := []string{"SET sql_mode = '', time_zone = '-08:00'"}
	for i, c := range cases {
		name := fmt.Sprintf("t%d", i)
		names = append(names, name)
		key := "id INT PRIMARY KEY, v " + c.typ
		if !c.noKey {
			key = "id INT NOT NULL, v " + c.typ + ", PRIMARY KEY (v)"
		}
		setup = append(setup, "CREATE TABLE "+name+" ("+key+")")
	}
	db.exec(setup...)
	d := db.driver()
	tables := db.tables(d, names...)
	stream := db.open(d, tables...)
	var rows []string
	want := map[string][]string{}
	for i, c := range cases {
		for j, v := range c.values {
			rows = append(rows, fmt.Sprintf("INSERT INTO t%d VALUES (%d, %s)", i, j, v))
			doc := fmt.Sprintf(`{"id":%d,"v":%s}`, j, c.want[j])
			if !c.noKey {
				if k := tables[i].Columns[1]; strings.HasPrefix(k.Type, "float") || strings.HasPrefix(k.Type, "double") {
					doc = fmt.Sprintf(`{"id":%d,"v":"%s"}`, j, c.want[j])
				}
			}
			want[names[i]] = append(want[names[i]], doc)
		}
	}
	db.exec(append([]string{"SET sql_mode = '', time_zone = '-08:00'"}, rows...)...)
	logged := map[string][]string{}
	keys := map[string][]string{}
	require.NoError(t, stream.each(func(ev *cdc.Event) {
		if ev.Op == cdc.Shape && ev.Shape.Layout != "" { // how it lies in the log, and nothing else
			known := tables[slices.Index(names, ev.Table.Name)]
			require.Equal(t, known.Columns[1].Type, ev.Shape.Columns[1].Type)
			require.False(t, ev.Rescan, ev.Table.Name)
			again, err := parseLayout(ev.Shape.Layout)
			require.NoError(t, err)
			require.Equal(t, ev.Shape.Layout, again.encode())
			return
		}
		if !assertInsert(t, stream, ev) {
			return
		}
		logged[ev.Table.Name] = append(logged[ev.Table.Name], cdctest.Fields(t, ev.Row))
		key, err := ev.Row.AppendKey(nil)
		require.NoError(t, err)
		keys[ev.Table.Name] = append(keys[ev.Table.Name], string(key))
	}))
	for i, c := range cases {
		require.Equal(t, want[names[i]], logged[names[i]], "%s in the log", c.typ)
		for _, chunk := range []int{1000, 1} {
			scanned, scannedKeys := db.scanAll(d, tables[i], chunk)
			require.ElementsMatch(t, want[names[i]], scanned, "%s in a scan of chunks of %d", c.typ, chunk)
			texts := make([]string, len(scannedKeys))
			for j, k := range scannedKeys {
				texts[j] = string(k)
			}
			require.ElementsMatch(t, keys[names[i]], texts, "keys of %s", c.typ)
			if chunk == 1 {
				require.ElementsMatch(t, want[names[i]], db.scanKeys(d, tables[i], scannedKeys), "%s read by key", c.typ)
			}
		}
	}
}

func assertInsert(t *testing.T, s *testStream, ev *cdc.Event) bool {
	t.Helper()
	require.Equal(t, cdc.Insert, ev.Op, "%s", s.text(ev))
	return true
}
