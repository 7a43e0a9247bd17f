package materialize

import (
	"context"
	"fmt"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/process"
)

// TestReadAhead: what the log has is read for the next transaction while this one is untouched, and becomes this one as a whole; what was given up, or read when the
// schema had changed, is left to the next session.
func TestReadAhead(t *testing.T) {
	t.Parallel()
	log, err := wal.Open(wal.Options{Dir: t.TempDir(), MinFreeBytes: 1, Log: logrus.NewEntry(process.Discard())})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	w, err := log.Writer("acme/capture")
	require.NoError(t, err)
	write := func(from, to int, version uint32) {
		block := &wal.Block{Schema: version}
		for id := from; id < to; id++ {
			block.Add(fmt.Appendf(nil, `{"id":%d,"_meta":{"op":"c"}}`, id))
		}
		require.NoError(t, w.Append("acme/t", block))
		require.NoError(t, w.Commit(t.Context(), nil))
	}
	write(0, 100, 1)
	b := testBinding(t, false)
	b.known, b.status = map[string]int64{}, status.NewBoard().Task("materialization", "acme/sink").Binding("t", "acme/t")
	s := &session{task: &Task{Log: log, MaxTransactionBytes: 1 << 20}, bindings: []*binding{b}}
	s.txn, s.ahead = newTransaction(1, &s.mu), newTransaction(1, &s.mu)

	require.NoError(t, s.readAhead(t.Context())(false))
	require.True(t, s.txn.empty())
	require.Len(t, s.ahead.order, 100)
	require.Len(t, s.loads, 100, "the destination is asked for them once they are this transaction's")
	s.turnOver()
	require.Len(t, s.txn.order, 100)
	require.True(t, s.ahead.empty())

	s.loads = nil
	write(100, 200, 1)
	write(200, 300, 2) // which this session cannot store
	require.NoError(t, s.readAhead(t.Context())(false))
	require.Len(t, s.ahead.order, 100)
	require.True(t, s.evolved)
	s.turnOver()
	require.NoError(t, s.takeUp(false))
	require.True(t, s.txn.empty())
	require.Empty(t, s.loads)

	over, cancel := context.WithCancel(t.Context())
	cancel()
	s.evolved = false
	require.NoError(t, s.readAhead(over)(true))
	require.True(t, s.ahead.empty())
}
