package kafkalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// owner is a task's producer. It implements wal.Store for the task; its methods may be called by any goroutine, but not while a
// Writer of the task is being used.
type owner struct {
	log      *Log
	task     string
	shared   bool // with other processes: whoever begins the producer last is the one that commits next
	onFenced func(error)
	told     sync.Once
	claimed  atomic.Bool // in the state topic

	mu     sync.Mutex
	client *kgo.Client // nil if the last one failed: it has to be begun anew
	txn    *txn        // that is open
	doubt  *int64      // the offset of a record of a transaction of which it is not known whether it was committed
}

// txn is an open transaction.
type txn struct {
	ctx    context.Context //nolint:containedctx // that of all its records, which outlives the calls that append them
	cancel context.CancelCauseFunc
	began  time.Time // by the log's clock: that of its records
	opened time.Time
	acked  atomic.Int64

	mu   sync.Mutex
	fail error // the first
}

func (t *txn) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fail
}

const bufferBytes = 16 << 20 // of records on their way, for each task

// begin makes a producer and has the cluster refuse the older one. Brokers that come and go are waited for until the log's patience is over.
func (o *owner) begin(ctx context.Context) error {
	for began := time.Now(); ; {
		err := o.beginOnce(ctx)
		if err == nil || ctx.Err() != nil || !passes(err) || time.Since(began) > o.log.o.Patience {
			return err
		}
		if err := retry.Sleep(ctx, 200*time.Millisecond); err != nil {
			return cause(ctx, err)
		}
	}
}

func (o *owner) beginOnce(ctx context.Context) error {
	l := o.log
	batch := l.batchBytes()
	client, err := newClient(l.o.Kafka, l.o.Log,
		kgo.TransactionalID(l.transactional(o.task)), kgo.TransactionTimeout(l.o.Kafka.TransactionTimeout), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(int32(batch)), kgo.BrokerMaxWriteBytes(int32(max(batch+1<<20, 100<<20))), kgo.BrokerMaxReadBytes(int32(max(batch+1<<20, 100<<20))),
		kgo.MaxBufferedBytes(int(max(bufferBytes, 2*batch))), kgo.MaxBufferedRecords(1<<18), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
	)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, l.o.Patience, errStalled)
	defer cancel()
	if _, _, err := client.ProducerID(limited); err != nil {
		client.Close()
		return l.explain(cause(limited, err), "taking over "+l.transactional(o.task), "")
	}
	o.client = client
	return nil
}

// claim writes that the task is this process', unless it shares it with who has claimed it. An older instance may have begun its producer anew in
// between, for the last time.
func (o *owner) claim(ctx context.Context) error {
	claim, err := json.Marshal(o.log.instance)
	if err != nil {
		return fmt.Errorf("encoding a claim: %w", err)
	}
	err = o.update(ctx, func() (map[string][]byte, error) {
		if by := o.log.claimant(o.task); o.accepts(by) {
			return nil, nil
		}
		return map[string][]byte{claimKey + o.task: claim}, nil
	})
	o.claimed.Store(err == nil)
	return err
}

// update commits what change makes of the records, once. change is called again if another process has committed others meanwhile: whatever that was
// is known then, since the producer was begun before it is looked, and only the one that was begun last can commit.
func (o *owner) update(ctx context.Context, change func() (map[string][]byte, error)) (err error) {
	for try := range 20 {
		if err = o.once(ctx, change); !isFence(err) && !isUnsaid(err) || errors.Is(err, wal.ErrFenced) {
			return err
		}
		if err := retry.Sleep(ctx, time.Duration(rand.Int64N(int64(try+1)*int64(10*time.Millisecond)))); err != nil { //nolint:gosec // no secret
			return err
		}
		if committed, err := o.committed(ctx); committed || err != nil {
			return err
		}
	}
	return err
}

// committed tells whether the last transaction was committed although its end was answered with an error. Such an answer may be to a request that was sent twice, or have
// no reason at all. Beginning anew decides it.
func (o *owner) committed(ctx context.Context) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.doubt == nil {
		return false, nil
	}
	if err := o.ready(ctx); err != nil {
		return false, err
	}
	l, offset := o.log, *o.doubt
	o.doubt = nil
	records, _, err := l.fetchAll(ctx, l.client, place{l.stateName(), l.state.id, 0}, offset, 1, 0)
	return len(records) > 0 && records[0].offset == offset, err
}

