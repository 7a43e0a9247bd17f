package lake_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/lake"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
)

func specification(bucket, prefix string) *flowpb.MaterializationSpec {
	may, must := &flowpb.Inference{Exists: flowpb.Inference_MAY}, &flowpb.Inference{Exists: flowpb.Inference_MUST}
	return &flowpb.MaterializationSpec{
		Name: "acme/lake", ConfigJson: []byte(fmt.Sprintf(`{"bucket":%q,"prefix":%q}`, bucket, prefix)),
		Bindings: []*flowpb.MaterializationSpec_Binding{{
			ResourcePath: []string{"shop/o'rders"}, DeltaUpdates: true, Backfill: 2,
			FieldSelection: &flowpb.FieldSelection{Keys: []string{"id"}, Values: []string{"_meta/op", "_meta/source/loc", `a"b`, "n"}, Document: "flow_document"},
			Collection: &flowpb.CollectionSpec{Projections: []*flowpb.Projection{
				{Field: "id", Ptr: "/id", Inference: must},
				{Field: "_meta/op", Ptr: "/_meta/op", Inference: must},
				{Field: "_meta/source/loc", Ptr: "/_meta/source/loc", Inference: may},
				{Field: `a"b`, Ptr: `/a"b`, Inference: may},
				{Field: "n", Ptr: "/n", Inference: may},
			}},
		}},
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	tables, err := lake.Tables(specification("bucket", "cdc/%Y-%m/"))
	require.NoError(t, err)
	require.Equal(t, []lake.Table{{
		Name: "shop_o'rders", Files: "s3://bucket/cdc/[0-9][0-9][0-9][0-9]-[0-9][0-9]/shop/o'rders/v0002/**/*.parquet", Keys: []lake.Column{{Name: "id"}},
		Values: []lake.Column{{Name: "_meta/op"}, {Name: "_meta/source/loc"}, {Name: `a"b`, Partial: true}, {Name: "n", Partial: true}},
		Op:     "_meta/op", Loc: "_meta/source/loc",
	}}, tables)
	other := specification("", "")
	_, err = lake.Tables(other)
	require.EqualError(t, err, "The materialization acme/lake has no bucket in its configuration, so it does not write Parquet files.")
	other = specification("b", "")
	other.Bindings[0].DeltaUpdates = false
	_, err = lake.Tables(other)
	require.EqualError(t, err, "The materialization acme/lake does not append files to paths, so it is not of materialize-s3-parquet.")
}

// row is a row of a file; what is not in values is absent.
type row struct {
	id     int
	op     string
	loc    []int
	values map[string]any
}

// story is a table's history as a capture tells it, with the table as it is at the end.
type story struct {
	random *rand.Rand
	at     int
	rows   []row
	table  map[int]map[string]any
}

// step changes the table, or reads some of it anew as a backfill does.
func (s *story) step() {
	s.at += 1 + s.random.IntN(3)
	id := s.random.IntN(6)
	loc := []int{s.at, s.random.IntN(1 + s.at), s.random.IntN(12)}
	value := func() any {
		if s.random.IntN(3) == 0 {
			return nil
		}
		return fmt.Sprint("v", s.random.IntN(1000))
	}
	have, ok := s.table[id]
	switch {
	case !ok:
		s.table[id] = map[string]any{`a"b`: value(), "n": value()}
		s.rows = append(s.rows, row{id, "c", loc, maps.Clone(s.table[id])})
	case s.random.IntN(5) == 0:
		delete(s.table, id)
		s.rows = append(s.rows, row{id, "d", loc, nil})
	case s.random.IntN(8) == 0: // a backfill: the row as it is, where the log is now
		s.rows = append(s.rows, row{id, "c", []int{s.at, 0, 0}, maps.Clone(have)})
	default:
		change := map[string]any{}
		for _, column := range []string{`a"b`, "n"} {
			if s.random.IntN(2) == 0 {
				have[column] = value()
				change[column] = have[column]
			}
		}
		s.rows = append(s.rows, row{id, "u", loc, change})
	}
}

// write puts rows into a file, as the connector does.
func write(t *testing.T, path string, rows []row) {
	t.Helper()
	var lines []string
	for _, r := range rows {
		absent := []string{}
		for _, column := range []string{`a"b`, "n"} {
			if _, ok := r.values[column]; !ok {
				absent = append(absent, column)
			}
		}
		line, err := json.Marshal(map[string]any{"id": r.id, "_meta/op": r.op, "_meta/source/loc": r.loc, `a"b`: r.values[`a"b`], "n": r.values["n"], "_meta/absent": absent})
		require.NoError(t, err)
		lines = append(lines, string(line))
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path+".json", []byte(strings.Join(lines, "\n")), 0o600))
	_, err := duckdb.Run(t.Context(), "", "csv", fmt.Sprintf(`COPY (SELECT * FROM read_json('%s', columns = {'id': 'BIGINT', '_meta/op': 'VARCHAR', '_meta/source/loc': 'BIGINT[]', 'a"b': 'VARCHAR', 'n': 'VARCHAR', '_meta/absent': 'VARCHAR[]'})) TO '%s' (FORMAT parquet)`,
		strings.ReplaceAll(path+".json", "'", "''"), strings.ReplaceAll(path, "'", "''")))
	require.NoError(t, err)
	require.NoError(t, os.Remove(path+".json"))
}

