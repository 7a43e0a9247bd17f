package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// follow reads a stream until the test ends.
func (s *testStream) follow() {
	ctx, stop := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if _, err := s.Next(ctx, 50*time.Millisecond); err != nil {
				return
			}
		}
	}()
	s.t.Cleanup(func() { stop(); <-done })
}

// A report has the server's side of a stream, and what keeps its log.
func TestReport(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, x text)")
	d := db.driver()
	before, err := d.Report(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, before.LogEnd)
	require.EqualValues(t, -1, before.RetainedBytes, "there is no slot yet")
	require.EqualValues(t, -1, before.LagBytes)

	s := db.open(d, db.tables(d, "t")...)
	defer db.dropSlot(d)
	s.follow()
	began := time.Now()
	holder := db.transaction("INSERT INTO t VALUES (1, 'secret value')")
	r, err := d.Report(t.Context())
	require.NoError(t, err)
	require.Less(t, time.Since(began), 10*time.Second)
	require.True(t, r.AtEnd)
	require.GreaterOrEqual(t, r.RetainedBytes, int64(0))
	require.NotEmpty(t, r.Sent)
	require.NotEmpty(t, r.Received)
	require.NotEmpty(t, r.Confirmed)
	require.WithinDuration(t, time.Now(), r.Now, time.Minute)
	pid := strings.TrimSpace(db.exec("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '" + d.slot + "'"))
	require.Equal(t, "stream "+pid, r.Processes)

	conn := db.connect()
	what, age, err := oldest(t.Context(), conn, 0)
	require.NoError(t, err)
	require.Contains(t, what, "of user postgres (")
	require.NotContains(t, what, "secret", "statements hold data")
	require.Positive(t, age)
	what, _, err = oldest(t.Context(), conn, time.Hour)
	require.NoError(t, err)
	require.NotContains(t, what, fmt.Sprint(holder.PgConn().PID()), "it is not that old")
	commit(t, holder)
}

// While the reader does not read, the lag is what the server has written meanwhile.
func TestReportOfLag(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, x text)")
	d := db.driver()
	db.open(d, db.tables(d, "t")...)
	defer db.dropSlot(d)
	db.exec("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 2000) i")
	r, err := d.Report(t.Context())
	require.NoError(t, err)
	require.False(t, r.AtEnd)
	require.Greater(t, r.LagBytes, int64(2_000_000))
	require.GreaterOrEqual(t, r.RetainedBytes, r.LagBytes)
}

// What the making of a slot waits for is in the report, as it is in the log.
func TestReportWhileOpening(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, x text)")
	d := db.driver()
	tables := db.tables(d, "t")
	holder := db.transaction("INSERT INTO t VALUES (1, 'a')")
	opened := make(chan error, 1)
	go func() {
		s, err := d.Stream(context.WithoutCancel(t.Context()), cdc.Position{}, tables)
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	want := fmt.Sprintf("the replication slot can be made once older transactions have ended: process %d of user postgres", holder.PgConn().PID())
	eventually(t, "the report names what is waited for", func() bool {
		r, err := d.Report(t.Context())
		return err == nil && strings.HasPrefix(r.Waits, want)
	})
	commit(t, holder)
	require.NoError(t, <-opened)
	db.dropSlot(d)
}

func TestWalsenderInWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind, event, want string
		busy              bool
	}{
		{"Activity", "WalSenderMain", "the server's process 7 has nothing to send", false},
		{"Client", "WalSenderWaitForWAL", "the server's process 7 has nothing to send", false},
		{"Client", "WalSenderWaitForWal", "the server's process 7 has nothing to send", false},
		{"Client", "WalSenderWriteData", "the server's process 7 waits for us to take what it sends: the connection is slow or stalled", false},
		{"IPC", "WaitForStandbyConfirmation", "the server's process 7 waits for the standbys in synchronized_standby_slots to confirm", false},
		{"Lock", "relation", "the server's process 7 waits for a lock", false},
		{"", "", "the server's process 7 is decoding the log", true},
		{"IO", "ReorderBufferRead", "the server's process 7 is at work (ReorderBufferRead)", true},
	} {
		waits, busy := walsender(7, true, c.kind, c.event)
		require.Equal(t, c.want, waits)
		require.Equal(t, c.busy, busy, c.want)
	}
	waits, busy := walsender(7, false, "", "")
	require.Equal(t, "the server has no process 7 any more, which was ours", waits)
	require.False(t, busy)
	require.Equal(t, "stream 7, backfill 3 5", processes(7, []uint32{5, 3}))
	require.Equal(t, "backfill 3", processes(0, []uint32{3}))
	require.Empty(t, processes(0, nil))
}

