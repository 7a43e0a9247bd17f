package wal

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDrop: what was dropped is gone, its room too, for good; what is left is as it was, with its counts, and whoever reads goes on.
func TestDrop(t *testing.T) {
	t.Parallel()
	now, dir := epoch, t.TempDir()
	log := clocked(t, dir, &now)
	j := Journal{"a", "c"}
	w, err := log.Writer("c")
	require.NoError(t, err)
	noise := make([]byte, 256<<10) // does not compress
	random := rand.New(rand.NewPCG(1, 2))
	for range 120 {
		now = now.Add(time.Second)
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		for _, collection := range []string{"a", "b"} {
			require.NoError(t, w.Append(collection, block(string(noise), "2")))
		}
		require.NoError(t, w.Commit(t.Context(), Records{"state": []byte("1")}))
	}
	require.NoError(t, log.db.Flush())
	before, offsets := contents(t, log, j, 0)
	reading, err := log.Reader(j, 0, offsets[119])
	require.NoError(t, err)

	full := diskUsage(t, dir)
	place, err := log.At(j, epoch.Add(101*time.Second))
	require.NoError(t, err)
	require.Equal(t, offsets[99], place)
	for _, name := range log.Journals() {
		require.NoError(t, log.Drop(t.Context(), name, place))
	}
	n := 0
	for {
		_, _, ok, err := reading.Next()
		require.NoError(t, err)
		if !ok {
			break
		}
		n++
	}
	require.Equal(t, 120, n)
	require.NoError(t, reading.Close())
	require.Eventually(t, func() bool { return diskUsage(t, dir) < full*4/10 }, time.Minute, 10*time.Millisecond, "%d bytes, then %d", full, diskUsage(t, dir))

	check := func() {
		_, err := log.Reader(j, offsets[10], offsets[119])
		require.ErrorContains(t, err, "the log has dropped what stood at byte")
		require.Equal(t, place, log.Heads("a")[0].Start)
		after, _ := contents(t, log, j, place)
		require.Equal(t, before[200:], after)
		span, err := log.Span(j)
		require.NoError(t, err)
		require.Equal(t, Span{j, place, offsets[119], epoch.Add(101 * time.Second).Local(), epoch.Add(120 * time.Second).Local(), 20, 40, 0}, span)
		first, err := log.At(j, epoch)
		require.NoError(t, err)
		require.Equal(t, place, first)
	}
	check()
	require.NoError(t, log.Close())
	log = clocked(t, dir, &now)
	check()

	// All of it may go: then there is nothing, and nothing that was not counted.
	require.NoError(t, log.Drop(t.Context(), j, offsets[119]))
	span, err := log.Span(j)
	require.NoError(t, err)
	require.Equal(t, Span{Journal: j, Start: offsets[119], Head: offsets[119], Last: epoch.Add(120 * time.Second).Local()}, span)
	require.NoError(t, log.Close())
}

func diskUsage(t *testing.T, dir string) (bytes int64) {
	entries, err := os.ReadDir(filepath.Join(dir, logName))
	require.NoError(t, err)
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && !strings.HasSuffix(e.Name(), ".log") { // the engine uses these again
			bytes += info.Size()
		}
	}
	return bytes
}
