package capture

import (
	"io"
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

// What counts as captured are documents of whole transactions: a session that is lost at the same place each time commits positions all the same.
func TestCaptured(t *testing.T) {
	t.Parallel()
	out := &lineOutput{out: io.Discard}
	require.NoError(t, out.write(t.Context(), nil, &commit{patch: []byte(`{"at":1}`)}))
	require.NoError(t, out.write(t.Context(), []byte("{}\n"), nil))
	require.Zero(t, out.documents)
	require.NoError(t, out.write(t.Context(), []byte("{}\n"), &commit{patch: []byte(`{"at":2}`), docs: 2}))
	require.Equal(t, 2, out.documents)
}