// loggedSource is the connector with a log that a test reads.
type loggedSource struct {
	capture.Source[config, cdc.Resource, cdc.TableState]
	log *logrus.Logger
}

func (s loggedSource) Open(
	ctx context.Context, env capture.Env, cfg config, bs []*capture.Binding[cdc.Resource, cdc.TableState],
) (capture.Reader, error) {
	env.Log = logrus.NewEntry(s.log)
	return s.Source.Open(ctx, env, cfg, bs)
}

// stuckCapture is a session over one table whose documents arrive, and which a test then makes stuck.
type stuckCapture struct {
	*session.Session
	logs  *logtest.Hook
	done  chan struct{} // closed when there are no more transactions
	halt  sync.Mutex    // held while nobody takes the output
	taken atomic.Int64  // documents
}

func startStuck(t *testing.T, db *database, cfg config) *stuckCapture {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	c := &stuckCapture{logs: hook, done: make(chan struct{})}
	c.Session = session.Start(t, capture.New(loggedSource{cdc.New(spec(), connect), log}), frame.Proto)
	c.Open(c.Task(cfg), nil)
	arrived := make(chan struct{})
	go func() {
		defer close(c.done)
		for {
			c.halt.Lock()
			c.halt.Unlock() //nolint:staticcheck // it is a gate
			tx, err := c.Transaction()
			if err != nil {
				return
			}
			c.Ack(1)
			n := int64(len(tx.Documents))
			if c.taken.Add(n) == n && n > 0 {
				close(arrived)
			}
		}
	}()
	<-arrived
	return c
}

// line is the last status line for which ok holds.
func (c *stuckCapture) line(t *testing.T, ok func(e *logrus.Entry) bool) *logrus.Entry {
	t.Helper()
	var found *logrus.Entry
	eventually(t, "the log says what is going on", func() bool {
		for _, e := range c.logs.AllEntries() {
			if e.Data["eventType"] == "connectorStatus" && e.Data["table"] == nil && ok(e) {
				found = e
			}
		}
		return found != nil
	})
	return found
}

// stuckDatabase has a table with a row, and a configuration that notices silence soon.
func stuckDatabase(t *testing.T) *database {
	t.Helper()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, x text)", "INSERT INTO t VALUES (0, 'x')")
	db.cfg.Advanced.ReadTimeout, db.cfg.Advanced.StatusEvery = "2s", "1s"
	return db
}

// A server's process that hangs is noticed although its connection is fine, and the log says what the capture is doing
// until then.
func TestWatchdogOfAServerThatHangs(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root may stop the server's processes")
	}
	db := stuckDatabase(t)
	c := startStuck(t, db, db.cfg)
	e := c.line(t, func(e *logrus.Entry) bool { return e.Data["phase"] == "streaming" && e.Data["lagSeconds"] == 0.0 })
	require.Contains(t, e.Message, "streaming, at the end of the log, ")
	for _, field := range []string{"logEnd", "sent", "received", "delivered", "checkpointed", "acknowledged", "confirmed", "lagBytes", "retainedBytes", "processes", "memoryBytes", "documentsPerSecond"} {
		require.Contains(t, e.Data, field)
	}
	slot := db.cfg.Advanced.SlotName
	pid, err := strconv.Atoi(strings.TrimSpace(db.exec("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '" + slot + "'")))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }() // it may have ended
	began := time.Now()
	err = c.Wait()
	require.Error(t, err)
	require.Less(t, time.Since(began), 12*time.Second)
	require.Regexp(t, `^Nothing was received from the server for [23](\.\d+)?s, although it is asked for a sign of life every few seconds\. \(The server's side: the server's process `+
		strconv.Itoa(pid)+` has nothing to send\.\) The connection is given up\. The capture goes on from its last checkpoint when it is started again\.$`, usererr.Message(err))
	<-c.done
}

// proxy forwards connections to an address, until it is stalled: then it takes and gives nothing more, and keeps them open.
type proxy struct {
	net.Listener
	to      string
	stalled chan struct{}
	conns   sync.WaitGroup
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{Listener: listener, to: to, stalled: make(chan struct{})}
	p.conns.Go(func() {
		for {
			client, err := p.Accept()
			if err != nil {
				return
			}
			server, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.to)
			if err != nil {
				_ = client.Close()
				continue
			}
			t.Cleanup(func() { _, _ = client.Close(), server.Close() })
			p.conns.Go(func() { p.copy(client, server) })
			p.conns.Go(func() { p.copy(server, client) })
		}
	})
	t.Cleanup(func() { _ = listener.Close() })
	return p
}

