package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// mysqlCase is a type with values, as SQL, the column that materialize-postgres makes of it, and the one that the files have.
type mysqlCase struct {
	flavor   string // empty for both
	typ      string
	values   []string
	postgres string
	parquet  string // as DuckDB calls it
	noKey    bool
	lost     []int // values that have no equal in JSON's notation for them, so that the copy has another one
}

func mysqlCases() []mysqlCase {
	const whole, moment = "bigint", "timestamp with time zone"
	return []mysqlCase{
		{typ: "TINYINT", values: []string{"-128", "127"}, postgres: whole, parquet: "BIGINT"},
		{typ: "SMALLINT UNSIGNED", values: []string{"0", "65535"}, postgres: whole, parquet: "BIGINT"},
		{typ: "MEDIUMINT", values: []string{"-8388608"}, postgres: whole, parquet: "BIGINT"},
		{typ: "INT UNSIGNED ZEROFILL", values: []string{"42", "4294967295"}, postgres: whole, parquet: "BIGINT"},
		{typ: "BIGINT", values: []string{"-9223372036854775808", "9223372036854775807"}, postgres: whole, parquet: "BIGINT"},
		{typ: "BIGINT UNSIGNED", values: []string{"0", "18446744073709551615"}, postgres: "numeric", parquet: "DECIMAL(38,0)"},
		{typ: "BIT(9)", values: []string{"0", "b'101010101'"}, postgres: whole, parquet: "BIGINT"},
		{typ: "BIT(64)", values: []string{"~0"}, postgres: "numeric", parquet: "DECIMAL(38,0)"},
		{typ: "YEAR", values: []string{"0", "2155"}, postgres: whole, parquet: "BIGINT"},
		{typ: "DECIMAL(65,30)", values: []string{"-" + strings.Repeat("9", 35) + ".000000000000000000000000000001", "0.1"}, postgres: "numeric", parquet: "VARCHAR"},
		{typ: "DECIMAL(5,0) UNSIGNED", values: []string{"0", "99999"}, postgres: "numeric", parquet: "DECIMAL(5,0)"},
		{typ: "DECIMAL(38,10)", values: []string{"-" + strings.Repeat("9", 28) + ".0000000001", "0.5"}, postgres: "numeric", parquet: "DECIMAL(38,10)"},
		{typ: "FLOAT", values: []string{"0.1", "-3.4028235e38", "16777216"}, postgres: "double precision", parquet: "DOUBLE", noKey: true},
		{typ: "DOUBLE", values: []string{"0.1", "1.7976931348623157e308", "5e-324"}, postgres: "double precision", parquet: "DOUBLE"},
		{typ: "CHAR(5)", values: []string{"'日本😀'", "''"}, postgres: "text", parquet: "VARCHAR"},
		{typ: "VARCHAR(20)", values: []string{"'a  '", `'"\\\\\n\t'`}, postgres: "text", parquet: "VARCHAR"},
		{typ: "VARCHAR(20) CHARACTER SET latin1", values: []string{"'é€œ'"}, postgres: "text", parquet: "VARCHAR"},
		{typ: "VARCHAR(20) CHARACTER SET utf16 COLLATE utf16_bin", values: []string{"'日😀é'", "'A'", "'a'"}, postgres: "text", parquet: "VARCHAR"},
		{typ: "MEDIUMTEXT", values: []string{"REPEAT('ab', 50000)"}, postgres: "text", parquet: "VARCHAR", noKey: true},
		{typ: "BINARY(4)", values: []string{"X'0102'", "X'00000000'"}, postgres: "bytea", parquet: "BLOB"},
		{typ: "VARBINARY(10)", values: []string{"X'0100'", "X'FF'"}, postgres: "bytea", parquet: "BLOB"},
		{typ: "LONGBLOB", values: []string{"X'00FF'", "''"}, postgres: "bytea", parquet: "BLOB", noKey: true},
		{typ: "ENUM('b','a','it''s','é')", values: []string{"'a'", "'it''s'", "'é'"}, postgres: "text", parquet: "VARCHAR"},
		{typ: "SET('a','b','c')", values: []string{"''", "'c,a'"}, postgres: "text", parquet: "VARCHAR"},
		{typ: "DATE", values: []string{"'2024-02-29'", "'9999-12-31'", "'0000-00-00'", "'2024-02-00'"}, postgres: "date", parquet: "DATE", noKey: true, lost: []int{2, 3}},
		{typ: "DATETIME", values: []string{"'2024-02-29 23:59:59'", "'0000-00-00 00:00:00'"}, postgres: moment, parquet: "TIMESTAMP WITH TIME ZONE", noKey: true, lost: []int{1}},
		{typ: "DATETIME(6)", values: []string{"'9999-12-31 23:59:59.999999'", "'1000-01-01 00:00:00.000001'"}, postgres: moment, parquet: "TIMESTAMP WITH TIME ZONE"},
		{typ: "TIMESTAMP(3) NULL", values: []string{"'2024-07-01 12:00:00.125'", "'2037-12-31 23:59:59'"}, postgres: moment, parquet: "TIMESTAMP WITH TIME ZONE", noKey: true},
		{typ: "TIME(6)", values: []string{"'-838:59:58.999999'", "'00:00:00.000001'"}, postgres: "text", parquet: "VARCHAR"},
		{typ: "POINT", values: []string{"ST_GeomFromText('POINT(1 -2.5)')"}, postgres: "text", parquet: "VARCHAR", noKey: true},
		{typ: "GEOMETRY", values: []string{"ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 0),(1 1,2 1,2 2,1 1))')"}, postgres: "text", parquet: "VARCHAR", noKey: true},
		{
			flavor: mysqld.MySQL, typ: "JSON", postgres: "jsonb", parquet: "JSON", noKey: true,
			values: []string{`'{"b": [1, -2, 3.0, 1.5e-10, true, null], "a": {"c": "x\\"y é😀\\n"}, "": {}}'`, `'[]'`, `'"text"'`, `'18446744073709551615'`, "JSON_ARRAY(REPEAT('long', 20000))"},
		},
		{flavor: mysqld.MariaDB, typ: "JSON", values: []string{`'{"a": [1, 2]}'`}, postgres: "text", parquet: "VARCHAR", noKey: true},
		{flavor: mysqld.MySQL, typ: "VECTOR(3)", values: []string{"STRING_TO_VECTOR('[1,-2.5,0.5]')"}, postgres: "jsonb", parquet: "JSON", noKey: true},
		{flavor: mysqld.MariaDB, typ: "UUID", values: []string{"'6ccd780c-baba-1026-9564-5b8c656024db'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"}, postgres: "uuid", parquet: "UUID"},
		{flavor: mysqld.MariaDB, typ: "INET6", values: []string{"'2001:db8::ff00:42:8329'", "'::ffff:1.2.3.4'"}, postgres: "inet", parquet: "VARCHAR"},
		{flavor: mysqld.MariaDB, typ: "INET4", values: []string{"'1.2.3.4'", "'255.255.255.255'"}, postgres: "inet", parquet: "VARCHAR"},
	}
}

