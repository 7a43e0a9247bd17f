package materialize

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// shape is how many elements the rows of one binding have.
type shape struct {
	keys, values int
	document     bool
	delta        bool
	path         string // for messages
}

// Row is one document to store. It is valid until the next call of Rows.Next, and so is everything that it refers to.
type Row struct {
	Binding int
	// Key and Values are decoded elements in the order of Binding.Keys and Binding.Values. Arrays and objects are
	// elements of kind tuple.Bytes that hold compact JSON; absent values are tuple.Nil.
	Key, Values []tuple.Element
	// PackedKey is the key as it was sent: an order-preserving tuple that identifies the row within its binding.
	PackedKey []byte
	// Doc is the whole document if the binding selects it, else empty.
	Doc json.RawMessage
	// Exists says that the runtime believes that the key is stored already. Always false for delta updates.
	Exists bool
	// Delete says that the document is the deletion of its key. A destination that keeps deleted rows stores it like
	// any other. It can come with Exists false: then there is nothing to delete.
	Delete bool
}

// Rows gives the documents of one transaction, one after the other. It reads the protocol stream in place and makes no
// copies. It is for one goroutine at a time.
type Rows struct {
	in     *requests
	shapes []shape
	row    Row
	msg    materializepb.Request_Store
	key    decoder
	values decoder
	count  int
	bytes  int // of keys, values and documents
	done   bool
	err    error
}

func newRows(in *requests, shapes []shape) *Rows { return &Rows{in: in, shapes: shapes} }

// Next advances to the next row. It returns false at the end of the transaction's rows and after an error, which Err
// tells apart. It blocks while the runtime has nothing to send.
func (r *Rows) Next() bool {
	if r.done {
		return false
	}
	if err := r.next(); err != nil {
		r.done = true
		if !errors.Is(err, errOtherMessage) {
			r.err = err
		}
		return false
	}
	r.count++
	return true
}

// Row returns the present row. The same Row is reused for every call of Next.
func (r *Rows) Row() *Row { return &r.row }

// Err returns why Next stopped early, nil at the regular end.
func (r *Rows) Err() error { return r.err }

func (r *Rows) next() error {
	if err := r.in.store(&r.msg); err != nil {
		return err
	}
	m := &r.msg
	if int(m.GetBinding()) >= len(r.shapes) {
		return fmt.Errorf("store %d: binding %d does not exist, there are %d", r.count+1, m.GetBinding(), len(r.shapes))
	}
	s := &r.shapes[m.GetBinding()]
	var err error
	if r.row.Key, r.row.PackedKey, err = r.key.decode(m.GetKeyPacked(), m.GetKeyJson(), s.keys); err != nil {
		return fmt.Errorf("store %d of %s: key: %w", r.count+1, s.path, err)
	}
	if r.row.Values, _, err = r.values.decode(m.GetValuesPacked(), m.GetValuesJson(), s.values); err != nil {
		return fmt.Errorf("store %d of %s: values: %w", r.count+1, s.path, err)
	}
	r.bytes += len(m.GetKeyPacked()) + len(m.GetKeyJson()) + len(m.GetValuesPacked()) + len(m.GetValuesJson()) + len(m.GetDocJson())
	r.row.Binding = int(m.GetBinding())
	r.row.Exists = m.GetExists() && !s.delta
	r.row.Delete = m.GetDelete()
	r.row.Doc = nil
	if s.document {
		if r.row.Doc = m.GetDocJson(); len(r.row.Doc) == 0 {
			return fmt.Errorf("store %d of %s: the document is selected, but was not sent", r.count+1, s.path)
		}
	}
	return nil
}

// Keys gives the keys that one transaction asks for, one after the other, in the manner of Rows.
type Keys struct {
	in     *requests
	shapes []shape
	msg    materializepb.Request_Load
	dec    decoder
	packed []byte
	key    []tuple.Element
	// atEnd runs when the keys are at their end, before Next returns false.
	atEnd func() error
	count int
	done  bool
	err   error
}

func newKeys(in *requests, shapes []shape, atEnd func() error) *Keys {
	return &Keys{in: in, shapes: shapes, atEnd: atEnd}
}

// Next advances to the next key. It returns false when the runtime has sent all keys, and after an error. It blocks
// while the runtime has nothing to send.
func (k *Keys) Next() bool {
	if k.done {
		return false
	}
	if err := k.next(); err != nil {
		if errors.Is(err, errOtherMessage) {
			err = k.atEnd()
		}
		k.done, k.err = true, err
		return false
	}
	k.count++
	return true
}

// Binding is the binding of the present key.
func (k *Keys) Binding() int { return int(k.msg.GetBinding()) }

// Key is the present key in the order of Binding.Keys, valid until the next call of Next.
func (k *Keys) Key() []tuple.Element { return k.key }

// PackedKey is the present key as a tuple, valid until the next call of Next.
func (k *Keys) PackedKey() []byte { return k.packed }

// Err returns why Next stopped early, nil at the regular end.
func (k *Keys) Err() error { return k.err }

