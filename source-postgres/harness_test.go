package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// patience bounds every wait of the tests. It is for a machine that has much else to do: nothing waits for its end.
const patience = 2 * time.Minute

// database is a database of its own for one test, and how to reach it.
type database struct {
	t        testing.TB
	pg       *server.PostgresServer
	cfg      config
	sessions *sessions
}

// newDatabase makes a database on the server that all tests share.
func newDatabase(t testing.TB) *database { return databaseOn(t, server.SharedPostgres(t)) }

// databaseOn makes a database on a server.
func databaseOn(t testing.TB, pg *server.PostgresServer) *database {
	t.Helper()
	name := pg.NewDatabase(t)
	cfg := config{Address: pg.Address(), Database: name, User: "postgres", Password: schema.NewSecret("secret")}
	// Slots belong to the whole server.
	cfg.Advanced.SlotName = "slot_" + name
	if pg.Major() >= 13 {
		// The least there is: from Postgres 14 on, everything but small transactions comes in pieces.
		cfg.Advanced.Options = map[string]string{decodingMemorySetting: "64kB"}
	}
	require.NoError(t, cfg.Validate())
	db := &database{t: t, pg: pg, cfg: cfg, sessions: &sessions{idle: map[string][]*pgconn.PgConn{}}}
	t.Cleanup(db.sessions.close)
	return db
}

// exec runs statements as the superuser, each string in its own transaction, and returns what they print: one line a row,
// columns separated by "|". An error fails the test.
func (db *database) exec(sql ...string) string {
	db.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(db.t.Context()), 5*time.Minute)
	defer cancel()
	url := db.pg.URL(db.cfg.Database)
	conn, err := db.sessions.get(ctx, url)
	require.NoError(db.t, err)
	var lines []string
	for _, s := range sql {
		results, err := conn.Exec(ctx, s).ReadAll()
		if err != nil {
			_ = conn.Close(ctx)
			require.NoError(db.t, err, s)
		}
		for _, result := range results {
			for _, row := range result.Rows {
				lines = append(lines, string(bytes.Join(row, []byte{'|'})))
			}
		}
	}
	db.sessions.put(url, conn)
	return strings.Join(lines, "\n")
}

// sessions are what a test's statements run on. A new one for each would cost ten times as much as most of the statements.
type sessions struct {
	mu     sync.Mutex
	idle   map[string][]*pgconn.PgConn
	closed bool
}

func (s *sessions) get(ctx context.Context, url string) (*pgconn.PgConn, error) {
	for {
		s.mu.Lock()
		var conn *pgconn.PgConn
		if n := len(s.idle[url]); n > 0 {
			conn, s.idle[url] = s.idle[url][n-1], s.idle[url][:n-1]
		}
		s.mu.Unlock()
		if conn == nil {
			return pgconn.Connect(ctx, url)
		}
		if _, err := conn.Exec(ctx, "DISCARD ALL").ReadAll(); err == nil {
			return conn, nil
		}
		_ = conn.Close(ctx) // the server was stopped, or the session ended
	}
}

func (s *sessions) put(url string, conn *pgconn.PgConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || conn.TxStatus() != 'I' {
		_ = conn.Close(context.Background())
		return
	}
	s.idle[url] = append(s.idle[url], conn)
}

func (s *sessions) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, conns := range s.idle {
		for _, conn := range conns {
			_ = conn.Close(context.Background())
		}
	}
	clear(s.idle)
}

// viaRoot are the options of a publication that sends partitions under the name of their table, where the server has them.
func (db *database) viaRoot() string {
	if db.pg.Major() < 13 {
		return ""
	}
	return " WITH (publish_via_partition_root = true)"
}