// Every type of MySQL and MariaDB, captured and materialized, gives back an equal table in a column of a natural type, whether its rows came
// from the backfill, were streamed, or updated; and as a key; in Postgres, and in Parquet files. What differs is listed, and really does.
func TestEveryTypeOfMySQLComesBack(t *testing.T) {
	t.Parallel()
	for _, flavor := range []string{mysqld.MySQL, mysqld.MariaDB} {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			binaries(t)
			b := &mysqlBed{mysqlWorld: newMySQLWorld(t, newMySQLSide(t, server.SharedMySQL(t, flavor)), server.SharedPostgres(t)), t: t}
			b.cases = slices.DeleteFunc(mysqlCases(), func(c mysqlCase) bool { return c.flavor != "" && c.flavor != flavor })
			b.create()
			b.fill(0)
			b.start()
			b.write()
			b.copy.prints(t, "1", "SELECT count(*) FROM copy.kinds WHERE id = 9999")
			b.mirror(t, append(b.keyed(), "kinds")...)
			b.compareColumns()
			b.compareKeys()
			if _, err := duckdb.Find(); err == nil {
				b.compareFiles()
			}
		})
	}
}

// mysqlBed is a world with a table of all types, and one for each type that can be a key.
type mysqlBed struct {
	*mysqlWorld
	t     *testing.T
	conn  *pgx.Conn // to mirror and copy
	cases []mysqlCase
	lake  string
	rows  int // that the values of one filling make
}

