package kafkalog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// record is one of a topic. Its bytes belong to nobody, and are never changed.
type record struct {
	offset  int64
	milli   int64 // its time, in milliseconds since 1970
	key     []byte
	value   []byte // nil deletes
	headers []byte // as they are stored; see header
}

// answer is what a broker has sent of a partition: batches of records, which are taken apart one after the other. The client would make each record
// and each name of a header something of its own in memory, which is most of what it costs to read a log of small documents.
//
// The format: https://kafka.apache.org/documentation/#recordbatch
type answer struct {
	unpack  kgo.Decompressor
	batches []byte
	next    int64             // behind what was taken apart; the next answer begins there
	aborted map[int64][]int64 // by producer: where its aborted transactions begin that have not ended, in order
	records []record
	size    int // of the text that they are from
}

// What a batch's attributes say.
const (
	compressed    = 0b0000_0111
	appendTime    = 0b0000_1000
	transactional = 0b0001_0000
	control       = 0b0010_0000
)

// newAnswer reads the answer to a fetch from an offset on.
func newAnswer(p *kmsg.FetchResponseTopicPartition, offset int64, unpack kgo.Decompressor) *answer {
	a := &answer{unpack: unpack, batches: p.RecordBatches, next: offset, aborted: map[int64][]int64{}}
	for _, t := range p.AbortedTransactions {
		a.aborted[t.ProducerID] = append(a.aborted[t.ProducerID], t.FirstOffset)
	}
	for _, begins := range a.aborted {
		slices.Sort(begins) // not every broker has them in order
	}
	return a
}

// rest takes all batches apart.
func (a *answer) rest() (all []record, err error) {
	for {
		records, err := a.take()
		if err != nil || len(records) == 0 {
			return all, err
		}
		all = append(all, records...)
	}
}

// done tells whether nothing is left that take could return.
func (a *answer) done() bool { return len(a.batches) == 0 }

// take returns the records of the next batch that has some that were committed: until it is called again, but their bytes stay. None are left if it
// returns none.
func (a *answer) take() ([]record, error) {
	for {
		at := a.next
		batch, ok, err := a.cut()
		if ok {
			err = a.open(&batch)
		}
		if err != nil {
			return nil, fmt.Errorf("what stands at offset %d cannot be read: %w", at, err)
		}
		if !ok || len(a.records) > 0 {
			return a.records, nil
		}
	}
}

// cut takes the next batch off. An answer may end in the middle of one.
func (a *answer) cut() (b kmsg.RecordBatch, ok bool, err error) {
	const (
		lengthAt, magicAt, summedAt = 8, 16, 21
		behindLength                = 12
		header                      = 61
	)
	a.records = a.records[:0]
	if len(a.batches) <= magicAt {
		a.batches = nil
		return b, false, nil
	}
	size := int(int32(binary.BigEndian.Uint32(a.batches[lengthAt:]))) + behindLength
	switch {
	case a.batches[magicAt] != 2:
		return b, false, fmt.Errorf("it is of the format %d, and only 2 is known", a.batches[magicAt])
	case size < header:
		return b, false, fmt.Errorf("its length of %d is too small", size)
	case size > len(a.batches):
		a.batches = nil
		return b, false, nil
	}
	whole := a.batches[:size]
	a.batches = a.batches[size:]
	if err := b.ReadFrom(whole); err != nil {
		return b, false, err
	}
	if checksum(whole[summedAt:]) != uint32(b.CRC) {
		return b, false, errors.New("its checksum is wrong")
	}
	return b, true, nil
}

// open takes a batch's records, unless it has none for us.
func (a *answer) open(b *kmsg.RecordBatch) error {
	from, last := a.next, b.FirstOffset+int64(b.LastOffsetDelta)
	if last < from {
		return nil
	}
	a.next = last + 1
	if b.Attributes&control != 0 {
		return a.mark(b)
	}
	if begins := a.aborted[b.ProducerID]; b.Attributes&transactional != 0 && len(begins) > 0 && begins[0] <= b.FirstOffset {
		return nil
	}
	text, err := a.unpack.Decompress(b.Records, kgo.CompressionCodecType(b.Attributes&compressed))
	if err != nil {
		return fmt.Errorf("unpacking it: %w", err)
	}
	if b.NumRecords < 0 || int(b.NumRecords) > len(text) {
		return fmt.Errorf("it has %d records in %d bytes", b.NumRecords, len(text))
	}
	a.size, a.records = len(text), slices.Grow(a.records, int(b.NumRecords))
	for range b.NumRecords {
		var r record
		if text, err = r.parse(text, b); err != nil {
			return err
		}
		if r.offset >= from {
			a.records = append(a.records, r)
		}
	}
	return nil
}

// mark takes the end of a transaction: whether it was aborted. One that had no records in the partition may be marked as well, and says nothing of those behind it.
func (a *answer) mark(b *kmsg.RecordBatch) error {
	var r record
	if _, err := r.parse(b.Records, b); err != nil {
		return err
	}
	const abort = 0
	if len(r.key) < 4 {
		return errors.New("it is a mark without a kind")
	}
	if begins := a.aborted[b.ProducerID]; binary.BigEndian.Uint16(r.key[2:]) == abort && len(begins) > 0 && begins[0] < b.FirstOffset {
		a.aborted[b.ProducerID] = begins[1:]
	}
	return nil
}

var errRecord = errors.New("one of its records is cut or damaged")

// parse takes a record off the text of a batch.
func (r *record) parse(text []byte, b *kmsg.RecordBatch) (rest []byte, err error) {
	f := fields{rest: text}
	size := f.number()
	if f.bad || size < 1 || size > int64(len(f.rest)) {
		return nil, errRecord
	}
	rest = f.rest[size:]
	f.rest = f.rest[1:size:size] // behind the attributes, of which there are none
	r.milli = b.FirstTimestamp + f.number()
	if b.Attributes&appendTime != 0 {
		r.milli = b.MaxTimestamp
	}
	r.offset = b.FirstOffset + f.number()
	r.key, r.value = f.bytes(), f.bytes()
	r.headers = f.rest
	if f.bad {
		return nil, errRecord
	}
	return rest, nil
}

// header is the value of the first header of a name.
func (r *record) header(name string) (value []byte, ok bool) {
	f := fields{rest: r.headers}
	for range f.number() {
		key, value := f.bytes(), f.bytes()
		if f.bad {
			break
		}
		if string(key) == name {
			return value, true
		}
	}
	return nil, false
}

// fields reads those of a record. bad says that it was not there, or is longer than the rest, and stays so.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) number() int64 {
	v, n := binary.Varint(f.rest)
	if n <= 0 {
		f.bad, f.rest = true, nil
		return 0
	}
	f.rest = f.rest[n:]
	return v
}

// bytes reads a field behind its length, which is negative for null.
func (f *fields) bytes() []byte {
	n := f.number()
	if n < 0 {
		return nil
	}
	if n > int64(len(f.rest)) {
		f.bad, f.rest = true, nil
		return nil
	}
	v := f.rest[:n:n]
	f.rest = f.rest[n:]
	return v
}

func checksum(text []byte) uint32 { return crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli)) }