func (k *Keys) next() error {
	if err := k.in.load(&k.msg); err != nil {
		return err
	}
	b := k.msg.GetBinding()
	if int(b) >= len(k.shapes) {
		return fmt.Errorf("load %d: binding %d does not exist, there are %d", k.count+1, b, len(k.shapes))
	}
	s := &k.shapes[b]
	if s.delta {
		return fmt.Errorf("load %d: %s uses delta updates, which are never loaded", k.count+1, s.path)
	}
	var err error
	if k.key, k.packed, err = k.dec.decode(k.msg.GetKeyPacked(), k.msg.GetKeyJson(), s.keys); err != nil {
		return fmt.Errorf("load %d of %s: key: %w", k.count+1, s.path, err)
	}
	return nil
}

// decoder turns packed tuples into elements. Runtimes that speak the JSON codec may send JSON arrays instead, which are
// packed first, so that nobody above sees the difference.
type decoder struct {
	elements []tuple.Element
	scratch  []byte
}

// decode returns the elements and the tuple that they alias, both valid until the next call.
func (d *decoder) decode(packed, text []byte, want int) ([]tuple.Element, []byte, error) {
	if len(packed) == 0 && len(text) > 0 {
		if err := d.pack(text); err != nil {
			return nil, nil, err
		}
		packed = d.scratch
	}
	var err error
	if d.elements, err = tuple.AppendElements(d.elements[:0], packed); err != nil {
		return nil, nil, err
	}
	if len(d.elements) != want {
		return nil, nil, fmt.Errorf("there are %d elements, the selection has %d", len(d.elements), want)
	}
	return d.elements, packed, nil
}

func (d *decoder) pack(text []byte) error {
	var items []json.RawMessage
	if err := json.Unmarshal(text, &items); err != nil {
		return fmt.Errorf("reading a JSON array: %w", err)
	}
	d.scratch = d.scratch[:0]
	for i, item := range items {
		var err error
		if d.scratch, err = tuple.AppendJSON(d.scratch, item); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	return nil
}

// errOtherMessage says that the next request is of another kind than asked for; it stays for the next reader.
var errOtherMessage = errors.New("another kind of request follows")

// requests reads requests with one message of look-ahead, and keeps hot ones out of the generated decoder.
type requests struct {
	r *frame.Reader
	c frame.Codec
	// pending is a message that was read but belongs to the next step.
	pending *materializepb.Request
}

func newRequests(r io.Reader, c frame.Codec) *requests {
	return &requests{r: frame.NewReader(r, c, 0), c: c}
}

// read returns the next request of any kind. io.EOF comes only between messages.
func (q *requests) read() (*materializepb.Request, error) {
	if m := q.pending; m != nil {
		q.pending = nil
		return m, nil
	}
	m := &materializepb.Request{}
	if err := q.r.Read(m); err != nil {
		return nil, err
	}
	return m, nil
}

// peek is read, and leaves the request where it is.
func (q *requests) peek() (*materializepb.Request, error) {
	m, err := q.read()
	if err != nil {
		return nil, err
	}
	q.pending = m
	return m, nil
}

// load reads a Load into m, or returns errOtherMessage. The message's slices are valid until the next call.
func (q *requests) load(m *materializepb.Request_Load) error {
	body, err := q.next()
	if err != nil {
		return err
	}
	if body != nil {
		if materializepb.ParseLoad(q.c, body, m) {
			return nil
		}
		if err := q.slow(body); err != nil {
			return err
		}
	}
	if l := q.pending.GetLoad(); l != nil {
		m.Binding, m.KeyJson, m.KeyPacked = l.Binding, l.KeyJson, l.KeyPacked
		q.pending = nil
		return nil
	}
	return errOtherMessage
}

// store is load for Stores.
func (q *requests) store(m *materializepb.Request_Store) error {
	body, err := q.next()
	if err != nil {
		return err
	}
	if body != nil {
		if materializepb.ParseStore(q.c, body, m) {
			return nil
		}
		if err := q.slow(body); err != nil {
			return err
		}
	}
	if s := q.pending.GetStore(); s != nil {
		m.Binding, m.KeyJson, m.KeyPacked, m.ValuesJson, m.ValuesPacked = s.Binding, s.KeyJson, s.KeyPacked, s.ValuesJson, s.ValuesPacked
		m.DocJson, m.Exists, m.Delete = s.DocJson, s.Exists, s.Delete
		q.pending = nil
		return nil
	}
	return errOtherMessage
}

// next returns the next body, or nil if a decoded message is pending. The end of the stream is unexpected here.
func (q *requests) next() ([]byte, error) {
	if q.pending != nil {
		return nil, nil
	}
	body, err := q.r.Next()
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("reading requests: the stream ended inside a transaction: %w", io.ErrUnexpectedEOF)
	}
	return body, err
}

func (q *requests) slow(body []byte) error {
	m := &materializepb.Request{}
	if err := q.c.Unmarshal(body, m); err != nil {
		return fmt.Errorf("reading requests: %w", err)
	}
	q.pending = m
	return nil
}
