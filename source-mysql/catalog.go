package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// table is a table as the catalog has it.
type table struct {
	id      cdc.TableID
	engine  string
	kind    string // BASE TABLE, VIEW …
	rows    int64
	columns []column
	key     []string
	hashes  int   // columns that MariaDB has made for unique indexes over long values
	problem error // why it cannot be captured, in words for people; nil if it can
}

type column struct {
	name     string
	typ      *columnType
	nullable bool
	filled   bool // rows that are older than the column may have a value in it
}

func (t *table) column(name string) *column {
	for i := range t.columns {
		if t.columns[i].name == name {
			return &t.columns[i]
		}
	}
	return nil
}

// systemSchemas are the server's own.
var systemSchemas = []string{"mysql", "information_schema", "performance_schema", "sys"} //nolint:gochecknoglobals // a table

// readTables reads tables by name, or with no names all that may be captured. Queries are for one database each, so that a server
// with many tables answers them from one folder.
func (d *driver) readTables(ctx context.Context, s *session, only []cdc.TableID) ([]*table, error) {
	names := map[string][]string{}
	if len(only) == 0 {
		schemas, err := s.texts(ctx, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA ORDER BY 1")
		if err != nil {
			return nil, fmt.Errorf("listing databases: %w", err)
		}
		for _, row := range schemas {
			if slices.Contains(systemSchemas, row[0]) || len(d.cfg.Databases) > 0 && !slices.Contains(d.cfg.Databases, row[0]) {
				continue
			}
			names[row[0]] = nil
		}
	}
	for _, id := range only {
		names[id.Schema] = append(names[id.Schema], id.Name)
	}
	var out []*table
	for schema, tables := range names {
		found, err := d.readSchema(ctx, s, schema, tables)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// readSchema reads tables of one database, or all of them.
func (d *driver) readSchema(ctx context.Context, s *session, schema string, names []string) ([]*table, error) {
	const many = 500 // of which all are asked for, and those that are wanted are chosen here
	where := " WHERE TABLE_SCHEMA = " + quoteText(schema)
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
	}
	if n := len(names); n > 0 && n <= many {
		quoted := make([]string, n)
		for i, name := range names {
			quoted[i] = quoteText(name)
		}
		where += " AND TABLE_NAME IN (" + strings.Join(quoted, ", ") + ")"
	}
	rows, err := s.texts(ctx, "SELECT TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_ROWS FROM information_schema.TABLES"+where)
	if err != nil {
		return nil, fmt.Errorf("listing the tables of %s: %w", schema, err)
	}
	byName := map[string]*table{}
	var out []*table
	for _, row := range rows {
		t := &table{id: cdc.TableID{Schema: schema, Name: row[0]}, kind: row[1], engine: row[2], rows: -1}
		if n, err := strconv.ParseInt(row[3], 10, 64); err == nil {
			t.rows = n
		}
		if len(names) > 0 && !wanted[t.id.Name] {
			continue // it may also be that the server compares names without case
		}
		byName[t.id.Name] = t
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, nil
	}
	if err := d.readColumns(ctx, s, where, byName); err != nil {
		return nil, fmt.Errorf("reading the columns of %s: %w", schema, err)
	}
	if err := readKeys(ctx, s, where, byName); err != nil {
		return nil, fmt.Errorf("reading the keys of %s: %w", schema, err)
	}
	for _, t := range out {
		t.judge()
	}
	return out, nil
}

func (d *driver) readColumns(ctx context.Context, s *session, where string, byName map[string]*table) error {
	rows, err := s.texts(ctx, "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, COALESCE(CHARACTER_SET_NAME, ''), IS_NULLABLE, COALESCE(COLUMN_DEFAULT, 'NULL'), EXTRA "+
		"FROM information_schema.COLUMNS"+where+" ORDER BY TABLE_NAME, ORDINAL_POSITION")
	if err != nil {
		return err
	}
	for _, row := range rows {
		t := byName[row[0]]
		if t == nil {
			continue
		}
		c := column{name: row[1], nullable: row[5] == "YES"}
		generated := strings.Contains(strings.ToUpper(row[7]), "GENERATED")
		c.filled = !c.nullable || generated || row[6] != "NULL"
		if c.typ, err = catalogType(row[2], row[3], row[4]); err != nil {
			t.problem = usererr.New(err, "The table %s has a column %q of the type %s, which cannot be captured.", t.id, c.name, row[3])
			continue
		}
		t.columns = append(t.columns, c)
	}
	return nil
}

// readKeys finds what identifies the rows of each table: its primary key, or else a unique index over columns that are never null.
func readKeys(ctx context.Context, s *session, where string, byName map[string]*table) error {
	rows, err := s.texts(ctx, "SELECT TABLE_NAME, INDEX_NAME, COALESCE(COLUMN_NAME, ''), COALESCE(SUB_PART, ''), NULLABLE, INDEX_TYPE FROM information_schema.STATISTICS"+where+
		" AND NON_UNIQUE = 0 ORDER BY TABLE_NAME, INDEX_NAME = 'PRIMARY' DESC, INDEX_NAME, SEQ_IN_INDEX")
	if err != nil {
		return err
	}
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n][0] == rows[0][0] && rows[n][1] == rows[0][1] {
			n++
		}
		index := rows[:n]
		rows = rows[n:]
		t := byName[index[0][0]]
		if t == nil {
			continue
		}
		if index[0][5] == "HASH" {
			t.hashes++
		}
		if t.key != nil {
			continue
		}
		usable := !slices.ContainsFunc(index, func(part []string) bool {
			c := t.column(part[2])
			return c == nil || part[3] != "" || c.nullable || c.typ.kind == kindJSON || c.typ.kind == kindGeometry
		})
		for _, part := range index {
			if usable {
				t.key = append(t.key, part[2])
			}
		}
	}
	return nil
}

