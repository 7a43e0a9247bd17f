package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/sirupsen/logrus"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
)

// ledger remembers which checkpoints the runtime has not acknowledged yet, oldest first, with the functions to be called
// then. The pump's writer adds to it, the goroutine that reads acknowledgements takes from it.
type ledger struct {
	mu     sync.Mutex
	owed   []owed
	closed bool // nobody will acknowledge any more
}

// owed is one checkpoint with functions, and how many without stand before it. Most checkpoints of most sources have none,
// so that a runtime which never acknowledges costs no memory.
type owed struct {
	before uint32
	acks   []func(context.Context) error
}

// add records a checkpoint that is about to be written.
func (l *ledger) add(c *commit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	n := len(l.owed)
	switch {
	case n == 0 || l.owed[n-1].acks != nil:
		l.owed = append(l.owed, owed{acks: c.acks})
		if c.acks == nil {
			l.owed[n].before = 1
		}
	case c.acks == nil:
		l.owed[n-1].before++
	default:
		l.owed[n-1].acks = c.acks
	}
}

// take removes n acknowledged checkpoints and returns their functions in order.
func (l *ledger) take(n uint32) ([]func(context.Context) error, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var acks []func(context.Context) error
	asked := n
	for n > 0 && len(l.owed) > 0 {
		first := &l.owed[0]
		skipped := min(n, first.before)
		first.before -= skipped
		n -= skipped
		if n > 0 && first.acks != nil {
			acks = append(acks, first.acks...)
			first.acks = nil
			n--
		}
		if first.before == 0 && first.acks == nil {
			*first = owed{}
			l.owed = l.owed[1:]
		}
	}
	if n > 0 {
		return nil, fmt.Errorf("%d checkpoints were acknowledged, but only %d had been sent", asked, asked-n)
	}
	return acks, nil
}

// close forgets everything and remembers nothing from now on.
func (l *ledger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owed, l.closed = nil, true
}

// errRequestsEnded ends a session whose runtime acknowledged and then closed its requests: it wants no more.
var errRequestsEnded = errors.New("the runtime closed its requests")

// readAcks reads acknowledgements until the requests end, and calls what waits for them. It returns nil if they end without
// a single one: such a runtime closes its requests right after Open, and still wants to read.
func readAcks(ctx context.Context, log *logrus.Entry, in *frame.Reader, l *ledger, outlet *Outlet) error {
	for acknowledged := false; ; acknowledged = true {
		var req capturepb.Request
		err := in.Read(&req)
		switch {
		case errors.Is(err, io.EOF) && acknowledged:
			return errRequestsEnded
		case errors.Is(err, io.EOF):
			l.close()
			outlet.deaf.Store(true)
			log.Debug("the runtime will not acknowledge checkpoints")
			return nil
		case err != nil:
			return fmt.Errorf("reading an acknowledgement: %w", err)
		case req.Acknowledge == nil:
			return fmt.Errorf("reading an acknowledgement: the runtime sent %s, but after Open only Acknowledge may follow", requestKind(&req))
		}
		if err := req.Check(); err != nil {
			return fmt.Errorf("reading an acknowledgement: %w", err)
		}
		acks, err := l.take(req.Acknowledge.Checkpoints)
		if err != nil {
			return fmt.Errorf("reading an acknowledgement: %w", err)
		}
		for _, f := range acks {
			if err := f(ctx); err != nil {
				return fmt.Errorf("acting on an acknowledgement: %w", err)
			}
		}
	}
}
