package cdc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// watched is a monitor whose clock a test turns, and whose server answers what the test says.
type watched struct {
	t      *testing.T
	m      *monitor
	logs   *logtest.Hook
	now    time.Time
	heard  time.Time
	server func() (Report, error) // nil does not answer
	asked  int
}

func (w *watched) Report(context.Context) (Report, error) { return NewReport(), nil }

func watch(t *testing.T, v view) *watched {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w := &watched{t: t, logs: hook, now: now, heard: now, server: func() (Report, error) { return NewReport(), nil }}
	v.tables.tables = max(v.tables.tables, 1)
	w.m = &monitor{
		log: logrus.NewEntry(log), reporter: w, progress: &progress{now: v}, heard: func() time.Time { return w.heard }, every: time.Minute,
		dog: watchdog{limit: 2 * time.Minute, step: time.Second}, answer: answer{report: NewReport()}, verdict: make(chan struct{}),
	}
	w.m.begin(now)
	return w
}

// pass lets time pass, second by second, and returns the lines that were written.
func (w *watched) pass(d time.Duration, each func()) []*logrus.Entry {
	before := len(w.logs.AllEntries())
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(time.Second)
		if each != nil {
			each()
		}
		w.m.look(w.now)
		if w.m.asked.IsZero() && w.m.wants(w.now) {
			w.m.asked = w.now
			w.asked++
		}
		if !w.m.asked.IsZero() && w.server != nil {
			r, err := w.server()
			w.m.take(answer{r, err}, w.now)
		}
	}
	return w.logs.AllEntries()[before:]
}

// alive has the server say something every second.
func (w *watched) alive() { w.heard = w.now }

func messages(lines []*logrus.Entry) (texts []string) {
	for _, l := range lines {
		texts = append(texts, l.Level.String()+" "+l.Message)
	}
	return texts
}

func TestStatusLines(t *testing.T) {
	t.Parallel()
	w := watch(t, view{tables: tally{tables: 5, backfilling: 2, rows: 410, of: 1000}})
	require.Empty(t, w.pass(2*time.Second, w.alive))
	require.Equal(t, []string{"info opening; waits for the log to be opened"}, messages(w.pass(2*time.Second, w.alive)), "soon after the start")

	w.m.progress.change(func(v *view) { v.open, v.delivered = true, "1" })
	w.server = func() (Report, error) {
		r := NewReport()
		r.LogEnd, r.Sent, r.Received, r.Confirmed = "9", "8", "7", "6"
		r.LagBytes, r.RetainedBytes, r.ReserveBytes, r.LogStatus = 2_500_000, 48_000_000, 1_000, "extended"
		r.SpooledBytes = 7_000_000
		r.Oldest, r.OldestAge, r.Processes = "process 7 of user x (app), idle in transaction", 90*time.Second, "stream 5, backfill 6"
		r.Now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		return r, nil
	}
	w.m.progress.change(func(v *view) {
		v.committed = time.Date(2026, 1, 2, 3, 4, 1, 500_000_000, time.UTC)
		v.transactions, v.documents, v.bytes = 10, 1000, 5_000_000
		v.checkpointed, v.acknowledged, v.owed, v.owedSince = "6", "5", 2, w.now
		v.tables.missing = 1
	})
	lines := w.pass(4*time.Second, w.alive)
	require.Len(t, lines, 1, "when the phase changes, but not at once after another line")
	require.Equal(t, "backfill of 2 of 5 tables, 41% of about 1000 rows, 2.5 MB and 4s behind the end of the log, 200 documents/s; the server keeps 48.0 MB of log for it", lines[0].Message)
	require.Positive(t, lines[0].Data["memoryBytes"])
	delete(lines[0].Data, "memoryBytes")
	require.Equal(t, logrus.Fields{
		"eventType": "connectorStatus", "phase": "backfill", "tables": 5, "tablesBackfilling": 2, "tablesMissing": 1, "rows": int64(410), "of": int64(1000), "percent": 41.0,
		"logEnd": "9", "sent": "8", "received": "7", "delivered": "1", "checkpointed": "6", "acknowledged": "5", "confirmed": "6",
		"lagBytes": int64(2_500_000), "lagSeconds": 3.5, "retainedBytes": int64(48_000_000), "reserveBytes": int64(1_000), "spooledBytes": int64(7_000_000), "logStatus": "extended",
		"oldestTransaction": "process 7 of user x (app), idle in transaction", "oldestTransactionSeconds": 90.0, "processes": "stream 5, backfill 6",
		"transactionsPerSecond": 2.0, "documentsPerSecond": 200.0, "bytesPerSecond": 1_000_000.0,
		"unacknowledged": 2, "unacknowledgedSeconds": 4.0, "lastCommit": "2026-01-02T03:04:01.5Z",
	}, lines[0].Data)

	w.m.progress.change(func(v *view) { v.tables, v.owed = tally{tables: 5, of: -1}, 0 })
	w.server = func() (Report, error) {
		r := NewReport()
		r.AtEnd, r.LagBytes, r.Now = true, 24, w.now
		return r, nil
	}
	lines = w.pass(5*time.Minute, func() {
		w.alive()
		w.m.progress.change(func(v *view) { v.transactions++; v.documents += 3; v.changes += 3 })
	})
	require.Len(t, lines, 5, "one a minute")
	require.Equal(t, "streaming, at the end of the log, 3 documents/s", lines[4].Message)
	require.Zero(t, lines[4].Data["lagSeconds"], "at the end there is no lag, however old the last transaction is")
	require.NotContains(t, lines[4].Data, "waitsFor")

	w.server = func() (Report, error) { return Report{}, errors.New("too many connections") }
	lines = w.pass(3*time.Minute, w.alive)
	require.Equal(t, "too many connections", lines[0].Data["reportErr"])
	require.NotContains(t, lines[0].Data, "lagBytes")
	require.Contains(t, lines[2].Message, "streaming, 0 documents/s; waits for a transaction of the captured tables; there was none since 2026-01-02 03:09:")
}

