package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// A connection pooler answers like a server, and gives the same few sessions of the server to many clients. It carries no
// replication stream, forgets settings, or mixes up who is in whose session. Some are known by their names, others by what
// they say, and the rest by what they do: sessions that are not what was asked for, or are not the same from one statement to
// the next.

// poolerAdvice recognises hosted connection poolers by their addresses, and says what to use instead; empty if it is none.
func poolerAdvice(addr endpoint.Address) string {
	host := strings.ToLower(addr.Host)
	switch {
	case strings.HasSuffix(host, ".pooler.supabase.com"), strings.HasSuffix(host, ".supabase.co") && addr.Port == 6543:
		return "Use the direct connection from the database's settings, db.<project>.supabase.co:5432."
	case strings.HasSuffix(host, ".neon.tech") && strings.Contains(strings.SplitN(host, ".", 2)[0], "-pooler"):
		return `Use the host name without "-pooler".`
	case strings.Contains(host, ".proxy-") && strings.HasSuffix(host, ".rds.amazonaws.com"):
		return "Use the endpoint of the instance or cluster instead of the RDS proxy."
	case strings.HasSuffix(host, ".postgres.database.azure.com") && addr.Port == 6432:
		return "Port 6432 is the built-in PgBouncer: use port 5432."
	case strings.HasSuffix(host, ".db.ondigitalocean.com") && addr.Port == 25061:
		return "Port 25061 is that of connection pools: use the port of the database's own connection details, mostly 25060."
	}
	return ""
}

// poolerName recognises a pooler by its refusal of a connection; empty if the server said it.
func poolerName(refusal string) string {
	for _, sign := range []struct{ text, name string }{
		{"unsupported startup parameter", "PgBouncer"},
		{"pgbouncer", "PgBouncer"},
		{"no such database: ", "PgBouncer"},
		{"server login has been failing", "PgBouncer"},
		{"odyssey: ", "Odyssey"},
		{"no pool configured", "PgCat"},
		{"pgcat", "PgCat"},
		{"rds proxy", "the RDS proxy"},
		{"tenant or user not found", "Supavisor"},
		{"supavisor", "Supavisor"},
	} {
		if strings.Contains(strings.ToLower(refusal), sign.text) {
			return sign.name
		}
	}
	return ""
}

// isPooler says that the address leads to a pooler. The sign is what gave it away.
func (c config) isPooler(cause error, name, sign string) error {
	return usererr.New(cause, "What answers at %s is a connection pooler (%s): %s. A replication stream cannot go through one. Use the address and port of the Postgres server itself.", c.Address, name, sign)
}

// verify makes sure that a new session has the settings that it was opened with. A pooler may ignore them, and every value
// would then be printed as the last user of the session wanted it. It also notes whether somebody else speaks for the server:
// then the number of the process that was told at the start is not that of the session.
func (d *dialer) verify(ctx context.Context, conn *pgconn.PgConn, settings map[string]string) error {
	if version := conn.ParameterStatus("server_version"); strings.Contains(version, "bouncer") {
		return d.cfg.isPooler(nil, "PgBouncer", "its version is "+version)
	}
	names := slices.Sorted(maps.Keys(settings))
	var sql strings.Builder
	sql.WriteString("SELECT pg_catalog.pg_backend_pid()")
	for _, name := range names {
		fmt.Fprintf(&sql, ", pg_catalog.current_setting(%s)", quoteLiteral(name))
	}
	results, err := conn.Exec(ctx, sql.String()).ReadAll()
	if err != nil {
		return d.cfg.connectAdvice(err)
	}
	row := results[0].Rows[0]
	if string(row[0]) != strconv.Itoa(int(conn.PID())) {
		d.proxied.Store(true)
	}
	for i, name := range names {
		if is := string(row[1+i]); is != settings[name] {
			return d.cfg.isPooler(nil, "one that ignores settings", fmt.Sprintf("the session's %s is %q although %q was asked for", name, is, settings[name]))
		}
	}
	return nil
}

// verifySharing makes sure that sessions are not handed around between clients, where somebody else speaks for the server:
// a mark that one session sets must be seen by it and by no other. (Proxies that only forward are no harm.)
func (d *dialer) verifySharing(ctx context.Context, settings map[string]string) error {
	if !d.proxied.Load() {
		return nil
	}
	const question = "SELECT pg_catalog.pg_backend_pid(), coalesce(pg_catalog.current_setting('sluice.mark', true), '')"
	mark := rand.Text()
	var sessions [2]*pgx.Conn
	for i := range sessions {
		conn, err := d.session(ctx, settings)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		sessions[i] = conn
	}
	var before, after, other int
	var seen, own string
	if err := sessions[0].QueryRow(ctx, "SELECT pg_catalog.pg_backend_pid(), pg_catalog.set_config('sluice.mark', $1, false)", mark).Scan(&before, &own); err != nil {
		return fmt.Errorf("looking for a connection pooler: %w", err)
	}
	if err := sessions[1].QueryRow(ctx, question).Scan(&other, &seen); err != nil {
		return fmt.Errorf("looking for a connection pooler: %w", err)
	}
	if err := sessions[0].QueryRow(ctx, question).Scan(&after, &own); err != nil {
		return fmt.Errorf("looking for a connection pooler: %w", err)
	}
	if seen == mark || own != mark || before != after || before == other {
		return d.cfg.isPooler(nil, "one that hands sessions around", "two connections were served by one session of the server")
	}
	return nil
}

// checkProxy is whether a replication connection gets through, where somebody else speaks for the server. Otherwise that shows
// when the capture starts.
func (d *driver) checkProxy(ctx context.Context, _ *pgx.Conn) ([]error, error) {
	if !d.dialer.proxied.Load() {
		return nil, nil
	}
	conn, _, err := d.dialer.replication(ctx)
	if err != nil {
		return []error{err}, nil //nolint:nilerr // it is what was looked for
	}
	_ = conn.Close(ctx) // it has shown what it had to
	return nil, nil
}
