package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Check implements cdc.Driver.
func (d *driver) Check(ctx context.Context, tables []cdc.TableID) []error {
	var problems []error
	err := d.conns.with(ctx, func(conn *pgx.Conn) error {
		problems = nil
		for _, check := range []func(context.Context, *pgx.Conn) ([]error, error){
			d.checkServer,
			d.checkProxy,
			d.checkRole,
			d.checkSlot,
			func(ctx context.Context, conn *pgx.Conn) ([]error, error) { return d.checkTables(ctx, conn, tables) },
		} {
			found, err := check(ctx, conn)
			if err != nil {
				return err
			}
			problems = append(problems, found...)
		}
		return nil
	})
	if err != nil {
		problems = append(problems, err)
	}
	return problems
}

// checkServer is about what only an administrator can change.
func (d *driver) checkServer(context.Context, *pgx.Conn) ([]error, error) {
	var problems []error
	if d.server.standby {
		if problem := d.checkStandby(); problem != nil {
			problems = append(problems, problem)
		}
	}
	if problem := d.checkFailover(); problem != nil {
		problems = append(problems, problem)
	}
	if d.server.standby && d.cfg.heartbeat() > 0 {
		problems = append(problems, usererr.New(nil, "The server at %s is a standby, whose log cannot be written to. Leave advanced.heartbeat empty.", d.cfg.Address))
	}
	if d.server.walLevel != "logical" {
		problems = append(problems, usererr.New(nil, "The server's log has not enough in it: wal_level is %q. Have an administrator run ALTER SYSTEM SET wal_level = logical; and restart the server. "+
			"(On Amazon RDS, set rds.logical_replication to 1; on Google Cloud SQL, cloudsql.logical_decoding to on.)", d.server.walLevel))
	}
	return problems, nil
}

func (d *driver) checkRole(ctx context.Context, conn *pgx.Conn) ([]error, error) {
	var may bool
	err := conn.QueryRow(ctx, `
		SELECT rolsuper OR rolreplication OR EXISTS (SELECT FROM pg_catalog.pg_roles h
			WHERE h.rolname IN ('rds_replication', 'rds_superuser') AND pg_catalog.pg_has_role(current_user, h.oid, 'MEMBER'))
		FROM pg_catalog.pg_roles WHERE rolname = current_user`).Scan(&may)
	if err != nil {
		return nil, fmt.Errorf("reading the rights of user %q: %w", d.cfg.User, err)
	}
	if may {
		return nil, nil
	}
	return []error{usererr.New(nil, "User %q may not replicate. Have an administrator run: ALTER ROLE %s REPLICATION; (on Amazon RDS: GRANT rds_replication TO %s;)",
		d.cfg.User, quoteIdent(d.cfg.User), quoteIdent(d.cfg.User))}, nil
}

func (d *driver) checkSlot(ctx context.Context, conn *pgx.Conn) ([]error, error) {
	s, err := d.readSlot(ctx, conn)
	if err != nil {
		return nil, err
	}
	if s.exists {
		if s.database != d.cfg.Database || s.plugin != "pgoutput" {
			return []error{usererr.New(nil, "The replication slot %q belongs to database %q and plugin %q. Choose another name in advanced.slotName.", d.slot, s.database, s.plugin)}, nil
		}
		return nil, nil
	}
	var used, most int
	err = conn.QueryRow(ctx, "SELECT (SELECT count(*) FROM pg_catalog.pg_replication_slots), current_setting('max_replication_slots')::int").Scan(&used, &most)
	if err != nil {
		return nil, fmt.Errorf("counting replication slots: %w", err)
	}
	if used < most {
		return nil, nil
	}
	return []error{usererr.New(nil, "The server has no replication slot left: %d of %d are in use. Raise max_replication_slots (it needs a restart), or drop slots that nobody reads: "+
		"SELECT slot_name FROM pg_replication_slots WHERE NOT active;", used, most)}, nil
}

// tableRights is what Check needs to know about a table.
type tableRights struct {
	Schema, Name string
	Kind         string // relkind; empty if there is no such table
	Persistence  string
	Partition    bool
	Usage        bool // of the schema
	Select       bool
	Hidden       bool // row-level security would hide rows from us
	Identity     string
	Primary      bool // has a primary key, which is the default identity
	Owner        bool // we may do what its owner may
}

const queryRights = `
	SELECT w.s, w.t, coalesce(c.relkind::text, ''), coalesce(c.relpersistence::text, ''), coalesce(c.relispartition, false),
		coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false), coalesce(pg_catalog.has_table_privilege(c.oid, 'SELECT'), false),
		coalesce(c.relkind IN ('r', 'p') AND pg_catalog.row_security_active(c.oid), false), coalesce(c.relreplident::text, ''),
		EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate),
		coalesce(pg_catalog.pg_has_role(c.relowner, 'USAGE'), false)
	FROM unnest($1::text[], $2::text[]) AS w(s, t)
		LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
		LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.t AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
	ORDER BY w.s, w.t`

