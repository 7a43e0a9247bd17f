package e2e

import (
	"bytes"
	"context"
	"maps"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
)

// TestCrashOnKafka is [TestCrash] with the log on Kafka: connectors, the runtime and the broker are killed at random while the source is written to. Then
// both destinations equal the source, the table of changes has every change once, and so have the Parquet files; and another consumer finds as many records in
// the topic, none of what was given up among them.
func TestCrashOnKafka(t *testing.T) {
	t.Parallel()
	bins := binaries(t)
	seed, length := crashSeed(t), crashLength(t, 8*time.Second)
	t.Logf("SLUICE_CRASH_SEED=%d SLUICE_CRASH_FOR=%s", seed, length)
	cluster := server.Kafka(t, kafkad.Options{})
	client := newKcat(t, cluster.Addresses())

	pg := server.SharedPostgres(t)
	source := newSide(t, pg)
	w := newWorldOn(t, bins, source, newSide(t, pg), workloadTables,
		"ALTER TABLE keyless DISABLE TRIGGER keep_account", workloadRows, "ALTER TABLE keyless ENABLE TRIGGER keep_account")
	w.discover(t, append(keyed(), "keyless")...)
	w.onKafka(cluster.Addresses(), 1, nil)
	l := w.intoThree(t)
	w.start(t)

	c := newChaos(t, w, seed, append(commonBlows(launch.SourcePostgres)[:11], blow{"SIGKILL to the broker", func(c *chaos, ctx context.Context) (string, error) {
		if err := cluster.Kill(1); err != nil {
			return "", err
		}
		return "started again at once", cluster.Start(ctx, 1)
	}}))
	writing := startWriters(t, source, inPostgres, seed, 4*time.Millisecond)
	eventually(t, 3*time.Minute, func() bool { return w.copyHas(t, "marking.keyless", 1000) }, func() string { return "the backfill of the keyless table did not end" })
	writing.startKeyless(t)
	for end := time.Now().Add(length); time.Now().Before(end) || c.blows < 4; {
		c.wait(t)
		require.NoError(t, c.strike(t.Context()))
	}
	writing.stop(t)
	c.note("the writers stopped after %d transactions", writing.committed.Load())

	w.arrived(t, l)
	collection, changes := w.recorded(t, client)
	count := func() int {
		cmd := exec.CommandContext(t.Context(), bins.Sluice(), "log", "cat", w.pipeline(), collection, "--data", w.data())
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, stderr.String())
		return bytes.Count(out, []byte("\n"))
	}
	require.Equal(t, changes, count(), "through the process that runs")
	require.NoError(t, w.sluice.Stop(), "a clean stop after all that")
	require.Equal(t, changes, count(), "from Kafka itself")
	cmd := exec.CommandContext(t.Context(), bins.Sluice(), "log", "stats", w.pipeline(), collection, "--data", w.data())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "partition 0: ")
	require.Contains(t, string(out), "up to date")
	out, err = exec.CommandContext(t.Context(), bins.Sluice(), "log", "forget", w.pipeline(), "e2e/lake", "--data", w.data()).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "the pipeline's file still has the materialization e2e/lake")
}

// onKafka has the world keep its log on brokers, with so many copies of each topic.
func (w *world) onKafka(brokers string, replication int, options map[string]any) {
	log := map[string]any{"url": "kafka://" + brokers, "topics": map[string]any{"prefix": "shop", "replication": replication}}
	maps.Copy(log, options)
	w.catalog.Log = log
}

// recorded counts the changes of the table without a key, and sees that another consumer finds as many records in the topic of its collection.
func (w *world) recorded(t *testing.T, client kcat) (collection string, changes int) {
	t.Helper()
	for _, capture := range w.catalog.Captures {
		for _, b := range capture.Bindings {
			if strings.HasSuffix(b.Target, "/keyless") {
				collection = b.Target
			}
		}
	}
	changes, err := strconv.Atoi(strings.TrimSpace(w.source.exec(t, "SELECT count(*) + 1000 FROM account")))
	require.NoError(t, err)
	records := client.consume(t, "shop."+strings.ReplaceAll(collection, "/", "."))
	require.Len(t, records, changes, "records that another consumer reads")
	require.Contains(t, records[0], `|{`)
	return collection, changes
}
