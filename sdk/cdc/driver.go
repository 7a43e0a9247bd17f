package cdc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"
)

// A Driver is one database behind the core: five verbs that the core calls from its own goroutines. Methods other
// than Close may be called concurrently (Scan by every backfill worker at once). Close is called last, after the
// stream was closed and all other calls have returned.
type Driver interface {
	// Check reports everything that keeps a capture of the tables from running, all at once, in words for people
	// (usererr). It creates nothing.
	Check(ctx context.Context, tables []TableID) []error

	// Discover describes the named tables, or with no names every table that can be captured. Tables that do not
	// exist are left out. The result is a hint: the shape of streamed rows comes from the log (Event.Shape).
	Discover(ctx context.Context, only ...TableID) ([]*Table, error)

	// Plan divides a table into ranges that Scan can read independently and in parallel. It is called by a worker when
	// the table's backfill begins, after the stream that carries the table's changes has been started, and again when
	// parts have come to the table: only Table.Parts are divided. It is called again, only for its Unseen, when the core can no longer tell by itself which transactions chunks must see.
	Plan(ctx context.Context, t *Table) (*Plan, error)

	// Scan reads one chunk from the front of a range, in one consistent snapshot, and yields its rows; yield's
	// arguments are valid until it returns, and an error of it ends the scan and is returned. It stops at the chunk's
	// limits. It may fail with ErrRewritten, ErrReshaped or ErrInterrupted (wrapped or not); any other error ends the
	// capture. All snapshots are of one server: what one has seen, every snapshot that is taken later sees too.
	Scan(ctx context.Context, c Chunk, yield func(Row) error) (*Scanned, error)

	// Stream starts reading the log. With a Position without a cursor it starts at the log's present end, creating on
	// the server whatever that needs; if that position has an identity, it is that of the log which was lost, whose
	// remains are the driver's to remove (never what belongs to somebody else). With a cursor it starts exactly behind
	// it, or fails with a usererr that says what became of the log: it never starts anywhere else. If everything may be
	// captured anew, that error wraps ErrPositionLost; if the server may be the wrong one, it must not. Stream may be
	// cut off at any moment and is then called again with the same position, or, after a loss, with the one before it.
	//
	// It sees to it that the log carries all of the tables before
	// anything is delivered. The tables look as they did at the position: a capture that was stopped meanwhile learns
	// from Shape events what has changed since (their columns then have no Schema if they are gone).
	Stream(ctx context.Context, from Position, tables []*Table) (Stream, error)

	Close() error
}

// ErrPositionLost says that the log cannot be continued from the stored position, or not beyond the place where the stream
// is, although this is the right server: it gave the log up, somebody removed it or read it in our place. Driver.Stream and
// Stream.Next may return it, wrapped in a usererr that says what happened. The core then captures every table anew
// (Options.StopOnPositionLoss). Hard cases 1, 2, 7, 9, 34 and 54.
var ErrPositionLost = errors.New("the log cannot be continued from the stored position")

// What may keep a chunk from being read. None of them ends the capture.
var (
	// ErrRewritten says that the rows are no longer where the plan and the range have them: the table was rewritten, or
	// replaced by another one. It is planned anew.
	ErrRewritten = errors.New("table was rewritten")
	// ErrReshaped says that the table no longer has the columns of Chunk.Table. It is discovered again and the range is
	// read again, in the new shape.
	ErrReshaped = errors.New("table changed its shape")
	// ErrInterrupted says that a passing reason, such as a lost connection or a cancelled statement, kept the chunk from
	// being read. It is read again after a while; the capture ends when that happens many times in a row.
	ErrInterrupted = errors.New("scan was interrupted")
)

// KeyScanner is an optional ability of a Driver: reading rows by key. The core needs it where the log alone cannot
// complete a row: a change of key that leaves out an unchanged out-of-line value, and every update that does so while
// the table is backfilled by a plan whose rows may move (Plan.Fixed).
type KeyScanner interface {
	// ScanKeys is Scan for the rows with the given keys, which are what Row.AppendKey gave. Keys without a row are
	// skipped. Chunk.Range is empty, and so is Scanned.Rest: all the keys are read, whatever the chunk's limits.
	ScanKeys(ctx context.Context, c Chunk, keys [][]byte, yield func(Row) error) (*Scanned, error)
}

// Waiter is an optional ability of a Driver: it says in words for people what a transaction which does not become
// visible is waiting for (its process, its age, a missing synchronous standby).
type Waiter interface {
	Explain(ctx context.Context, txn TxnID) string
}

