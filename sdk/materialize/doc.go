// Package materialize makes a connector of a destination: a program that keeps tables, files or topics equal to collections
// of JSON documents that a runtime hands it, exactly once where the destination can do that.
//
// # A whole destination
//
// An author writes two types and a handful of methods. The types are the configuration of the endpoint and that of one
// binding (a table); the methods are those of Sink and of one of the two stores:
//
//	func main() { materialize.Main(sink{}) }
//
//	func (sink) Spec() materialize.Spec { … }
//	func (sink) Target(cfg config, r resource) materialize.Target { … }                            // where does it go?
//	func (sink) Constrain(cfg config, t materialize.Target, f materialize.Field) materialize.Constraint { … } // can it be stored?
//	func (sink) Apply(ctx, env, cfg, changes) (string, error) { … }                                // create and change tables
//	func (sink) Open(ctx, env, cfg, bindings) (*materialize.Transactor, error) {
//		return materialize.Atomic(&store{…}), nil
//	}
//
// What the author does not write: framing, codecs, strict parsing of configurations and their schemas, the forms of
// constraints that old and new runtimes understand, the order of the protocol's messages, the overlap of a commit with the
// next transaction's loads, connector states, logging, signals, exit codes, a command line.
//
// # Choose how you commit
//
// The one question that decides everything is whether the destination can keep the runtime's checkpoint in the same
// transaction as the rows.
//
//	it can      AtomicStore   Fence ─ Store ─ Commit            a database       exactly once: the destination knows its position
//	it cannot   StagedStore   Stage ─ (runtime commits) ─ Apply files, a lake    exactly once in effect: Apply may be repeated
//
// A store that is a Loader as well can do standard updates, one row for each key; one that is not takes delta updates only.
//
// # The life of a transaction
//
//	runtime                    framework                      author
//	Acknowledge ─────────────▶ waits for Commit(n-1)
//	Load… ───────────────────▶ ∥ meanwhile                    Load: keys.Next, keys.Key …
//	            ◀───────────── Acknowledged
//	Flush ───────────────────▶ keys.Next is false             found(binding, document) …
//	            ◀───────────── Loaded…, Flushed
//	Store… ──────────────────▶                                Store: rows.Next, rows.Row …   (or Stage)
//	StartCommit{checkpoint} ─▶ rows.Next is false
//	            ◀───────────── StartedCommit
//	                                                          Commit(checkpoint)             (Apply: after Acknowledge)
//
// Commit of one transaction and Load of the next run at the same time, on two goroutines: a store keeps one connection for
// each. That is the only concurrency it ever meets. Before all keys are read, nothing may be looked up: only then what the
// previous transaction stored is known to be visible.
//
// # Rows
//
// Keys and Rows are scanners over the protocol's stream: the elements of a row alias the stream's buffer and are valid until
// the next call of Next. An element (tuple.Element) has a kind, integer, float, text, boolean, nothing, or the bytes of a JSON
// array or object, and no `any`: a store encodes it straight into the form that the destination wants. Both codecs of the
// protocol give the same elements.
//
// # What must hold
//
//   - Apply is repeatable, and so is StagedStore.Apply.
//   - After Fence, no older session can commit. A test kills the connector at every message (sdk/testkit/sinktest); run it.
//   - Deletions are rows with Delete set. Whether they remove or mark is the destination's choice; Exists may be wrong, and
//     must then cost time at most.
//   - No row is dropped. A value that cannot be stored is an error that names table, column and key.
package materialize
