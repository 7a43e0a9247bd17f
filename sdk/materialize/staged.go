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
	Stage(ctx context.Context, rows *Rows) (S, error)
	// Apply makes staged rows visible. It is repeated with the same value after a crash at any point, so it must do
	// nothing to what it has applied before.
	Apply(ctx context.Context, staged S) error
	// Close gives back what the store holds. It is called once, also after errors.
	Close() error
}

// Staged makes a transactor of a destination that stages. If s is a Loader, it can do standard updates.
func Staged[S any](s StagedStore[S]) *Transactor {
	loader, _ := s.(Loader)
	return &Transactor{phases: &stagedPhases[S]{s: s}, loader: loader}
}

// stagedState is a connector state of staged work: what was staged and is perhaps not applied yet, by the key range of
// the session that staged it. Sessions of one task share one state document and each touches its own range only.
type stagedState struct {
	Staged map[string]json.RawMessage `json:"staged"`
}

// pendingWork is the part of a state that a session must apply before anything else.
type pendingWork interface {
	// restore takes over what state lists for the range.
	restore(state json.RawMessage, r KeyRange) error
}

type stagedPhases[S any] struct {
	s StagedStore[S]
	// own is the session's name in the state. pending is what the next acknowledged call applies, by name: one's own
	// transaction or, in the first call, what earlier sessions left.
	own     string
	pending map[string]S
	staged  *S
}

func (p *stagedPhases[S]) restore(state json.RawMessage, r KeyRange) error {
	p.own = r.String()
	p.pending = map[string]S{}
	if len(state) == 0 {
		return nil
	}
	var doc stagedState
	if err := json.Unmarshal(state, &doc); err != nil {
		return fmt.Errorf("reading the state: %w", err)
	}
	for name, raw := range doc.Staged {
		var begin, end uint32
		if _, err := fmt.Sscanf(name, "%08x-%08x", &begin, &end); err != nil {
			return fmt.Errorf("reading the state: %q is not a key range", name)
		}
		// After a split of the range, exactly one of the new sessions owns the old one's first key.
		if string(raw) == "null" || begin < r.Begin || begin > r.End {
			continue
		}
		var s S
		if err := json.Unmarshal(raw, &s); err != nil {
			return fmt.Errorf("reading the state of range %s: %w", name, err)
		}
		p.pending[name] = s
	}
	return nil
}

// open leaves the checkpoint to the runtime, which commits ours with its own.
func (p *stagedPhases[S]) open(context.Context) (*flowpb.Checkpoint, error) { return nil, nil }

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
	}
	p.pending = nil
	return mergePatch(patch)
}

func (p *stagedPhases[S]) store(ctx context.Context, rows *Rows) error {
	s, err := p.s.Stage(ctx, rows)
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
	raw, err := json.Marshal(*p.staged)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the staged state: %w", err)
	}
	p.pending = map[string]S{p.own: *p.staged}
	p.staged = nil
	state, err := mergePatch(stagedState{Staged: map[string]json.RawMessage{p.own: raw}})
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
