package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sluicedata/sluice/sdk/usererr"
)

const (
	// writeThrough is how much a transaction gathers before it is written while it still grows. It is more than the
	// megabyte at which a good Read returns, so that such a transaction is written in one piece with its checkpoint: the
	// checkpoint alone would make the reader wait for the writer.
	writeThrough = 5 << 18
	// newBuffer is a buffer's first capacity: it need not grow unless documents are large.
	newBuffer = writeThrough + 1<<16
)

// MaxDocument is how many bytes a document may have, with what the protocol puts around it: it keeps a response below the
// 64 MiB that runtimes accept, with room for what they add to a document.
const MaxDocument = 63 << 20

// ErrTooLarge is what Append, AppendDoc and Emit return (wrapped in words for people) for a document that no runtime would
// accept. The transaction is as if the call had not been made, so that a source may emit a placeholder instead.
var ErrTooLarge = errors.New("document too large")

// errLimit ends a session that was to read a limited number of documents.
var errLimit = errors.New("the limit of documents is reached")

// Tx is one transaction while it is being filled. It belongs to the framework, is valid only during the Read it was given
// to, and is used by that goroutine alone.
type Tx struct {
	buf  []byte
	form form
	// spill hands buf over to the writer and puts an empty one in its place. An error is final.
	spill func(tx *Tx) error
	err   error // what spill returned

	size int // bytes so far, written ones included
	docs int // documents so far, written ones included

	limit int // stop after this many documents in all; 0 means never
	total int // documents of all transactions so far

	dirty  []*handle // bindings whose state is to be saved
	acks   []func(context.Context) error
	forget []string
	shared any // nil if it was not set

	// Of a transaction that PerBinding merges into another one:
	parts chan *part // where its later parts go
	taken int        // documents that were merged already
}

// reset makes the transaction ready for the next Read. It keeps the buffer.
func (tx *Tx) reset() {
	for _, h := range tx.dirty {
		h.dirty = false
	}
	clear(tx.dirty)
	tx.dirty, tx.acks, tx.forget, tx.shared = tx.dirty[:0], nil, nil, nil
	tx.size, tx.docs, tx.taken = 0, 0, 0
}

// Append adds one document of a binding, which enc appends to the slice it is given: one JSON object on one line. It costs
// nothing beyond enc, and the document is not copied again. If enc fails, the transaction is as before and the error, with
// the binding's name, is returned. Any other error is final: Read should return it.
func (tx *Tx) Append(b Target, enc func(dst []byte) ([]byte, error)) error {
	if tx.err != nil {
		return tx.err
	}
	h := b.target()
	buf, err := tx.form.appendDocument(tx.buf, h, enc)
	return tx.added(h, buf, err)
}

// AppendDoc adds a document that is encoded already. It is copied.
func (tx *Tx) AppendDoc(b Target, doc []byte) error {
	if tx.err != nil {
		return tx.err
	}
	h := b.target()
	buf, err := tx.form.appendDoc(tx.buf, h, doc)
	return tx.added(h, buf, err)
}

// Emit adds a document that encoding/json writes. It is the convenient way; sources that move much use Append.
func (tx *Tx) Emit(b Target, doc any) error {
	text, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("encoding a document of %s: %w", b.target().name, err)
	}
	return tx.AppendDoc(b, text)
}

// added takes over the buffer with one more document in it, unless that could not be encoded.
func (tx *Tx) added(h *handle, buf []byte, err error) error {
	if err != nil {
		return fmt.Errorf("encoding a document of %s: %w", h.name, err)
	}
	n := len(buf) - len(tx.buf)
	if n > MaxDocument {
		return usererr.New(ErrTooLarge, "A document of %s is %.1f MiB large; one document may have %d MiB at most.",
			h.name, float64(n)/(1<<20), MaxDocument>>20)
	}
	if tx.limit > 0 && tx.total == tx.limit {
		tx.err = errLimit
		return tx.err
	}
	tx.buf = buf
	tx.size += n
	tx.docs++
	tx.total++
	tx.mark(h)
	if len(buf) >= writeThrough {
		tx.err = tx.spill(tx)
	}
	return tx.err
}

// Save commits the binding's state with this transaction although no document was emitted to it.
func (tx *Tx) Save(b Target) { tx.mark(b.target()) }

func (tx *Tx) mark(h *handle) {
	if !h.dirty {
		h.dirty = true
		tx.dirty = append(tx.dirty, h)
	}
}

// SetShared replaces the state of the whole capture, such as the place in a log that all bindings share, by what
// encoding/json writes for v. It is written when Read returns, so v may be a pointer to what still changes.
func (tx *Tx) SetShared(v any) { tx.shared = v }

// Forget drops the state stored under the key of a binding that is not part of the session (see Env.Dormant).
func (tx *Tx) Forget(stateKey string) { tx.forget = append(tx.forget, stateKey) }

// Schema tells the runtime what the endpoint itself says of the shape of the binding's documents. The schema must be
// closed ("additionalProperties": false) and explicit; it takes effect with the transaction, and adds to what is known.
func (tx *Tx) Schema(b Target, schema json.RawMessage) {
	if tx.err == nil {
		tx.buf, tx.err = tx.form.appendSchema(tx.buf, b.target(), schema)
	}
}

// OnAck has f called once this transaction is durable at the runtime, after the functions of all earlier transactions, in
// order. It is called from another goroutine than Read's, one call at a time, with a context that ends with the session.
// It must return soon; an error ends the session. A session that ends first may leave functions uncalled.
func (tx *Tx) OnAck(f func(context.Context) error) { tx.acks = append(tx.acks, f) }

// Size is how many bytes the transaction has gathered so far. Reaching a megabyte is a good moment to end it.
func (tx *Tx) Size() int { return tx.size }

// Documents is how many documents the transaction has gathered so far.
func (tx *Tx) Documents() int { return tx.docs }