// A Stream is the log, read by one goroutine. Only Ack may be called from another one, and not after Close.
//
// A Stream delivers only what is durable on the server, and never reconnects by itself: a connection that is lost is an
// error of Next. A mark that was noted before the server crashed would mean nothing on the log that follows (hard case
// 66), so the capture must begin again from its last checkpoint.
type Stream interface {
	// Start is the position that the stream began at. The core stores it before anything else, so that a crash
	// during the first backfill resumes the same log. Its identity may differ from the one that was resumed, where
	// the log goes on under another name (a standby was promoted); its cursor may not.
	Start() Position

	// Origin is what the driver wants to be reminded of about the moment from which on this stream carries a table
	// that had none (Table.Origin); for other tables it is what they had. It is stored before anything else. Of a table
	// that is joining (Joiner) it is empty.
	Origin(table TableID) string

	// Next returns the next event, or an event with Op Idle when nothing has arrived within wait. The event and all
	// that it refers to are valid until the next call. Changes come between transactions' begin and commit in log
	// order, transactions in commit order, whole.
	Next(ctx context.Context, wait time.Duration) (*Event, error)

	// Fence asks for one Fence event, with this mark, as soon as the stream has delivered every change before it.
	// It must also come on a server where nothing happens. Several fences may be outstanding, also of one mark. A
	// Fence event comes between transactions, never inside one.
	Fence(ctx context.Context, mark Mark) error

	// Ack releases the log up to and including a cursor that has become durable downstream. It must not block on
	// the network. Cursors come in order.
	Ack(upTo Cursor)

	// Close releases the stream's connection; the log stays on the server.
	Close() error
}

// Joiner is an optional ability of a Stream, for tables without a key: a table whose changes begin to be carried while somebody
// writes to it is divided exactly, into what the backfill reads and what the stream carries, only once those writers have
// ended. Until then the table joins: the stream leaves out all of its changes, and it is not backfilled.
type Joiner interface {
	// Joining reports whether the stream sends no change of the table before its Joined event. It is asked when the stream
	// has been opened, and when a table that was gone is there again.
	Joining(table TableID) bool
}

// Cursor is a place between transactions where reading can resume. Like Mark and TxnID it is the driver's own notation,
// compared by nobody but the driver.
type Cursor string

// Mark is any place in the log, noted for a fence.
type Mark string

// TxnID is a transaction, in a form that never repeats on a server, except that a crash may have lost a transaction without
// a trace and its name be given out again.
type TxnID string

// Position is where a stream resumes, kept in the capture's state.
type Position struct {
	Cursor Cursor `json:"cursor"`
	// Identity says which log the cursor belongs to (server, timeline, database, slot). It is what Stream.Start gave,
	// or the last Event.Identity, and is given back unchanged; the driver refuses a log that is not this one. It outlives
	// the cursor: without one, it tells which log was lost.
	Identity json.RawMessage `json:"identity,omitempty"`
}

// TableID names a table.
type TableID struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

func (id TableID) String() string { return id.Schema + "." + id.Name }

// Table is one version of a table's shape. It is immutable; a change of shape makes a new Table.
type Table struct {
	ID      TableID
	Columns []Column
	// Incarnation is the driver's notation of which table of this name it is; a table that was dropped and created
	// again has another one. The core stores it, gives it back and compares it. Empty when unknown.
	Incarnation string
	// Key lists the columns that identify a row in the collection, in key order. Two rows of one key must never be
	// visible at once, and a transaction that changes a key waits for the one before it until that has become
	// visible or was rolled back: the key is enforced at once by the server, not at commit.
	//
	// Empty means that the documents are keyed by their place in the log, because the table has no usable key, or had
	// none when its collection was made: the core then hands it out without. No window can be decided by key, so the
	// driver's Scan must leave out rows which the stream delivers, and its Stream changes which Scan delivers.
	Key []string
	// Origin is what Stream.Origin gave when the table began to be streamed: enough for a driver to tell, for a table
	// without a key, which transactions' rows come from the stream and which from the backfill.
	Origin string
	// Parts are the driver's notation of the parts that hold the table's rows, where parts with rows can come to the table, or
	// leave it, without a word in the log (partitions); otherwise nil. The core stores them, and has Plan divide those that
	// have come. They are never empty for a table that may have parts.
	Parts []string
	// Scope is the driver's notation of how the log carries the table, if that is somebody's to change (a publication, say):
	// another one means that changes may have been left out of the log meanwhile, so the table is read again. The core stores
	// and compares it. Empty when the log does not carry the table, or it cannot change.
	Scope string
	// Behind says that the log does not carry the table as it should, and will once the stream is opened again.
	Behind bool
	// Layout is the driver's notation of how the log lays out the rows of this version, where the log does not say that itself.
	// Only shapes that come from a Stream may have one: the core stores the last one, true at the position that is stored beside it,
	// and gives it back to the next Stream.
	Layout string
	// Selection is what of the table is captured, on tables that the core gives to a driver. Columns has no others.
	Selection Selection
	// Unread says, on tables that the core gives to a Stream, that nothing of the table is read but its changes: nobody else
	// has what the stream leaves out.
	Unread bool
	// Rows is the server's own estimate of how many rows the table has; below zero when unknown.
	Rows int64
}

