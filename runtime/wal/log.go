// Package wal is the log that stands between captures and materializations: what a capture has committed stays in
// it, in order, for any number of readers at their own pace.
//
// A collection is kept as journals, in each of which documents have an order: one for each capture that writes to it in the
// embedded log, one for each partition of a topic in Kafka. An offset counts from a journal's beginning, bytes here and records
// there, and never changes its meaning. Documents stand in blocks, and blocks are the unit
// of reading and of positions. What a capture appends becomes visible, and durable, at its next commit, together with
// the records (the capture's state) that the commit carries.
package wal

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Log is the engine-neutral part: what captures append and materializations read. Implementations are safe for use
// by many goroutines; a Writer or Reader is for one.
type Log interface {
	Placed
	// Heads returns the journals of a collection and up to where each is committed.
	Heads(collection string) []Head
	// Changed returns a channel that is closed at the next commit of a capture, and when a record has changed in a log that has shards. Take it
	// before looking at Heads, or at records.
	Changed() <-chan struct{}
	// Writer opens the log for a capture, and forgets what was appended for it and never committed. There is one
	// writer of a capture at a time.
	Writer(capture string) (Writer, error)
	// Reader reads the blocks of a journal from an offset up to another, which must not be behind the head.
	Reader(journal Journal, from, to int64) (Reader, error)
}

// Placed is what a log says of itself and of its places.
type Placed interface {
	// Identity tells this log from every other: positions of one mean nothing in another.
	Identity() Identity
	// Behind is how many bytes of documents a journal has from an offset to its head, of which zero are none; an estimate
	// where offsets are not bytes.
	Behind(journal Journal, offset int64) int64
	// Alone returns the journals of a collection, and up to where each is committed, if nobody but one capture has ever written to
	// them, and none of them otherwise.
	Alone(collection, capture string) []Head
	// Share is which one of a number of shards reads a journal: each journal is read by one.
	Share(journal Journal, shards int) int
	// Words are what messages for people call this log.
	Words() Words
}

// Words are what messages call a log.
type Words struct {
	Place string // where it is: "this data folder"
	Unit  string // of offsets: "bytes"
	// Short is why a destination may have committed more than the log has, and what to do then.
	Short string
}

// Engine is a whole log as the engine runs one: with its records, with what is asked of it to look into it, and with its end.
type Engine interface {
	Log
	Store
	Inspected
	Tasks
	// Close closes the log. Nobody may use it any more.
	Close() error
}

// Tasks says whose the tasks are that write to a log.
type Tasks interface {
	// Take makes a shard of a task ("capture/NAME", "materialization/NAME", and the shard's suffix) this process', and returns the records as it
	// changes them: what it has appended and not committed is forgotten by that. No instance of it elsewhere can commit anything any more. The store's
	// errors wrap [ErrFenced] once another process has taken it, and fenced, which may be nil, is called with the first of them; so it is when that is found out otherwise.
	Take(ctx context.Context, task string, fenced func(error)) (Store, error)
	// Release gives a shard back that was taken, and that nobody uses any more.
	Release(task string)
	// Fence does to a shard what Take does to older instances of it, and leaves it to nobody.
	Fence(ctx context.Context, task string) error
}

// Inspected is what is asked of a log to look into it.
type Inspected interface {
	// Journals lists the journals that have been committed to, in their order.
	Journals() []Journal
	// Names lists the names of records that begin with a prefix, in their order.
	Names(prefix string) ([]string, error)
	// Span describes what the log has of a journal.
	Span(Journal) (Span, error)
	// At finds where the first commit of a time or later begins in a journal; where the journal ends if there is none.
	At(journal Journal, t time.Time) (int64, error)
	// Through returns what is known of the last commit that ends at an offset of a journal or before it; the zero Commit if none is.
	Through(journal Journal, offset int64) (Commit, error)
}

// Bounded is a log from which the engine drops old documents, by the pipeline's retention.
type Bounded interface {
	Inspected
	Store
	// Behind is that of [Placed].
	Behind(journal Journal, offset int64) int64
	// Start is where the oldest document of a journal stands; zero if there is none.
	Start(Journal) int64
	// Drop forgets the documents of a journal in front of an offset, for good: one at which a commit begins.
	Drop(ctx context.Context, journal Journal, offset int64) error
}

// ErrFenced says that another instance of a task has begun elsewhere, so that this one can commit nothing any more. It is the end of this
// instance, and no failure of it: to try again would end the other one.
var ErrFenced = errors.New("another instance has taken over")

// Store keeps small records by name: states, checkpoints, specifications.
type Store interface {
	// Get returns a record in memory of the caller's own; nil if there is none.
	Get(name string) ([]byte, error)
	// Put changes records atomically and returns when they are durable. A nil value deletes.
	Put(ctx context.Context, changes Records) error
}

// Records are changes of records by name; nil deletes.
type Records map[string][]byte

// Shared is a store whose records other processes change, too.
type Shared interface {
	Store
	// Update makes changes that follow from what the records say: change is called again if another process has changed some meanwhile.
	// Nothing is done if it returns none.
	Update(ctx context.Context, change func() (Records, error)) error
}

// Update is Update of a store that is shared, and makes the changes once in any other.
func Update(ctx context.Context, store Store, change func() (Records, error)) error {
	if shared, ok := store.(Shared); ok {
		return shared.Update(ctx, change)
	}
	changes, err := change()
	if err != nil || len(changes) == 0 {
		return err
	}
	return store.Put(ctx, changes)
}

