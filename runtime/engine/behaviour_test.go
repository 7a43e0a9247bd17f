package engine

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func TestTwoMaterializationsReadTheSourceOnce(t *testing.T) {
	onBoth(t, testTwoMaterializationsReadTheSourceOnce)
}

func testTwoMaterializationsReadTheSourceOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 500, Batch: 5, Keys: 30})
	r.sink("one", "atomic", frame.Proto, fakeConfig{})
	r.sink("two", "staged", frame.JSON, fakeConfig{})
	stop := r.start()
	r.wait("one")
	r.wait("two")
	stop()
	r.same("one")
	r.same("two")
	for _, row := range r.options.Board.Snapshot() {
		if row.Kind == status.Capture {
			require.EqualValues(t, 500, row.Bindings[0].Documents, "documents captured")
		}
		require.Equal(t, status.Stopped, row.State)
		require.Zero(t, row.Restarts)
	}
}

func TestLaterMaterializationReplaysTheLog(t *testing.T) {
	onBoth(t, testLaterMaterializationReplaysTheLog)
}

func testLaterMaterializationReplaysTheLog(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 300, Batch: 5, Keys: 30})
	r.sink("one", "atomic", frame.Proto, fakeConfig{})
	stop := r.start()
	r.wait("one")
	stop()
	r.sink("late", "atomic", frame.JSON, fakeConfig{})
	stop = r.start()
	r.wait("late")
	stop()
	r.same("one")
	r.same("late")
}

// TestSchemaChangesWhileRunning: the field is there before the first row that has it is stored, and nothing is lost at
// the change of sessions; also when the source announces it behind the documents, and these are so large that the log
// has them already.
func TestSchemaChangesWhileRunning(t *testing.T) { onBoth(t, testSchemaChangesWhileRunning) }

func testSchemaChangesWhileRunning(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fake   string
		source fakeConfig
	}{
		"atomic":     {"atomic", fakeConfig{Total: 400, Batch: 5, Keys: 20, AlterAt: 203}},
		"staged":     {"staged", fakeConfig{Total: 400, Batch: 5, Keys: 20, AlterAt: 203}},
		"late":       {"atomic", fakeConfig{Total: 300, Batch: 5, Keys: 20, AlterAt: 203, Late: true}},
		"late large": {"atomic", fakeConfig{Total: 30, Batch: 5, Keys: 20, AlterAt: 21, Late: true, Pad: 200 << 10}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.source.Paced = true
			r := newRig(t, frame.Proto, c.source)
			m := r.sink("one", c.fake, frame.Proto, fakeConfig{})
			m.Bindings[0].Fields.Exclude, m.Bindings[1].Fields.Exclude = []string{"pad"}, []string{"pad"}
			stop := r.start()
			r.wait("one")
			stop()
			r.same("one")
			r.altered("one")
		})
	}
}

func TestBackfillCounterOfAMaterialization(t *testing.T) {
	onBoth(t, testBackfillCounterOfAMaterialization)
}

func testBackfillCounterOfAMaterialization(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 200, Batch: 5, Keys: 30})
	m := r.sink("one", "atomic", frame.Proto, fakeConfig{})
	stop := r.start()
	r.wait("one")
	stop()
	// One binding anew: its table is emptied by the connector and filled from the log's start, the other stays.
	m.Bindings[0].Backfill = 1
	stop = r.start()
	r.waitLog("applied the materialization")
	r.wait("one")
	stop()
	r.same("one")
}

// A counter that goes back would go on where the higher one began, with nothing of what came since.
func TestBackfillCounterGoesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 200, Batch: 5, Keys: 30})
	m := r.sink("one", "atomic", frame.Proto, fakeConfig{})
	m.Bindings[0].Backfill, r.p.Captures[0].Bindings[0].Backfill = 3, 2
	stop := r.start()
	r.wait("one")
	stop()
	m.Bindings[0].Backfill, r.p.Captures[0].Bindings[0].Backfill = 0, 1
	stop = r.start()
	r.waitLog(" was 3, and is 0 now. It can only be increased: set it to 3 to go on, or to 4 to start anew.")
	r.waitLog(" was 2, and is 1 now. It can only be increased: set it to 2 to go on, or to 3 to start anew.")
	stop()
	m.Bindings[0].Backfill, r.p.Captures[0].Bindings[0].Backfill = 3, 2
	stop = r.start()
	r.wait("one")
	stop()
	r.same("one")
}

// TestBackfillCounterOfACapture: what the source lost while nobody listened is gone from destinations which begin anew
// as well: they read from where the new backfill began.
func TestBackfillCounterOfACapture(t *testing.T) { onBoth(t, testBackfillCounterOfACapture) }

func testBackfillCounterOfACapture(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 200, Batch: 5, Keys: 1000})
	m := r.sink("one", "atomic", frame.Proto, fakeConfig{})
	stop := r.start()
	r.wait("one")
	stop()
	before, _ := r.rows("one")
	r.source.From, r.source.Total = 90, 220
	raw, err := json.Marshal(r.source)
	require.NoError(t, err)
	r.p.Captures[0].Endpoint.Config = raw
	r.p.Captures[0].Bindings[0].Backfill = 1
	m.Bindings[0].Backfill, m.Bindings[1].Backfill = 1, 1
	r.sink("late", "staged", frame.Proto, fakeConfig{})
	stop = r.start()
	r.wait("one")
	r.wait("late")
	stop()
	r.same("one")
	r.same("late")
	after, _ := r.rows("one")
	require.NotSubset(t, after, before)
	require.Contains(t, r.log.String(), "captured anew: rows that were deleted meanwhile stay in a destination until")
	stop = r.start() // and only once
	r.wait("one")
	stop()
	require.Equal(t, 1, strings.Count(r.log.String(), "captured anew"))
}

