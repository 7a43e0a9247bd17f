package materialize

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Beginning is where new bindings begin to read the log, instead of with its oldest documents.
type Beginning struct {
	// Materialization is the one that it is for; "" is every one that is new.
	Materialization string
	// Time is that of a commit: they begin with what was committed then or later.
	Time time.Time
	// Checkpoint, if not "", is a materialization of the same collections: they begin where that has got to, instead of at a time.
	Checkpoint string
}

// beginning is a [Beginning] whose places are known, as the record that holds until the first commit, which has them as positions.
type beginning struct {
	Says   string           `json:"says"`
	Places map[string]int64 `json:"places"` // by journal
	Noted  time.Time        `json:"noted"`  // tells it from others
}

// timed is a log whose places can be found by time.
type timed interface {
	readable
	At(j wal.Journal, t time.Time) (int64, error)
}

// Begin notes in the log where new bindings of the pipeline's materializations begin. It is called before any of them runs. Nothing is
// noted if it has an error, which is for people.
func Begin(ctx context.Context, log timed, defs []*pipeline.Materialization, at Beginning) error {
	changes := wal.Records{}
	var refused []error
	for _, def := range defs {
		if at.Materialization != "" && def.Name != at.Materialization {
			continue
		}
		isNew, err := hasNew(log, def)
		if err != nil {
			return err
		}
		if !isNew {
			refused = append(refused, usererr.New(nil, "the materialization %s has begun already, so --from has no meaning for it: leave it out, and it goes on where it was. "+
				"To fill its tables anew from then on, raise the backfill counters of its bindings and give --from once more", def.Name))
			continue
		}
		places, err := at.places(log, def)
		if err != nil {
			return err
		}
		if changes[record(def.Name, "from")], err = json.Marshal(beginning{at.says(), places, time.Now()}); err != nil {
			return fmt.Errorf("encoding where %s begins: %w", def.Name, err)
		}
	}
	switch {
	case len(changes) == 0 && len(refused) == 0:
		return usererr.New(nil, "--from is for a materialization, and the pipeline has none called %q", at.Materialization)
	case len(changes) == 0:
		return usererr.Join("--from cannot be used:", refused)
	}
	return log.Put(ctx, changes)
}

// hasNew tells whether a materialization has a binding that has committed nothing yet: one that is new, or whose backfill counter was raised.
func hasNew(log readable, def *pipeline.Materialization) (bool, error) {
	last, committed, err := stored(log, def.Name)
	if err != nil || len(committed.Sources) == 0 {
		return true, err
	}
	return slices.ContainsFunc(def.Bindings, func(b pipeline.MaterializationBinding) bool { return isNew(last, &b) }), nil
}

// isNew tells whether a binding, or its backfill counter, is none of the last specification.
func isNew(last *flowpb.MaterializationSpec, b *pipeline.MaterializationBinding) bool {
	return !slices.ContainsFunc(slices.Concat(last.GetBindings(), last.GetInactiveBindings()), func(old *flowpb.MaterializationSpec_Binding) bool {
		return old.Collection.GetName() == b.Source && string(old.ResourceConfigJson) == string(b.Resource) && old.Backfill >= b.Backfill
	})
}

func (at *Beginning) says() string {
	if at.Checkpoint != "" {
		return "where " + at.Checkpoint + " has got to"
	}
	return "with what was committed at " + at.Time.Format(time.RFC3339Nano) + " or later"
}

// places finds the beginning in every journal that a materialization reads.
func (at *Beginning) places(log timed, def *pipeline.Materialization) (map[string]int64, error) {
	if at.Checkpoint != "" {
		return at.placesOf(log, def)
	}
	places := map[string]int64{}
	for _, j := range log.Journals() {
		if !reads(def, j.Collection) {
			continue
		}
		var err error
		if places[j.String()], err = log.At(j, at.Time); err != nil {
			return nil, err
		}
	}
	return places, nil
}

func reads(def *pipeline.Materialization, collection string) bool {
	return slices.ContainsFunc(def.Bindings, func(b pipeline.MaterializationBinding) bool { return b.Source == collection })
}

