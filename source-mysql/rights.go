package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// grantedDatabases tells of which databases the user may surely read every table, so that none needs to be tried: to open thousands
// of tables takes a server minutes.
func (d *driver) grantedDatabases(ctx context.Context, s *session) (granted func(database string) bool, err error) {
	grants, err := s.texts(ctx, "SHOW GRANTS")
	if err != nil {
		return nil, fmt.Errorf("reading the rights of user %q: %w", d.cfg.User, err)
	}
	lines := make([]string, len(grants))
	for i, row := range grants {
		lines[i] = row[0]
	}
	return databasesOf(lines), nil
}

// databasesOf reads what SHOW GRANTS says: GRANT SELECT, INSERT ON `shop`.* TO …. Names are patterns there, of which those count that
// a database has as its own name, since they win over others. Any right that is taken away in some database (REVOKE, MySQL's
// partial_revokes) leaves nothing sure.
func databasesOf(grants []string) func(database string) bool {
	everywhere, names := false, map[string]bool{}
	unescape := strings.NewReplacer("``", "`", `\_`, "_", `\%`, "%", `\\`, `\`)
	for _, grant := range grants {
		if strings.HasPrefix(grant, "REVOKE ") {
			return func(string) bool { return false }
		}
		rights, rest, _ := strings.Cut(strings.TrimPrefix(grant, "GRANT "), " ON ")
		object, _, _ := strings.Cut(rest, " TO ")
		name, all := strings.CutSuffix(object, ".*")
		if rights = ", " + rights + ","; all && (strings.Contains(rights, ", SELECT,") || strings.Contains(rights, ", ALL PRIVILEGES,")) {
			if name == "*" {
				everywhere = true
			}
			names[unescape.Replace(strings.TrimSuffix(strings.TrimPrefix(name, "`"), "`"))] = true
		}
	}
	return func(database string) bool { return everywhere || names[database] }
}

// tryToRead finds tables that the user may not read. It asks for all of them at once: a capture may have thousands.
func (d *driver) tryToRead(ctx context.Context, s *session, ids []cdc.TableID) (problems []error, err error) {
	reads := make([]string, len(ids))
	for i, id := range ids {
		reads[i] = "(SELECT 1 FROM " + quoteName(id.Schema) + "." + quoteName(id.Name) + " LIMIT 0)"
	}
	if err := s.exec(ctx, strings.Join(reads, " UNION ALL ")); err == nil {
		return nil, nil
	}
	for i, id := range ids {
		err := s.exec(ctx, reads[i])
		switch code(err) {
		case errNoTableRight, errNoColumnRight, errNoDatabaseRight:
			problems = append(problems, d.noSelect(id, err))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("trying to read table %s: %w", id, err)
		}
	}
	return problems, nil
}
