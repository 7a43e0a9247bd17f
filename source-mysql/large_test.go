package main

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// A row that fits into no document ends the capture only where the policy says so. Otherwise its chunk is read again with room for it,
// one such chunk at a time (hard case 25).
func TestLargeRowsFollowThePolicy(t *testing.T) {
	t.Parallel()
	a := &cdc.Table{ID: cdc.TableID{Schema: "s", Name: "a"}}
	for _, policy := range []string{"", "fail", "placeholder", "skip"} {
		cfg := config{Address: "db.example.com"}
		cfg.Advanced.OnOversizedRow = policy
		d, err := newDriver(testEnv(t), cfg)
		require.NoError(t, err)
		d.conns.dial = func(context.Context) (*session, error) {
			ours, theirs := net.Pipe()
			t.Cleanup(func() { require.NoError(t, theirs.Close()) })
			return &session{wire: newWire(ours, cdc.MaxRow)}, nil
		}
		waited := 0
		heavy := func(context.Context) error { waited++; return nil }
		read := func(fails error) (limit int, err error) {
			d.plans.plans = map[cdc.TableID]*scanPlan{a.ID: {table: a, rows: &rowPlan{}}}
			err = d.inScan(t.Context(), a, heavy, func(s *session, _ *scanPlan) error {
				limit, s.broken = s.wire.limit, fails != nil
				return fails
			})
			return limit, err
		}
		limit, err := read(errLargePacket)
		require.Equal(t, cdc.MaxRow, limit)
		if policy == "" || policy == "fail" {
			require.NotErrorIs(t, err, cdc.ErrInterrupted)
			require.Equal(t, "The table s.a has a row of more than 62 MiB, which fits into no document. Make its values smaller, or leave out the column with them (excludeColumns); "+
				"or set onOversizedRow to placeholder to go on with null for such values, or to skip to go on without such rows.", usererr.Message(err))
			continue
		}
		require.ErrorIs(t, err, cdc.ErrInterrupted, policy)
		require.Zero(t, waited)
		limit, err = read(nil)
		require.NoError(t, err)
		require.Equal(t, maxEvent, limit)
		require.Equal(t, 1, waited)
		s, used, err := d.conns.get(t.Context())
		require.NoError(t, err)
		require.True(t, used)
		require.Equal(t, cdc.MaxRow, s.wire.limit, "others get it with the limit that it had")
		d.conns.put(s)
		_, err = read(errLargePacket)
		require.NotErrorIs(t, err, cdc.ErrInterrupted)
		require.Equal(t, "The table s.a has a row of more than 1024 MiB, which cannot be read. Make its values smaller, or leave out the column with them (excludeColumns).", usererr.Message(err))
	}
}
