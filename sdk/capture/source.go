package capture

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/schema"
)

// Config is what users write: a struct with the tags of package schema (json, title, desc, default, enum, secret …), for
// the endpoint and for the resource of a binding. It is parsed strictly and filled with its defaults before Validate is
// called. Validate checks what types cannot and reports every problem at once (usererr.Join).
type Config interface {
	Validate() error
}

// Source is a connector as its author writes it: C is the endpoint's configuration, R the resource of one binding, S the
// state of one binding, any type that package encoding/json can write and read back. Its methods are called from one
// goroutine, a process calls any number of Discover, Check and Apply, then Open; again only when the session before has ended (ErrDisconnected).
type Source[C, R Config, S any] interface {
	// Spec describes the connector. It is asked for often and must not fail or connect anywhere.
	Spec() Spec

	// Discover lists what can be captured. Of env only Task and Log are set; Task is empty if the caller did not say it.
	Discover(ctx context.Context, env Env, cfg C) ([]Collection[R], error)

	// Open starts a session. The bindings carry the state that was last committed; the Reader that is returned belongs
	// to the framework, which calls Read until the session ends and then Close, if it is an io.Closer.
	Open(ctx context.Context, env Env, cfg C, bindings []*Binding[R, S]) (Reader, error)
}

// Checker is an optional ability of a Source: Check looks for everything that keeps a capture of the resources from
// running, in the endpoint itself, and reports all of it at once. It changes nothing there. A source without it is
// checked by its configuration alone.
type Checker[C, R any] interface {
	Check(ctx context.Context, env Env, cfg C, resources []R) error
}

// Applier is an optional ability of a Source: Apply prepares the endpoint for a capture of the resources, before the first
// Open and after each change of the task, while no session runs. It may be repeated and must then do nothing more. It says
// in a sentence for people what it did, or nothing.
type Applier[C, R any] interface {
	Apply(ctx context.Context, env Env, cfg C, resources []R) (summary string, err error)
}

// Reader is an opened capture.
type Reader interface {
	// Read waits until there is something to capture and fills one transaction with it. When it returns nil, all that
	// it emitted and the states of the bindings it emitted to are committed together; the next call begins a new
	// transaction. It should return when it has gathered about a megabyte (Tx.Size), or when nothing more is at hand.
	// A transaction may be of any size: beyond a megabyte it is written while it grows.
	//
	// io.EOF ends the session cleanly, with what was emitted before it. Any other error ends it without, also one that wraps
	// io.EOF, as that of a connection does. When ctx ends,
	// Read must return soon, with ctx.Err(); what the transaction held is dropped and read again next time. (If Read
	// returns nil instead, it is committed.)
	//
	// Read is called from one goroutine, never concurrently.
	Read(ctx context.Context, tx *Tx) error
}

// ErrDisconnected marks errors of Open and Read that say no more than that the connection to the endpoint is lost, or cannot be made
// now. A source may mark errors so if a session that is opened with what was last committed goes on exactly there. A pull then opens one
// again, where no document of an unfinished transaction was written; anybody else starts the process again, whatever the error.
var ErrDisconnected = errors.New("the connection is lost")

// Disconnected marks an error by ErrDisconnected. What it says stays as it is.
func Disconnected(err error) error { return &disconnected{err} }

type disconnected struct{ err error }

func (d *disconnected) Error() string        { return d.err.Error() }
func (d *disconnected) Unwrap() error        { return d.err }
func (d *disconnected) Is(target error) bool { return target == ErrDisconnected }

// ReaderFunc is a Reader that is just a function.
type ReaderFunc func(ctx context.Context, tx *Tx) error

// Read calls the function.
func (f ReaderFunc) Read(ctx context.Context, tx *Tx) error { return f(ctx, tx) }

// Spec describes a connector.
type Spec struct {
	// Title names the system that is captured, for people: "Postgres".
	Title string
	// DocsURL is where people read on. It is required by the protocol.
	DocsURL string
	// ResourcePath are JSON pointers into the resource configuration ("/namespace", "/stream"). Their values name the
	// resource within the endpoint, and tell bindings apart.
	ResourcePath []string
	// AirbyteFields are what records of the Airbyte protocol get beside a document's own fields: names, such as _ab_cdc_lsn, and
	// JSON pointers to numbers in the document's member _meta. Optional.
	AirbyteFields map[string]string
}

// Collection is one thing that can be captured, as Discover proposes it.
type Collection[R any] struct {
	// Name is recommended for the collection. Characters that collections' names cannot hold are replaced.
	Name string
	// Resource is the binding's configuration that captures it.
	Resource R
	// Key are JSON pointers to the fields that identify a document.
	Key []string
	// Schema is the JSON schema that every document follows.
	Schema json.RawMessage
	// Disable proposes it, but switched off.
	Disable bool
	// FallbackKey says that Key is synthetic, so that users may choose a better one.
	FallbackKey bool
}

// Env is what a session knows besides its configuration.
type Env struct {
	// Task is the capture's name.
	Task string
	// Version identifies the build of the task's specification; opaque.
	Version string
	// Log is the session's logger. Its lines reach the user.
	Log *logrus.Entry
	// Range is this process's part of the capture. It is full unless the capture is split over several processes.
	Range KeyRange
	// Ephemeral says that nothing keeps the state of this session: it was started by hand without a state file. A source
	// then leaves nothing behind at the endpoint that would wait for another session.
	Ephemeral bool
	// CatchUp says that the session is to end: Read returns io.EOF as soon as everything was captured that the endpoint had
	// when the session was opened. What came meanwhile may be captured too. A source that polls ends after one sweep.
	CatchUp bool
	// Whole says that whoever reads takes every document for the whole row: what it lacks becomes null. Instead of a change
	// of which the log leaves out values, a source has to send the whole row, before it has caught up.
	Whole bool
	// Outlet tells how the session's output is taken. It is nil outside of sessions.
	Outlet *Outlet
	// Shared is the state that Tx.SetShared last committed; nil when there is none.
	Shared json.RawMessage
	// Dormant are the state keys of bindings that are not part of this session but have left state behind, sorted. A
	// source that would resume such a binding wrongly, if it came back later, drops its state with Tx.Forget.
	Dormant []string
}

// Idle is what Read of a source that polls returns when there is nothing new: it waits for d until the source is asked again; a session that is to end
// ends (io.EOF).
func (e Env) Idle(ctx context.Context, d time.Duration) error {
	if e.CatchUp {
		return io.EOF
	}
	return Sleep(ctx, d)
}

// KeyRange is an inclusive range of 32-bit hashes. What is hashed is up to the source.
type KeyRange struct {
	Begin, End uint32
}

// Full reports whether the range covers everything.
func (r KeyRange) Full() bool { return r.Begin == 0 && r.End == 1<<32-1 }

// Contains reports whether a hash falls into the range.
func (r KeyRange) Contains(hash uint32) bool { return r.Begin <= hash && hash <= r.End }

// SchemaOf is the JSON schema of the documents that encoding/json writes for T: every field that is always written is
// required. It is made for static documents; SQL sources compose theirs from columns.
func SchemaOf[T any]() json.RawMessage { return schema.Of[T]() }

// Sleep waits for d, or returns ctx.Err() when ctx ends earlier.
func Sleep(ctx context.Context, d time.Duration) error { return retry.Sleep(ctx, d) }
