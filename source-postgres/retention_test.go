package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// What the slot holds back is told as the server sees it, and shrinks with what is acknowledged.
func TestRetention(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (a text)")
	d := db.driver()
	none, err := d.retention(t.Context())
	require.NoError(t, err)
	require.Equal(t, retention{Safe: -1}, none, "there is no slot yet")
	s := db.open(d, db.tables(d, "t")...)
	db.exec("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
	require.Empty(t, s.fence())
	held, err := d.retention(t.Context())
	require.NoError(t, err)
	require.True(t, held.Exists)
	require.Greater(t, held.Retained, int64(3_000_000))
	require.Equal(t, int64(held.End-held.Restart), held.Retained)
	require.GreaterOrEqual(t, held.Flushed, held.Restart)
	require.EqualValues(t, -1, held.Safe, "max_slot_wal_keep_size is not set")
	if d.server.major() >= 13 {
		require.Equal(t, "reserved", held.Status)
	}
	eventually(t, "what was acknowledged is not held back any more", func() bool {
		db.exec("CHECKPOINT") // logs the transactions in progress, which is where a slot can begin anew
		s.fence()
		s.Ack(cdc.Cursor(s.Stream.(*stream).passed.String()))
		now, err := d.retention(t.Context())
		require.NoError(t, err)
		return now.Retained < 1_000_000
	})
}
