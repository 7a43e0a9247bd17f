package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/kafkalogin"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
	"github.com/sluicedata/sluice/sdk/usererr"
)

const things = "acme/things"

// options are those of a log of the test's own on the broker that all share: with a collection, and a capture.
func options(t *testing.T) Options {
	t.Helper()
	return Options{
		Kafka: &pipeline.Kafka{
			Brokers: addresses(t, server.SharedKafka(t).Addresses()), Prefix: fmt.Sprintf("t%d", time.Now().UnixNano()), Partitions: 3, Replication: 1,
			MaxDocument: 4 << 20, TransactionTimeout: time.Minute, SessionTimeout: 6 * time.Second, TLS: endpoint.TLS{Mode: endpoint.Disable}, At: "p.yaml:1",
		},
		Collections: map[string]Key{things: {Pointers: []string{"/id"}}}, Log: logrus.NewEntry(process.Discard()),
	}
}

func addresses(t *testing.T, list string) (all []endpoint.Address) {
	t.Helper()
	for one := range strings.SplitSeq(list, ",") {
		address, err := endpoint.ParseAddress(one, 9092)
		require.NoError(t, err)
		all = append(all, address)
	}
	return all
}

// open opens a log, and takes a capture and a materialization unless it is for reading only.
func open(t *testing.T, o Options) *Log {
	t.Helper()
	l, err := Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	for _, task := range []string{"capture/acme/source", "materialization/acme/sink"} {
		if !o.ReadOnly {
			_, err := l.Take(t.Context(), task, o.OnFenced)
			require.NoError(t, err)
		}
	}
	return l
}

func block(docs ...string) *wal.Block {
	b := &wal.Block{Schema: 7}
	for _, doc := range docs {
		b.AddFrom("public.things", []byte(doc))
	}
	return b
}

