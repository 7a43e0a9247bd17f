package cdc

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/capture"
)

// monitor watches a session from outside: it says in the log what the capture is doing, and ends it when its log has gone
// silent. It has a goroutine of its own and another one while it asks the server, so neither of them waits for the reader,
// and the reader never waits for them.
type monitor struct {
	log      *logrus.Entry
	reporter Reporter // nil if the driver is none
	progress *progress
	heard    func() time.Time // see Heard
	outlet   *capture.Outlet
	every    time.Duration // between lines
	dog      watchdog

	// Of the goroutine of run.
	started time.Time
	lineAt  time.Time // the last line, and what was known then
	last    view
	phase   string
	ailment ailment
	warned  time.Time
	due     bool // a line is to be written once the server has answered

	seen      view      // of the last look
	openingAt time.Time // since when the log has been opening, or was
	stillAt   time.Time // when something last moved
	since     time.Time // when a transaction last ended
	txnAt     time.Time // when the transaction at hand began
	atEnd     time.Time // by the server's clock, when we were last at the end of its log

	asked    time.Time // when the question that is out was asked; zero if none is
	answers  chan answer
	answered time.Time
	answer   answer
	tolerate time.Time     // when it was last said that a silent server is busy
	abandon  time.Duration // see abandonFor

	cancel  context.CancelFunc
	wg      sync.WaitGroup
	verdict chan struct{} // closed when the session must end
	failure error         // why; set before that
}

// answer is what the server said.
type answer struct {
	report Report
	err    error
}

const (
	firstLine  = 3 * time.Second  // after the start
	fewest     = 5 * time.Second  // between lines
	remind     = 5 * time.Minute  // between warnings of the same thing
	askFor     = 5 * time.Second  // what a report may take
	goOnAfter  = 8 * time.Second  // without an answer
	freshFor   = 15 * time.Second // an answer is good enough to decide about the watchdog's bite
	abandonFor = 10 * time.Second // what a reader that was told to end may take
)

// newMonitor makes the monitor of a session that is about to start.
func newMonitor(r *reader, outlet *capture.Outlet) *monitor {
	m := &monitor{
		log: r.log, progress: r.progress, heard: r.acks.heard, outlet: outlet, every: r.opts.StatusEvery,
		answers: make(chan answer, 1), answer: answer{report: NewReport()}, verdict: make(chan struct{}), abandon: abandonFor,
	}
	m.reporter, _ = r.driver.(Reporter)
	m.dog = watchdog{limit: max(r.opts.ReadTimeout, 0), step: time.Second}
	m.dog.step = min(m.dog.step, m.every/4)
	if m.dog.limit > 0 {
		m.dog.step = max(min(m.dog.step, m.dog.limit/8), 10*time.Millisecond)
	}
	return m
}

// start begins to watch.
func (m *monitor) start(ctx context.Context) {
	ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.begin(time.Now())
	m.wg.Go(func() { m.run(ctx) })
}

// stop ends the watch.
func (m *monitor) stop() {
	m.cancel()
	m.wg.Wait()
}

func (m *monitor) run(ctx context.Context) {
	tick := time.NewTicker(m.dog.step)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-m.answers:
			m.take(a, time.Now())
		case <-tick.C:
			m.look(time.Now())
		}
		if m.reporter != nil && m.asked.IsZero() && m.wants(time.Now()) {
			m.ask(ctx)
		}
	}
}

// begin sets the clocks.
func (m *monitor) begin(now time.Time) {
	m.started, m.lineAt, m.openingAt, m.stillAt, m.since, m.dog.last = now, now, now, now, now, now
	m.seen = m.progress.look()
	m.last = m.seen
}

// look is one step: it reads the progress, minds the watchdog, and writes a line when it is time.
func (m *monitor) look(now time.Time) {
	moved := m.observe(m.progress.look(), now)
	m.dog.look(now, m.heard(), !moved && m.seen.open && m.outlet.Blocked() == 0)
	m.mindSilence(now)
	if m.seen.tables.tables == 0 {
		return // nothing is captured
	}
	s := m.situation(now)
	if m.lineDue(&s, now) {
		m.due = true
	}
	if m.due && (m.reporter == nil || !m.asked.IsZero() && now.Sub(m.asked) > goOnAfter) {
		m.write(now)
	}
}

// observe notes what has changed since the last look, and reports whether the reader has moved.
func (m *monitor) observe(v view, now time.Time) (moved bool) {
	if !v.open && m.seen.open {
		m.openingAt = now
	}
	moved = v.delivered != m.seen.delivered || v.changes != m.seen.changes || v.documents != m.seen.documents || v.open != m.seen.open
	if moved {
		m.stillAt = now
	}
	if v.transactions != m.seen.transactions {
		m.since = now
	}
	if !v.inTxn || v.transactions != m.seen.transactions || !m.seen.inTxn {
		m.txnAt = now
	}
	m.seen = v
	return moved
}

