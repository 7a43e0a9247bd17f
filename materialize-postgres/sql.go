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
	defs := list(t.nkeys, ", ", func(i int) string { return fmt.Sprintf("c%d %s", i, t.columns[i].kind) })
	for i := range t.nkeys {
		if t.columns[i].echo {
			defs += fmt.Sprintf(", e%d text", i)
		}
	}
	return fmt.Sprintf("CREATE TEMPORARY TABLE %s (%s) ON COMMIT DELETE ROWS", t.keys, defs)
}

func copyInto(temp string) string { return "COPY pg_temp." + temp + " FROM STDIN (FORMAT binary)" }

// native says whether every column has a kind, so that rows can be copied without a cast.
func (t *table) native() bool {
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
		v += "::" + t.columns[i].typeName
	}
	return v
}

// merge moves staged rows into the table: one statement, whatever the number of rows, and whether they are new or not.
func (t *table) merge() string {
	insert := fmt.Sprintf("INSERT INTO %s AS t (%s) SELECT %s FROM pg_temp.%s s", t.name.sql(), t.columnList(),
		list(len(t.columns), ", ", func(i int) string { return t.value("s", i) }), t.stage)
	if t.delta {
		return insert
	}
	conflict := " ON CONFLICT (" + list(t.nkeys, ", ", func(i int) string { return quote(t.columns[i].name) }) + ") DO "
	values := len(t.columns) - t.nkeys
	if values == 0 {
		return insert + conflict + "NOTHING"
	}
	return insert + conflict + "UPDATE SET " + list(values, ", ", func(i int) string {
		c := quote(t.columns[t.nkeys+i].name)
		return c + " = EXCLUDED." + c
	})
}

// onKey is the condition that joins the table t with a temporary table of keys.
func (t *table) onKey(alias string) string {
	return list(t.nkeys, " AND ", func(i int) string {
		return "t." + quote(t.columns[i].name) + " = " + t.value(alias, i)
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
