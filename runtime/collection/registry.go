// Package collection keeps what is known of each collection's documents: the schema that the pipeline gives it,
// what its sources have announced since, and what was learned from the documents themselves. Each change is a new version, and documents in the log say which version they
// may need; so a reader knows when it must look again.
package collection

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/sdk/usererr"

	"github.com/sluicedata/sluice/runtime/infer"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/reduce"
	"github.com/sluicedata/sluice/runtime/schema"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/runtime/wal"
)

// Registry holds the collections of a pipeline. It is safe for use by many goroutines.
type Registry struct {
	store wal.Store
	mu    sync.Mutex
	all   map[string]*entry
	dir   string // where a copy of the records is kept; "" if nobody wants one
}

type entry struct {
	def     *pipeline.Collection
	written *schema.Shape // of the pipeline's schema
	record  record
	stored  []byte // the record as it was read or written last
	version *Version
}

// record is what is kept of a collection between runs.
type record struct {
	Version   uint32          `json:"version"`
	Sourced   json.RawMessage `json:"sourced,omitempty"` // union of all that was announced
	Learned   json.RawMessage `json:"learned,omitempty"` // of documents, where the schema leaves something to be learned
	Watched   *infer.Scope    `json:"watched,omitempty"` // where documents were looked at when they came
	Effective json.RawMessage `json:"effective"`
}

// Version is one version of a collection. It is immutable.
type Version struct {
	Number uint32
	Spec   *flowpb.CollectionSpec // shared: do not change it
	Plan   *reduce.Plan
}

// Open loads the collections of a pipeline. A schema that changed in the file since the last run is a new version.
// Errors are for people.
func Open(ctx context.Context, store wal.Store, defs map[string]*pipeline.Collection) (*Registry, error) {
	r := &Registry{store: store, all: map[string]*entry{}}
	for name, def := range defs {
		e := &entry{def: def}
		if err := r.load(ctx, e); err != nil {
			return nil, usererr.New(err, "%s: the collection %s cannot be used: %v", def.At, name, err)
		}
		r.all[name] = e
	}
	return r, nil
}

func recordName(collection string) string { return "schema/" + collection }

func (r *Registry) load(ctx context.Context, e *entry) (err error) {
	if e.written, err = schema.Parse(e.def.Schema); err != nil {
		return err
	}
	return r.change(ctx, e, func(*record) error { return nil })
}

// change changes the record of a collection, and stores it if a new version follows from it. Another process may have changed it since it was
// read: it is read again then, and change is called with that.
func (r *Registry) change(ctx context.Context, e *entry, change func(*record) error) error {
	var next entry
	err := wal.Update(ctx, r.store, func() (wal.Records, error) {
		next = *e
		if err := r.reread(&next); err != nil {
			return nil, err
		}
		if err := change(&next.record); err != nil {
			return nil, err
		}
		effective, err := next.compile()
		if err != nil || bytes.Equal(effective, next.record.Effective) {
			return nil, err
		}
		next.record.Effective, next.record.Version = effective, next.record.Version+1
		next.version.Number = next.record.Version
		next.stored, err = json.Marshal(next.record)
		if err != nil {
			return nil, fmt.Errorf("encoding its schema: %w", err)
		}
		return wal.Records{recordName(e.def.Name): next.stored}, nil
	})
	if err == nil {
		*e = next
	}
	return err
}

// reread takes over what is stored of a collection, if that is not what is known.
func (r *Registry) reread(e *entry) error {
	stored, err := r.store.Get(recordName(e.def.Name))
	if err != nil || bytes.Equal(stored, e.stored) {
		return err
	}
	e.record, e.stored = record{}, stored
	if err := json.Unmarshal(stored, &e.record); err != nil {
		return fmt.Errorf("reading what is stored of its schema: %w", err)
	}
	return nil
}

// compile makes the version that follows from the schema and the record, and gives what tells it from others.
func (e *entry) compile() (effective []byte, err error) {
	sourced, learned, err := e.record.shapes()
	if err != nil {
		return nil, err
	}
	shape := schema.Refine(e.written, sourced, learned)
	v := &Version{Number: e.record.Version}
	if v.Spec, err = specs.Collection(e.def, shape); err != nil {
		return nil, err
	}
	if v.Plan, err = reduce.Compile(e.def.Schema); err != nil {
		return nil, err
	}
	e.version = v
	// Annotations are not part of the shape and may change, too.
	if effective, err = json.Marshal([]json.RawMessage{shape.JSON(), e.def.Schema}); err != nil {
		return nil, fmt.Errorf("encoding its schema: %w", err)
	}
	return effective, nil
}

// shapes are what was announced and what was learned; nil for nothing.
func (r *record) shapes() (sourced, learned *schema.Shape, err error) {
	if r.Sourced != nil {
		if sourced, err = schema.Parse(r.Sourced); err != nil {
			return nil, nil, err
		}
	}
	if r.Learned != nil {
		learned, err = schema.Parse(r.Learned)
	}
	return sourced, learned, err
}

// Current returns the newest version of a collection, also if another process made it; nil if the pipeline has no such collection.
func (r *Registry) Current(name string) (*Version, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.all[name]
	if e == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	err := r.follow(e)
	return e.version, err
}

// follow takes over what another process has changed. The lock must be held.
func (r *Registry) follow(e *entry) error {
	next := *e
	if err := r.reread(&next); err != nil {
		return err
	}
	if bytes.Equal(next.stored, e.stored) {
		return nil
	}
	if _, err := next.compile(); err != nil {
		return err
	}
	*e = next
	return r.copyRecords()
}

// Announce adds a schema that a source announced for its documents, and returns the version that documents from now
// on need. It is durable when Announce returns, which may be earlier than the documents are: a schema only widens, so
// knowing it too early does no harm. Errors are for people.
func (r *Registry) Announce(ctx context.Context, name string, announced []byte) (*Version, error) {
	shape, err := schema.Parse(announced)
	if err == nil {
		err = schema.CheckSourced(shape)
	}
	if err != nil {
		return nil, usererr.New(err, "the schema announced for the collection %s cannot be used: %v", name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.all[name]
	if e == nil {
		return nil, fmt.Errorf("announcing a schema for %q: there is no such collection", name)
	}
	before := e.record.Version
	err = r.change(ctx, e, func(rec *record) error {
		announced := shape
		if rec.Sourced != nil {
			known, err := schema.Parse(rec.Sourced)
			if err != nil {
				return err
			}
			announced = schema.Union(known, shape)
		}
		rec.Sourced = announced.JSON()
		return nil
	})
	if err == nil && e.record.Version != before {
		err = r.copyRecords()
	}
	if err != nil {
		return nil, err
	}
	return e.version, nil
}
