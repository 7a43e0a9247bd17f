package lake

import (
	"fmt"
	"slices"
	"strings"
)

// DuckDB returns the statements for one table: a view of its history, a view of its present state, and, for tables with a
// key, statements that keep a table of DuckDB at that state, reading new files only. They can be run again and again.
func DuckDB(t Table) string {
	d := newDuckDB(t)
	var out strings.Builder
	fmt.Fprintf(&out, "-- %s: every change, with the file that has it.\n%s", t.Name, d.history())
	if t.Keyless {
		fmt.Fprintf(&out, "\n-- %s has no key: its rows are known by their place in the log, so its history is all there is.\n", t.Name)
		return out.String()
	}
	fmt.Fprintf(&out, "\n-- %s: every row as it is now.\n%s", t.Name, d.current())
	fmt.Fprintf(&out, "\n-- %s_merged: the same as a table. Run what follows as often as you like: it reads files that it has not read yet.\n%s", t.stem(), d.merge())
	return out.String()
}

// duckdb is a table with names for the columns that its statements need besides: the path of a file, its name, the row in it,
// the place among a key's changes, the place from which on they count, and whether they are the merged table's.
type duckdb struct {
	Table

	path, file, row, n, begin, merged string
}

// newDuckDB chooses names that no column of the table has.
func newDuckDB(t Table) duckdb {
	d := duckdb{Table: t}
	free := func(name string) string {
		for slices.ContainsFunc(d.columns(), func(c Column) bool { return strings.EqualFold(c.Name, name) }) {
			name += "_"
		}
		return name
	}
	d.path, d.file, d.row, d.n, d.begin, d.merged = free("_path"), free("_file"), free("_row"), free("_n"), free("_begin"), free("_merged")
	return d
}

func (d duckdb) columns() []Column { return slices.Concat(d.Keys, d.Values) }

// files reads files; which is an expression for their names.
func (d duckdb) files(which string) string {
	return fmt.Sprintf("read_parquet(%s, union_by_name = true, hive_partitioning = false, filename = '%s', file_row_number = true)", which, d.path)
}

// changes selects every row of files, with the columns that none of them may have yet.
func (d duckdb) changes(which string) string {
	var missing []string
	for _, c := range d.columns() {
		missing = append(missing, "NULL AS "+quote(c.Name))
	}
	if d.partial() {
		missing = append(missing, "NULL::VARCHAR[] AS "+quote(absentColumn))
	}
	return fmt.Sprintf(`SELECT * EXCLUDE (%[1]s, file_row_number), parse_filename(%[1]s) AS %[2]s, file_row_number AS %[3]s
    FROM (
      SELECT %[4]s, NULL::VARCHAR AS %[1]s, NULL::BIGINT AS file_row_number WHERE false
      UNION ALL BY NAME
      SELECT * FROM %[5]s
    )`, d.path, d.file, d.row, strings.Join(missing, ", "), d.files(which))
}

func (d duckdb) partial() bool {
	return slices.ContainsFunc(d.Values, func(c Column) bool { return c.Partial })
}

func (d duckdb) history() string {
	return fmt.Sprintf("CREATE OR REPLACE VIEW %s AS\n    %s;\n", quote(d.stem()+"_history"), d.changes(literal(d.Files)))
}

// order is the order of a key's changes.
func (d duckdb) order() string {
	if d.Loc == "" {
		return d.file + ", " + d.row
	}
	return quote(d.Loc) + " NULLS FIRST, " + d.file + ", " + d.row
}

// fold reduces the changes of every key to what they leave: the latest value of each column since the row began.
func (d duckdb) fold(changes, begins string) string {
	var keys, list []string
	for _, c := range d.Keys {
		keys = append(keys, quote(c.Name))
	}
	list = append(list, keys...)
	for _, c := range d.Values {
		latest := fmt.Sprintf("arg_max_null(%s, %s)", quote(c.Name), d.n)
		if c.Partial {
			latest += fmt.Sprintf(" FILTER (WHERE %s IS NULL OR NOT list_contains(%s, %s))", quote(absentColumn), quote(absentColumn), literal(c.Name))
		}
		list = append(list, latest+" AS "+quote(c.Name))
	}
	for _, name := range []string{d.file, d.row} {
		list = append(list, fmt.Sprintf("arg_max(%[1]s, %[2]s) AS %[1]s", name, d.n))
	}
	by := strings.Join(keys, ", ")
	return fmt.Sprintf(`SELECT %[1]s
  FROM (
    SELECT *, max(%[6]s) FILTER (WHERE %[2]s) OVER (PARTITION BY %[3]s) AS %[7]s
    FROM (
      SELECT *, row_number() OVER (PARTITION BY %[3]s ORDER BY %[4]s) AS %[6]s
      FROM (%[5]s)
    )
  )
  WHERE %[7]s IS NULL OR %[6]s >= %[7]s
  GROUP BY %[3]s`, strings.Join(list, ",\n    "), begins, by, d.order(), changes, d.n, d.begin)
}

