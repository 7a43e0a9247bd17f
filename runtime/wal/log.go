// Package wal is the log that stands between captures and materializations: what a capture has committed stays in
// it, in order, for any number of readers at their own pace.
//
// A collection is kept as journals, one for each capture that writes to it. A journal is a sequence of bytes; an
// offset counts from its beginning and never changes its meaning. Documents stand in blocks, and blocks are the unit
// of reading and of positions. What a capture appends becomes visible, and durable, at its next commit, together with
// the records (the capture's state) that the commit carries.
package wal

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Log is the engine-neutral part: what captures append and materializations read. Implementations are safe for use
// by many goroutines; a Writer or Reader is for one.
type Log interface {
	// Identity tells this log from every other: positions of one mean nothing in another.
	Identity() Identity
	// Heads returns the journals of a collection and up to where each is committed.
	Heads(collection string) []Head
	// Changed returns a channel that is closed at the next commit of a capture. Take it before looking at Heads.
	Changed() <-chan struct{}
	// Writer opens the log for a capture, and forgets what was appended for it and never committed. There is one
	// writer of a capture at a time.
	Writer(capture string) (Writer, error)
	// Reader reads the blocks of a journal from an offset up to another, which must not be behind the head.
	Reader(journal Journal, from, to int64) (Reader, error)
}

// Store keeps small records by name: states, checkpoints, specifications.
type Store interface {
	// Get returns a record in memory of the caller's own; nil if there is none.
	Get(name string) ([]byte, error)
	// Put changes records atomically and returns when they are durable. A nil value deletes.
	Put(ctx context.Context, changes Records) error
}

// Records are changes of records by name; nil deletes.
type Records map[string][]byte

// Writer appends to the journals of one capture.
type Writer interface {
	// Append adds a block behind all that was appended before. The block may be reused when it returns.
	Append(collection string, b *Block) error
	// Require says that what was appended to a collection since the last commit needs at least this version of its
	// schema: a source may announce a schema behind the first documents that have it.
	Require(collection string, version uint32) error
	// Commit makes what was appended visible and durable, with the records, all or nothing.
	Commit(ctx context.Context, changes Records) error
}

// Reader iterates over blocks.
type Reader interface {
	// Next returns the next block and the offset behind it; ok is false at the end. The block's Docs alias memory
	// that stays valid after Next and Close.
	Next() (b Block, next int64, ok bool, err error)
	Close() error
}

// Identity is six bytes, as many as a producer's id in the protocol's checkpoint has.
type Identity [6]byte

// Journal names a capture's part of a collection.
type Journal struct{ Collection, Capture string }

func (j Journal) String() string { return j.Collection + ";" + j.Capture }

// Compare orders journals by collection, and then by capture.
func (j Journal) Compare(k Journal) int {
	return cmp.Or(strings.Compare(j.Collection, k.Collection), strings.Compare(j.Capture, k.Capture))
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
}

// Add appends a document, which is copied.
func (b *Block) Add(doc []byte) {
	b.docs = binary.AppendUvarint(b.docs, uint64(len(doc)))
	b.docs = append(b.docs, doc...)
	b.Count++
}

// Size is the number of bytes of the documents.
func (b *Block) Size() int { return len(b.docs) }

// Reset empties the block and keeps its memory, unless one huge document made it huge.
func (b *Block) Reset() {
	if cap(b.docs) > 4<<20 {
		b.docs = nil
	}
	b.docs, b.Count = b.docs[:0], 0
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
