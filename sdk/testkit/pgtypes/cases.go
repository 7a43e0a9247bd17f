package pgtypes

import "strings"

// NeverStored are the built-in types no column can have a value of, and why.
func NeverStored() map[string]string {
	return map[string]string{
		"gtsvector":                    "is the inside of an index; has no input",
		"pg_brin_bloom_summary":        "is the inside of an index; has no input",
		"pg_brin_minmax_multi_summary": "is the inside of an index; has no input",
	}
}

// BuiltIn are values of every built-in type that can be stored. A test of source-postgres asks the server for types
// that are missing here. Arrays of all of them are made from these values by Available.
func BuiltIn() []Case {
	return append(append(append(numberCases(), textCases()...), timeCases()...), systemCases()...)
}

func numberCases() []Case {
	return []Case{
		oneType("boolean", v(`true`, `true`), v(`false`, `false`)),
		oneType("smallint", v(`-32768`, `-32768`), v(`32767`, `32767`), v(`0`, `0`)),
		oneType("integer", v(`-2147483648`, `-2147483648`), v(`2147483647`, `2147483647`)),
		oneType("bigint", v(`-9223372036854775808`, `-9223372036854775808`), v(`9223372036854775807`, `9223372036854775807`)),
		oneType("oid", v(`4294967295`, `4294967295`), v(`0`, `0`)),
		oneType("real", v(`1.5`, `1.5`), v(`'-0'`, `-0`), v(`'1e20'`, `1e+20`), v(`'1e-45'`, `1e-45`), v(`0.1`, `0.1`), v(`'3.4028235e38'`, `3.4028235e+38`),
			v(`'NaN'`, `"NaN"`), v(`'inf'`, `"Infinity"`), v(`'-inf'`, `"-Infinity"`), v(`16777216`, `1.6777216e+07`)),
		oneType("double precision", v(`1.5`, `1.5`), v(`0.1`, `0.1`), v(`'1e300'`, `1e+300`), v(`'-1e-300'`, `-1e-300`), v(`'5e-324'`, `5e-324`),
			v(`'1.7976931348623157e308'`, `1.7976931348623157e+308`), v(`'NaN'`, `"NaN"`), v(`'infinity'`, `"Infinity"`), v(`'-infinity'`, `"-Infinity"`),
			v(`'-0'`, `-0`), v(`123456789012345678`, `1.2345678901234568e+17`)),
		oneType("numeric", v(`1.50`, `"1.50"`), v(`'NaN'`, `"NaN"`), v(`-0.00000000000000000001`, `"-0.00000000000000000001"`), v(`0`, `"0"`),
			v(`12345678901234567890123456789012345678901234567890`, `"12345678901234567890123456789012345678901234567890"`)),
		since(14, "numeric", v(`'Infinity'`, `"Infinity"`), v(`'-Infinity'`, `"-Infinity"`)),
		oneType("numeric(10,2)", v(`1.5`, `"1.50"`)),
		since(15, "numeric(3,-2)", v(`12345`, `"12300"`)),
		oneType("money", v(`1234.5`, `"$1,234.50"`), v(`'-92233720368547758.08'`, `"-$92,233,720,368,547,758.08"`)),
		oneType("bit(3)", v(`B'101'`, `"101"`)),
		oneType("varbit", v(`B''`, `""`), v(`B'0101010101'`, `"0101010101"`)),
		oneType("int4range", v(`'[1,5)'`, `"[1,5)"`), v(`'empty'`, `"empty"`), v(`'(,)'`, `"(,)"`)),
		oneType("int8range", v(`'[1,5]'`, `"[1,6)"`)),
		oneType("numrange", v(`'(1.0,2.50]'`, `"(1.0,2.50]"`)),
		since(14, "int4multirange", v(`'{[1,3),[5,7)}'`, `"{[1,3),[5,7)}"`), v(`'{}'`, `"{}"`)),
		since(14, "int8multirange", v(`'{[1,3)}'`, `"{[1,3)}"`)),
		since(14, "nummultirange", v(`'{[1.5,3)}'`, `"{[1.5,3)}"`)),
	}
}

