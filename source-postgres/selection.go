package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-postgres/internal/pgoutput"
)

// hidden tells, by the columns that the log describes, which of them must not leave; nil if none is left out.
//
// The log gives names, and one of them may be a new name of a column that is left out: the catalog tells by the column's
// number. Where the catalog does not have the name (it may be ahead of the log), the column is left out as well if one that
// is to be left out is not in the log under the name that it has now.
func (d *driver) hidden(r *pgoutput.Relation, t *streamed, now *table) []bool {
	sel := t.table.Selection
	if sel.Whole() {
		return nil
	}
	if t.table.Incarnation != incarnation(r.ID) {
		sel.Withheld = nil // columns of another table
	}
	logged := func(name string) bool {
		return slices.ContainsFunc(r.Columns, func(c pgoutput.Column) bool { return c.Name == name })
	}
	missing := slices.ContainsFunc(sel.Exclude, func(name string) bool { return !logged(name) }) ||
		slices.ContainsFunc(sel.Withheld, func(w cdc.ColumnState) bool {
			return slices.Contains(sel.Exclude, w.Name) && (now == nil || !logged(now.called(w.Incarnation)))
		})
	out := make([]bool, len(r.Columns))
	for i, c := range r.Columns {
		col := cdc.Column{Name: c.Name}
		byName := sel.Has(col)
		if now != nil {
			if present := now.column(c.Name); present != nil {
				col.Incarnation = strconv.Itoa(int(present.number))
			}
		}
		unknown := col.Incarnation == "" && missing && len(sel.Columns) == 0 && !slices.Contains(t.table.Key, c.Name)
		out[i] = !sel.Has(col) || unknown
		if out[i] && byName && !unknown {
			d.log.WithField("table", t.id.String()).WithField("column", c.Name).
				Warn("leaving out a column that had another name when excludeColumns left it out; name it there, or it is captured once the capture begins anew")
		}
	}
	return out
}

// conditions are what a scan of the table leaves rows out by, beside its range: the publication's row filter, and, of a
// backfill, the binding's own. Each stands in parentheses and lines of its own, so that a comment in it ends before they do.
func conditions(now *table, filter string) []string {
	var out []string
	for _, c := range []string{now.sent.where, filter} {
		if c != "" {
			out = append(out, "(\n"+c+"\n)")
		}
	}
	return out
}

// CheckSelections implements cdc.SelectionChecker.
func (d *driver) CheckSelections(ctx context.Context, tables []*cdc.Table) []error {
	var problems []error
	err := d.conns.with(ctx, func(conn *pgx.Conn) error {
		problems = nil
		for _, t := range tables {
			found, err := d.readTables(ctx, conn, []cdc.TableID{t.ID})
			if err != nil {
				return err
			}
			if len(found) == 0 {
				continue // it is said elsewhere
			}
			if err := d.checkFilter(ctx, conn, t, found[0]); err != nil {
				problems = append(problems, err)
			}
		}
		return nil
	})
	if err != nil {
		problems = append(problems, err)
	}
	return problems
}

// checkFilter has the server parse the binding's filter, in two ways: a text that would close the parentheses that it is put
// into, and open others, cannot be right between brackets as well. The server parses one statement, so nothing can follow.
func (d *driver) checkFilter(ctx context.Context, conn *pgx.Conn, t *cdc.Table, now *table) error {
	filter := t.Selection.Filter
	if filter == "" {
		return nil
	}
	from := "SELECT FROM " + only(now.root) + quoteTable(t.ID.Schema, t.ID.Name) + " WHERE "
	for _, enclosed := range []string{"(\n" + filter + "\n)", "(ARRAY[\n" + filter + "\n])[1]"} {
		s, err := conn.PgConn().Prepare(ctx, "", from+enclosed, nil)
		switch {
		case sqlState(err) == stateNoPrivilege:
			return d.noSelect(t.ID, err)
		case sqlState(err) != "":
			return usererr.New(err, "The backfillFilter of table %s is not a condition that the server understands: %s. It was: %s", t.ID, serverMessage(err), filter)
		case err != nil:
			return fmt.Errorf("checking the backfillFilter of table %s: %w", t.ID, err)
		case len(s.ParamOIDs) > 0:
			return usererr.New(nil, "The backfillFilter of table %s has parameters such as $1; write the values. It was: %s", t.ID, filter)
		}
	}
	return nil
}
