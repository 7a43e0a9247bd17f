package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// merge moves staged rows into their tables: one statement for each table and kind of change, whatever the number of
// rows. Rows that are new have been copied into the table already, unless it refused them.
//
// The runtime says which rows it believes to exist. That decides which statement is tried first, because a plain INSERT
// costs half of one that looks for conflicts, and never what the result is: where the belief turns out to be wrong (rows that
// somebody added or deleted by hand, a runtime that did not ask), the rows are merged by a statement that needs no belief.
func (s *store) merge(ctx context.Context) error {
	for i, t := range s.tables {
		n := len(t.columns)
		if err := s.w.keepStaged(ctx, t, n); err != nil {
			return err
		}
		if err := s.mergeTable(ctx, i, t); err != nil {
			return s.w.culprit(ctx, t, err, staging{t.fresh, n}, staging{t.known, n}, staging{t.gone, t.nkeys})
		}
	}
	return nil
}

func (s *store) mergeTable(ctx context.Context, i int, t *table) error {
	if t.history != nil {
		if s.fresh[i].take() > 0 {
			if err := s.keepHistory(ctx, t); err != nil {
				return fmt.Errorf("keeping the history %s: %w", t.name, err)
			}
		}
		return nil
	}
	if s.gone[i].take() > 0 {
		if err := s.w.exec(ctx, t.remove()); err != nil {
			return err
		}
	}
	if n := s.known[i].take(); n > 0 {
		if err := s.updateKnown(ctx, t, n); err != nil {
			return err
		}
	}
	if s.fresh[i].take() > 0 && s.fresh[i].staging() {
		return s.insertFresh(ctx, t)
	}
	return nil
}

// updateKnown updates rows that should be there, and adds those that are not.
func (s *store) updateKnown(ctx context.Context, t *table, rows int64) error {
	var updated int64
	if !t.onlyKeys() {
		var err error
		if updated, err = s.w.affected(ctx, t.update(t.known)); err != nil || updated == rows {
			return err
		}
	}
	// Two staged rows that are one in the table update it once, in no order.
	twice, err := s.w.rows(ctx, t.keysTwice(t.known))
	if err != nil {
		return err
	}
	if len(twice) > 0 {
		return keysAreOne(nil)
	}
	s.env.Log.WithFields(map[string]any{"table": t.name.String(), "rows": rows - updated}).Debug("rows are not there, or are there more than once; adding what is missing")
	return s.w.exec(ctx, t.addMissing(t.known))
}

// insertFresh adds rows that should be new, and updates those that are not.
func (s *store) insertFresh(ctx context.Context, t *table) error {
	if t.delta {
		return s.w.exec(ctx, t.insert(t.fresh))
	}
	err := s.w.exec(ctx, "SAVEPOINT sluice;"+t.insert(t.fresh)+";RELEASE SAVEPOINT sluice")
	if err == nil {
		// None was there this time: the next transaction can try the direct way.
		s.fresh[t.index].refused = false
		return nil
	}
	var server *pgconn.PgError
	if errors.As(err, &server) && server.Code == codeUnique {
		s.env.Log.WithField("table", t.name.String()).Debug("rows exist already; updating them")
		if err := s.w.exec(ctx, "ROLLBACK TO SAVEPOINT sluice"); err != nil {
			return err
		}
		return s.w.exec(ctx, t.upsert(t.fresh))
	}
	return err
}

// affected runs a statement and returns how many rows it changed.
func (c *conn) affected(ctx context.Context, sql string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	results, err := c.pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		return 0, c.explain(ctx, err)
	}
	return results[0].CommandTag.RowsAffected(), nil
}