// A server that does not answer delays a line, and nothing else.
func TestStatusLineWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	w := watch(t, view{open: true})
	w.server = nil
	lines := w.pass(13*time.Second, w.alive)
	require.Equal(t, []string{"info streaming, 0 documents/s"}, messages(lines))
	require.Equal(t, 1, w.asked, "one question at a time")
}

func TestNothingIsSaidOfACaptureWithoutTables(t *testing.T) {
	t.Parallel()
	w := watch(t, view{})
	w.m.progress.change(func(v *view) { v.tables.tables = 0 })
	require.Empty(t, w.pass(10*time.Minute, nil))
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	w := watch(t, view{open: true})
	w.server = func() (Report, error) {
		r := NewReport()
		r.LagBytes, r.Waits = 0, ""
		return r, nil
	}
	require.Len(t, w.pass(10*time.Second, w.alive), 1)
	w.m.progress.change(func(v *view) { v.owed, v.owedSince = 3, w.now })
	lines := messages(w.pass(7*time.Minute, w.alive))
	warned := 0
	for _, l := range lines {
		if strings.HasPrefix(l, "warning") {
			warned++
		}
	}
	require.Equal(t, 2, warned, "once, and again after five minutes: %q", lines)
	require.Contains(t, lines, "warning waiting: the runtime has not acknowledged a checkpoint for 1m0s: it, its disk or the destination is slow or stuck, and the server keeps its log meanwhile")
	w.m.progress.change(func(v *view) { v.owed = 0 })
	lines = messages(w.pass(6*time.Second, w.alive))
	require.Equal(t, []string{"info streaming, at the end of the log, 0 documents/s; waits for a transaction of the captured tables; there was none since 2026-01-02 03:04:05"}, lines,
		"that it goes on is said soon")
}

