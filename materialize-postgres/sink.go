package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// sink implements materialize.Sink. It holds nothing: every call connects for itself.
type sink struct{}

func (sink) Spec() materialize.Spec {
	return materialize.Spec{
		Title:   "Postgres",
		DocsURL: "https://github.com/sluicedata/sluice/blob/main/docs/connectors/materialize-postgres.md",
		// merge.go
		LoadOptional: true,
	}
}

func (sink) Target(cfg config, r resource) materialize.Target {
	schema := r.Schema
	if schema == "" {
		schema = cfg.schema()
	}
	return materialize.Target{Path: []string{schema, r.Table}, Delta: r.DeltaUpdates || r.History != ""}
}

func (sink) Constrain(cfg config, t materialize.Target, f materialize.Field) materialize.Constraint {
	c := materialize.Constraint{Choice: materialize.Optional, Folded: columnName(f.Name)}
	switch _, err := configOf(f); {
	case err != nil:
		c.Choice, c.Reason = materialize.Forbidden, fmt.Sprintf("Its configuration %s is not understood: %v. It can have castToString (true or false) or columnType (the name of a type).", f.Config, err)
	case strings.ContainsRune(f.Name, 0):
		c.Choice, c.Reason = materialize.Forbidden, "Its name contains a NUL character, which Postgres does not allow. Give its location another name."
	case f.Pointer == "" && cfg.Advanced.StoreDocument:
		c.Choice, c.Reason = materialize.LocationRequired, "Documents are stored whole, as advanced.storeDocument asks."
	case f.Pointer == "":
		c.Reason = "The whole document can be stored, but need not be: it is rebuilt from its fields."
	case len(f.Types) == 0:
		c.Choice, c.Reason = materialize.Forbidden, "No value of this field has been seen yet, so its type is not known."
	case f.Key && (slices.Contains(f.Types, "object") || slices.Contains(f.Types, "array")):
		c.Choice, c.Reason = materialize.Forbidden, "An object or array cannot be part of a primary key."
	case f.Key && f.Nullable && len(f.Default) == 0 && !t.Delta:
		c.Choice, c.Reason = materialize.Forbidden, "A field that can be null cannot be part of a primary key. Give it a default in the collection's schema."
	case t.Delta && (f.Pointer == opPointer || f.Pointer == timePointer || f.Pointer == positionPointer):
		c.Choice, c.Reason = materialize.LocationRequired, "Where every change is kept, it says what happened, when, or in which order."
	case welcome(f.Pointer):
		c.Choice = materialize.Recommended
	}
	return c
}

// welcome says which fields are stored unless the user decides otherwise: the members of the document, and of what
// captures add about the change only its kind, by which deleted rows are told from live ones.
func welcome(pointer string) bool {
	if pointer == "/_meta/op" {
		return true
	}
	return strings.Count(pointer, "/") == 1 && pointer != "/_meta"
}

// columnName is the name of a field's column. Postgres allows 63 bytes: longer names are cut and get a part of their
// hash, so that two of them stay two. Names of system columns get an underscore.
func columnName(field string) string {
	switch field {
	case "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid":
		return field + "_"
	}
	if len(field) <= maxIdentifier {
		return field
	}
	sum := sha256.Sum256([]byte(field))
	suffix := "_" + hex.EncodeToString(sum[:4])
	cut := maxIdentifier - len(suffix)
	for cut > 0 && !utf8.RuneStart(field[cut]) {
		cut--
	}
	return field[:cut] + suffix
}

// applicationName shows in pg_stat_activity. Postgres cuts it at 63 bytes.
func applicationName(task string) string { return "sluice " + task }

// Check implements materialize.Checker.
func (s sink) Check(ctx context.Context, env materialize.Env, cfg config, proposals []*materialize.Proposal[resource]) error {
	c, err := connect(ctx, cfg, applicationName(env.Task))
	if err != nil {
		return err
	}
	defer c.close()
	if err := checkServer(ctx, c, cfg); err != nil {
		return err
	}
	names := make([]tableName, len(proposals))
	for i, p := range proposals {
		names[i] = nameOf(p.Target.Path)
	}
	cat, err := readCatalog(ctx, c, cfg.schema(), names)
	if err != nil {
		return err
	}
	var problems []error
	for i, p := range proposals {
		if err := cat.readChosen(ctx, c, cfg, p.Fields); err != nil {
			problems = append(problems, err)
			continue
		}
		problems = append(problems, s.checkTable(env, cfg, cat, names[i], p))
	}
	return usererr.Join("The tables cannot be used as they are:", problems)
}

