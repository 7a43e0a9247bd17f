package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// placer places units on the processes that share a pipeline: a log on Kafka.
type placer interface {
	// Join makes this process one of those that share some units, whose names are for people, and returns when it has asked for its part of them. assigned is called with units that it is
	// to run from now on, and does not wait; revoked with such as it must not run any more, and returns when it does not. Both are
	// called by one goroutine. leave gives back what is left; nothing is called afterwards.
	Join(ctx context.Context, units []string, assigned, revoked func(units []int)) (leave func(), err error)
}

// hands are the units that this process has of those that it shares with others.
type hands struct {
	*crew
	all []*unit

	mu       sync.Mutex
	held     map[int]*hand
	stopping bool
}

// hand is a unit that runs.
type hand struct {
	unit *unit
	stop context.CancelFunc
	done chan struct{}
}

// share runs the units that this process is given, until the context is over: then captures end first, and materializations behind what they have sent.
func (c *crew) share(ctx context.Context, p placer) error {
	h := &hands{crew: c, all: units(c.Pipeline), held: map[int]*hand{}}
	behind := context.WithoutCancel(ctx)
	var names []string
	for _, u := range h.all {
		names = append(names, string(u.kind())+" "+u.label())
	}
	leave, err := p.Join(ctx, names, func(units []int) { h.take(behind, units) }, h.leave)
	if err != nil {
		return err
	}
	c.Board.Share()
	<-ctx.Done()
	c.Logger.Info("stopping")
	h.mu.Lock()
	h.stopping = true
	h.mu.Unlock()
	h.end(func(u *unit) bool { return u.capture != nil })
	h.end(func(*unit) bool { return true })
	leave()
	return nil
}

// take begins to run units.
func (h *hands) take(ctx context.Context, numbers []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range numbers {
		if n >= len(h.all) || h.held[n] != nil || h.stopping {
			continue // there were more units once, or it is about to go
		}
		ctx, stop := context.WithCancel(ctx)
		hand := &hand{unit: h.all[n], stop: stop, done: make(chan struct{})}
		h.held[n] = hand
		go func() {
			defer close(hand.done)
			h.work(ctx, hand.unit)
		}()
	}
}

// leave ends units, and returns when they have ended.
func (h *hands) leave(numbers []int) {
	given := map[*unit]bool{}
	for _, n := range numbers {
		if n < len(h.all) {
			given[h.all[n]] = true
		}
	}
	h.end(func(u *unit) bool { return given[u] })
}

// end ends those of the units that are held.
func (h *hands) end(which func(*unit) bool) {
	h.mu.Lock()
	ending := map[int]*hand{}
	for n, hand := range h.held {
		if which(hand.unit) {
			ending[n] = hand
			hand.stop()
		}
	}
	h.mu.Unlock()
	for n, hand := range ending {
		<-hand.done
		h.mu.Lock()
		delete(h.held, n)
		h.mu.Unlock()
	}
}

// work runs a unit as long as it is this process'. Another process that has taken it is about to be told that it is not its own, or this one is;
// the pause gives the brokers the time to find that out.
func (h *hands) work(ctx context.Context, u *unit) {
	entry := h.Logger.WithFields(logrus.Fields{"task": u.label(), "kind": string(u.kind())})
	for failures := 1; ctx.Err() == nil; failures++ {
		err := h.once(ctx, u)
		if err == nil || ctx.Err() != nil {
			return
		}
		pause := h.Backoff.Delay(failures, rand.Float64())
		if errors.Is(err, wal.ErrFenced) {
			failures, pause = 0, h.Pipeline.Kafka.SessionTimeout
		}
		entry.WithField("retry", pause.String()).Warn(usererr.Message(err))
		_ = retry.Sleep(ctx, pause) // the loop looks
	}
}

// once takes a unit and runs it until the context is over, or another process has taken it.
func (h *hands) once(ctx context.Context, u *unit) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	store, err := h.log.Take(ctx, u.task(), stop)
	if err != nil {
		return err
	}
	defer h.log.Release(u.task())
	h.Logger.WithFields(logrus.Fields{"task": u.label(), "kind": string(u.kind())}).Info("this process runs the task now")
	h.live(ctx, u, store)
	if why := context.Cause(ctx); errors.Is(why, wal.ErrFenced) {
		return why
	}
	return nil
}
