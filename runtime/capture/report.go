package capture

import (
	"strconv"
	"time"

	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// newOrigins looks up what change captures say of where a document comes from.
func newOrigins() *jsonscan.Pointers {
	return jsonscan.NewPointers([]string{"/_meta/source/snapshot", "/_meta/source/ts_ms"})
}

// report updates the board after a commit. Delay, and phase unless the connector tells it, are read off the newest
// document of each binding.
func (s *session) report() {
	var found [2][]byte
	now := time.Now()
	for i := range s.byIndex {
		b := s.byIndex[i]
		if b.docs == 0 {
			continue
		}
		b.status.Count(b.docs, b.bytes)
		b.docs, b.bytes = 0, 0
		s.origins.Find(b.last, found[:])
		told := b.told.Load()
		if string(found[0]) == "true" {
			if !told {
				b.status.Phase(status.Backfill)
			}
			b.status.Delay(0)
			continue
		}
		if ms, err := strconv.ParseInt(string(found[1]), 10, 64); err == nil {
			if !told {
				b.status.Phase(status.Streaming)
			}
			b.status.Delay(now.Sub(time.UnixMilli(ms)))
		}
	}
}

// onLog takes the phase of a binding from a connector that logs it, which also knows when a backfill has ended and
// nothing changes; and what it says of the capture as a whole.
func (s *session) onLog(line host.Line) {
	if line.Fields["eventType"] != "connectorStatus" {
		return
	}
	phase, _ := line.Fields["phase"].(string)
	name, _ := line.Fields["binding"].(string)
	if name == "" {
		name, _ = line.Fields["table"].(string)
	}
	if name == "" {
		s.task.Status.Report(status.ParseSource(line.Message, line.Fields, time.Now()))
		return
	}
	if phase == "" {
		return
	}
	if phase == "live" {
		phase = status.Streaming
	}
	for i := range s.byIndex {
		if s.byIndex[i].status.Named(name) {
			s.byIndex[i].told.Store(true)
			s.byIndex[i].status.Phase(phase)
			rows, _ := line.Fields["rows"].(float64)
			of, _ := line.Fields["of"].(float64)
			s.byIndex[i].status.Progress(rows, of)
		}
	}
}