func TestSweepsKeepTheirInterval(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 50, Batch: 5, Keys: 10, Sweep: true})
	r.p.Captures[0].Interval = 300 * time.Millisecond
	r.sink("one", "atomic", frame.Proto, fakeConfig{})
	began := time.Now()
	stop := r.start()
	r.wait("one")
	require.Eventually(t, func() bool { return strings.Count(r.log.String(), "the connector ended") >= 3 }, 20*time.Second, 10*time.Millisecond)
	require.GreaterOrEqual(t, time.Since(began), 600*time.Millisecond)
	stop()
	r.same("one")
	require.NotContains(t, r.log.String(), "level=error", "a connector that ends while acknowledgements are owed is fine")
}

func TestLargeDocuments(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("moves some 200 MB")
	}
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		t.Run(codec.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, codec, fakeConfig{Total: 1, Batch: 1, Keys: 1, Pad: 60 << 20})
			m := r.sink("one", "atomic", codec, fakeConfig{})
			m.Bindings = m.Bindings[:1]
			stop := r.start()
			require.Eventually(t, func() bool {
				for _, row := range r.options.Board.Snapshot() {
					if row.Kind == status.Materialization && row.Checkpoints > 0 {
						return true
					}
				}
				return false
			}, 3*patience, 20*time.Millisecond, "%s", r.log) // minutes under the race detector
			stop()
			rows, _ := r.rows("one")
			require.Equal(t, r.expect().rows, rows)
		})
	}
}

func TestTwoRunsOnOneDataFolder(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 10, Batch: 5, Keys: 10})
	ready := make(chan struct{})
	r.options.Ready = func() { close(ready) }
	r.start()
	<-ready
	o := r.defaults()
	o.Ready = nil
	err := Run(t.Context(), o)
	require.Error(t, err)
	require.Contains(t, usererr.Message(err), "is in use by another sluice run (process")
}

// TestFullDisk: nothing is committed while the disk of the data folder is full, the message says so, and it goes on by
// itself afterwards.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 300, Batch: 5, Keys: 30, Paced: true})
	r.sink("one", "atomic", frame.Proto, fakeConfig{})
	var calls atomic.Int64
	r.options.FreeBytes = func() (uint64, error) {
		if n := calls.Add(1); n > 40 && n < 60 {
			return 0, nil
		}
		return 1 << 40, nil
	}
	stop := r.start()
	r.waitLog("is full: 0 MB are free")
	r.wait("one")
	stop()
	r.same("one")
}

// TestAnotherLog: a destination that was filled from another data folder is not filled from this one by mistake.
func TestAnotherLog(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 50, Batch: 5, Keys: 10})
	r.sink("one", "atomic", frame.Proto, fakeConfig{})
	stop := r.start()
	r.wait("one")
	stop()
	require.NoError(t, os.RemoveAll(filepath.Join(r.dir, "data")))
	r.start()
	r.waitLog("of another log than the one in this data folder")
}

// TestOlderBackup: a data folder that is older than the destination is noticed.
func TestOlderBackup(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 50, Batch: 5, Keys: 10})
	r.sink("one", "atomic", frame.Proto, fakeConfig{})
	stop := r.start()
	r.wait("one")
	stop()
	backup := filepath.Join(r.dir, "backup")
	require.NoError(t, os.CopyFS(backup, os.DirFS(filepath.Join(r.dir, "data"))))
	r.source.Total = 100
	raw, err := json.Marshal(r.source)
	require.NoError(t, err)
	r.p.Captures[0].Endpoint.Config = raw
	stop = r.start()
	r.wait("one")
	stop()
	require.NoError(t, os.RemoveAll(filepath.Join(r.dir, "data")))
	require.NoError(t, os.Rename(backup, filepath.Join(r.dir, "data")))
	r.p.Captures = nil
	r.start()
	r.waitLog("was put back from an older backup")
}

// TestSecretsAreNotKept: configurations are given to connectors, and written nowhere.
func TestSecretsAreNotKept(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 50, Batch: 5, Keys: 10, Crash: "checkpoint"})
	m := r.sink("one", "atomic", frame.Proto, fakeConfig{Crash: "store"})
	for _, e := range []*json.RawMessage{&r.p.Captures[0].Endpoint.Config, &m.Endpoint.Config} {
		*e = append((*e)[:len(*e)-1], `,"password":"hunter2hunter2"}`...)
	}
	stop := r.start()
	r.wait("one")
	stop()
	stop = r.start() // with last specifications
	r.wait("one")
	stop()
	require.NotContains(t, r.log.String(), "hunter2")
	log, err := wal.Open(wal.Options{Dir: filepath.Join(r.dir, "data"), MinFreeBytes: 1, Log: r.defaults().Logger.WithContext(context.Background())})
	require.NoError(t, err)
	defer func() { require.NoError(t, log.Close()) }()
	for _, name := range []string{"capture/acme/source/spec", "materialization/acme/one/spec"} {
		record, err := log.Get(name)
		require.NoError(t, err)
		require.NotEmpty(t, record)
		require.NotContains(t, string(record), "hunter2")
	}
}
