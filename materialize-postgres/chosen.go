package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// readChosen looks up the types that users chose for fields, as the server knows them.
func (cat *catalog) readChosen(ctx context.Context, c *conn, cfg config, fields []materialize.Field) error {
	for _, f := range fields {
		w := wantedType(cfg, f)
		if !w.explicit || w.base != "" || cat.chosen[w.name].base != "" {
			continue
		}
		rows, err := c.rows(ctx, `SELECT t::oid, format_type(t, -1), (SELECT typoutput = 'array_out'::regproc FROM pg_type WHERE oid = t)
			FROM (SELECT to_regtype($1) AS t) x WHERE t IS NOT NULL`, w.name)
		if server, ok := errors.AsType[*pgconn.PgError](err); ok && strings.HasPrefix(server.Code, "42") {
			err, rows = nil, nil // it is no type's name at all
		}
		if err != nil {
			return fmt.Errorf("looking up type %q: %w", w.name, err)
		}
		if len(rows) == 0 {
			return usererr.New(nil, "The destination has no type %q, which is chosen as the columnType of field %q. Correct it; types that are not Postgres' own are written with their schema, such as public.mood.", w.name, f.Name)
		}
		oid, err := strconv.ParseUint(string(rows[0][0]), 10, 32)
		if err != nil {
			return fmt.Errorf("reading the type %q: %w", w.name, err)
		}
		w.kind, _ = kindOfType(uint32(oid), string(rows[0][2]) == "t")
		w.base = string(rows[0][1])
		if err := w.readLength(ctx, c, uint32(oid)); err != nil {
			return fmt.Errorf("looking up type %q: %w", w.name, err)
		}
		cat.chosen[w.name] = w
	}
	return nil
}

// readLength completes a type, of whose name the server has said that it is one and nothing else. (Before Postgres 17, no function tells
// a type's length.)
func (w *wanted) readLength(ctx context.Context, c *conn, oid uint32) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	result := c.pg.ExecParams(ctx, "SELECT NULL::"+w.name, nil, nil, nil, nil).Read()
	if result.Err != nil {
		return c.explain(ctx, result.Err)
	}
	w.modifier = -1
	if f := result.FieldDescriptions[0]; f.DataTypeOID == oid { // for a domain, it is that of the type below
		w.modifier = f.TypeModifier
	}
	rows, err := c.rows(ctx, "SELECT format_type($1::oid, $2::integer)", oid, w.modifier)
	if err != nil {
		return err
	}
	w.full = string(rows[0][0])
	return nil
}

// want is the type that a field's column is to have.
func (cat *catalog) want(cfg config, f materialize.Field) wanted {
	w := wantedType(cfg, f)
	if w.explicit && w.base == "" {
		w = cat.chosen[w.name]
	}
	return w
}
