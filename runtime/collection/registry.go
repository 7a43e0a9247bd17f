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

func (r *Registry) load(ctx context.Context, e *entry) error {
	var err error
	if e.written, err = schema.Parse(e.def.Schema); err != nil {
		return err
	}
	stored, err := r.store.Get(recordName(e.def.Name))
	if err != nil {
		return err
	}
	if stored != nil {
		if err := json.Unmarshal(stored, &e.record); err != nil {
			return fmt.Errorf("reading what is stored of its schema: %w", err)
		}
	}
	return r.refresh(ctx, e)
}

// refresh makes the version that follows from the schema and the record, and stores the record if it is a new one.
func (r *Registry) refresh(ctx context.Context, e *entry) error {
	sourced, learned, err := e.record.shapes()
	if err != nil {
		return err
	}
	shape := schema.Refine(e.written, sourced, learned)
	spec, err := specs.Collection(e.def, shape)
	if err != nil {
		return err
	}
	plan, err := reduce.Compile(e.def.Schema)
	if err != nil {
		return err
	}
	// Annotations are not part of the shape and may change, too.
	effective, err := json.Marshal([]json.RawMessage{shape.JSON(), e.def.Schema})
	if err != nil {
		return fmt.Errorf("encoding its schema: %w", err)
	}
	if !bytes.Equal(effective, e.record.Effective) {
		next := e.record
		next.Effective, next.Version = effective, next.Version+1
		text, err := json.Marshal(next)
		if err != nil {
			return fmt.Errorf("encoding its schema: %w", err)
		}
		if err := r.store.Put(ctx, wal.Records{recordName(e.def.Name): text}); err != nil {
			return err
		}
		e.record = next
	}
	e.version = &Version{Number: e.record.Version, Spec: spec, Plan: plan}
	return nil
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

// Current returns the newest version of a collection; nil if the pipeline has no such collection.
func (r *Registry) Current(name string) *Version {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.all[name]; e != nil {
		return e.version
	}
	return nil
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
	before := e.record
	if e.record.Sourced != nil {
		known, err := schema.Parse(e.record.Sourced)
		if err != nil {
			return nil, err
		}
		shape = schema.Union(known, shape)
	}
	e.record.Sourced = shape.JSON()
	if err := r.refresh(ctx, e); err != nil {
		e.record = before
		return nil, err
	}
	if e.record.Version != before.Version {
		if err := r.copyRecords(); err != nil {
			return nil, err
		}
	}
	return e.version, nil
}