// begins is the condition on a change from which on nothing before it counts.
func (d duckdb) begins() string {
	if d.Op == "" {
		return "false"
	}
	return quote(d.Op) + " IN ('c', 'd')"
}

func (d duckdb) present() string {
	if d.Op == "" {
		return ""
	}
	return fmt.Sprintf(" WHERE %s IS DISTINCT FROM 'd'", quote(d.Op))
}

func (d duckdb) current() string {
	return fmt.Sprintf("CREATE OR REPLACE VIEW %s AS\n  SELECT * EXCLUDE (%s, %s) FROM (\n  %s\n  )%s;\n",
		quote(d.Name), d.file, d.row, d.fold("FROM "+quote(d.stem()+"_history"), d.begins()), d.present())
}

// merge keeps a table with a row for every key, deleted ones too, so that a change that is repeated brings none of them back.
func (d duckdb) merge() string {
	merged, seen := quote(d.stem()+"_merged"), quote(d.stem()+"_merged_files")
	var on []string
	for _, c := range d.Keys {
		on = append(on, fmt.Sprintf("n.%s IS NOT DISTINCT FROM m.%s", quote(c.Name), quote(c.Name)))
	}
	var keys []string
	for _, c := range d.Keys {
		keys = append(keys, quote(c.Name))
	}
	match := strings.Join(on, " AND ")
	absent := ""
	if d.partial() {
		absent = ", []::VARCHAR[] AS " + quote(absentColumn)
	}
	variable := literal(d.stem() + "_files")
	changes := fmt.Sprintf(`
        SELECT *, false AS %[1]s FROM (%[2]s)
        UNION ALL BY NAME
        SELECT *%[3]s, true AS %[1]s FROM %[4]s AS m
        WHERE EXISTS (SELECT 1 FROM (%[5]s) AS n WHERE %[6]s)
      `, d.merged, d.changes("getvariable("+variable+")"), absent, merged, "SELECT "+strings.Join(keys, ", ")+" FROM "+d.files("getvariable("+variable+")"), match)
	begins := d.merged + " OR " + d.begins()
	return fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %[1]s AS
  SELECT * FROM (
  %[2]s
  ) WHERE false;
CREATE TABLE IF NOT EXISTS %[3]s (file VARCHAR PRIMARY KEY);
BEGIN;
%[11]s-- The files that are new; if there are none, one of those that are not: to merge it again changes nothing.
SET VARIABLE %[4]s = (SELECT coalesce(list(file) FILTER (WHERE file NOT IN (SELECT file FROM %[3]s)), [any_value(file)]) FROM glob(%[5]s));
MERGE INTO %[1]s AS m USING (
  %[6]s
) AS n ON %[7]s
WHEN MATCHED THEN UPDATE BY NAME
WHEN NOT MATCHED THEN INSERT BY NAME;
INSERT OR IGNORE INTO %[3]s SELECT unnest(getvariable(%[8]s));
COMMIT;
-- What it holds, without the rows that were deleted.
CREATE OR REPLACE VIEW %[9]s AS SELECT * EXCLUDE (%[12]s, %[13]s) FROM %[1]s%[10]s;
`, merged, d.fold("FROM "+quote(d.stem()+"_history"), d.begins()), seen, quote(d.stem()+"_files"), literal(d.Files), d.fold(changes, begins), match,
		variable, quote(d.stem()+"_merged_current"), d.present(), d.sameColumns(), d.file, d.row)
}

// sameColumns ends the transaction with an error if the files have columns that the merged table lacks, or has of another type: to
// merge would cut values off without a word, such as a decimal's last digits. The error has the statements that mend the table.
func (d duckdb) sameColumns() string {
	merged := quote(d.stem() + "_merged")
	change := func(what string) string {
		return literal("ALTER TABLE "+merged+" "+what+" ") + ` || '"' || replace(n.column_name, '"', '""') || '"'`
	}
	const typ = ` || replace(n.column_type, '"NULL"', 'INTEGER') || ';'` // of a column that no file has yet
	return fmt.Sprintf(`-- If a column came, or holds more than it did, this ends with an error that says how to change the table.
SET VARIABLE %s = (
  SELECT error(%s || string_agg(CASE WHEN m.column_name IS NULL THEN %s ELSE %s END, ' '))
  FROM (DESCRIBE %s) AS n LEFT JOIN (DESCRIBE %s) AS m USING (column_name)
  WHERE m.column_name IS NULL OR (n.column_type <> m.column_type AND n.column_type <> '"NULL"')
  HAVING count(*) > 0
);
`, quote(d.stem()+"_columns"), literal("The files have columns that the table "+merged+" cannot hold. Change it, and run the statements again: "),
		change("ADD COLUMN")+" || ' '"+typ, change("ALTER")+" || ' TYPE '"+typ, quote(d.Name), merged)
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
