package cdc

import (
	"fmt"
	"time"
)

// situation is all that is known of a session at one moment, from inside and from the server's side.
type situation struct {
	view
	report Report

	opening time.Duration // the log has been opening for so long; zero if it is open
	blocked time.Duration // nobody has taken the output for so long
	unacked time.Duration // the runtime has not acknowledged for so long, though there is something to acknowledge
	silent  time.Duration // nothing was received for so long
	still   time.Duration // the position has not moved and nothing was delivered for so long
	idle    time.Duration // no transaction has been delivered for so long
	txn     time.Duration // a transaction has been read for so long
	since   time.Time     // when the last transaction was delivered, or the session began
	lag     time.Duration // below zero if unknown
}

// ailment is a reason why a capture does not move.
type ailment int

const (
	healthy ailment = iota
	runtimeBlocks
	runtimeForgets
	openingWaits
	serverSilent
	logStands
	backfillWaits
)

const (
	stuckAfter   = time.Minute      // without movement, before somebody is warned
	openingTakes = 10 * time.Second // at most, if nothing is in the way
	silentAfter  = 30 * time.Second
)

// diagnose says why the capture does not move, in words for people, if it does not. What the runtime does not take comes
// first: everything else may be its consequence.
func (s *situation) diagnose() (ailment, string) {
	waits := ""
	if s.report.Waits != "" {
		waits = ": " + s.report.Waits
	}
	switch {
	case s.blocked >= stuckAfter:
		return runtimeBlocks, fmt.Sprintf("the runtime has taken no output for %s: it, its disk or what it writes to is slow or stuck", brief(s.blocked))
	case s.opening >= openingTakes:
		return openingWaits, fmt.Sprintf("the log has been opening for %s%s", brief(s.opening), waits)
	case s.unacked >= stuckAfter:
		return runtimeForgets, fmt.Sprintf("the runtime has not acknowledged a checkpoint for %s: it, its disk or the destination is slow or stuck, and the server keeps its log meanwhile",
			brief(s.unacked))
	case s.silent >= silentAfter:
		return serverSilent, fmt.Sprintf("nothing was received from the server for %s%s", brief(s.silent), waits)
	case s.still >= stuckAfter && s.report.LagBytes > 0 && !s.report.AtEnd:
		return logStands, fmt.Sprintf("the log has not moved for %s although the server has written %s more%s", brief(s.still), size(s.report.LagBytes), waits)
	case s.waits != "" && s.tables.backfilling > 0:
		return backfillWaits, s.waits
	}
	return healthy, ""
}

// expects says what a healthy capture is waiting for; empty if things move.
func (s *situation) expects() string {
	switch {
	case s.opening > 0:
		return "the log to be opened"
	case s.txn >= stuckAfter:
		return fmt.Sprintf("the end of a transaction that has been read for %s, %d changes so far", brief(s.txn), s.txnChanges)
	case s.idle >= stuckAfter && s.tables.backfilling == 0:
		return "a transaction of the captured tables; there was none since " + s.since.UTC().Format(time.DateTime)
	}
	return ""
}

// size writes a number of bytes for people.
func size(n int64) string {
	f := float64(n)
	for _, unit := range []string{"bytes", "kB", "MB", "GB"} {
		if f < 1000 {
			if unit == "bytes" {
				return fmt.Sprintf("%.0f %s", f, unit)
			}
			return fmt.Sprintf("%.1f %s", f, unit)
		}
		f /= 1000
	}
	return fmt.Sprintf("%.1f TB", f)
}