// placesOf are those that another materialization has committed: of several bindings of a collection, the one that is furthest behind.
func (at *Beginning) placesOf(log timed, def *pipeline.Materialization) (map[string]int64, error) {
	readers, err := Readers(log, nil)
	if err != nil {
		return nil, err
	}
	places := map[string]int64{}
	for _, r := range readers {
		name := r.Journal.String()
		if r.Materialization != at.Checkpoint {
			continue
		}
		if other, ok := places[name]; !ok || r.Offset < other {
			places[name] = r.Offset
		}
	}
	for _, j := range log.Journals() {
		if _, ok := places[j.String()]; !ok && reads(def, j.Collection) {
			return nil, usererr.New(nil, "the materialization %s cannot begin where %s has got to, since that does not read the collection %s (sluice log stats shows who reads what)",
				def.Name, at.Checkpoint, j.Collection)
		}
	}
	return places, nil
}

// beginning reads what Begin noted; nil if it noted nothing, or this shard has used that.
func (t *Task) beginning() (*beginning, error) {
	b, err := noted(t.Store, t.Def.Name)
	if err != nil || b == nil || t.Shard.Whole() {
		return b, err
	}
	used, err := t.Store.Get(t.own("from"))
	if err != nil || string(used) == b.Noted.Format(time.RFC3339Nano) {
		return nil, err
	}
	return b, nil
}

// used adds to the records of a commit that has the beginning as its positions that it is of no account any more: for the shard, if others may not have used it yet.
func (b *beginning) used(t *Task, changes wal.Records) {
	if t.Shard.Whole() {
		changes[t.record("from")] = nil
		return
	}
	changes[t.own("from")] = []byte(b.Noted.Format(time.RFC3339Nano))
}

func noted(store wal.Store, task string) (*beginning, error) {
	stored, err := store.Get(record(task, "from"))
	if err != nil || stored == nil {
		return nil, err
	}
	b := &beginning{}
	if err := json.Unmarshal(stored, b); err != nil {
		return nil, fmt.Errorf("reading where %s begins: %w", task, err)
	}
	return b, nil
}

// start is where a binding begins to read a journal of which it has no position.
func (s *session) start(b *binding, h wal.Head) (int64, error) {
	mark, err := s.task.Store.Get(wal.BeginRecord(h.Journal))
	if err != nil {
		return 0, err
	}
	begin := wal.DecodeOffset(mark)
	if s.from != nil {
		begin = max(begin, s.from.Places[h.Journal.String()])
		log := s.task.Logger.WithFields(map[string]any{"collection": b.source, "begins": s.from.Says})
		if b.delta {
			log.Info("a new binding begins in the middle of the log")
		} else {
			log.Warn("a new binding begins in the middle of the log: it gets no rows that have not changed since, and of rows of which only a part has, no more than that part")
		}
	}
	if begin < h.Start {
		return 0, usererr.New(nil, "%s: the materialization %s cannot be filled from the log, which no longer has the beginning of the collection %s: it is longer ago than the pipeline's log.retention. "+
			"Raise the backfill counter of the capture's binding to read the source anew; or run once with --from, to have only what was committed since a time",
			s.task.at(b), s.task.Def.Name, b.source)
	}
	return begin, nil
}

// checkKept refuses a position of which the log has dropped what comes next.
func (s *session) checkKept(b *binding, h wal.Head, offset int64) error {
	if offset >= h.Start {
		return nil
	}
	return usererr.New(nil, "%s: the log has dropped %d %s of the collection %s which the materialization %s had not read: it was further behind than the pipeline's log.retention, which says unread: drop, or its destination was put back to an earlier state. "+
		"Raise the backfill counters of the capture's binding and of the materialization's, to fill it anew; or only that of the materialization's, and run once with --from",
		s.task.at(b), h.Start-offset, s.task.Log.Words().Unit, b.source, s.task.Def.Name)
}

func (t *Task) at(b *binding) string { return t.Def.Bindings[b.index].At }
