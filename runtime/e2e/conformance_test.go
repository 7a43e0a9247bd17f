package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/conformance"
	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// conforms runs the conformance suite against a connector, which must keep every rule; those that are skipped are given. What a
// destination holds is printed by the command verify.
func conforms(t *testing.T, program, task, verify string, config map[string]any, skipped ...string) {
	t.Helper()
	text, err := json.Marshal(config)
	require.NoError(t, err)
	began := time.Now()
	report, err := conformance.Run(t.Context(), conformance.Options{
		Connector: host.Connector{Task: task, Endpoint: host.Endpoint{Command: []string{program}, Config: text}, Answer: 2 * time.Minute},
		Verify:    verify, Quiet: 5 * time.Second,
	})
	require.NoError(t, err)
	var lines strings.Builder
	require.NoError(t, report.Write(&lines, "text"))
	t.Logf("%s\n%s", time.Since(began).Round(time.Second), lines.String())
	for _, f := range report.Findings {
		want := conformance.Pass
		if slices.Contains(skipped, f.Rule) {
			want = conformance.Skip
		}
		require.Equal(t, want, f.Outcome, "%s: %s", f.Rule, f.Detail)
	}
}

// conformancePassword is a word that stands nowhere by chance.
const conformancePassword = "Tr0ub4dor&3"

// conformanceLogin is the configuration of a user of its own with that password.
func conformanceLogin(t *testing.T, s side) map[string]any {
	t.Helper()
	s.exec(t, "CREATE ROLE "+s.database+" SUPERUSER LOGIN PASSWORD '"+conformancePassword+"'")
	t.Cleanup(func() { s.exec(t, "REASSIGN OWNED BY "+s.database+" TO CURRENT_USER", "DROP ROLE "+s.database) })
	config := s.login()
	config["user"], config["password"] = s.database, conformancePassword
	return config
}

// TestConformance: every connector of ours keeps every rule, against a real server.
func TestConformance(t *testing.T) {
	t.Parallel()
	bins := binaries(t)
	fill := []string{
		`CREATE TABLE items (id int PRIMARY KEY, name varchar(20), price numeric(10,2))`,
		`CREATE TABLE orders (id int, region varchar(10), PRIMARY KEY (id, region))`,
	}
	for i := range 40 {
		fill = append(fill, fmt.Sprintf(`INSERT INTO items VALUES (%d, 'item', 1.50)`, i), fmt.Sprintf(`INSERT INTO orders VALUES (%d, 'north')`, i))
	}
	small := map[string]any{"backfillChunkRows": 20, "backfillWorkers": 1}
	t.Run("source_postgres", func(t *testing.T) {
		t.Parallel()
		s := newSide(t, server.SharedPostgres(t))
		s.exec(t, fill...)
		config := conformanceLogin(t, s)
		config["advanced"] = small
		conforms(t, bins.Path(launch.SourcePostgres), "conformance/"+s.database, "", config)
	})
	t.Run("source_mysql", func(t *testing.T) {
		t.Parallel()
		m := newMySQLSide(t, server.SharedMySQL(t, mysqld.MariaDB))
		m.exec(t, append(fill,
			"CREATE OR REPLACE USER conformance@'%' IDENTIFIED BY '"+conformancePassword+"'", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO conformance@'%'",
			"GRANT SELECT ON "+m.database+".* TO conformance@'%'")...)
		conforms(t, bins.Path(launch.SourceMySQL), "conformance/"+m.database, "", map[string]any{
			"address": m.server.Address(), "databases": []string{m.database}, "user": "conformance", "password": conformancePassword,
			"advanced": map[string]any{"minRetention": "0s", "backfillChunkRows": 20, "backfillWorkers": 1},
		})
	})
	t.Run("source_kafka", func(t *testing.T) {
		t.Parallel()
		cluster := server.Kafka(t, kafkad.Options{Settings: map[string]string{"auto.create.topics.enable": "true", "num.partitions": "2"}})
		client := newKcat(t, cluster.Addresses())
		for batch := range 4 {
			var lines []string
			for i := range 10 {
				lines = append(lines, fmt.Sprintf(`k%d:{"n":%d}`, batch*10+i, i))
			}
			require.NoError(t, client.produce(t.Context(), "shoes", lines...))
		}
		conforms(t, bins.Path(launch.SourceKafka), "conformance/kafka", "",
			map[string]any{"bootstrapServers": cluster.Addresses(), "topics": map[string]any{"include": []string{"shoes"}}}, "no-secrets")
	})
	t.Run("materialize_postgres", func(t *testing.T) {
		t.Parallel()
		s := newSide(t, server.SharedPostgres(t))
		rows := fmt.Sprintf(`psql -At '%s' -c 'SELECT row_to_json(t) FROM {table} t'`, s.server.URL(s.database))
		conforms(t, bins.Path(launch.MaterializePostgres), "conformance/"+s.database, rows, conformanceLogin(t, s))
	})
	t.Run("materialize_s3_parquet", func(t *testing.T) {
		t.Parallel()
		db, err := duckdb.Find()
		require.NoError(t, err)
		folder := t.TempDir()
		rows := fmt.Sprintf(`'%s' -jsonlines -c "SELECT id, region, note, size FROM read_parquet('%s/{table}/**/*.parquet', union_by_name = true)"`, db, folder)
		conforms(t, bins.Path(launch.MaterializeParquet), "conformance/parquet", rows,
			map[string]any{"bucket": "file://" + folder, "uploadInterval": "0s"}, "load", "many-loads", "fence", "no-secrets", "slow-reader", "deletes", "beliefs")
	})
}
