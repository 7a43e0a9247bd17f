package materialize

import (
	"fmt"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/reduce"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// binding is one binding of an open session: where its documents come from and how they are taken apart. It is for
// the session's one goroutine.
type binding struct {
	index    uint32
	source   string // collection
	stateKey string
	version  *collection.Version
	delta    bool
	priority int32
	document bool // the destination keeps whole documents
	keys     extractor
	values   extractor
	merger   *reduce.Merger
	status   *status.Binding
	known    map[string]int64 // journals' offsets as they are read, ahead of what is committed
}

func newBinding(i int, spec *flowpb.MaterializationSpec_Binding, version *collection.Version, st *status.Binding) (*binding, error) {
	b := &binding{
		index: uint32(i), source: spec.Collection.Name, stateKey: spec.StateKey, version: version, delta: spec.DeltaUpdates, priority: spec.Priority,
		document: spec.FieldSelection.Document != "", merger: version.Plan.NewMerger(), status: st,
	}
	var err error
	if b.keys, err = newExtractor(spec.Collection, spec.FieldSelection.Keys); err != nil {
		return nil, err
	}
	b.values, err = newExtractor(spec.Collection, spec.FieldSelection.Values)
	return b, err
}

// extractor takes the values of some fields out of documents.
type extractor struct {
	pointers *jsonscan.Pointers
	defaults [][]byte // for locations that a document does not have
	found    [][]byte
}

func newExtractor(c *flowpb.CollectionSpec, fields []string) (extractor, error) {
	var pointers []string
	e := extractor{}
	for _, field := range fields {
		p := projection(c, field)
		if p == nil {
			return e, fmt.Errorf("selecting the field %q: the collection %s does not have it", field, c.Name)
		}
		pointers = append(pointers, p.Ptr)
		missing := []byte("null")
		if len(p.Inference.GetDefaultJson()) > 0 {
			missing = p.Inference.DefaultJson
		}
		e.defaults = append(e.defaults, missing)
	}
	e.pointers = jsonscan.NewPointers(pointers)
	e.found = make([][]byte, len(fields))
	return e, nil
}

// appendFields appends the fields of doc in the form that the codec calls for: a packed tuple or a JSON array.
func (e *extractor) appendFields(dst []byte, c frame.Codec, doc []byte) ([]byte, error) {
	e.pointers.Find(doc, e.found)
	if c == frame.JSON {
		dst = append(dst, '[')
		for i, value := range e.found {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, orDefault(value, e.defaults[i])...)
		}
		return append(dst, ']'), nil
	}
	return e.pack(dst)
}

// appendPacked appends the fields of doc as a packed tuple.
func (e *extractor) appendPacked(dst, doc []byte) ([]byte, error) {
	e.pointers.Find(doc, e.found)
	return e.pack(dst)
}

func (e *extractor) pack(dst []byte) ([]byte, error) {
	var err error
	for i, value := range e.found {
		if dst, err = tuple.AppendJSON(dst, orDefault(value, e.defaults[i])); err != nil {
			return dst, fmt.Errorf("packing a value: %w", err)
		}
	}
	return dst, nil
}

func orDefault(value, missing []byte) []byte {
	if value == nil {
		return missing
	}
	return value
}
