package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// What a record has besides its value is in _meta; a record without value is a delete; no name of a value is lost.
func TestDocuments(t *testing.T) {
	t.Parallel()
	b := shared(t)
	topic := b.topic(1)
	at := time.UnixMilli(1740787200123)
	b.produce(
		&kgo.Record{Topic: topic, Key: []byte("a"), Value: []byte(`{"x":1.50}`), Timestamp: at, Headers: []kgo.RecordHeader{
			{Key: "h", Value: []byte("one")}, {Key: "h", Value: []byte("two")}, {Key: "none"}, {Key: "raw", Value: []byte{0xff}},
		}},
		&kgo.Record{Topic: topic, Key: []byte("a"), Timestamp: at},
		&kgo.Record{Topic: topic, Value: []byte(` { } `), Timestamp: at},
		&kgo.Record{Topic: topic, Value: []byte(`[1,2]`), Timestamp: at},
		&kgo.Record{Topic: topic, Key: []byte(""), Value: []byte("{\"_meta\":1,\"__meta\":2,\n\"\\u005fkey\":3,\"_other\":4,\"x\":{\"_key\":5}}"), Timestamp: at},
	)
	r := open(t, b.config(topic), nil)
	r.until(5)
	meta := func(op string, offset int) string {
		return fmt.Sprintf(`{"op":%q,"topic":%q,"partition":0,"offset":%d,"epoch":0,"ts_ms":1740787200123,"ts_type":"create"`, op, topic, offset)
	}
	for i, want := range []string{
		`{"x":1.50,"_key":"a","_meta":` + meta("u", 0) + `,"headers":[{"name":"h","value":"one"},{"name":"h","value":"two"},{"name":"none","value":null},{"name":"raw","base64":"/w=="}]}}`,
		`{"_key":"a","_meta":` + meta("d", 1) + `}}`,
		`{"_meta":` + meta("u", 2) + `}}`,
		`{"_value":[1,2],"_meta":` + meta("u", 3) + `}}`,
		`{"__meta":1,"___meta":2,"__key":3,"_other":4,"x":{"_key":5},"_key":"","_meta":` + meta("u", 4) + `}}`,
	} {
		require.Equal(t, want, string(r.docs[i]))
	}
}

// Every partition is read from the place that the state names, whatever happens in between: nothing is lost or repeated after
// the last checkpoint. Checkpoints are far fewer than records.
func TestResume(t *testing.T) {
	t.Parallel()
	b := shared(t)
	const partitions, all = 3, 30_000
	topic := b.topic(partitions)
	b.numbered(topic, partitions, 0, all/2)
	random := rand.New(rand.NewPCG(1, 2))
	var state json.RawMessage
	var docs []json.RawMessage
	transactions, runs := 0, 0
	for len(docs) < all {
		if runs == 2 {
			b.numbered(topic, partitions, all/2, all/2)
		}
		r := open(t, b.config(topic), state)
		for range 1 + random.IntN(4) {
			require.NoError(t, r.next())
			transactions++
			if len(docs)+len(r.docs) >= all || (runs < 2 && len(docs)+len(r.docs) >= all/2) {
				break
			}
		}
		r.Kill() // what it has written since is thrown away, as a runtime that dies does
		state, docs = r.state, append(docs, r.docs...)
		runs++
	}
	requireNumbers(t, docs, 0, all)
	places(t, docs...)
	require.Less(t, transactions, all/100, "a checkpoint is no matter of single records")
	require.Greater(t, runs, 3)
}

// Records that come one by one share checkpoints, but the first of them does not wait for others.
func TestCheckpointsAreCoalesced(t *testing.T) {
	t.Parallel()
	b := shared(t)
	topic := b.topic(1)
	cfg := b.config(topic)
	cfg.Advanced.CheckpointEvery = "1s"
	b.numbered(topic, 1, 0, 1)
	r := open(t, cfg, nil)
	r.until(1)
	begin, transactions := time.Now(), 0
	go func() {
		for i := range 200 {
			_ = b.client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, `{"n":%d}`, i+1)}) // the test below counts them
		}
	}()
	for len(r.docs) < 201 {
		require.NoError(t, r.next())
		transactions++
	}
	require.LessOrEqual(t, transactions, 2+int(time.Since(begin)/time.Second))
	requireNumbers(t, r.docs, 0, 201)
}

