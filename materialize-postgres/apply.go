package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/sluicedata/sluice/sdk/materialize"
)

// applyLock is the advisory lock under which tables are created and changed, so that two materializations that are
// applied at once do not both create the connector's own tables. The number spells "sluice".
const applyLock = 0x736c75696365

// Apply implements materialize.Sink. What the changes say is compared with what exists: everything happens in one
// transaction, so a crash leaves either all or nothing, and a repetition finds nothing to do.
func (sink) Apply(ctx context.Context, env materialize.Env, cfg config, changes []materialize.Change[resource]) (string, error) {
	c, err := connect(ctx, cfg, applicationName(env.Task))
	if err != nil {
		return "", err
	}
	defer c.close()
	a := &applier{c: c, cfg: cfg, task: env.Task}
	if err := c.inTransaction(ctx, func() error { return a.run(ctx, changes) }); err != nil {
		return "", err
	}
	env.Log.WithField("statements", len(a.statements)).Info("applied")
	return strings.Join(a.done, " "), nil
}

// applier gathers the statements of one Apply.
type applier struct {
	c          *conn
	cfg        config
	task       string
	cat        *catalog
	statements []string
	done       []string // what was done, in sentences
}

func (a *applier) sql(format string, args ...any) {
	a.statements = append(a.statements, fmt.Sprintf(format, args...))
}

func (a *applier) say(format string, args ...any) {
	a.done = append(a.done, fmt.Sprintf(format, args...))
}

func (a *applier) run(ctx context.Context, changes []materialize.Change[resource]) error {
	if err := a.c.exec(ctx, fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", applyLock)); err != nil {
		return err
	}
	names := make([]tableName, len(changes))
	for i, ch := range changes {
		names[i] = nameOf(ch.Binding.Target.Path)
	}
	cat, err := readCatalog(ctx, a.c, a.cfg.schema(), names)
	if err != nil {
		return err
	}
	for _, ch := range changes {
		if err := cat.readChosen(ctx, a.c, a.cfg, ch.Binding.Fields()); err != nil {
			return err
		}
	}
	a.cat = cat
	a.meta(cat)
	for i, ch := range changes {
		if err := a.table(cat, names[i], ch); err != nil {
			return err
		}
	}
	if len(a.statements) == 0 {
		return nil
	}
	// Sessions of the old shape must not commit into the new one: they are fenced off first, which also waits for a
	// commit that is under way.
	if cat.meta {
		f := fence{c: a.c, table: a.metaTable(checkpointsTable), task: a.task, keys: materialize.FullRange()}
		old, err := f.overlapping(ctx, " FOR UPDATE")
		if err == nil {
			_, err = a.c.rows(ctx, "UPDATE "+f.table+" SET fence = fence + 1 WHERE materialization = $1", a.task)
		}
		if err == nil {
			err = f.end(ctx, old)
		}
		if err != nil {
			return fmt.Errorf("fencing off running instances: %w", err)
		}
	}
	for _, statement := range a.statements {
		if err := a.c.exec(ctx, statement); err != nil {
			return fmt.Errorf("running %q: %w", statement, err)
		}
	}
	return nil
}

func (a *applier) metaTable(name string) string { return tableName{a.cfg.schema(), name}.sql() }

// schema creates a schema that does not exist. CREATE SCHEMA IF NOT EXISTS would ask for the privilege in any case.
func (a *applier) schema(cat *catalog, name string) {
	if cat.schemas[name] {
		return
	}
	cat.schemas[name] = true
	a.sql("CREATE SCHEMA %s", quote(name))
	a.say("Created schema %s.", name)
}

// meta creates the connector's own tables.
func (a *applier) meta(cat *catalog) {
	if cat.meta {
		return
	}
	a.schema(cat, a.cfg.schema())
	a.sql(`CREATE TABLE IF NOT EXISTS %s (materialization text NOT NULL, key_begin bigint NOT NULL, key_end bigint NOT NULL, fence bigint NOT NULL, checkpoint bytea NOT NULL, session text, PRIMARY KEY (materialization, key_begin, key_end))`, a.metaTable(checkpointsTable))
	a.sql(`CREATE TABLE IF NOT EXISTS %s (table_schema text NOT NULL, table_name text NOT NULL, materialization text NOT NULL, backfill bigint NOT NULL, delta_updates boolean NOT NULL, load_all boolean NOT NULL, history text NOT NULL, history_time timestamptz, PRIMARY KEY (table_schema, table_name))`, a.metaTable(tablesTable))
	a.sql(`COMMENT ON TABLE %s IS 'Position of each materialization, committed together with its rows. Dropping it makes all of them start anew.'`, a.metaTable(checkpointsTable))
	a.sql(`COMMENT ON TABLE %s IS 'Tables that materializations created and may change.'`, a.metaTable(tablesTable))
}

// table brings one table into shape.
func (a *applier) table(cat *catalog, name tableName, ch materialize.Change[resource]) error {
	if ch.Kind == materialize.Remove {
		if ch.Last != nil && cat.tables[name] != nil {
			a.say("Left table %s as it is; it is no longer updated.", name)
		}
		return nil
	}
	b := ch.Binding
	if b.Resource.History != "" {
		if err := checkHistory(b); err != nil {
			return err
		}
	}
	t := cat.tables[name]
	switch {
	case t == nil:
		if err := cat.mayCreate(name, a.task, b.Backfill); err != nil {
			return err
		}
		a.schema(cat, name.schema)
		a.create(name, b)
		a.say("Created table %s.", name)
		return nil
	case t.mayUse(name, a.task) != nil:
		return t.mayUse(name, a.task)
	case t.backfill != b.Backfill:
		a.replace(name, t, b)
		return nil
	}
	if err := t.sameMode(name, b.Resource); err != nil {
		return err
	}
	if t.primaryKey(keyColumns(b)) != nil {
		if err := t.sameKey(name, keyColumns(b)); err != nil {
			return err
		}
	}
	if ch.Kind == materialize.Create && !t.loadAll {
		// The binding is new, the table is not: it was left by one that was removed.
		a.sql("UPDATE %s SET load_all = true WHERE table_schema = %s AND table_name = %s",
			a.metaTable(tablesTable), quoteLiteral(name.schema), quoteLiteral(name.table))
	}
	changed, err := a.alterations(name, t, b)
	if err != nil {
		return err
	}
	if len(changed) > 0 {
		a.sql("ALTER TABLE %s %s", name.sql(), strings.Join(changed, ", "))
		a.say("Altered table %s: %s.", name, strings.Join(changed, ", "))
	}
	return nil
}

