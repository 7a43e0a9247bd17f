package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Check implements cdc.Driver.
func (d *driver) Check(ctx context.Context, tables []cdc.TableID) []error {
	var problems []error
	err := d.conns.with(ctx, func(s *session) error {
		problems = nil
		for _, check := range []func(context.Context, *session) ([]error, error){
			d.checkSettings,
			d.checkRights,
			func(ctx context.Context, s *session) ([]error, error) { return d.checkTables(ctx, s, tables) },
		} {
			found, err := check(ctx, s)
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

// checkSettings is about what only an administrator can change.
func (d *driver) checkSettings(ctx context.Context, s *session) ([]error, error) {
	v, err := s.variables(ctx, "log_bin", "binlog_format", "binlog_row_image", "binlog_row_metadata", "gtid_mode", "server_id",
		"binlog_expire_logs_seconds", "expire_logs_days", "log_slave_updates", "log_replica_updates")
	if err != nil {
		return nil, err
	}
	if v["log_bin"] != "ON" {
		return []error{errNoLog}, nil
	}
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, usererr.New(nil, format, args...)) }
	if f := v["binlog_format"]; f != "" && f != "ROW" {
		problem("The binary log has statements, not rows: binlog_format is %s. Have an administrator run SET GLOBAL binlog_format = ROW; put it into the server's configuration, and have all sessions connect anew.", f)
	}
	if f := v["binlog_row_image"]; f != "" && f != "FULL" {
		d.log.WithField("binlog_row_image", f).Info("the binary log has rows without some of their columns, so changes of keys and some new rows are read from their tables, too; SET GLOBAL binlog_row_image = FULL avoids that")
	}
	if f := v["binlog_row_metadata"]; f != "FULL" {
		d.log.WithField("binlog_row_metadata", f).Info("the binary log does not name the columns of its rows, so a table that is altered twice while the capture is stopped has to be backfilled; " +
			"SET GLOBAL binlog_row_metadata = FULL avoids that")
	}
	if v["server_id"] == "0" {
		problem("The server has no number, so it sends its binary log to nobody: server_id is 0. Have an administrator run SET GLOBAL server_id = 1; and put it into the server's configuration.")
	}
	if mode := v["gtid_mode"]; !d.server.mariadb && mode != "ON" {
		if d.cfg.Advanced.Position == positionGTID {
			problems = append(problems, errGTIDMode(mode))
		} else {
			d.log.Warnf("gtid_mode is %q, so the position of this capture is a place in the log of this server: it cannot go on at another one, such as a replica that is promoted", mode)
		}
	}
	replica, err := d.isReplica(ctx, s)
	if err != nil {
		return nil, err
	}
	if replica && v["log_slave_updates"] == "OFF" && v["log_replica_updates"] != "ON" {
		problems = append(problems, errNoUpdates)
	}
	return append(problems, d.retention(v)...), nil
}

// isReplica reports whether the server applies another one's changes.
func (d *driver) isReplica(ctx context.Context, s *session) (bool, error) {
	if d.server.mariadb {
		rows, err := s.texts(ctx, "SHOW ALL SLAVES STATUS")
		if code(err) != errNoRight {
			return len(rows) > 0, err
		}
		row, err := s.row(ctx, "SHOW GLOBAL STATUS LIKE 'Slaves_running'") // which anybody may ask, but it passes over stopped ones
		return err == nil && len(row) == 2 && row[1] != "0", err
	}
	rows, err := s.texts(ctx, map[bool]string{true: "SHOW REPLICA STATUS", false: "SHOW SLAVE STATUS"}[d.server.atLeast(8, 1)])
	if code(err) == errNoRight {
		return false, nil // the rights are checked elsewhere
	}
	return len(rows) > 0, err
}

// keptFor is how long the server keeps its log, by its settings; zero is for ever.
func keptFor(v map[string]string) time.Duration {
	seconds, err := strconv.ParseFloat(v["binlog_expire_logs_seconds"], 64)
	if err != nil {
		seconds = 0
	}
	days, err := strconv.ParseFloat(v["expire_logs_days"], 64)
	if err != nil {
		days = 0
	}
	return time.Duration(max(seconds, days*86400) * float64(time.Second))
}

// retention is about how long the server keeps its log.
func (d *driver) retention(v map[string]string) []error {
	least, kept := duration(d.cfg.Advanced.MinRetention, defaultRetention), keptFor(v)
	if kept == 0 || kept >= least {
		return nil
	}
	return []error{usererr.New(nil, "The server keeps its binary log for %s only, so a pause of the capture soon costs a backfill of everything. Have an administrator run SET GLOBAL binlog_expire_logs_seconds = %.0f; "+
		"and put it into the server's configuration; or set advanced.minRetention to what you can live with.", kept, (7 * 24 * time.Hour).Seconds())}
}

// checkRights tries what the capture will do.
func (d *driver) checkRights(ctx context.Context, s *session) ([]error, error) {
	var problems []error
	if _, err := d.end(ctx, s); err != nil {
		problems = append(problems, err)
	}
	if files, err := d.wantsFile(ctx, s); err != nil {
		return nil, err
	} else if files && !d.server.mariadb {
		if _, err := s.texts(ctx, "SELECT 1 FROM information_schema.INNODB_TRX LIMIT 1"); code(err) == errNoRight {
			problems = append(problems, d.errNoProcess(err))
		}
	}
	grants, err := s.texts(ctx, "SHOW GRANTS")
	if err != nil {
		return nil, fmt.Errorf("reading the rights of user %q: %w", d.cfg.User, err)
	}
	for _, row := range grants {
		grant := strings.ToUpper(row[0])
		if strings.Contains(grant, "REPLICATION SLAVE") || strings.HasPrefix(grant, "GRANT ALL PRIVILEGES ON *.*") || strings.HasPrefix(grant, "GRANT `") || strings.Contains(grant, "REPLICATION REPLICA") {
			return problems, nil // the right, or a role that may have it
		}
	}
	return append(problems, usererr.New(nil, "User %q may not read the server's binary log. Have an administrator run: GRANT REPLICATION SLAVE ON *.* TO %s;", d.cfg.User, d.grantee())), nil
}

// checkTables is about the tables that are to be captured.
func (d *driver) checkTables(ctx context.Context, s *session, ids []cdc.TableID) ([]error, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	found, err := d.readTables(ctx, s, ids)
	if err != nil {
		return nil, err
	}
	byID := map[cdc.TableID]*table{}
	for _, t := range found {
		byID[t.id] = t
	}
	var problems []error
	var readable []cdc.TableID
	for _, id := range ids {
		t := byID[id]
		switch {
		case t == nil:
			problems = append(problems, usererr.New(errNoTable, "The table %s does not exist, or user %q may not see it. Check the names; if it is there, have an administrator run: GRANT SELECT ON %s.%s TO %s;",
				id, d.cfg.User, quoteName(id.Schema), quoteName(id.Name), d.grantee()))
		case t.problem != nil:
			problems = append(problems, t.problem)
		default:
			readable = append(readable, id)
		}
	}
	granted, err := d.grantedDatabases(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := d.unlogged(ctx, s, readable); err != nil {
		problems = append(problems, err)
	}
	readable = slices.DeleteFunc(readable, func(id cdc.TableID) bool { return granted(id.Schema) })
	for part := range slices.Chunk(readable, 50) {
		unreadable, err := d.tryToRead(ctx, s, part)
		if err != nil {
			return nil, err
		}
		problems = append(problems, unreadable...)
	}
	return problems, d.warnOfCascades(ctx, s, ids)
}

// unlogged refuses tables of databases that the server's settings leave out of its log: nothing of them would arrive, without a word.
func (d *driver) unlogged(ctx context.Context, s *session, tables []cdc.TableID) error {
	row, err := s.row(ctx, d.server.statusQuery())
	if err != nil || len(row) < 4 {
		return nil //nolint:nilerr // the rights are checked elsewhere
	}
	only, without := strings.Split(row[2], ","), strings.Split(row[3], ",")
	var schemas []string
	for _, id := range tables {
		if slices.Contains(without, id.Schema) || row[2] != "" && !slices.Contains(only, id.Schema) {
			schemas = append(schemas, id.Schema)
		}
	}
	if len(schemas) == 0 {
		return nil
	}
	slices.Sort(schemas)
	return usererr.New(nil, "The server leaves changes of some databases out of its binary log (%s): it has binlog_do_db or binlog_ignore_db set. "+
		"Have an administrator take these out of the server's configuration, and restart it; then backfill the tables.", strings.Join(slices.Compact(schemas), ", "))
}

// warnOfCascades says which changes of the tables the log does not have.
func (d *driver) warnOfCascades(ctx context.Context, s *session, ids []cdc.TableID) error {
	cascades, err := d.cascades(ctx, s, ids)
	for _, c := range cascades {
		d.log.Warn(c)
	}
	return err
}

// cascades finds foreign keys whose changes the log does not have: the engine makes them by itself (hard case 42). MySQL logs
// them from 9.6 on.
func (d *driver) cascades(ctx context.Context, s *session, ids []cdc.TableID) ([]string, error) {
	if !d.server.mariadb && d.server.atLeast(9, 6) {
		return nil, nil
	}
	schemas := map[string]bool{}
	wanted := map[cdc.TableID]bool{}
	for _, id := range ids {
		schemas[id.Schema], wanted[id] = true, true
	}
	var out []string
	for _, schema := range slices.Sorted(maps.Keys(schemas)) {
		rows, err := s.texts(ctx, "SELECT CONSTRAINT_NAME, REFERENCED_TABLE_NAME, DELETE_RULE, UPDATE_RULE, TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = "+
			quoteText(schema)+" AND (DELETE_RULE IN ('CASCADE', 'SET NULL') OR UPDATE_RULE IN ('CASCADE', 'SET NULL')) ORDER BY 5, 1")
		if err != nil {
			return nil, fmt.Errorf("reading the foreign keys of database %s: %w", schema, err)
		}
		for _, row := range rows {
			id := cdc.TableID{Schema: schema, Name: row[4]}
			if wanted[id] {
				out = append(out, fmt.Sprintf("the foreign key %s changes rows of %s when rows of %s change (ON DELETE %s, ON UPDATE %s), and this server does not log these changes: the collection will miss them", row[0], id, row[1], row[2], row[3]))
			}
		}
	}
	return out, nil
}