// keyed are the tables with keys of all types; k3 has the third case's.
func (b *mysqlBed) keyed() (tables []string) {
	for i, c := range b.cases {
		if !c.noKey {
			tables = append(tables, fmt.Sprintf("k%d", i))
		}
	}
	return tables
}

func (b *mysqlBed) create() {
	b.t.Helper()
	columns := []string{"id INT PRIMARY KEY"}
	for i, c := range b.cases {
		columns = append(columns, fmt.Sprintf("c%d %s", i, c.typ))
		b.rows = max(b.rows, len(c.values))
		if !c.noKey {
			b.origin.exec(b.t, fmt.Sprintf("CREATE TABLE k%d (k %s NOT NULL PRIMARY KEY, n INT)", i, c.typ))
			for n, v := range c.values {
				b.origin.exec(b.t, fmt.Sprintf("INSERT INTO k%d VALUES (%s, %d)", i, v, n))
			}
		}
	}
	b.origin.exec(b.t, "CREATE TABLE kinds ("+strings.Join(columns, ", ")+")")
}

// fill inserts the values from an id on: a row has the values of one number of all types, or null.
func (b *mysqlBed) fill(id int) {
	b.t.Helper()
	for n := range b.rows {
		values := []string{fmt.Sprint(id + n)}
		for _, c := range b.cases {
			if n < len(c.values) {
				values = append(values, c.values[n])
			} else {
				values = append(values, "NULL")
			}
		}
		b.origin.exec(b.t, "INSERT INTO kinds VALUES ("+strings.Join(values, ", ")+")")
	}
}

// start runs the pipeline until the backfill is over.
func (b *mysqlBed) start() {
	b.t.Helper()
	b.discover(b.t, append(b.keyed(), "kinds")...)
	b.materialize(b.t, "e2e/copy", map[string]any{"schema": "copy", "hardDelete": true}, nil)
	b.lake = b.t.TempDir()
	require.NoError(b.t, b.catalog.Materialize("e2e/lake", launch.Parquet(b.bins, b.lake, "0s"), func(table string, m *launch.MaterializationBinding) bool {
		return launch.IntoPath(table, m) && table == "kinds"
	}))
	b.world.start(b.t)
	b.copy.prints(b.t, fmt.Sprint(b.rows), "SELECT count(*) FROM copy.kinds")
}

// write streams inserts, updates of everything, and deletes. The row 9999 is the last one.
func (b *mysqlBed) write() {
	b.t.Helper()
	b.fill(1000)
	var set []string
	for i := range b.cases {
		set = append(set, fmt.Sprintf("t.c%[1]d = s.c%[1]d", i))
	}
	b.origin.exec(b.t, "INSERT INTO kinds (id) SELECT id + 1000 FROM kinds WHERE id >= 1000",
		"UPDATE kinds t JOIN kinds s ON s.id = t.id - 1000 SET "+strings.Join(set, ", ")+" WHERE t.id >= 2000",
		"INSERT INTO kinds (id) SELECT id + 3000 FROM kinds WHERE id < 1000", "DELETE FROM kinds WHERE id >= 3000")
	for _, table := range b.keyed() {
		b.origin.exec(b.t, "UPDATE "+table+" SET n = n + 1")
	}
	b.origin.exec(b.t, "INSERT INTO kinds (id) VALUES (9999)")
}

