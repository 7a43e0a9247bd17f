package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// environment is the Python of an environment that scripts/services makes.
func environment(t *testing.T, name string) string {
	t.Helper()
	for _, root := range []string{"../..", os.Getenv("SLUICE_CACHE_ROOT")} {
		path, err := filepath.Abs(filepath.Join(root, ".cache", name, "bin", "python"))
		require.NoError(t, err)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	need.Missing(t, "%s is not on this machine; scripts/services install fetches it", name)
	return ""
}

// airbyteJob is what PyAirbyte is asked to sync.
type airbyteJob struct {
	Name     string         `json:"name"`
	Program  string         `json:"program"`
	Config   map[string]any `json:"config"`
	Database string         `json:"database"`
}

// newAirbyteJob makes an executable of a source that needs no arguments before Airbyte's own.
func newAirbyteJob(t *testing.T, bins launch.Binaries, source string, config map[string]any) *airbyteJob {
	t.Helper()
	dir := t.TempDir()
	j := &airbyteJob{Name: source, Program: filepath.Join(dir, source), Config: config, Database: filepath.Join(dir, "cache.duckdb")}
	script := "#!/bin/sh\nexec " + bins.Path(source) + " airbyte --state-type stream \"$@\"\n"
	require.NoError(t, os.WriteFile(j.Program, []byte(script), 0o755)) //nolint:gosec // it is a program
	return j
}

// lines are the rows of a query, columns separated by "|".
func (j *airbyteJob) lines(t *testing.T, sql string) string {
	t.Helper()
	out, err := duckdb.Run(t.Context(), j.Database, "list", ".headers off\n.nullvalue ''\n"+sql)
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// syncAll has PyAirbyte sync all sources, and returns how many records each gave.
func syncAll(t *testing.T, python string, jobs ...*airbyteJob) map[string]int {
	t.Helper()
	text, err := json.Marshal(jobs)
	require.NoError(t, err)
	script, err := filepath.Abs("testdata/pyairbyte.py")
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), python, "-W", "ignore", script, string(text))
	cmd.Dir = t.TempDir()
	// Neither a registry of connectors nor telemetry: nothing leaves this machine.
	cmd.Env = append(os.Environ(), "AIRBYTE_OFFLINE_MODE=1", "DO_NOT_TRACK=1", "HOME="+cmd.Dir, "AIRBYTE_PROJECT_DIR="+cmd.Dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	_, last, found := strings.Cut(string(out), "DONE ")
	require.True(t, found, "%s", out)
	var done map[string]struct{ Records int }
	require.NoError(t, json.Unmarshal([]byte(strings.SplitN(last, "\n", 2)[0]), &done))
	records := map[string]int{}
	for name, d := range done {
		records[name] = d.Records
	}
	return records
}

// bookkeeping are the columns that PyAirbyte, and change captures of Airbyte, add to a stream's own.
const bookkeeping = `'^(_ab_cdc_|_airbyte_)'`

// holds fails unless a table of the cache has these columns beside those of bookkeeping, and these rows: every column of each, in the form
// that values gives, as the source prints them. Rows that are marked as deleted are left out.
func (j *airbyteJob) holds(t *testing.T, table string, columns []string, values, rows string) {
	t.Helper()
	slices.Sort(columns)
	require.Equal(t, strings.Join(columns, "\n"), j.lines(t, "SELECT column_name FROM information_schema.columns WHERE table_name = '"+table+"' AND NOT regexp_matches(column_name, "+bookkeeping+") ORDER BY 1"))
	require.NotEmpty(t, rows)
	require.Equal(t, rows, j.lines(t, "SELECT "+values+" FROM "+table+" WHERE _ab_cdc_deleted_at IS NULL ORDER BY ALL"))
}

// listed are the rows of a query, columns separated by "|".
func listed(t *testing.T, m *mysqlSide, sql string) string {
	t.Helper()
	rows, err := m.query(t.Context(), sql)
	require.NoError(t, err)
	var lines []string
	for _, row := range rows {
		values := make([]string, len(row))
		for i, v := range row {
			values[i] = fmt.Sprint(v)
		}
		lines = append(lines, strings.Join(values, "|"))
	}
	return strings.Join(lines, "\n")
}

// TestPyAirbyte has PyAirbyte run all three sources as sources of its own, unchanged, twice, with changes and deletes between.
// After each sync its tables hold what the sources hold, every row and column, deletes are marked, and the second has read only what changed.
func TestPyAirbyte(t *testing.T) {
	t.Parallel()
	python := environment(t, "pyairbyte")
	duckdb.Need(t)
	bins := binaries(t)

	postgres := newSide(t, server.SharedPostgres(t))
	postgres.exec(t, `CREATE TABLE items (id bigint PRIMARY KEY, name text, price numeric(10, 2), at timestamptz, big text, doc jsonb)`,
		`ALTER TABLE items ALTER big SET STORAGE EXTERNAL`,
		`INSERT INTO items SELECT n, 'item ' || n, n * 1.5, '2024-05-06 07:08:09Z'::timestamptz + n * interval '1 hour', repeat('x', 5000) || n, jsonb_build_object('a', n) FROM generate_series(1, 500) n`)
	postgres.exec(t, "CREATE TABLE quiet (id int PRIMARY KEY)", "INSERT INTO quiet VALUES (1), (2)")
	pg := newAirbyteJob(t, bins, launch.SourcePostgres, postgres.login())

	my := newMySQLSide(t, server.SharedMySQL(t, mysqld.MariaDB))
	my.exec(t, "CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(50), age INT, born DATE, score DECIMAL(8, 3))",
		"INSERT INTO people SELECT seq, CONCAT('person ', seq), seq % 90, DATE_ADD('1970-01-01', INTERVAL seq DAY), seq / 8 FROM seq_1_to_300")
	mysqlJob := newAirbyteJob(t, bins, launch.SourceMySQL, map[string]any{
		"address": my.server.Address(), "user": captureUser, "password": mysqld.Password, "databases": []string{my.database},
		"advanced": map[string]any{"minRetention": "0s"},
	})

	cluster := server.Kafka(t, kafkad.Options{Settings: map[string]string{"auto.create.topics.enable": "true", "num.partitions": "2"}})
	client := newKcat(t, cluster.Addresses())
	const topic = "airbyte"
	produce := func(from, to int) {
		var lines []string
		for n := from; n < to; n++ {
			lines = append(lines, fmt.Sprintf(`k%d:{"n":%d,"text":"record %d"}`, n, n, n))
		}
		require.NoError(t, client.produce(t.Context(), topic, lines...))
	}
	produce(0, 200)
	kafka := newAirbyteJob(t, bins, launch.SourceKafka, map[string]any{"bootstrapServers": cluster.Addresses()})

	same := func() {
		t.Helper()
		const items = "SELECT id, name, price, extract(epoch FROM at)::bigint, big, (doc->>'a')::int FROM items ORDER BY id"
		pg.holds(t, "items", []string{"id", "name", "price", "at", "big", "doc"}, "id, name, price, epoch(\"at\")::bigint, big, (doc->>'a')::int", postgres.exec(t, items))
		pg.holds(t, "quiet", []string{"id"}, "id", postgres.exec(t, "SELECT id FROM quiet ORDER BY id"))
		mysqlJob.holds(t, "people", []string{"id", "name", "age", "born", "score"}, "id, name, age, born, score::decimal(8, 3)", listed(t, my, "SELECT id, name, age, born, score FROM people ORDER BY id"))
		produced := map[string]string{}                 // by key
		for _, line := range client.consume(t, topic) { // partition|offset|key|value
			var value struct{ N, Text any }
			parts := strings.SplitN(line, "|", 4)
			require.NoError(t, json.Unmarshal([]byte(parts[3]), &value))
			produced[parts[2]] = fmt.Sprintf("%s|%v|%v", parts[2], value.N, value.Text)
		}
		var rows []string
		for _, key := range slices.Sorted(maps.Keys(produced)) {
			rows = append(rows, produced[key])
		}
		kafka.holds(t, topic, []string{"_key", "n", "text"}, "_key, n, text", strings.Join(rows, "\n"))
	}
	require.Equal(t, map[string]int{launch.SourcePostgres: 502, launch.SourceMySQL: 300, launch.SourceKafka: 200}, syncAll(t, python, pg, mysqlJob, kafka))
	same()
	const slot = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()"
	held := postgres.exec(t, slot)
	require.NotEmpty(t, held)

	postgres.exec(t, "UPDATE items SET name = 'changed' WHERE id <= 10", "DELETE FROM items WHERE id > 490", "INSERT INTO items VALUES (1001, 'new', 0.25, NULL, NULL, NULL)")
	changed := postgres.exec(t, "SELECT pg_current_wal_insert_lsn() - 1") // within the last change
	my.exec(t, "UPDATE people SET age = 99 WHERE id <= 5", "DELETE FROM people WHERE id = 300")
	produce(200, 210)
	records := syncAll(t, python, pg, mysqlJob, kafka)
	require.Equal(t, 21, records[launch.SourcePostgres], "ten updates, ten deletes, one insert")
	require.Equal(t, 6, records[launch.SourceMySQL])
	require.Equal(t, 10, records[launch.SourceKafka])
	same()
	require.Equal(t, "10|491|500", pg.lines(t, "SELECT count(*), min(id), max(id) FROM items WHERE _ab_cdc_deleted_at IS NOT NULL"))
	require.Equal(t, "0", pg.lines(t, "SELECT count(*) FROM items WHERE _ab_cdc_updated_at IS NULL OR _ab_cdc_lsn IS NULL OR _ab_cdc_cursor IS NULL"))
	require.Equal(t, "300", mysqlJob.lines(t, "SELECT id FROM people WHERE _ab_cdc_deleted_at IS NOT NULL"))

	// The slot moves to what PyAirbyte is known to have stored: in the sync after it, and not before. One that stood would fill the server's disk.
	before := func(x, y string) {
		t.Helper()
		require.Equal(t, "t", postgres.exec(t, "SELECT '"+x+"'::pg_lsn < '"+y+"'::pg_lsn"), "%s is before %s", x, y)
	}
	second := postgres.exec(t, slot)
	require.Equal(t, "t", postgres.exec(t, "SELECT '"+second+"'::pg_lsn >= '"+held+"'::pg_lsn"), "the slot went back from %s to %s", held, second)
	before(second, changed)
	require.Equal(t, map[string]int{launch.SourcePostgres: 0}, syncAll(t, python, pg))
	third := postgres.exec(t, slot)
	before(held, third)
	before(changed, third)
	same()
	require.Empty(t, postgres.exec(t, "SELECT 1 FROM pg_replication_slots WHERE database = current_database() AND active"))
}