// situation puts together what is known.
func (m *monitor) situation(now time.Time) situation {
	s := situation{
		view: m.seen, report: m.answer.report, blocked: m.outlet.Blocked(), silent: m.dog.silent,
		still: now.Sub(m.stillAt), idle: now.Sub(m.since), since: m.since, lag: -1,
	}
	if !s.open {
		s.opening = max(now.Sub(m.openingAt), 1)
	}
	if s.inTxn {
		s.txn = now.Sub(m.txnAt)
	}
	if s.owed > 0 && m.outlet.Acknowledges() {
		s.unacked = now.Sub(s.owedSince)
	}
	if now.Sub(s.waitsAt) > stuckAfter {
		s.waits = ""
	}
	switch base := later(s.committed, m.atEnd); {
	case s.report.AtEnd || s.report.LagBytes == 0:
		s.lag = 0
	case s.report.LagBytes > 0 && !base.IsZero():
		s.lag = max(s.report.Now.Sub(base), 0)
	}
	return s
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// lineDue decides whether it is time for a line: soon after the start, every minute, and when something has changed.
func (m *monitor) lineDue(s *situation, now time.Time) bool {
	if m.phase == "" {
		return now.Sub(m.started) >= min(firstLine, m.every)
	}
	passed := now.Sub(m.lineAt)
	if passed >= m.every {
		return true
	}
	ill, _ := s.diagnose()
	return (s.phase() != m.phase || ill != m.ailment) && passed >= min(fewest, m.every)
}

// write writes the line.
func (m *monitor) write(now time.Time) {
	s := m.situation(now)
	ill, waits := s.diagnose()
	phase := s.phase()
	shown := phase
	if ill != healthy {
		shown = phaseWaiting
	} else {
		waits = s.expects()
	}
	r := rate(m.last, m.seen, now.Sub(m.lineAt))
	entry := m.log.WithFields(s.fields(shown, waits, r))
	if m.answer.err != nil {
		entry = entry.WithField("reportErr", m.answer.err.Error())
	}
	level := logrus.InfoLevel
	if ill != healthy && (ill != m.ailment || now.Sub(m.warned) >= remind) {
		level, m.warned = logrus.WarnLevel, now
	}
	entry.Log(level, s.message(shown, waits, r))
	m.due, m.lineAt, m.last, m.phase, m.ailment = false, now, m.seen, phase, ill
}

// mindSilence ends the session when the log was silent for too long.
func (m *monitor) mindSilence(now time.Time) {
	if m.failure != nil || !m.dog.bites(false) {
		return
	}
	busy := false
	if m.reporter != nil {
		waiting := m.asked.IsZero() || now.Sub(m.asked) <= goOnAfter
		if now.Sub(m.answered) >= freshFor && waiting {
			return // wants has it asked
		}
		busy = now.Sub(m.answered) < freshFor && m.answer.err == nil && m.answer.report.Busy
	}
	if !m.dog.bites(busy) {
		if now.Sub(m.tolerate) >= remind {
			m.tolerate = now
			m.log.WithField("silent", brief(m.dog.silent)).Warn("nothing was received from the server for long, but it works on the log: waiting for it")
		}
		return
	}
	m.failure = errSilent(m.dog.silent, m.answer.report.Waits)
	close(m.verdict)
}

// wants reports whether the server is to be asked.
func (m *monitor) wants(now time.Time) bool {
	return m.due || m.failure == nil && m.dog.bites(false) && now.Sub(m.answered) >= freshFor
}

// ask has the server asked.
func (m *monitor) ask(ctx context.Context) {
	m.asked = time.Now()
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, askFor)
		defer cancel()
		report, err := m.reporter.Report(ctx)
		m.answers <- answer{report, err} // there is room: one question is out at a time
	})
}

// take takes an answer over.
func (m *monitor) take(a answer, now time.Time) {
	m.asked, m.answered = time.Time{}, now
	if a.err != nil {
		a.report = NewReport()
	}
	m.answer = a
	if a.report.AtEnd {
		m.atEnd = a.report.Now
	}
	m.mindSilence(now)
	if m.due {
		m.observe(m.progress.look(), now)
		m.write(now)
	}
}

// sessionReader is the reader as package capture sees it, and who watches it.
type sessionReader struct {
	reader    *reader
	monitor   *monitor
	abandoned bool
}

// Read fills one capture transaction. It is done beside the caller, so that a reader that hangs can be left behind.
func (s *sessionReader) Read(ctx context.Context, tx *capture.Tx) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.reader.read(ctx, tx) }()
	select {
	case err := <-done:
		return s.reader.opts.disconnected(err)
	case <-s.monitor.verdict:
	}
	stop()
	late := time.NewTimer(s.monitor.abandon)
	defer late.Stop()
	select {
	case err := <-done:
		if err == nil {
			return nil // a transaction was whole at that very moment; the next Read ends
		}
		return s.reader.opts.disconnected(s.monitor.failure)
	case <-late.C:
		s.abandoned = true
		return errHung(s.monitor.dog.limit)
	}
}

// Close ends the session. What a reader that hangs still holds ends with the process.
func (s *sessionReader) Close() error {
	s.monitor.stop()
	if s.abandoned {
		return nil
	}
	return s.reader.close()
}
