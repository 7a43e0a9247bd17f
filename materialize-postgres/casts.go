package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// Values of types that the connector does not encode itself are staged as text, and cast by the server where they are merged. An
// error of such a cast says which value was wrong, but not whose it was: culprit finds that out.

// casts says whether the server casts values of the table.
func (t *table) casts() bool {
	for i := range t.columns {
		if !t.columns[i].native {
			return true
		}
	}
	return false
}

// keepStaged lets staged rows of a table outlive a failed statement, so that they can be looked at.
func (s *store) keepStaged(ctx context.Context, t *table) error {
	if !t.casts() {
		return nil
	}
	return s.w.exec(ctx, "SAVEPOINT sluice_staged")
}

// culprit names the row and the field of a cast that failed. Any other error it returns as it is.
func (s *store) culprit(ctx context.Context, t *table, err error) error {
	failed, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !t.casts() || !strings.HasPrefix(failed.Code, "22") && failed.Code != codeCheck {
		return err
	}
	if s.w.exec(ctx, "ROLLBACK TO SAVEPOINT sluice_staged") != nil {
		return err
	}
	for _, from := range []string{t.fresh, t.known} {
		for i := range t.columns {
			c := &t.columns[i]
			if c.native {
				continue
			}
			found, ok := errors.AsType[*pgconn.PgError](s.w.exec(ctx, t.tryCast(from, i)))
			if ok && found.ConstraintName == culpritMark {
				return usererr.New(err, unstorableText, found.Hint, c.field.Name, c.name, t.name, c.typeName, found.Message, found.Detail)
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
