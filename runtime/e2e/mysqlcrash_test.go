package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// mysqlCrashLength is how long TestCrashMySQL goes on by default, for each of the two servers, which share it.
const mysqlCrashLength = 15 * time.Second

// TestCrashMySQL is TestCrash with a MySQL and a MariaDB as the source: while a backfill runs and writers write, connectors, the runtime,
// sessions and whole servers are killed, and in the end both destinations and the Parquet files equal the source row by row.
func TestCrashMySQL(t *testing.T) {
	t.Parallel()
	for _, flavor := range []string{mysqld.MySQL, mysqld.MariaDB} {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			binaries(t)
			crashMySQL(t, flavor, crashSeed(t), crashLength(t, mysqlCrashLength))
		})
	}
}

func crashMySQL(t *testing.T, flavor string, seed uint64, length time.Duration) {
	t.Helper()
	t.Logf("SLUICE_CRASH_SEED=%d SLUICE_CRASH_FOR=%s", seed, length)
	origin := newMySQLSide(t, server.MySQL(t, flavor, nil))
	origin.exec(t, mysqlTables()...)
	origin.exec(t, mysqlRows()...)
	w := newMySQLWorld(t, origin, server.Postgres(t))
	w.discover(t, keyed()...)
	l := w.intoThree(t)
	w.start(t)

	c := newChaos(t, w.world, seed, mysqlBlows(origin))
	writing := startWriters(t, origin, inMySQL, seed, 4*time.Millisecond)
	blows := int(blowsPerMinute * length / time.Minute)
	end, last := c.began.Add(length), c.began.Add(5*length)
	for time.Now().Before(end) || c.blows < blows && time.Now().Before(last) {
		c.wait(t)
		require.NoError(t, c.strike(t.Context()))
	}
	writing.stop(t)
	c.note("the writers stopped after %d transactions", writing.committed.Load())
	require.GreaterOrEqual(t, c.blows, blows, "blows in all the time")
	require.Positive(t, writing.committed.Load())

	w.mirror(t, keyed()...)
	w.same(t, keyedPairs()...)
	if _, err := duckdb.Find(); err == nil {
		w.sameLake(t, l)
	}
	require.NoError(t, w.sluice.Stop(), "a clean stop after all that")
	w.same(t, keyedPairs()...)
}

// mysqlBlows are those that hit every world, and those to this source.
func mysqlBlows(origin *mysqlSide) []blow {
	kill := func(condition string) func(*chaos, context.Context) (string, error) {
		return func(_ *chaos, ctx context.Context) (string, error) { return origin.killSessions(ctx, condition) }
	}
	dump := blow{"ending the replication session", kill("COMMAND LIKE 'Binlog Dump%'")}
	sessions := blow{"ending all sessions of the capture", kill("USER = '" + captureUser + "'")}
	source := blow{"SIGKILL to the source server", func(c *chaos, ctx context.Context) (string, error) { return c.server(ctx, origin.server) }}
	return append(commonBlows(launch.SourceMySQL), dump, dump, sessions, source)
}

// killSessions ends the sessions that meet a condition.
func (m *mysqlSide) killSessions(ctx context.Context, condition string) (string, error) {
	rows, err := m.query(ctx, "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND "+condition)
	if err != nil || len(rows) == 0 {
		return "", err
	}
	for _, row := range rows {
		_, _ = m.db.ExecContext(ctx, fmt.Sprintf("KILL %v", row[0])) // it may have ended by itself
	}
	return fmt.Sprintf("%d of them", len(rows)), nil
}

// mysqlTables are the tables with keys of the workload, as those of Postgres are, with collations that take different texts for one key,
// and with partitions.
func mysqlTables() []string {
	return []string{
		"CREATE TABLE numbered (id BIGINT PRIMARY KEY, n INT, amount DECIMAL(14,3), at DATETIME(6), doc JSON, note TEXT)",
		"CREATE TABLE named (name VARCHAR(100) PRIMARY KEY, n INT UNSIGNED, u BINARY(16))",
		"CREATE TABLE paired (a INT, b VARCHAR(50), v DOUBLE, tags SET('x','y','z'), PRIMARY KEY (a, b))",
		"CREATE TABLE regional (id INT, region VARCHAR(20), n INT, PRIMARY KEY (id, region)) PARTITION BY KEY (region) PARTITIONS 3",
		"CREATE TABLE wide (id INT PRIMARY KEY, n INT, big MEDIUMTEXT, doc JSON)",
	}
}

