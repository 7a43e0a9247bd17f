package cdc

import (
	"context"
	"sync"
)

// A job is work that may wait for the database, and is therefore not done by the reader: reading a chunk, planning,
// looking at shapes.
type job interface {
	// run works with the driver, on a worker. It touches nothing but the job and keeps its outcome there.
	run(ctx context.Context, d Driver)
	// done takes the outcome over, on the reader's goroutine.
	done(ctx context.Context, r *reader) error
}

// pool runs jobs beside the reader. Production has goroutines; the simulation runs jobs step by step.
type pool interface {
	start(j job)
	// next returns a job that has ended, or nil. It does not wait.
	next() job
	// close ends what is running and waits for it.
	close()
}

// maxJobs bounds the jobs that are started and not yet taken over, so that a worker never waits to hand over its job.
const maxJobs = 64

// workers is the pool of goroutines. The reader bounds how many jobs run.
type workers struct {
	driver Driver
	ctx    context.Context //nolint:containedctx // the workers outlive the Read that starts their jobs; close ends it
	cancel context.CancelFunc
	wg     sync.WaitGroup
	ended  chan job
}

// newWorkers makes a pool whose jobs end with its close.
func newWorkers(ctx context.Context, d Driver) *workers {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &workers{driver: d, ctx: ctx, cancel: cancel, ended: make(chan job, maxJobs)}
}

func (w *workers) start(j job) {
	w.wg.Go(func() {
		j.run(w.ctx, w.driver)
		select {
		case w.ended <- j:
		case <-w.ctx.Done(): // nobody takes jobs over any more
		}
	})
}

func (w *workers) next() job {
	select {
	case j := <-w.ended:
		return j
	default:
		return nil
	}
}

func (w *workers) close() {
	w.cancel()
	w.wg.Wait()
}