// Writer appends to the journals of one capture.
type Writer interface {
	// Append adds a block behind all that was appended before. The block may be reused when it returns.
	Append(collection string, b *Block) error
	// Require says that what was appended to a collection since the last commit needs at least this version of its
	// schema: a source may announce a schema behind the first documents that have it.
	Require(collection string, version uint32) error
	// Commit makes what was appended visible and durable, with the records, all or nothing.
	Commit(ctx context.Context, changes Records) error
	// Close forgets what was appended and not committed, if others would wait for that.
	Close() error
}

// Reader iterates over blocks.
type Reader interface {
	// Next returns the next block and the offset behind it; ok is false at the end, which may be behind the last block where documents were
	// compacted away. The block's Docs alias memory
	// that stays valid after Next and Close.
	Next() (b Block, next int64, ok bool, err error)
	Close() error
}

// Identity is six bytes, as many as a producer's id in the protocol's checkpoint has.
type Identity [6]byte

// Journal names a part of a collection: that of a capture in the embedded log, "#" and the number of a partition in Kafka.
type Journal struct{ Collection, Part string }

func (j Journal) String() string { return j.Collection + ";" + j.Part }

// Compare orders journals by collection, and then by part.
func (j Journal) Compare(k Journal) int {
	return cmp.Or(strings.Compare(j.Collection, k.Collection), strings.Compare(j.Part, k.Part))
}

// Head is how far a journal is committed.
type Head struct {
	Journal Journal
	Offset  int64
	Start   int64 // of the oldest block that has not been dropped
}

// Block is some documents of one journal.
type Block struct {
	Sealed time.Time // when it was appended
	Schema uint32    // version of the collection's schema that the documents may need
	Count  int
	docs   []byte // each as its length, a varint, and its text
	// origins are what AddFrom was told, each from one document on; empty if it was not called. They are not kept by the embedded log.
	origins []origin
}

// origin is what documents come from, up to the next one.
type origin struct {
	first int // number of the first of them in the block
	name  string
}

// AddFrom is Add with the name of what a document comes from, such as a table's, for a log that keeps it.
func (b *Block) AddFrom(name string, doc []byte) {
	if n := len(b.origins); n == 0 || b.origins[n-1].name != name {
		b.origins = append(b.origins, origin{b.Count, name})
	}
	b.Add(doc)
}

// Origin is what AddFrom was told of a document, by its number in the block; "" if nothing.
func (b *Block) Origin(i int) string {
	for _, o := range slices.Backward(b.origins) {
		if o.first <= i {
			return o.name
		}
	}
	return ""
}

// Add appends a document, which is copied.
func (b *Block) Add(doc []byte) {
	b.docs = binary.AppendUvarint(b.docs, uint64(len(doc)))
	b.docs = append(b.docs, doc...)
	b.Count++
}

// Grow makes room for so many bytes more.
func (b *Block) Grow(bytes int) { b.docs = slices.Grow(b.docs, bytes) }

// Size is the number of bytes of the documents.
func (b *Block) Size() int { return len(b.docs) }

// Reset empties the block and keeps its memory, unless one huge document made it huge.
func (b *Block) Reset() {
	if cap(b.docs) > 4<<20 {
		b.docs = nil
	}
	b.docs, b.Count, b.origins = b.docs[:0], 0, b.origins[:0]
}

// Docs iterates over the documents, which alias the block.
func (b *Block) Docs(yield func(doc []byte) error) error {
	rest := b.docs
	for len(rest) > 0 {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return fmt.Errorf("reading a block of %d documents: %w", b.Count, errDamaged)
		}
		if err := yield(rest[n : n+int(size)]); err != nil {
			return err
		}
		rest = rest[n+int(size):]
	}
	return nil
}

var errDamaged = errors.New("its bytes are damaged")

// A block is stored as: version (1 byte) · schema (4, little-endian) · sealed (8, Unix nanoseconds) · count (4) · documents.
const (
	blockVersion = 1
	headerSize   = 17
)

func (b *Block) appendTo(dst []byte) []byte {
	dst = append(dst, blockVersion)
	dst = binary.LittleEndian.AppendUint32(dst, b.Schema)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(b.Sealed.UnixNano()))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(b.Count))
	return append(dst, b.docs...)
}

func parseBlock(value []byte) (Block, error) {
	if len(value) < headerSize || value[0] != blockVersion {
		return Block{}, fmt.Errorf("reading a block: %w", errDamaged)
	}
	return Block{
		Schema: binary.LittleEndian.Uint32(value[1:]),
		Sealed: time.Unix(0, int64(binary.LittleEndian.Uint64(value[5:]))),
		Count:  int(binary.LittleEndian.Uint32(value[13:])),
		docs:   value[headerSize:],
	}, nil
}

// BeginRecord names the record that says where a journal begins for those who read it from the beginning: behind
// documents which have come again since.
func BeginRecord(j Journal) string { return "begin/" + j.String() }

// EncodeOffset is an offset as a record.
func EncodeOffset(offset int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(offset)) }

// DecodeOffset reads what EncodeOffset wrote; of anything else it is zero.
func DecodeOffset(record []byte) int64 {
	if len(record) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(record))
}
