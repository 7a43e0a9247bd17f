package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/inspect"
	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/wal"
)

const day = 24 * time.Hour

// clock is a rig's clock, in nanoseconds.
type clock struct{ atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(0, c.Load()) }

// older is a rig whose log has a hundred documents of a hundred keys of eight days ago, read by the materialization one, and whose source
// has fifty more.
func older(t *testing.T) (*rig, *clock) {
	t.Helper()
	r, c := newRig(t, frame.Proto, fakeConfig{Total: 100, Batch: 5, Keys: 1000}), &clock{}
	c.Store(time.Now().Add(-20 * day).UnixNano()) // brokers take no times of the future
	r.options.Now, r.options.RetentionEvery = c.now, 5*time.Millisecond
	if onKafka(t) { // which has to be asked for every place
		r.options.RetentionEvery = 200 * time.Millisecond
	}
	r.sink("one", "atomic", frame.Proto, fakeConfig{})
	stop := r.start()
	r.wait("one")
	stop()
	c.Add(int64(8 * day))
	r.more(150)
	return r, c
}

// more has the source go on to so many documents.
func (r *rig) more(total int) {
	r.source.Total = total
	raw, err := json.Marshal(r.source)
	require.NoError(r.t, err)
	r.p.Captures[0].Endpoint.Config = raw
}

// since waits until a destination has what the documents from a number on make, and no more.
func (r *rig) since(name string, from int) {
	r.t.Helper()
	defer func() { r.source.From = 0 }()
	r.source.From = from
	r.wait(name)
	r.same(name)
}

// runFails runs the engine, which must refuse.
func (r *rig) runFails(want string) {
	r.t.Helper()
	require.ErrorContains(r.t, Run(r.t.Context(), r.defaults()), want)
}

func (r *rig) open() wal.Engine {
	r.t.Helper()
	o := r.defaults()
	log, err := o.openLog(r.t.Context(), nil)
	require.NoError(r.t, err)
	return log
}

// waitDropped waits until old documents were dropped from all parts of the log.
func (r *rig) waitDropped() {
	r.t.Helper()
	parts := 1
	if onKafka(r.t) {
		parts = r.p.Kafka.Partitions
	}
	require.Eventually(r.t, func() bool { return strings.Count(r.log.String(), "dropped old documents from the log") >= parts }, patience, 5*time.Millisecond)
}

// left counts the documents that the log still has.
func (r *rig) left() (n int) {
	r.t.Helper()
	log := r.open()
	for _, h := range log.Heads("acme/things") {
		reader, err := log.Reader(h.Journal, h.Start, h.Offset)
		require.NoError(r.t, err)
		for {
			b, _, ok, err := reader.Next()
			require.NoError(r.t, err)
			if !ok {
				break
			}
			n += b.Count
		}
		require.NoError(r.t, reader.Close())
	}
	require.NoError(r.t, log.Close())
	return n
}

// TestFromATime: a new materialization gets what was committed since, also if it did not get to commit anything before the next start; one
// that has begun is not moved.
func TestFromATime(t *testing.T) { onBoth(t, testFromATime) }

func testFromATime(t *testing.T) {
	t.Parallel()
	r, c := older(t)
	r.options.From = &materialize.Beginning{Time: c.now().Add(-day)}
	r.runFails("the materialization acme/one has begun already, so --from has no meaning for it: leave it out, and it goes on where it was")
	r.options.From.Materialization = "acme/none"
	r.runFails(`--from is for a materialization, and the pipeline has none called "acme/none"`)

	r.sink("late", "atomic", frame.Proto, fakeConfig{})
	log := r.open()
	require.NoError(t, materialize.Begin(t.Context(), log, r.p.Materializations, materialize.Beginning{Time: c.now().Add(-day)}))
	require.NoError(t, log.Close())
	r.options.From = nil
	stop := r.start()
	r.wait("one")
	r.since("late", 100)
	// While it runs the log can be looked at.
	looking, err := inspect.OpenElsewhere(r.defaults().DataDir, func() (wal.Engine, error) { return nil, errors.New("nobody has it open") })
	require.NoError(t, err)
	report, err := looking.Report(t.Context())
	require.NoError(t, err)
	parts := 1
	if onKafka(t) {
		parts = len(report.Collections[0].Journals)
	}
	require.Len(t, report.Collections[0].Readers, 4*parts)
	require.EqualValues(t, 150, report.Collections[0].Sum().Documents)
	stop()
	require.Contains(t, r.log.String(), "of rows of which only a part has, no more than that part")
	_, err = os.Stat(r.defaults().DataDir + "/log.sock")
	require.ErrorIs(t, err, os.ErrNotExist)

	// Its place is that of its checkpoint from now on.
	r.more(170)
	stop = r.start()
	r.since("late", 100)
	r.wait("one")
	stop()
	r.same("one")

	// A counter that was raised makes it new.
	for i := range r.p.Materializations[1].Bindings {
		r.p.Materializations[1].Bindings[i].Backfill = 1
	}
	c.Add(int64(day))
	r.options.From = &materialize.Beginning{Materialization: "acme/late", Time: c.now()}
	r.more(180)
	stop = r.start()
	r.since("late", 170)
	stop()
}

