package capture

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A pull gives up ten minutes after the connection was lost, unless a session in between was of use.
func TestReopening(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var r reopening
	_, ok := r.lost(now, now, false)
	require.True(t, ok)
	first := now
	for now.Sub(first) < reopenFor {
		wait, ok := r.lost(now, now, false)
		require.True(t, ok)
		require.LessOrEqual(t, wait, 30*time.Second)
		now = now.Add(max(wait, time.Second))
	}
	_, ok = r.lost(now, now, false)
	require.False(t, ok, "too long")
	wait, ok := r.lost(now, now, true)
	require.True(t, ok, "it has captured something")
	require.LessOrEqual(t, wait, 100*time.Millisecond)
	now = now.Add(reopenFor)
	_, ok = r.lost(now.Add(-steady), now, false)
	require.True(t, ok, "it stood")
}
