package wal

import (
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What transactions that are given up leave on the disk is bounded, however many there are, also where their blocks share files
// with those that are committed; and what is committed stays readable.
func TestGivenUpTransactionsLeaveLittle(t *testing.T) {
	t.Parallel()
	const rounds, each, kept = 100, 4 << 20, 8 << 10
	dir := t.TempDir()
	log := open(t, dir)
	rng := rand.NewChaCha8([32]byte{})
	noise := func(n int) string {
		text := make([]byte, n)
		_, _ = rng.Read(text)
		return string(text)
	}
	var want []string
	for range rounds {
		w, err := log.Writer("acme/x")
		require.NoError(t, err)
		want = append(want, noise(kept))
		require.NoError(t, w.Append("acme/t", block(want[len(want)-1])))
		require.NoError(t, w.Commit(t.Context(), nil))
		for range each / (64 << 10) {
			require.NoError(t, w.Append("acme/t", block(noise(64<<10))))
		}
	}
	size := func() (sum int64) {
		require.NoError(t, filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return nil //nolint:nilerr // files come and go
			}
			if info, err := entry.Info(); err == nil {
				sum += info.Size()
			}
			return nil
		}))
		return sum
	}
	require.Eventually(t, func() bool { return size() < 60<<20 }, 20*time.Second, 100*time.Millisecond, "%d MB were given up, and the log has grown so large", rounds*each>>20)
	got, _ := contents(t, log, Journal{"acme/t", "acme/x"}, 0)
	require.Equal(t, want, got)
	require.NoError(t, log.Close())
	log = open(t, dir)
	got, _ = contents(t, log, Journal{"acme/t", "acme/x"}, 0)
	require.Equal(t, want, got)
	require.NoError(t, log.Close())
}
