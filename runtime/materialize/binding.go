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
	document bool      // the destination keeps whole documents
	keys     extractor // and behind the keys, where a document says that it is a deletion, if it does so in one place
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
	var mark []string
	if pointer, ok := version.Plan.Mark(); ok {
		mark = []string{pointer}
	}
	if b.keys, err = newExtractor(spec.Collection, spec.FieldSelection.Keys, mark...); err != nil {
		return nil, err
	}
	b.values, err = newExtractor(spec.Collection, spec.FieldSelection.Values)
	return b, err
}

// appendKey appends the packed key of a document, and tells whether the document is a deletion.
func (b *binding) appendKey(dst, doc []byte) (key []byte, deleted bool, err error) {
	e := &b.keys
	e.pointers.Find(doc, e.found)
	if dst, err = e.pack(dst); err != nil {
		return dst, false, err
	}
	if n := len(e.defaults); n < len(e.found) {
		return dst, b.version.Plan.Marked(e.found[n]), nil
	}
	return dst, b.version.Plan.Deletes(doc), nil
}

// extractor takes the values of some fields out of documents, and looks up other locations in the same walk.
type extractor struct {
	pointers *jsonscan.Pointers
	defaults [][]byte // of the fields, for locations that a document does not have
	found    [][]byte // the fields, and behind them the others
}

func newExtractor(c *flowpb.CollectionSpec, fields []string, others ...string) (extractor, error) {
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
	e.pointers = jsonscan.NewPointers(append(pointers, others...))
	e.found = make([][]byte, e.pointers.Len())
	return e, nil
}

// appendFields appends the fields of doc in the form that the codec calls for: a packed tuple or a JSON array.
func (e *extractor) appendFields(dst []byte, c frame.Codec, doc []byte) ([]byte, error) {
	e.pointers.Find(doc, e.found)
	if c == frame.JSON {
		dst = append(dst, '[')
		for i, missing := range e.defaults {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, orDefault(e.found[i], missing)...)
		}
		return append(dst, ']'), nil
	}
	return e.pack(dst)
}

// pack appends what was found of the fields as a packed tuple.
func (e *extractor) pack(dst []byte) ([]byte, error) {
	var err error
	for i, missing := range e.defaults {
		if dst, err = tuple.AppendJSON(dst, orDefault(e.found[i], missing)); err != nil {
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
