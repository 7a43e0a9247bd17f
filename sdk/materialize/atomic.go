package materialize

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
)

// Checkpoint is the runtime's position, opaque to a destination: encoded bytes to be stored with the rows and given
// back. An empty one, of length zero, is a position too: the very beginning.
type Checkpoint []byte

// AtomicStore is a destination that commits rows and checkpoint in one transaction, so that the destination, not the
// runtime, knows what is stored. Its methods are called in the order Fence, (Store, Commit)…, Close, where Store is left
// out in transactions without rows. Commit may run beside Loader.Load of the next transaction, on another goroutine;
// nothing else ever overlaps.
type AtomicStore interface {
	// Fence locks out every older session whose key range overlaps this one's: none of them can commit from now on. It
	// returns the last committed checkpoint that covers the session's range, empty if there is none.
	Fence(ctx context.Context) (Checkpoint, error)
	// Store takes the rows of one transaction, until rows.Next is false. Nothing of it may become visible yet.
	Store(ctx context.Context, rows *Rows) error
	// Commit makes the rows visible and the checkpoint durable, together or not at all. It fails if the session has
	// been fenced off.
	Commit(ctx context.Context, cp Checkpoint) error
	// Close gives back what the store holds. It is called once, also after errors, and discards what is not committed.
	Close() error
}

// Loader is an optional ability of a store: reading back what is stored. A store without it takes delta updates only.
type Loader interface {
	// Load calls found for every key that is stored, with the stored document. It reads keys to the end before it calls
	// found for the first time: only then the previous transaction's Commit is known to be visible. doc need only stay
	// valid until found returns. Load may run beside Commit of the previous transaction, so it needs a connection of
	// its own.
	Load(ctx context.Context, keys *Keys, found func(binding int, doc []byte) error) error
}

// Transactor is an opened destination, made by Atomic or Staged.
type Transactor struct {
	phases phases
	loader Loader
	// LoadAll asks the runtime to ask for every key, and not to leave out those that it believes to be new. A
	// destination needs it where rows may exist that the runtime has not stored.
	LoadAll bool
	// Interval lets documents gather, so that a destination that is better served with few large transactions gets them: a
	// transaction begins no sooner than this after the one before. One that follows a large transaction begins at once,
	// since there may be a backlog. Zero means no waiting. The framework holds back its Acknowledged, as the protocol
	// allows; a runtime that ends the session meanwhile is not kept waiting.
	Interval time.Duration
}

// phases is what the transaction loop drives; the two commit shapes implement it.
type phases interface {
	// open starts the session and returns the destination's checkpoint, nil if the runtime's own counts.
	open(ctx context.Context) (*flowpb.Checkpoint, error)
	// acknowledged is called in every cycle, when the previous transaction is durable on the runtime's side. It runs
	// beside the loads of the new one.
	acknowledged(ctx context.Context) (*flowpb.ConnectorState, error)
	store(ctx context.Context, rows *Rows) error
	// startCommit runs at the end of the rows. The commit that it returns, if any, runs beside the following loads.
	startCommit(ctx context.Context, cp *flowpb.Checkpoint) (*flowpb.ConnectorState, func(context.Context) error, error)
	close() error
}

// Atomic makes a transactor of a destination that keeps rows and checkpoint in one transaction. If s is a Loader, it
// can do standard updates.
func Atomic(s AtomicStore) *Transactor {
	loader, _ := s.(Loader)
	return &Transactor{phases: &atomicPhases{s}, loader: loader}
}

type atomicPhases struct{ s AtomicStore }

// open always returns a checkpoint: the destination is the authority, also where it has nothing. A runtime that resumed
// from a position of its own would leave a gap in a table that was emptied or replaced.
func (a *atomicPhases) open(ctx context.Context) (*flowpb.Checkpoint, error) {
	stored, err := a.s.Fence(ctx)
	if err != nil {
		return nil, err
	}
	cp := &flowpb.Checkpoint{}
	if err := proto.Unmarshal(stored, cp); err != nil {
		return nil, fmt.Errorf("reading the stored checkpoint of %d bytes: %w", len(stored), err)
	}
	return cp, nil
}

func (a *atomicPhases) acknowledged(context.Context) (*flowpb.ConnectorState, error) { return nil, nil }

func (a *atomicPhases) store(ctx context.Context, rows *Rows) error { return a.s.Store(ctx, rows) }

func (a *atomicPhases) startCommit(_ context.Context, cp *flowpb.Checkpoint) (*flowpb.ConnectorState, func(context.Context) error, error) {
	if cp == nil {
		return nil, nil, fmt.Errorf("starting a commit: the request has no checkpoint to store with the rows")
	}
	stored, err := proto.MarshalOptions{Deterministic: true}.Marshal(cp)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the checkpoint: %w", err)
	}
	return nil, func(ctx context.Context) error { return a.s.Commit(ctx, stored) }, nil
}

func (a *atomicPhases) close() error { return a.s.Close() }
