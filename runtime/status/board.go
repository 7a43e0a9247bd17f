// Package status keeps what people want to know of a running pipeline, and shows it: as a live table, as log lines, as
// a file for `sluice status`, and as metrics.
package status

import (
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what a task is.
type Kind string

// The kinds of tasks.
const (
	Capture         Kind = "capture"
	Materialization Kind = "materialization"
)

// State is what a task is doing.
type State string

// The states of a task.
const (
	Starting State = "starting"
	Running  State = "running"
	Waiting  State = "waiting" // for its next start, after a clean end
	Failing  State = "failing" // waiting for its next start, after a failure
	Stopped  State = "stopped"
)

// Phases of a binding.
const (
	Backfill  = "backfill"
	Streaming = "streaming"
)

// Board has the tasks of a pipeline. All methods are safe for use by many goroutines.
type Board struct {
	mu    sync.Mutex
	tasks []*Task
	held  map[string]int64 // see Held
	share bool             // see Share
	now   func() time.Time
}

// Held says how many bytes the log keeps beyond its retention for materializations, by their names. The map is the board's.
func (b *Board) Held(bytes map[string]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = bytes
}

// NewBoard makes an empty board.
func NewBoard() *Board { return &Board{now: time.Now} }

// Task adds a task.
func (b *Board) Task(kind Kind, name string) *Task {
	t := &Task{kind: kind, name: name, state: Starting, since: b.now(), now: b.now}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tasks = append(b.tasks, t)
	sort.SliceStable(b.tasks, func(i, j int) bool {
		x, y := b.tasks[i], b.tasks[j]
		return x.kind < y.kind || x.kind == y.kind && x.name < y.name
	})
	return t
}

// Remove takes a task off the board, which another process runs now.
func (b *Board) Remove(t *Task) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tasks = slices.DeleteFunc(b.tasks, func(other *Task) bool { return other == t })
}

// Share says that this process shares the pipeline with others, so that it may well have no task.
func (b *Board) Share() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.share = true
}

// Shared tells whether Share was called.
func (b *Board) Shared() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.share
}

// Task is one capture or materialization.
type Task struct {
	kind        Kind
	name        string
	now         func() time.Time
	checkpoints atomic.Uint64
	restarts    atomic.Uint64

	mu       sync.Mutex
	state    State
	since    time.Time
	problem  string // the last words of a connector that failed, until it works again
	failures int    // in a row
	bindings []*Binding
	source   *Source // nil until the connector says something
}

// Binding is one stream of a task. Its counters count from the start of the process.
type Binding struct {
	name, collection string
	documents, bytes atomic.Uint64
	lagBytes         atomic.Int64
	behind           atomic.Int64 // Unix milliseconds of the oldest document that waits, or of the newest captured; 0 is nothing
	live             atomic.Bool  // lag is the age of behind; else there is none
	phase            atomic.Pointer[string]
	percent          atomic.Uint64 // of its backfill, in hundredths, plus one; 0 is unknown
}

// Binding returns the task's binding of a name, adding it if it is new.
func (t *Task) Binding(name, collection string) *Binding {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range t.bindings {
		if b.name == name && b.collection == collection {
			return b
		}
	}
	b := &Binding{name: name, collection: collection}
	t.bindings = append(t.bindings, b)
	return b
}

// Set says what the task is doing.
func (t *Task) Set(s State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state, t.since = s, t.now()
}

// Fail says that the task failed and why, in words for people. It stays visible until the task has worked again.
func (t *Task) Fail(problem string) {
	t.restarts.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state, t.since, t.problem = Failing, t.now(), problem
	t.failures++
}

// Checkpoint counts committed checkpoints (captures) or transactions (materializations). A task that commits works
// again: its last problem is forgotten.
func (t *Task) Checkpoint(n int) {
	t.checkpoints.Add(uint64(n))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.problem, t.failures = "", 0
}

// Checkpoints is how many were counted.
func (t *Task) Checkpoints() uint64 { return t.checkpoints.Load() }

// Count adds documents that were committed.
func (b *Binding) Count(documents, bytes int) {
	b.documents.Add(uint64(documents))
	b.bytes.Add(uint64(bytes))
}

// Phase says what the binding is at; "" is unknown.
func (b *Binding) Phase(phase string) { b.phase.Store(&phase) }

// Progress says how much of the backfill is done: rows, of how many that are expected.
func (b *Binding) Progress(rows, of float64) {
	if of > 0 {
		b.percent.Store(uint64(1 + 10_000*min(max(rows, 0)/of, 1)))
	}
}

// Behind says since when the oldest document has been waiting; the zero time means that none is.
func (b *Binding) Behind(since time.Time) {
	if since.IsZero() {
		b.live.Store(false)
		return
	}
	b.behind.Store(since.UnixMilli())
	b.live.Store(true)
}

// Delay says how old a document was when it arrived.
func (b *Binding) Delay(d time.Duration) {
	b.live.Store(false)
	b.behind.Store(-max(d, 0).Milliseconds())
}

// Backlog says how many bytes wait.
func (b *Binding) Backlog(bytes int64) { b.lagBytes.Store(bytes) }

// Named tells whether this is the binding of a resource, whatever is between the parts of its name.
func (b *Binding) Named(name string) bool {
	return b.name == name || strings.ReplaceAll(b.name, "/", ".") == strings.ReplaceAll(name, "/", ".")
}
