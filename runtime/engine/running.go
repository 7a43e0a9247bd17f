package engine

import (
	"sync"

	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/wal"
)

// running are the materializations that this process runs, or is about to, by their names: for who wants to know how far their destinations are. It is safe for
// use by many goroutines.
type running struct {
	log wal.Log

	mu    sync.Mutex
	units map[string]map[int]*materialize.Task // by index of the shard; nil before it runs
}

// newRunning expects units to run, of whose destinations nothing is known until they do.
func newRunning(log wal.Log, expected []*unit) *running {
	r := &running{log: log, units: map[string]map[int]*materialize.Task{}}
	for _, u := range expected {
		if u.materialization != nil {
			r.set(u, nil)
		}
	}
	return r
}

// set notes the task of a unit; nil when it does not run any more.
func (r *running) set(u *unit, t *materialize.Task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.units[u.name()] == nil {
		r.units[u.name()] = map[int]*materialize.Task{}
	}
	r.units[u.name()][u.shard.Index] = t
}

// confirmed is how far the destination of a reader has committed for certain, as far as anybody who runs can tell: zero if that is not known yet.
func (r *running) confirmed(reader *materialize.Reader) int64 {
	r.mu.Lock()
	shards := r.units[reader.Materialization]
	task, here := shards[0], len(shards) > 0
	if len(shards) > 1 {
		task = shards[r.log.Share(reader.Journal, len(shards))]
	}
	r.mu.Unlock()
	switch {
	case !here:
		return reader.Offset
	case task == nil:
		return 0
	}
	return task.Confirmed(reader)
}
