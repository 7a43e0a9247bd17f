package parquet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pq "github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// field is a field that may be null or absent.
func field(name string, types ...string) materialize.Field {
	return materialize.Field{Name: name, Pointer: "/" + name, Types: types, Nullable: true}
}

func with(f materialize.Field, change func(*materialize.Field)) materialize.Field {
	change(&f)
	return f
}

func format(name, format string, types ...string) materialize.Field {
	return with(field(name, append(types, "string")...), func(f *materialize.Field) { f.Format = format })
}

func keyField(name string, types ...string) materialize.Field {
	return materialize.Field{Name: name, Pointer: "/" + name, Types: types, Required: true, Key: true}
}

func selection(keys []materialize.Field, values ...materialize.Field) Selection {
	return Selection{Keys: keys, Values: values, Document: &materialize.Field{Name: "flow_document", Types: []string{"object"}}}
}

// rowOf makes the row of a document, as a runtime does.
func rowOf(t testing.TB, s Selection, doc string) *materialize.Row {
	t.Helper()
	row := &materialize.Row{Doc: []byte(doc)}
	element := func(f materialize.Field) tuple.Element {
		found := make([][]byte, 1)
		jsonscan.NewPointers([]string{f.Pointer}).Find([]byte(doc), found)
		if found[0] == nil {
			return tuple.Element{}
		}
		packed, err := tuple.AppendJSON(nil, found[0])
		require.NoError(t, err)
		e, _, err := tuple.Next(packed)
		require.NoError(t, err)
		return e
	}
	for _, f := range s.Keys {
		row.Key = append(row.Key, element(f))
	}
	for _, f := range s.Values {
		row.Values = append(row.Values, element(f))
	}
	return row
}

// write writes documents to a file and returns its path.
func write(t testing.TB, s Selection, o Options, docs ...string) string {
	t.Helper()
	plan, err := Plan(s)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "rows.parquet")
	f, err := os.Create(path)
	require.NoError(t, err)
	w, err := NewWriter(f, plan, o)
	require.NoError(t, err)
	for _, doc := range docs {
		require.NoError(t, w.Append(rowOf(t, s, doc)))
	}
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())
	return path
}