// judge finds out whether the table can be captured.
func (t *table) judge() {
	switch {
	case t.kind == "SYSTEM VERSIONED":
		t.problem = usererr.New(nil, "The table %s keeps its history (WITH SYSTEM VERSIONING), so the log has versions of rows where it would have changes. It cannot be captured.", t.id)
	case t.kind != "BASE TABLE":
		t.problem = usererr.New(nil, "%s is no table but a %s. Capture the tables that it reads.", t.id, strings.ToLower(t.kind))
	case t.engine != "InnoDB":
		t.problem = usererr.New(nil, "The table %s has the engine %s, whose rows cannot be read as of one moment. Convert it: ALTER TABLE %s.%s ENGINE = InnoDB;",
			t.id, t.engine, quoteName(t.id.Schema), quoteName(t.id.Name))
	}
}

// describe is the table in the core's words.
func (d *driver) describe(t *table) *cdc.Table {
	out := &cdc.Table{ID: t.id, Key: t.key, Rows: t.rows}
	for _, c := range t.columns {
		col := d.column(c, false)
		if slices.Contains(t.key, c.name) {
			col = cdc.Keyed(d.column(c, true), col)
		}
		out.Columns = append(out.Columns, col)
	}
	return out
}

func (d *driver) column(c column, asKey bool) cdc.Column {
	return cdc.Column{
		Name: c.name, Type: c.typ.text(), Nullable: c.nullable, Filled: c.filled, Small: c.typ.small(),
		Form:   d.form(c.typ, asKey),
		Schema: c.typ.jsonSchema(c.nullable, asKey, &d.cfg),
	}
}

// Discover implements cdc.Driver. Tables that cannot be captured are left out; Check says why of those that are bound.
func (d *driver) Discover(ctx context.Context, only ...cdc.TableID) ([]*cdc.Table, error) {
	var out []*cdc.Table
	err := d.conns.with(ctx, func(s *session) error {
		found, err := d.readTables(ctx, s, only)
		if err != nil {
			return err
		}
		out = nil
		for _, t := range found {
			switch {
			case t.problem == nil:
				out = append(out, d.describe(t))
			case len(only) == 0 && t.kind != "VIEW":
				d.log.WithField("table", t.id.String()).WithField("err", t.problem.Error()).Warn("leaving out a table that cannot be captured")
			}
		}
		if len(only) > 0 {
			return nil
		}
		ids := make([]cdc.TableID, len(out))
		for i, t := range out {
			ids[i] = t.ID
		}
		return d.warnOfCascades(ctx, s, ids)
	})
	return out, err
}

var errNoTable = errors.New("there is no such table")
