package materialize

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A large transaction is followed at once, and so is the end of the session; a small one is not.
func TestPace(t *testing.T) {
	t.Parallel()
	waits := func(rows, bytes int) bool {
		p := newPace(time.Hour)
		p.hold(t.Context())
		p.stored(rows, bytes)
		held := make(chan struct{})
		go func() {
			defer close(held)
			p.hold(t.Context())
		}()
		select {
		case <-held:
			return false
		case <-time.After(50 * time.Millisecond):
			p.hurry()
			<-held
			return true
		}
	}
	require.True(t, waits(0, 0))
	require.True(t, waits(largeRows-1, largeBytes-1))
	require.False(t, waits(largeRows, 0))
	require.False(t, waits(1, largeBytes))
}