func textCases() []Case {
	return []Case{
		oneType("text", v(`''`, `""`), v(`'plain'`, `"plain"`), v(`E'quote " back \\ line \n tab \t bell \x07'`, `"quote \" back \\ line \n tab \t bell \u0007"`),
			v(`'ünïcødé 😀'`, `"ünïcødé 😀"`), v(`U&'\2028\FEFF\007F'`, "\"\u2028\ufeff\u007f\""), v(`repeat('x', 3)`, `"xxx"`), v(`'null'`, `"null"`)),
		oneType("varchar(10)", v(`'abc'`, `"abc"`)),
		oneType("char(5)", v(`'ab'`, `"ab   "`)),
		oneType(`"char"`, v(`'x'`, `"x"`), v(`''`, `""`), v(`'"'`, `"\""`)),
		oneType(`"char"`, v(`(-1)::"char"`, `"\\377"`)).unkeyed("before version 15 the server sends a byte that it does not take back"),
		oneType("name", v(`'abc'`, `"abc"`)),
		oneType("bytea", v(`''`, `""`), v(`'\xdeadbeef'`, `"3q2+7w=="`), v(`'\x00'`, `"AA=="`),
			v(`decode(repeat('00ff', 300), 'hex')`, `"`+strings.Repeat("AP8A/wD/", 100)+`"`)),
		oneType("uuid", v(`'00112233-4455-6677-8899-AABBCCDDEEFF'`, `"00112233-4455-6677-8899-aabbccddeeff"`)),
		oneType("jsonb", x(`'{"b": [1, 2.50, null], "a": "x\ny"}'`, `{"a": "x\ny", "b": [1, 2.50, null]}`, `"{\"a\": \"x\\ny\", \"b\": [1, 2.50, null]}"`),
			x(`'null'`, `null`, `"null"`), x(`'"s"'`, `"s"`, `"\"s\""`), x(`'1e40'`, `10000000000000000000000000000000000000000`, `"10000000000000000000000000000000000000000"`)),
		oneType("json", x(`E'{\n  "b" : [1 , 2],\r\n\t"a": "x y"}'`, `{"b":[1,2],"a":"x y"}`, `"{\n  \"b\" : [1 , 2],\r\n\t\"a\": \"x y\"}"`),
			x(`'{"a": 1}'`, `{"a": 1}`, `"{\"a\": 1}"`), x(`'"\ud800"'`, `"\ufffd"`, `"\"\\ud800\""`),
			x(`'"\ud83d\ude00 \udc00 \\ud800"'`, `"\ud83d\ude00 \ufffd \\ud800"`, `"\"\\ud83d\\ude00 \\udc00 \\\\ud800\""`),
			x(`'"\uD83D\uDE00 \u0041\u0000"'`, `"\uD83D\uDE00 \u0041\u0000"`, `"\"\\uD83D\\uDE00 \\u0041\\u0000\""`),
			x(`'null'`, `null`, `"null"`)),
		oneType("jsonpath", v(`'$.a[*] ? (@ > 1)'`, `"$.\"a\"[*]?(@ > 1)"`)),
		oneType("xml", v(`'<a b="c"/>'`, `"<a b=\"c\"/>"`)),
		oneType("tsvector", v(`'a:1 b:2'`, `"'a':1 'b':2"`)),
		oneType("tsquery", v(`'a & !b'`, `"'a' & !'b'"`)),
		oneType("inet", v(`'10.0.0.1/8'`, `"10.0.0.1/8"`), v(`'::1'`, `"::1"`)),
		oneType("cidr", v(`'10.0.0.0/8'`, `"10.0.0.0/8"`)),
		oneType("macaddr", v(`'08:00:2b:01:02:03'`, `"08:00:2b:01:02:03"`)),
		oneType("macaddr8", v(`'08:00:2b:01:02:03:04:05'`, `"08:00:2b:01:02:03:04:05"`)),
		oneType("point", v(`'(1,2)'`, `"(1,2)"`), v(`'(0.1,NaN)'`, `"(0.1,NaN)"`)),
		oneType("line", v(`'{1,2,3}'`, `"{1,2,3}"`)),
		oneType("lseg", v(`'[(0,0),(1,1)]'`, `"[(0,0),(1,1)]"`)),
		oneType("box", v(`'(1,1),(0,0)'`, `"(1,1),(0,0)"`)),
		oneType("path", v(`'[(0,0),(1,1)]'`, `"[(0,0),(1,1)]"`), v(`'((0,0),(1,1))'`, `"((0,0),(1,1))"`)),
		oneType("polygon", v(`'((0,0),(1,1),(1,0))'`, `"((0,0),(1,1),(1,0))"`)),
		oneType("circle", v(`'<(0,0),1.5>'`, `"<(0,0),1.5>"`)),
	}
}

