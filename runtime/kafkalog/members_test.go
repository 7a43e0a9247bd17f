package kafkalog

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// joined opens a log beside others.
func joined(t *testing.T, o Options) *Log {
	t.Helper()
	o.Joined, o.Pipeline = true, "same"
	l, err := Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// TestProcessesBeginTogether: several processes make the log's topics at the same time, and agree on where they begin. Then they change one
// record, each from what it is, and no change is lost.
func TestProcessesBeginTogether(t *testing.T) {
	t.Parallel()
	o := options(t)
	const processes, changes = 3, 15
	logs := make([]*Log, processes)
	var together sync.WaitGroup
	for i := range logs {
		together.Go(func() { logs[i] = joined(t, o) })
	}
	together.Wait()
	for _, l := range logs {
		require.Equal(t, []int64{0, 0, 0}, l.topics[things].Base)
		require.Equal(t, logs[0].topics[things].ID, l.topics[things].ID)
		together.Go(func() {
			for range changes {
				err := wal.Update(t.Context(), l, func() (wal.Records, error) {
					now, err := l.Get("count")
					n, _ := strconv.Atoi(string(now))
					return wal.Records{"count": []byte(strconv.Itoa(n + 1))}, err
				})
				require.NoError(t, err)
			}
		})
	}
	together.Wait()
	for i, l := range logs {
		know := func() string {
			n, err := l.Get("count")
			return fmt.Sprintf("process %d knows of %s changes, error %v", i, n, err)
		}
		want := fmt.Sprintf("process %d knows of %d changes, error %v", i, processes*changes, error(nil))
		deadline := time.After(time.Minute)
		for changed := l.Changed(); know() != want; changed = l.Changed() {
			select {
			case <-changed:
			case <-deadline:
				require.Equal(t, want, know())
			}
		}
	}
}

// TestDoubtIsOfOneTransaction: a change that another process has come before is made again, whatever became of a transaction before it.
func TestDoubtIsOfOneTransaction(t *testing.T) {
	t.Parallel()
	o := options(t)
	one, two := joined(t, o), joined(t, o)
	set := func(l *Log, value string) {
		t.Helper()
		require.NoError(t, l.Update(t.Context(), func() (wal.Records, error) { return wal.Records{"value": []byte(value)}, nil }))
	}
	set(one, "first")
	one.state.mu.Lock()
	first := one.state.entries[recordKey+"value"].offset
	one.state.mu.Unlock()
	set(two, "second") // one's producer is not the present one any more
	one.owner(pipelineTask).doubt = &first
	set(one, "third")
	value, err := one.Get("value")
	require.NoError(t, err)
	require.Equal(t, "third", string(value))
}

// TestTakenByAnotherProcess: the one that had a task cannot commit for it any more, is told so, and goes on with what else it has.
func TestTakenByAnotherProcess(t *testing.T) {
	t.Parallel()
	o := options(t)
	one, two := joined(t, o), joined(t, o)
	told := make(chan error, 1)
	_, err := one.Take(t.Context(), "capture/acme/source", func(err error) { told <- err })
	require.NoError(t, err)
	kept, err := one.Take(t.Context(), "materialization/acme/sink", func(err error) { t.Errorf("nobody has taken this: %v", err) })
	require.NoError(t, err)
	w, err := one.Writer("acme/source")
	require.NoError(t, err)
	require.NoError(t, w.Append(things, block(`{"id":1}`)))
	require.NoError(t, w.Commit(t.Context(), nil))
	require.NoError(t, w.Append(things, block(`{"id":"lost"}`)))

	_, err = two.Take(t.Context(), "capture/acme/source", nil)
	require.NoError(t, err)
	require.ErrorIs(t, w.Commit(t.Context(), nil), wal.ErrFenced)
	err = <-told
	require.Contains(t, usererr.Message(err), "another sluice run has taken capture/acme/source over on kafka://")
	one.Release("capture/acme/source")
	require.NoError(t, kept.Put(t.Context(), wal.Records{"mine": []byte("1")}))
	require.NoError(t, one.Put(t.Context(), wal.Records{"ours": []byte("1")}))

	w, err = two.Writer("acme/source")
	require.NoError(t, err)
	require.NoError(t, w.Append(things, block(`{"id":2}`)))
	require.NoError(t, w.Commit(t.Context(), nil))
	docs, _ := contents(t, two, 2)
	require.ElementsMatch(t, []string{`{"id":1}`, `{"id":2}`}, docs)
	docs, _ = contents(t, one, 2)
	require.ElementsMatch(t, []string{`{"id":1}`, `{"id":2}`}, docs, "as the other process sees it")

	_, err = one.Take(t.Context(), "capture/acme/source", nil)
	require.NoError(t, err, "it may come back")
}

// TestTransactionsOfTheDead: what a process has left open that was killed, of a shard that nobody has any more, keeps no process from opening the log.
func TestTransactionsOfTheDead(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Kafka.TransactionTimeout = 10 * time.Minute // the cluster would let it stand for so long
	dead, err := Open(t.Context(), o)
	require.NoError(t, err)
	_, err = dead.Take(t.Context(), "capture/acme/source;00000000-7fffffff", nil)
	require.NoError(t, err)
	w, err := dead.Writer("acme/source;00000000-7fffffff")
	require.NoError(t, err)
	require.NoError(t, w.Append(things, block(`{"id":1}`)))
	require.NoError(t, w.Commit(t.Context(), nil))
	// Both in a topic of documents and in that of the state something is left open.
	require.NoError(t, w.Append(things, block(`{"id":"lost"}`)))
	owner := dead.owner("capture/acme/source;00000000-7fffffff")
	owner.produce(owner.txn, dead.record("record/x", []byte("lost"), time.Now()), nil)
	require.NoError(t, owner.client.Flush(t.Context()))
	t.Cleanup(func() { require.NoError(t, dead.Close()) })

	soon, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	alone, err := Open(soon, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, alone.Close()) })
	docs, _ := contents(t, alone, 1)
	require.Equal(t, []string{`{"id":1}`}, docs)
	lost, err := alone.Get("x")
	require.NoError(t, err)
	require.Nil(t, lost)
}
