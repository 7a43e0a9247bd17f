package main

import (
	"testing"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// A report has where the log ends and how far the stream is, over files.
func TestReport(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := databaseOn(t, server.MySQL(t, flavor, nil))
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v LONGTEXT)")
		d := db.driver()
		before, err := d.Report(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, before.LogEnd)
		require.Negative(t, before.LagBytes)
		s := db.open(d, db.tables(d, "a")...)
		db.exec("INSERT INTO a VALUES (0, 'x')")
		require.Len(t, s.fence(), 1)
		_, err = s.Next(t.Context(), 0)
		require.NoError(t, err)
		r, err := d.Report(t.Context())
		require.NoError(t, err)
		require.True(t, r.AtEnd, "%+v", r)
		require.Zero(t, r.LagBytes)
		require.Equal(t, r.LogEnd, r.Received)
		require.WithinDuration(t, time.Now(), r.Now, time.Minute)
		require.Contains(t, r.LogStatus, "kept for ")
		require.Regexp(t, `^stream \d+$`, r.Processes)

		db.exec("INSERT INTO a VALUES (1, REPEAT('x', 100000))", "FLUSH BINARY LOGS", "INSERT INTO a VALUES (2, REPEAT('x', 100000))", "FLUSH BINARY LOGS", "INSERT INTO a VALUES (3, REPEAT('x', 100000))")
		r, err = d.Report(t.Context())
		require.NoError(t, err)
		require.False(t, r.AtEnd)
		require.InDelta(t, 302_000, r.LagBytes, 2_000)
	})
}

// Whoever falls behind hears of it before the server throws the log away; not all the time.
func TestRetentionWarning(t *testing.T) {
	t.Parallel()
	env := testEnv(t)
	hook := logtest.NewLocal(env.Log.Logger)
	d := &driver{log: env.Log}
	now := time.Now()
	d.warnOfRetention(progress{commit: now.Add(-time.Hour)}, now, 3*time.Hour)
	d.warnOfRetention(progress{commit: now.Add(-time.Hour)}, now, 0)
	d.warnOfRetention(progress{}, now, time.Hour)
	require.Empty(t, hook.AllEntries())
	for range 3 {
		d.warnOfRetention(progress{commit: now.Add(-2 * time.Hour)}, now, 3*time.Hour)
	}
	require.Len(t, hook.AllEntries(), 1)
	require.Contains(t, hook.LastEntry().Message, "the capture is 2h0m0s behind, and the server throws its log away after 3h0m0s")
}

// Two captures of one configuration read beside each other: the server ends no connection because of another one (hard case 48).
func TestTwoCaptures(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY)")
		var streams []*testStream
		for range 3 {
			d := db.driver()
			streams = append(streams, db.open(d, db.tables(d, "a")...))
		}
		for _, sql := range []string{"INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (2)"} {
			db.exec(sql)
			for _, s := range streams {
				require.Len(t, s.fence(), 1)
			}
		}
		require.NotEqual(t, cdc.Cursor(""), streams[0].cursor)
	})
}