// lostRows are the ids of the rows whose value of a case differs in the copy.
func (b *mysqlBed) lostRows(c mysqlCase) []string {
	out := []string{}
	for _, n := range c.lost {
		out = append(out, fmt.Sprint(n), fmt.Sprint(1000+n), fmt.Sprint(2000+n))
	}
	slices.Sort(out)
	return out
}

func (b *mysqlBed) ask(sql string) []string {
	b.t.Helper()
	if b.conn == nil {
		b.conn = b.source.connect(b.t)
	}
	rows, err := b.conn.Query(b.t.Context(), sql)
	require.NoError(b.t, err, sql)
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(b.t, err, sql)
	return out
}

func (b *mysqlBed) typeOf(table, column string) string {
	b.t.Helper()
	return b.ask("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = '" + table + "'::regclass AND attname = '" + column + "'")[0]
}

// compareColumns compares every column with its copy, read as the source's type.
func (b *mysqlBed) compareColumns() {
	b.t.Helper()
	all := fmt.Sprint(3*b.rows + 1)
	require.Equal(b.t, []string{all}, b.ask("SELECT count(*)::text FROM kinds JOIN copy.kinds d USING (id)"), "the rows that both have")
	require.Equal(b.t, []string{all}, b.ask("SELECT count(*)::text FROM kinds FULL JOIN copy.kinds d USING (id)"), "all rows")
	var wrong []string
	for i, c := range b.cases {
		column := fmt.Sprintf("c%d", i)
		stored := b.typeOf("copy.kinds", column)
		different := b.ask(fmt.Sprintf("SELECT id::text FROM kinds s JOIN copy.kinds d USING (id) WHERE s.%[1]s%[3]s IS DISTINCT FROM d.%[1]s::%[2]s%[3]s ORDER BY 1",
			column, b.typeOf("kinds", column), asText(b.typeOf("kinds", column))))
		if stored != c.postgres || !slices.Equal(b.lostRows(c), different) {
			wrong = append(wrong, fmt.Sprintf("%s as %s instead of %s: the rows %v differ instead of %v", c.typ, stored, c.postgres, different, b.lostRows(c)))
		}
	}
	require.Empty(b.t, wrong, strings.Join(wrong, "\n"))
}

// compareKeys compares the tables whose keys are of all types.
func (b *mysqlBed) compareKeys() {
	b.t.Helper()
	total, tables := 0, []string{}
	for i, c := range b.cases {
		if !c.noKey {
			total += len(c.values)
			tables = append(tables, fmt.Sprintf("SELECT n FROM copy.k%d", i))
		}
	}
	b.copy.prints(b.t, fmt.Sprintf("%[1]d|%[1]d", total), "SELECT count(*), count(*) FILTER (WHERE n > 0) FROM ("+strings.Join(tables, " UNION ALL ")+") AS keyed")
	for i, c := range b.cases {
		if c.noKey {
			continue
		}
		table := fmt.Sprintf("k%d", i)
		rows := fmt.Sprint(len(c.values))
		want := c.postgres
		if want == "double precision" {
			want = "numeric" // a float in a key is decimal text
		}
		require.Equal(b.t, want, b.typeOf("copy."+table, "k"), c.typ)
		require.Equal(b.t, []string{rows}, b.ask(fmt.Sprintf("SELECT count(*)::text FROM %[1]s s JOIN copy.%[1]s d ON s.k::text = d.k::%[2]s::text AND s.n = d.n", table, b.typeOf(table, "k"))), "%s as a key", c.typ)
	}
}

