package status

import "time"

// Snapshot is the board at one moment, in the form of the status file and of `sluice status --json`.
type Snapshot struct {
	PID      int       `json:"pid"`
	Pipeline string    `json:"pipeline"`
	Started  time.Time `json:"started"`
	Updated  time.Time `json:"updated"`
	Ended    bool      `json:"ended,omitempty"`
	Tasks    []TaskRow `json:"tasks"`
	// Places say who runs what, of a pipeline that processes share; the tasks above are those of this one.
	Places []Place `json:"places,omitempty"`
}

// Place is where a task, or a shard of it, runs.
type Place struct {
	Task    string `json:"task"`
	Process string `json:"process,omitempty"` // "" if none does
}

// TaskRow is one task of a snapshot.
type TaskRow struct {
	Kind        Kind         `json:"kind"`
	Name        string       `json:"name"`
	State       State        `json:"state"`
	Since       time.Time    `json:"since"`
	Problem     string       `json:"problem,omitempty"`
	Failures    int          `json:"failures,omitempty"` // in a row
	Restarts    uint64       `json:"restarts"`
	Checkpoints uint64       `json:"checkpoints"`
	Source      *Source      `json:"source,omitempty"`
	Bindings    []BindingRow `json:"bindings"`
}

// BindingRow is one binding of a snapshot.
type BindingRow struct {
	Name       string  `json:"name"`
	Collection string  `json:"collection"`
	Phase      string  `json:"phase,omitempty"`
	Percent    float64 `json:"percent,omitempty"` // of the backfill, if known
	Documents  uint64  `json:"documents"`
	Bytes      uint64  `json:"bytes"`
	Rate       float64 `json:"documentsPerSecond"`
	LagSeconds float64 `json:"lagSeconds"`
	LagBytes   int64   `json:"lagBytes"`
}

// Snapshot looks at every task. Rates are zero: see Sampler.
func (b *Board) Snapshot() []TaskRow {
	b.mu.Lock()
	tasks := append([]*Task{}, b.tasks...)
	b.mu.Unlock()
	rows := make([]TaskRow, 0, len(tasks))
	for _, t := range tasks {
		rows = append(rows, t.row(b.now()))
	}
	return rows
}

func (t *Task) row(now time.Time) TaskRow {
	t.mu.Lock()
	defer t.mu.Unlock()
	row := TaskRow{
		Kind: t.kind, Name: t.name, State: t.state, Since: t.since, Problem: t.problem, Failures: t.failures,
		Restarts: t.restarts.Load(), Checkpoints: t.checkpoints.Load(), Source: t.source,
	}
	if t.state == Running && now.Sub(t.since) > time.Minute {
		row.Problem, row.Failures = "", 0 // it has nothing to commit, and is fine
	}
	for _, b := range t.bindings {
		row.Bindings = append(row.Bindings, b.row(now))
	}
	return row
}

func (b *Binding) row(now time.Time) BindingRow {
	row := BindingRow{
		Name: b.name, Collection: b.collection, Documents: b.documents.Load(), Bytes: b.bytes.Load(),
		LagBytes: b.lagBytes.Load(), LagSeconds: b.lag(now).Seconds(),
	}
	if phase := b.phase.Load(); phase != nil {
		row.Phase = *phase
	}
	if n := b.percent.Load(); n > 0 && row.Phase == Backfill {
		row.Percent = float64(n-1) / 100
	}
	return row
}

func (b *Binding) lag(now time.Time) time.Duration {
	behind := b.behind.Load()
	switch {
	case b.live.Load():
		return max(now.Sub(time.UnixMilli(behind)), 0)
	case behind < 0:
		return time.Duration(-behind) * time.Millisecond
	}
	return 0
}

// Sampler adds rates to snapshots, measured since its last one. It is for one goroutine.
type Sampler struct {
	board *Board
	last  map[string]uint64
	at    time.Time
}

// Sampler makes a sampler that starts to measure now.
func (b *Board) Sampler() *Sampler { return &Sampler{board: b, last: map[string]uint64{}, at: b.now()} }

// Sample takes a snapshot with rates.
func (s *Sampler) Sample() []TaskRow {
	rows := s.board.Snapshot()
	now := s.board.now()
	elapsed := now.Sub(s.at).Seconds()
	s.at = now
	for _, t := range rows {
		for i := range t.Bindings {
			b := &t.Bindings[i]
			key := string(t.Kind) + "\x00" + t.Name + "\x00" + b.Name + "\x00" + b.Collection
			if elapsed > 0 {
				b.Rate = float64(b.Documents-s.last[key]) / elapsed
			}
			s.last[key] = b.Documents
		}
	}
	return rows
}
