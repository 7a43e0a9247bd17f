package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-kafka/internal/codec"
	"github.com/sluicedata/sluice/source-kafka/internal/registry"
)

const (
	// fullTransaction is when a transaction ends, however fast records come.
	fullTransaction = 1 << 20
	// maxBatch is how large one batch of records may be, as it is sent and when it is unpacked. Brokers send a batch whole
	// however large it is.
	maxBatch = 192 << 20
	// maxBadLogged is how many records that cannot be decoded the log tells of one by one, for each topic.
	maxBadLogged = 100
)

// reader captures the partitions that fall to this process.
type reader struct {
	cluster
	topics   map[string]*topic
	registry *registry.Client
	pulse    *pulse
	size     *fetchSize
	changed  []*topic // whose state is to be saved

	// What was fetched and is not captured yet.
	fetched []fetched

	// Of the record that is being captured:
	ctx    context.Context //nolint:containedctx // of Read, for the function below, which is not made anew for every record
	rec    *kgo.Record
	in     *topic
	encode func(dst []byte) ([]byte, error)

	every      time.Duration // between checkpoints, at least, while records keep coming
	checkpoint time.Time     // of the last one
	captured   int64         // records, all that a position was moved past, control records too
	goal       goal
	lastLookUp time.Time
	nextLookUp time.Time
	nextStatus time.Time
	status     status
}

// fetched are records of one partition.
type fetched struct {
	partition *partition
	records   []*kgo.Record
}

// openReader connects, and places all partitions.
func openReader(ctx context.Context, env capture.Env, cfg config, bindings []*binding) (*reader, error) {
	r := &reader{topics: map[string]*topic{}, pulse: &pulse{}, every: duration(cfg.Advanced.CheckpointEvery, defaultCheckpointEvery)}
	begin, err := parseStart(cfg.StartAt)
	if err != nil {
		return nil, err
	}
	r.cluster = cluster{env: env, cfg: cfg, begin: begin}
	if r.registry, err = cfg.SchemaRegistry.client(); err != nil {
		return nil, err
	}
	for _, b := range bindings {
		t := &topic{binding: b, name: b.Resource.Topic, partitions: map[int32]*partition{}, waiting: map[int32]bool{}}
		if err = b.Resource.checkKey(b.Collection.Name, b.Collection.Key); err != nil {
			return nil, err
		}
		if t.documents, err = newDocuments(b.Resource, b.Collection.Key, r.registry); err != nil {
			return nil, err
		}
		r.topics[t.name] = t
	}
	r.encode = func(dst []byte) ([]byte, error) { return r.in.documents.append(r.ctx, dst, r.rec) }
	fetch := cfg.Advanced.FetchMaxBytes
	if fetch == 0 {
		fetch = defaultFetchMaxBytes
	}
	if r.size, err = newFetchSize(int32(fetch)); err != nil { //nolint:gosec // Validate bounds it
		return nil, err
	}
	r.client, err = newClient(cfg, env.Log, kgo.WithHooks(r.pulse, r.size),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{}), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), // which end what was aborted, too: positions pass it
		kgo.FetchMaxBytes(r.size.now), kgo.FetchMaxPartitionBytes(ofPartition(r.size.now)),
		kgo.BrokerMaxReadBytes(max(maxBatch, int32(2*fetch))), kgo.WithDecompressor(r.size), //nolint:gosec // Validate bounds it
		kgo.MetadataMinAge(250*time.Millisecond))
	if err != nil {
		return nil, err
	}
	r.admin = kadm.NewClient(r.client)
	r.pulse.reset()
	if r.changed, err = r.lookUp(ctx, r.topics); err == nil {
		err = missing(r.topics)
	}
	if err == nil {
		err = r.checkIdentities(ctx)
	}
	if err == nil && env.CatchUp {
		err = r.setGoal(ctx)
	}
	if err != nil {
		return nil, errors.Join(unreachable(err, cfg, r.pulse), r.Close())
	}
	r.nextLookUp = time.Now().Add(duration(cfg.Advanced.MetadataEvery, defaultMetadataEvery))
	for _, t := range r.topics {
		if len(t.waiting) > 0 {
			r.soon()
		}
	}
	r.nextStatus = time.Now().Add(duration(cfg.Advanced.StatusEvery, defaultStatusEvery))
	return r, nil
}

// Close ends all connections.
func (r *reader) Close() error { //nolint:unparam // as io.Closer has it
	r.status.close()
	if r.client != nil {
		r.client.Close()
	}
	if r.registry != nil {
		r.registry.Close()
	}
	return nil
}