// TestFromACheckpoint: a new materialization begins where another one has got to.
func TestFromACheckpoint(t *testing.T) { onBoth(t, testFromACheckpoint) }

func testFromACheckpoint(t *testing.T) {
	t.Parallel()
	r, _ := older(t)
	r.sink("copy", "staged", frame.JSON, fakeConfig{})
	r.options.From = &materialize.Beginning{Checkpoint: "acme/other"}
	r.runFails("the materialization acme/copy cannot begin where acme/other has got to, since that does not read the collection acme/things")
	r.options.From = &materialize.Beginning{Checkpoint: "acme/one"}
	stop := r.start()
	r.since("copy", 100)
	stop()
}

func TestRetention(t *testing.T) { onBoth(t, testRetention) }

func testRetention(t *testing.T) {
	t.Parallel()
	r, _ := older(t)
	r.p.Retention = pipeline.Retention{Time: 7 * day}
	stop := r.start()
	r.wait("one")
	r.waitDropped()
	stop()
	r.same("one")
	require.Equal(t, 50, r.left())

	// What begins at the beginning would lack rows.
	r.sink("late", "atomic", frame.Proto, fakeConfig{})
	r.log.reset()
	stop = r.start()
	r.waitLog("test.yaml:22: the materialization acme/late cannot be filled from the log, which no longer has the beginning of the collection acme/things: it is longer ago than the pipeline's log.retention. " +
		"Raise the backfill counter of the capture's binding to read the source anew; or run once with --from")
	stop()
	r.options.From = &materialize.Beginning{Time: r.options.Now().Add(-day)}
	stop = r.start()
	r.since("late", 100)
	stop()
	r.options.From = nil

	// So does a source that is read anew.
	r.sink("anew", "atomic", frame.Proto, fakeConfig{})
	r.p.Captures[0].Bindings[0].Backfill = 1
	stop = r.start()
	r.since("anew", 0)
	stop()
}

// TestRetentionHolds: what a materialization has not read is kept, and said, until it has read it or is forgotten.
func TestRetentionHolds(t *testing.T) { onBoth(t, testRetentionHolds) }

func testRetentionHolds(t *testing.T) {
	t.Parallel()
	r, _ := older(t)
	r.sink("slow", "atomic", frame.Proto, fakeConfig{})
	r.holdsFor(r.p.Materializations[1])
	r.p.Retention = pipeline.Retention{}
	stop := r.start()
	r.wait("slow")
	stop()
	r.more(160)
	r.p.Materializations = r.p.Materializations[:1] // paused, or given up
	stop = r.start()
	r.wait("one")
	stop()
	r.p.Retention = pipeline.Retention{Bytes: 100}
	stop = r.start()
	r.waitLog("for a materialization that the pipeline does not have now: if it was given up, stop sluice and let it be forgotten (sluice log forget)")
	stop()

	require.GreaterOrEqual(t, r.left(), 10, "which it has not read")
	log, err := OpenRecords(t.Context(), r.p, r.defaults().DataDir, r.defaults().Logger)
	require.NoError(t, err)
	require.ErrorContains(t, materialize.Forget(t.Context(), log, r.p, "acme/slaw", ""), "the log knows no materialization acme/slaw: sluice log stats shows those that it knows")
	require.ErrorContains(t, materialize.Forget(t.Context(), log, r.p, "acme/slow", "things"), "the materialization acme/slow has no binding things that it could forget")
	paused := &pipeline.Pipeline{Paused: []*pipeline.Materialization{{Name: "acme/slow", At: "shop.yaml:7"}}}
	require.ErrorContains(t, materialize.Forget(t.Context(), log, paused, "acme/slow", ""),
		"the pipeline's file still has the materialization acme/slow (shop.yaml:7), which would begin anew: it is forgotten only when it was given up. "+
			"Take it out of the file first; or leave it, and raise the backfill of its bindings, if it is to begin anew")
	require.ErrorContains(t, materialize.Forget(t.Context(), log, r.p, "acme/one", ""), "the pipeline's file still has the materialization acme/one")
	require.NoError(t, materialize.Forget(t.Context(), log, r.p, "acme/slow", ""))
	require.NoError(t, log.Close())
	r.log.reset()
	stop = r.start()
	r.waitDropped()
	stop()
	require.Zero(t, r.left())
}

// TestRetentionHoldsForNewBindings: what a binding needs that was added, or whose counter was raised, is kept from the start on, also
// while the destination cannot be reached to hear of it.
func TestRetentionHoldsForNewBindings(t *testing.T) { onBoth(t, testRetentionHoldsForNewBindings) }

func testRetentionHoldsForNewBindings(t *testing.T) {
	t.Parallel()
	r, _ := older(t)
	one := r.p.Materializations[0]
	for i := range one.Bindings {
		one.Bindings[i].Backfill = 1
	}
	r.holdsFor(one)
	stop := r.start()
	r.since("one", 0)
	stop()
}

