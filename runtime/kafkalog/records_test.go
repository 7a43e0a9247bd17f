package kafkalog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// What a broker sends is taken apart as the client takes it apart: of every codec, with transactions of several producers that
// commit and abort between each other, also without a record, from any offset on.
func TestRecordsAreTheClients(t *testing.T) {
	t.Parallel()
	l := open(t, options(t))
	at := l.placeOf(t, things, 0)
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	var producers []*kgo.Client
	for i, codec := range codecs {
		p, err := kgo.NewClient(kgo.SeedBrokers(server.SharedKafka(t).Addresses()), kgo.ProducerBatchCompression(codec), kgo.TransactionalID(fmt.Sprintf("%s-%d", at.topic, i)),
			kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(10<<20), kgo.MaxVersions(kversion.V3_3_0())) // which tells of a partition before it writes there
		require.NoError(t, err)
		t.Cleanup(p.Close)
		producers = append(producers, p)
	}
	for round := range 6 {
		for i, p := range producers {
			if i == 0 { // a transaction with a mark in the partition and nothing else: its only record is refused
				require.NoError(t, p.BeginTransaction())
				require.ErrorIs(t, p.ProduceSync(t.Context(), &kgo.Record{Topic: at.topic, Value: make([]byte, 8<<20)}).FirstErr(), kerr.MessageTooLarge)
				require.NoError(t, p.EndTransaction(t.Context(), kgo.TryAbort))
			}
			require.NoError(t, p.BeginTransaction())
		}
		for n := range 3 * len(producers) {
			p := producers[n%len(producers)]
			var records []*kgo.Record
			for i := range 1 + 40*(n%3) {
				r := &kgo.Record{Topic: at.topic, Key: fmt.Appendf(nil, "%d", i), Value: bytes.Repeat([]byte("v"), i*n), Timestamp: time.UnixMilli(int64(1000 + i))}
				switch i % 4 {
				case 1:
					r.Key, r.Value = nil, nil
				case 2:
					r.Headers = []kgo.RecordHeader{{Key: "a", Value: nil}, {Key: headerSchema, Value: []byte("7")}}
				}
				records = append(records, r)
			}
			require.NoError(t, p.ProduceSync(t.Context(), records...).FirstErr())
		}
		for i, p := range producers {
			require.NoError(t, p.EndTransaction(t.Context(), kgo.TransactionEndTry((i+round)%3 != 0)))
		}
	}
	ends, err := l.admin.ListEndOffsets(t.Context(), at.topic)
	require.NoError(t, err)
	end, _ := ends.Lookup(at.topic, at.partition)
	seen := 0
	for from := int64(0); from < end.Offset; from += 7 {
		sent, err := l.fetchOnce(t.Context(), l.client, at, from, 200<<10, time.Second)
		require.NoError(t, err)
		theirs, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: from, IsolationLevel: kgo.ReadCommitted(), Topic: at.topic, Partition: at.partition},
			sent, kgo.DefaultDecompressor(), nil)
		require.NoError(t, theirs.Err)
		a := newAnswer(sent, from, l.unpack)
		ours, err := a.rest()
		require.NoError(t, err)
		require.Equal(t, next, a.next)
		require.Len(t, ours, len(theirs.Records))
		for i, r := range theirs.Records {
			require.Equal(t, record{r.Offset, r.Timestamp.UnixMilli(), r.Key, r.Value, ours[i].headers}, ours[i])
			for _, h := range r.Headers {
				value, ok := ours[i].header(h.Key)
				require.True(t, ok)
				require.Equal(t, h.Value, value)
			}
			_, ok := ours[i].header("none")
			require.False(t, ok)
		}
		seen += len(ours)
	}
	require.Greater(t, seen, 1000)
}

// placeOf is where a collection's partition is.
func (l *Log) placeOf(t *testing.T, collection string, partition int32) place {
	t.Helper()
	topic := l.topics[collection]
	id, err := parseID(topic.ID)
	require.NoError(t, err)
	return place{topic.Topic, id, partition}
}

// batchOf is a whole batch of records as they are stored, with what they say of themselves.
func batchOf(text []byte, count int32) []byte {
	b := kmsg.RecordBatch{Magic: 2, NumRecords: count, LastOffsetDelta: max(count, 1) - 1, FirstOffset: 10, Length: int32(49 + len(text)), Records: text}
	whole := b.AppendTo(nil)
	return summed(whole)
}

// summed mends the checksum of a batch.
func summed(batch []byte) []byte {
	binary.BigEndian.PutUint32(batch[17:], checksum(batch[21:]))
	return batch
}

func TestDamagedRecords(t *testing.T) {
	t.Parallel()
	one := []byte{2 * 8, 0, 0, 0, 2 * 1, 'k', 2 * 1, 'v', 0} // length, attributes, time, offset, key, value, no headers
	good := batchOf(one, 1)
	read := func(batches []byte) ([]record, error) {
		return newAnswer(&kmsg.FetchResponseTopicPartition{RecordBatches: batches}, 10, kgo.DefaultDecompressor()).rest()
	}
	records, err := read(good)
	require.NoError(t, err)
	require.Len(t, records, 1)
	require.Equal(t, "10 k v", fmt.Sprintf("%d %s %s", records[0].offset, records[0].key, records[0].value))
	records, err = read(append(bytes.Clone(good), good[:len(good)-1]...))
	require.NoError(t, err, "an answer that ends in the middle of a batch")
	require.Len(t, records, 1)

	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	packed := summed(change(22, 3)) // by LZ4, it says
	for why, batches := range map[string][]byte{
		"its checksum is wrong":                      change(len(good)-2, 'w'),
		"it is of the format 1, and only 2 is known": change(16, 1),
		"its length of 12 is too small":              change(11, 0),
		"unpacking it: ":                             packed,
		"it has 100 records in 9 bytes":              batchOf(one, 100),
		"it has -1 records in 9 bytes":               batchOf(one, -1),
		"one of its records is cut or damaged":       batchOf(one[:8], 1),
		"one of its records is cut or damaged ":      batchOf(append([]byte{2 * 2}, one[1:]...), 1),
		"one of its records is cut or damaged  ":     batchOf(append([]byte{1}, one[1:]...), 1),
		"it is a mark without a kind":                summed(func() []byte { b := change(22, control); return b }()),
	} {
		_, err := read(batches)
		require.Error(t, err, why)
		require.ErrorContains(t, err, "what stands at offset 10 cannot be read: "+string(bytes.TrimRight([]byte(why), " ")))
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(batchOf([]byte{2 * 8, 0, 0, 0, 2 * 1, 'k', 2 * 1, 'v', 0}, 1))
	f.Fuzz(func(t *testing.T, batches []byte) {
		if len(batches) > 21 {
			summed(batches)
		}
		a := newAnswer(&kmsg.FetchResponseTopicPartition{RecordBatches: batches}, 0, kgo.DefaultDecompressor())
		records, _ := a.rest()
		for _, r := range records {
			r.header(headerSchema)
		}
	})
}
