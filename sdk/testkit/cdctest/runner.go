package cdctest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// runner is a runtime: it runs a connector, keeps the state that its checkpoints make, and can be set back to any of them.
type runner struct {
	t    testing.TB
	run  func() *session.Session // starts the connector
	spec *flowpb.CaptureSpec
	out  output

	session *session.Session
	ended   chan struct{}

	mu     sync.Mutex // also of what out keeps
	err    error
	points []point // checkpoints that may be resumed from; the first one is acknowledged
}

// output is what is made of captured documents. Its methods are called with the runner's mu.
type output interface {
	// take takes what one checkpoint commits.
	take(tx *session.Transaction) error
	// mark names the present, so that back can return to it.
	mark() int
	back(mark int)
	// forget says that nobody will go back behind a mark.
	forget(mark int)
}

// point is a checkpoint: the state, and what was captured until then.
type point struct {
	state json.RawMessage
	mark  int
}

// start runs the connector from the last checkpoint.
func (r *runner) start() {
	if r.points == nil {
		r.points = []point{{state: json.RawMessage("{}"), mark: r.out.mark()}}
	}
	r.session = r.run()
	r.session.AskOpen(r.spec, r.points[len(r.points)-1].state)
	r.ended = make(chan struct{})
	go func(s *session.Session, ended chan struct{}) {
		defer close(ended)
		for err := s.Opened(); ; {
			var tx *session.Transaction
			if err == nil {
				tx, err = s.Transaction()
			}
			if err == nil {
				err = r.take(tx)
			}
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("the connector ended: %w", errors.Join(s.Wait(), err))
			}
			if err != nil {
				r.mu.Lock()
				r.err = err
				r.mu.Unlock()
				return
			}
		}
	}(r.session, r.ended)
}

func (r *runner) take(tx *session.Transaction) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.out.take(tx); err != nil {
		return err
	}
	state, err := flowpb.MergePatch(r.points[len(r.points)-1].state, tx.Patch)
	if err != nil {
		return err
	}
	r.points = append(r.points, point{state: state, mark: r.out.mark()})
	return nil
}

// kill ends the connector as a crash does, and sets back to one of the checkpoints. It returns how many were lost.
func (r *runner) kill(rnd *rand.Rand) (lost int) {
	r.session.Kill()
	<-r.ended
	_ = r.session.Wait() // that it was killed is what it complains about
	r.mu.Lock()
	defer r.mu.Unlock()
	n := rnd.IntN(len(r.points))
	lost = len(r.points) - 1 - n
	r.points = r.points[n : n+1]
	r.err = nil
	r.out.back(r.points[0].mark)
	return lost
}

// stop ends the connector for good and returns why it ended, if it was not for that.
func (r *runner) stop() error {
	r.session.Cancel()
	<-r.ended
	return r.session.Wait()
}

// acknowledge makes some checkpoints durable.
func (r *runner) acknowledge(rnd *rand.Rand) {
	r.mu.Lock()
	n := rnd.IntN(len(r.points))
	r.mu.Unlock()
	r.durable(n)
}

// acknowledgeAll makes all checkpoints durable that have come.
func (r *runner) acknowledgeAll() {
	r.mu.Lock()
	n := len(r.points) - 1
	r.mu.Unlock()
	r.durable(n)
}

// durable makes the first n checkpoints durable that are not so yet.
func (r *runner) durable(n int) {
	r.mu.Lock()
	r.points = r.points[n:]
	r.out.forget(r.points[0].mark)
	r.mu.Unlock()
	if n > 0 {
		r.session.Ack(n)
	}
}

// failed returns why the connector ended by itself, or what is wrong with its output.
func (r *runner) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// journal is how to take steps back.
type journal struct {
	base  int // marks begin here: what was before is forgotten
	undos []func()
}

func (j *journal) add(undo func()) { j.undos = append(j.undos, undo) }

func (j *journal) mark() int { return j.base + len(j.undos) }

func (j *journal) back(mark int) {
	for j.mark() > mark {
		last := len(j.undos) - 1
		j.undos[last]()
		j.undos[last] = nil
		j.undos = j.undos[:last]
	}
}

func (j *journal) forget(mark int) {
	n := mark - j.base
	clear(j.undos[:n])
	j.undos, j.base = j.undos[n:], mark
}
