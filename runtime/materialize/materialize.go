// Package materialize drives materialization connectors: it reads collections from the log, reduces their documents
// by key, and takes the connector through the protocol's transactions, so that every document counts exactly once.
package materialize

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sirupsen/logrus"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/shard"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Task is one materialization of a pipeline. Its fields are set before Run; Run is called by one goroutine.
type Task struct {
	Def         *pipeline.Materialization
	Shard       shard.Shard
	Pipeline    string // its fingerprint; "" if nobody shares it, in a data folder
	Launcher    *host.Launcher
	Log         wal.Log
	Store       wal.Store
	Collections *collection.Registry
	Status      *status.Task
	Logger      *logrus.Entry
	Timeouts    Timeouts
	// MaxTransactionBytes bounds the documents of one transaction, of which two are in memory; zero is 16 MiB. A single block of the log may exceed it.
	// Where all bindings are delta updates nothing is kept in memory, and a transaction may have 64 times as much, which
	// bounds what is repeated after a crash.
	MaxTransactionBytes int
	// Fence locks out what may still run of a shard of the task, named by its suffix; nil if nothing can.
	Fence func(ctx context.Context, suffix string) error
	// Compacted are the collections of which the log keeps only the last document of each key.
	Compacted []string

	needs     map[string]uint32                // versions of collections without which the next session could read nothing
	confirmed atomic.Pointer[map[string]int64] // what the destination is known to have of each source; nil before it was asked
}

// Confirmed is how far the destination has committed a journal for certain: not what is on its way to a destination that keeps positions
// itself, since that is read again if it does not get there. Zero before the destination was asked. It may be called
// by any goroutine while the task runs.
func (t *Task) Confirmed(r *Reader) int64 {
	has := t.confirmed.Load()
	if has == nil {
		return 0
	}
	if offset, ok := (*has)[sourceName(r.Journal, r.StateKey)]; ok {
		return min(offset, r.Offset)
	}
	return r.Offset
}

// streamedFactor is how many times larger transactions are that are not kept in memory.
const streamedFactor = 64

// Timeouts bound how long a connector may take.
type Timeouts struct {
	Answer time.Duration // to a single request, and to open; zero is 5 minutes
	Stop   time.Duration // to finish its transaction and end when the task stops; zero is 30 seconds
	Remind time.Duration // how often a wait inside a transaction is logged; zero is 1 minute
	// Settle is how old a session is at least when the next one is opened with a newer schema; zero is 3 seconds.
	Settle time.Duration
}

func (t Timeouts) withDefaults() Timeouts {
	if t.Answer == 0 {
		t.Answer = host.DefaultAnswer
	}
	if t.Stop == 0 {
		t.Stop = 30 * time.Second
	}
	if t.Remind == 0 {
		t.Remind = time.Minute
	}
	if t.Settle == 0 {
		t.Settle = 3 * time.Second
	}
	return t
}

// errEvolved ends a session whose collections have a newer schema: the next one begins with it.
var errEvolved = errors.New("a collection's schema changed")

// Run lives one life of the materialization, which has a new session for each new shape of its collections. It returns
// the context's error when it was told to stop and has finished its transaction. Other errors are for people.
func (t *Task) Run(ctx context.Context) error {
	t.Timeouts = t.Timeouts.withDefaults()
	if t.MaxTransactionBytes == 0 {
		t.MaxTransactionBytes = 16 << 20
	}
	t.Status.Set(status.Starting)
	for {
		opened, head := time.Now(), t.head()
		err := t.session(ctx)
		if !errors.Is(err, errEvolved) {
			return err
		}
		if err := t.settle(ctx, opened.Add(t.Timeouts.Settle), head+int64(t.MaxTransactionBytes)); err != nil {
			return err
		}
		t.Logger.Info("opening again with the new schema")
	}
}

// settle waits until a time, or until the log is as long as a full transaction would make it. Members that nobody announces come one
// after another in documents that differ; a session for each would do nothing but open. A schema that changes after a while of
// calm is followed at once.
func (t *Task) settle(ctx context.Context, until time.Time, full int64) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		changed := t.Log.Changed()
		if t.head() >= full {
			return nil
		}
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// head is how long the journals are together that are read, in bytes.
func (t *Task) head() int64 {
	var sum int64
	counted := map[string]bool{}
	for _, b := range t.Def.Bindings {
		if counted[b.Source] {
			continue
		}
		counted[b.Source] = true
		for _, h := range t.heads(b.Source) {
			sum += t.Log.Behind(h.Journal, 0)
		}
	}
	return sum
}