// types is one column of every type, with what DuckDB calls it, a document's value, and what DuckDB reads.
func types() []struct {
	field             materialize.Field
	sql, value, reads string
} {
	big := 1e19
	return []struct {
		field             materialize.Field
		sql, value, reads string
	}{
		{field("bool", "boolean"), "BOOLEAN", `true`, `true`},
		{field("int", "integer"), "BIGINT", `-9223372036854775808`, `-9223372036854775808`},
		{with(field("uint64", "integer"), func(f *materialize.Field) { f.Maximum = &big }), "DECIMAL(38,0)", `18446744073709551615`, `"18446744073709551615"`},
		{field("double", "number"), "DOUBLE", `1.5e300`, `1.5e300`},
		{format("float", "number", "number"), "DOUBLE", `"-Infinity"`, `"-inf"`},
		{format("numeric", "number"), "VARCHAR", `"123456789012345678901234567890.123456789"`, `"123456789012345678901234567890.123456789"`},
		{with(format("amount", "number"), func(f *materialize.Field) { f.Config = json.RawMessage(`{"decimal": "18,2"}`) }), "DECIMAL(18,2)", `"-1234567.8"`, `"-1234567.80"`},
		{with(format("bounded", "number"), func(f *materialize.Field) { f.Decimal = schema.DecimalOf(38, 3) }), "DECIMAL(38,3)", `"-0.125"`, `"-0.125"`},
		{with(format("boundless", "number"), func(f *materialize.Field) { f.Decimal = schema.DecimalOf(39, 3) }), "VARCHAR", `"1.50"`, `"1.50"`},
		{with(format("maybe", "number", "integer", "string"), func(f *materialize.Field) { f.Decimal = schema.DecimalOf(9, 3) }), "JSON", `"1.50"`, `"1.50"`},
		{with(format("small", "number"), func(f *materialize.Field) { f.Config = json.RawMessage(`{"decimal": "5,1"}`) }), "DECIMAL(5,1)", `"9999.9"`, `"9999.9"`},
		{with(format("long", "number"), func(f *materialize.Field) { f.Config = json.RawMessage(`{"decimal": "38,10"}`) }), "DECIMAL(38,10)", `"-1234567890123456789012345678.0123456789"`, `"-1234567890123456789012345678.0123456789"`},
		{with(format("digits", "integer"), func(f *materialize.Field) { f.MaxLength = 20 }), "DECIMAL(20,0)", `"12345678901234567890"`, `"12345678901234567890"`},
		{format("date", "date"), "DATE", `"0001-02-28"`, `"0001-02-28"`},
		{format("time", "time"), "TIME", `"23:59:59.999999Z"`, `"23:59:59.999999"`},
		{format("stamp", "date-time"), "TIMESTAMP WITH TIME ZONE", `"9999-12-31T23:59:59.999999Z"`, `"9999-12-31 23:59:59.999999+00"`},
		{format("offset", "date-time"), "TIMESTAMP WITH TIME ZONE", `"1969-12-31T23:00:00.5-02:30"`, `"1970-01-01 01:30:00.5+00"`},
		{format("uuid", "uuid"), "UUID", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`, `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`},
		{with(field("bytes", "string"), func(f *materialize.Field) { f.ContentEncoding = "base64" }), "BLOB", `"AP9h"`, `"\\x00\\xFFa"`},
		{field("text", "string"), "VARCHAR", `"a\u0000\"ü"`, `"a\u0000\"ü"`},
		{field("object", "object"), "JSON", `{"a":[1,null]}`, `{"a":[1,null]}`},
		{field("mixed", "integer", "string", "object"), "JSON", `"x"`, `"x"`},
		{with(field("jsontext", "string"), func(f *materialize.Field) { f.ContentMediaType = "application/json" }), "JSON", `"[1, 2]"`, `[1, 2]`},
		{with(field("ints", "array"), func(f *materialize.Field) { f.Items = []string{"integer", "null"} }), "BIGINT[]", `[1,null,-3]`, `[1,null,-3]`},
		{with(field("texts", "array"), func(f *materialize.Field) { f.Items = []string{"string"} }), "VARCHAR[]", `["a","\u00fc",""]`, `["a","ü",""]`},
		{with(field("flags", "array"), func(f *materialize.Field) { f.Items = []string{"boolean"} }), "BOOLEAN[]", `[]`, `[]`},
		{with(field("numbers", "array"), func(f *materialize.Field) { f.Items = []string{"integer", "number"} }), "DOUBLE[]", `[1,2.5]`, `[1.0,2.5]`},
		{with(field("any", "array"), func(f *materialize.Field) { f.Items = []string{"array", "integer"} }), "JSON", `[[1],2]`, `[[1],2]`},
		{with(field("cast", "integer", "boolean"), func(f *materialize.Field) { f.Config = json.RawMessage(`{"castToString": true}`) }), "VARCHAR", `12`, `"12"`},
	}
}

// Every type comes back from a real DuckDB as it was, under the name of the type that it should have; and as null.
func TestTypes(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	for _, compression := range []string{"zstd", "snappy", "gzip", "none"} {
		s := selection([]materialize.Field{keyField("id", "integer")})
		doc := []string{`{"id":1`}
		for _, c := range types() {
			s.Values = append(s.Values, c.field)
			doc = append(doc, fmt.Sprintf("%q:%s", c.field.Name, c.value))
		}
		path := write(t, s, Options{Compression: compression, BloomFilters: true}, strings.Join(doc, ",")+"}", `{"id":2}`)
		columns := duckdb.Query(t, "", fmt.Sprintf("DESCRIBE SELECT * FROM '%s'", path))
		rows := duckdb.Query(t, "", fmt.Sprintf("SELECT * REPLACE (float::VARCHAR AS float) FROM '%s' ORDER BY id", path))
		require.Len(t, rows, 2)
		require.Equal(t, "id", columns[0]["column_name"], "columns keep their order")
		for i, c := range types() {
			require.Equal(t, c.field.Name, columns[i+1]["column_name"])
			require.Equal(t, c.sql, columns[i+1]["column_type"], c.field.Name)
			var want any
			d := json.NewDecoder(strings.NewReader(c.reads))
			d.UseNumber()
			require.NoError(t, d.Decode(&want))
			require.Equal(t, want, rows[0][c.field.Name], c.field.Name)
			require.Nil(t, rows[1][c.field.Name], c.field.Name)
		}
		require.Len(t, rows[1][AbsentColumn], len(types()))
		require.Empty(t, rows[0][AbsentColumn])
	}
}

// What a column cannot hold stops the writer, and the message leads to the row; nothing is changed to fit.
func TestValuesThatDoNotFit(t *testing.T) {
	t.Parallel()
	config := func(c string) func(*materialize.Field) {
		return func(f *materialize.Field) { f.Config = json.RawMessage(c) }
	}
	for _, c := range []struct {
		field materialize.Field
		value string
		want  string
	}{
		{field("v", "integer"), `9223372036854775808`, `A value of the field "v" cannot be stored as BIGINT in "orders": it is not an integer between -9223372036854775808 and 9223372036854775807. The value is 9223372036854775808, the row's key [7, "x"]. If such values are to be stored, give the field {castToString: true} in the pipeline.`},
		{field("v", "integer"), `1.5`, `it is not an integer`},
		{field("v", "boolean"), `"true"`, `it is not a boolean`},
		{field("v", "number"), `9007199254740993`, `not a number that a double holds`},
		{format("v", "number", "number"), `"123456789.0123456789"`, `not a number that a double holds`},
		{format("v", "number", "number"), `"1e-999"`, `not a number that a double holds`},
		{format("v", "number", "number"), `"inf"`, `not a number that a double holds`},
		{format("v", "date"), `"2024-02-30"`, `it is not a date of the form 2006-01-02`},
		{format("v", "date"), `"12024-02-03"`, `it is not a date`},
		{format("v", "date-time"), `"2024-02-03"`, `it is not a point in time`},
		{format("v", "date-time"), `"2024-02-03T00:00:00"`, `it is not a point in time`},
		{format("v", "date-time"), `"2024-02-03T00:00:00.1234567Z"`, `it is finer than a microsecond`},
		{format("v", "time"), `"24:00:00Z"`, `it is not a time`},
		{format("v", "time"), `"23:59:60Z"`, `it is not a time`},
		{format("v", "uuid"), `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1"`, `it is not a UUID`},
		{with(field("v", "string"), func(f *materialize.Field) { f.ContentEncoding = "base64" }), `"%"`, `it is not base64`},
		{field("v", "string"), `1`, `it is not a string`},
		{with(field("v", "string"), config(`{"decimal": "4,2"}`)), `"100"`, `cannot be stored as DECIMAL(4,2) in "orders": it is not a number with so few digits before and behind the point`},
		{with(field("v", "string"), config(`{"decimal": "4,2"}`)), `"1.234"`, `so few digits`},
		{with(field("v", "string"), config(`{"decimal": "4,2"}`)), `"NaN"`, `so few digits`},
		{with(format("v", "number"), func(f *materialize.Field) { f.Decimal = schema.DecimalOf(4, 2) }), `"1.234"`, `so few digits`},
		{with(format("v", "number"), func(f *materialize.Field) { f.Decimal = schema.DecimalOf(4, 2) }), `"NaN"`, `so few digits`},
		{with(field("v", "array"), func(f *materialize.Field) { f.Items = []string{"integer"} }), `[1,"2"]`, `it is not an integer`},
		{with(field("v", "array"), func(f *materialize.Field) { f.Items = []string{"integer"} }), `{}`, `it is not an array`},
		{with(field("v", "integer"), func(f *materialize.Field) { f.Required, f.Nullable = true, false }), `null`, `it is null or absent, although the collection's schema says that it never is`},
	} {
		s := selection([]materialize.Field{keyField("id", "integer"), keyField("k", "string")}, c.field)
		plan, err := Plan(s)
		require.NoError(t, err)
		w, err := NewWriter(io.Discard, plan, Options{Table: "orders"})
		require.NoError(t, err)
		err = w.Append(rowOf(t, s, `{"id":7,"k":"x","v":`+c.value+`}`))
		require.ErrorContains(t, err, c.want, "%s", c.value)
		require.Equal(t, err, w.Append(rowOf(t, s, `{"id":7,"k":"x","v":`+c.value+`}`)), "the writer is of no more use")
		require.Equal(t, err, w.Close())
	}
}

// Decimals of any notation are exact, and what is written as zeros behind the last place is no loss.
func TestDecimals(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0": "0", "-0.00": "0", "000": "0", "0.01": "1", "-0.01": "-1", "12": "1200", "12.3": "1230", "12.3400": "1234",
		"1.2e1": "1200", "1e-2": "1", "120E-1": "1200", "+7": "700", ".5": "50", "5.": "500", "00123.45": "12345", "1e34": "1" + strings.Repeat("0", 36),
		"-" + strings.Repeat("9", 36) + ".99": "-" + strings.Repeat("9", 38),
	} {
		n, err := decimalOf(&tuple.Element{Kind: tuple.String, Bytes: []byte(text)}, 38, 2)
		require.NoError(t, err, text)
		require.Equal(t, want, new(big.Int).Sub(new(big.Int).SetBytes(n.appendBytes(nil)), twos(n)).String(), text)
	}
	for _, text := range []string{"", "-", ".", "e1", "1e", "1e+", "1.2.3", "0x1", "1 ", "Infinity", "0.001", "1e36", "1e9999999"} {
		_, err := decimalOf(&tuple.Element{Kind: tuple.String, Bytes: []byte(text)}, 38, 2)
		require.Error(t, err, text)
	}
}

// twos is what two's complement adds to negative numbers of 16 bytes.
func twos(n number128) *big.Int {
	if !n.negative {
		return new(big.Int)
	}
	return new(big.Int).Lsh(big.NewInt(1), 128)
}

func TestConstrain(t *testing.T) {
	t.Parallel()
	require.Equal(t, materialize.LocationRequired, Constrain(materialize.Field{Name: "flow_document"}).Choice)
	require.Equal(t, materialize.LocationRequired, Constrain(with(field("op", "string"), func(f *materialize.Field) { f.Pointer = "/_meta/op" })).Choice)
	require.Equal(t, materialize.Recommended, Constrain(with(field("ts", "integer"), func(f *materialize.Field) { f.Pointer = "/_meta/source/ts_ms" })).Choice)
	require.Equal(t, materialize.Constraint{Choice: materialize.Recommended, Reason: "It is stored as BIGINT."}, Constrain(field("a", "integer")))
	require.Equal(t, materialize.Constraint{Reason: "It can be stored as BIGINT."}, Constrain(with(field("a/b", "integer"), func(f *materialize.Field) { f.Pointer = "/a/b" })))
	require.Equal(t, materialize.Constraint{Choice: materialize.Forbidden, Reason: `No value of the field "a" has been seen yet, so its type is not known.`}, Constrain(field("a")))
	require.Equal(t, materialize.Forbidden, Constrain(field(AbsentColumn, "integer")).Choice)
	require.Contains(t, Constrain(with(field("a", "string"), func(f *materialize.Field) { f.Config = []byte(`{"decimal": "39,2"}`) })).Reason, `decimal "39,2" of the field "a" is not "precision,scale" with a precision of up to 38`)
	require.Contains(t, Constrain(with(field("a", "object"), func(f *materialize.Field) { f.Config = []byte(`{"decimal": "9,2"}`) })).Reason, `can be of type object`)
	require.Contains(t, Constrain(with(field("a", "object"), func(f *materialize.Field) { f.Config = []byte(`{"decimal": 9}`) })).Reason, `What is configured for the field "a" is not`)
}

// A document's lack of a value is not the same as null, at any depth; so is told which columns have to be carried over.
func TestAbsent(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	nested := with(field("o/b", "integer"), func(f *materialize.Field) { f.Pointer = "/o/b" })
	s := selection([]materialize.Field{keyField("id", "integer")}, field("a", "string"), field("é", "string"), nested,
		with(field("second", "string"), func(f *materialize.Field) { f.Pointer = "/a" }),
		with(field("sure", "string"), func(f *materialize.Field) { f.Required = true }))
	path := write(t, s, Options{}, `{"id":1,"a":null,"\u00e9":"x","o":{"b":null},"sure":null}`, `{"id":2,"o":{}}`, `{"id":3,"a":"x","é":null,"o":{"c":1,"b":2}}`, `{"id":4,"o":null}`)
	rows := duckdb.Query(t, "", fmt.Sprintf(`SELECT array_agg("_meta/absent"::VARCHAR ORDER BY id) AS l FROM '%s'`, path))
	require.Equal(t, []any{"[]", "[a, é, o/b, second]", "[]", "[a, é, o/b, second]"}, rows[0]["l"])
}

// Files of different schemas are read together: by name, and integers with doubles.
func TestSchemaVersionsTogether(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	key := []materialize.Field{keyField("id", "integer")}
	first := write(t, selection(key, field("n", "integer"), field("gone", "string")), Options{}, `{"id":1,"n":1,"gone":"x"}`)
	second := write(t, selection(key, field("new", "boolean"), field("n", "number")), Options{}, `{"id":2,"n":2.5,"new":true}`)
	rows := duckdb.Query(t, "", fmt.Sprintf(`SELECT id, n, gone, new FROM read_parquet(['%s', '%s'], union_by_name = true) ORDER BY id`, first, second))
	require.Equal(t, []duckdb.Row{
		{"id": json.Number("1"), "n": json.Number("1.0"), "gone": "x", "new": nil},
		{"id": json.Number("2"), "n": json.Number("2.5"), "gone": nil, "new": true},
	}, rows)
}

// Row groups end by rows or by bytes, pages by rows; every one has bounds and the key a Bloom filter, and readers that skip by
// them find every row.
func TestRowGroupsPagesAndFilters(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	s := selection([]materialize.Field{keyField("id", "integer"), keyField("k", "string")},
		with(field("d", "string"), func(f *materialize.Field) { f.Config = json.RawMessage(`{"decimal": "30,2"}`) }),
		with(field("l", "array"), func(f *materialize.Field) { f.Items = []string{"integer"} }))
	docs := make([]string, 50_000)
	for i := range docs {
		docs[i] = fmt.Sprintf(`{"id":%d,"k":"key %d","d":"%d.5","l":[%d,null,%d]}`, i, i, i-25_000, i, i+1)
	}
	path := write(t, s, Options{RowGroupRows: 30_000, BloomFilters: true}, docs...)
	groups := duckdb.Query(t, "", fmt.Sprintf(`SELECT row_group_num_rows AS n, stats_min_value AS lo, stats_max_value AS hi, bloom_filter_offset IS NOT NULL AS bloom
		FROM parquet_metadata('%s') WHERE path_in_schema = 'id' ORDER BY row_group_id`, path))
	require.Equal(t, []duckdb.Row{
		{"n": json.Number("30000"), "lo": "0", "hi": "29999", "bloom": true}, {"n": json.Number("20000"), "lo": "30000", "hi": "49999", "bloom": true},
	}, groups)
	for where, want := range map[string]string{
		"k = 'key 31234'": "1", "id = 12345": "1", "id = 50000": "0", "d < -24990": "11", "d > 0": "25000", "list_contains(l, 40000)": "2", "len(l) = 3": "50000", "list_sum(l) = 2*id+1": "50000",
	} {
		rows := duckdb.Query(t, "", fmt.Sprintf(`SELECT count(*) AS n FROM '%s' WHERE %s`, path, where))
		require.Equal(t, json.Number(want), rows[0]["n"], where)
	}
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	info, err := file.Stat()
	require.NoError(t, err)
	read, err := pq.OpenFile(file, info.Size())
	require.NoError(t, err)
	offsets, err := read.RowGroups()[0].ColumnChunks()[0].OffsetIndex()
	require.NoError(t, err)
	require.Equal(t, 2, offsets.NumPages(), "a page has 20000 rows at most")
	bounds, err := read.RowGroups()[0].ColumnChunks()[0].ColumnIndex()
	require.NoError(t, err)
	require.Equal(t, int64(20480), bounds.MinValue(1).Int64())

	small := write(t, s, Options{RowGroupBytes: 64 << 10}, docs...)
	rows := duckdb.Query(t, "", fmt.Sprintf(`SELECT num_row_groups AS groups, num_rows AS n FROM parquet_file_metadata('%s')`, small))
	require.Equal(t, json.Number("50000"), rows[0]["n"])
	n, err := rows[0]["groups"].(json.Number).Int64()
	require.NoError(t, err)
	require.Greater(t, n, int64(20))
}

// A file without rows is a file, with its columns.
func TestEmptyFile(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	path := write(t, selection([]materialize.Field{keyField("id", "integer")}, field("a", "string")), Options{})
	require.Len(t, duckdb.Query(t, "", fmt.Sprintf("DESCRIBE SELECT * FROM '%s'", path)), 3)
	require.Equal(t, json.Number("0"), duckdb.Query(t, "", fmt.Sprintf("SELECT count(*) AS n FROM '%s'", path))[0]["n"])
}

// The document itself is a column only where it is wanted.
func TestStoredDocument(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	s := selection([]materialize.Field{keyField("id", "integer")}, field("a", "string"))
	s.StoreDocument = true
	path := write(t, s, Options{}, `{"id":1,"b":[1]}`)
	rows := duckdb.Query(t, "", fmt.Sprintf(`SELECT flow_document->'$.b' AS b FROM '%s'`, path))
	require.Equal(t, []any{json.Number("1")}, rows[0]["b"])
	plan, err := Plan(s)
	require.NoError(t, err)
	require.Equal(t, []Column{{"id", "BIGINT", true}, {"a", "VARCHAR", false}, {"flow_document", "JSON", true}, {AbsentColumn, "VARCHAR[]", true}}, plan.Columns())
}

// Readers that skip pages by the index miss no row: there are bounds for every page, and what is in it lies within, also
// where columns have no bounds of their own, and beside pages of nothing but nulls.
func TestPageIndex(t *testing.T) {
	t.Parallel()
	s := selection([]materialize.Field{keyField("id", "integer")},
		with(field("decimal", "string"), func(f *materialize.Field) { f.Config = json.RawMessage(`{"decimal": "30,2"}`) }),
		field("object", "object"), with(field("text", "string"), func(f *materialize.Field) { f.ContentMediaType = "application/json" }),
		with(field("binary", "string"), func(f *materialize.Field) { f.ContentEncoding = "base64" }), format("uuid", "uuid"), field("string", "string"))
	docs := make([]string, 50_000)
	for i := range docs {
		docs[i] = fmt.Sprintf(`{"id":%d}`, i)
		if i >= 25_000 { // the first page is all null
			docs[i] = fmt.Sprintf(`{"id":%[1]d,"decimal":"%[2]d.5","object":{"a":%[1]d},"text":"[%[1]d]","binary":"//8=","uuid":"a0eebc99-9c0b-4ef8-bb6d-%012[1]d","string":"a long text that goes on %[1]d"}`, i, i-40_000)
		}
	}
	file, err := os.Open(write(t, s, Options{}, docs...))
	require.NoError(t, err)
	defer file.Close()
	info, err := file.Stat()
	require.NoError(t, err)
	read, err := pq.OpenFile(file, info.Size())
	require.NoError(t, err)
	require.Len(t, read.RowGroups(), 1)
	for i, chunk := range read.RowGroups()[0].ColumnChunks() {
		name := read.Metadata().RowGroups[0].Columns[i].MetaData.PathInSchema[0]
		index := read.ColumnIndexes()[i]
		require.Len(t, index.MinValues, 3, name)
		require.Len(t, index.MaxValues, 3, name)
		order := func(b []byte) string { return string(b) }
		if name == "decimal" { // signed
			order = func(b []byte) string { return string(append([]byte{b[0] ^ 0x80}, b[1:]...)) }
		}
		pages := chunk.Pages()
		for page := 0; ; page++ {
			p, err := pages.ReadPage()
			if errors.Is(err, io.EOF) {
				require.Equal(t, 3, page, name)
				break
			}
			require.NoError(t, err)
			require.Equal(t, p.NumNulls() == p.NumValues(), index.NullPages[page], "%s, page %d", name, page)
			values := make([]pq.Value, p.NumValues())
			_, err = p.Values().ReadValues(values)
			require.True(t, err == nil || errors.Is(err, io.EOF), "%v", err)
			for _, v := range values {
				if !v.IsNull() && name != "id" {
					require.LessOrEqual(t, order(index.MinValues[page]), order(v.ByteArray()), name)
					require.GreaterOrEqual(t, order(index.MaxValues[page]), order(v.ByteArray()), name)
				}
			}
			pq.Release(p)
		}
		require.NoError(t, pages.Close())
	}
}
