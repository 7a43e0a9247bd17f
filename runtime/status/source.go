package status

import "time"

// Source is what a capture's connector says of the system that it captures, and of how far it is behind. Pointers are nil
// if it does not say.
type Source struct {
	// At is when it said so.
	At time.Time `json:"at"`
	// Says is what it said, for people.
	Says string `json:"says,omitempty"`
	// Phase is opening, backfill, streaming, or waiting if the capture is stuck.
	Phase string `json:"phase,omitempty"`
	// WaitsFor is what it waits for; if it is stuck, the reason.
	WaitsFor string   `json:"waitsFor,omitempty"`
	Percent  *float64 `json:"percent,omitempty"` // of the backfills
	// LagBytes and LagSeconds are how far the capture is behind the end of the source's log.
	LagBytes   *int64   `json:"lagBytes,omitempty"`
	LagSeconds *float64 `json:"lagSeconds,omitempty"`
	// RetainedBytes is how much log the source keeps for the capture, ReserveBytes how much more until it gives that up.
	RetainedBytes *int64 `json:"retainedBytes,omitempty"`
	ReserveBytes  *int64 `json:"reserveBytes,omitempty"`
	// Oldest is the transaction that keeps the source from forgetting its log.
	Oldest        string   `json:"oldestTransaction,omitempty"`
	OldestSeconds *float64 `json:"oldestTransactionSeconds,omitempty"`
	// Processes are the source's processes that work for the capture, Positions where it is in the log.
	Processes string            `json:"processes,omitempty"`
	Positions map[string]string `json:"positions,omitempty"`
}

// stuck is Source.Phase of a capture that does not move.
const stuck = "waiting"

// positions are the names of positions in a status line, in the order of the way that a change takes.
var positions = []string{"logEnd", "sent", "received", "delivered", "checkpointed", "acknowledged", "confirmed"} //nolint:gochecknoglobals // a table

// ParseSource reads a connector's status line by docs/protocol.md.
func ParseSource(message string, fields map[string]any, at time.Time) Source {
	text := func(name string) string { s, _ := fields[name].(string); return s }
	number := func(name string) *float64 {
		if f, ok := fields[name].(float64); ok {
			return &f
		}
		return nil
	}
	whole := func(name string) *int64 {
		if f := number(name); f != nil {
			n := int64(*f)
			return &n
		}
		return nil
	}
	s := Source{
		At: at, Says: message, Phase: text("phase"), WaitsFor: text("waitsFor"), Percent: number("percent"),
		LagBytes: whole("lagBytes"), LagSeconds: number("lagSeconds"), RetainedBytes: whole("retainedBytes"), ReserveBytes: whole("reserveBytes"),
		Oldest: text("oldestTransaction"), OldestSeconds: number("oldestTransactionSeconds"), Processes: text("processes"),
	}
	for _, name := range positions {
		if at := text(name); at != "" {
			if s.Positions == nil {
				s.Positions = map[string]string{}
			}
			s.Positions[name] = at
		}
	}
	return s
}

// Report takes what a capture's connector says. All bindings read one log, so the lag is that of each.
func (t *Task) Report(s Source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.source = &s
	for _, b := range t.bindings {
		if s.LagBytes != nil {
			b.Backlog(*s.LagBytes)
		}
		if s.LagSeconds != nil {
			b.Delay(time.Duration(*s.LagSeconds * float64(time.Second)))
		}
	}
}

// lines says it for people, below the task's line of the table.
func (s *Source) lines(now time.Time) (lines []string) {
	ago := ""
	if age := now.Sub(s.At); age > 2*time.Minute {
		ago = " (" + short(age) + " ago)"
	}
	switch {
	case s.WaitsFor == "":
	case s.Phase == stuck:
		lines = append(lines, "  ! "+oneLine(s.WaitsFor)+ago)
	default:
		lines = append(lines, "  waits for "+oneLine(s.WaitsFor)+ago)
	}
	keeps := ""
	if s.RetainedBytes != nil {
		keeps = "  the source keeps " + Bytes(float64(*s.RetainedBytes)) + " of log for it"
		if s.ReserveBytes != nil {
			keeps += ", and gives it up after " + Bytes(float64(*s.ReserveBytes)) + " more"
		}
	}
	if s.Oldest != "" {
		if keeps == "" {
			keeps = "  the source keeps its log"
		}
		keeps += ", because of " + oneLine(s.Oldest)
		if s.OldestSeconds != nil {
			keeps += ", open for " + short(time.Duration(*s.OldestSeconds*float64(time.Second)))
		}
	}
	if keeps != "" {
		lines = append(lines, keeps+ago)
	}
	if len(lines) == 0 && s.Says != "" {
		lines = append(lines, "  "+oneLine(s.Says)+ago) // a connector that says nothing else
	}
	return lines
}

// cells are the task's own lag, as the last two cells of its line.
func (s *Source) cells() (lag, waiting string) {
	if s.LagSeconds != nil {
		lag = lagText(*s.LagSeconds)
	}
	if s.LagBytes != nil {
		waiting = Bytes(float64(*s.LagBytes))
	}
	return lag, waiting
}
