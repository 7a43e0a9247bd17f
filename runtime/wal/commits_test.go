package wal

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/process"
)

var epoch = time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)

// clocked opens a log whose clock is *now.
func clocked(t require.TestingT, dir string, now *time.Time) *Embedded {
	log, err := Open(Options{Dir: dir, Log: logrus.NewEntry(process.Discard()), MinFreeBytes: 1, Now: func() time.Time { return *now }})
	require.NoError(t, err)
	return log
}

// TestTimesFindTheirPlace: in both journals of a capture, for every time, the place is where the first commit of that time or later
// begins; also after the log was opened again, and whatever the clock does.
func TestTimesFindTheirPlace(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			checkTimes(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func checkTimes(t *testing.T, random *rand.Rand) {
	now, latest := epoch, epoch
	dir := t.TempDir()
	log := clocked(t, dir, &now)
	defer func() { require.NoError(t, log.Close()) }()
	w, err := log.Writer("c")
	require.NoError(t, err)
	model := map[string][]Commit{}
	for range 1 + random.IntN(20) {
		now = now.Add(time.Duration(random.IntN(8)-2) * time.Second)
		at := latest
		if len(model) == 0 || now.After(at) {
			at = now
		}
		for _, collection := range []string{"a", "b"} {
			c := Commit{Time: at}
			if n := len(model[collection]); n > 0 {
				c = model[collection][n-1]
				c.Start, c.Time = c.End, at
			}
			c.Commits++
			blocks := random.IntN(4)
			for i := range blocks {
				b := block(fmt.Sprintf("%0*d", i+1, 1), "2")
				require.NoError(t, w.Append(collection, b))
				c.End += int64(headerSize + b.Size())
				c.Documents += 2
			}
			if blocks > 0 {
				model[collection], latest = append(model[collection], c), at
			}
		}
		require.NoError(t, w.Commit(t.Context(), nil))
		if random.IntN(6) == 0 {
			require.NoError(t, log.Close())
			log = clocked(t, dir, &now)
			w, err = log.Writer("c")
			require.NoError(t, err)
		}
	}
	for collection, commits := range model {
		name := Journal{collection, "c"}
		last := commits[len(commits)-1]
		span, err := log.Span(name)
		require.NoError(t, err)
		require.Equal(t, Span{name, 0, last.End, commits[0].Time.Local(), last.Time.Local(), last.Commits, last.Documents, 0}, span)
		for at := epoch.Add(-3 * time.Second); !at.After(latest.Add(time.Second)); at = at.Add(500 * time.Millisecond) {
			want := last.End
			for i := len(commits) - 1; i >= 0 && !commits[i].Time.Before(at); i-- {
				want = commits[i].Start
			}
			got, err := log.At(name, at)
			require.NoError(t, err)
			require.Equal(t, want, got, "%s at %s", name, at)
		}
		through, err := log.Through(name, last.End-1)
		require.NoError(t, err)
		want := Commit{}
		if len(commits) > 1 {
			want = commits[len(commits)-2]
			want.Time = want.Time.Local()
		}
		require.Equal(t, want, through)
	}
}

// TestTimesOfAnOlderLog: where an older version kept nothing of commits, the times of blocks stand in.
func TestTimesOfAnOlderLog(t *testing.T) {
	t.Parallel()
	now, dir := epoch, t.TempDir()
	log := clocked(t, dir, &now)
	j := Journal{"a", "c"}
	write := func(n int) (ends []int64) {
		w, err := log.Writer("c")
		require.NoError(t, err)
		for range n {
			now = now.Add(time.Second)
			require.NoError(t, w.Append("a", block("1", "2")))
			require.NoError(t, w.Commit(t.Context(), nil))
			ends = append(ends, log.Heads("a")[0].Offset)
		}
		return ends
	}
	old := write(5)
	require.NoError(t, log.db.DeleteRange([]byte{keyCommit}, []byte{keyCommit + 1}, pebble.Sync))
	at := func(seconds float64) int64 {
		place, err := log.At(j, epoch.Add(time.Duration(seconds*float64(time.Second))))
		require.NoError(t, err)
		return place
	}
	span, err := log.Span(j)
	require.NoError(t, err)
	first := epoch.Add(time.Second).Local()
	require.Equal(t, Span{j, 0, old[4], first, first, 0, 0, old[4]}, span)
	require.Equal(t, []int64{0, 0, old[0], old[4]}, []int64{at(0), at(1), at(1.5), at(99)})

	fresh := write(3)
	span, err = log.Span(j)
	require.NoError(t, err)
	require.Equal(t, Span{j, 0, fresh[2], first, epoch.Add(8 * time.Second).Local(), 3, 6, old[4]}, span)
	require.Equal(t, []int64{0, old[0], old[4], old[4], fresh[0], fresh[2]}, []int64{at(0), at(2), at(5.5), at(6), at(7), at(8.5)})
	require.NoError(t, log.Close())
}

// TestReadOnly: a log is read as it stands, and is made nowhere.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	readOnly := Options{Dir: dir, Log: logrus.NewEntry(process.Discard()), ReadOnly: true}
	_, err := Open(readOnly)
	require.ErrorContains(t, err, "there is no log in the data folder "+dir+" (no such file or directory): no sluice run has used it yet")
	log := open(t, dir)
	w, err := log.Writer("c")
	require.NoError(t, err)
	require.NoError(t, w.Append("a", block("1")))
	require.NoError(t, w.Commit(t.Context(), Records{"x/1": []byte("1"), "x/2": []byte("2"), "y": []byte("3")}))
	_, err = Open(readOnly)
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, log.Close())

	log, err = Open(readOnly)
	require.NoError(t, err)
	docs, _ := contents(t, log, Journal{"a", "c"}, 0)
	require.Equal(t, []string{"1"}, docs)
	names, err := log.Names("x/")
	require.NoError(t, err)
	require.Equal(t, []string{"x/1", "x/2"}, names)
	require.ErrorIs(t, log.db.Set([]byte("x"), nil, nil), pebble.ErrReadOnly)
	require.NoError(t, log.Close())
}
