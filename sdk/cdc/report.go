package cdc

import (
	"context"
	"time"
)

// Reporter is an optional ability of a Driver: it looks at the capture from the server's side, for people who want to know
// what it is doing and why it is stuck.
type Reporter interface {
	// Report asks the server. It is called from a goroutine of its own, one call at a time, from before Stream until Close,
	// also while the log's reader is blocked or hangs. So it uses a connection of its own, takes no lock that the reader
	// may hold while it waits, and returns soon after ctx, which has a deadline of seconds. What it cannot find out it
	// leaves as NewReport has it; an error means that it found out nothing.
	Report(ctx context.Context) (Report, error)
}

// Heard is an optional ability of a Stream: it lets the core notice a log that has gone silent, and a reader that hangs
// (hard case 51). A stream that has it makes the server say something every few seconds, also when nothing happens.
type Heard interface {
	// Heard is when the last bytes arrived from the server; the zero time before the first. It may be asked from any
	// goroutine at any time and does not wait.
	Heard() time.Time
}

// Report is a capture as its server sees it. Positions are in the driver's notation, for people to read.
type Report struct {
	// LogEnd is how far the server has written its log, Sent how far it has sent it to us, Received how far the stream has
	// delivered it, and Confirmed what the server knows to be durable downstream.
	LogEnd, Sent, Received, Confirmed string
	// LagBytes is how much log lies between Received and LogEnd; below zero if unknown.
	LagBytes int64
	// AtEnd says that what had been committed when Report began has been received, so that there is no lag, whatever the
	// server has written since.
	AtEnd bool
	// RetainedBytes is how much log the server keeps for this capture, ReserveBytes how much more may be written before it
	// gives the capture's log up; below zero if unknown, or if it never does.
	RetainedBytes, ReserveBytes int64
	// SpooledBytes is how much has been received of transactions that are still open on the server, and is kept in memory and
	// temporary files until they commit; zero where there is none.
	SpooledBytes int64
	// LogStatus is what the server calls the state of the capture's log; empty if it does not.
	LogStatus string
	// Oldest is the oldest open transaction that keeps the server from forgetting its log, in words for people: its process,
	// user and application, never its statement, which may hold data. OldestAge is how long it has been open; zero if
	// unknown.
	Oldest    string
	OldestAge time.Duration
	// Processes are the server's processes that work for this capture, such as "stream 4711, backfill 4712".
	Processes string
	// Waits says in words for people what the server's side of the log waits for, or what the opening of the log waits for.
	// Empty when it does not wait, or when that is not known.
	Waits string
	// Busy says that the server is working on the log for us at this moment, though it may have nothing to send.
	Busy bool
	// Now is the server's clock, against which times of commits are compared.
	Now time.Time
}

// NewReport is a report that knows nothing.
func NewReport() Report { return Report{LagBytes: -1, RetainedBytes: -1, ReserveBytes: -1} }