func timeCases() []Case {
	return []Case{
		oneType("date", v(`'2024-02-29'`, `"2024-02-29"`), v(`'0001-01-01'`, `"0001-01-01"`), v(`'9999-12-31'`, `"9999-12-31"`), v(`'1999-12-31'`, `"1999-12-31"`),
			x(`'10000-01-01'`, `"9999-12-31"`, `"10000-01-01"`), x(`'0044-03-15 BC'`, `"0001-01-01"`, `"0044-03-15 BC"`), x(`'infinity'`, `"9999-12-31"`, `"infinity"`),
			x(`'-infinity'`, `"0001-01-01"`, `"-infinity"`), x(`'5874897-12-31'`, `"9999-12-31"`, `"5874897-12-31"`), x(`'4714-11-24 BC'`, `"0001-01-01"`, `"4714-11-24 BC"`)),
		oneType("timestamp", v(`'2024-02-29 12:34:56.789012'`, `"2024-02-29T12:34:56.789012Z"`), v(`'1969-12-31 23:59:59.5'`, `"1969-12-31T23:59:59.5Z"`),
			v(`'2000-01-01 00:00:00'`, `"2000-01-01T00:00:00Z"`), v(`'1999-12-31 23:59:59.999999'`, `"1999-12-31T23:59:59.999999Z"`),
			x(`'0044-03-15 00:00:00 BC'`, `"0001-01-01T00:00:00Z"`, `"0044-03-15 00:00:00 BC"`), x(`'infinity'`, `"9999-12-31T23:59:59Z"`, `"infinity"`),
			x(`'-infinity'`, `"0001-01-01T00:00:00Z"`, `"-infinity"`), x(`'20000-01-01 00:00:00.5'`, `"9999-12-31T23:59:59Z"`, `"20000-01-01 00:00:00.5"`),
			x(`'294276-12-31 23:59:59.999999'`, `"9999-12-31T23:59:59Z"`, `"294276-12-31 23:59:59.999999"`)),
		oneType("timestamptz", v(`'2024-02-29 12:34:56.7+05:30'`, `"2024-02-29T07:04:56.7Z"`), v(`'0001-01-01 00:00:00+00'`, `"0001-01-01T00:00:00Z"`),
			v(`'9999-12-31 23:59:59.999999+00'`, `"9999-12-31T23:59:59.999999Z"`), x(`'0044-03-15 00:00:00+00 BC'`, `"0001-01-01T00:00:00Z"`, `"0044-03-15 00:00:00+00 BC"`),
			x(`'infinity'`, `"9999-12-31T23:59:59Z"`, `"infinity"`), x(`'-infinity'`, `"0001-01-01T00:00:00Z"`, `"-infinity"`),
			x(`'10000-01-01 00:00:00+00'`, `"9999-12-31T23:59:59Z"`, `"10000-01-01 00:00:00+00"`)),
		oneType("time", v(`'03:04:05.6'`, `"03:04:05.6Z"`), v(`'00:00'`, `"00:00:00Z"`), v(`'23:59:59.999999'`, `"23:59:59.999999Z"`),
			x(`'24:00:00'`, `"23:59:59.999999Z"`, `"24:00:00"`)),
		oneType("timetz", v(`'03:04:05.6+02'`, `"03:04:05.6+02:00"`), v(`'03:04:05-03:30'`, `"03:04:05-03:30"`), v(`'12:00:00-15:59'`, `"12:00:00-15:59"`),
			x(`'24:00:00+00'`, `"23:59:59.999999+00:00"`, `"24:00:00+00"`), x(`'01:00:00+00:53:28'`, `"01:00:00+00:53"`, `"01:00:00+00:53:28"`)),
		oneType("interval", v(`'1 year 2 mons 3 days 04:05:06.7'`, `"P1Y2M3DT4H5M6.7S"`), v(`'0'`, `"PT0S"`), v(`'-1 mon +2 days -3 hours'`, `"P-1M2DT-3H"`)),
		since(17, "interval", v(`'infinity'`, `"infinity"`), v(`'-infinity'`, `"-infinity"`)),
		oneType("daterange", v(`'[2024-01-01,infinity)'`, `"[2024-01-01,infinity)"`)),
		oneType("tsrange", v(`'[2024-01-02 03:04:05,)'`, `"[\"2024-01-02 03:04:05\",)"`)),
		oneType("tstzrange", v(`'[2024-01-02 03:04:05+00,)'`, `"[\"2024-01-02 03:04:05+00\",)"`)),
		since(14, "datemultirange", v(`'{[2024-01-01,2024-02-01)}'`, `"{[2024-01-01,2024-02-01)}"`)),
		since(14, "tsmultirange", v(`'{[2024-01-01,2024-02-01)}'`, `"{[\"2024-01-01 00:00:00\",\"2024-02-01 00:00:00\")}"`)),
		since(14, "tstzmultirange", v(`'{[2024-01-01 00:00+00,2024-02-01 00:00+00)}'`, `"{[\"2024-01-01 00:00:00+00\",\"2024-02-01 00:00:00+00\")}"`)),
	}
}