// Where the capture of a topic begins is what the user says, for partitions that were there; it is kept from then on.
func TestStartAt(t *testing.T) {
	t.Parallel()
	b := shared(t)
	noon := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, at string
		want     int // the first of four records, an hour each, and one that comes later
	}{
		{"earliest", startEarliest, 0}, {"latest", startLatest, 4}, {"time", noon.Add(90 * time.Minute).Format(time.RFC3339), 2}, {"future", "2090-01-01T00:00:00Z", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := benchAt(t, b.brokers)
			topic := b.topic(1)
			for i := range 4 {
				b.produce(&kgo.Record{Topic: topic, Value: fmt.Appendf(nil, `{"n":%d}`, i), Timestamp: noon.Add(time.Duration(i) * time.Hour)})
			}
			cfg := b.config(topic)
			cfg.StartAt = c.at
			r := open(t, cfg, nil)
			require.NoError(t, r.next()) // the place is committed although no record was captured
			require.NoError(t, r.Stop())
			b.produce(&kgo.Record{Topic: topic, Value: []byte(`{"n":4}`)})
			docs := r.docs
			r = open(t, cfg, r.state)
			r.until(5 - c.want - len(docs))
			requireNumbers(t, append(docs, r.docs...), c.want, 5-c.want)
		})
	}
}

// New partitions are found while the capture runs, and are read from their beginning wherever the capture began.
func TestNewPartitions(t *testing.T) {
	t.Parallel()
	b := shared(t)
	topic := b.topic(1)
	b.numbered(topic, 1, 0, 10)
	cfg := b.config(topic)
	cfg.StartAt = startLatest
	r := open(t, cfg, nil)
	require.NoError(t, r.next())
	require.Empty(t, r.docs)
	_, err := b.admin.UpdatePartitions(t.Context(), 3, topic)
	require.NoError(t, err)
	eventually(t, func(ctx ctx) bool {
		found, err := b.admin.ListTopics(ctx, topic)
		return err == nil && len(found[topic].Partitions) == 3 && found[topic].Partitions[1].Leader >= 0 && found[topic].Partitions[2].Leader >= 0
	})
	b.client.PurgeTopicsFromClient(topic)
	b.produce(&kgo.Record{Topic: topic, Partition: 1, Value: []byte(`{"n":1}`)}, &kgo.Record{Topic: topic, Partition: 2, Value: []byte(`{"n":2}`)})
	r.until(2)
	requireNumbers(t, r.docs, 1, 2)

	// Also when they came while nothing ran.
	require.NoError(t, r.Stop())
	_, err = b.admin.UpdatePartitions(t.Context(), 4, topic)
	require.NoError(t, err)
	eventually(t, func(ctx ctx) bool {
		found, err := b.admin.ListTopics(ctx, topic)
		return err == nil && len(found[topic].Partitions) == 4 && found[topic].Partitions[3].Leader >= 0
	})
	b.client.PurgeTopicsFromClient(topic)
	b.produce(&kgo.Record{Topic: topic, Partition: 3, Value: []byte(`{"n":3}`)})
	r = open(t, cfg, r.state)
	r.until(1)
	requireNumbers(t, r.docs, 3, 1)
}

// Only what was committed is captured; control records and what compaction left out are no gaps.
func TestTransactionsAndCompaction(t *testing.T) {
	t.Parallel()
	b := shared(t)
	topic := b.topic(1)
	producer, err := kgo.NewClient(kgo.SeedBrokers(b.brokers), kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic))
	require.NoError(t, err)
	defer producer.Close()
	write := func(n int, end kgo.TransactionEndTry) {
		t.Helper()
		require.NoError(t, producer.BeginTransaction())
		require.NoError(t, producer.ProduceSync(t.Context(), &kgo.Record{Value: fmt.Appendf(nil, `{"n":%d}`, n)}).FirstErr())
		require.NoError(t, producer.EndTransaction(t.Context(), end))
	}
	write(0, kgo.TryCommit)
	write(100, kgo.TryAbort)
	write(1, kgo.TryCommit)
	cfg := b.config(topic)
	cfg.OnOffsetLoss = lossFail
	r := open(t, cfg, nil)
	r.until(2)
	write(101, kgo.TryAbort)
	write(2, kgo.TryCommit)
	r.until(3)
	require.NoError(t, r.Stop())
	requireNumbers(t, r.docs, 0, 3)
	b.deleteBefore(topic, 0, -1) // all of it, the end of the last transaction too, which is nothing that was lost
	r = open(t, cfg, r.state)
	write(3, kgo.TryCommit)
	r.until(1)
	requireNumbers(t, r.docs, 3, 1)
}

