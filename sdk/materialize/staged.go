package materialize

import (
	"context"
	"encoding/json"
	"fmt"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
)

// StagedStore is a destination that cannot keep the runtime's checkpoint beside its rows. It stages rows durably but
// invisibly and describes them by an S, a JSON value that the framework commits with the runtime's checkpoint; then it
// makes them visible. Its methods are called in the order Apply (for what an earlier session left), Stage, Apply, …,
// Close. Apply may run beside Loader.Load, which reads keys meanwhile; nothing else ever overlaps.
type StagedStore[S any] interface {
	// Stage writes the rows of one transaction so that they survive a crash, but are not visible. What it wrote is
	// abandoned without a call if the session ends before the runtime's commit.
	//
	// The number counts the staged transactions of the session's key range, over all sessions, from 1. A transaction that
	// was abandoned is repeated under the same number, perhaps with other rows; once one is committed, its number is never
	// used again. So names that are made of range and number are unique, and in the order of commits.
	Stage(ctx context.Context, number uint64, rows *Rows) (S, error)
	// Apply makes staged rows visible. It is repeated with the same value after a crash at any point, so it must do
	// nothing to what it has applied before.
	Apply(ctx context.Context, staged S) error
	// Close gives back what the store holds. It is called once, also after errors. It must leave alone what was staged:
	// the runtime may have committed it without a word.
	Close() error
}

// Resumer is an optional ability of a StagedStore: it is told what the state says when a session opens, before any other
// call.
type Resumer[S any] interface {
	// Resume gets, for every key range whose remains are this session's to look after (its own, and ranges from before a
	// split that begin in it), the number of its last committed transaction, and what is staged and perhaps not applied.
	// Work of such a range that is not among pending and whose number is not higher was abandoned for good: no runtime
	// can ever commit it. Of higher numbers nothing is known: a newer instance may be at work.
	Resume(ctx context.Context, committed map[KeyRange]uint64, pending []S) error
}

// Staged makes a transactor of a destination that stages. If s is a Loader, it can do standard updates; if it is a Resumer,
// it is told what the state says.
func Staged[S any](s StagedStore[S]) *Transactor {
	loader, _ := s.(Loader)
	return &Transactor{phases: &stagedPhases[S]{s: s}, loader: loader}
}

// stagedState is a connector state of staged work, by the key range of the session that staged it: what was staged and is
// perhaps not applied yet, and how many transactions were. Sessions of one task share one state document and each touches
// its own range only.
//
// An S stands in an array of its own: merge patches replace arrays as a whole, but would mix an object with what an earlier
// transaction left in its place if the patch that took it out was lost.
type stagedState struct {
	Staged       map[string]json.RawMessage `json:"staged,omitempty"`
	Transactions map[string]uint64          `json:"transactions,omitempty"`
}

// pendingWork is the part of a state that a session must apply before anything else.
type pendingWork interface {
	// restore takes over what state lists for the range.
	restore(state json.RawMessage, r KeyRange) error
}

type stagedPhases[S any] struct {
	s StagedStore[S]
	// own is the session's name in the state, number its last committed transaction.
	own    string
	number uint64
	// committed are the numbers of the ranges that the session looks after.
	committed map[KeyRange]uint64
	// pending is what the next acknowledged call applies, by name: one's own transaction or, in the first call, what
	// earlier sessions left.
	pending map[string]S
	// cleared are names of applied work whose removal from the state the runtime may have lost.
	cleared []string
	staged  *S
}

