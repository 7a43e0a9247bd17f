package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// Values of types that the connector does not encode itself are staged as text, and cast by the server where they are merged. An
// error of such a cast says which value was wrong, but not whose it was: culprit finds that out.

// casts says whether the server casts values of the column, or fits them to a length.
func (c *column) casts() bool { return !c.native || c.typeName != c.castName }

// casts says whether the server casts values of the first n columns of the table.
func (t *table) casts(n int) bool {
	return slices.ContainsFunc(t.columns[:n], func(c column) bool { return c.casts() })
}

// staging is a temporary table with the first columns of the real one.
type staging struct {
	name    string
	columns int
}

// keepStaged lets staged rows of a table outlive a failed statement, so that they can be looked at.
func (c *conn) keepStaged(ctx context.Context, t *table, columns int) error {
	if !t.casts(columns) {
		return nil
	}
	return c.exec(ctx, "SAVEPOINT sluice_staged")
}

// culprit names the row and the field of a cast that failed. Any other error it returns as it is.
func (c *conn) culprit(ctx context.Context, t *table, err error, staged ...staging) error {
	failed, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !t.casts(staged[0].columns) || !strings.HasPrefix(failed.Code, classWrongValue) && failed.Code != codeCheck {
		return err
	}
	if c.exec(ctx, "ROLLBACK TO SAVEPOINT sluice_staged") != nil {
		return err
	}
	for _, from := range staged {
		for i := range from.columns {
			column := &t.columns[i]
			if !column.casts() {
				continue
			}
			found, ok := errors.AsType[*pgconn.PgError](c.exec(ctx, t.tryCast(from.name, i)))
			if ok && found.ConstraintName == culpritMark {
				return usererr.New(err, unstorableText, found.Hint, column.field.Name, column.name, t.name, column.typeName, found.Message, found.Detail)
			}
		}
	}
	return err
}

// culpritMark tells the errors that tryCast raises from all others.
const culpritMark = "sluice_culprit"

// tryCast casts a column of staged rows one by one, as the assignment of a variable does it, and raises an error of the first that
// fails: the key in its detail, the value in its hint.
func (t *table) tryCast(from string, column int) string {
	c := &t.columns[column]
	key := list(t.nkeys, ", ", func(i int) string { return fmt.Sprintf("s.c%d", i) })
	return "DO " + quoteLiteral(fmt.Sprintf(`DECLARE s record; v %s;
BEGIN
	IF to_regclass('pg_temp.%s') IS NULL THEN RETURN; END IF;
	FOR s IN SELECT * FROM pg_temp.%[2]s LOOP
		BEGIN
			v := s.c%[3]d::%[4]s;
		EXCEPTION WHEN OTHERS THEN
			RAISE EXCEPTION USING MESSAGE = SQLERRM, DETAIL = jsonb_build_array(%[5]s)::text, HINT = left(to_jsonb(s.c%[3]d)::text, 60), CONSTRAINT = '%[6]s';
		END;
	END LOOP;
END`, c.typeName, from, column, c.castName, key, culpritMark))
}