func systemCases() []Case {
	return []Case{
		oneType("int2vector", v(`'1 2 3'`, `"1 2 3"`)),
		oneType("oidvector", v(`'1 2 3'`, `"1 2 3"`)),
		oneType("xid", v(`'4294967295'`, `"4294967295"`)),
		since(13, "xid8", v(`'18446744073709551615'`, `"18446744073709551615"`)),
		oneType("cid", v(`'7'`, `"7"`)),
		oneType("tid", v(`'(1,2)'`, `"(1,2)"`)),
		oneType("pg_lsn", v(`'16/B374D848'`, `"16/B374D848"`)),
		since(13, "pg_snapshot", v(`'10:20:10,14'`, `"10:20:10,14"`)),
		oneType("txid_snapshot", v(`'10:20:10,14'`, `"10:20:10,14"`)),
		oneType("refcursor", v(`'a cursor'`, `"a cursor"`)),
		oneType("aclitem", v(`'postgres=r/postgres'`, `"postgres=r/postgres"`)),
		// Names are printed in full, so that both paths print the same whatever they look through.
		oneType("regclass", v(`'public.seen'`, `"public.seen"`), v(`'pg_class'`, `"pg_class"`), v(`0`, `"-"`), v(`4000000000`, `"4000000000"`)),
		oneType("regtype", v(`'public.mood'`, `"public.mood"`), v(`'int'`, `"integer"`)),
		oneType("regproc", v(`'now'`, `"now"`)),
		oneType("regprocedure", v(`'abs(int)'`, `"abs(integer)"`)),
		oneType("regoper", v(`'pg_catalog.||/'`, `"||/"`)),
		oneType("regoperator", v(`'+(int,int)'`, `"+(integer,integer)"`)),
		oneType("regrole", v(`'postgres'`, `"postgres"`)),
		oneType("regnamespace", v(`'public'`, `"public"`)),
		since(13, "regcollation", v(`'"C"'`, `"\"C\""`)),
		oneType("regconfig", v(`'simple'`, `"simple"`)),
		oneType("regdictionary", v(`'simple'`, `"simple"`)),
		since(19, "regdatabase", v(`'postgres'`, `"postgres"`)),
		oneType("pg_node_tree", v(`(SELECT adbin FROM pg_attrdef WHERE adrelid = 'public.seen'::regclass)`, ``)).unkeyed("has no input"),
		oneType("pg_ndistinct", v(`(SELECT stxdndistinct FROM pg_statistic_ext_data)`, `"{\"1, 2\": 2}"`)).unkeyed("has no input"),
		oneType("pg_dependencies", v(`(SELECT stxddependencies FROM pg_statistic_ext_data)`, `"{\"1 => 2\": 1.000000, \"2 => 1\": 1.000000}"`)).unkeyed("has no input"),
		oneType("pg_mcv_list", v(`(SELECT stxdmcv FROM pg_statistic_ext_data)`, ``)).unkeyed("has no input"),
	}
}

