package capture

import (
	"sync/atomic"
	"time"
)

// An Outlet tells a source how what it emits is taken, so that it can tell a slow runtime from a slow source. It is safe for
// use by many goroutines; a nil Outlet knows nothing, as the zero one.
type Outlet struct {
	since atomic.Pointer[time.Time] // when the wait began; nil while there is none
	deaf  atomic.Bool
}

// Blocked is how long the session has been waiting for somebody to take its output: the buffers are full, and Read, or
// Append in it, does not go on. It is zero while nothing waits.
func (o *Outlet) Blocked() time.Duration {
	if o == nil {
		return 0
	}
	if since := o.since.Load(); since != nil {
		return max(time.Since(*since), 1)
	}
	return 0
}

// Acknowledges reports whether checkpoints are acknowledged at all, as far as is known: a runtime need not do it.
func (o *Outlet) Acknowledges() bool { return o == nil || !o.deaf.Load() }

// block notes that a wait begins; the function that it returns ends it.
func (o *Outlet) block() (end func()) {
	if o == nil {
		return func() {}
	}
	now := time.Now()
	o.since.Store(&now)
	return func() { o.since.Store(nil) }
}
