package main

import (
	"context"
	"fmt"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// filtered is a binding's filter as a condition of its own: in parentheses and on lines of its own, so that a comment in it ends
// before they do.
func filtered(filter string) string { return "(\n" + filter + "\n)" }

// CheckSelections implements cdc.SelectionChecker.
func (d *driver) CheckSelections(ctx context.Context, tables []*cdc.Table) []error {
	var problems []error
	err := d.conns.with(ctx, func(s *session) error {
		problems = nil
		for _, t := range tables {
			if err := d.checkFilter(ctx, s, t); err != nil {
				if s.broken {
					return err
				}
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

// checkFilter has the server read the binding's filter, in two ways: a text that would close the parentheses that it is put into,
// and open others, cannot be right as the first of two arguments as well. The server takes one statement, so nothing can follow.
func (d *driver) checkFilter(ctx context.Context, s *session, t *cdc.Table) error {
	filter := t.Selection.Filter
	if filter == "" {
		return nil
	}
	from := "SELECT 1 FROM " + quoteName(t.ID.Schema) + "." + quoteName(t.ID.Name) + " WHERE "
	for _, enclosed := range []string{filtered(filter), "NULLIF(\n" + filter + "\n, 1)"} {
		err := s.exec(ctx, from+enclosed+" LIMIT 0")
		switch code(err) {
		case errNoTableRight, errNoColumnRight, errNoDatabaseRight:
			return d.noSelect(t.ID, err)
		case errUnknownTable, errUnknownDatabase:
			return fmt.Errorf("checking the backfillFilter of table %s: %w: %w", t.ID, cdc.ErrRewritten, err)
		case 0:
			if err != nil {
				return fmt.Errorf("checking the backfillFilter of table %s: %w", t.ID, err)
			}
		default:
			return usererr.New(err, "The backfillFilter of table %s is not a condition that the server understands: %s. It was: %s", t.ID, message(err), filter)
		}
	}
	return nil
}