// checkServer reports what is wrong with the database as a whole.
func checkServer(ctx context.Context, c *conn, cfg config) error {
	rows, err := c.rows(ctx, `SELECT pg_is_in_recovery()::text, current_setting('default_transaction_read_only'), current_setting('server_encoding'),
		COALESCE((SELECT has_schema_privilege(oid, 'CREATE')::text FROM pg_namespace WHERE nspname = $1),
			CASE WHEN has_database_privilege(current_database(), 'CREATE') THEN 'true' ELSE 'none' END),
		has_database_privilege(current_database(), 'TEMPORARY')::text`, cfg.schema())
	if err != nil {
		return err
	}
	recovery, readOnly, encoding, create, temp := string(rows[0][0]), string(rows[0][1]), string(rows[0][2]), string(rows[0][3]), string(rows[0][4])
	var problems []error
	if recovery == "true" || readOnly == "on" {
		problems = append(problems, usererr.New(nil, "The destination is read-only: it is a standby, or default_transaction_read_only is on. Use the address of the primary, or make it writable."))
	}
	if encoding != "UTF8" {
		problems = append(problems, usererr.New(nil, "Database %q is encoded as %s; only UTF8 can hold every document. Create the database with ENCODING 'UTF8'.", cfg.Database, encoding))
	}
	switch create {
	case "none":
		problems = append(problems, usererr.New(nil, "There is no schema %q, and user %q may not create it. Create it and GRANT CREATE, USAGE ON SCHEMA %s TO %s.", cfg.schema(), cfg.User, quote(cfg.schema()), quote(cfg.User)))
	case "false":
		problems = append(problems, usererr.New(nil, "User %q may not create tables in schema %q. GRANT CREATE, USAGE ON SCHEMA %s TO %s.", cfg.User, cfg.schema(), quote(cfg.schema()), quote(cfg.User)))
	}
	if temp == "false" {
		problems = append(problems, usererr.New(nil, "User %q may not create temporary tables, through which rows are loaded. GRANT TEMPORARY ON DATABASE %s TO %s.", cfg.User, quote(cfg.Database), quote(cfg.User)))
	}
	return usererr.Join("The destination is not ready:", problems)
}

// countKeys refuses keys that no index can have.
func countKeys(p *materialize.Proposal[resource]) error {
	n := 0
	for _, f := range p.Fields {
		if f.Key {
			n++
		}
	}
	most := maxIndexed
	if p.Resource.History != "" {
		most-- // the number of the version is part of the key, too
	}
	if n <= most || p.Resource.DeltaUpdates {
		return nil
	}
	return usererr.New(nil, "The key of collection %q has %d fields, but a primary key can have %d columns in Postgres, one of which a history takes. Use deltaUpdates, which needs no key, or give the collection a smaller key.", p.Collection, n, maxIndexed)
}

// checkTable compares a proposal with the table that exists, if any. Columns that cannot hold a field make it
// incompatible; what concerns the table as a whole is an error.
func (s sink) checkTable(env materialize.Env, cfg config, cat *catalog, name tableName, p *materialize.Proposal[resource]) error {
	if p.Resource.History != "" {
		if err := proposeHistory(p); err != nil {
			return err
		}
	}
	if err := countKeys(p); err != nil {
		return err
	}
	t, exists := cat.tables[name]
	if !exists {
		return cat.mayCreate(name, env.Task, p.Backfill)
	}
	if err := t.mayUse(name, env.Task, p.Resource); err != nil {
		return err
	}
	if err := t.notBefore(name, p.Backfill); err != nil {
		return err
	}
	empty := false
	switch {
	case t.owner == "" || t.backfill != p.Backfill && t.adopted:
		t.delta = p.Target.Delta
	case t.backfill != p.Backfill:
		empty = true
	default:
		if err := t.sameMode(name, p.Resource); err != nil {
			return err
		}
	}
	var keys, columns []string
	for i, f := range p.Fields {
		columns = append(columns, p.Constraints[i].Folded)
		if f.Key {
			keys = append(keys, p.Constraints[i].Folded)
		}
		if p.Constraints[i].Choice == materialize.Forbidden {
			continue
		}
		if _, err := cat.columnFor(name, t, f, cat.want(cfg, f), empty); err != nil {
			p.Refuse(f.Name, usererr.Message(err))
		}
	}
	var problems []error
	if len(keys) > 0 && !empty {
		problems = append(problems, t.sameKey(name, keys))
	}
	for _, c := range t.columns {
		if c.notNull && !c.hasDefault && !t.ours(c.name) && !slices.Contains(columns, c.name) && !isHistoryColumn(c.name) {
			problems = append(problems, needsValue(name, c))
		}
	}
	return errors.Join(problems...)
}
