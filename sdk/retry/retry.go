// Package retry repeats what may succeed later: bounded exponential backoff with jitter, which ends with its context.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff says how long to wait between attempts. The zero value waits 100 ms, then twice as long each time, up to 30 s,
// give or take a fifth.
type Backoff struct {
	Min    time.Duration // before the second attempt; 0 means 100 ms
	Max    time.Duration // never longer than this; 0 means 30 s
	Factor float64       // growth from one attempt to the next; below 1 means 2
	Jitter float64       // part of each delay that is random, 0 to 1; 0 means 0.2, below 0 means none
	// Attempts bounds how often the function is called; 0 means until the context ends.
	Attempts int
}

func (b Backoff) withDefaults() Backoff {
	if b.Min <= 0 {
		b.Min = 100 * time.Millisecond
	}
	if b.Max <= 0 {
		b.Max = 30 * time.Second
	}
	if b.Factor < 1 {
		b.Factor = 2
	}
	switch {
	case b.Jitter == 0:
		b.Jitter = 0.2
	case b.Jitter < 0:
		b.Jitter = 0
	}
	b.Jitter = min(b.Jitter, 1)
	return b
}

// Delay is the pause after the given failed attempt, counted from 1. rnd is a random number in [0,1), passed in so that
// tests can choose it.
func (b Backoff) Delay(attempt int, rnd float64) time.Duration {
	b = b.withDefaults()
	d := float64(b.Min)
	for i := 1; i < attempt && d < float64(b.Max); i++ {
		d *= b.Factor
	}
	d = min(d, float64(b.Max))
	d *= 1 - b.Jitter*rnd
	return time.Duration(d)
}

// Do calls f until it succeeds, fails with an error for which retryable returns false, has been called b.Attempts times,
// or the context ends. It returns nil or f's last error; a context that ends while waiting returns that last error too,
// so that what went wrong is not hidden behind "context canceled". A nil retryable retries every error. Do runs f in the
// caller's goroutine.
func (b Backoff) Do(ctx context.Context, f func(context.Context) error, retryable func(error) bool) error {
	for attempt := 1; ; attempt++ {
		err := f(ctx)
		if err == nil || ctx.Err() != nil || attempt == b.Attempts || (retryable != nil && !retryable(err)) {
			return err
		}
		if Sleep(ctx, b.Delay(attempt, rand.Float64())) != nil {
			return err
		}
	}
}

// Sleep waits for d, or returns ctx.Err() when ctx ends earlier.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
