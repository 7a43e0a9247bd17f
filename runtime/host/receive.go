package host

import (
	"errors"
	"io"
	"sync"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// stage is what the connector may send next within one transaction.
type stage int

const (
	acknowledging stage = iota // Acknowledged
	loading                    // Loaded; and Flushed once it was asked for
	storing                    // StartedCommit once it was asked for
)

// What an Event may be.
const (
	Acknowledged  = "Acknowledged"
	Flushed       = "Flushed"
	StartedCommit = "StartedCommit"
)

// Event is a response of a materialization other than Loaded.
type Event struct {
	Which string // Acknowledged, Flushed or StartedCommit
	State *flowpb.ConnectorState
}

// receiver reads a session's responses on a goroutine of its own: the connector may write Loaded while we write Load,
// and neither must wait for the other. It enforces the order of the protocol.
type receiver struct {
	proc   *connector.Process
	loaded func(binding uint32, doc []byte) error
	events chan Event // never more than one is on its way: each answers a request
	done   chan struct{}
	err    error // once done is closed; io.EOF for an output that ended where it may

	mu       sync.Mutex
	stage    stage
	flush    bool // Flush was sent in this transaction
	commit   bool // StartCommit was sent in this transaction
	draining bool // the input was closed: the output may end
}

// newReceiver begins to read. loaded is called with every document that the connector loads, which is valid during the call; an error
// of it ends the receiver. A receiver that ends before its connector ends the connector too, once err says why: nobody reads what that
// writes any more, so it might never read again what it is written.
func newReceiver(p *connector.Process, loaded func(binding uint32, doc []byte) error) *receiver {
	r := &receiver{proc: p, loaded: loaded, events: make(chan Event, 4), done: make(chan struct{})}
	go func() {
		r.err = r.run()
		close(r.done)
		if r.broken() != nil {
			p.Kill()
		}
	}()
	return r
}

// broken is the error by which the receiver ended, if it is more than the end of the output; nil while it runs.
func (r *receiver) broken() error {
	select {
	case <-r.done:
		if !errors.Is(r.err, io.EOF) && !errors.Is(r.err, io.ErrUnexpectedEOF) {
			return r.err
		}
	default:
	}
	return nil
}

func (r *receiver) run() error {
	var loaded materializepb.Response_Loaded
	for {
		body, err := r.proc.Next()
		if errors.Is(err, io.EOF) {
			return r.ended()
		}
		if err != nil {
			return err
		}
		if materializepb.ParseLoaded(r.proc.Codec, body, &loaded) {
			err = r.onLoaded(loaded.Binding, loaded.DocJson)
		} else {
			err = r.other(body)
		}
		if err != nil {
			return err
		}
	}
}

// ended judges the end of the output: it is in order only after the input was closed behind an Acknowledge.
func (r *receiver) ended() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining && r.stage == loading {
		return io.EOF
	}
	return usererr.New(io.ErrUnexpectedEOF, "%s ended its output in the middle of a session", r.proc.Name())
}

func (r *receiver) onLoaded(index uint32, doc []byte) error {
	if err := r.mayLoad(); err != nil {
		return err
	}
	return r.loaded(index, doc)
}

func (r *receiver) mayLoad() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stage != loading {
		return r.outOfOrder("Loaded")
	}
	return nil
}

func (r *receiver) other(body []byte) error {
	var m materializepb.Response
	if err := r.proc.Codec.Unmarshal(body, &m); err != nil {
		return usererr.New(err, "%s sent a response that cannot be read: %v", r.proc.Name(), err)
	}
	if m.Loaded != nil {
		return r.onLoaded(m.Loaded.Binding, m.Loaded.DocJson)
	}
	e, err := r.step(&m)
	if err != nil {
		return err
	}
	r.events <- e
	return nil
}

// step moves to the next stage of the transaction, if the response is the one that leads there.
func (r *receiver) step(m *materializepb.Response) (Event, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case m.Acknowledged != nil && r.stage == acknowledging:
		r.stage = loading
		return Event{Acknowledged, m.Acknowledged.State}, nil
	case m.Flushed != nil && r.stage == loading && r.flush:
		r.stage = storing
		return Event{Flushed, m.Flushed.State}, nil
	case m.StartedCommit != nil && r.stage == storing && r.commit:
		// The next transaction begins here: its Acknowledged may come at any time from now on.
		r.stage, r.flush, r.commit = acknowledging, false, false
		return Event{StartedCommit, m.StartedCommit.State}, nil
	}
	return Event{}, r.outOfOrder(connector.Which(m))
}

// outOfOrder is called with the lock held.
func (r *receiver) outOfOrder(what string) error {
	expected := map[stage]string{acknowledging: "Acknowledged", loading: "Loaded, or Flushed after a Flush", storing: "StartedCommit after a StartCommit"}[r.stage]
	return usererr.New(nil, "%s sent %s out of order: expected was %s", r.proc.Name(), what, expected)
}

func (r *receiver) sentFlush() { r.set(&r.flush) }

func (r *receiver) sentCommit() { r.set(&r.commit) }

func (r *receiver) sentEnd() { r.set(&r.draining) }

func (r *receiver) set(flag *bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*flag = true
}