// Column is one column of a Table.
type Column struct {
	Name string
	// Schema is the JSON schema of the column's value, null included where the column allows it. It is true for
	// every value that Row.AppendFields can produce.
	Schema json.RawMessage
	// Small is true if no value of the column is ever too large for a document: a number, a date. To say false is always right.
	Small bool
	// Nullable is false only if the server guarantees that the value is never null.
	Nullable bool
	// Type is the column's type in the database's words. People read it; the core stores it, gives it back, and takes
	// another one as another column.
	Type string
	// Incarnation is the driver's notation of which column it is (its number, say), unlike that of every other column the
	// table ever had: one that was dropped and added again has another one, and other values; one that was renamed keeps it. The core stores it and gives it back. Empty when unknown, as it is
	// in shapes that come from a log which does not tell: then discovery is asked at once. (Only a column that is added,
	// dropped and added again before that, without a word in the log, is taken for the one that replaced it.)
	Incarnation string
	// Form is the driver's notation of how the column's values are written, where the configuration decides that; empty for
	// the default. Streamed shapes have it too. The core stores it and compares it when a session opens: with another form
	// the table is read again, and a column of the key is refused, since its documents would get other keys.
	Form string
	// Filled is true if rows that are older than the column may have a value in it other than null, or if that is not
	// known: such a table is backfilled again when discovery finds the column before the log mentions it.
	Filled bool
	// Unkeyed is how the column is where documents are not keyed by it, for columns of the key that Discover finds: a table may
	// get a key after its collection was made without one. Nil where that is the same.
	Unkeyed *Column
}

// Keyed is a column of a key, as it is there, with how it is elsewhere if that is not the same.
func Keyed(there, elsewhere Column) Column {
	if !bytes.Equal(there.Schema, elsewhere.Schema) || there.Form != elsewhere.Form {
		there.Unkeyed = &elsewhere
	}
	return there
}

// Plan is how one table will be backfilled.
type Plan struct {
	// Ranges are disjoint and together cover every row that existed when the plan was made, or that a transaction in
	// Unseen may yet write, and that the stream might never mention. Each is worked on by at most one worker at a
	// time. (A last range may be open: its first chunk that counts is read after the transactions in Unseen have
	// ended, so that is when its Scan can fix an end.) No ranges means that the table is empty.
	Ranges []Range
	// Fixed says that a row stays in its range for as long as its key stays the same, as it does in ranges of keys. It
	// is false for physical ranges, where an update moves a row, perhaps behind a reader's back: then every update
	// which leaves out an unchanged value must be completed by key (KeyScanner).
	Fixed bool
	// Unseen are the transactions that were in progress when the plan was made, of those that may have changed the
	// table before it was streamed, or whose commit may already have been delivered although it is not visible. To
	// give all transactions in progress is always right. A chunk counts only if its snapshot sees them all. Hard
	// case 65.
	Unseen []TxnID
}

// Range is a part of a table in the driver's notation, kept in the state; it says everything that is needed to go on
// reading after a restart.
type Range string

// Chunk is what Scan is asked to read.
type Chunk struct {
	Table    *Table
	Range    Range
	MaxRows  int // stop after this many rows
	MaxBytes int // stop after about this many bytes of row data; at least one row is read
	// Heavy waits until the driver may hold a row of more than HeavyRow bytes: of all chunks in memory, only one at a time
	// may have such rows. Scan calls it before it reads one into memory; to call it again is harmless. Its only error is the
	// context's. Nil where nobody minds.
	Heavy func(ctx context.Context) error
}

