package materialize

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sluicedata/sluice/runtime/reduce"
	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// transaction reduces the documents that were read since the last one, by binding and key. Those of delta updates are not
// reduced: who asks for every change gets every change, in the order of the log. One is used again for the next, by reset.
//
// Two goroutines meet in it: the session's adds what it reads from the log, and the receiver's what the connector loads meanwhile,
// which so need not be kept for later. Which of the two comes first makes no difference to a reduction of
// members without members of their own; a nested merge across null, or across another kind of value, depends on it.
type transaction struct {
	mu      *sync.Mutex       // held while a binding takes documents apart or reduces them; one for all transactions of a session
	entries map[string]*entry // by index of the binding and packed key
	order   []*entry
	slab    []entry // room for the next entries
	arena   []byte  // reduced documents; the end of a piece of memory that several share
	scratch []byte
	bytes   int              // of the documents that were read
	read    map[string]int64 // source → offset behind what was read
	perBind []counts
	begun   bool // there is something to stream
}

type counts struct{ documents, bytes int }

// entry is one key of one binding in one transaction; of delta updates, one document.
type entry struct {
	binding *binding
	key     string // packed
	doc     []byte // the reduction so far; of a single document it aliases the log's block
	exists  bool   // the destination has the key, or may have it if it is not asked
	unasked bool   // doc replaces what the destination has, so that it need not be asked
	// fresh: a deletion came before the documents that doc is made of, so what the destination has is of no account.
	fresh   bool
	deleted bool // the newest document is a deletion
}

// wantsLoad tells whether the destination has to be asked for what it has of the key.
func (e *entry) wantsLoad() bool { return !e.binding.delta && !e.unasked }

const (
	slabEntries = 512
	arenaBytes  = 256 << 10
)

func newTransaction(bindings int, mu *sync.Mutex) *transaction {
	return &transaction{mu: mu, entries: map[string]*entry{}, read: map[string]int64{}, perBind: make([]counts, bindings)}
}

// reset empties the transaction for the next one. Nothing of the last one may be in use. (A connector that loads what nobody asked for
// may do so at any time.)
func (x *transaction) reset() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.entries)
	clear(x.order)
	clear(x.read)
	clear(x.perBind)
	x.order, x.slab, x.arena = x.order[:0], nil, nil
	x.bytes, x.begun = 0, false
}

func (x *transaction) empty() bool { return len(x.read) == 0 && !x.begun }

// add takes one document, which must stay unchanged until the transaction ends. It returns the entry of a key that the
// transaction did not have yet, else nil.
func (x *transaction) add(b *binding, doc []byte) (*entry, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	key, deleted, err := x.key(b, doc)
	if err != nil {
		return nil, usererr.New(err, "a document of the collection %s has a key that cannot be used: %v: %.200q", b.source, err, doc)
	}
	x.note(b, doc)
	if b.delta {
		return x.entry(b, key, doc), nil
	}
	e := x.entries[string(key)]
	if e == nil {
		e = x.entry(b, key, doc)
		e.deleted = deleted
		if all, created := b.replaces(); all {
			e.unasked, e.exists = true, !created
		}
		x.entries[e.key] = e
		return e, nil
	}
	if e.deleted {
		// What comes after a deletion is a new beginning, not a change of what was deleted.
		e.doc, e.fresh = doc, true
	} else if e.doc, err = x.merge(b.merger, e.doc, doc); err != nil {
		return nil, usererr.New(err, "two documents of the collection %s cannot be reduced: %v", b.source, err)
	}
	e.deleted = deleted
	return nil, nil
}

func (x *transaction) entry(b *binding, key, doc []byte) *entry {
	if len(x.slab) == 0 {
		x.slab = make([]entry, slabEntries)
	}
	e := &x.slab[0]
	x.slab = x.slab[1:]
	e.binding, e.key, e.doc = b, string(key), doc
	x.order = append(x.order, e)
	return e
}

// merge reduces two documents into memory that lives as long as the transaction.
func (x *transaction) merge(m *reduce.Merger, left, right []byte) ([]byte, error) {
	if size := len(left) + len(right); cap(x.arena)-len(x.arena) < size {
		x.arena = make([]byte, 0, max(size, arenaBytes))
	}
	start := len(x.arena)
	out, err := m.Merge(x.arena, left, right)
	if err != nil {
		return nil, err
	}
	x.arena = out
	return out[start:len(out):len(out)], nil
}

// note counts a document.
func (x *transaction) note(b *binding, doc []byte) {
	x.perBind[b.index].documents++
	x.perBind[b.index].bytes += len(doc)
}

// entryPrefix is how many bytes of an entry key come before the packed key.
const entryPrefix = 4

// key returns the entry key of a document, the binding's index and the packed key, and whether the document is a deletion. The key
// is valid until the next call.
func (x *transaction) key(b *binding, doc []byte) (key []byte, deleted bool, err error) {
	x.scratch = append(x.scratch[:0], byte(b.index>>24), byte(b.index>>16), byte(b.index>>8), byte(b.index))
	x.scratch, deleted, err = b.appendKey(x.scratch, doc)
	return x.scratch, deleted, err
}

// appendKeyText appends the key of an entry as a JSON array. The receiver may be at work on the same binding.
func (x *transaction) appendKeyText(dst []byte, e *entry) []byte {
	x.mu.Lock()
	defer x.mu.Unlock()
	return e.binding.appendKeyText(dst, e.doc)
}

// packed is the packed key without the binding's index.
func (e *entry) packed() string { return e.key[entryPrefix:] }

// loaded takes a document that the destination has, which may be changed afterwards. One that nobody asked for is of no interest.
func (x *transaction) loaded(b *binding, doc []byte) error {
	if !jsonscan.Valid(doc) {
		return usererr.New(nil, "the connector loaded something that is not JSON as a document of the collection %s: %.60q", b.source, doc)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	key, deleted, err := x.key(b, doc)
	if err != nil {
		return usererr.New(err, "the connector loaded a document of the collection %s whose key cannot be used: %v", b.source, err)
	}
	e := x.entries[string(key)]
	if e == nil || e.exists {
		return nil
	}
	e.exists = true
	if e.fresh || deleted {
		return nil
	}
	if e.doc, err = x.merge(b.merger, doc, e.doc); err != nil {
		return usererr.New(err, "a stored document of the collection %s cannot be reduced with a new one: %v", b.source, err)
	}
	return nil
}

// sorted returns the entries by binding and key: destinations work through them in runs. Those of delta updates stay in the
// order in which they were read.
func (x *transaction) sorted() []*entry {
	slices.SortStableFunc(x.order, func(a, b *entry) int {
		if a.binding.index != b.binding.index || a.binding.delta {
			return int(a.binding.index) - int(b.binding.index)
		}
		return strings.Compare(a.key, b.key)
	})
	return x.order
}

func (e *entry) String() string { return fmt.Sprintf("%s %x", e.binding.source, e.packed()) }