func (o *owner) once(ctx context.Context, change func() (map[string][]byte, error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.doubt = nil // what has become of another transaction says nothing of this one
	if err := o.ready(ctx); err != nil {
		return err
	}
	if err := o.abort(); err != nil {
		return err
	}
	records, err := change()
	if err != nil || len(records) == 0 {
		return err
	}
	if err := o.commit(records); err != nil {
		return err
	}
	o.log.announce()
	return nil
}

// ready begins the producer anew if it has failed, knows what was committed until then, and sees whether the task is still ours. The lock must be held.
func (o *owner) ready(ctx context.Context) error {
	if o.client != nil {
		return nil
	}
	if err := o.mine(); err != nil {
		return err
	}
	if err := o.begin(ctx); err != nil {
		return err
	}
	err := o.log.catchUp(ctx)
	if err == nil {
		err = o.mine()
	}
	if err != nil {
		o.drop()
	}
	return err
}

// drop gives the producer up. The lock must be held.
func (o *owner) drop() {
	if o.txn != nil {
		o.txn.cancel(context.Canceled)
		o.txn = nil
	}
	if o.client != nil {
		o.client.Close()
		o.client = nil
	}
}

// Get implements wal.Store. What was committed is known, also if it was not known whether it would be.
func (o *owner) Get(name string) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.ready(o.log.ctx); err != nil {
		return nil, err
	}
	return o.log.Get(name)
}

// Put implements wal.Store.
func (o *owner) Put(ctx context.Context, changes wal.Records) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return o.once(ctx, func() (map[string][]byte, error) { return prefixed(changes), nil })
}

// prefixed are records as the state topic has them.
func prefixed(changes wal.Records) map[string][]byte {
	all := make(map[string][]byte, len(changes))
	for name, value := range changes {
		all[recordKey+name] = value
	}
	return all
}

// open begins a transaction unless there is one. The lock must be held.
func (o *owner) open() (*txn, error) {
	if o.txn != nil {
		return o.txn, o.txn.failed()
	}
	if o.client == nil {
		return nil, fmt.Errorf("writing for %s: its producer has failed", o.task)
	}
	if err := o.client.BeginTransaction(); err != nil {
		return nil, o.failed(err)
	}
	t := &txn{began: o.log.o.Now(), opened: time.Now()}
	t.ctx, t.cancel = context.WithCancelCause(o.log.ctx)
	o.txn = t
	return t, nil
}

// produce sends a record in the open transaction. It waits while too much is on its way. done is what [owner.promise] made.
func (o *owner) produce(t *txn, r *kgo.Record, done func(*kgo.Record, error)) {
	o.client.Produce(t.ctx, r, done)
}

// promise makes what is called with each record that has its place, or failed. placed, which may be nil, is told the former; the transaction
// notes the first of the latter.
func (o *owner) promise(t *txn, placed func(*kgo.Record)) func(*kgo.Record, error) {
	return func(r *kgo.Record, err error) {
		t.acked.Add(1)
		if err != nil {
			t.mu.Lock()
			if t.fail == nil {
				t.fail = cause(t.ctx, err)
				if !isFence(err) {
					t.fail = o.log.explain(t.fail, "writing the log", r.Topic)
				}
			}
			t.mu.Unlock()
			return
		}
		if placed != nil {
			placed(r)
		}
	}
}

// watched calls what waits for the cluster, and ends the wait when nothing at all has come back for the log's patience.
func (o *owner) watched(t *txn, wait func() error) error {
	patience := o.log.o.Patience
	last := t.acked.Load()
	var timer *time.Timer
	armed := make(chan struct{})
	timer = time.AfterFunc(patience, func() {
		<-armed
		if now := t.acked.Load(); now != last {
			last = now
			timer.Reset(patience)
			return
		}
		t.cancel(errStalled)
	})
	close(armed)
	defer timer.Stop()
	return wait()
}

