package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// A table changes its shape while rows are written all the time, into a table that was there before and was adopted: in the
// end both are equal, and what people added to the copy is there.
func TestShapeChangesWhileRowsFlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t,
		`CREATE TABLE flow (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, small integer, label text NOT NULL DEFAULT 'x', ratio double precision)`,
		`INSERT INTO flow (small, ratio) SELECT i, i / 7.0 FROM generate_series(1, 500) AS i`)
	w.copy.exec(t, `CREATE TABLE flow (id bigint PRIMARY KEY, mine text NOT NULL DEFAULT 'kept')`)
	w.discover(t)
	w.materialize(t, "e2e/flow", map[string]any{"hardDelete": true}, func(_ string, b *launch.MaterializationBinding) bool {
		b.Resource["adopt"] = true
		return true
	})
	w.start(t)
	w.copy.prints(t, "500", "SELECT count(*) FROM flow")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	group := new(errgroup.Group)
	conn := w.source.connect(t)
	group.Go(func() error {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			for _, sql := range []string{"INSERT INTO flow (small) VALUES (1)", "UPDATE flow SET small = small + 1 WHERE id % 100 = " + string(rune('0'+n%10))} {
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					return err
				}
			}
		}
	})
	for _, change := range [][]string{
		{"ALTER TABLE flow ADD COLUMN extra numeric(20,5) NOT NULL DEFAULT 1.5", "UPDATE flow SET extra = 12345678901.5 WHERE id % 5 = 0"},
		{"ALTER TABLE flow ALTER COLUMN small TYPE numeric", "UPDATE flow SET small = 0.1 WHERE id % 3 = 0"},
		{"ALTER TABLE flow ALTER COLUMN label DROP NOT NULL", "UPDATE flow SET label = NULL WHERE id % 4 = 0"},
		{"ALTER TABLE flow ALTER COLUMN ratio TYPE numeric", "UPDATE flow SET ratio = 0.1 WHERE id % 7 = 0"},
		{"ALTER TABLE flow ADD COLUMN late text[]", "UPDATE flow SET late = ARRAY['a', NULL] WHERE id % 11 = 0"},
	} {
		w.source.exec(t, change...)
		rows := w.source.exec(t, "SELECT max(id) FROM flow")
		w.copy.prints(t, "t", "SELECT max(id) >= "+rows+" FROM flow")
	}
	stop()
	require.NoError(t, group.Wait())
	w.same(t, pairOf("flow"))
	w.copy.prints(t, "0|kept", "SELECT count(*) FILTER (WHERE mine <> 'kept'), min(mine) FROM flow")
}
