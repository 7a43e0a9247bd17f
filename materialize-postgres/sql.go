package main

import (
	"fmt"
	"strings"
)

// The statements of a session. Names are quoted, values are never part of a statement. Columns of temporary tables are
// called c0, c1 … after their place, so that no name of a user's can collide with ours.

// list joins what f gives for 0 to n-1.
func list(n int, sep string, f func(i int) string) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = f(i)
	}
	return strings.Join(parts, sep)
}

// createTemp creates a temporary table of the first n columns. Its rows last until the end of the transaction.
func (t *table) createTemp(name string, n int) string {
	return fmt.Sprintf("CREATE TEMPORARY TABLE %s (%s) ON COMMIT DELETE ROWS", name,
		list(n, ", ", func(i int) string { return fmt.Sprintf("c%d %s", i, t.columns[i].kind) }))
}

// createKeys creates the temporary table of keys to be loaded.
func (t *table) createKeys() string {
	var defs strings.Builder
	defs.WriteString(list(t.nkeys, ", ", func(i int) string { return fmt.Sprintf("c%d %s", i, t.columns[i].kind) }))
	for i := range t.nkeys {
		if t.columns[i].echo {
			fmt.Fprintf(&defs, ", e%d text", i)
		}
	}
	return fmt.Sprintf("CREATE TEMPORARY TABLE %s (%s) ON COMMIT DELETE ROWS", t.keys, defs.String())
}

func copyInto(temp string) string { return "COPY pg_temp." + temp + " FROM STDIN (FORMAT binary)" }

// direct says whether rows can go straight into the table: no column needs a cast.
func (t *table) direct() bool {
	if t.history != nil {
		return false
	}
	for i := range t.columns {
		if !t.columns[i].native {
			return false
		}
	}
	return true
}

// columnList names the columns as they are in the table.
func (t *table) columnList() string {
	return list(len(t.columns), ", ", func(i int) string { return quote(t.columns[i].name) })
}

// copyDirect copies rows straight into the table.
func (t *table) copyDirect() string {
	return fmt.Sprintf("COPY %s (%s) FROM STDIN (FORMAT binary)", t.name.sql(), t.columnList())
}

// value is a column of a temporary table as a value for the real one.
func (t *table) value(alias string, i int) string {
	v := fmt.Sprintf("%s.c%d", alias, i)
	if !t.columns[i].native {
		v += "::" + t.columns[i].castName
	}
	return v
}

// insert adds staged rows to the table. It fails if a key is there already.
func (t *table) insert(from string) string {
	return fmt.Sprintf("INSERT INTO %s AS t (%s) SELECT %s FROM pg_temp.%s s", t.name.sql(), t.columnList(),
		list(len(t.columns), ", ", func(i int) string { return t.value("s", i) }), from)
}

// upsert adds or updates staged rows, whichever it takes. It costs about twice as much as insert where all rows are new,
// and a tenth more than update where none is.
func (t *table) upsert(from string) string { return t.insert(from) + t.onConflict() }

// addMissing adds those staged rows whose keys the table does not have. One that somebody else adds at the same time is updated.
func (t *table) addMissing(from string) string {
	return t.insert(from) + fmt.Sprintf(" WHERE NOT EXISTS (SELECT FROM %s t WHERE %s)", t.name.sql(), t.onKey("s")) + t.onConflict()
}

func (t *table) onConflict() string {
	conflict := " ON CONFLICT (" + list(t.nkeys, ", ", func(i int) string { return quote(t.columns[i].name) }) + ") DO "
	if t.onlyKeys() {
		return conflict + "NOTHING"
	}
	return conflict + "UPDATE SET " + t.assignments(func(i int) string {
		return "EXCLUDED." + quote(t.columns[i].name)
	})
}

// update writes staged rows over those with the same keys. Columns that are not ours keep their values.
func (t *table) update(from string) string {
	return fmt.Sprintf("UPDATE %s AS t SET %s FROM pg_temp.%s s WHERE %s", t.name.sql(),
		t.assignments(func(i int) string { return t.value("s", i) }), from, t.onKey("s"))
}

// keysTwice finds a key that more than one staged row has, as the table compares keys.
func (t *table) keysTwice(from string) string {
	return fmt.Sprintf("SELECT 1 FROM pg_temp.%s s GROUP BY %s HAVING count(*) > 1 LIMIT 1", from,
		list(t.nkeys, ", ", func(i int) string { return t.value("s", i) }))
}

func (t *table) onlyKeys() bool { return len(t.columns) == t.nkeys }

// assignments sets every column that is not part of the key.
func (t *table) assignments(value func(i int) string) string {
	return list(len(t.columns)-t.nkeys, ", ", func(i int) string {
		return quote(t.columns[t.nkeys+i].name) + " = " + value(t.nkeys+i)
	})
}

// onKey is the condition that joins the table t with a temporary table of keys.
func (t *table) onKey(alias string) string {
	return list(t.nkeys, " AND ", func(i int) string {
		return fmt.Sprintf("t.%s %s %s", quote(t.columns[i].name), t.columns[i].equals, t.value(alias, i))
	})
}

// remove deletes the rows whose keys are staged.
func (t *table) remove() string {
	return fmt.Sprintf("DELETE FROM %s AS t USING pg_temp.%s s WHERE %s", t.name.sql(), t.gone, t.onKey("s"))
}

// load finds the rows of the keys.
func (t *table) load() string {
	return fmt.Sprintf("SELECT %s FROM pg_temp.%s k JOIN %s AS t ON %s",
		list(len(t.results), ", ", func(i int) string { return t.results[i].expression }), t.keys, t.name.sql(), t.onKey("k"))
}

func (t *table) resultFormats() []int16 {
	out := make([]int16, len(t.results))
	for i, r := range t.results {
		if r.binary {
			out[i] = 1
		}
	}
	return out
}
