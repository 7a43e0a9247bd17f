package host

import (
	"sync"
	"sync/atomic"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/runtime/connector"
)

// acknowledger sends acknowledgements, several checkpoints in one when the connector is slow to read them. A
// connector may end while some are still owed to it: that is no error, it will see them as its state when it is opened again.
type acknowledger struct {
	proc    *connector.Process
	owed    atomic.Uint32
	more    chan struct{} // of size one: a wake-up
	quit    chan struct{}
	once    sync.Once
	stopped sync.WaitGroup
}

func newAcknowledger(p *connector.Process) *acknowledger {
	a := &acknowledger{proc: p, more: make(chan struct{}, 1), quit: make(chan struct{})}
	a.stopped.Go(a.run)
	return a
}

// add owes the connector n more acknowledgements. It never waits.
func (a *acknowledger) add(n int) {
	a.owed.Add(uint32(n))
	select {
	case a.more <- struct{}{}:
	default:
	}
}

// stop ends the goroutine, and may be called again. A write that the connector does not read ends when its input is closed.
func (a *acknowledger) stop() {
	a.once.Do(func() { close(a.quit) })
	_ = a.proc.CloseInput()
	a.stopped.Wait()
}

func (a *acknowledger) run() {
	for {
		select {
		case <-a.quit:
			return
		case <-a.more:
		}
		n := a.owed.Swap(0)
		if n == 0 {
			continue
		}
		err := a.proc.Send(&capturepb.Request{Acknowledge: &capturepb.Request_Acknowledge{Checkpoints: n}})
		if err == nil {
			err = a.proc.Flush()
		}
		if err != nil {
			return // it does not read any more; its output will say why
		}
	}
}
