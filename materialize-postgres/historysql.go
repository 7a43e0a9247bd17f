package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// stagedBesides is how many columns a history's staging table has besides those of the table.
const stagedBesides = 5

// createVersions creates the temporary table that the rows of a history come in through.
func (t *table) createVersions() string {
	return fmt.Sprintf("CREATE TEMPORARY TABLE %s (%s, n bigint, gone boolean, at timestamptz, exact boolean, absent bytea) ON COMMIT DELETE ROWS",
		t.fresh, list(len(t.columns), ", ", func(i int) string { return fmt.Sprintf("c%d %s", i, t.columns[i].kind) }))
}

// readNewest reads the newest time of the source that went into a history.
func (s *store) readNewest(ctx context.Context, t *table) error {
	rows, err := s.w.rows(ctx, "SELECT (EXTRACT(EPOCH FROM history_time - '2000-01-01') * 1000000)::bigint FROM "+tableName{s.cfg.schema(), tablesTable}.sql()+`
		WHERE table_schema = $1 AND table_name = $2 AND history_time IS NOT NULL`, t.name.schema, t.name.table)
	if err != nil || len(rows) == 0 {
		return err
	}
	t.history.newest.known = true
	if t.history.newest.micros, err = strconv.ParseInt(string(rows[0][0]), 10, 64); err != nil {
		return fmt.Errorf("reading the newest time of %s: %w", t.name, err)
	}
	return nil
}

// keepHistory turns the staged rows of a transaction into versions.
func (s *store) keepHistory(ctx context.Context, t *table) error {
	h := t.history
	if err := s.w.exec(ctx, t.versions()); err != nil {
		return err
	}
	h.rows = 0
	clear(h.partial)
	if !h.isNew {
		return nil
	}
	h.isNew = false
	_, err := s.w.rows(ctx, "UPDATE "+tableName{s.cfg.schema(), tablesTable}.sql()+` SET history_time = GREATEST(history_time, $1::timestamptz)
		WHERE table_schema = $2 AND table_name = $3`, string(appendTimestamp(nil, h.newest.micros)), t.name.schema, t.name.table)
	return err
}

// versions is the statement that keeps a history, whatever the number of rows, keys and versions of a key:
//
//	chain   for each key, in this order: its newest version that is stored (n = 0), then its staged rows
//	filled  what a row lacks comes from the row before it, unless that is a deletion
//	judged  whether a row makes a difference to the one before it: only such are steps
//	steps   numbered, each with the time at which it begins, never before the one that it follows
//	timed   each with the time at which the next one begins
//
// Then the stored versions that have a next step are closed, and new ones are added, which must happen in this order: no key
// may have two current versions at any moment.
func (t *table) versions() string {
	key := t.stageKeys("")
	columns := list(len(t.columns), ", ", func(i int) string { return fmt.Sprintf("c%d", i) })
	var b strings.Builder
	fmt.Fprintf(&b, `WITH chain AS (
		SELECT %s, n, gone, at, exact, absent, 0::bigint AS version FROM pg_temp.%s s
		UNION ALL
		SELECT %s, 0, NOT t.is_current, CASE WHEN t.is_current THEN t.valid_from ELSE t.valid_to END, true, NULL, t.version_number
		FROM (SELECT DISTINCT %s FROM pg_temp.%s) k
		CROSS JOIN LATERAL (SELECT * FROM %s AS t WHERE %s ORDER BY t.version_number DESC LIMIT 1) t
	)`, list(len(t.columns), ", ", func(i int) string { return fmt.Sprintf("%s AS c%d", t.value("s", i), i) }), t.fresh,
		list(len(t.columns), ", ", func(i int) string { return "t." + quote(t.columns[i].name) }),
		key, t.fresh, t.name.sql(), t.onKey("k"))
	from := t.fill(&b, key)
	fmt.Fprintf(&b, `, judged AS (
		SELECT *, CASE WHEN lag(n) OVER w IS NULL THEN n = 0 OR NOT gone
			WHEN gone OR lag(gone) OVER w THEN gone <> lag(gone) OVER w
			ELSE %s END AS step
		FROM %s WINDOW w AS (PARTITION BY %s ORDER BY n)
	), steps AS (
		SELECT *, row_number() OVER w AS place, first_value(version) OVER w + count(*) FILTER (WHERE n > 0 AND NOT gone) OVER w AS number
		FROM judged WHERE step WINDOW w AS (PARTITION BY %[3]s ORDER BY n)
	), begun AS (
		SELECT *, max(CASE WHEN exact THEN at WHEN place > 1 THEN COALESCE(at, '-infinity') END) OVER w AS begins
		FROM steps WINDOW w AS (PARTITION BY %[3]s ORDER BY n)
	), timed AS MATERIALIZED (
		SELECT *, lead(begins) OVER w AS ends, lead(n) OVER w IS NULL AS last
		FROM begun WINDOW w AS (PARTITION BY %[3]s ORDER BY n)
	)`, t.differs(), from, key)
	fmt.Fprintf(&b, `, closed AS (
		UPDATE %[1]s AS t SET valid_to = s.ends, is_current = false FROM timed s
		WHERE s.n = 0 AND NOT s.gone AND NOT s.last AND %[2]s AND t.version_number = s.number RETURNING 1
	)
	INSERT INTO %[1]s AS t (%[3]s, valid_from, valid_to, is_current, version_number)
	SELECT %[4]s, begins, ends, last, number FROM timed
	WHERE n > 0 AND NOT gone AND (SELECT count(*) FROM closed) >= 0`,
		t.name.sql(), list(t.nkeys, " AND ", func(i int) string {
			return fmt.Sprintf("t.%s %s s.c%d", quote(t.columns[i].name), t.columns[i].equals, i)
		}), t.columnList(), columns)
	return b.String()
}

