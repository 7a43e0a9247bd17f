package kafkalog

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// The headers of a document's record.
const (
	headerOp       = "op"       // what its /_meta/op says
	headerBinding  = "binding"  // the source's table, topic or stream
	headerPosition = "position" // its /_meta/source, as JSON
	headerSchema   = "schema"   // the version of the collection's schema that it may need
	headerCapture  = "capture"
)

// heads are how far a capture has committed a collection: the record of the state topic that every transaction has.
type heads struct {
	Next    []int64   `json:"next"` // behind its last record in each partition; zero for none
	Docs    int64     `json:"documents"`
	Bytes   int64     `json:"bytes"`
	Commits int64     `json:"commits"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Marks   []mark    `json:"marks,omitempty"`
}

// mark says that records from an offset of each partition on need at least a version of the schema.
type mark struct {
	Version uint32  `json:"version"`
	From    []int64 `json:"from"`
}

// writer appends for one capture.
type writer struct {
	o       *owner
	capture string
	tails   map[string]*tail // by collection
}

// tail is what a writer appends to a collection.
type tail struct {
	topic *topic
	by    kgo.TopicPartitioner
	keys  *keyer

	committed heads
	moved     bool
	require   uint32
	keyText   []byte
	ends      []int // of keys in keyText

	mu   sync.Mutex
	next heads
	fail error
}

// Writer implements wal.Log.
func (l *Log) Writer(capture string) (wal.Writer, error) {
	o := l.owner("capture/" + capture)
	if o == nil {
		return nil, fmt.Errorf("writing for the capture %s: it is not this process'", capture)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.ready(l.ctx); err != nil {
		return nil, err
	}
	if err := o.abort(); err != nil {
		return nil, err
	}
	return &writer{o: o, capture: capture, tails: map[string]*tail{}}, nil
}

// tail finds how far the capture has committed a collection.
func (w *writer) tail(collection string) (*tail, error) {
	if t := w.tails[collection]; t != nil {
		return t, nil
	}
	l := w.o.log
	l.mu.Lock()
	topic := l.topics[collection]
	l.mu.Unlock()
	if topic == nil {
		return nil, fmt.Errorf("appending to the collection %s: it has no topic", collection)
	}
	t := &tail{topic: topic, by: kgo.StickyKeyPartitioner(nil).ForTopic(topic.Topic), keys: newKeyer(l.o.Collections[collection])}
	stored := l.state.get(headKey + collection + ";" + w.capture)
	if stored != nil {
		if err := json.Unmarshal(stored, &t.committed); err != nil {
			return nil, fmt.Errorf("reading how far %s is committed: %w", collection, err)
		}
	}
	if len(t.committed.Next) < len(topic.Base) {
		t.committed.Next = append(t.committed.Next, make([]int64, len(topic.Base)-len(t.committed.Next))...)
	}
	t.begin()
	w.tails[collection] = t
	return t, nil
}

// begin has the next commit follow the last one.
func (t *tail) begin() {
	t.next = t.committed
	t.next.Next = append([]int64(nil), t.committed.Next...)
	t.moved, t.require = false, 0
}

// Append implements wal.Writer: the records are on their way when it returns, or wait for that in bounded memory.
func (w *writer) Append(collection string, b *wal.Block) error {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	t, err := w.tail(collection)
	if err != nil {
		return err
	}
	txn, err := w.o.open()
	if err != nil {
		return w.o.failed(err)
	}
	records, err := w.records(t, b, w.time(txn))
	if err != nil {
		return err
	}
	t.moved = true
	done := w.o.promise(txn, t.placed)
	err = w.o.watched(txn, func() error {
		for i := range records {
			if i%64 == 0 && txn.failed() != nil {
				break
			}
			w.o.produce(txn, &records[i], done)
		}
		return txn.failed()
	})
	if err != nil {
		return w.o.failed(err)
	}
	return nil
}

// time is that of a transaction's records: of its beginning, and never before that of the one before, whatever the clock does.
func (w *writer) time(txn *txn) time.Time {
	for _, t := range w.tails {
		if t.committed.Last.After(txn.began) {
			txn.began = t.committed.Last
		}
	}
	return txn.began
}

// records makes those of a block's documents, in memory of their own.
func (w *writer) records(t *tail, b *wal.Block, at time.Time) ([]kgo.Record, error) {
	type said struct{ op, position []byte }
	docs := make([][]byte, 0, b.Count)
	told := make([]said, 0, b.Count)
	text := make([]byte, 0, b.Size())
	t.keyText, t.ends = t.keyText[:0], t.ends[:0]
	err := b.Docs(func(doc []byte) error {
		begin := len(text)
		text = append(text, doc...)
		doc = text[begin:len(text):len(text)]
		var s said
		var err error
		if t.keyText, s.op, s.position, err = t.keys.append(t.keyText, doc); err != nil {
			return usererr.New(err, "a document of the collection %s has a key that cannot be used: %v: %.200q", t.topic.collection, err, doc)
		}
		docs, told, t.ends = append(docs, doc), append(told, s), append(t.ends, len(t.keyText))
		return nil
	})
	if err != nil {
		return nil, err
	}
	keys := append([]byte(nil), t.keyText...)
	name, _, _ := strings.Cut(w.capture, ";") // without its shard
	schema, capture := []byte(strconv.FormatUint(uint64(b.Schema), 10)), []byte(name)
	records, headers := make([]kgo.Record, len(docs)), make([]kgo.RecordHeader, 0, 5*len(docs))
	begin, last, binding := 0, "", []byte(nil)
	for i, doc := range docs {
		key := keys[begin:t.ends[i]:t.ends[i]]
		begin = t.ends[i]
		first := len(headers)
		headers = append(headers, kgo.RecordHeader{Key: headerSchema, Value: schema}, kgo.RecordHeader{Key: headerCapture, Value: capture})
		if origin := b.Origin(i); origin != last {
			last, binding = origin, []byte(origin)
		}
		if len(binding) > 0 {
			headers = append(headers, kgo.RecordHeader{Key: headerBinding, Value: binding})
		}
		if told[i].op != nil {
			headers = append(headers, kgo.RecordHeader{Key: headerOp, Value: told[i].op})
		}
		if told[i].position != nil {
			headers = append(headers, kgo.RecordHeader{Key: headerPosition, Value: told[i].position})
		}
		r := &records[i]
		r.Topic, r.Key, r.Value, r.Timestamp, r.Headers = t.topic.Topic, key, doc, at, headers[first:len(headers):len(headers)]
		r.Partition = int32(t.by.Partition(r, len(t.topic.Base)))
	}
	return records, nil
}

// placed notes where a record is. It is called by the producer.
func (t *tail) placed(r *kgo.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.Offset < t.committed.Next[r.Partition] || r.Offset < t.topic.Base[r.Partition] {
		t.fail = usererr.New(nil, "the topic %s was deleted and made anew while it was used: what was in it is lost", t.topic.Topic)
		return
	}
	t.next.Next[r.Partition] = max(t.next.Next[r.Partition], r.Offset+1)
	t.next.Docs++
	t.next.Bytes += int64(len(r.Value))
}

// Require implements wal.Writer.
func (w *writer) Require(collection string, version uint32) error {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	t, err := w.tail(collection)
	if err == nil && t.moved {
		t.require = version
	}
	return err
}

// Commit implements wal.Writer.
func (w *writer) Commit(ctx context.Context, changes wal.Records) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := w.o
	o.mu.Lock()
	defer o.mu.Unlock()
	txn, err := o.open()
	if err == nil {
		// The places of all records have to be known before they can be written down.
		err = o.watched(txn, func() error {
			if err := o.client.Flush(txn.ctx); err != nil && txn.failed() == nil {
				return cause(txn.ctx, err)
			}
			return txn.failed()
		})
	}
	if err != nil {
		return o.failed(err)
	}
	records := make(map[string][]byte, len(changes)+len(w.tails))
	for name, value := range changes {
		records[recordKey+name] = value
	}
	done := &commit{}
	for collection, t := range w.tails {
		if !t.moved {
			continue
		}
		key := headKey + collection + ";" + w.capture
		if records[key], err = t.finish(txn.began); err != nil {
			return o.failed(err)
		}
		done.moves = append(done.moves, move{t.topic, t.next.Next})
	}
	if err := o.commit(records); err != nil {
		return err
	}
	for _, t := range w.tails {
		if t.moved {
			t.committed = t.next
			t.begin()
		}
	}
	o.log.show(done)
	return nil
}

// finish is the record of what the commit has.
func (t *tail) finish(at time.Time) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fail != nil {
		return nil, t.fail
	}
	t.next.Commits++
	if t.next.First.IsZero() {
		t.next.First = at
	}
	t.next.Last = at
	if t.require > 0 {
		t.next.Marks = append(append([]mark(nil), t.committed.Marks...), mark{t.require, t.committed.Next})
	}
	return json.Marshal(t.next)
}

// Close implements wal.Writer.
func (w *writer) Close() error {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	if w.o.log.ctx.Err() != nil {
		return nil
	}
	return w.o.abort()
}