// The state passes the ends of transactions, which are no documents; and nothing goes back.
func TestPositionsPassControlRecords(t *testing.T) {
	t.Parallel()
	at := func(next int64) *partition {
		return &partition{position: &position{Next: next, Epoch: 1}, topic: &topic{binding: &binding{}}}
	}
	p, other := at(7), at(0)
	p.topic.partitions = map[int32]*partition{0: p}
	other.topic.partitions = map[int32]*partition{0: at(0)}
	end := func(offset int64) *kgo.Record {
		return &kgo.Record{Offset: offset, LeaderEpoch: 3, Key: []byte{0, 0, 0, 1}, Attrs: kgo.NewRecordAttrs(kgo.RecordAttrsOpts{Transactional: true, Control: true})}
	}
	r := &reader{fetched: []fetched{{other, []*kgo.Record{end(5)}}, {p, []*kgo.Record{end(6), end(9)}}}}
	var tx capture.Tx
	require.NoError(t, r.drain(t.Context(), &tx))
	require.Equal(t, position{Next: 10, Epoch: 3}, *p.position)
	require.Equal(t, position{Next: 0, Epoch: 1}, *other.position, "it was placed anew meanwhile")
	require.Zero(t, tx.Documents())
	require.EqualValues(t, 1, r.captured, "so that the state is committed soon")
	require.Zero(t, p.records)
	require.Empty(t, r.fetched)
}

// What retention took away before it was captured is counted, and the user's policy followed, before and during a capture.
func TestOffsetLoss(t *testing.T) {
	t.Parallel()
	b := shared(t)
	topic := b.topic(2)
	b.numbered(topic, 2, 0, 20)
	r := open(t, b.config(topic), nil)
	r.until(20)
	require.NoError(t, r.Stop())
	state := r.state
	b.numbered(topic, 2, 20, 20)
	b.deleteBefore(topic, 1, 15) // 10 to 14 are gone: the numbers 21, 23 … 29

	cfg := b.config(topic)
	cfg.OnOffsetLoss = lossFail
	s := session.Start(t, connector(), frame.Proto)
	s.AskOpen(s.Task(cfg), state)
	require.Error(t, s.Opened())
	require.Contains(t, usererr.Message(s.Wait()), "Partition 1 of topic "+topic+" no longer has the offsets 10 to 14, up to 5 records, which were not captured: it begins at 15 now. Set onOffsetLoss to earliest")

	r = open(t, b.config(topic), state)
	r.until(15)
	got := numbers(t, r.docs)
	for n := 20; n < 40; n++ {
		require.Equal(t, n%2 == 0 || n >= 30, got[n], "%d", n)
	}

	// A state from beyond the end: the cluster has lost what was captured.
	require.NoError(t, r.Stop())
	b.numbered(topic, 2, 40, 2)
	future := json.RawMessage(string(replace(t, r.state, topic, "0", func(p *position) { p.Next, p.Epoch = 1000, -1 })))
	s = session.Start(t, connector(), frame.Proto)
	s.AskOpen(s.Task(cfg), future)
	require.Error(t, s.Opened())
	require.Contains(t, usererr.Message(s.Wait()), "Partition 0 of topic "+topic+" was cut at offset 21 by the cluster, but had been captured up to 1000")
}

// A topic that was deleted and created again is another one, whose offsets mean something else.
func TestRecreatedTopic(t *testing.T) {
	t.Parallel()
	b := shared(t)
	topic := b.topic(1)
	b.numbered(topic, 1, 0, 5)
	r := open(t, b.config(topic), nil)
	r.until(5)
	recreate := func(first, n int) {
		t.Helper()
		_, err := b.admin.DeleteTopic(t.Context(), topic)
		require.NoError(t, err)
		b.create(topic, 1)
		b.client.PurgeTopicsFromClient(topic)
		b.numbered(topic, 1, first, n)
	}
	recreate(5, 8) // while it runs; more records than before, so that the old offset would be one of the new ones
	r.until(13)
	require.NoError(t, r.Stop())
	recreate(13, 20) // while it does not
	last := r.docs
	state := r.state
	r = open(t, b.config(topic), state)
	r.until(20)
	requireNumbers(t, append(last, r.docs...), 0, 33)

	cfg := b.config(topic)
	cfg.OnOffsetLoss = lossFail
	s := session.Start(t, connector(), frame.Proto)
	s.AskOpen(s.Task(cfg), state)
	require.Error(t, s.Opened())
	require.Contains(t, usererr.Message(s.Wait()), "Topic "+topic+" was deleted and created again: of partition 0, what came after offset 8 in the old topic is gone")
}