// admin is a client of the test's own.
func admin(t *testing.T, o Options) *kadm.Client {
	t.Helper()
	client, err := newClient(o.Kafka, o.Log)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// contents are the documents that readers see, once there are so many; and none more.
func contents(t *testing.T, l *Log, want int) (docs []string, versions map[uint32]int) {
	t.Helper()
	require.Eventually(t, func() bool {
		docs, versions = documents(t, l)
		return len(docs) >= want
	}, time.Minute, 10*time.Millisecond)
	require.Len(t, docs, want)
	return docs, versions
}

// documents reads all that the log shows of the collection now, and counts them by version.
func documents(t *testing.T, l *Log) (docs []string, versions map[uint32]int) {
	t.Helper()
	versions = map[uint32]int{}
	for _, h := range l.Heads(things) {
		r, err := l.Reader(h.Journal, 0, h.Offset)
		require.NoError(t, err)
		for {
			b, next, ok, err := r.Next()
			require.NoError(t, err)
			if !ok {
				require.Equal(t, h.Offset, next)
				break
			}
			versions[b.Schema] += b.Count
			require.NoError(t, b.Docs(func(doc []byte) error { docs = append(docs, string(doc)); return nil }))
		}
	}
	return docs, versions
}

// TestCommits: documents are seen with their commit and not before, also by the next instance, which knows the records that were
// committed with them and none of those that were not; and what was not committed goes.
func TestCommits(t *testing.T) {
	t.Parallel()
	o := options(t)
	l := open(t, o)
	store := l.owner("capture/acme/source")
	w, err := l.Writer("acme/source")
	require.NoError(t, err)
	changed := l.Changed()
	require.NoError(t, w.Commit(t.Context(), nil), "of nothing")
	require.NoError(t, w.Append(things, block(`{"id":1}`, `{"id":2}`)))
	require.NoError(t, w.Append(things, block(`{"id":3}`)))
	require.NoError(t, w.Require(things, 9))
	require.Empty(t, l.Heads(things))
	require.NoError(t, w.Commit(t.Context(), wal.Records{"capture/acme/source/state": []byte("one"), "other": []byte("x")}))
	<-changed
	docs, versions := contents(t, l, 3)
	require.ElementsMatch(t, []string{`{"id":1}`, `{"id":2}`, `{"id":3}`}, docs)
	require.Equal(t, map[uint32]int{9: 3}, versions, "a version that was announced behind the documents")
	require.NoError(t, w.Append(things, block(`{"id":4}`)))
	require.NoError(t, w.Close())
	require.NoError(t, store.Put(t.Context(), wal.Records{"other": nil, "more/a": []byte("a"), "more/b": []byte("b")}))
	w, err = l.Writer("acme/source")
	require.NoError(t, err)
	require.NoError(t, w.Append(things, block(`{"id":5}`)))
	require.NoError(t, w.Commit(t.Context(), wal.Records{"capture/acme/source/state": []byte("two")}))
	require.NoError(t, w.Append(things, block(`{"id":6}`)))
	contents(t, l, 4)
	identity, heads := l.Identity(), l.Heads(things)
	require.NoError(t, l.Close())

	l = open(t, o)
	require.Equal(t, identity, l.Identity())
	require.Equal(t, heads, l.Heads(things))
	docs, _ = contents(t, l, 4)
	require.ElementsMatch(t, []string{`{"id":1}`, `{"id":2}`, `{"id":3}`, `{"id":5}`}, docs)
	state, err := l.Get("capture/acme/source/state")
	require.NoError(t, err)
	require.Equal(t, "two", string(state))
	other, err := l.Get("other")
	require.NoError(t, err)
	require.Nil(t, other)
	names, err := l.Names("more/")
	require.NoError(t, err)
	require.Equal(t, []string{"more/a", "more/b"}, names)
	require.Len(t, l.Alone(things, "acme/source"), len(heads))
	require.Empty(t, l.Alone(things, "acme/other"))
	var sum, behind int64
	for _, j := range l.Journals() {
		span, err := l.Span(j)
		require.NoError(t, err)
		sum += span.Documents
		behind += l.Behind(j, 0)
		require.Zero(t, l.Behind(j, span.Head))
	}
	require.EqualValues(t, 4, sum)
	require.Positive(t, behind)

	// Others look without taking anything over.
	o.ReadOnly, o.Collections = true, nil
	looking := open(t, o)
	contents(t, looking, 4)
	require.ErrorContains(t, looking.Put(t.Context(), wal.Records{"a": nil}), "is open for reading only")
	require.NoError(t, l.Put(t.Context(), wal.Records{"a": []byte("still ours")}))
}

// TestOthersRead: an ordinary consumer finds what the documentation says, and nothing that was not committed.
func TestOthersRead(t *testing.T) {
	t.Parallel()
	o := options(t)
	at := time.UnixMilli(1795000000000)
	o.Now = func() time.Time { return at }
	l := open(t, o)
	w, err := l.Writer("acme/source")
	require.NoError(t, err)
	const doc = `{"id":"a\u00e4","n":1,"_meta":{"op":"u","source":{"lsn":[1,2]}}}`
	require.NoError(t, w.Append(things, block(`{"id":"gone"}`)))
	w, err = l.Writer("acme/source") // which forgets that
	require.NoError(t, err)
	require.NoError(t, w.Append(things, block(doc)))
	require.NoError(t, w.Commit(t.Context(), nil))
	consumer, err := kgo.NewClient(kgo.SeedBrokers(o.Kafka.Brokers[0].String()), kgo.ConsumeTopics(o.Kafka.Prefix+".acme.things"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	require.NoError(t, err)
	defer consumer.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	fetched := consumer.PollRecords(ctx, 10)
	require.NoError(t, fetched.Err())
	records := fetched.Records()
	require.Len(t, records, 1)
	r := records[0]
	require.Equal(t, []string{`["aä"]`, doc}, []string{string(r.Key), string(r.Value)})
	require.True(t, at.Equal(r.Timestamp))
	headers := map[string]string{}
	for _, h := range r.Headers {
		headers[h.Key] = string(h.Value)
	}
	require.Equal(t, map[string]string{"op": "u", "binding": "public.things", "position": `{"lsn":[1,2]}`, "schema": "7", "capture": "acme/source"}, headers)
}

// TestNewerInstance: it takes over, and the older one commits nothing any more and says why; also one that does nothing finds out.
func TestNewerInstance(t *testing.T) {
	t.Parallel()
	o := options(t)
	told := make(chan error, 10)
	o.OnFenced = func(err error) { told <- err }
	older := open(t, o)
	w, err := older.Writer("acme/source")
	require.NoError(t, err)
	require.NoError(t, w.Append(things, block(`{"id":1}`)))
	require.NoError(t, w.Commit(t.Context(), wal.Records{"s": []byte("1")}))
	require.NoError(t, w.Append(things, block(`{"id":"lost"}`)))
	o.OnFenced = func(err error) { t.Errorf("the newer one was fenced: %v", err) }
	newer := open(t, o)
	err = w.Commit(t.Context(), wal.Records{"s": []byte("2")})
	require.ErrorIs(t, err, wal.ErrFenced)
	require.Contains(t, usererr.Message(err), "another sluice run has taken over this pipeline")
	require.ErrorIs(t, older.owner("materialization/acme/sink").Put(t.Context(), wal.Records{"x": []byte("2")}), wal.ErrFenced)
	_, err = older.owner("materialization/acme/sink").Get("s")
	require.ErrorIs(t, err, wal.ErrFenced)
	require.ErrorIs(t, <-told, wal.ErrFenced)
	w, err = newer.Writer("acme/source")
	require.NoError(t, err)
	require.NoError(t, w.Append(things, block(`{"id":2}`)))
	require.NoError(t, w.Commit(t.Context(), wal.Records{"s": []byte("3")}))
	docs, _ := contents(t, newer, 2)
	require.ElementsMatch(t, []string{`{"id":1}`, `{"id":2}`}, docs)

	require.NoError(t, newer.Close())
	idle := make(chan error, 10)
	o.OnFenced = func(err error) { idle <- err }
	open(t, o)
	o.OnFenced = nil
	open(t, o)
	require.ErrorIs(t, <-idle, wal.ErrFenced)
}

// TestGiantTransaction: one of a hundred megabytes takes little memory, and is seen at its commit as a whole.
func TestGiantTransaction(t *testing.T) {
	t.Parallel()
	o := options(t)
	l := open(t, o)
	w, err := l.Writer("acme/source")
	require.NoError(t, err)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most := heap(), uint64(0)
	pad := strings.Repeat("x", 1000)
	const blocks, each = 400, 250
	for i := range blocks {
		b := &wal.Block{}
		for n := range each {
			b.Add(fmt.Appendf(nil, `{"id":%d,"pad":%q}`, i*each+n, pad))
		}
		require.NoError(t, w.Append(things, b))
		if i%100 == 99 {
			most = max(most, heap())
		}
	}
	require.Empty(t, l.Heads(things))
	require.NoError(t, w.Commit(t.Context(), nil))
	// Other tests run beside this one, with buffers of their own.
	require.Less(t, int64(most)-int64(before), int64(80<<20), "bytes of memory for a transaction of 100 MB")
	contents(t, l, blocks*each)
}

// TestTransactionTimeout: the cluster gives a transaction up that takes too long. That is said, nothing of it is there, and it goes on.
func TestTransactionTimeout(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Kafka.TransactionTimeout = time.Second
	l := open(t, o)
	w, err := l.Writer("acme/source")
	require.NoError(t, err)
	require.Eventually(t, func() bool { // the cluster looks for such transactions every ten seconds
		err = w.Append(things, block(`{"id":1}`))
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // a slow source
		return err != nil
	}, time.Minute, time.Millisecond)
	require.Contains(t, usererr.Message(err), "has given up a transaction of capture/acme/source, which took")
	require.Contains(t, usererr.Message(err), "raise transactionTimeout of the log, and transaction.max.timeout.ms of the brokers if it is lower")
	w, err = l.Writer("acme/source")
	require.NoError(t, err)
	require.NoError(t, w.Append(things, block(`{"id":2}`)))
	require.NoError(t, w.Commit(t.Context(), nil))
	docs, _ := contents(t, l, 1)
	require.Equal(t, []string{`{"id":2}`}, docs)
}

// TestProblems: what can be wrong with a cluster is said in words, with the topic and what to do.
func TestProblems(t *testing.T) {
	t.Parallel()
	fails := func(o Options, want ...string) {
		t.Helper()
		_, err := Open(t.Context(), o)
		require.Error(t, err)
		for _, text := range want {
			require.Contains(t, usererr.Message(err), text)
		}
	}
	o := options(t)
	o.Kafka.Brokers, o.Patience = addresses(t, "127.0.0.1:1"), 2*time.Second
	fails(o, "opening the log failed: no broker of kafka://127.0.0.1:1 answers", "see whether the cluster is up and can be reached, and check url, tls and credentials of the log")
	o = options(t)
	o.Kafka.Replication = 3
	fails(o, "making a topic (topic "+o.Kafka.Prefix+".sluice-state) failed: the cluster", "has fewer brokers than that: set topics.replication of the log (it is 3")
	o = options(t)
	o.Kafka.TransactionTimeout = time.Hour
	fails(o, "the brokers allow no transaction to take 1h0m0s: raise their transaction.max.timeout.ms, or lower transactionTimeout of the log")
	o = options(t)
	o.ReadOnly = true
	fails(o, "there is no log on kafka://", "no sluice run has used it yet")
	o = options(t)
	o.Collections = map[string]Key{"a/b.c": {}, "a/b/c": {}}
	fails(o, "the collection a/b/c cannot be a topic of Kafka: that would be "+o.Kafka.Prefix+".a.b.c, which is that of the collection a/b.c already: rename it")
	o.Collections = map[string]Key{"ä": {}}
	fails(o, "the collection ä cannot be a topic of Kafka")
	o = options(t)
	cluster := server.SharedKafka(t)
	o.Kafka.Brokers, o.Kafka.TLS = addresses(t, cluster.SASLAddresses()), endpoint.TLS{RootCert: cluster.CA()}
	o.Kafka.Credentials = kafkalogin.Credentials{Method: kafkalogin.Plain, Username: kafkad.User, Password: schema.NewSecret("wrong")}
	fails(o, "refuses the login", "check credentials of the log")
	o.Kafka.Credentials.Password = schema.NewSecret(kafkad.Password)
	open(t, o)
}

// TestTopics: one that exists is somebody else's unless the pipeline says otherwise; then its documents begin behind what is there. One that is deleted
// is noticed, also if another one comes in its place.
func TestTopics(t *testing.T) {
	t.Parallel()
	o := options(t)
	name := o.Kafka.Prefix + ".acme.things"
	by := admin(t, o)
	made, err := by.CreateTopic(t.Context(), 2, 1, nil, name)
	require.NoError(t, errors.Join(err, made.Err))
	require.Eventually(t, func() bool {
		found, err := by.ListTopics(t.Context(), name)
		return err == nil && found.Has(name) && len(found[name].Partitions) == 2 && led(found[name])
	}, time.Minute, 10*time.Millisecond)
	client, err := newClient(o.Kafka, o.Log)
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Topic: name, Key: []byte("k"), Value: []byte("foreign")}).FirstErr())
	_, err = Open(t.Context(), o)
	require.Contains(t, usererr.Message(err), "p.yaml:1: the topic "+name)
	require.Contains(t, usererr.Message(err), "exists already, and is not of this pipeline: say topics: {adopt: true} to have the collection acme/things kept in it")
	o.Kafka.Adopt = true
	o.Patience = 10 * time.Second
	l := open(t, o)
	w, err := l.Writer("acme/source")
	require.NoError(t, err)
	for n := range 20 {
		require.NoError(t, w.Append(things, block(fmt.Sprintf(`{"id":%d}`, n))))
	}
	require.NoError(t, w.Commit(t.Context(), nil))
	contents(t, l, 20)
	require.Len(t, l.Heads(things), 2)

	_, err = by.DeleteTopic(t.Context(), name)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		if err = w.Append(things, block(`{"id":1}`)); err == nil {
			err = w.Commit(t.Context(), nil)
		}
		return err != nil
	}, time.Minute, 10*time.Millisecond)
	require.Contains(t, usererr.Message(err), name)
	require.Contains(t, usererr.Message(err), "lost")
	_, err = by.CreateTopic(t.Context(), 2, 1, nil, name)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err = Open(t.Context(), o)
		return strings.Contains(usererr.Message(err), "was deleted and made anew: what was in it is lost")
	}, time.Minute, 10*time.Millisecond)
}

