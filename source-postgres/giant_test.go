package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
)

// A transaction that is too large for anybody's memory streams through: whole, in order, without what was rolled back inside it,
// and never held, whether it is received in pieces or the server has to spill it to its disk (hard case 26).
func TestGiantTransaction(t *testing.T) {
	t.Parallel()
	for _, choice := range []string{streamOn, streamOff} {
		t.Run(choice, func(t *testing.T) {
			t.Parallel()
			giantTransaction(t, choice)
		})
	}
}

func giantTransaction(t *testing.T, choice string) {
	db := newDatabase(t)
	const rows = 30_000
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)")
	d := db.driver(func(c *config) { c.Advanced.StreamTransactions = choice })
	s := db.open(d, db.tables(d, "t")...)
	if sp := s.Stream.(*stream).spool; sp != nil {
		sp.limit = 1 << 20
	}
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
			require.Contains(t, cdctest.Fields(t, ev.Row), fmt.Sprintf(`"id":%d}`, id))
			require.LessOrEqual(t, len(s.Stream.(*stream).wire.buf), wireBuffer)
			if sp := s.Stream.(*stream).spool; sp != nil {
				require.LessOrEqual(t, sp.memory(), sp.limit+spoolPage)
				require.NotEmpty(t, s.Stream.(*stream).kept.bytes.disk, "most of it is in the file")
			}
		}
	}
	require.Equal(t, rows, id)
	require.Empty(t, s.fence())
	if d.server.major() >= 14 {
		db.spilledOrStreamed(d, map[string]string{streamOn: "stream_txns", streamOff: "spill_txns"}[choice])
	}
}

// spilledOrStreamed waits until the server's statistics of the driver's slot say that something happened.
func (db *database) spilledOrStreamed(d *driver, what string) {
	db.t.Helper()
	eventually(db.t, "the server counts "+what, func() bool {
		return strings.TrimSpace(db.exec("SELECT "+what+" > 0 FROM pg_stat_replication_slots WHERE slot_name = '"+d.slot+"'")) == "t"
	})
}
