package compare

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// comparison is a pair with its columns looked up: the two queries give the same columns in the same order, the key's first.
type comparison struct {
	key     []string
	columns []string // as the source names them, the key's first

	sourceQuery, destinationQuery string
}

// column is one column of a table as the catalog has it.
type column struct {
	Name     string
	Type     string // without modifiers: "numeric", "timestamp with time zone", "text[]"
	Category string // pg_type.typcategory: "A" is an array
	InKey    bool
}

// An identifier is looked up the way a statement would.
const queryColumns = `
	SELECT a.attname::text, format_type(a.atttypid, NULL), t.typcategory::text, COALESCE(a.attnum = ANY (i.indkey), false)
	FROM pg_catalog.pg_attribute a
		JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
		LEFT JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
	WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
	ORDER BY a.attnum`

func columnsOf(ctx context.Context, conn *pgx.Conn, table pgx.Identifier) ([]column, error) {
	rows, err := conn.Query(ctx, queryColumns, table.Sanitize())
	if err != nil {
		return nil, fmt.Errorf("looking up the columns: %w", err)
	}
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	if err != nil {
		return nil, fmt.Errorf("looking up the columns: %w", err)
	}
	if len(columns) == 0 {
		return nil, fmt.Errorf("%w: there is no table %s", ErrShape, name(table))
	}
	return columns, nil
}

func plan(ctx context.Context, source, destination *pgx.Conn, pair Pair) (*comparison, error) {
	// Text of times and dates depends on the session.
	for _, conn := range []*pgx.Conn{source, destination} {
		if _, err := conn.Exec(ctx, "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1"); err != nil {
			return nil, fmt.Errorf("preparing a session: %w", err)
		}
	}
	from, err := columnsOf(ctx, source, pair.Source)
	if err != nil {
		return nil, err
	}
	to, err := columnsOf(ctx, destination, pair.Destination)
	if err != nil {
		return nil, fmt.Errorf("in the copy: %w", err)
	}
	c := &comparison{key: pair.key(from)}
	for _, k := range c.key {
		if !slices.ContainsFunc(from, func(c column) bool { return c.Name == k }) {
			return nil, fmt.Errorf("%w: %s has no column %s", ErrShape, name(pair.Source), k)
		}
	}
	c.columns = slices.Clone(c.key)
	for _, column := range from {
		if !slices.Contains(c.key, column.Name) {
			c.columns = append(c.columns, column.Name)
		}
	}
	return c, c.queries(pair, from, to)
}

// key is what the rows are sorted by.
func (p Pair) key(columns []column) []string {
	if len(p.Key) > 0 {
		return p.Key
	}
	var key, all []string
	for _, c := range columns {
		all = append(all, c.Name)
		if c.InKey {
			key = append(key, c.Name)
		}
	}
	if len(key) == 0 {
		return all
	}
	return key
}

func (c *comparison) queries(pair Pair, from, to []column) error {
	var left, right []string
	for _, want := range c.columns {
		source := from[slices.IndexFunc(from, func(c column) bool { return c.Name == want })]
		renamed := want
		if n, ok := pair.Renamed[want]; ok {
			renamed = n
		}
		at := slices.IndexFunc(to, func(c column) bool { return c.Name == renamed })
		if at < 0 {
			return fmt.Errorf("%w: the copy has no column %s", ErrShape, renamed)
		}
		left = append(left, sourceText(source)+` COLLATE "C"`)
		right = append(right, destinationText(source, to[at])+` COLLATE "C"`)
	}
	order := make([]string, len(c.key))
	for i := range order {
		order[i] = fmt.Sprint(i + 1) // NULLs last, as is the default
	}
	suffix := " ORDER BY " + strings.Join(order, ", ")
	c.sourceQuery = "SELECT " + strings.Join(left, ", ") + " FROM " + pair.Source.Sanitize() + suffix
	c.destinationQuery = "SELECT " + strings.Join(right, ", ") + " FROM " + pair.Destination.Sanitize()
	if pair.Only != "" {
		c.destinationQuery += " WHERE " + pair.Only
	}
	c.destinationQuery += suffix
	return nil
}

// sourceText is an SQL expression that gives the one form of a value that both sides are brought to.
func sourceText(c column) string {
	ident := pgx.Identifier{c.Name}.Sanitize()
	switch {
	case c.Category == "A":
		return "to_jsonb(" + ident + ")::text"
	case c.Type == "bytea":
		return "encode(" + ident + ", 'hex')"
	case c.Type == "json":
		return ident + "::jsonb::text"
	}
	return ident + "::text"
}

// destinationText gives the same form of a value that had the source's type before it was materialized.
func destinationText(source, destination column) string {
	ident := pgx.Identifier{destination.Name}.Sanitize()
	switch {
	case source.Category == "A" && destination.Category == "A":
		return "to_jsonb(" + ident + ")::text"
	case source.Category == "A", source.Type == "json", source.Type == "jsonb":
		return ident + "::text::jsonb::text"
	case destination.Type == "jsonb" || destination.Type == "json":
		// A column that has had values of several types. What was text is text again without its quotes.
		return "(" + ident + " #>> '{}')"
	case source.Type == "bytea" && destination.Type == "bytea":
		return "encode(" + ident + ", 'hex')"
	case source.Type == "bytea":
		return "encode(decode(" + ident + ", 'base64'), 'hex')"
	case source.Type == "timestamp without time zone":
		// Documents carry an instant, taken as UTC (the session's zone).
		return ident + "::timestamp with time zone::timestamp without time zone::text"
	case source.Type == destination.Type:
		return ident + "::text"
	case source.Type == "timestamp with time zone", source.Type == "date", source.Type == "uuid",
		source.Type == "time without time zone", source.Type == "time with time zone",
		source.Type == "real", source.Type == "double precision":
		return ident + "::text::" + source.Type + "::text"
	}
	return ident + "::text"
}
