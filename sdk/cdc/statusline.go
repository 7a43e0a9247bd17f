package cdc

import (
	"fmt"
	"runtime/metrics"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// The phases of a capture as a whole, in status lines.
const (
	phaseOpening   = "opening"
	phaseBackfill  = "backfill"
	phaseStreaming = "streaming"
	phaseWaiting   = "waiting"
)

// phase is what the capture as a whole is at, apart from being stuck.
func (s *situation) phase() string {
	switch {
	case s.opening > 0:
		return phaseOpening
	case s.tables.backfilling > 0:
		return phaseBackfill
	}
	return phaseStreaming
}

// rates are per second, since the last line.
type rates struct{ transactions, documents, bytes float64 }

func rate(before, now view, passed time.Duration) rates {
	s := max(passed.Seconds(), 1e-3)
	return rates{
		transactions: float64(now.transactions-before.transactions) / s,
		documents:    float64(now.documents-before.documents) / s,
		bytes:        float64(now.bytes-before.bytes) / s,
	}
}

// fields are the status line's, by docs/protocol.md. What is unknown is left out.
func (s *situation) fields(phase, waits string, r rates) logrus.Fields {
	f := logrus.Fields{
		"eventType": statusEvent, "phase": phase,
		"tables":                s.tables.tables,
		"transactionsPerSecond": round(r.transactions), "documentsPerSecond": round(r.documents), "bytesPerSecond": round(r.bytes),
		"unacknowledged": s.owed, "memoryBytes": memory(),
	}
	for name, text := range map[string]string{
		"waitsFor": waits, "logEnd": s.report.LogEnd, "sent": s.report.Sent, "received": s.report.Received, "confirmed": s.report.Confirmed,
		"delivered": string(s.delivered), "checkpointed": string(s.checkpointed), "acknowledged": string(s.acknowledged),
		"logStatus": s.report.LogStatus, "oldestTransaction": s.report.Oldest, "processes": s.report.Processes,
	} {
		if text != "" {
			f[name] = text
		}
	}
	for name, n := range map[string]int64{"lagBytes": s.report.LagBytes, "retainedBytes": s.report.RetainedBytes, "reserveBytes": s.report.ReserveBytes} {
		if n >= 0 {
			f[name] = n
		}
	}
	if s.report.SpooledBytes > 0 {
		f["spooledBytes"] = s.report.SpooledBytes
	}
	if s.lag >= 0 {
		f["lagSeconds"] = round(s.lag.Seconds())
	}
	if s.report.Oldest != "" && s.report.OldestAge > 0 {
		f["oldestTransactionSeconds"] = round(s.report.OldestAge.Seconds())
	}
	if s.owed > 0 {
		f["unacknowledgedSeconds"] = round(s.unacked.Seconds())
	}
	if !s.committed.IsZero() {
		f["lastCommit"] = s.committed.UTC().Format(time.RFC3339Nano)
	}
	if s.tables.missing > 0 {
		f["tablesMissing"] = s.tables.missing
	}
	if s.tables.backfilling > 0 {
		f["tablesBackfilling"], f["rows"] = s.tables.backfilling, s.tables.rows
		if p := s.tables.percent(); p >= 0 {
			f["of"], f["percent"] = s.tables.of, round(p)
		}
	}
	return f
}

// message is the status line's, a sentence for people.
func (s *situation) message(phase, waits string, r rates) string {
	var b strings.Builder
	b.WriteString(phase)
	if phase == phaseWaiting {
		return phase + ": " + waits
	}
	if n := s.tables; phase == phaseBackfill {
		fmt.Fprintf(&b, " of %d of %d tables", n.backfilling, n.tables)
		if p := n.percent(); p >= 0 {
			fmt.Fprintf(&b, ", %.0f%% of about %d rows", p, n.of)
		}
	}
	if phase != phaseOpening {
		switch {
		case s.report.AtEnd || s.report.LagBytes == 0:
			b.WriteString(", at the end of the log")
		case s.report.LagBytes > 0 && s.lag >= 0:
			fmt.Fprintf(&b, ", %s and %s behind the end of the log", size(s.report.LagBytes), brief(s.lag))
		case s.report.LagBytes > 0:
			fmt.Fprintf(&b, ", %s behind the end of the log", size(s.report.LagBytes))
		}
		fmt.Fprintf(&b, ", %.0f documents/s", r.documents)
	}
	if s.report.RetainedBytes >= 0 {
		fmt.Fprintf(&b, "; the server keeps %s of log for it", size(s.report.RetainedBytes))
	}
	if waits != "" {
		b.WriteString("; waits for " + waits)
	}
	return b.String()
}

// round leaves two digits behind the point.
func round(f float64) float64 {
	return float64(int64(f*100+0.5)) / 100
}

// memory is what this process holds, in bytes.
func memory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}