func TestDiagnoses(t *testing.T) {
	t.Parallel()
	behind := func(waits string) Report {
		r := NewReport()
		r.LagBytes, r.Waits = 5_000, waits
		return r
	}
	atEnd := behind("")
	atEnd.AtEnd = true
	for want, s := range map[string]situation{
		"": {report: atEnd, still: time.Hour, idle: time.Hour},
		"the runtime has taken no output for 5m0s: it, its disk or what it writes to is slow or stuck":                                                      {blocked: 5 * time.Minute, silent: time.Hour, unacked: time.Hour},
		"the runtime has not acknowledged a checkpoint for 1h02m: it, its disk or the destination is slow or stuck, and the server keeps its log meanwhile": {unacked: 62 * time.Minute, silent: time.Hour},
		"the log has been opening for 12s":                                                        {opening: 12 * time.Second},
		"the log has been opening for 12s: process 7 of user x has an open transaction":           {opening: 12 * time.Second, report: behind("process 7 of user x has an open transaction")},
		"nothing was received from the server for 40s: its process 7 waits for a lock":            {silent: 40 * time.Second, report: behind("its process 7 waits for a lock")},
		"the log has not moved for 2m0s although the server has written 5.0 kB more: it is tired": {still: 2 * time.Minute, report: behind("it is tired")},
		"the backfill of s.t waits for Godot":                                                     {view: view{waits: "the backfill of s.t waits for Godot", tables: tally{backfilling: 1}}},
	} {
		_, text := s.diagnose()
		require.Equal(t, want, text)
	}
	for want, s := range map[string]situation{
		"": {idle: time.Second},
		"the end of a transaction that has been read for 1m30s, 7000 changes so far": {txn: 90 * time.Second, view: view{txnChanges: 7000}},
	} {
		require.Equal(t, want, s.expects())
	}
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 1_500: "1.5 kB", 2_000_000_000_000_000: "2000.0 TB"} {
		require.Equal(t, want, size(n))
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	t.Run("bites", func(t *testing.T) {
		t.Parallel()
		w := watch(t, view{open: true})
		w.server = func() (Report, error) {
			r := NewReport()
			r.Waits = "its process 7 waits for nothing we know"
			return r, nil
		}
		lines := messages(w.pass(119*time.Second, nil))
		require.Contains(t, lines, "warning waiting: nothing was received from the server for 30s: its process 7 waits for nothing we know")
		require.NoError(t, w.m.failure)
		w.pass(3*time.Second, nil)
		require.Equal(t, "Nothing was received from the server for 2m0s, although it is asked for a sign of life every few seconds. "+
			"(The server's side: its process 7 waits for nothing we know.) The connection is given up. The capture goes on from its last checkpoint when it is started again.",
			usererr.Message(w.m.failure))
		<-w.m.verdict
	})
	t.Run("without an answer", func(t *testing.T) {
		t.Parallel()
		w := watch(t, view{open: true})
		w.server = nil
		w.pass(140*time.Second, nil)
		require.Error(t, w.m.failure)
	})
	t.Run("a busy server gets ten times as long", func(t *testing.T) {
		t.Parallel()
		w := watch(t, view{open: true})
		w.server = func() (Report, error) { return Report{Busy: true}, nil }
		lines := messages(w.pass(19*time.Minute, nil))
		require.NoError(t, w.m.failure)
		require.Contains(t, lines, "warning nothing was received from the server for long, but it works on the log: waiting for it")
		w.pass(2*time.Minute, nil)
		require.Error(t, w.m.failure)
	})
	t.Run("what does not count", func(t *testing.T) {
		t.Parallel()
		for name, each := range map[string]func(w *watched){
			"bytes that arrive":         (*watched).alive,
			"no stream":                 func(w *watched) { w.m.progress.change(func(v *view) { v.open = false }) },
			"a stream that cannot tell": func(w *watched) { w.heard = time.Time{} },
			"work on what was received": func(w *watched) { w.m.progress.change(func(v *view) { v.changes++ }) },
		} {
			w := watch(t, view{open: true})
			w.pass(10*time.Minute, func() { each(w) })
			require.NoError(t, w.m.failure, name)
		}
		w := watch(t, view{open: true})
		w.pass(time.Second, nil)
		w.now = w.now.Add(time.Hour)
		w.pass(time.Second, nil)
		require.NoError(t, w.m.failure, "an hour of sleep is no hour of silence")
	})
}

// hungStream is an open log from which nothing comes.
type hungStream struct {
	scriptStream
	deaf  bool // Next does not notice that it is told to end
	heard time.Time
	hung  chan struct{}
}

func (s *hungStream) Heard() time.Time { return s.heard }

func (s *hungStream) Next(ctx context.Context, _ time.Duration) (*Event, error) {
	if s.deaf {
		<-s.hung
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

type hungDriver struct {
	*scriptDriver
	stream *hungStream
}

func (d hungDriver) Stream(context.Context, Position, []*Table) (Stream, error) { return d.stream, nil }

// The watchdog ends a session whose reader hangs, also one that cannot be ended.
func TestWatchdogOfAReaderThatHangs(t *testing.T) {
	t.Parallel()
	for name, deaf := range map[string]bool{"in a wait": false, "for good": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := hungDriver{scriptDriver: &scriptDriver{tables: []*Table{tableST()}}}
			d.stream = &hungStream{scriptStream: scriptStream{d: d.scriptDriver}, deaf: deaf, heard: time.Now(), hung: make(chan struct{})}
			s := script(t, d, bind(Live))
			s.opts.ReadTimeout, s.opts.StatusEvery = 200*time.Millisecond, time.Minute
			r, err := s.open()
			require.NoError(t, err)
			require.NoError(t, r.read(t.Context(), &scriptTx{}))
			m := newMonitor(r, nil)
			m.abandon = 100 * time.Millisecond
			m.start(t.Context())
			session := &sessionReader{reader: r, monitor: m}
			began := time.Now()
			err = session.Read(t.Context(), &capture.Tx{})
			require.Less(t, time.Since(began), 5*time.Second)
			want := "Nothing was received from the server for "
			if deaf {
				want = "The reader of the log has hung for 200ms and does not end when it is told to"
			}
			require.Contains(t, usererr.Message(err), want)
			require.NoError(t, session.Close())
			close(d.stream.hung)
			require.Equal(t, !deaf, len(d.closed) == 2, "what a hanging reader still uses is left to the end of the process")
		})
	}
}