func (p *proxy) copy(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-p.stalled:
			return // without closing
		default:
		}
		if err == nil {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			_, _ = to.Close(), from.Close()
			return
		}
	}
}

// A connection that something between keeps open and forwards nothing on is noticed as well, also when the server cannot be
// asked.
func TestWatchdogOfASilentConnection(t *testing.T) {
	t.Parallel()
	db := stuckDatabase(t)
	p := newProxy(t, db.cfg.Address)
	cfg := db.cfg
	cfg.Address = p.Addr().String()
	c := startStuck(t, db, cfg)
	close(p.stalled)
	began := time.Now()
	err := c.Wait()
	require.Error(t, err)
	require.Less(t, time.Since(began), 15*time.Second)
	require.Contains(t, usererr.Message(err), "Nothing was received from the server for ")
	<-c.done
}

// A runtime that takes nothing for longer than the read timeout does not make the server a silent one; when it goes on, so
// does the capture.
func TestRuntimeThatBlocksIsNoSilence(t *testing.T) {
	t.Parallel()
	db := stuckDatabase(t)
	c := startStuck(t, db, db.cfg)
	c.line(t, func(e *logrus.Entry) bool { return e.Data["phase"] == "streaming" })
	c.halt.Lock()
	// One more transaction is taken; the next is more than buffers hold.
	db.exec("INSERT INTO t VALUES (-1, 'y')")
	eventually(t, "it is taken", func() bool { return c.taken.Load() == 2 })
	db.exec("INSERT INTO t SELECT i, repeat('x', 10000) FROM generate_series(1, 2000) i")
	c.line(t, func(e *logrus.Entry) bool {
		seconds, ok := e.Data["lagSeconds"].(float64)
		return ok && seconds > 2 && e.Data["lagBytes"] != int64(0)
	})
	select {
	case <-c.done:
		t.Fatal("the session ended")
	case <-time.After(2 * time.Second): // twice the read timeout by now: what must not happen has no sign to wait for
	}
	c.halt.Unlock()
	from := len(c.logs.AllEntries())
	eventually(t, "the capture has caught up", func() bool {
		for _, e := range c.logs.AllEntries()[from:] {
			if e.Data["lagSeconds"] == 0.0 {
				return true
			}
		}
		return false
	})
	require.NoError(t, c.Stop())
}

func TestStatusOptions(t *testing.T) {
	t.Parallel()
	cfg := config{Address: "localhost", Database: "d", User: "u"}
	require.Zero(t, cfg.options().ReadTimeout, "the core's default")
	require.Equal(t, statusEvery, cfg.askEvery())
	cfg.Advanced.ReadTimeout, cfg.Advanced.StatusEvery = "0s", "10s"
	require.NoError(t, cfg.Validate())
	require.Negative(t, cfg.options().ReadTimeout, "for ever")
	require.Equal(t, 10*time.Second, cfg.options().StatusEvery)
	cfg.Advanced.ReadTimeout = "8s"
	require.Equal(t, 2*time.Second, cfg.askEvery())
	cfg.Advanced.ReadTimeout, cfg.Advanced.StatusEvery = "50ms", "x"
	message := usererr.Message(cfg.Validate())
	require.Contains(t, message, `The read timeout "50ms" is not a duration of at least a second, or 0s. Write it like 30s or 2m.`)
	require.Contains(t, message, `The status interval "x" is not a duration of at least a second. Write it like 30s or 1m.`)
}

// lockedBuffer is written to and read by different goroutines.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Whoever pulls by hand sees the same line, in words.
func TestPullShowsTheStatus(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, x text)", "INSERT INTO t VALUES (0, 'x')")
	config := fmt.Sprintf(`{address: "%s", database: %s, user: postgres, password: secret, advanced: {slotName: %s, statusEvery: 1s}}`,
		db.cfg.Address, db.cfg.Database, db.cfg.Advanced.SlotName)
	var out, errs lockedBuffer
	p := &process.Process{
		Name: "source-postgres", Args: []string{"pull", "--config", "-"}, Stdin: strings.NewReader(config), Stdout: &out, Stderr: &errs,
		LookupEnv: func(name string) (string, bool) { return "text", name == "LOG_FORMAT" }, // as on a terminal
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- p.Run(ctx, func(ctx context.Context, p *process.Process) int { return capture.Run(ctx, p, connector()) })
	}()
	shown := regexp.MustCompile(`msg="streaming, at the end of the log, \d+ documents/s; the server keeps [\d.]+ \w+ of log for it`)
	eventually(t, "the status is shown", func() bool { return shown.MatchString(errs.String()) })
	stop()
	require.Zero(t, <-ended)
	require.NotContains(t, errs.String(), "secret")
}