// The views and the merged table are the source's table, whatever was written when: values that updates left out are those of
// before, nulls are nulls, rows that were created again have nothing of what they were, and files that say again what was said
// long ago, in another order, change nothing.
func TestDuckDB(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	folder := t.TempDir()
	tables, err := lake.Tables(specification("file://"+folder, ""))
	require.NoError(t, err)
	sql := lake.DuckDB(tables[0])
	s := &story{random: rand.New(rand.NewPCG(7, 7)), table: map[int]map[string]any{}}
	db := filepath.Join(t.TempDir(), "lake.db")
	file := 0
	put := func(rows []row) {
		file++
		write(t, filepath.Join(folder, "shop/o'rders/v0002", fmt.Sprintf("day=%d", file%3), fmt.Sprintf("%012d-0001-00000000-ffffffff-3f2a91bc.parquet", file)), rows)
	}
	check := func(table, why string) {
		t.Helper()
		got := duckdb.Query(t, db, fmt.Sprintf(`SELECT * EXCLUDE ("_meta/op", "_meta/source/loc") FROM "%s" ORDER BY id`, table))
		want := []duckdb.Row{}
		for _, id := range slices.Sorted(maps.Keys(s.table)) {
			want = append(want, duckdb.Row{"id": json.Number(fmt.Sprint(id)), `a"b`: s.table[id][`a"b`], "n": s.table[id]["n"]})
		}
		require.Equal(t, want, got, "%s, %s", table, why)
	}
	for round := range 6 {
		from := len(s.rows)
		for range 20 {
			s.step()
		}
		put(s.rows[from:])
		_, err := duckdb.Run(t.Context(), db, "csv", sql)
		require.NoError(t, err, sql)
		check("shop_o'rders", fmt.Sprint("round ", round))
		check("shop_o'rders_merged_current", fmt.Sprint("round ", round))

		again := slices.Clone(s.rows[:s.random.IntN(len(s.rows))])
		s.random.Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
		put(again)
		_, err = duckdb.Run(t.Context(), db, "csv", sql)
		require.NoError(t, err)
		check("shop_o'rders", fmt.Sprint("round ", round, " after a repetition"))
		check("shop_o'rders_merged_current", fmt.Sprint("round ", round, " after a repetition"))
	}
	_, err = duckdb.Run(t.Context(), db, "csv", sql)
	require.NoError(t, err, "without new files")
	check("shop_o'rders_merged_current", "without new files")
	rows := duckdb.Query(t, db, `SELECT count(*) AS n, count(DISTINCT _file) AS files FROM "shop_o'rders_history"`)
	require.Equal(t, json.Number("12"), rows[0]["files"])
}

// Without a place in the source the order is that of the files; without a key there is only a history.
func TestOtherTables(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	folder := t.TempDir()
	for i, values := range []string{"(1, 'a'), (1, 'b'), (2, 'c')", "(1, 'd')"} {
		_, err := duckdb.Run(t.Context(), "", "csv", fmt.Sprintf("COPY (SELECT * FROM (VALUES %s) t(id, v)) TO '%s/%012d-0001-a.parquet' (FORMAT parquet)", values, folder, i))
		require.NoError(t, err)
	}
	sql := lake.DuckDB(lake.Table{Name: "t", Files: folder + "/**/*.parquet", Keys: []lake.Column{{Name: "id"}}, Values: []lake.Column{{Name: "v"}}})
	for _, view := range []string{"t", "t_merged_current"} {
		rows := duckdb.Query(t, "", sql+"SELECT * FROM "+view+" ORDER BY id")
		require.Equal(t, []duckdb.Row{{"id": json.Number("1"), "v": "d"}, {"id": json.Number("2"), "v": "c"}}, rows[len(rows)-2:])
	}
	keyless := lake.DuckDB(lake.Table{Name: "t", Files: folder + "/**/*.parquet", Keyless: true, Values: []lake.Column{{Name: "v"}}})
	require.Contains(t, keyless, "its history is all there is")
	require.NotContains(t, keyless, "MERGE")
}

