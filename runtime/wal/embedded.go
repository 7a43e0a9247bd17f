package wal

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// Embedded is a log and a store in one folder, made of Pebble. One process has it open at a time.
//
// Keys: 'i' identity · 'j' journal name → number · 'h' number → head · 'd' number, offset → block ·
// 'v' number, offset → schema version · 'c' number, offset → commit that ends there · 's' number → where it begins · 'r' name → record.
type Embedded struct {
	db       *pebble.DB
	lock     *os.File
	opts     Options
	identity Identity

	mu       sync.Mutex
	journals map[Journal]*journal
	byName   map[string][]Journal // by collection, in the order of captures
	changed  chan struct{}
}

// add makes a journal known. The lock must be held, or nobody else know the log yet.
func (e *Embedded) add(name Journal, j *journal) {
	e.journals[name] = j
	list := append(e.byName[name.Collection], name)
	slices.SortFunc(list, func(a, b Journal) int { return strings.Compare(a.Part, b.Part) })
	e.byName[name.Collection] = list
}

type journal struct {
	number   uint32
	start    int64 // of what is left
	head     int64
	versions []versionMark // ascending by offset
}

// versionMark says that documents from an offset on need at least a version of their collection's schema.
type versionMark struct {
	offset  int64
	version uint32
}

// version is what a block at an offset needs by the marks. The lock must be held.
func (j *journal) version(offset int64) uint32 {
	var version uint32
	for _, m := range j.versions {
		if m.offset <= offset {
			version = max(version, m.version)
		}
	}
	return version
}

// logName is the engine's folder in the data folder.
const logName = "log"

// Options of an embedded log.
type Options struct {
	Dir string
	Log *logrus.Entry
	// MinFreeBytes is how much of the disk is left alone: below it nothing is committed, so that the engine never
	// meets a full disk. Zero is 256 MiB.
	MinFreeBytes uint64
	// FreeBytes tells how much of the disk is free; nil asks the file system.
	FreeBytes func() (uint64, error)
	// ReadOnly opens a log that exists and changes nothing in it. It is nobody else's meanwhile all the same.
	ReadOnly bool
	// Now is the clock; nil is the system's.
	Now func() time.Time
}

const (
	keyIdentity = 'i'
	keyJournal  = 'j'
	keyHead     = 'h'
	keyBlock    = 'd'
	keyRecord   = 'r'
	keyVersion  = 'v'
	keyCommit   = 'c'
	keyStart    = 's'
)

// Open opens or creates the log in a folder. Errors are for people; one wraps [ErrInUse] if another process has it open.
func Open(opts Options) (*Embedded, error) {
	if opts.MinFreeBytes == 0 {
		opts.MinFreeBytes = 256 << 20
	}
	if opts.FreeBytes == nil {
		opts.FreeBytes = func() (uint64, error) { return freeBytes(opts.Dir) }
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if err := opts.prepare(); err != nil {
		return nil, err
	}
	lock, err := lockFolder(opts.Dir)
	if err != nil {
		return nil, err
	}
	e := &Embedded{lock: lock, opts: opts, journals: map[Journal]*journal{}, byName: map[string][]Journal{}, changed: make(chan struct{})}
	if err := e.open(); err != nil {
		if closeErr := e.Close(); closeErr != nil {
			opts.Log.WithError(closeErr).Debug("closing a log that could not be opened")
		}
		return nil, err
	}
	return e, nil
}

// prepare makes the folder, or sees that there is a log in it.
func (o *Options) prepare() error {
	if !o.ReadOnly {
		if err := os.MkdirAll(o.Dir, 0o700); err != nil {
			return usererr.New(err, "cannot create the data folder %s: %v", o.Dir, bare(err))
		}
		return nil
	}
	if _, err := os.Stat(filepath.Join(o.Dir, logName)); err != nil {
		return usererr.New(err, "there is no log in the data folder %s (%v): no sluice run has used it yet", o.Dir, bare(err))
	}
	return nil
}

func (e *Embedded) open() error {
	options := engineOptions(logger{e.opts.Log})
	if options.ReadOnly = e.opts.ReadOnly; !options.ReadOnly {
		if err := e.roomLeft(); err != nil {
			return err
		}
	}
	db, err := pebble.Open(filepath.Join(e.opts.Dir, logName), options)
	if err != nil {
		return usererr.New(err, "cannot open the log in the data folder %s: %v", e.opts.Dir, err)
	}
	e.db = db
	if err := e.loadIdentity(); err != nil {
		return err
	}
	return e.loadJournals()
}

// engineOptions suit a log: blocks are large, written once, read once or twice in their order, and never changed.
//
// Every table that the engine flushes has some blocks and, at the other end of the keys, the same few records as the tables before,
// so all tables overlap, and to merge them would write every block again. So blocks are kept apart from the keys, in files that are
// never merged, and the small tables that are left are merged seldom.
func engineOptions(log pebble.Logger) *pebble.Options {
	const (
		large       = 4 << 10 // what is smaller stays with its key: a record, or a few small documents
		mergeNever  = 1 << 20 // files that a table may refer to before its values are merged
		rewriteFrom = 0.5     // share of all files' bytes that is garbage before files are rewritten: of transactions that were given up, and of what was dropped
	)
	o := &pebble.Options{
		FormatMajorVersion:    pebble.FormatNewest,
		MemTableSize:          8 << 20, // twice that may be in memory
		L0CompactionThreshold: 32,
		L0StopWritesThreshold: 128,
		Logger:                log,
	}
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{Enabled: true, MinimumSize: large, MaxBlobReferenceDepth: mergeNever, TargetGarbageRatio: rewriteFrom}
	}
	return o
}