func (p *stagedPhases[S]) restore(state json.RawMessage, r KeyRange) error {
	p.own = r.String()
	p.pending = map[string]S{}
	p.committed = map[KeyRange]uint64{}
	if len(state) == 0 {
		return nil
	}
	var doc stagedState
	if err := json.Unmarshal(state, &doc); err != nil {
		return fmt.Errorf("reading the state: %w", err)
	}
	for name, number := range doc.Transactions {
		old, err := parseRange(name)
		if err != nil {
			return err
		}
		// Behind every range that overlaps, so that numbers follow the order of commits also across splits and joins.
		if old.Begin <= r.End && old.End >= r.Begin {
			p.number = max(p.number, number)
		}
		if r.inherits(old) {
			p.committed[old] = number
		}
	}
	for name, raw := range doc.Staged {
		old, err := parseRange(name)
		if err != nil {
			return err
		}
		if string(raw) == "null" || !r.inherits(old) {
			continue
		}
		var s []S
		if err := json.Unmarshal(raw, &s); err != nil || len(s) != 1 {
			return fmt.Errorf("reading the state of range %s: there is no one piece of staged work: %w", name, err)
		}
		p.pending[name] = s[0]
	}
	return nil
}

// inherits says whether a session of this range looks after what one of another range left. After a split, exactly one of
// the new sessions owns the old one's first key.
func (r KeyRange) inherits(old KeyRange) bool { return old.Begin >= r.Begin && old.Begin <= r.End }

func parseRange(name string) (KeyRange, error) {
	var r KeyRange
	if _, err := fmt.Sscanf(name, "%08x-%08x", &r.Begin, &r.End); err != nil || r.String() != name {
		return r, fmt.Errorf("reading the state: %q is not a key range", name)
	}
	return r, nil
}

// open leaves the checkpoint to the runtime, which commits ours with its own.
func (p *stagedPhases[S]) open(ctx context.Context) (*flowpb.Checkpoint, error) {
	resumer, ok := p.s.(Resumer[S])
	if !ok {
		return nil, nil
	}
	pending := make([]S, 0, len(p.pending))
	for _, s := range p.pending {
		pending = append(pending, s)
	}
	return nil, resumer.Resume(ctx, p.committed, pending)
}

// acknowledged applies what is durable now, and takes it out of the state. The runtime may lose that patch; then the
// same work is applied once more.
func (p *stagedPhases[S]) acknowledged(ctx context.Context) (*flowpb.ConnectorState, error) {
	if len(p.pending) == 0 {
		return nil, nil
	}
	patch := stagedState{Staged: map[string]json.RawMessage{}}
	for name, s := range p.pending {
		if err := p.s.Apply(ctx, s); err != nil {
			return nil, err
		}
		patch.Staged[name] = json.RawMessage("null")
		p.cleared = append(p.cleared, name)
	}
	p.pending = nil
	return mergePatch(patch)
}

func (p *stagedPhases[S]) store(ctx context.Context, rows *Rows) error {
	s, err := p.s.Stage(ctx, p.number+1, rows)
	if err != nil {
		return err
	}
	p.staged = &s
	return nil
}

func (p *stagedPhases[S]) startCommit(context.Context, *flowpb.Checkpoint) (*flowpb.ConnectorState, func(context.Context) error, error) {
	if p.staged == nil {
		return nil, nil, nil
	}
	raw, err := json.Marshal([]S{*p.staged})
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the staged state: %w", err)
	}
	p.number++
	p.pending = map[string]S{p.own: *p.staged}
	p.staged = nil
	// What was applied leaves the state here for certain, so that nobody applies it again much later, when its files may
	// have been compacted away.
	patch := stagedState{Staged: map[string]json.RawMessage{}, Transactions: map[string]uint64{p.own: p.number}}
	for _, name := range p.cleared {
		patch.Staged[name] = json.RawMessage("null")
	}
	p.cleared = nil
	patch.Staged[p.own] = raw
	state, err := mergePatch(patch)
	return state, nil, err
}

func (p *stagedPhases[S]) close() error { return p.s.Close() }

func mergePatch(s stagedState) (*flowpb.ConnectorState, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encoding the state: %w", err)
	}
	return &flowpb.ConnectorState{UpdatedJson: raw, MergePatch: true}, nil
}

// hasStaged says whether a connector state lists staged work that may not have been applied.
func hasStaged(state json.RawMessage) bool {
	var doc stagedState
	if len(state) == 0 || json.Unmarshal(state, &doc) != nil {
		return false
	}
	for _, raw := range doc.Staged {
		if string(raw) != "null" {
			return true
		}
	}
	return false
}
