package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// feedback owns everything that is written to a replication connection: a status every few seconds, so that the server
// does not think us dead, also while the reader is blocked downstream; at once when something was acknowledged; and, as
// long as a fence is outstanding, requests to say how far the server has read.
type feedback struct {
	conn net.Conn

	acked  atomic.Uint64 // durable downstream; the server may forget what lies before it
	asking atomic.Bool   // answers are wanted, one after the other
	probed atomic.Bool   // one answer is wanted
	every  time.Duration // between statuses, which ask for an answer each: a sign of life
	wake   chan struct{}
	stop   chan struct{}
	once   sync.Once
	done   chan struct{}
	err    atomic.Pointer[error]
}

const (
	statusEvery  = 10 * time.Second
	writeTimeout = 30 * time.Second
	askFirst     = time.Millisecond
	askLast      = 50 * time.Millisecond
)

// startFeedback starts the goroutine that writes. It ends with close, or with the connection.
func startFeedback(conn net.Conn, start lsn, every time.Duration) *feedback {
	f := &feedback{conn: conn, every: every, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	f.acked.Store(uint64(start))
	go f.run()
	return f
}

func (f *feedback) run() {
	defer close(f.done)
	timer := time.NewTimer(f.every)
	defer timer.Stop()
	delay := askFirst
	var asked time.Time
	for {
		select {
		case <-f.stop:
			return
		case <-f.wake:
			delay = askFirst
		case <-timer.C:
		}
		asking := f.asking.Load()
		// A server that has heard of us need not say anything for as long as nothing happens.
		ask := f.probed.Swap(false) || asking || time.Since(asked) >= f.every
		if err := f.send(ask); err != nil {
			f.err.Store(&err)
			return
		}
		if ask {
			asked = time.Now()
		}
		if !asking {
			timer.Reset(f.every)
			continue
		}
		timer.Reset(delay)
		delay = min(2*delay, askLast)
	}
}

// send writes one standby status update:
// https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-STANDBY-STATUS-UPDATE
func (f *feedback) send(ask bool) error {
	var m [39]byte
	m[0] = 'd'
	binary.BigEndian.PutUint32(m[1:], 38)
	m[5] = 'r'
	acked := f.acked.Load()
	binary.BigEndian.PutUint64(m[6:], acked)  // written
	binary.BigEndian.PutUint64(m[14:], acked) // flushed: this is what releases the log
	binary.BigEndian.PutUint64(m[22:], acked) // applied
	micros := time.Now().UnixMicro() - unixMillis(0)*1000
	binary.BigEndian.PutUint64(m[30:], uint64(micros)) //nolint:gosec // positive since the year 2000
	if ask {
		m[38] = 1
	}
	if err := f.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("sending a status to the server: %w", err)
	}
	if _, err := f.conn.Write(m[:]); err != nil {
		return fmt.Errorf("sending a status to the server: %w", err)
	}
	return nil
}

// ack notes that everything up to a position is durable downstream. It never goes back.
func (f *feedback) ack(to lsn) {
	for {
		old := f.acked.Load()
		if uint64(to) <= old {
			return
		}
		if f.acked.CompareAndSwap(old, uint64(to)) {
			f.nudge()
			return
		}
	}
}

// ask has the server say how far it is, again and again until it is not wanted any more.
func (f *feedback) ask(wanted bool) {
	if f.asking.Swap(wanted) != wanted && wanted {
		f.nudge()
	}
}

// probe has the server say once how far it is. It may be called from any goroutine.
func (f *feedback) probe() {
	f.probed.Store(true)
	f.nudge()
}

func (f *feedback) nudge() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// failed is the error that ended the goroutine, if one did.
func (f *feedback) failed() error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}

// close says the last word and waits for the goroutine.
func (f *feedback) close() {
	f.once.Do(func() { close(f.stop) })
	<-f.done
	if f.failed() == nil && f.send(false) == nil {
		// The server learns what is durable a little earlier than from the next session, and that we are not lost.
		_, _ = f.conn.Write([]byte{'X', 0, 0, 0, 4})
	}
}
