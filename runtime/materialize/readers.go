package materialize

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/shard"
	"github.com/sluicedata/sluice/runtime/wal"
)

// Reader is how far a materialization has read a journal, and committed what it read, into one of its resources.
type Reader struct {
	Materialization string
	StateKey        string // the resource and its backfill counter; "" before the destination was asked about it
	Journal         wal.Journal
	Offset          int64
}

// readable is what [Readers] needs of a log.
type readable interface {
	wal.Store
	Names(prefix string) ([]string, error)
	Journals() []wal.Journal
}

// Readers lists who reads the log: every binding that a materialization has, or has had and may have again, since its position is kept; also
// of materializations that the pipeline does not have, or not now. defs are those that it has: of those, bindings that have not run yet need
// all of their collections.
func Readers(log readable, defs []*pipeline.Materialization) ([]Reader, error) {
	names, err := log.Names(recordPrefix)
	if err != nil {
		return nil, err
	}
	l := &readerList{log: log, journals: map[string][]wal.Journal{}}
	for _, j := range log.Journals() {
		l.journals[j.Collection] = append(l.journals[j.Collection], j)
	}
	for _, name := range names {
		task, isSpec := strings.CutSuffix(strings.TrimPrefix(name, recordPrefix), "/spec")
		if !isSpec {
			continue
		}
		if err := l.add(task); err != nil {
			return nil, err
		}
	}
	for _, def := range defs {
		if err := l.addNew(def); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(l.readers, func(a, b Reader) int {
		return cmp.Or(a.Journal.Compare(b.Journal), strings.Compare(a.Materialization, b.Materialization), strings.Compare(a.StateKey, b.StateKey))
	})
	return l.readers, nil
}

type readerList struct {
	log      readable
	journals map[string][]wal.Journal // by collection
	readers  []Reader
}

// add lists the bindings of a materialization's last specification.
func (l *readerList) add(task string) error {
	spec, cp, err := stored(l.log, task)
	if err != nil {
		return err
	}
	for _, b := range append(spec.Bindings, spec.InactiveBindings...) {
		if err := l.addBinding(task, b.Collection.GetName(), b.StateKey, cp); err != nil {
			return err
		}
	}
	return nil
}

// addNew lists the bindings of a materialization that its last specification does not have, since it did not get to apply them yet.
func (l *readerList) addNew(def *pipeline.Materialization) error {
	last, _, err := stored(l.log, def.Name)
	if err != nil {
		return err
	}
	for i := range def.Bindings {
		if b := &def.Bindings[i]; isNew(last, b) {
			if err := l.addBinding(def.Name, b.Source, "", nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// stored are the specification and the checkpoint that are kept of a materialization; empty ones for none. Of shards it is what all of them have
// committed.
func stored(store wal.Store, task string) (*flowpb.MaterializationSpec, *flowpb.Checkpoint, error) {
	spec, all := &flowpb.MaterializationSpec{}, &flowpb.Checkpoint{}
	if err := read(store, task, "spec", spec); err != nil {
		return nil, nil, err
	}
	shards, err := shardsOf(store, task)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range shards {
		cp := &flowpb.Checkpoint{}
		if err := read(store, task, "checkpoint"+s.Suffix(), cp); err != nil {
			return nil, nil, err
		}
		join(all, cp)
	}
	return spec, all, nil
}

func read(store wal.Store, task, what string, message proto.Message) error {
	encoded, err := store.Get(record(task, what))
	if err == nil {
		err = proto.Unmarshal(encoded, message)
	}
	if err != nil {
		return fmt.Errorf("reading the stored %s of %s: %w", what, task, err)
	}
	return nil
}

// shardsOf are those into which a materialization was divided last.
func shardsOf(store wal.Store, task string) ([]shard.Shard, error) {
	d, err := shard.Load(store.Get, record(task, "division"))
	return shard.Of(d.Shards), err
}

// join adds the positions of one shard to those of others. Each journal is read by one of them, and the others carry an older position of it along.
func join(all, one *flowpb.Checkpoint) {
	if all.Sources == nil {
		all.Sources = map[string]*flowpb.Checkpoint_Source{}
	}
	for name, source := range one.GetSources() {
		if known := all.Sources[name]; known == nil || known.ReadThrough < source.ReadThrough {
			all.Sources[name] = source
		}
	}
}

func (l *readerList) addBinding(task, collection, stateKey string, cp *flowpb.Checkpoint) error {
	for _, j := range l.journals[collection] {
		r := Reader{Materialization: task, StateKey: stateKey, Journal: j}
		if source, began := cp.GetSources()[sourceName(j, stateKey)]; began {
			r.Offset = source.ReadThrough
		} else {
			begin, err := l.log.Get(wal.BeginRecord(j))
			if err != nil {
				return err
			}
			from, err := noted(l.log, task)
			if err != nil {
				return err
			}
			if r.Offset = wal.DecodeOffset(begin); from != nil {
				r.Offset = max(r.Offset, from.Places[j.String()])
			}
		}
		l.readers = append(l.readers, r)
	}
	return nil
}
