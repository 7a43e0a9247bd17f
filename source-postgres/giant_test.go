package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// A transaction that the server has to spill to its disk streams through: whole, in order, without what was rolled back inside it,
// and never held (hard case 26).
func TestGiantTransaction(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	const rows = 30_000
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)")
	if db.pg.Major() >= 13 { // before, each transaction may have a few thousand changes in memory
		db.exec("ALTER DATABASE " + db.cfg.Database + " SET logical_decoding_work_mem = '64kB'")
	}
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	giant := db.transaction("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, " + fmt.Sprint(rows/2) + ") g")
	db.exec("INSERT INTO t VALUES (0, 'commits first')")
	require.Equal(t, []string{`c t {"a":"commits first","id":0}`}, s.fence(), "others do not wait for what is not committed")
	for _, sql := range []string{
		"SAVEPOINT a", "INSERT INTO t SELECT -g, repeat('y', 100) FROM generate_series(1, 3000) g", "ROLLBACK TO a",
		fmt.Sprintf("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(%d, %d) g", rows/2+1, rows), "COMMIT",
	} {
		_, err := giant.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	id := 0
	for deadline := time.Now().Add(3 * patience); ; {
		require.True(t, time.Now().Before(deadline))
		ev, err := s.Next(t.Context(), time.Second)
		require.NoError(t, err)
		if ev.Op == cdc.Commit {
			break
		}
		if ev.Op != cdc.Insert {
			continue
		}
		id++
		if id%1000 == 0 {
			require.Contains(t, fields(t, ev.Row), fmt.Sprintf(`"id":%d}`, id))
			require.LessOrEqual(t, len(s.Stream.(*stream).wire.buf), wireBuffer)
		}
	}
	require.Equal(t, rows, id)
	require.Empty(t, s.fence())
	if d.server.major() >= 14 {
		eventually(t, "the server says that it has spilled the transaction", func() bool {
			return strings.TrimSpace(db.exec("SELECT spill_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = '"+d.slot+"'")) == "t"
		})
	}
}