// A merged table that cannot hold what the files have by now is left as it is, with an error that says what to do: numbers would lose
// their last digits otherwise.
func TestMergedTableIsNotCutOff(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	folder, db := t.TempDir(), filepath.Join(t.TempDir(), "lake.db")
	file := func(n int, columns string) {
		_, err := duckdb.Run(t.Context(), "", "csv", fmt.Sprintf("COPY (SELECT %s) TO '%s/%012d-0001-a.parquet' (FORMAT parquet)", columns, folder, n))
		require.NoError(t, err)
	}
	table := lake.Table{Name: "t", Files: folder + "/**/*.parquet", Keys: []lake.Column{{Name: "id"}}, Values: []lake.Column{{Name: `a"b`}}}
	file(1, `1 AS id, 1.25::DECIMAL(10,2) AS "a""b"`)
	_, err := duckdb.Run(t.Context(), db, "csv", lake.DuckDB(table))
	require.NoError(t, err)

	table.Values = append(table.Values, lake.Column{Name: "new"}, lake.Column{Name: "later"})
	file(2, `2 AS id, 1.2345::DECIMAL(12,4) AS "a""b", 'x' AS new`)
	_, err = duckdb.Run(t.Context(), db, "csv", lake.DuckDB(table))
	const alter = `ALTER TABLE "t_merged" ALTER "a""b" TYPE DECIMAL(12,4); ALTER TABLE "t_merged" ADD COLUMN "new" VARCHAR; ALTER TABLE "t_merged" ADD COLUMN "later" INTEGER;`
	require.ErrorContains(t, err, `The files have columns that the table "t_merged" cannot hold. Change it, and run the statements again: `)
	for statement := range strings.SplitSeq(alter, "; ") {
		require.ErrorContains(t, err, statement)
	}
	require.Len(t, duckdb.Query(t, db, "FROM t_merged"), 1)

	rows := duckdb.Query(t, db, alter+lake.DuckDB(table)+`SELECT id, "a""b"::VARCHAR AS v, new, later FROM t_merged_current ORDER BY id`)
	require.Equal(t, []duckdb.Row{
		{"id": json.Number("1"), "v": "1.2500", "new": nil, "later": nil}, {"id": json.Number("2"), "v": "1.2345", "new": "x", "later": nil},
	}, rows[len(rows)-2:])
}

// one writes a file of one row, of the columns of a SELECT.
func one(t *testing.T, path, columns string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	_, err := duckdb.Run(t.Context(), "", "csv", fmt.Sprintf("COPY (SELECT %s) TO '%s' (FORMAT parquet)", columns, strings.ReplaceAll(path, "'", "''")))
	require.NoError(t, err)
}

// Columns may have any name, also one that the statements use themselves, of values and of keys.
func TestNamesOfColumns(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	for _, name := range []string{"filename", "FileName", "_path", "_file", "_Row", "_n", "_begin", "_merged", "n", "m", "file", "select", `a b'"c`} {
		folder, db := t.TempDir(), filepath.Join(t.TempDir(), "lake.db")
		for i, v := range []string{"'x'", "'y'"} {
			one(t, fmt.Sprintf("%s/%012d-0001-a.parquet", folder, i), fmt.Sprintf(`1 AS id, %s AS "%s", []::VARCHAR[] AS "_meta/absent"`, v, strings.ReplaceAll(name, `"`, `""`)))
		}
		value, id := []lake.Column{{Name: name, Partial: true}}, []lake.Column{{Name: "id"}}
		for _, c := range []struct {
			table lake.Table
			want  []duckdb.Row
		}{
			{lake.Table{Name: "t", Files: folder + "/*.parquet", Keys: id, Values: value}, []duckdb.Row{{"id": json.Number("1"), name: "y"}}},
			{lake.Table{Name: "k", Files: folder + "/*.parquet", Keys: value, Values: id}, []duckdb.Row{{"id": json.Number("1"), name: "x"}, {"id": json.Number("1"), name: "y"}}},
		} {
			for range 2 {
				_, err := duckdb.Run(t.Context(), db, "csv", lake.DuckDB(c.table))
				require.NoError(t, err, name)
			}
			for _, view := range []string{c.table.Name, c.table.Name + "_merged_current"} {
				require.ElementsMatch(t, c.want, duckdb.Query(t, db, "FROM "+view), "%s in %s", name, view)
			}
		}
	}
}