// Made are what users make of types: Setup makes them.
func Made() []Case {
	return []Case{
		oneType("mood", v(`'so la la'`, `"so la la"`), v(`'sad'`, `"sad"`)),
		oneType("pair", v(`ROW(1, 'a b')`, `"(1,\"a b\")"`), v(`ROW(NULL, NULL)`, `"(,)"`)),
		oneType("nested", v(`ROW(ROW(1, 'x"y'), 'infinity', ARRAY[1, 2])`, `"(\"(1,\"\"x\"\"\"\"y\"\")\",infinity,\"{1,2}\")"`)),
		oneType("percent", v(`50`, `50`)),
		oneType("percent2", v(`51`, `51`)),
		oneType("moment", v(`'2024-01-02 03:04:05+00'`, `"2024-01-02T03:04:05Z"`), x(`'infinity'`, `"9999-12-31T23:59:59Z"`, `"infinity"`)),
		oneType("document", x(`'{"a": 1}'`, `{"a": 1}`, `"{\"a\": 1}"`)),
		oneType("feeling", v(`'sad'`, `"sad"`)),
		oneType("pairs", v(`ROW(2, 'b')::pair`, `"(2,b)"`)),
		oneType("span", v(`'[1,2)'`, `"[1,2)"`)),
		oneType("deep", v(`'{1,2}'`, `[1,2]`), v(`'{{1},{2}}'`, `[[1],[2]]`), x(`'[0:1]={5,6}'`, `[5,6]`, `"[0:1]={5,6}"`)),
		oneType("words", v(`'[1,2)'`, `"[1,2)"`)),
	}
}

// Setup makes the types of Made, and a table, seen, whose statistics some of the values of BuiltIn come from: run ANALYZE seen
// after it.
const Setup = `CREATE TABLE seen (a int DEFAULT 7, b int);
	INSERT INTO seen SELECT i % 2, i % 2 FROM generate_series(1, 100) i; CREATE STATISTICS st ON a, b FROM seen;
	ALTER TABLE seen REPLICA IDENTITY FULL;
	CREATE TYPE mood AS ENUM ('sad', 'so la la'); CREATE TYPE pair AS (a int, b text); CREATE TYPE nested AS (p pair, d date, i int[]);
	CREATE DOMAIN percent AS int; CREATE DOMAIN percent2 AS percent CHECK (VALUE > 0); CREATE DOMAIN deep AS int[]; CREATE DOMAIN moment AS timestamptz;
	CREATE DOMAIN document AS jsonb; CREATE DOMAIN feeling AS mood; CREATE DOMAIN pairs AS pair; CREATE TYPE span AS RANGE (SUBTYPE = float8);
	CREATE DOMAIN words AS int4range;`