// TestForgottenBinding: a binding that was taken out is remembered until it is forgotten, by itself; the others go on where they were.
// (This destination keeps positions, also that of the forgotten one: when it comes back, it repeats nothing.)
func TestForgottenBinding(t *testing.T) { onBoth(t, testForgottenBinding) }

func testForgottenBinding(t *testing.T) {
	t.Parallel()
	r, _ := older(t)
	one := r.p.Materializations[0]
	both := one.Bindings
	one.Bindings = both[:1]
	stop := r.start()
	require.Eventually(t, func() bool {
		things, _ := r.rows("one")
		return fmt.Sprint(things) == fmt.Sprint(r.expect().rows)
	}, patience, 5*time.Millisecond)
	stop()
	one.Bindings = both
	log := r.open()
	keys := func() (keys []string) {
		readers, err := materialize.Readers(log, nil)
		require.NoError(t, err)
		for _, reader := range readers {
			keys = append(keys, reader.StateKey)
		}
		slices.Sort(keys)
		return slices.Compact(keys) // each is there for every part of the log
	}
	require.Equal(t, []string{"history", "things"}, keys())
	for _, kept := range []*pipeline.Materialization{{Name: one.Name, Bindings: both}, {Name: one.Name, Bindings: both[:1], Paused: both[1:]}} {
		require.ErrorContains(t, materialize.Forget(t.Context(), log, &pipeline.Pipeline{Materializations: []*pipeline.Materialization{kept}}, "acme/one", "history"),
			"the pipeline's file still has the binding history of the materialization acme/one ("+both[1].At+"), which would begin anew: it is forgotten only when it was given up. "+
				"Take it out of the file first; or leave it, and raise its backfill, if it is to begin anew")
	}
	require.Equal(t, []string{"history", "things"}, keys())
	given := &pipeline.Materialization{Name: one.Name, Bindings: both[:1]}
	require.NoError(t, materialize.Forget(t.Context(), log, &pipeline.Pipeline{Materializations: []*pipeline.Materialization{given}}, "acme/one", "history"))
	require.Equal(t, []string{"things"}, keys())
	require.NoError(t, log.Close())
	stop = r.start()
	r.wait("one")
	stop()
	r.same("one")
}

// holdsFor runs with hardly any retention, and a destination that cannot be reached: nothing may be dropped, and that is said.
func (r *rig) holdsFor(m *pipeline.Materialization) {
	r.t.Helper()
	command := m.Endpoint.Command
	m.Endpoint.Command = []string{"/bin/false"}
	r.p.Retention = pipeline.Retention{Bytes: 100}
	stop := r.start()
	r.waitLog("the log keeps more than log.retention wants, because a materialization, or a binding that it had, has not read it yet")
	stop()
	require.NotContains(r.t, r.log.String(), "dropped old documents")
	m.Endpoint.Command = command
}

// TestRetentionWaitsForTheDestination: a destination that keeps positions itself may say that its commit has started, and then fail. What
// it did not get is still there, also after another start.
func TestRetentionWaitsForTheDestination(t *testing.T) {
	onBoth(t, testRetentionWaitsForTheDestination)
}

func testRetentionWaitsForTheDestination(t *testing.T) {
	t.Parallel()
	r, _ := older(t)
	one := r.p.Materializations[0]
	config := one.Endpoint.Config
	one.Endpoint.Config = bytes.Replace(config, []byte(`"started":false`), []byte(`"started":true`), 1)
	r.p.Retention = pipeline.Retention{Bytes: 1}
	for range 2 {
		r.log.reset()
		stop := r.start()
		require.Eventually(t, func() bool {
			return strings.Count(r.log.String(), "the commit failed") >= 3 || strings.Contains(r.log.String(), "had not read")
		}, patience, 5*time.Millisecond)
		stop()
		require.NotContains(t, r.log.String(), "had not read")
	}
	one.Endpoint.Config = config
	stop := r.start()
	r.wait("one")
	r.same("one")
	stop()
}

// TestRetentionDropsUnread: if the pipeline wants it, and the materialization that had not read it stops.
func TestRetentionDropsUnread(t *testing.T) { onBoth(t, testRetentionDropsUnread) }

func testRetentionDropsUnread(t *testing.T) {
	t.Parallel()
	r, c := older(t)
	paused := r.p.Materializations
	r.sink("two", "atomic", frame.Proto, fakeConfig{})
	r.p.Materializations = r.p.Materializations[1:]
	stop := r.start()
	r.wait("two")
	stop()
	c.Add(int64(8 * day))
	r.p.Retention = pipeline.Retention{Time: 7 * day, DropUnread: true}
	if onKafka(t) {
		r.expire()
	} else {
		stop = r.start()
		r.waitLog("dropped documents from the log that a materialization has not read, as log.retention wants it: it stops until its backfill counter and that of the capture are raised")
		r.waitDropped()
		stop()
	}
	r.p.Materializations = paused
	stop = r.start()
	r.waitLog("of the collection acme/things which the materialization acme/one had not read: it was further behind than the pipeline's log.retention, which says unread: drop, or its destination was put back to an earlier state. " +
		"Raise the backfill counters of the capture's binding and of the materialization's, to fill it anew")
	stop()
}
