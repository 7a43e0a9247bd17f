package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/compare"
	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// blowsPerMinute is how many blows a run deals at least, for each minute that it is to take.
const blowsPerMinute = 20

// TestCrash writes to a source while everything around it is killed at random moments: connectors, the runtime, sessions
// on both sides, and whole servers. Afterwards both destinations, one that deletes and one that marks, equal the source
// row by row, and the table of changes of a table without a key has every change exactly once. So have Parquet files in a folder, and in
// a bucket of an object store that is killed as well, from the same capture; they also make up the other tables.
func TestCrash(t *testing.T) {
	t.Parallel()
	bins := binaries(t)
	seed, length := crashSeed(t), crashLength(t, time.Minute)
	t.Logf("SLUICE_CRASH_SEED=%d SLUICE_CRASH_FOR=%s", seed, length)

	source := newSide(t, server.Postgres(t))
	w := newWorldOn(t, bins, source, newSide(t, server.Postgres(t)), workloadTables,
		"ALTER TABLE keyless DISABLE TRIGGER keep_account", workloadRows, "ALTER TABLE keyless ENABLE TRIGGER keep_account")
	w.discover(t, append(keyed(), "keyless")...)
	lakes, blowsToDeal := []lake{w.intoThree(t)}, allBlows()
	if server.HasS3() {
		s3 := server.S3(t)
		lakes = append(lakes, w.intoBucket(t, s3))
		blowsToDeal = append(blowsToDeal, objectStore(s3))
	}
	w.start(t)

	c := newChaos(t, w, seed, blowsToDeal)
	writing := startWriters(t, source, inPostgres, seed, 4*time.Millisecond)
	backfilled := false
	// A slow machine gets more time for as many blows, so that the table without a key is written to under blows, too.
	blows := int(blowsPerMinute * length / time.Minute)
	end, last := c.began.Add(length), c.began.Add(5*length)
	for time.Now().Before(end) || (!backfilled || c.blows < blows) && time.Now().Before(last) {
		c.wait(t)
		if !backfilled && w.copyHas(t, "marking.keyless", 1000) {
			backfilled = true
			if soonest := time.Now().Add(length / 6); soonest.After(end) {
				end = soonest
			}
			writing.startKeyless(t)
			c.note("the keyless table's backfill is over, its writer started")
		}
		require.NoError(t, c.strike(t.Context()))
	}
	writing.stop(t)
	c.note("the writers stopped after %d transactions", writing.committed.Load())
	require.True(t, backfilled, "the backfill of the keyless table did not end in all the time")
	require.GreaterOrEqual(t, c.blows, blows, "blows in all the time")

	w.arrived(t, lakes...)
	c.note("all is equal")
	require.NoError(t, w.sluice.Stop(), "a clean stop after all that")
	w.same(t, crashPairs()...)
}

// intoThree materializes what is captured into tables that delete, into tables that mark, and into Parquet files in a folder, which it
// returns. The table without a key is not among those that delete.
func (w *world) intoThree(t *testing.T) lake {
	t.Helper()
	w.materialize(t, "e2e/deleting", map[string]any{"hardDelete": true, "schema": "deleting"},
		func(table string, _ *launch.MaterializationBinding) bool { return table != "keyless" })
	w.materialize(t, "e2e/marking", map[string]any{"schema": "marking"},
		func(table string, b *launch.MaterializationBinding) bool {
			b.Resource["deltaUpdates"] = table == "keyless"
			return true
		})
	l := lake{name: "e2e/lake", folder: t.TempDir()}
	require.NoError(t, w.catalog.Materialize(l.name, launch.Parquet(w.bins, l.folder, "0s"), launch.IntoPath))
	return l
}

// intoBucket materializes what is captured into Parquet files in a bucket, whose objects are files of a folder, too.
func (w *world) intoBucket(t *testing.T, s3 *server.S3Server) lake {
	t.Helper()
	bucket := s3.NewBucket(t)
	endpoint := launch.Parquet(w.bins, "", "0s")
	endpoint.Local.Config = map[string]any{
		"bucket": bucket, "endpoint": s3.Endpoint(), "region": server.S3Region, "uploadInterval": "0s",
		"credentials": map[string]any{"accessKeyId": server.S3AccessKey, "secretAccessKey": server.S3SecretKey},
	}
	require.NoError(t, w.catalog.Materialize("e2e/bucket", endpoint, launch.IntoPath))
	return lake{name: "e2e/bucket", bucket: "s3://" + bucket, folder: s3.Folder(bucket)}
}

// objectStore kills an object store, and starts it again after a moment.
func objectStore(s3 *server.S3Server) blow {
	return blow{"SIGKILL to the object store", func(c *chaos, ctx context.Context) (string, error) {
		s3.Stop()
		pause := time.Duration(c.random.IntN(1500)) * time.Millisecond
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(pause):
		}
		return fmt.Sprintf("started again %s later", pause), s3.Restart()
	}}
}

// crashPairs is all that must be equal.
func crashPairs() []compare.Pair {
	return append(keyedPairs(), compare.Pair{
		Source: pgx.Identifier{"account"}, Destination: pgx.Identifier{"marking", "keyless"},
		Key:     []string{"op", "id", "what", "amount"},
		Renamed: map[string]string{"op": "_meta/op"},
		Only:    "id >= 0",
	})
}

// keyedPairs are the tables with keys.
func keyedPairs() (pairs []compare.Pair) {
	for _, table := range keyed() {
		pairs = append(pairs, in("deleting", table), softly(in("marking", table)))
	}
	return pairs
}

// arrived waits until everything is in all destinations, each change once.
func (w *world) arrived(t *testing.T, lakes ...lake) {
	t.Helper()
	w.same(t, crashPairs()...)
	if _, err := duckdb.Find(); err == nil {
		for _, l := range lakes {
			w.sameLake(t, l)
			w.sameLakeAccount(t, l)
		}
	}
	require.Equal(t, "1000|1000", w.copy.exec(t, `SELECT count(*), count(DISTINCT id) FROM marking.keyless WHERE id < 0`), "rows from before, each once")
}

// copyHas tells whether a table of the copy is there and has so many rows.
func (w *world) copyHas(t *testing.T, table string, rows int) bool {
	t.Helper()
	if w.copy.exec(t, "SELECT to_regclass('"+table+"') IS NOT NULL") != "t" {
		return false
	}
	return w.copy.exec(t, "SELECT count(*) FROM "+table) == strconv.Itoa(rows)
}

// crashSeed is SLUICE_CRASH_SEED, or another one every time: a test that explores finds more.
func crashSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("SLUICE_CRASH_SEED")
	if text == "" {
		return rand.Uint64N(1_000_000)
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, "SLUICE_CRASH_SEED")
	return seed
}

// crashLength is SLUICE_CRASH_FOR, or what is usual.
func crashLength(t *testing.T, usual time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv("SLUICE_CRASH_FOR")
	if text == "" {
		return usual
	}
	length, err := time.ParseDuration(text)
	require.NoError(t, err, "SLUICE_CRASH_FOR")
	return length
}
