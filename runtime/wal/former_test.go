package wal

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/process"
)

// A data folder from before blocks were kept apart from their keys is read, added to and merged as any other.
func TestFolderWithBlocksBesideTheirKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var want []string
	write := func(log *Embedded) {
		w, err := log.Writer("c")
		require.NoError(t, err)
		for range 40 {
			want = append(want, fmt.Sprintf(`"%d %s"`, len(want), strings.Repeat("x", 8<<10)))
			require.NoError(t, w.Append("a", block(want[len(want)-1])))
			require.NoError(t, w.Commit(t.Context(), Records{"state": []byte("1")}))
		}
	}
	same := func(log *Embedded) {
		got, _ := contents(t, log, Journal{"a", "c"}, 0)
		require.Equal(t, want, got)
	}
	log := open(t, dir)
	write(log)
	require.NoError(t, log.Close())

	// What the engine has in its own log only becomes a table here, as it was made then.
	db, err := pebble.Open(filepath.Join(dir, "log"), &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest, MemTableSize: 8 << 20, Logger: logger{logrus.NewEntry(process.Discard())},
	})
	require.NoError(t, err)
	require.NoError(t, db.Flush())
	require.Zero(t, db.Metrics().BlobFiles.LiveCount)
	require.NoError(t, db.Close())

	log = open(t, dir)
	same(log)
	write(log)
	require.NoError(t, log.db.Flush())
	require.NotZero(t, log.db.Metrics().BlobFiles.LiveCount)
	same(log)
	require.NoError(t, log.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false))
	same(log)
	require.NoError(t, log.Close())
	log = open(t, dir)
	same(log)
	require.NoError(t, log.Close())
}
