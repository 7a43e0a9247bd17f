package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/usererr"
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
			return refused(statement, err)
		}
	}
	return nil
}

// refused explains a statement that the server did not want, which is mostly because of something that people made.
func refused(statement string, err error) error {
	server, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || usererr.Has(err) {
		return fmt.Errorf("running %q: %w", statement, err)
	}
	advice := "If an index, a constraint or a default that you made needs a column as it is, drop it, let the table be changed, and create it again."
	if strings.HasPrefix(statement, "CREATE") {
		advice = "If it is about the type of a column, choose another one (columnType), or set castToString in its field's configuration."
	}
	return usererr.New(err, "The destination refuses %q: %s. %s", statement, server.Message, advice)
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
	a.sql(`CREATE TABLE IF NOT EXISTS %s (table_schema text NOT NULL, table_name text NOT NULL, materialization text NOT NULL, backfill bigint NOT NULL, delta_updates boolean NOT NULL, load_all boolean NOT NULL, history text NOT NULL, history_time timestamptz, adopted boolean NOT NULL, made json NOT NULL, PRIMARY KEY (table_schema, table_name))`, a.metaTable(tablesTable))
	a.sql(`COMMENT ON TABLE %s IS 'Position of each materialization, committed together with its rows. Dropping it makes all of them start anew.'`, a.metaTable(checkpointsTable))
	a.sql(`COMMENT ON TABLE %s IS 'Tables that materializations created or adopted, and the columns that they made.'`, a.metaTable(tablesTable))
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
	if t == nil {
		if err := cat.mayCreate(name, a.task, b.Backfill); err != nil {
			return err
		}
		a.schema(cat, name.schema)
		a.create(name, b)
		a.say("Created table %s.", name)
		return nil
	}
	if err := t.mayUse(name, a.task, b.Resource); err != nil {
		return err
	}
	if err := t.notBefore(name, b.Backfill); err != nil {
		return err
	}
	switch {
	case t.owner == "":
		return a.adopt(name, t, b)
	case t.backfill != b.Backfill && t.adopted:
		return a.refill(name, t, b)
	case t.backfill != b.Backfill:
		return a.replace(name, t, b)
	}
	if err := sameCollection(name, ch); err != nil {
		return err
	}
	if err := t.sameMode(name, b.Resource); err != nil {
		return err
	}
	if err := t.sameKey(name, keyColumns(b)); err != nil {
		return err
	}
	if ch.Kind == materialize.Create && !t.loadAll {
		// The binding is new, the table is not: it was left by one that was removed.
		a.note(name, "load_all = true")
	}
	return a.alter(name, t, b)
}

// sameCollection refuses to mix the rows of two collections, as when bindings change places.
func sameCollection(name tableName, ch materialize.Change[resource]) error {
	if ch.Last == nil || ch.Last.Collection == ch.Binding.Collection {
		return nil
	}
	return usererr.New(nil, "Table %s holds rows of collection %q, and is to take those of %q. Increase the binding's backfill counter to start the table anew, or choose another one.", name, ch.Last.Collection, ch.Binding.Collection)
}

// note changes what is noted about a table.
func (a *applier) note(name tableName, assignments string) {
	a.sql("UPDATE %s SET %s WHERE table_schema = %s AND table_name = %s", a.metaTable(tablesTable), assignments, quoteLiteral(name.schema), quoteLiteral(name.table))
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
		if f.Required && !f.Nullable && (i < len(b.Keys) || !b.Target.Delta) {
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
	a.noteNew(name, b, false, columnNames(b))
}

// noteNew notes a table that was created or adopted, with the columns that were made.
func (a *applier) noteNew(name tableName, b *materialize.Binding[resource], adopted bool, made []string) {
	a.sql(`INSERT INTO %s (table_schema, table_name, materialization, backfill, delta_updates, load_all, history, history_time, adopted, made)
		VALUES (%s, %s, %s, %d, %t, %[7]t, %[8]s, NULL, %[7]t, %[9]s) ON CONFLICT (table_schema, table_name) DO UPDATE SET materialization = EXCLUDED.materialization,
		backfill = EXCLUDED.backfill, delta_updates = EXCLUDED.delta_updates, load_all = EXCLUDED.load_all, history = EXCLUDED.history, history_time = NULL,
		adopted = EXCLUDED.adopted, made = EXCLUDED.made`,
		a.metaTable(tablesTable), quoteLiteral(name.schema), quoteLiteral(name.table), quoteLiteral(a.task), b.Backfill, b.Target.Delta, adopted, quoteLiteral(b.Resource.History), jsonNames(made))
}

// jsonNames writes names as the text of a JSON array, quoted for SQL.
func jsonNames(names []string) string {
	text, _ := json.Marshal(names) // texts always encode
	return quoteLiteral(string(text))
}

func columnNames(b *materialize.Binding[resource]) []string {
	fields := storedFields(b)
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = columnName(f.Name)
	}
	return out
}
