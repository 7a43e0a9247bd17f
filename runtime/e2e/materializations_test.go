package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

const (
	items     = `CREATE TABLE items (id integer PRIMARY KEY, name text NOT NULL, price numeric(10,2), seen timestamptz)`
	itemsFill = `INSERT INTO items SELECT i, 'item ' || i, i / 3.0, timestamptz '2024-03-10 09:59:59.999999+00' + i * interval '1 minute' FROM generate_series(1, 3000) AS i`
)

// changeItems leaves 2572 of the 3000 rows, one of them new.
func changeItems() []string {
	return []string{"UPDATE items SET price = price + 1 WHERE id % 10 = 0", "DELETE FROM items WHERE id % 7 = 0 OR id = 1", "INSERT INTO items VALUES (100000, 'new')"}
}

// Any number of destinations costs the source one slot, one connection to it, and one reading of its rows.
func TestTwoMaterializationsReadTheSourceOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, itemsFill)
	w.discover(t)
	w.materialize(t, "e2e/one", map[string]any{"schema": "one"}, nil)
	w.materialize(t, "e2e/two", map[string]any{"schema": "two", "hardDelete": true}, nil)
	w.start(t)
	w.copy.prints(t, "3000|3000", "SELECT (SELECT count(*) FROM one.items), (SELECT count(*) FROM two.items)")
	// Sessions report what they read with a delay.
	w.source.prints(t, "t|t", "SELECT seq_tup_read + COALESCE(idx_tup_fetch, 0) >= 3000, seq_tup_read + COALESCE(idx_tup_fetch, 0) < 6000 FROM pg_stat_user_tables WHERE relname = 'items'")

	w.source.exec(t, changeItems()...)
	w.same(t, softly(in("one", "items")), in("two", "items"))
	require.Equal(t, "1|1", w.source.exec(t, `
		SELECT count(*), count(active_pid) FROM pg_replication_slots WHERE database = current_database()`), "slots, and sessions that stream them")
}

// A materialization that is added later gets everything from the log's start: the source is not even connected.
func TestLateMaterializationReplaysTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, itemsFill)
	w.discover(t)
	w.materialize(t, "e2e/early", map[string]any{"schema": "early"}, nil)
	w.start(t)
	w.copy.prints(t, "3000", "SELECT count(*) FROM early.items")
	w.source.exec(t, changeItems()...)
	w.same(t, softly(in("early", "items")))
	require.NoError(t, w.sluice.Stop())

	capture, err := w.catalog.Capture()
	require.NoError(t, err)
	w.materialize(t, "e2e/late", map[string]any{"schema": "late", "hardDelete": true}, nil)
	capture.Shards = &launch.Shards{Disable: true}
	w.start(t)
	w.same(t, in("late", "items"), softly(in("early", "items")))
	require.Equal(t, "0", w.source.exec(t, "SELECT count(active_pid) FROM pg_replication_slots WHERE database = current_database()"))
	require.NoError(t, w.sluice.Stop())

	capture.Shards = nil
	w.source.exec(t, "DELETE FROM items WHERE id % 5 = 0", "UPDATE items SET name = 'after all' WHERE id % 11 = 0")
	w.start(t)
	w.same(t, in("late", "items"), softly(in("early", "items")))
}