// TestForeignRecord: what somebody else writes between the documents is none.
func TestForeignRecord(t *testing.T) {
	t.Parallel()
	o := options(t)
	l := open(t, o)
	client, err := newClient(o.Kafka, o.Log, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer client.Close()
	for p := range int32(3) {
		require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Topic: o.Kafka.Prefix + ".acme.things", Partition: p, Value: []byte("foreign")}).FirstErr())
	}
	w, err := l.Writer("acme/source")
	require.NoError(t, err)
	require.NoError(t, w.Append(things, block(`{"id":1}`)))
	require.NoError(t, w.Commit(t.Context(), nil))
	require.Eventually(t, func() bool { return len(l.Heads(things)) == 1 }, time.Minute, time.Millisecond)
	h := l.Heads(things)[0]
	r, err := l.Reader(h.Journal, 0, h.Offset)
	require.NoError(t, err)
	_, _, _, err = r.Next()
	require.Contains(t, usererr.Message(err), "has a record that no capture has written")
}

// TestTimes: the places of a time are between transactions.
func TestTimes(t *testing.T) {
	t.Parallel()
	o := options(t)
	at := time.UnixMilli(time.Now().UnixMilli()).Add(10 * time.Minute) // behind the marks of the cluster, which have its time
	o.Now = func() time.Time { return at }
	l := open(t, o)
	w, err := l.Writer("acme/source")
	require.NoError(t, err)
	for n := range 3 {
		for id := range 30 {
			require.NoError(t, w.Append(things, block(fmt.Sprintf(`{"id":%d,"n":%d}`, id, n))))
		}
		require.NoError(t, w.Commit(t.Context(), nil))
		at = at.Add(time.Minute)
	}
	contents(t, l, 90)
	docs := 0
	for _, h := range l.Heads(things) {
		from, err := l.At(h.Journal, at.Add(-2*time.Minute-time.Second))
		require.NoError(t, err)
		r, err := l.Reader(h.Journal, from, h.Offset)
		require.NoError(t, err)
		for {
			b, _, ok, err := r.Next()
			require.NoError(t, err)
			if !ok {
				break
			}
			docs += b.Count
		}
		end, err := l.At(h.Journal, at)
		require.NoError(t, err)
		require.Equal(t, h.Offset, end)
		through, err := l.Through(h.Journal, h.Offset)
		require.NoError(t, err)
		require.True(t, through.Time.Equal(at.Add(-time.Minute)), through.Time)
	}
	require.Equal(t, 60, docs)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	y := newKeyer(Key{Pointers: []string{"/a", "/b"}, Defaults: [][]byte{nil, []byte(`"none"`)}})
	for doc, want := range map[string]string{
		`{"a":1,"b":"x"}`:                  `[1,"x"]`,
		`{"a":-5,"b":"\u0078"}`:            `[-5,"x"]`,
		`{"a":18446744073709551615}`:       `[18446744073709551615,"none"]`,
		`{"a":1.50,"b":"q\"\\\n"}`:         `[1.5,"q\"\\\u000a"]`,
		`{"a":15e-1,"b":null}`:             `[1.5,null]`,
		`{"b":true}`:                       `[null,true]`,
		`{"a":"ä\u00e4","b":{ "x" : [1]}}`: `["ää",{"x":[1]}]`,
		`{"a":0,"b":""}`:                   `[0,""]`,
		`{"a":-0,"b":false}`:               `[-0,false]`,
	} {
		key, _, _, err := y.append(nil, []byte(doc))
		require.NoError(t, err)
		require.Equal(t, want, string(key), doc)
	}
	_, op, position, err := y.append(nil, []byte(`{"_meta":{"op":"d","source":{"x":1}}}`))
	require.NoError(t, err)
	require.Equal(t, []string{"d", `{"x":1}`}, []string{string(op), string(position)})
}

