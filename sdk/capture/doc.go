// Package capture makes a connector of a source: a program that reads what changes in some system and hands it to a runtime
// as JSON documents, with the place to resume from.
//
// # A whole source
//
// An author writes three types and three methods. The types are the configuration of the endpoint, the configuration of
// one resource in it (a table, a topic, a stream), and the state of one resource: where to go on. The methods are Spec,
// Discover and Open:
//
//	type config struct {
//		Rate int `json:"rate" title:"Message Rate" desc:"Greetings per second." default:"1"`
//	}
//	type resource struct {
//		Name string `json:"name" title:"Stream Name" desc:"Name of the stream of greetings."`
//	}
//	type state struct{ Next int `json:"next"` }
//
//	func main() { capture.Main(capture.New(source{})) }
//
//	func (source) Spec() capture.Spec { … }
//	func (source) Discover(ctx context.Context, env capture.Env, cfg config) ([]capture.Collection[resource], error) { … }
//	func (source) Open(ctx context.Context, env capture.Env, cfg config,
//		bs []*capture.Binding[resource, state]) (capture.Reader, error) { … }
//
// The example of this package is complete, runs, and passes the conformance suite (sdk/testkit/capturetest), which every
// source should run. What the author does not write: framing, codecs, strict parsing of configurations, their schemas,
// merging of state, the order of checkpoints, acknowledgements, signals, logging, exit codes, a command line.
//
// # The life of a transaction
//
// Open returns a Reader. The framework calls its Read, again and again, from one goroutine:
//
//	Read(ctx, tx)                   the source waits until there is something to capture
//	  tx.Append(binding, encode)    a document, written where it will stay
//	  binding.State.Next++          the binding's state, kept as plain Go
//	  tx.OnAck(release)             what to do once this is durable
//	return nil                      everything above becomes one transaction
//
// Documents and state are committed together or not at all: the framework writes the documents, then a checkpoint that
// holds what changed in the states of the bindings that were emitted to (or saved with Tx.Save). After a crash, Open is
// given the state of the last checkpoint that the runtime committed, and everything since is read again. So Read may emit
// what it likes in which order it likes, as long as the state it leaves behind says exactly what has been emitted.
//
// A transaction may have any size. When it has gathered a megabyte, the buffer goes to the writer while Read goes on in a
// second one; when both are full, Append waits until the runtime has read. There is no queue, and no limit to tune:
//
//	reader's goroutine               writer's goroutine            goroutine of acknowledgements
//	Read ─ Append ─▶ [buffer A] ══▶ write(2) ─▶ standard output
//	                 [buffer B] ◀══ empty again
//	                                                               standard input ─▶ OnAck functions, in order
//
// A good transaction ends when about a megabyte is there (Tx.Size) or when nothing more is at hand: large transactions
// cost less, small ones arrive sooner.
//
// # Who calls what from where
//
//   - Source's methods, Reader.Read and Close: one goroutine, never at the same time.
//   - Binding's fields: that goroutine only.
//   - Functions given to OnAck: another goroutine, one at a time, in the order of their transactions.
//   - With PerBinding every binding's Reader runs in a goroutine of its own; each uses its own binding and Tx.
//
// # How a session ends
//
// When Read returns io.EOF the session ends well, with what this Read emitted. When the process is told to stop, or its
// runtime is gone, ctx ends; Read returns ctx.Err(), what it emitted is dropped, and the process exits with 0. Any other
// error ends the process with 1, and its message (see package usererr) is what people get to see. The output of a session
// that ended well always ends with a checkpoint. The one exception: a transaction of which a part has been written can
// neither be finished nor taken back, and a stop in the middle of it is a failure; the runtime drops the part.
//
// # State
//
// The state that runtimes keep is one JSON document, {"bindingStateV1": {"<state key>": S}, "shared": …}, changed by merge
// patches (RFC 7396). Authors see none of that: S is a Go type, written with encoding/json; the patch is the difference to
// what was committed before. A merge patch cannot store null, so a member that is null comes back absent. Raising a
// binding's backfill counter changes its state key, and the binding begins anew (Binding.New).
package capture