func (e *Embedded) loadIdentity() error {
	stored, err := e.get([]byte{keyIdentity})
	if err != nil {
		return err
	}
	if len(stored) == len(e.identity) {
		copy(e.identity[:], stored)
		return nil
	}
	if _, err := rand.Read(e.identity[:]); err != nil {
		return fmt.Errorf("choosing the log's identity: %w", err)
	}
	e.identity[0] |= 1 // a multicast address, so that it is nobody's hardware address
	if err := e.db.Set([]byte{keyIdentity}, e.identity[:], pebble.Sync); err != nil {
		return fmt.Errorf("storing the log's identity: %w", err)
	}
	return nil
}

func (e *Embedded) loadJournals() error {
	iter, err := e.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyJournal}, UpperBound: []byte{keyJournal + 1}})
	if err != nil {
		return fmt.Errorf("reading the journals: %w", err)
	}
	defer iter.Close() //nolint:errcheck // Error is asked below
	for iter.First(); iter.Valid(); iter.Next() {
		collection, capture, _ := strings.Cut(string(iter.Key()[1:]), ";")
		j := &journal{number: binary.BigEndian.Uint32(iter.Value())}
		head, err := e.get(headKey(j.number))
		if err != nil {
			return err
		}
		start, err := e.get(startKey(j.number))
		if err != nil {
			return err
		}
		j.start, j.head = DecodeOffset(start), DecodeOffset(head)
		if err := e.loadVersions(j); err != nil {
			return err
		}
		e.add(Journal{collection, capture}, j)
	}
	if err := iter.Error(); err != nil {
		return fmt.Errorf("reading the journals: %w", err)
	}
	return nil
}

func (e *Embedded) loadVersions(j *journal) error {
	iter, err := e.db.NewIter(&pebble.IterOptions{LowerBound: versionKey(j.number, 0), UpperBound: versionKey(j.number+1, 0)})
	if err != nil {
		return fmt.Errorf("reading the schema versions: %w", err)
	}
	for iter.First(); iter.Valid(); iter.Next() {
		j.versions = append(j.versions, versionMark{keyOffset(iter.Key()), binary.BigEndian.Uint32(iter.Value())})
	}
	return iter.Close()
}

// Close closes the log. Nobody may use it any more.
func (e *Embedded) Close() error {
	var err error
	if e.db != nil {
		err = e.db.Close()
	}
	if closeErr := unlockFolder(e.lock); err == nil {
		err = closeErr
	}
	return err
}

// Identity implements Log.
func (e *Embedded) Identity() Identity { return e.identity }

// Words implements Log.
func (e *Embedded) Words() Words {
	return Words{Place: "this data folder", Unit: "bytes", Short: "the folder was put back from an older backup; use the newest one, or fill the destination anew"}
}

// Behind implements Log.
func (e *Embedded) Behind(name Journal, offset int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if j := e.journals[name]; j != nil {
		return j.head - offset
	}
	return 0
}

// Alone implements Log.
func (e *Embedded) Alone(collection, capture string) []Head {
	return slices.DeleteFunc(e.Heads(collection), func(h Head) bool { return h.Journal.Part != capture })
}

