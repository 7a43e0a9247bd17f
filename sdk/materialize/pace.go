package materialize

import (
	"context"
	"time"
)

// A transaction of this size is large: more is probably waiting behind it, and its files are worth their while.
const (
	largeRows  = 1_000_000
	largeBytes = 256 << 20
)

// pace keeps transactions apart by an interval. stored and hurry are called by the loop, hold by the settler; the loop joins
// the settler between two calls of hold.
type pace struct {
	interval time.Duration
	began    time.Time // when the present transaction was let in; zero before the first
	large    bool      // the transaction before was
	hurried  chan struct{}
}

func newPace(interval time.Duration) pace {
	return pace{interval: interval, hurried: make(chan struct{})}
}

// stored tells the size of the transaction that is being stored.
func (p *pace) stored(rows, bytes int) { p.large = rows >= largeRows || bytes >= largeBytes }

// hurry ends all waiting, since the session is at its end.
func (p *pace) hurry() { close(p.hurried) }

// hold waits until the next transaction may begin, or the context ends.
func (p *pace) hold(ctx context.Context) {
	if !p.began.IsZero() && !p.large {
		timer := time.NewTimer(time.Until(p.began.Add(p.interval)))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.hurried:
		case <-ctx.Done():
		}
	}
	p.began = time.Now()
}