// compareFiles compares every column with what a DuckDB finds in the files, by the statements that sluice prints.
func (b *mysqlBed) compareFiles() {
	b.t.Helper()
	texts := filepath.Join(b.t.TempDir(), "kinds.json")
	lines := b.ask("SELECT json_build_object('id', id::text" + b.eachColumn(", 'c%[1]d', c%[1]d::text") + ")::text FROM kinds ORDER BY id")
	require.NoError(b.t, os.WriteFile(texts, []byte(strings.Join(lines, "\n")), 0o600))
	sql, err := launch.DuckDB(b.t.Context(), b.bins, b.pipeline(), "e2e/lake")
	require.NoError(b.t, err)
	sql = "SET TimeZone = 'UTC'; CREATE TABLE texts AS SELECT * FROM read_json('" + texts + "', maximum_object_size = 100000000, columns = {id: 'BIGINT'" + b.eachColumn(", c%d: 'VARCHAR'") + "});" + sql + ";"
	b.eventuallyInFiles(sql)
	types := map[string]string{}
	for _, row := range duckdb.Query(b.t, "", sql+"DESCRIBE kinds") {
		types[fmt.Sprint(row["column_name"])] = fmt.Sprint(row["column_type"])
	}
	var queries, wrong []string
	for i, c := range b.cases {
		queries = append(queries, fmt.Sprintf("SELECT %d AS n, id::VARCHAR AS id FROM texts s JOIN kinds d USING (id) WHERE %s", i, c.differsInFiles(fmt.Sprintf("c%d", i))))
	}
	different := map[string][]string{}
	for _, row := range duckdb.Query(b.t, "", sql+strings.Join(queries, " UNION ALL ")+" ORDER BY 1, 2") {
		n := fmt.Sprint(row["n"])
		different[n] = append(different[n], fmt.Sprint(row["id"]))
	}
	for i, c := range b.cases {
		stored, rows := types[fmt.Sprintf("c%d", i)], different[fmt.Sprint(i)]
		if stored != c.parquet || !slices.Equal(b.lostRows(c), append([]string{}, rows...)) {
			wrong = append(wrong, fmt.Sprintf("%s as %s instead of %s: the rows %v differ instead of %v", c.typ, stored, c.parquet, rows, b.lostRows(c)))
		}
	}
	require.Empty(b.t, wrong, strings.Join(wrong, "\n"))
}

// differsInFiles is DuckDB's condition that a column of the files, d, is not what Postgres prints of the source's value, s.
func (c mysqlCase) differsInFiles(column string) string {
	expected, got := "s."+column, "d."+column
	switch {
	case c.parquet == "BLOB":
		expected = "unhex(" + expected + "[3:])"
	case strings.HasPrefix(c.typ, "VECTOR"):
		return fmt.Sprintf("CAST(%s AS DOUBLE[]) IS DISTINCT FROM CAST(%s AS DOUBLE[])", expected, got)
	case c.parquet == "JSON":
		expected, got = "json("+expected+")", "json("+got+")"
	case c.postgres == "inet": // which prints the mask, too
		expected = "split_part(" + expected + ", '/', 1)"
	}
	return fmt.Sprintf("TRY_CAST(%s AS %s) IS DISTINCT FROM %s", expected, c.parquet, got)
}

// eventuallyInFiles waits until the files have the rows that the source has.
func (b *mysqlBed) eventuallyInFiles(sql string) {
	b.t.Helper()
	want, got := fmt.Sprint(3*b.rows+1), ""
	eventually(b.t, arrival, func() bool {
		out, err := duckdb.Run(b.t.Context(), "", "jsonlines", sql+"SELECT count(*) AS n, max(id) AS last FROM texts JOIN kinds USING (id)")
		if got = string(out); err != nil {
			return false
		}
		var row struct{ N, Last json.Number }
		return json.Unmarshal(out, &row) == nil && row.N.String() == want && row.Last.String() == "9999"
	}, func() string { return "rows in the files: " + got })
}

// eachColumn writes something for every column of the table kinds.
func (b *mysqlBed) eachColumn(format string) string {
	var out strings.Builder
	for i := range b.cases {
		fmt.Fprintf(&out, format, i)
	}
	return out.String()
}

// asText compares values as texts, all but JSON, whose numbers may be written in several ways.
func asText(typ string) string {
	if typ == "jsonb" {
		return ""
	}
	return "::text"
}