// commit adds records of the state topic to the open transaction, and ends it. Afterwards they are known. The lock must be held.
func (o *owner) commit(records map[string][]byte) error {
	t, err := o.open()
	if err != nil {
		return o.failed(err)
	}
	var placed []*kgo.Record
	done := o.promise(t, nil)
	err = o.watched(t, func() error {
		for key, value := range records {
			r := o.log.record(key, value, t.began)
			placed = append(placed, r)
			o.produce(t, r, done)
		}
		if err := o.client.Flush(t.ctx); err != nil && t.failed() == nil {
			return cause(t.ctx, err)
		}
		if err := t.failed(); err != nil {
			return err
		}
		ending, cancel := context.WithTimeoutCause(t.ctx, o.log.o.Patience, errStalled)
		defer cancel()
		if len(placed) > 0 {
			o.doubt = &placed[0].Offset
		}
		if err := o.client.EndTransaction(ending, kgo.TryCommit); err != nil {
			return cause(ending, err)
		}
		o.doubt = nil
		return nil
	})
	if err != nil {
		return o.failed(err)
	}
	t.cancel(context.Canceled)
	o.txn = nil
	for _, r := range placed {
		o.log.state.set(string(r.Key), r.Value, r.Offset)
	}
	return nil
}

// abort ends a transaction that is open, without what it has. The lock must be held.
func (o *owner) abort() error {
	t := o.txn
	if t == nil {
		return nil
	}
	err := t.failed()
	if err == nil {
		err = o.watched(t, func() error {
			ending, cancel := context.WithTimeoutCause(t.ctx, o.log.o.Patience, errStalled)
			defer cancel()
			if err := o.client.AbortBufferedRecords(ending); err != nil {
				return cause(ending, err)
			}
			return cause(ending, o.client.EndTransaction(ending, kgo.TryAbort))
		})
	}
	t.cancel(context.Canceled)
	o.txn = nil
	if err == nil {
		return nil
	}
	// It is over as soon as the producer is begun anew, and until then it stays unseen.
	o.drop()
	return o.ready(o.log.ctx)
}

// failed gives up the producer after an error, which it puts in words: another instance, or a transaction that took too long. The lock must be held.
func (o *owner) failed(err error) error {
	l := o.log
	var age time.Duration
	if o.txn != nil {
		age = time.Since(o.txn.opened)
	}
	o.drop()
	if l.ctx.Err() != nil {
		return context.Canceled
	}
	if !isFence(err) {
		return l.explain(err, "committing for "+o.task, "")
	}
	ctx, cancel := context.WithTimeoutCause(l.ctx, l.o.Patience, errStalled)
	defer cancel()
	if readErr := l.catchUp(ctx); readErr != nil {
		return errors.Join(err, readErr)
	}
	if fenced := o.mine(); fenced != nil {
		return fenced
	}
	limit := l.o.Kafka.TransactionTimeout
	if age >= limit-limit/10 {
		return usererr.New(err, "the cluster %s has given up a transaction of %s, which took %v and longer than it may (%v): raise transactionTimeout of the log, and transaction.max.timeout.ms of the brokers if it is lower. What the source sent is read again",
			l.o.Kafka, o.task, age.Round(time.Second), limit)
	}
	return usererr.New(err, "the cluster %s has ended a transaction of %s, and does not say why: it is tried again", l.o.Kafka, o.task)
}

// isFence tells whether the cluster does not take a producer, or its transaction, for the present one.
func isFence(err error) bool {
	for _, one := range []error{
		kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.InvalidProducerIDMapping, kerr.InvalidTxnState, kerr.UnknownProducerID,
		kerr.OperationNotAttempted, kerr.TransactionAbortable, kerr.OutOfOrderSequenceNumber,
	} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// isUnsaid tells whether a broker has failed without a reason. Kafka does so now and then when one process ends a transaction while another one begins the same producer.
func isUnsaid(err error) bool { return errors.Is(err, kerr.UnknownServerError) }

// close ends what is open, as well as that can be done at once.
func (o *owner) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.client != nil && o.txn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if o.client.AbortBufferedRecords(ctx) == nil {
			_ = o.client.EndTransaction(ctx, kgo.TryAbort) // otherwise the next instance does
		}
	}
	o.drop()
}
