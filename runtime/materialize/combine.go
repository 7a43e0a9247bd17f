package materialize

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// transaction reduces the documents that were read since the last one, by binding and key. Those of delta updates are not
// reduced: who asks for every change gets every change, in the order of the log.
type transaction struct {
	entries map[string]*entry // by index of the binding and packed key
	order   []*entry
	scratch []byte
	bytes   int // of the documents that were read
	count   int
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
	exists  bool   // the destination has the key
	// fresh: a deletion came before the documents that doc is made of, so what the destination has is of no account.
	fresh   bool
	deleted bool // the newest document is a deletion
}

func newTransaction(bindings int) *transaction {
	return &transaction{entries: map[string]*entry{}, read: map[string]int64{}, perBind: make([]counts, bindings)}
}

func (x *transaction) empty() bool { return len(x.read) == 0 && !x.begun }

// add takes one document, which must stay unchanged until the transaction ends. It returns the entry of a key that the
// transaction did not have yet, else nil.
func (x *transaction) add(b *binding, doc []byte) (*entry, error) {
	key, err := x.document(b, doc)
	if err != nil {
		return nil, err
	}
	if b.delta {
		e := &entry{binding: b, key: string(key), doc: doc}
		x.order = append(x.order, e)
		return e, nil
	}
	deleted := b.version.Plan.Deletes(doc)
	e := x.entries[string(key)]
	if e == nil {
		e = &entry{binding: b, key: string(key), doc: doc, deleted: deleted}
		x.entries[e.key] = e
		x.order = append(x.order, e)
		return e, nil
	}
	if e.deleted {
		// What comes after a deletion is a new beginning, not a change of what was deleted.
		e.doc, e.fresh = doc, true
	} else if e.doc, err = b.merger.Merge(nil, e.doc, doc); err != nil {
		return nil, usererr.New(err, "two documents of the collection %s cannot be reduced: %v", b.source, err)
	}
	e.deleted = deleted
	return nil, nil
}

// document counts a document and returns its entry key, which is valid until the next call.
func (x *transaction) document(b *binding, doc []byte) ([]byte, error) {
	key, err := x.key(b, doc)
	if err != nil {
		return nil, usererr.New(err, "a document of the collection %s has a key that cannot be used: %v: %.200q", b.source, err, doc)
	}
	x.count++
	x.perBind[b.index].documents++
	x.perBind[b.index].bytes += len(doc)
	return key, nil
}

// entryPrefix is how many bytes of an entry key come before the packed key.
const entryPrefix = 4

// key returns the entry key of a document: the binding's index and the packed key. It is valid until the next call.
func (x *transaction) key(b *binding, doc []byte) (key []byte, err error) {
	x.scratch = append(x.scratch[:0], byte(b.index>>24), byte(b.index>>16), byte(b.index>>8), byte(b.index))
	x.scratch, err = b.keys.appendPacked(x.scratch, doc)
	return x.scratch, err
}

// packed is the packed key without the binding's index.
func (e *entry) packed() string { return e.key[entryPrefix:] }

// loaded takes a document that the destination has. One that nobody asked for is of no interest.
func (x *transaction) loaded(b *binding, doc []byte) error {
	key, err := x.key(b, doc)
	if err != nil {
		return usererr.New(err, "the connector loaded a document of the collection %s whose key cannot be used: %v", b.source, err)
	}
	e := x.entries[string(key)]
	if e == nil || e.exists {
		return nil
	}
	e.exists = true
	if e.fresh || b.version.Plan.Deletes(doc) {
		return nil
	}
	if e.doc, err = b.merger.Merge(nil, doc, e.doc); err != nil {
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