// heads are those of the journals of a collection that are this shard's.
func (t *Task) heads(collection string) []wal.Head {
	heads := t.Log.Heads(collection)
	if t.Shard.Whole() {
		return heads
	}
	return slices.DeleteFunc(heads, func(h wal.Head) bool { return t.Log.Share(h.Journal, t.Shard.Count) != t.Shard.Index })
}

func (t *Task) session(ctx context.Context) error {
	p, err := t.specify(ctx)
	if err != nil {
		return err
	}
	s, err := t.open(ctx, p)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// versions are the newest ones of the bindings' collections.
func (t *Task) versions() ([]*collection.Version, error) {
	versions := make([]*collection.Version, len(t.Def.Bindings))
	for i, b := range t.Def.Bindings {
		var err error
		if versions[i], err = t.Collections.Current(b.Source); err != nil {
			return nil, err
		}
	}
	return versions, nil
}

// recordPrefix is what the names of records of materializations begin with.
const recordPrefix = "materialization/"

func record(task, what string) string { return recordPrefix + task + "/" + what }

func (t *Task) record(what string) string { return record(t.Def.Name, what) }

// own is the name of a record that each shard has.
func (t *Task) own(what string) string { return t.record(what + t.Shard.Suffix()) }

func (t *Task) state() ([]byte, error) { return t.stateOf(t.Shard) }

func (t *Task) stateOf(s shard.Shard) ([]byte, error) {
	state, err := t.Store.Get(t.record("state" + s.Suffix()))
	if err == nil && state == nil {
		state = []byte("{}")
	}
	return state, err
}

// host is the connector as it is run for this task.
func (t *Task) host() *host.Materialization {
	return &host.Materialization{Connector: host.Connector{
		Endpoint: t.Def.Endpoint, Task: t.Def.Name, Part: t.Shard.Suffix(), Launcher: t.Launcher, Log: t.Logger, Answer: t.Timeouts.Answer,
	}}
}

func bindingError(t *Task, i int, err error) error {
	b := t.Def.Bindings[i]
	return usererr.New(err, "%s: the materialization %s of the collection %s cannot run: %s", b.At, t.Def.Name, b.Source, usererr.Message(err))
}

// validate asks the connector what it can do with each field, and builds the specification from its answer.
func (t *Task) validate(ctx context.Context, versions []*collection.Version) (*flowpb.MaterializationSpec, error) {
	last, lastVersion, err := t.lastSpec()
	if err != nil {
		return nil, err
	}
	request := &materializepb.Request_Validate{LastMaterialization: last, LastVersion: lastVersion}
	for i, b := range t.Def.Bindings {
		keys, err := host.KeyFields(versions[i].Spec, &b.Fields, nil)
		if err != nil {
			return nil, bindingError(t, i, err)
		}
		fields := map[string][]byte{}
		for field, config := range b.Fields.Require {
			fields[field] = config
		}
		request.Bindings = append(request.Bindings, &materializepb.Request_Validate_Binding{
			ResourceConfigJson: b.Resource, Collection: versions[i].Spec, FieldConfigJsonMap: fields, Backfill: b.Backfill, GroupBy: keys,
		})
	}
	spec, err := t.host().Specify(ctx, request, func(i int, answer *materializepb.Response_Validated_Binding, last *flowpb.FieldSelection) (*flowpb.FieldSelection, error) {
		selection, err := host.SelectFields(versions[i].Spec, &t.Def.Bindings[i].Fields, answer, last)
		if err != nil {
			return nil, bindingError(t, i, err)
		}
		return selection, nil
	})
	if same, ok := errors.AsType[*host.SameResourceError](err); ok {
		return nil, bindingError(t, same.Binding, err)
	}
	if err != nil {
		return nil, err
	}
	for i, b := range t.Def.Bindings {
		spec.Bindings[i].Priority = b.Priority
	}
	return spec, nil
}

// lastSpec is the specification that was applied last. Its configuration is not kept, since it may hold secrets: the
// present one stands in for it.
func (t *Task) lastSpec() (*flowpb.MaterializationSpec, string, error) {
	stored, err := t.Store.Get(t.record("spec"))
	if err != nil || stored == nil {
		return nil, "", err
	}
	last := &flowpb.MaterializationSpec{}
	if err := proto.Unmarshal(stored, last); err != nil {
		return nil, "", fmt.Errorf("reading the stored specification of %s: %w", t.Def.Name, err)
	}
	version, err := specs.Version(last)
	if err != nil {
		return nil, "", err
	}
	if last.ConfigJson, err = specs.Sealed(&t.Def.Endpoint); err != nil {
		return nil, "", err
	}
	return last, version, nil
}
