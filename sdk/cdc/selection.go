package cdc

import (
	"context"
	"fmt"
	"slices"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// Selection is what of a table is captured, as its binding says: what must not leave never does. The core leaves out columns
// of shapes, and so of chunks, which are read with an explicit list; a driver leaves them out of streamed rows, of the old
// rows and keys before a change too, and if it can has the server not send them.
type Selection struct {
	// Columns are the only columns that are captured; empty for all.
	Columns []string
	// Exclude are columns that are not captured.
	Exclude []string
	// Withheld are the columns that were found to be left out, as they were called then. One that was renamed since, and
	// is known by its incarnation, is still left out where Exclude has the name that it had.
	Withheld []ColumnState
	// Filter is a condition in the database's SQL: a backfill reads only rows for which it is true. It is no filter of the
	// log, and not of rows that are read by key. A driver encloses it so that it cannot be anything but one expression.
	Filter string
}

// SelectionChecker is an optional ability of a Driver: it reports what the server does not understand of the selections
// (Table.Selection) of tables, in words for people, by asking the server without reading rows. A driver without it has no
// filters.
type SelectionChecker interface {
	CheckSelections(ctx context.Context, tables []*Table) []error
}

// Has reports whether the column is captured.
func (s *Selection) Has(c Column) bool {
	if slices.Contains(s.Exclude, c.Name) || len(s.Columns) > 0 && !slices.Contains(s.Columns, c.Name) {
		return false
	}
	return len(s.Exclude) == 0 || c.Incarnation == "" || !slices.ContainsFunc(s.Withheld, func(w ColumnState) bool {
		return w.Incarnation == c.Incarnation && slices.Contains(s.Exclude, w.Name)
	})
}

// Whole reports whether all columns are captured.
func (s *Selection) Whole() bool { return len(s.Columns) == 0 && len(s.Exclude) == 0 }

// selected is the table as a binding has it: without the columns that are left out, and without a key where the documents
// are keyed by their place in the log.
func (t *Table) selected(s *Selection, keyless bool) *Table {
	dropKey := keyless && len(t.Key) > 0
	if !dropKey && s.Whole() && s.Filter == "" {
		return t
	}
	c := *t
	if dropKey {
		c.Key, c.Columns = nil, slices.Clone(t.Columns)
		for i, col := range c.Columns {
			if col.Unkeyed != nil {
				c.Columns[i] = *col.Unkeyed
			}
		}
	}
	c.Selection = *s
	if !s.Whole() {
		c.Columns = slices.DeleteFunc(slices.Clone(c.Columns), func(col Column) bool { return !s.Has(col) })
	}
	return &c
}

// selection is what the resource says of columns and rows.
func (r Resource) selection() Selection {
	return Selection{Columns: r.Columns, Exclude: r.ExcludeColumns, Filter: r.BackfillFilter}
}

// withhold notes which columns of the table as it is now are left out, and reports whether there are others than before.
func (t *table) withhold(found *Table) (changed bool) {
	sel := &t.selection
	if sel.Whole() {
		return false
	}
	for _, c := range found.Columns {
		w := columnState(c)
		same := func(o ColumnState) bool {
			return o.Incarnation == w.Incarnation && (o.Name == w.Name || w.Incarnation != "")
		}
		if !sel.Has(c) && !slices.ContainsFunc(sel.Withheld, same) {
			sel.Withheld = append(slices.Clip(sel.Withheld), w)
			changed = true
		}
	}
	t.state.Withheld = sel.Withheld
	return changed
}

// forget forgets what was known of the table's columns and of how the log carries it, because it is another table now.
func (t *table) forget() {
	t.state.Withheld, t.selection.Withheld = nil, nil
	t.state.Scope, t.state.Parts = "", nil
}

// widened takes over what was left out until now, and returns the names of the columns of the table, as it is now, that are
// captured from here on.
func (t *table) widened(found *Table) []string {
	var names []string
	kept := t.state.Withheld[:0:0]
	for _, w := range t.state.Withheld {
		i := slices.IndexFunc(found.Columns, func(c Column) bool {
			return c.Name == w.Name && c.Incarnation == w.Incarnation || w.Incarnation != "" && c.Incarnation == w.Incarnation
		})
		free := Selection{Columns: t.selection.Columns, Exclude: t.selection.Exclude}
		switch {
		case slices.Contains(t.selection.Exclude, w.Name), i >= 0 && !free.Has(found.Columns[i]), i < 0 && !free.Has(Column{Name: w.Name}):
			kept = append(kept, w)
		case i >= 0:
			c := found.Columns[i]
			names = append(names, c.Name)
			if len(t.state.Columns) > 0 && !slices.ContainsFunc(t.state.Columns, func(o ColumnState) bool { return o.Name == c.Name }) {
				w.Name, w.Form = c.Name, c.Form
				t.state.Columns = append(t.state.Columns, w)
			}
		}
	}
	t.state.Withheld = kept
	t.selection.Withheld = kept
	return names
}

// errsOfSelection is what is wrong with a selection of the table's columns. Names in known may be missing: the table had
// such columns.
func errsOfSelection(t *Table, s *Selection, keyless bool) []error {
	var errs []error
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	for _, l := range []struct {
		option string
		names  []string
	}{{"columns", s.Columns}, {"excludeColumns", s.Exclude}} {
		for _, name := range l.names {
			had := slices.ContainsFunc(s.Withheld, func(w ColumnState) bool { return w.Name == name })
			if !slices.Contains(names, name) && !had {
				errs = append(errs, usererr.New(nil, "Table %s has no column %q, which %s names. Its columns are: %s.", t.ID, name, l.option, join(names)))
			}
		}
	}
	for _, k := range t.Key {
		if !keyless && !s.Has(Column{Name: k}) {
			errs = append(errs, usererr.New(nil, "The column %q is part of the key of table %s, by which its documents are told apart, so it cannot be left out. "+
				"Take it out of excludeColumns, or add it to columns.", k, t.ID))
		}
	}
	return errs
}

// checkSelections is what is wrong with the selections of resources, of the tables that exist.
func checkSelections(ctx context.Context, d Driver, resources []Resource, tables []*Table) []error {
	var errs []error
	var chosen []*Table
	for _, r := range resources {
		i := slices.IndexFunc(tables, func(t *Table) bool { return t.ID == r.Table() })
		if i < 0 {
			continue
		}
		sel := r.selection()
		found := errsOfSelection(tables[i], &sel, false)
		t := tables[i].selected(&sel, false)
		if hasMetaColumn(t) {
			found = append(found, errMetaColumn(t.ID))
		}
		errs = append(errs, found...)
		if t != tables[i] && len(found) == 0 {
			chosen = append(chosen, t)
		}
	}
	if c, ok := d.(SelectionChecker); ok && len(chosen) > 0 {
		return append(errs, c.CheckSelections(ctx, chosen)...)
	}
	for _, t := range chosen {
		if t.Selection.Filter != "" {
			errs = append(errs, fmt.Errorf("table %s: %w", t.ID, errNoFilters))
		}
	}
	return errs
}

var errNoFilters = usererr.New(nil, "This connector cannot filter backfills. Remove backfillFilter.")
