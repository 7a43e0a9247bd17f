// Package engine runs a pipeline: it opens the log, keeps every task alive, and stops all in order.
package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/capture"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/inspect"
	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Options say how a pipeline is run. Zero values have sensible meanings.
type Options struct {
	Pipeline *pipeline.Pipeline
	DataDir  string
	Logger   *logrus.Logger
	Board    *status.Board // nil makes one that nobody sees
	Launcher connector.Launcher
	// Backoff between the restarts of a task that fails; zero is 0.5 s to 30 s.
	Backoff             retry.Backoff
	Capture             capture.Timeouts
	Materialize         materialize.Timeouts
	MaxTransactionBytes int
	MinFreeBytes        uint64                 // see wal.Options
	FreeBytes           func() (uint64, error) // see wal.Options
	// Join shares the pipeline with other processes that do so, through its log on Kafka: each runs some of the tasks and their shards.
	Join bool
	// From is where materializations that are new begin; nil is with the oldest documents of the log. It is refused for others.
	From *materialize.Beginning
	// RetentionEvery is how often the log's retention is looked after; zero is a minute. Now is its clock, and the log's; nil is the system's.
	RetentionEvery time.Duration
	Now            func() time.Time
	// Ready is called once when the data folder is ours and the tasks start; nil is nobody.
	Ready func()

	fingerprint string // of the pipeline, if its log is on Kafka
}

// healthy is how long a task must have lived for its next failure to be its first again.
const healthy = 10 * time.Second

// DataDir is the data folder of a pipeline whose user named none: beside the file, and called like it.
func DataDir(file string) string { return strings.TrimSuffix(file, filepath.Ext(file)) + ".data" }

// Run runs a pipeline until the context is over, and returns when everything has stopped: captures first, at a
// checkpoint, then materializations, behind their transaction. Errors are for people; a task that fails is none, it is
// started again. One wraps [wal.ErrFenced] if another process has taken the pipeline over, where the log is not on this machine.
func Run(ctx context.Context, o Options) error {
	if o.Board == nil {
		o.Board = status.NewBoard()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Backoff == (retry.Backoff{}) {
		o.Backoff = retry.Backoff{Min: 500 * time.Millisecond, Max: 30 * time.Second, Factor: 2, Jitter: 0.2}
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if o.Pipeline.Kafka != nil {
		var err error
		if o.fingerprint, err = o.Pipeline.Fingerprint(o.Pipeline.Kafka.Prefix); err != nil {
			return err
		}
	}
	log, err := o.openLog(ctx, stop)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil // it was told to stop before it had begun
		}
		return err
	}
	runErr := o.begin(ctx, log)
	if runErr == nil {
		runErr = o.run(ctx, log, stop)
	}
	if err := log.Close(); err != nil && runErr == nil {
		runErr = usererr.New(err, "closing the log in %s failed; what was committed is safe", o.DataDir)
	}
	if why := context.Cause(ctx); errors.Is(why, wal.ErrFenced) {
		return why
	}
	return runErr
}

// begin notes where new materializations begin.
func (o *Options) begin(ctx context.Context, log wal.Engine) error {
	if o.From == nil {
		return nil
	}
	return materialize.Begin(ctx, log, o.Pipeline.Materializations, *o.From)
}

func (o *Options) run(ctx context.Context, log wal.Engine, stop func(error)) error {
	collections, err := collection.Open(ctx, log, o.Pipeline.Collections)
	if err != nil {
		return err
	}
	if err := collections.Review(ctx, log, logrus.NewEntry(o.Logger)); err != nil {
		return err
	}
	if err := collections.CopyTo(o.DataDir); err != nil {
		return err
	}
	served, err := inspect.Serve(ctx, o.DataDir, log, o.Logger)
	if err != nil {
		o.Logger.WithError(err).Warn("sluice log cannot look at the log while this runs")
	} else {
		defer func() {
			if err := served.Close(); err != nil {
				o.Logger.WithError(err).Debug("closing the log's socket")
			}
		}()
	}
	identity := log.Identity()
	o.Launcher.Instance = hex.EncodeToString(identity[:])

	if o.Ready != nil {
		o.Ready()
	}
	c := &crew{Options: o, log: log, collections: collections, running: newRunning(log, units(o.Pipeline))}
	var retaining sync.WaitGroup
	defer retaining.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	if bounded, ok := o.bounded(log); ok {
		r := &retention{
			log: bounded, rule: o.Pipeline.Retention, defs: o.Pipeline.Materializations, board: o.Board, now: o.Now,
			running: c.running, logger: logrus.NewEntry(o.Logger), warned: map[string]time.Time{},
		}
		retaining.Go(func() { r.run(ctx, o.RetentionEvery) })
	}
	if p, ok := log.(placer); ok && o.Join {
		return c.share(ctx, p)
	}
	return c.all(ctx, stop)
}

// all runs all units, until the context is over. Materializations outlive captures, so that they stop behind what these have sent. fenced is told if
// another process takes one of them over.
func (c *crew) all(ctx context.Context, fenced func(error)) error {
	all := units(c.Pipeline)
	stores := make([]wal.Store, len(all))
	for i, u := range all {
		var err error
		if stores[i], err = c.log.Take(ctx, u.task(), fenced); err != nil {
			if ctx.Err() != nil {
				return nil // it was told to stop before it had begun
			}
			return err
		}
	}
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()
	var captures, materializations sync.WaitGroup
	for i, u := range all {
		if u.capture != nil {
			captures.Go(func() { c.live(ctx, u, stores[i]) })
		} else {
			materializations.Go(func() { c.live(behind, u, stores[i]) })
		}
	}
	<-ctx.Done()
	c.Logger.Info("stopping")
	captures.Wait()
	stopBehind()
	materializations.Wait()
	return nil
}

// keep runs a task again and again until the context is over: after a clean end not before its interval has passed since
// it began, after a failure with pauses that grow until it works again.
func (o *Options) keep(ctx context.Context, st *status.Task, log *logrus.Entry, interval time.Duration, run func(context.Context) error) {
	failures := 0
	for ctx.Err() == nil {
		began, done := time.Now(), st.Checkpoints()
		err := run(ctx)
		lived := time.Since(began)
		var pause time.Duration
		switch {
		case ctx.Err() != nil:
		case err == nil:
			failures, pause = 0, interval-lived
			st.Set(status.Waiting)
			log.WithField("next", max(pause, 0).Round(time.Second).String()).Info("the connector ended")
		default:
			if lived > healthy || st.Checkpoints() != done {
				failures = 0
			}
			failures++
			pause = o.Backoff.Delay(failures, rand.Float64())
			st.Fail(usererr.Message(err))
			logFailure(log.WithFields(logrus.Fields{"retry": pause.Round(time.Millisecond).String(), "failures": failures}), err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	st.Set(status.Stopped)
}

// logFailure logs why a task failed, once: what its connector has logged as an error itself is not repeated as one.
func logFailure(log *logrus.Entry, err error) {
	message := usererr.Message(err)
	if full := err.Error(); full != message {
		log = log.WithField("err", full)
	}
	var exit *connector.ExitError
	if errors.As(err, &exit) && exit.Logged {
		log.Warn("the task failed and starts again")
		return
	}
	log.Error(message)
}
