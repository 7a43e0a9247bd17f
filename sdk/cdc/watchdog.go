package cdc

import (
	"fmt"
	"os"
	"time"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// watchdog measures how long nothing has come from the server although the reader could take it. It counts time that this
// process really ran: a machine that slept for an hour has not been waiting for an hour.
type watchdog struct {
	limit time.Duration // zero never bites
	step  time.Duration // how often look is called

	heard, last time.Time
	silent      time.Duration
}

// look takes when the last bytes arrived, and whether the reader could have read since the last look: a stream is open, and
// nobody keeps the reader waiting to hand over what it has read. It returns how long it has been silent.
func (w *watchdog) look(now, heard time.Time, reading bool) time.Duration {
	passed := min(now.Sub(w.last), 2*w.step)
	w.last = now
	if !reading || heard.IsZero() || !heard.Equal(w.heard) {
		w.heard, w.silent = heard, 0
		return 0
	}
	w.silent += passed
	return w.silent
}

// bites reports whether that is too long. A server that works on the log for us, but has found nothing to send, gets more
// time: old versions say nothing while they skip a huge transaction.
func (w *watchdog) bites(busy bool) bool {
	limit := w.limit
	if busy {
		limit *= 10
	}
	return limit > 0 && w.silent >= limit
}

// errSilent ends the session. What the server waits for may be unknown.
func errSilent(silent time.Duration, waits string) error {
	if waits != "" {
		waits = " (The server's side: " + waits + ".)"
	}
	return usererr.New(os.ErrDeadlineExceeded, "Nothing was received from the server for %s, although it is asked for a sign of life every few seconds.%s "+
		"The connection is given up. The capture goes on from its last checkpoint when it is started again.", brief(silent), waits)
}

// errHung ends the session of a reader that does not even notice that it is told to end.
func errHung(silent time.Duration) error {
	return usererr.New(nil, "The reader of the log has hung for %s and does not end when it is told to; the process ends instead. "+
		"The capture goes on from its last checkpoint when it is started again.", brief(silent))
}

// brief writes a duration for people.
func brief(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}
