package lake

import (
	"fmt"
	"slices"
	"strings"
)

// DuckDB returns the statements for one table: a view of its history, a view of its present state, and, for tables with a
// key, statements that keep a table of DuckDB at that state, reading new files only. They can be run again and again.
func DuckDB(t Table) string {
	d := duckdb{t}
	var out strings.Builder
	fmt.Fprintf(&out, "-- %s: every change, with the file that has it.\n%s", t.Name, d.history())
	if t.Keyless {
		fmt.Fprintf(&out, "\n-- %s has no key: its rows are known by their place in the log, so its history is all there is.\n", t.Name)
		return out.String()
	}
	fmt.Fprintf(&out, "\n-- %s: every row as it is now.\n%s", t.Name, d.current())
	fmt.Fprintf(&out, "\n-- %s_merged: the same as a table. Run what follows as often as you like: it reads files that it has not read yet.\n%s", t.Name, d.merge())
	return out.String()
}

type duckdb struct{ Table }

func (d duckdb) columns() []Column { return slices.Concat(d.Keys, d.Values) }

// files reads files; which is an expression for their names.
func (d duckdb) files(which string) string {
	return fmt.Sprintf("read_parquet(%s, union_by_name = true, hive_partitioning = false, filename = true, file_row_number = true)", which)
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
	return fmt.Sprintf(`SELECT * EXCLUDE (filename, file_row_number), parse_filename(filename) AS _file, file_row_number AS _row
    FROM (
      SELECT %s, NULL::VARCHAR AS filename, NULL::BIGINT AS file_row_number WHERE false
      UNION ALL BY NAME
      SELECT * FROM %s
    )`, strings.Join(missing, ", "), d.files(which))
}

func (d duckdb) partial() bool {
	return slices.ContainsFunc(d.Values, func(c Column) bool { return c.Partial })
}

func (d duckdb) history() string {
	return fmt.Sprintf("CREATE OR REPLACE VIEW %s AS\n    %s;\n", quote(d.Name+"_history"), d.changes(literal(d.Files)))
}

// order is the order of a key's changes.
func (d duckdb) order() string {
	if d.Loc == "" {
		return "_file, _row"
	}
	return quote(d.Loc) + " NULLS FIRST, _file, _row"
}

// fold reduces the changes of every key to what they leave: the latest value of each column since the row began.
func (d duckdb) fold(changes, begins string) string {
	var keys, list []string
	for _, c := range d.Keys {
		keys = append(keys, quote(c.Name))
	}
	list = append(list, keys...)
	for _, c := range d.Values {
		latest := fmt.Sprintf("arg_max_null(%s, _n)", quote(c.Name))
		if c.Partial {
			latest += fmt.Sprintf(" FILTER (WHERE %s IS NULL OR NOT list_contains(%s, %s))", quote(absentColumn), quote(absentColumn), literal(c.Name))
		}
		list = append(list, latest+" AS "+quote(c.Name))
	}
	list = append(list, "arg_max(_file, _n) AS _file", "arg_max(_row, _n) AS _row")
	by := strings.Join(keys, ", ")
	return fmt.Sprintf(`SELECT %s
  FROM (
    SELECT *, max(_n) FILTER (WHERE %s) OVER (PARTITION BY %s) AS _begin
    FROM (
      SELECT *, row_number() OVER (PARTITION BY %s ORDER BY %s) AS _n
      FROM (%s)
    )
  )
  WHERE _begin IS NULL OR _n >= _begin
  GROUP BY %s`, strings.Join(list, ",\n    "), begins, by, by, d.order(), changes, by)
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
	return fmt.Sprintf("CREATE OR REPLACE VIEW %s AS\n  SELECT * EXCLUDE (_file, _row) FROM (\n  %s\n  )%s;\n",
		quote(d.Name), d.fold("FROM "+quote(d.Name+"_history"), d.begins()), d.present())
}

// merge keeps a table with a row for every key, deleted ones too, so that a change that is repeated brings none of them back.
func (d duckdb) merge() string {
	merged, seen := quote(d.Name+"_merged"), quote(d.Name+"_merged_files")
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
	variable := literal(d.Name + "_files")
	changes := fmt.Sprintf(`
        SELECT *, false AS _merged FROM (%s)
        UNION ALL BY NAME
        SELECT *%s, true AS _merged FROM %s AS m
        WHERE EXISTS (SELECT 1 FROM (%s) AS n WHERE %s)
      `, d.changes("getvariable("+variable+")"), absent, merged, "SELECT "+strings.Join(keys, ", ")+" FROM "+d.files("getvariable("+variable+")"), match)
	begins := "_merged OR " + d.begins()
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
CREATE OR REPLACE VIEW %[9]s AS SELECT * EXCLUDE (_file, _row) FROM %[1]s%[10]s;
`, merged, d.fold("FROM "+quote(d.Name+"_history"), d.begins()), seen, quote(d.Name+"_files"), literal(d.Files), d.fold(changes, begins), match,
		variable, quote(d.Name+"_merged_current"), d.present(), d.sameColumns())
}

// sameColumns ends the transaction with an error if the files have columns that the merged table lacks, or has of another type: to
// merge would cut values off without a word, such as a decimal's last digits. The error has the statements that mend the table.
func (d duckdb) sameColumns() string {
	merged := quote(d.Name + "_merged")
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
`, quote(d.Name+"_columns"), literal("The files have columns that the table "+merged+" cannot hold. Change it, and run the statements again: "),
		change("ADD COLUMN")+" || ' '"+typ, change("ALTER")+" || ' TYPE '"+typ, quote(d.Name), merged)
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