// Take implements Engine: nobody else has the folder open.
func (e *Embedded) Take(context.Context, string, func(error)) (Store, error) { return e, nil }

// Release implements Engine.
func (e *Embedded) Release(string) {}

// Fence implements Engine.
func (e *Embedded) Fence(context.Context, string) error { return nil }

// Share implements Log: tasks are whole here.
func (e *Embedded) Share(Journal, int) int { return 0 }

// Changed implements Log.
func (e *Embedded) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// Heads implements Log. The journals are in the order of their captures' names.
func (e *Embedded) Heads(collection string) []Head {
	e.mu.Lock()
	defer e.mu.Unlock()
	var heads []Head
	for _, name := range e.byName[collection] {
		if j := e.journals[name]; j.head > 0 {
			heads = append(heads, Head{Journal: name, Offset: j.head, Start: j.start})
		}
	}
	return heads
}

// Get implements Store.
func (e *Embedded) Get(name string) ([]byte, error) { return e.get(recordKey(name)) }

// Put implements Store.
func (e *Embedded) Put(ctx context.Context, changes Records) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := e.roomLeft(); err != nil {
		return err
	}
	batch := e.db.NewBatch()
	if err := setRecords(batch, changes); err != nil {
		return err
	}
	if err := e.apply(batch, pebble.Sync); err != nil {
		return fmt.Errorf("committing records: %w", err)
	}
	return nil
}

func (e *Embedded) get(key []byte) ([]byte, error) {
	value, closer, err := e.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the record %q: %w", key[1:], err)
	}
	out := append([]byte{}, value...)
	return out, closer.Close()
}

func setRecords(batch *pebble.Batch, changes Records) error {
	for name, value := range changes {
		var err error
		if value == nil {
			err = batch.Delete(recordKey(name), nil)
		} else {
			err = batch.Set(recordKey(name), value, nil)
		}
		if err != nil {
			return fmt.Errorf("changing the record %q: %w", name, err)
		}
	}
	return nil
}

// roomLeft fails, for people, while the disk is nearly full.
func (e *Embedded) roomLeft() error {
	free, err := e.opts.FreeBytes()
	if err != nil {
		return fmt.Errorf("asking for the free space of %s: %w", e.opts.Dir, err)
	}
	if free >= e.opts.MinFreeBytes {
		return nil
	}
	return usererr.New(nil, "the disk of the data folder %s is full: %d MB are free and %d MB must stay free; nothing is lost, and it goes on when there is space",
		e.opts.Dir, free>>20, e.opts.MinFreeBytes>>20)
}

func recordKey(name string) []byte { return append([]byte{keyRecord}, name...) }

func headKey(number uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{keyHead}, number)
}

func startKey(number uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{keyStart}, number)
}

func blockKey(number uint32, offset int64) []byte { return placeKey(keyBlock, number, offset) }

func versionKey(number uint32, offset int64) []byte { return placeKey(keyVersion, number, offset) }

// keyOffset is the offset of a key that placeKey made.
func keyOffset(key []byte) int64 { return int64(binary.BigEndian.Uint64(key[5:])) }

func placeKey(kind byte, number uint32, offset int64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32([]byte{kind}, number), uint64(offset))
}

// logger hands Pebble's own messages on. They are for debugging, but for the last one before it gives up.
type logger struct{ entry *logrus.Entry }

func (l logger) Infof(format string, args ...any)  { l.entry.Tracef(format, args...) }
func (l logger) Errorf(format string, args ...any) { l.entry.Warnf(format, args...) }

// Fatalf is called when the engine cannot keep its promises, such as after a failed write or sync. It must not return, and
// nothing that this process still could write would be safe, so it ends here; all that was committed is safe.
func (l logger) Fatalf(format string, args ...any) {
	l.entry.Fatalf("The log in the data folder cannot be written, so everything stops: %s. Make room on its disk, or see what is wrong with it, and start again: what was committed is safe.",
		fmt.Sprintf(format, args...))
}

// apply commits a batch. The engine panics if it cannot write its log: that is the end too, but one that says what to do.
func (e *Embedded) apply(batch *pebble.Batch, sync *pebble.WriteOptions) error {
	defer func() {
		if why := recover(); why != nil {
			logger{e.opts.Log}.Fatalf("%v", why)
		}
	}()
	return batch.Commit(sync)
}
