package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// TestShards: materializations are divided, divided otherwise, and joined again while the source is written to, after clean stops and after kills. All that is
// derived from the source stays equal to it, and what appends has every change once: in tables that keep positions themselves, and in files that are staged.
func TestShards(t *testing.T) {
	t.Parallel()
	bins := binaries(t)
	seed := crashSeed(t)
	t.Logf("SLUICE_CRASH_SEED=%d", seed)
	cluster := server.SharedKafka(t)
	pg := server.SharedPostgres(t)
	source := newSide(t, pg)
	w := newWorldOn(t, bins, source, newSide(t, pg), workloadTables, "ALTER TABLE keyless DISABLE TRIGGER keep_account", workloadRows, "ALTER TABLE keyless ENABLE TRIGGER keep_account")
	w.discover(t, append(keyed(), "keyless")...)
	w.catalog.Log = map[string]any{"url": "kafka://" + cluster.Addresses(), "topics": map[string]any{"prefix": source.database, "partitions": 5, "replication": 1}}
	l := w.intoThree(t)
	divide := func(shards int) {
		for _, m := range w.catalog.Materializations {
			m.Shards = shards
		}
		w.start(t)
	}
	divide(2)
	writing := startWriters(t, source, inPostgres, seed, 4*time.Millisecond)
	eventually(t, 3*time.Minute, func() bool { return w.copyHas(t, "marking.keyless", 1000) }, func() string { return "the backfill of the keyless table did not end" })
	writing.startKeyless(t)
	divided, before := 3, 2 // materializations, each from one shard
	for i, shards := range []int{3, 1, 2, 2} {
		more := writing.committed.Load() + 300
		eventually(t, time.Minute, func() bool { return writing.committed.Load() > more }, func() string { return "the writers stand still" })
		if i%2 == 0 {
			w.sluice.Kill()
		} else {
			require.NoError(t, w.sluice.Stop())
		}
		if divide(shards); shards != before {
			divided, before = divided+3, shards
		}
		eventually(t, time.Minute, func() bool {
			return strings.Count(w.log(), `"divided the materialization among its shards"`) >= divided
		}, func() string {
			return fmt.Sprintf("not everything was divided into %d shards", shards)
		})
	}
	writing.stop(t)
	w.same(t, crashPairs()...)
	if _, err := duckdb.Find(); err == nil {
		w.sameLake(t, l)
		w.sameLakeAccount(t, l)
	}
	require.Equal(t, "1000|1000", w.copy.exec(t, `SELECT count(*), count(DISTINCT id) FROM marking.keyless WHERE id < 0`), "rows from before, each once")
	require.NoError(t, w.sluice.Stop())
	// One that is stopped when it has divided, and not applied its specification yet, divides again into as many.
	require.LessOrEqual(t, strings.Count(w.log(), `"divided the materialization among its shards"`), divided+3)

	w.restart(t, launch.Options{Join: true})
	status := func(data string) string {
		out, err := exec.CommandContext(t.Context(), bins.Sluice(), "status", w.pipeline(), "--data", data).CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	process := fmt.Sprintf("-%d\n", w.sluice.PID())
	eventually(t, time.Minute, func() bool { return strings.Count(status(w.data()), process) == 7 }, func() string { return "not everything runs: " + status(w.data()) })
	elsewhere := status(t.TempDir())
	require.Contains(t, elsewhere, "materialization e2e/marking 2/2 ")
	require.Equal(t, 7, strings.Count(elsewhere, process), elsewhere)
	require.NoError(t, w.sluice.Stop())
	require.Equal(t, 7, strings.Count(status(w.data()), "nobody: it moves to another process, or no process runs"))
}

// TestShardsOfACapture: a capture of Kafka is divided, divided otherwise, and joined again. What is new in its documents is learned by all shards together, and
// each record is captured once.
func TestShardsOfACapture(t *testing.T) {
	t.Parallel()
	bins := binaries(t)
	cluster := server.SharedKafka(t)
	client := newKcat(t, cluster.Addresses())
	database := newSide(t, server.SharedPostgres(t))
	topic := database.database + ".payments"
	admin, err := kadm.NewOptClient(kgo.SeedBrokers(strings.Split(cluster.Addresses(), ",")...))
	require.NoError(t, err)
	defer admin.Close()
	_, err = admin.CreateTopic(t.Context(), 6, 1, nil, topic)
	require.NoError(t, err)
	written := 0
	write := func(member string) {
		lines := make([]string, 200)
		for i := range lines {
			lines[i] = fmt.Sprintf(`k%d:{"n":%d,"%s":"x%d"}`, written, written, member, written)
			written++
		}
		require.NoError(t, client.produce(t.Context(), topic, lines...))
	}
	write("first")
	w := newWorldOn(t, bins, database, database)
	w.catalog, err = launch.Discover(t.Context(), bins, launch.SourceKafka, "e2e/kafka",
		map[string]any{"bootstrapServers": cluster.Addresses(), "topics": map[string]any{"include": []string{topic}}}, w.folder)
	require.NoError(t, err)
	w.catalog.Log = map[string]any{"url": "kafka://" + cluster.Addresses(), "topics": map[string]any{"prefix": database.database, "replication": 1}}
	w.materialize(t, "e2e/table", nil, func(_ string, b *launch.MaterializationBinding) bool {
		b.Resource["table"], b.Resource["deltaUpdates"] = "payments", true
		return true
	})
	for _, shards := range []int{2, 3, 1, 2} {
		w.catalog.Captures["e2e/kafka"].Shards = &launch.Shards{Count: shards}
		w.start(t)
		write(fmt.Sprintf("with%d", shards))
		eventually(t, time.Minute, func() bool { return w.copyHas(t, "payments", written) }, func() string {
			return fmt.Sprintf("no %d rows with %d shards, but %s", written, shards, w.copy.exec(t, "SELECT count(*) FROM payments"))
		})
		w.sluice.Kill()
	}
	w.copy.prints(t, fmt.Sprintf("%d|%d", written, written), `SELECT count(*), count(DISTINCT ("_meta/partition", "_meta/offset")) FROM payments`)
	w.copy.prints(t, "200|400|200|200", `SELECT count(first), count(with2), count(with3), count(with1) FROM payments`)
}