// Processes with complementary parts of the range read each partition exactly once, also after parts were split and merged.
func TestShards(t *testing.T) {
	t.Parallel()
	b := shared(t)
	const partitions = 24
	topic := b.topic(partitions)
	written := 0
	write := func(n int) {
		b.numbered(topic, partitions, written, n)
		written += n
	}
	var state json.RawMessage
	var docs []json.RawMessage
	for round, ends := range [][]uint32{
		{1<<32 - 1}, // one process
		{1<<30 - 1, 1<<31 - 1, 3<<30 - 1, 1<<32 - 1}, // split into four
		{1<<31 - 1, 1<<32 - 1},                       // merged into two
		{1<<30 - 1, 1<<32 - 1},                       // moved
		{1<<32 - 1},                                  // merged into one
	} {
		write(partitions * 5)
		var got []*run
		begin := uint32(0)
		owners := map[int32]int{}
		for shard, end := range ends {
			r := openRange(t, b.config(topic), state, begin, end)
			got = append(got, r)
			want := 0
			for p := range int32(partitions) {
				if h := hashOf(topic, p); begin <= h && h <= end {
					want += 5
				}
			}
			if len(ends) == 4 {
				require.Greater(t, want, 0, "every one of four processes has work")
			}
			r.until(want)
			for _, doc := range r.docs {
				p := parse(t, doc).Meta.Partition
				owner, ok := owners[p]
				require.True(t, !ok || owner == shard, "partition %d is read twice in round %d", p, round)
				owners[p] = shard
			}
			begin = end + 1
		}
		require.Len(t, owners, partitions)
		for _, r := range got {
			docs = append(docs, r.docs...)
			state = r.apply(state) // in any order: each changes only its own partitions
			require.NoError(t, r.Stop())
		}
	}
	requireNumbers(t, docs, 0, written)
	require.Len(t, places(t, docs...), written)
}

// The hash decides which process reads what, in every version.
func TestHashIsStable(t *testing.T) {
	t.Parallel()
	got := map[string]uint32{}
	for _, topic := range []string{"orders", "a"} {
		for p := range int32(3) {
			got[fmt.Sprintf("%s/%d", topic, p)] = hashOf(topic, p)
		}
	}
	require.True(t, maps.Equal(map[string]uint32{
		"a/0": 0xb7ecf9f7, "a/1": 0xa07acbc9, "a/2": 0x2871532f, "orders/0": 0x597975fc, "orders/1": 0xddc132b, "orders/2": 0x2a91c50,
	}, got), "%#v", got)
}

// A record that cannot be decoded is named, and the user's policy followed.
func TestBadMessages(t *testing.T) {
	t.Parallel()
	b := shared(t)
	topic := b.topic(1)
	b.produce(
		&kgo.Record{Topic: topic, Value: []byte(`{"n":0}`)},
		&kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte("{\"n\":1")},
		&kgo.Record{Topic: topic, Value: []byte("")},
		&kgo.Record{Topic: topic, Key: []byte{0xff}, Value: []byte(`{"n":3}`)},
		&kgo.Record{Topic: topic, Value: []byte(`{"n":4}`)},
	)
	cfg := b.config(topic)
	r := open(t, cfg, nil)
	require.Contains(t, usererr.Message(r.fails()), "The record at offset 1 of partition 0 of topic "+topic+" cannot be captured: its value is bad: it is no JSON")

	cfg.OnBadMessage = badSkip
	r = open(t, cfg, nil)
	r.until(2)
	require.Equal(t, map[int]bool{0: true, 4: true}, numbers(t, r.docs))
	require.NoError(t, r.Stop())

	cfg.OnBadMessage = badDeadletter
	r = open(t, cfg, nil)
	r.until(5)
	places(t, r.docs...)
	m := parse(t, r.docs[1])
	require.Equal(t, "k", m.Key)
	require.Equal(t, map[string]string{"side": "value", "reason": "it is no JSON", "key": "aw==", "value": "eyJuIjox"}, withoutAdvice(m.Meta.Bad))
	m = parse(t, r.docs[3])
	require.Nil(t, m.Key)
	require.Equal(t, "/w==", m.Meta.Bad["key"])
	require.Equal(t, "eyJuIjozfQ==", m.Meta.Bad["value"])
}