// connect opens a session of the test's own.
func (db *database) connect() *pgx.Conn {
	db.t.Helper()
	conn, err := pgx.Connect(db.t.Context(), db.pg.URL(db.cfg.Database))
	require.NoError(db.t, err)
	db.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// transaction begins a transaction on a session of its own.
func (db *database) transaction(sql ...string) *pgx.Conn {
	db.t.Helper()
	conn := db.connect()
	for _, s := range append([]string{"BEGIN"}, sql...) {
		_, err := conn.Exec(db.t.Context(), s)
		require.NoError(db.t, err)
	}
	return conn
}

func commit(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	_, err := conn.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
}

// driver opens the driver under test. Changes may change its configuration.
func (db *database) driver(changes ...func(*config)) *driver {
	db.t.Helper()
	cfg := db.cfg
	for _, change := range changes {
		change(&cfg)
	}
	drv, _, err := connect(db.t.Context(), testEnv(db.t), cfg)
	require.NoError(db.t, err)
	d, ok := drv.(*driver)
	require.True(db.t, ok)
	db.t.Cleanup(func() { _ = d.Close() })
	return d
}

func testEnv(t testing.TB) capture.Env {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	return capture.Env{Task: "acme/" + t.Name(), Log: logrus.NewEntry(log)}
}

// dropSlot drops the driver's slot once the server has noticed that nobody reads it.
func (db *database) dropSlot(d *driver) {
	db.t.Helper()
	eventually(db.t, "the slot can be dropped", func() bool {
		return db.exec("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '"+d.slot+"' AND NOT active") != "" ||
			db.exec("SELECT FROM pg_replication_slots WHERE slot_name = '"+d.slot+"'") == ""
	})
}

// tables discovers tables in the schema public.
func (db *database) tables(d *driver, names ...string) []*cdc.Table {
	db.t.Helper()
	var ids []cdc.TableID
	for _, name := range names {
		ids = append(ids, cdc.TableID{Schema: "public", Name: name})
	}
	found, err := d.Discover(db.t.Context(), ids...)
	require.NoError(db.t, err)
	require.Len(db.t, found, len(names))
	return found
}

// open starts the stream at the log's present end.
func (db *database) open(d *driver, tables ...*cdc.Table) *testStream {
	db.t.Helper()
	return db.resume(d, cdc.Position{}, tables...)
}

func (db *database) resume(d *driver, from cdc.Position, tables ...*cdc.Table) *testStream {
	db.t.Helper()
	s, err := d.Stream(db.t.Context(), from, tables)
	require.NoError(db.t, err)
	ts := &testStream{t: db.t, d: d, Stream: s}
	db.t.Cleanup(ts.close)
	for _, t := range tables {
		if t.Origin == "" {
			t.Origin = s.Origin(t.ID)
		}
	}
	return ts
}

// testStream is a stream whose events are read as text.
type testStream struct {
	t testing.TB
	d *driver
	cdc.Stream
	once   sync.Once
	shapes []*cdc.Table
	cursor cdc.Cursor
	idle   time.Time // since when nothing has come
}

// Next is the stream's, with an end to patience: when nothing comes for too long, it fails the test with what stream and
// server are doing.
func (s *testStream) Next(ctx context.Context, wait time.Duration) (*cdc.Event, error) {
	began := time.Now()
	ev, err := s.Stream.Next(ctx, wait)
	switch {
	case err != nil || ev.Op != cdc.Idle || ev.Cursor != "":
		s.idle = time.Time{}
	case s.idle.IsZero():
		s.idle = began
	}
	if !s.idle.IsZero() && time.Since(s.idle) >= patience {
		require.FailNow(s.t, "nothing has come for "+patience.String(), s.doing())
	}
	return ev, err
}

// doing is what the stream and the server are doing, for who waits too long.
func (s *testStream) doing() string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), 30*time.Second)
	defer cancel()
	st, ok := s.Stream.(*stream)
	if !ok {
		return "not a stream of ours"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "started at %s, passed %s, gave %s, acknowledged %s, last heard %s ago, fences %v, %d bytes unread, pieces of %d transactions\n",
		st.start.Cursor, st.passed, st.cursor, lsn(st.feedback.acked.Load()), time.Since(st.Heard()), st.fences, st.wire.w-st.wire.r, len(st.pieces))
	conn, err := pgconn.Connect(ctx, "host="+strings.Split(s.d.cfg.Address, ":")[0]+" port="+strings.Split(s.d.cfg.Address, ":")[1]+" user=postgres password=secret dbname=postgres")
	if err != nil {
		return b.String() + err.Error()
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range []string{
		"SELECT r.* FROM pg_replication_slots r",
		"SELECT r.* FROM pg_stat_replication r",
		"SELECT pid, backend_type, datname, state, backend_xid, backend_xmin, wait_event_type, wait_event, now() - xact_start, left(query, 100) FROM pg_stat_activity WHERE xact_start IS NOT NULL OR backend_type = 'walsender'",
	} {
		results, err := conn.Exec(ctx, sql).ReadAll()
		if err != nil {
			return b.String() + err.Error()
		}
		b.WriteString(sql + "\n")
		for _, row := range results[0].Rows {
			b.WriteString("  " + string(bytes.Join(row, []byte{'|'})) + "\n")
		}
	}
	return b.String()
}

func (s *testStream) close() {
	s.once.Do(func() { _ = s.Close() })
}

// fence waits until the stream has passed the log's present end, and returns the events up to there as text.
func (s *testStream) fence() []string {
	s.t.Helper()
	var out []string
	s.each(func(ev *cdc.Event) { out = append(out, s.text(ev)) })
	return out
}

// each gives the events up to the log's present end to f, except those that are no change.
func (s *testStream) each(f func(*cdc.Event)) {
	s.t.Helper()
	var text string
	err := s.d.conns.with(s.t.Context(), func(conn *pgx.Conn) error {
		return conn.QueryRow(s.t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&text)
	})
	require.NoError(s.t, err)
	at, err := parseLSN(text)
	require.NoError(s.t, err)
	mark := s.d.mark(at)
	require.NoError(s.t, s.Fence(s.t.Context(), mark))
	seen := 0
	for deadline := time.Now().Add(patience); ; {
		require.True(s.t, time.Now().Before(deadline), "the fence at %s was not passed after %d events", mark, seen)
		ev, err := s.Next(s.t.Context(), 50*time.Millisecond)
		require.NoError(s.t, err)
		switch ev.Op {
		case cdc.Fence:
			require.Equal(s.t, mark, ev.Mark)
			return
		case cdc.Idle:
		case cdc.Commit:
			s.cursor = ev.Cursor
		default:
			seen++
			f(ev)
		}
	}
}

// text is an event in a short notation, and notes its shape.
func (s *testStream) text(ev *cdc.Event) string {
	s.t.Helper()
	if ev.Op == cdc.Shape {
		s.shapes = append(s.shapes, ev.Shape)
	}
	return cdctest.EventText(s.t, ev)
}

// scanAll reads a whole table as a backfill does, chunk by chunk, and returns its rows and their keys.
func (db *database) scanAll(d *driver, t *cdc.Table, maxRows int) (rows []string, keys [][]byte) {
	db.t.Helper()
	return cdctest.ScanAll(db.t, d, t, maxRows)
}

// eventually polls until a condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 20*time.Millisecond, what)
}

// scanKeys reads rows by their keys.
func (db *database) scanKeys(d *driver, t *cdc.Table, keys [][]byte) []string {
	db.t.Helper()
	return cdctest.ScanKeys(db.t, d, t, keys)
}