// TestPermissions: a login that may do nothing is told what it needs.
func TestPermissions(t *testing.T) {
	t.Parallel()
	cluster := server.Kafka(t, kafkad.Options{Secure: true, Settings: map[string]string{
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:ANONYMOUS",
	}})
	o := options(t)
	plain := addresses(t, cluster.Addresses())
	o.Kafka.Brokers, o.Kafka.TLS = addresses(t, cluster.SASLAddresses()), endpoint.TLS{RootCert: cluster.CA()}
	o.Kafka.Credentials = kafkalogin.Credentials{Method: kafkalogin.Plain, Username: kafkad.User, Password: schema.NewSecret(kafkad.Password)}
	fails := func(want string) {
		t.Helper()
		l, err := Open(t.Context(), o)
		if err == nil {
			require.NoError(t, l.Close())
		}
		require.Contains(t, usererr.Message(err), want)
	}
	fails("looking for the log failed: the login may not do that with the topic: grant it READ, WRITE and DESCRIBE on the topics " + o.Kafka.Prefix + ".*")
	free := *o.Kafka
	free.Brokers, free.TLS, free.Credentials = plain, endpoint.TLS{Mode: endpoint.Disable}, kafkalogin.Credentials{}
	by := admin(t, Options{Kafka: &free, Log: o.Log})
	grant := func(b *kadm.ACLBuilder) {
		t.Helper()
		_, err := by.CreateACLs(t.Context(), b.Allow("User:"+kafkad.User).AllowHosts().ResourcePatternType(kadm.ACLPatternPrefixed))
		require.NoError(t, err)
	}
	grant(kadm.NewACLs().Topics(o.Kafka.Prefix+".").Operations(kadm.OpRead, kadm.OpWrite, kadm.OpDescribe, kadm.OpDescribeConfigs, kadm.OpCreate))
	fails("the login may not use transactions: grant it WRITE and DESCRIBE on the transactional ids " + o.Kafka.Prefix + ".*")
	grant(kadm.NewACLs().TransactionalIDs(o.Kafka.Prefix+".").Operations(kadm.OpWrite, kadm.OpDescribe))
	l := open(t, o) // what the documentation says is enough
	w, err := l.Writer("acme/source")
	require.NoError(t, err)
	require.NoError(t, w.Append(things, block(`{"id":1}`)))
	require.NoError(t, w.Commit(t.Context(), nil))
	contents(t, l, 1)
}