// mysqlRows are there before anything runs, so that there is a backfill to interrupt.
func mysqlRows() []string {
	digits := "(SELECT 0 AS d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)"
	return []string{
		"CREATE TABLE series (i INT PRIMARY KEY)",
		"INSERT INTO series SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d FROM " + strings.Join([]string{digits + " a", digits + " b", digits + " c", digits + " e", digits + " f"}, ", ") + " WHERE f.d < 2",
		`INSERT INTO numbered SELECT -i - 1, i, i / 8.0, '2024-01-01' + INTERVAL i SECOND, JSON_OBJECT('i', i), LEFT(SHA2(i, 256), 32) FROM series`,
		"INSERT INTO numbered (id, n) SELECT i, i FROM series WHERE i <= 1500 AND i % 2 = 0",
		"INSERT INTO named SELECT CONCAT('old ', i), i, LEFT(UNHEX(SHA2(i, 256)), 16) FROM series WHERE i < 3000",
		"INSERT INTO paired SELECT i, 'old', i / 7.0, 'x' FROM series WHERE i < 3000",
		"INSERT INTO regional SELECT i, ELT(1 + i % 3, 'north', 'south', 'elsewhere'), i FROM series WHERE i < 3000",
		"INSERT INTO wide SELECT i, i, REPEAT(SHA2(i, 256), 50), JSON_OBJECT('x', REPEAT(SHA2(i, 256), 45)) FROM series WHERE i < 300",
	}
}

// inMySQL is the workload in the words of MySQL.
var inMySQL = language{one: (*generator).onAnyMySQL, bulk: (*generator).onManyMySQL, fight: (*generator).onSharedMySQL}

func (g *generator) onSharedMySQL() statement {
	return statement{"UPDATE numbered SET n = n + 1, note = ? WHERE id = 0", []any{fmt.Sprint(g.worker, " ", g.count)}}
}

func (g *generator) onManyMySQL() statement {
	from := 1_000_000*(g.worker+1) + 1000*g.random.IntN(3)
	if g.random.IntN(3) == 0 {
		return statement{"DELETE FROM numbered WHERE id BETWEEN ? AND ?", []any{from, from + 1500}}
	}
	return statement{"INSERT INTO numbered SELECT ? + i, i, 0.5, NOW(6), '{}', 'bulk' FROM series WHERE i <= 1500 ON DUPLICATE KEY UPDATE n = numbered.n + 1", []any{from}}
}

func (g *generator) onAnyMySQL() []statement {
	switch g.random.IntN(6) {
	case 0, 1:
		return g.onNumberedMySQL()
	case 2:
		return []statement{g.onNamedMySQL()}
	case 3:
		return []statement{g.onPairedMySQL()}
	case 4:
		return []statement{g.onRegionalMySQL()}
	}
	return []statement{g.onWideMySQL()}
}

func (g *generator) onNumberedMySQL() []statement {
	id := 1 + g.id(1500)
	switch g.random.IntN(8) {
	case 0:
		return []statement{{"DELETE FROM numbered WHERE id = ?", []any{id}}}
	case 1: // another key for the row, unless it is taken
		return []statement{{"UPDATE IGNORE numbered SET id = ? WHERE id = ?", []any{1 + g.id(1500), id}}}
	case 2: // gone and back in one transaction
		return []statement{{"DELETE FROM numbered WHERE id = ?", []any{id}}, {"INSERT INTO numbered (id, note) VALUES (?, 'back')", []any{id}}}
	case 3: // what is rolled back to a savepoint never happened
		return []statement{
			{"SAVEPOINT here", nil},
			{"UPDATE numbered SET n = -1, note = 'never' WHERE id = ?", []any{id}},
			{"ROLLBACK TO SAVEPOINT here", nil},
			{"UPDATE numbered SET amount = amount + 0.001 WHERE id = ?", []any{id}},
		}
	case 4:
		return []statement{{"UPDATE numbered SET doc = JSON_OBJECT('count', ?, 'text', ?), at = at + INTERVAL 1 MICROSECOND WHERE id = ?", []any{g.count, g.text(), id}}}
	}
	n := g.random.IntN(1_000_000)
	return []statement{{
		`INSERT INTO numbered VALUES (?, ?, ? / 16.0, '1970-01-01' + INTERVAL ? MICROSECOND, '{"new": [1, null, "x"]}', ?) ON DUPLICATE KEY UPDATE n = VALUES(n), note = VALUES(note)`,
		[]any{id, n, n, n, g.text()},
	}}
}