// Read gathers records until a megabyte is there, or until nothing more is at hand and the last checkpoint is long enough ago:
// records that come one by one have no checkpoint each, and one that comes alone does not wait.
func (r *reader) Read(ctx context.Context, tx *capture.Tx) error {
	r.ctx = ctx
	var due time.Time // when what was gathered is to be committed; zero if nothing was
	for {
		before := r.captured
		if err := r.drain(ctx, tx); err != nil {
			return err
		}
		now := time.Now()
		if r.captured > before {
			due = earlier(due, later(now, r.checkpoint.Add(r.every)))
		}
		for _, t := range r.changed {
			tx.Save(t.binding)
			due = earlier(due, now.Add(placesPause))
		}
		r.changed = r.changed[:0]
		caughtUp := r.caughtUp(now)
		if caughtUp && due.IsZero() {
			return io.EOF
		}
		if caughtUp || tx.Size() >= fullTransaction || !due.IsZero() && !now.Before(due) {
			r.checkpoint = now
			return nil
		}
		if err := r.keep(ctx, now); err != nil {
			return err
		}
		if len(r.changed) > 0 {
			continue
		}
		until := earlier(due, r.nextLookUp)
		if r.goal.ends != nil {
			until = earlier(until, now.Add(time.Second))
		}
		if err := r.poll(ctx, until); err != nil {
			return err
		}
	}
}

// placesPause is how long the places where partitions begin wait for records to be committed with.
const placesPause = 2 * time.Second

// earlier is the earlier of two times, of which a may be zero for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// poll waits for records.
func (r *reader) poll(ctx context.Context, until time.Time) error {
	poll, cancel := context.WithDeadline(ctx, until)
	fetches := r.client.PollFetches(poll)
	cancel()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.size.adapt(r.client)
	var err error
	fetches.EachTopic(func(f kgo.FetchTopic) {
		t := r.topics[f.Topic]
		for _, fp := range f.Partitions {
			switch {
			case t == nil:
				if !errors.Is(fp.Err, context.DeadlineExceeded) && err == nil {
					err = &askError{fp.Err}
				}
				continue
			case t.partitions[fp.Partition] == nil:
				continue // no longer ours: the topic was created again
			}
			p := t.partitions[fp.Partition]
			if len(fp.Records) > 0 {
				r.fetched = append(r.fetched, fetched{p, fp.Records})
			}
			if fp.Err != nil {
				if e := r.failed(ctx, p, fp.Err); e != nil && err == nil {
					err = e
				}
			}
		}
	})
	if err != nil {
		return unreachable(err, r.cfg, r.pulse)
	}
	return r.pulse.check(r.cfg)
}

// failed handles what a broker answers instead of records.
func (r *reader) failed(ctx context.Context, p *partition, err error) error {
	_, isCut := errors.AsType[*kgo.ErrDataLoss](err)
	tooLarge, isTooLarge := errors.AsType[*kgo.ErrDecompressTooLarge](err)
	switch {
	case isCut, errors.Is(err, kerr.OffsetOutOfRange):
		changed, err := r.again(ctx, r.topics, p)
		if err != nil {
			return err
		}
		r.changed = append(r.changed, changed...)
		if len(p.topic.waiting) > 0 {
			r.soon()
		}
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.UnknownTopicOrPartition), kerr.IsRetriable(err):
		r.soon() // was it deleted?
	case isTooLarge:
		return usererr.New(err, "The batch of records at offset %d of partition %d of topic %s unpacks to more than %d MiB, so it is not read.",
			tooLarge.Offset, p.number, p.topic.name, maxBatch>>20)
	default:
		return usererr.New(err, "Partition %d of topic %s cannot be read from offset %d: %s", p.number, p.topic.name, p.Next, advice(err))
	}
	return nil
}

// drain captures what was fetched, until the transaction is full.
func (r *reader) drain(ctx context.Context, tx *capture.Tx) error {
	for i := range r.fetched {
		f := &r.fetched[i]
		if f.partition.topic.partitions[f.partition.number] != f.partition {
			f.records = nil // of a topic that is no longer there, or read anew
		}
		for n, rec := range f.records {
			if tx.Size() >= fullTransaction {
				f.records = f.records[n:]
				r.fetched = r.fetched[i:]
				return nil
			}
			if err := r.capture(ctx, tx, f.partition, rec); err != nil {
				return err
			}
		}
		*f = fetched{}
	}
	r.fetched = r.fetched[:0]
	return nil
}

// capture captures one record.
func (r *reader) capture(ctx context.Context, tx *capture.Tx, p *partition, rec *kgo.Record) error {
	if rec.Offset < p.Next {
		return nil // was captured already
	}
	if rec.Attrs.IsControl() {
		// The end of a transaction is no record, but has an offset: a position that stayed before it would look as if
		// something had been lost once retention took it away.
		tx.Save(p.topic.binding)
		p.Next, p.Epoch = rec.Offset+1, rec.LeaderEpoch
		r.captured++
		return nil
	}
	r.rec, r.in = rec, p.topic
	if err := tx.Append(p.topic.binding, r.encode); err != nil {
		if err = r.bad(ctx, tx, p, rec, err); err != nil {
			return err
		}
	}
	news, err := p.topic.documents.announcement()
	if err != nil {
		return err
	}
	if news != nil {
		tx.Schema(p.topic.binding, news)
	}
	p.Next, p.Epoch = rec.Offset+1, rec.LeaderEpoch
	p.records++
	r.captured++
	return nil
}

