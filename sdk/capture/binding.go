package capture

import "encoding/json"

// Binding is one resource that a session captures into one collection. Only Resource and State are the source's: it reads
// Resource, and sets State to where the binding resumes after the documents emitted so far. The other members describe
// the binding and must not be changed. It is used by the goroutine that runs Read, without locks.
type Binding[R, S any] struct {
	// Resource is the binding's configuration.
	Resource R
	// State is what was last committed for the binding, or the zero value. It is committed anew at the end of every
	// Read that emitted to the binding or saved it (Tx.Save), if it changed.
	State S
	// New is true if no state was stored for the binding.
	New bool
	// StateKey names the binding's state. It changes when the user asks for the binding to be captured anew.
	StateKey string
	// Path are the values of Spec.ResourcePath.
	Path []string
	// Collection is where the binding's documents go.
	Collection Destination

	h handle
}

// Destination is a collection that exists.
type Destination struct {
	Name   string          // of the collection
	Key    []string        // JSON pointers to the fields that identify a document
	Schema json.RawMessage // which every document must follow
}

// Target is a *Binding, of whatever types: where documents go.
type Target interface {
	target() *handle
}

func (b *Binding[R, S]) target() *handle { return &b.h }

// handle is what the framework knows of a binding besides its types.
type handle struct {
	index  uint32
	name   string          // for messages: the resource path
	key    string          // state key
	stored json.RawMessage // what the runtime holds once everything so far is committed
	// lineStart is what precedes a document on a line that names its binding.
	lineStart []byte
	// marshal writes the binding's present state.
	marshal func() (json.RawMessage, error)
	dirty   bool // is in the transaction's list of bindings to save
}
