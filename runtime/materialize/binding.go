package materialize

import (
	"fmt"
	"slices"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/reduce"
	"github.com/sluicedata/sluice/runtime/specs"
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
	keys     extractor // and behind the keys, where a document says that it is a deletion, if it does so in one place; see skipLoads
	skips    bool      // documents that say all are not loaded
	row      extractor // the keys and the values
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
	b.row, err = newExtractor(spec.Collection, slices.Concat(spec.FieldSelection.Keys, spec.FieldSelection.Values))
	return b, err
}

// skipLoads has documents stored without asking for what the destination has of their keys, if they say all that it would keep: then
// whatever it has is replaced. It takes a destination that stores right whatever we believe of a key's existence; what we
// say is what the document says, of which collections of change captures have something to say.
func (b *binding) skipLoads(spec *flowpb.MaterializationSpec_Binding) (err error) {
	pointer, marked := b.version.Plan.Mark()
	if b.delta || b.document || !marked || !b.version.Plan.TellsCreation() {
		return nil
	}
	looked := []string{pointer}
	for _, field := range spec.FieldSelection.Values {
		p := specs.Projection(spec.Collection, field)
		if !b.version.Plan.Replaces(p.Ptr) {
			return nil
		}
		looked = append(looked, p.Ptr)
	}
	b.keys, err = newExtractor(spec.Collection, spec.FieldSelection.Keys, looked...)
	b.skips = err == nil
	return err
}

// replaces tells of the document whose key was appended last whether it says all that the destination would keep of it, and
// whether its key is new by its own account.
func (b *binding) replaces() (all, created bool) {
	if !b.skips {
		return false, false
	}
	n := len(b.keys.defaults)
	for _, value := range b.keys.found[n:] {
		if value == nil {
			return false, false
		}
	}
	return true, b.version.Plan.Created(b.keys.found[n])
}

// appendKey appends the packed key of a document, and tells whether the document is a deletion.
func (b *binding) appendKey(dst, doc []byte) (key []byte, deleted bool, err error) {
	e := &b.keys
	e.pointers.Find(doc, e.found)
	n := len(e.defaults)
	if dst, err = e.pack(dst, 0, n); err != nil {
		return dst, false, err
	}
	if n < len(e.found) {
		return dst, b.version.Plan.Marked(e.found[n]), nil
	}
	return dst, b.version.Plan.Deletes(doc), nil
}

// appendKeyText appends the key of a document as a JSON array.
func (b *binding) appendKeyText(dst, doc []byte) []byte {
	b.keys.pointers.Find(doc, b.keys.found)
	return b.keys.array(dst, 0, len(b.keys.defaults))
}

// appendRow appends the keys and the values of a document in the form that the codec calls for: packed tuples or JSON arrays.
func (b *binding) appendRow(keys, values []byte, c frame.Codec, doc []byte) (_, _ []byte, err error) {
	e, n := &b.row, len(b.keys.defaults)
	e.pointers.Find(doc, e.found)
	if c == frame.JSON {
		return e.array(keys, 0, n), e.array(values, n, len(e.found)), nil
	}
	if keys, err = e.pack(keys, 0, n); err == nil {
		values, err = e.pack(values, n, len(e.found))
	}
	return keys, values, err
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
		p := specs.Projection(c, field)
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

// array appends what was found of some fields as a JSON array.
func (e *extractor) array(dst []byte, from, to int) []byte {
	dst = append(dst, '[')
	for i := from; i < to; i++ {
		if i > from {
			dst = append(dst, ',')
		}
		dst = append(dst, orDefault(e.found[i], e.defaults[i])...)
	}
	return append(dst, ']')
}

// pack appends what was found of some fields as a packed tuple.
func (e *extractor) pack(dst []byte, from, to int) ([]byte, error) {
	var err error
	for i := from; i < to; i++ {
		if dst, err = tuple.AppendJSON(dst, orDefault(e.found[i], e.defaults[i])); err != nil {
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