// stageKeys names the key's columns of a staging table.
func (t *table) stageKeys(alias string) string {
	return list(t.nkeys, ", ", func(i int) string { return fmt.Sprintf("%sc%d", alias, i) })
}

// differs compares a row with the one before it: value by value as they are stored, since not every type can be compared.
func (t *table) differs() string {
	h := t.history
	if len(h.compared) == 0 {
		return "false"
	}
	row := "ROW(" + list(len(h.compared), ", ", func(i int) string { return t.columns[h.compared[i]].comparable(h.compared[i]) }) + ")"
	return row + " *<> lag(" + row + ") OVER w"
}

// comparable is a column as it would be stored: a type with a precision rounds, one with a length pads. A text is never cut,
// since that it does not fit must come out when it is stored.
func (c column) comparable(i int) string {
	switch {
	case c.typeName == c.castName:
		return fmt.Sprintf("c%d", i)
	case strings.Contains(c.castName, "char"), strings.Contains(c.castName, "bit"):
		return fmt.Sprintf("c%d::text", i)
	default:
		return fmt.Sprintf("c%d::%s", i, c.typeName)
	}
}

// fill writes the steps that fill in what rows lack, and returns the name of the last one. Only columns that some row of the
// transaction lacks take part, so it mostly writes nothing.
//
// A key's rows between two deletions are one life, and in a life the rows from one that has a column up to the next one that
// has it are a group: they all have the value of the first.
func (t *table) fill(b *strings.Builder, key string) string {
	var partial []int
	for i, p := range t.history.partial {
		if p {
			partial = append(partial, i)
		}
	}
	if len(partial) == 0 {
		return "chain"
	}
	fmt.Fprintf(b, `, lives AS (
		SELECT *, count(*) FILTER (WHERE gone) OVER (PARTITION BY %s ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS life FROM chain
	), groups AS (
		SELECT *, %s FROM lives
	), filled AS (
		SELECT %s, n, gone, at, exact, version FROM groups
	)`, key,
		list(len(partial), ", ", func(i int) string {
			return fmt.Sprintf("count(*) FILTER (WHERE absent IS NULL OR get_bit(absent, %d) = 0) OVER (PARTITION BY %s, life ORDER BY n) AS g%[1]d", partial[i], key)
		}),
		list(len(t.columns), ", ", func(i int) string {
			if !t.history.partial[i] {
				return fmt.Sprintf("c%d", i)
			}
			return fmt.Sprintf("first_value(c%d) OVER (PARTITION BY %s, life, g%[1]d ORDER BY n) AS c%[1]d", i, key)
		}))
	return "filled"
}

// historyColumns are the definitions of the columns that a history adds.
func historyColumns() []string {
	return []string{
		validFrom + " timestamp with time zone", validTo + " timestamp with time zone",
		isCurrent + " boolean NOT NULL", versionNumber + " bigint NOT NULL",
	}
}