// bindings is a specification of bindings of these paths, each with the field id for its key.
func bindings(bucket, prefix string, paths ...string) *flowpb.MaterializationSpec {
	spec := specification(bucket, prefix)
	only := spec.Bindings[0]
	spec.Bindings = nil
	for _, path := range paths {
		spec.Bindings = append(spec.Bindings, &flowpb.MaterializationSpec_Binding{
			ResourcePath: []string{path}, DeltaUpdates: true, FieldSelection: &flowpb.FieldSelection{Keys: []string{"id"}, Values: []string{"n"}}, Collection: only.Collection,
		})
	}
	return spec
}

// Tables whose names are like those of what belongs to another table, or like each other, stay apart.
func TestNamesOfTables(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	folder, db := t.TempDir(), filepath.Join(t.TempDir(), "lake.db")
	paths := []string{"orders_history", "orders", "Orders_Merged", "a/b", "a-b", "A_B"}
	tables, err := lake.Tables(bindings("file://"+folder, "", paths...))
	require.NoError(t, err)
	sql, names := "", []string{}
	for i, table := range tables {
		one(t, filepath.Join(folder, paths[i], "v0000", "1.parquet"), fmt.Sprintf("%d AS id, 1 AS n", i))
		sql += lake.DuckDB(table)
		names = append(names, table.Name)
	}
	require.Equal(t, []string{"orders_history", "orders", "Orders_Merged", "a_b", "a_b_2", "A_B_3"}, names)
	require.Equal(t, []string{"orders", "orders__history", "orders__merged", "orders__merged_files", "orders__merged_current"}, tables[1].Names())
	for range 2 {
		_, err := duckdb.Run(t.Context(), db, "csv", sql)
		require.NoError(t, err)
	}
	for i, table := range tables {
		for at, name := range table.Names() {
			if at != 3 { // the list of files
				require.Equal(t, json.Number(fmt.Sprint(i)), duckdb.Query(t, db, fmt.Sprintf(`SELECT id FROM "%s"`, name))[0]["id"], name)
			}
		}
	}
}

// Folders are found whatever their names, and no others, also where the prefix is made of nothing but the time.
func TestNamesOfFolders(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	for _, c := range []struct{ prefix, path, folder, other string }{
		{"%Y%m%d", "orders", "20261122/orders", "20261122/shop/orders"},
		{"%Y", "orders", "2026/orders", "backup/orders"},
		{"a%%b/%H", "orders", "a%b/07/orders", "a%b/x7/orders"},
		{"[ab]", "orders", "[ab]/orders", "a/orders"},
		{"ü", "or*er?", "ü/or*er?", "ü/orders"},
	} {
		folder := t.TempDir() + "/{[x]}"
		tables, err := lake.Tables(bindings("file://"+folder+"/", c.prefix, c.path))
		require.NoError(t, err)
		one(t, filepath.Join(folder, c.folder, "v0000", "region=a%2Fb", "1.parquet"), "1 AS id, 1 AS n")
		one(t, filepath.Join(folder, c.other, "v0000", "1.parquet"), "2 AS id, 1 AS n")
		one(t, filepath.Join(folder, c.folder, "v0001", "1.parquet"), "3 AS id, 1 AS n")
		db := filepath.Join(t.TempDir(), "lake.db")
		_, err = duckdb.Run(t.Context(), db, "csv", lake.DuckDB(tables[0]))
		require.NoError(t, err, tables[0].Files)
		for _, name := range []string{tables[0].Name, tables[0].Name + "_merged_current"} {
			require.Equal(t, []duckdb.Row{{"id": json.Number("1"), "n": json.Number("1")}}, duckdb.Query(t, db, fmt.Sprintf(`FROM "%s"`, name)), tables[0].Files)
		}
	}
}

// What DuckDB would mix up is refused.
func TestFieldsThatAreOneToDuckDB(t *testing.T) {
	t.Parallel()
	spec := bindings("b", "", "orders")
	spec.Bindings[0].FieldSelection.Values = []string{"N", "n"}
	_, err := lake.Tables(spec)
	require.EqualError(t, err, `The table orders has the fields "N" and "n", which are one to DuckDB, since it does not look at case. Exclude one from the binding, or give its location another name.`)
	spec.Bindings[0].FieldSelection.Values = []string{"File_Row_Number"}
	_, err = lake.Tables(spec)
	require.EqualError(t, err, `The table orders has a field "File_Row_Number", which is what DuckDB calls the number of a row in its file. Exclude the field from the binding, or give its location another name.`)
}