func (d *driver) checkTables(ctx context.Context, conn *pgx.Conn, tables []cdc.TableID) ([]error, error) {
	var schemas, names []string
	for _, id := range tables {
		schemas, names = append(schemas, id.Schema), append(names, id.Name)
	}
	rows, err := conn.Query(ctx, queryRights, schemas, names)
	if err != nil {
		return nil, fmt.Errorf("reading the rights on tables: %w", err)
	}
	rights, err := pgx.CollectRows(rows, pgx.RowToStructByPos[tableRights])
	if err != nil {
		return nil, fmt.Errorf("reading the rights on tables: %w", err)
	}
	p, err := d.readPublication(ctx, conn)
	if err != nil {
		return nil, err
	}
	var problems []error
	var foreign []cdc.TableID // tables that we cannot publish ourselves
	for _, r := range rights {
		id := cdc.TableID{Schema: r.Schema, Name: r.Name}
		if problem := d.checkTable(id, r); problem != nil {
			problems = append(problems, problem)
			continue
		}
		if problem := d.checkIdentity(id, r); problem != nil {
			problems = append(problems, problem)
		}
		if !r.Owner && !p.allTables && !p.tables[id] {
			foreign = append(foreign, id)
		}
	}
	more, err := d.checkPublication(ctx, conn, p, tables, foreign)
	return append(problems, more...), err
}

// checkTable is about whether a table can be captured at all.
func (d *driver) checkTable(id cdc.TableID, r tableRights) error {
	switch {
	case r.Kind == "":
		return usererr.New(nil, "The table %s does not exist. If it was dropped or renamed, remove it from the capture or discover again.", id)
	case r.Kind == "v", r.Kind == "m", r.Kind == "f":
		kinds := map[string]string{"v": "a view", "m": "a materialized view", "f": "a foreign table"}
		return usererr.New(nil, "%s is %s, which leaves no changes in the log. Capture the tables behind it.", id, kinds[r.Kind])
	case r.Persistence != "p":
		return usererr.New(nil, "The table %s is unlogged or temporary, so its changes are not in the log. Run: ALTER TABLE %s SET LOGGED;", id, quoteTable(id.Schema, id.Name))
	case r.Partition:
		return usererr.New(nil, "The table %s is a partition. Capture the partitioned table instead.", id)
	case r.Kind == "p" && d.server.major() < 13:
		return usererr.New(nil, "The table %s is partitioned, which Postgres can publish from version 13 on; this is version %d.", id, d.server.major())
	case !r.Usage:
		return usererr.New(nil, "User %q may not read table %s. Have its owner run: GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON %s TO %s;",
			d.cfg.User, id, quoteIdent(id.Schema), quoteIdent(d.cfg.User), quoteTable(id.Schema, id.Name), quoteIdent(d.cfg.User))
	case !r.Select:
		return d.noSelect(id, nil)
	case r.Hidden:
		return d.hiddenRows(id, nil)
	}
	return nil
}

func (d *driver) noSelect(id cdc.TableID, cause error) error {
	if cause != nil && len(serverMessage(cause)) > 0 && isRowSecurity(serverMessage(cause)) {
		return d.hiddenRows(id, cause)
	}
	return usererr.New(cause, "User %q may not read table %s. Have its owner run: GRANT SELECT ON %s TO %s;", d.cfg.User, id, quoteTable(id.Schema, id.Name), quoteIdent(d.cfg.User))
}

func (d *driver) hiddenRows(id cdc.TableID, cause error) error {
	return usererr.New(cause, "Row-level security hides rows of table %s from user %q, while the log has all of them. Have an administrator run: ALTER ROLE %s BYPASSRLS;", id, d.cfg.User, quoteIdent(d.cfg.User))
}

// checkIdentity is about the harm that publishing a table without a replica identity does to whoever updates it (hard
// case 17).
func (d *driver) checkIdentity(id cdc.TableID, r tableRights) error {
	if r.Identity == "f" || r.Identity == "i" || (r.Identity == "d" && r.Primary) {
		return nil
	}
	why := "has no primary key"
	if r.Identity == "n" {
		why = "has REPLICA IDENTITY NOTHING"
	}
	return usererr.New(nil, "The table %s %s, so Postgres would refuse its updates and deletes once it is published. Give it a primary key, or have its owner run: ALTER TABLE %s REPLICA IDENTITY FULL;",
		id, why, quoteTable(id.Schema, id.Name))
}

// checkPublication is about whether the tables are published, or we can publish them.
func (d *driver) checkPublication(ctx context.Context, conn *pgx.Conn, p *publication, tables, foreign []cdc.TableID) ([]error, error) {
	problems, err := d.checkOptions(ctx, conn, p, tables)
	if err != nil {
		return nil, err
	}
	add := func(format string, args ...any) { problems = append(problems, usererr.New(nil, format, args...)) }
	missing := p.missing(tables)
	if len(missing) == 0 {
		return problems, nil
	}
	if d.server.standby {
		return append(problems, d.publishedElsewhere(p, missing, nil)), nil
	}
	var create, owner bool
	err = conn.QueryRow(ctx, `SELECT pg_catalog.has_database_privilege(current_database(), 'CREATE'),
		coalesce((SELECT pg_catalog.pg_has_role(pubowner, 'USAGE') FROM pg_catalog.pg_publication WHERE pubname = $1), false)`, d.publication).Scan(&create, &owner)
	if err != nil {
		return nil, fmt.Errorf("reading the rights on publications: %w", err)
	}
	switch {
	case !p.exists && (!create || len(foreign) > 0):
		add("User %q cannot make the publication %q: that needs the CREATE right on the database and the ownership of the tables. Have an administrator run:\n%s;",
			d.cfg.User, d.publication, d.createSQL(tables, nil))
	case p.exists && (!owner || len(foreign) > 0):
		add("The publication %q lacks tables that user %q cannot add to it. Have an administrator run:\n%s;", d.publication, d.cfg.User, d.addSQL(missing, nil))
	}
	return problems, nil
}