func keyColumns(b *materialize.Binding[resource]) []string {
	out := make([]string, len(b.Keys))
	for i, f := range b.Keys {
		out[i] = columnName(f.Name)
	}
	return out
}

func (a *applier) create(name tableName, b *materialize.Binding[resource]) {
	var defs, keys []string
	history := b.Resource.History != ""
	for i, f := range storedFields(b) {
		def := quote(columnName(f.Name)) + " " + a.cat.want(a.cfg, f).name
		// A change may leave out what is required of the documents that it adds up to.
		if f.Required && !f.Nullable && (i < len(b.Keys) || !history) {
			def += " NOT NULL"
		}
		defs = append(defs, def)
	}
	if !b.Target.Delta {
		for _, k := range keyColumns(b) {
			keys = append(keys, quote(k))
		}
		defs = append(defs, "PRIMARY KEY ("+strings.Join(keys, ", ")+")")
	}
	if history {
		defs = append(defs, historyColumns()...)
		for _, k := range keyColumns(b) {
			keys = append(keys, quote(k))
		}
		defs = append(defs, "PRIMARY KEY ("+strings.Join(keys, ", ")+", "+versionNumber+")")
	}
	a.sql("CREATE TABLE %s (%s)", name.sql(), strings.Join(defs, ", "))
	if history {
		a.sql("CREATE UNIQUE INDEX ON %s (%s) WHERE %s", name.sql(), strings.Join(keys, ", "), isCurrent)
	}
	a.sql("COMMENT ON TABLE %s IS %s", name.sql(), quoteLiteral("Collection "+b.Collection+", kept by materialization "+a.task))
	a.sql(`INSERT INTO %s VALUES (%s, %s, %s, %d, %t, false, %s) ON CONFLICT (table_schema, table_name) DO UPDATE SET materialization = EXCLUDED.materialization, backfill = EXCLUDED.backfill, delta_updates = EXCLUDED.delta_updates, load_all = false, history = EXCLUDED.history, history_time = NULL`,
		a.metaTable(tablesTable), quoteLiteral(name.schema), quoteLiteral(name.table), quoteLiteral(a.task), b.Backfill, b.Target.Delta, quoteLiteral(b.Resource.History))
}

// replace empties a table for a new backfill. If its shape can stay, so can the table, and with it the views, grants and
// indexes that people made; else it is made anew.
func (a *applier) replace(name tableName, t *existing, b *materialize.Binding[resource]) {
	changed, err := a.alterations(name, t, b)
	key := t.primaryKey(keyColumns(b))
	if err == nil && t.sameMode(name, b.Resource) == nil && (key == nil || t.sameKey(name, keyColumns(b)) == nil) {
		a.sql("TRUNCATE TABLE %s", name.sql())
		if len(changed) > 0 {
			a.sql("ALTER TABLE %s %s", name.sql(), strings.Join(changed, ", "))
		}
		a.sql("UPDATE %s SET backfill = %d, load_all = false, history_time = NULL WHERE table_schema = %s AND table_name = %s",
			a.metaTable(tablesTable), b.Backfill, quoteLiteral(name.schema), quoteLiteral(name.table))
		a.say("Emptied table %s for backfill %d.", name, b.Backfill)
		return
	}
	a.sql("DROP TABLE %s", name.sql())
	a.create(name, b)
	a.say("Replaced table %s for backfill %d.", name, b.Backfill)
}

// alterations are the clauses of ALTER TABLE that make an existing table fit for a binding: columns added, widened, and
// relieved of NOT NULL. Columns that nobody selects any more stay.
func (a *applier) alterations(name tableName, t *existing, b *materialize.Binding[resource]) ([]string, error) {
	var out []string
	selected := map[string]bool{}
	for _, f := range storedFields(b) {
		column := columnName(f.Name)
		selected[column] = true
		have, exists := t.column(column)
		want := a.cat.want(a.cfg, f)
		if !exists {
			out = append(out, fmt.Sprintf("ADD COLUMN %s %s", quote(column), want.name))
			continue
		}
		switch how, to := fitting(have, want); how {
		case widens:
			out = append(out, fmt.Sprintf("ALTER COLUMN %s TYPE %s USING %s", quote(column), to.name, widening(have, to)))
		case cannotWiden:
			return nil, cannotChange(name, have, want)
		default:
		}
		if have.notNull && !f.Key && (f.Nullable || !f.Required) {
			out = append(out, fmt.Sprintf("ALTER COLUMN %s DROP NOT NULL", quote(column)))
		}
	}
	for _, c := range t.columns {
		isKey := t.history != "" && isHistoryColumn(c.name)
		for _, k := range t.key {
			isKey = isKey || k == c.name
		}
		if c.notNull && !selected[c.name] && !isKey {
			out = append(out, fmt.Sprintf("ALTER COLUMN %s DROP NOT NULL", quote(c.name)))
		}
	}
	return out, nil
}