// onNamedMySQL writes names that the server takes for equal to others: it ignores case, and some characters.
func (g *generator) onNamedMySQL() statement {
	name := fmt.Sprintf("%s %d", g.text(), g.id(400))
	switch g.random.IntN(6) {
	case 0:
		return statement{"DELETE FROM named WHERE name = ?", []any{name}}
	case 1:
		return statement{"UPDATE IGNORE named SET name = ? WHERE name = ?", []any{fmt.Sprintf("%s %d", g.text(), g.id(400)), name}}
	case 2: // the same to the server, another key to those who see bytes
		return statement{"UPDATE named SET name = UPPER(name), n = n + 1 WHERE name = ?", []any{name}}
	}
	return statement{"INSERT INTO named VALUES (?, ?, LEFT(UNHEX(SHA2(?, 256)), 16)) ON DUPLICATE KEY UPDATE n = VALUES(n), u = NULL", []any{name, g.count, name}}
}

func (g *generator) onPairedMySQL() statement {
	a, b := g.id(300), g.text()
	switch g.random.IntN(5) {
	case 0:
		return statement{"DELETE FROM paired WHERE a = ? AND b = ?", []any{a, b}}
	case 1:
		return statement{"UPDATE IGNORE paired SET a = a + ? WHERE a = ?", []any{1000 * (1 + g.random.IntN(5)), a}}
	}
	return statement{"INSERT INTO paired VALUES (?, ?, ?, ?) ON DUPLICATE KEY UPDATE v = v + 0.1, tags = VALUES(tags)", []any{a, b, g.random.Float64(), []string{"", "x", "z,y"}[g.random.IntN(3)]}}
}

func (g *generator) onRegionalMySQL() statement {
	id, region := g.id(3000), []string{"north", "south", "east", "west"}[g.random.IntN(4)]
	switch g.random.IntN(5) {
	case 0:
		return statement{"DELETE FROM regional WHERE id = ?", []any{id}}
	case 1: // to another partition
		return statement{"UPDATE IGNORE regional SET region = ? WHERE id = ? LIMIT 1", []any{region, id}}
	}
	return statement{"INSERT INTO regional VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE n = n + 1", []any{id, region, g.count}}
}

func (g *generator) onWideMySQL() statement {
	id := g.id(300)
	switch g.random.IntN(8) {
	case 0:
		return statement{"DELETE FROM wide WHERE id = ?", []any{id}}
	case 1:
		return statement{"UPDATE wide SET big = ? WHERE id = ?", []any{strings.Repeat(g.text()+"x", 3000+g.random.IntN(3000)), id}}
	case 2:
		return statement{"UPDATE wide SET big = NULL WHERE id = ?", []any{id}}
	case 3:
		n := 1000 + g.random.IntN(1000)
		return statement{"INSERT INTO wide VALUES (?, ?, REPEAT('wide ', ?), '{}') ON DUPLICATE KEY UPDATE doc = VALUES(doc)", []any{id, n, n}}
	}
	return statement{"UPDATE wide SET n = n + 1 WHERE id = ?", []any{id}}
}

// The workload in MySQL's words runs without an error on both servers, and touches all tables.
func TestWorkloadMySQL(t *testing.T) {
	t.Parallel()
	for _, flavor := range []string{mysqld.MySQL, mysqld.MariaDB} {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			origin := newMySQLSide(t, server.SharedMySQL(t, flavor))
			origin.exec(t, append(mysqlTables(), mysqlRows()...)...)
			w := startWriters(t, origin, inMySQL, 7, time.Millisecond)
			eventually(t, arrival, func() bool { return w.committed.Load() > 500 }, func() string { return fmt.Sprint(w.committed.Load(), " transactions") })
			w.stop(t)
			for table, changed := range map[string]string{
				"numbered": "note IN ('back', 'bulk')", "named": "u IS NULL", "paired": "tags = 'y,z'", "regional": "region IN ('east', 'west')", "wide": "big IS NULL",
			} {
				var n sql.NullInt64
				require.NoError(t, origin.db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+table+" WHERE "+changed).Scan(&n))
				require.Positive(t, n.Int64, table)
			}
		})
	}
}