// bad carries the user's policy out for a record that cannot be captured as it is.
func (r *reader) bad(ctx context.Context, tx *capture.Tx, p *partition, rec *kgo.Record, err error) error {
	bad, ok := errors.AsType[*codec.BadMessage](err)
	if errors.Is(err, capture.ErrTooLarge) {
		bad, ok = &codec.BadMessage{Topic: p.topic.name, Side: codec.Value, Reason: fmt.Sprintf("its document would have more than %d MiB", capture.MaxDocument>>20)}, true
	}
	if !ok {
		return err
	}
	where := fmt.Sprintf("The record at offset %d of partition %d of topic %s", rec.Offset, rec.Partition, p.topic.name)
	if r.cfg.OnBadMessage == badDeadletter {
		errDead := tx.Append(p.topic.binding, func(dst []byte) ([]byte, error) { return p.topic.documents.deadletter(ctx, dst, rec, bad) })
		if errDead != nil {
			return deadletterError(where, bad, err, errDead)
		}
	}
	if r.cfg.OnBadMessage != badDeadletter && r.cfg.OnBadMessage != badSkip {
		return usererr.New(err, "%s cannot be captured: its %s is bad: %s. Set onBadMessage to deadletter to capture its bytes, or to skip to leave it out.", where, bad.Side, bad.Reason)
	}
	tx.Save(p.topic.binding)
	if p.topic.bad++; p.topic.bad <= maxBadLogged {
		r.env.Log.WithFields(logrus.Fields{
			"topic": p.topic.name, "partition": rec.Partition, "offset": rec.Offset, "side": bad.Side.String(), "policy": r.cfg.OnBadMessage,
		}).Warn("a record could not be decoded: " + bad.Reason)
	}
	return nil
}

// deadletterError says why a record can be captured neither as it is nor as a dead letter.
func deadletterError(where string, bad *codec.BadMessage, err, errDead error) error {
	_, isBad := errors.AsType[*codec.BadMessage](errDead)
	switch {
	case errors.Is(errDead, capture.ErrTooLarge):
		return usererr.New(errors.Join(err, errDead), "%s cannot be captured: %s is bad: %s. Nor can it be captured as a dead letter, which holds its bytes in base64 and would be too large as well. "+
			"Set onBadMessage to skip to leave it out.", where, bad.Side, bad.Reason)
	case isBad:
		return usererr.New(errors.Join(err, errDead), "%s cannot be captured: %s is bad: %s. Nor can it be captured as a dead letter, for the collection's key cannot be had. "+
			"Set onBadMessage to skip to leave it out, or the collection's key to /_meta/partition and /_meta/offset.", where, bad.Side, bad.Reason)
	}
	return errDead // of the output, or of a registry that does not answer
}

// soon has the cluster asked for topics at once, unless that has just been done.
func (r *reader) soon() {
	if at := r.lastLookUp.Add(lookUpPause); at.Before(r.nextLookUp) {
		r.nextLookUp = at
	}
}

// keep does what is to be done now and then.
func (r *reader) keep(ctx context.Context, now time.Time) error {
	if !now.Before(r.nextLookUp) {
		every := duration(r.cfg.Advanced.MetadataEvery, defaultMetadataEvery)
		for _, t := range r.topics {
			if len(t.waiting) > 0 || t.gone {
				every = min(every, time.Second)
			}
		}
		r.nextLookUp = now.Add(every)
		r.lastLookUp = now
		ask, cancel := context.WithTimeout(ctx, lookUpTimeout)
		changed, err := r.lookUp(ask, r.topics)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !transient(err):
			return unreachable(err, r.cfg, r.pulse)
		case err != nil:
			r.env.Log.WithError(err).Info("the cluster does not say which partitions it has; asking again")
			r.nextLookUp = now.Add(min(every, 5*time.Second))
		}
		r.changed = append(r.changed, changed...)
	}
	if err := r.resetGoal(ctx, now); err != nil && !transient(err) {
		return unreachable(err, r.cfg, r.pulse)
	}
	if !now.Before(r.nextStatus) {
		every := duration(r.cfg.Advanced.StatusEvery, defaultStatusEvery)
		r.nextStatus = now.Add(every)
		r.status.ask(ctx, r.admin, r.topics)
		r.pulse.warn(r.env.Log, now.Add(-every))
	}
	r.status.tell(r.env.Log, r.topics)
	return nil
}

// lookUpTimeout bounds a question for topics. Records are not captured meanwhile.
const lookUpTimeout = 10 * time.Second

// lookUpPause is the least time between two.
const lookUpPause = 300 * time.Millisecond