// ArrayShapes are arrays that are more than a list of values.
func ArrayShapes() []Case {
	return []Case{
		oneType("int[]", v(`'{}'`, `[]`), v(`'{1,NULL,3}'`, `[1,null,3]`), v(`'{{1,2},{3,4}}'`, `[[1,2],[3,4]]`), v(`'{{{{{{1}}}}}}'`, `[[[[[[1]]]]]]`),
			x(`'[0:1]={5,6}'`, `[5,6]`, `"[0:1]={5,6}"`), x(`'[-1:0][7:8]={{1,2},{3,4}}'`, `[[1,2],[3,4]]`, `"[-1:0][7:8]={{1,2},{3,4}}"`)),
		oneType("text[]", v(`ARRAY['a b', 'c"d', 'e\f', 'NULL', 'null', NULL, '', '{x}', 'ü', E'\n', 'a,b']`, `["a b","c\"d","e\\f","NULL","null",null,"","{x}","ü","\n","a,b"]`),
			x(`'[0:0]={"a\"b"}'`, `["a\"b"]`, `"[0:0]={\"a\\\"b\"}"`)),
		oneType("jsonb[]", x(`ARRAY['{"a": "b c"}'::jsonb, '1', NULL]`, `[{"a": "b c"},1,null]`, `["{\"a\": \"b c\"}","1",null]`),
			x(`ARRAY[ARRAY['[1, 2]'::jsonb], ARRAY['3'::jsonb]]`, `[[[1, 2]],[3]]`, `[["[1, 2]"],["3"]]`), x(`ARRAY['null'::jsonb]`, `[null]`, `["null"]`)),
		oneType("int2vector[]", v(`'{"1 2 3",NULL}'`, `["1 2 3",null]`)),
		oneType("oidvector[]", v(`'{"1 2 3",NULL}'`, `["1 2 3",null]`)),
		oneType("float8[]", v(`'{1.5,NaN,-Infinity}'`, `[1.5,"NaN","-Infinity"]`)),
		oneType("box[]", v(`'{(1,1),(0,0);(2,2),(1,1)}'`, `["(1,1),(0,0)","(2,2),(1,1)"]`)).unkeyed("boxes cannot be compared"),
		oneType("timestamptz[]", x(`ARRAY['2024-01-02 03:04:05+00'::timestamptz, 'infinity']`, `["2024-01-02T03:04:05Z","9999-12-31T23:59:59Z"]`, `["2024-01-02T03:04:05Z","infinity"]`)),
		oneType("deep[]", v(`'{"{1,2}","{3}",NULL}'`, `[[1,2],[3],null]`), x(`'{{"{1,2}"},{"{3}"}}'`, `[[[1,2]],[[3]]]`, `"{{\"{1,2}\"},{\"{3}\"}}"`)),
	}
}

// Extensions are types of extensions, all of them in the schema ext: SetupExtensions makes them.
func Extensions() []Case {
	const point = "0101000020E6100000000000000000F03F0000000000000040"
	return []Case{
		oneType("ext.citext", v(`'AbC'`, `"AbC"`), v(`'b'`, `"b"`), v(`'A'`, `"A"`), v(`'C'`, `"C"`)),
		oneType("shout", v(`'AbC'`, `"AbC"`), v(`'b'`, `"b"`), v(`'A'`, `"A"`), v(`'C'`, `"C"`)),
		oneType("ext.hstore", v(`'a=>1, "b c"=>NULL'`, `"\"a\"=>\"1\", \"b c\"=>NULL"`), v(`''`, `""`)),
		oneType("ext.ltree", v(`'Top.Science.Astronomy'`, `"Top.Science.Astronomy"`)),
		oneType("ext.lquery", v(`'Top.*{1,2}'`, `"Top.*{1,2}"`)),
		oneType("ext.ltxtquery", v(`'Europe & Russia*@'`, `"Europe & Russia@*"`)),
		oneType("ext.cube", v(`'(1,2),(3,4)'`, `"(1, 2),(3, 4)"`)),
		oneType("ext.seg", v(`'6.25 .. 6.50'`, `"6.25 .. 6.50"`)),
		oneType("ext.isbn", v(`'978-0-393-04002-9'`, `"0-393-04002-X"`)),
		oneType("ext.geometry", v(`'`+point+`'`, `"`+point+`"`)),
		oneType("ext.vector", v(`'[1,2.5,-3]'`, `"[1,2.5,-3]"`)),
	}
}
