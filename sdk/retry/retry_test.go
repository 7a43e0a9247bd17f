package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluicedata/sluice/sdk/retry"
)

var errTorn = errors.New("connection torn")

func TestDelay(t *testing.T) {
	t.Parallel()
	b := retry.Backoff{Min: time.Second, Max: 10 * time.Second, Factor: 3, Jitter: 0.5}
	for attempt, want := range map[int][2]time.Duration{
		1: {time.Second, 500 * time.Millisecond}, 2: {3 * time.Second, 1500 * time.Millisecond},
		3: {9 * time.Second, 4500 * time.Millisecond}, 4: {10 * time.Second, 5 * time.Second}, 1000: {10 * time.Second, 5 * time.Second},
	} {
		require.Equal(t, want[0], b.Delay(attempt, 0))
		require.Equal(t, want[1], b.Delay(attempt, 1))
	}
	require.Equal(t, 100*time.Millisecond, retry.Backoff{}.Delay(1, 0))
	require.Equal(t, 80*time.Millisecond, retry.Backoff{}.Delay(1, 1))
	require.Equal(t, 100*time.Millisecond, retry.Backoff{Jitter: -1}.Delay(1, 1))
	rapid.Check(t, func(t *rapid.T) {
		b := retry.Backoff{
			Min:    time.Duration(rapid.Int64Range(0, 1e12).Draw(t, "min")),
			Max:    time.Duration(rapid.Int64Range(0, 1e12).Draw(t, "max")),
			Factor: rapid.Float64Range(0, 100).Draw(t, "factor"), Jitter: rapid.Float64Range(-1, 2).Draw(t, "jitter"),
		}
		d := b.Delay(rapid.IntRange(1, 1e6).Draw(t, "attempt"), rapid.Float64Range(0, 0.999).Draw(t, "rnd"))
		require.GreaterOrEqual(t, d, time.Duration(0))
		if b.Max > 0 {
			require.LessOrEqual(t, d, b.Max)
		}
	})
}

func TestDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start, calls := time.Now(), 0
		failing := func(times int) func(context.Context) error {
			calls = 0
			return func(context.Context) error {
				if calls++; calls <= times {
					return errTorn
				}
				return nil
			}
		}
		b := retry.Backoff{Min: time.Second, Jitter: -1}
		require.NoError(t, b.Do(t.Context(), failing(3), nil))
		require.Equal(t, 4, calls)
		require.Equal(t, 7*time.Second, time.Since(start))

		require.ErrorIs(t, b.Do(t.Context(), failing(3), func(error) bool { return false }), errTorn)
		require.Equal(t, 1, calls)

		b.Attempts = 2
		require.ErrorIs(t, b.Do(t.Context(), failing(3), nil), errTorn)
		require.Equal(t, 2, calls)
	})
}

// TestDoStopsWithItsContext: also in the middle of a wait, and the error is what went wrong and not the end of the wait.
func TestDoStopsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		calls := 0
		err := retry.Backoff{Min: time.Minute, Max: time.Minute, Jitter: -1}.Do(ctx, func(context.Context) error { calls++; return errTorn }, nil)
		require.Equal(t, errTorn, err)
		require.Equal(t, 2, calls)
		require.Equal(t, 90*time.Second, time.Since(start))
	})
}