// HeavyRow is how large a row may be before Chunk.Heavy has to be called for it.
const HeavyRow = 8 << 20

// Scanned describes a chunk that was read.
type Scanned struct {
	// Rest is what remains of the range; empty when the range is finished.
	Rest Range
	// Snapshot tells which transactions the chunk's rows include.
	Snapshot Visibility
	// High is a place in the log, noted after the snapshot was taken (on a primary, the insert position): once the stream
	// has passed it, everything that the chunk shows is durable on the server, and every transaction that the chunk shows
	// has been delivered.
	High Mark
}

// Visibility is a snapshot of which transactions had become visible. It does not change and may be asked from any
// goroutine, also long after its scan.
type Visibility interface {
	// Sees reports whether the transaction's changes were visible, or never will be because it was rolled back. False
	// is the safe answer: a row whose key was changed by a delivered transaction that is not seen is left to the
	// stream. Of every transaction that has ended, a later snapshot must say true.
	Sees(TxnID) bool
}

// Row is one row, or what the log holds of it. It belongs to its driver and is valid until the callback that received
// it returns, or the next call of Stream.Next.
type Row interface {
	// AppendFields appends the row's columns as JSON members without braces: "a":1,"b":"x". Columns which the row
	// lacks are left out, never null; so are columns that the table's Selection leaves out.
	AppendFields(dst []byte) ([]byte, error)
	// AppendKey appends the key columns' values as a tuple (package tuple); equal keys give equal bytes, whether
	// they come from the log or from a scan.
	AppendKey(dst []byte) ([]byte, error)
	// AppendSource appends the members of _meta.source: "ts_ms":1,"schema":"s","table":"t",…
	AppendSource(dst []byte) ([]byte, error)
	// Omitted names the selected columns that the row lacks because the log does not repeat an unchanged value. Empty when the
	// row is complete; always empty for scanned rows. The slice is valid as long as the row, its strings for ever.
	Omitted() []string
}

// Op is the kind of an Event.
type Op uint8

// The kinds of events.
const (
	Idle     Op = iota // nothing arrived in time
	Insert             // Row
	Update             // Row; Before when the log has the old row or the old key
	Delete             // Before: at least the key, if the table has one
	Truncate           // the table lost all its rows; Mark says where in the log
	Shape              // the table's rows look like Event.Shape from here on
	Drop               // the table is gone, or can no longer be followed; Event.Err says why
	Commit             // end of a transaction; Cursor
	Fence              // the stream has passed Event.Mark
	Joined             // the stream carries the table from here on; Origin. It comes between transactions (Joiner)
)

// Event is one step of the log.
type Event struct {
	Op    Op
	Table TableID
	// Txn is the transaction, set on every row event and on Commit.
	Txn         TxnID
	Row, Before Row
	// Unlogged says, on Update events, that columns which Row lacks may have changed. The core reads the row by key (KeyScanner); the
	// table must have one.
	Unlogged bool
	// Shape is the new shape, on Shape events.
	Shape *Table
	// Rescan says, on Shape events, that existing rows may have got other values without the log mentioning them (a
	// column added with a default, a column retyped, a table replaced): the table is backfilled again.
	Rescan bool
	// Owed says, beside Rescan, that changes of the table were left out up to here. No backfill that began before makes up for that.
	Owed bool
	// Halt says, on Drop events, that the table is there, but that rows of it have come in a way that nothing makes up for. It is not
	// captured again before its binding is backfilled; Err says so to people.
	Halt bool
	// Look says, on Shape events, that the table should be discovered, because what the log does not tell of it may have
	// changed.
	Look bool
	// Cursor is set on Commit, and on Idle when the driver has proof that nothing of ours lies before it: where to
	// resume from now on.
	Cursor Cursor
	// Identity, beside Cursor, is what Position.Identity has to be from here on; nil if that has not changed. The core
	// keeps a copy.
	Identity json.RawMessage
	// CommitTime is when the transaction committed on the server, on Commit; on Truncate if the log says it by then.
	CommitTime time.Time
	Mark       Mark
	Origin     string // Table.Origin, on Joined
	// Once says, on Joined, that the table has to be read in one pass: what Driver.Plan and Driver.Scan give from here on is of
	// one snapshot, which has exactly what the stream has left out, and no other one has. There is no checkpoint until all of it
	// is emitted, so it must be of one range, and there must be no other such event before that range was read.
	Once bool
	Err  error
}
