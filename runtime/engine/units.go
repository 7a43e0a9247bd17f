package engine

import (
	"context"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/capture"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/shard"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
)

// unit is a shard of a task: what a process has as a whole, or not at all. One of capture and materialization is set.
type unit struct {
	capture         *pipeline.Capture
	materialization *pipeline.Materialization
	shard           shard.Shard
}

// units lists those of a pipeline, in the order that all processes know: captures first.
func units(p *pipeline.Pipeline) (all []*unit) {
	for _, c := range p.Captures {
		for _, s := range shard.Of(c.Shards) {
			all = append(all, &unit{capture: c, shard: s})
		}
	}
	for _, m := range p.Materializations {
		for _, s := range shard.Of(m.Shards) {
			all = append(all, &unit{materialization: m, shard: s})
		}
	}
	return all
}

func (u *unit) kind() status.Kind {
	if u.capture != nil {
		return status.Capture
	}
	return status.Materialization
}

func (u *unit) name() string {
	if u.capture != nil {
		return u.capture.Name
	}
	return u.materialization.Name
}

// label is what people see.
func (u *unit) label() string { return u.name() + u.shard.Label() }

// of is what the log calls a shard of the unit's task, by its suffix.
func (u *unit) of(suffix string) string { return string(u.kind()) + "/" + u.name() + suffix }

// task is what the log calls the unit.
func (u *unit) task() string { return u.of(u.shard.Suffix()) }

// crew runs units in this process.
type crew struct {
	*Options
	log         wal.Engine
	collections *collection.Registry
	running     *running
}

// live runs a unit that was taken, until the context is over.
func (c *crew) live(ctx context.Context, u *unit, store wal.Store) {
	st := c.Board.Task(u.kind(), u.label())
	if c.Join {
		defer c.Board.Remove(st)
	}
	entry := c.Logger.WithFields(logrus.Fields{"task": u.label(), "kind": string(u.kind())})
	fence := func(ctx context.Context, suffix string) error { return c.log.Fence(ctx, u.of(suffix)) }
	if u.capture != nil {
		task := &capture.Task{
			Def: u.capture, Shard: u.shard, Pipeline: c.fingerprint, Launcher: &c.Launcher, Log: c.log, Store: store, Collections: c.collections,
			Timeouts: c.Capture, Status: st, Logger: entry, Fence: fence,
		}
		c.keep(ctx, st, entry, u.capture.Interval, task.Run)
		return
	}
	task := &materialize.Task{
		Def: u.materialization, Shard: u.shard, Pipeline: c.fingerprint, Launcher: &c.Launcher, Log: c.log, Store: store, Collections: c.collections,
		Timeouts: c.Materialize, Status: st, Logger: entry, MaxTransactionBytes: c.MaxTransactionBytes, Fence: fence,
	}
	if k := c.Options.Pipeline.Kafka; k != nil {
		task.Compacted = k.Compact
	}
	c.running.set(u, task)
	defer c.running.set(u, nil)
	if c.awaitAnew(ctx, u.materialization, store, entry) {
		c.keep(ctx, st, entry, 0, task.Run)
	}
}

// anewEvery is how often a materialization looks whether a capture has marked a new beginning.
const anewEvery = 50 * time.Millisecond

// awaitAnew waits until every collection that a materialization reads, and that is about to be captured anew, has its new beginning marked in the log. One that
// begins to read before that would replay what the new backfill is there to replace, and keep the rows that were deleted in
// between. It returns false if the context ends before.
func (c *crew) awaitAnew(ctx context.Context, def *pipeline.Materialization, store wal.Store, entry *logrus.Entry) bool {
	said := false
	for {
		collection, err := c.expected(def, store)
		if err == nil && collection == "" {
			return true
		}
		switch {
		case err != nil:
			entry.WithError(err).Warn("looking for what is captured anew failed, and is tried again")
		case !said:
			said = true
			entry.WithField("collection", collection).Info("waiting for the capture that begins this collection anew")
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(anewEvery):
		}
	}
}

// expected is a collection of the materialization that is about to be captured anew; "" if there is none.
func (c *crew) expected(def *pipeline.Materialization, store wal.Store) (string, error) {
	for _, source := range c.Pipeline.Captures {
		raised, err := (&capture.Task{Def: source, Store: store}).Raised()
		if err != nil {
			return "", err
		}
		for _, collection := range raised {
			for _, b := range def.Bindings {
				if b.Source == collection {
					return collection, nil
				}
			}
		}
	}
	return "", nil
}
