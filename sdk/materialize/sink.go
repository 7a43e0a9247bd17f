package materialize

import (
	"context"
	"fmt"

	"github.com/sirupsen/logrus"
)

// Config is a configuration that users write: a struct with json, title, desc, default, enum and secret tags (package
// schema). Validate reports every problem at once, in words for people.
type Config interface{ Validate() error }

// Spec describes a connector to people and runtimes.
type Spec struct {
	Title   string
	DocsURL string
	// LoadOptional says that what the runtime believes of a key's existence never decides what is stored or deleted: a row that
	// is not there is added, one that is there replaced, whatever Row.Exists says. Then runtimes that know of it do not load
	// what a document replaces, and Exists is what the source says. It stands in the resource's schema as "x-load-optional".
	LoadOptional bool
}

// Sink is a destination: C is the endpoint's configuration, R that of one binding. Its methods are called one after
// the other, never concurrently.
type Sink[C Config, R Config] interface {
	Spec() Spec

	// Target says where a binding goes and how. It is pure.
	Target(cfg C, r R) Target

	// Constrain says whether and under which name a field can be stored. It is pure, and asked about every field of
	// every binding; what depends on the destination's present state belongs to Checker.
	Constrain(cfg C, t Target, f Field) Constraint

	// Apply brings the destination into the shape that the changes describe and says in a sentence or two what it
	// did. It gets one change for every binding, those that stay as they are included, so it can compare with what is
	// really there. It must be repeatable: a runtime that crashes after Apply calls it again with the same changes.
	Apply(ctx context.Context, env Env, cfg C, changes []Change[R]) (summary string, err error)

	// Open starts a session and returns Atomic(…) or Staged(…) over the destination. The transactor's Close is called
	// when the session ends.
	Open(ctx context.Context, env Env, cfg C, bindings []*Binding[R]) (*Transactor, error)
}

// Checker is an optional ability of a Sink: looking at the destination before anything is applied.
type Checker[C Config, R Config] interface {
	// Check connects, and reports everything that would keep the bindings from being applied, in words for people.
	// It may tighten the constraints of the proposals, for instance where an existing column cannot hold a field. It
	// changes nothing in the destination. The command line's check passes no proposals, and no name of a task.
	Check(ctx context.Context, env Env, cfg C, proposals []*Proposal[R]) error
}

// Target is where a binding goes.
type Target struct {
	// Path names the resource, outermost part first. No two bindings may have the same path.
	Path []string
	// Delta asks for delta updates: no loads, every transaction's documents are appended.
	Delta bool
}

// Env is what a session knows about its task.
type Env struct {
	Task    string // the materialization's name
	Version string // of the specification being applied or opened
	Range   KeyRange
	Log     *logrus.Entry
}

// KeyRange is the part of the key space that a session is responsible for, both ends inclusive. The zero KeyRange is
// not valid; FullRange is everything.
type KeyRange struct{ Begin, End uint32 }

// FullRange returns the range that covers every key.
func FullRange() KeyRange { return KeyRange{Begin: 0, End: 1<<32 - 1} }

// ChangeKind is what Apply should do with one binding.
type ChangeKind uint8

// The kinds of changes.
const (
	// Keep: the binding's specification is what was applied last.
	Keep ChangeKind = iota
	// Create: the binding is new. Something of the same name may exist in the destination all the same.
	Create
	// Alter: fields were added, removed or changed.
	Alter
	// Replace: the binding starts anew, empty, since its backfill counter, its key or its way of updating changed.
	Replace
	// Remove: the binding is gone. Its data is the user's to keep or to drop.
	Remove
)

// Change is what happens to one binding when a specification is applied.
type Change[R any] struct {
	Kind ChangeKind
	// Binding is the binding to apply; for Remove, the one that is gone.
	Binding *Binding[R]
	// Last is the binding as it was applied last, nil if it was not or if the runtime does not know.
	Last *Binding[R]
	// Added, Removed and Altered are fields of the selection compared with Last. Altered ones are as they are now.
	Added, Removed, Altered []Field
	// Reason says in words for people why a binding is replaced.
	Reason string
}

// String is the range as two hexadecimal numbers.
func (r KeyRange) String() string { return fmt.Sprintf("%08x-%08x", r.Begin, r.End) }
