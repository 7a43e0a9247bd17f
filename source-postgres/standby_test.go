package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// standbyPair is a primary, which tests write to, and a standby of it, which they capture from.
type standbyPair struct{ primary, standby *server.PostgresServer }

func newPair(t testing.TB, opts ...server.Option) standbyPair {
	t.Helper()
	primary := server.Postgres(t, server.WithAtLeast(standbyVersion), server.WithSetting("wal_writer_delay", "10ms"))
	return standbyPair{primary, server.Standby(t, primary, opts...)}
}

// sayRunning has the primary say which transactions are running ten times a second, until the test ends: slots on the standby
// are made as soon as nothing is in progress.
func (p standbyPair) sayRunning(t testing.TB) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.primary.URL("postgres"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for capture.Sleep(ctx, 100*time.Millisecond) == nil {
			_, _ = conn.Exec(ctx, "SELECT pg_log_standby_snapshot()") // fails when the primary is stopped or the test ends
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = conn.Close(context.Background())
	})
}

// database is a database of the primary, with a publication of all tables, captured from the standby.
func (p standbyPair) database(t testing.TB) *database {
	t.Helper()
	db := databaseOn(t, p.primary)
	db.cfg.Address, db.cfg.Advanced.PublicationName = p.standby.Address(), "everything"
	db.exec("CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)")
	return db
}

func (p standbyPair) catchUp(t testing.TB) { t.Helper(); p.standby.CatchUp(t, p.primary) }

func TestStandby(t *testing.T) {
	t.Parallel()
	p := newPair(t, server.WithSetting("max_standby_streaming_delay", "0"))
	t.Run("the slot waits for the primary", p.slotWaits)
	p.sayRunning(t)
	t.Run("together", func(t *testing.T) {
		for name, f := range map[string]func(*testing.T){
			"publication": p.publication, "visibility": p.visibility, "captures": p.captures, "fences": p.fences,
			"keyless": p.keyless, "keyless, added later": p.keylessAddedLater,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); f(t) })
		}
	})
	t.Run("goes back", p.goesBack) // alone: it waits for log that nobody writes meanwhile
	t.Run("conflict", p.conflict)
	t.Run("slot given up", p.slotGivenUp)
}

// The conformance suite, captured from a standby: what depends on visibility. With SLUICE_CONFORMANCE=all, all of it.
func TestConformanceOnStandby(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.sayRunning(t)
	suite := suiteBackend()
	if os.Getenv("SLUICE_CONFORMANCE") != "all" {
		suite.Only = []string{"killed at random"}
	}
	suite.Open = func(t testing.TB) cdctest.Database { return standbyDatabase{suiteDatabase{p.database(t)}, p} }
	cdctest.Run(t, suite)
}

// standbyDatabase is a database as the suite uses it: what it has created is on the standby before it is looked for there.
type standbyDatabase struct {
	suiteDatabase
	p standbyPair
}

func (s standbyDatabase) Config() json.RawMessage {
	s.p.catchUp(s.db.t)
	return s.suiteDatabase.Config()
}

// The creation of a slot waits for a word of the primary, and says so.
func (p standbyPair) slotWaits(t *testing.T) {
	db := p.database(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	p.catchUp(t)
	out := &logBuffer{}
	env := testEnv(t)
	env.Log.Logger.SetOutput(out)
	drv, _, err := connect(t.Context(), env, db.cfg)
	require.NoError(t, err)
	defer drv.Close()
	tables, err := drv.Discover(t.Context())
	require.NoError(t, err)
	opened := make(chan error, 1)
	go func() {
		s, err := drv.Stream(t.Context(), cdc.Position{}, tables)
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	eventually(t, "the log says what the slot waits for", func() bool {
		p.primary.ExecIn(t, db.cfg.Database, "SELECT txid_current()") // what happens there is not enough
		return strings.Contains(out.String(), "to have it say so at once, run there: SELECT pg_log_standby_snapshot();")
	})
	// On a busy machine fifteen seconds may have passed, after which the primary says it by itself.
	p.primary.Exec(t, "SELECT pg_log_standby_snapshot()")
	select {
	case err := <-opened:
		require.NoError(t, err)
	case <-time.After(patience):
		require.Fail(t, "the slot was not made")
	}
	require.False(t, strings.Contains(out.String(), "hot_standby_feedback"), "all is well with this standby")
}

// Whatever has to be written is written on the primary: what is missing is named, with the statement.
func (p standbyPair) publication(t *testing.T) {
	db := p.database(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)", `CREATE TABLE "U" (id int PRIMARY KEY)`, "CREATE PUBLICATION partly FOR TABLE t")
	p.catchUp(t)
	d := db.driver(func(c *config) { c.Advanced.PublicationName = "none" })
	ids := []cdc.TableID{{Schema: "public", Name: "U"}, {Schema: "public", Name: "t"}}
	create := "There is no publication \"none\", and a standby cannot make one. Have an administrator run on the primary:\n" + d.createSQL(ids, nil) + ";"
	problems := d.Check(t.Context(), ids)
	require.Len(t, problems, 1)
	require.EqualError(t, problems[0], create)
	_, err := d.Stream(t.Context(), cdc.Position{}, db.tables(d, "U", "t"))
	require.EqualError(t, err, create)

	d = db.driver(func(c *config) { c.Advanced.PublicationName = "partly" })
	_, err = d.Stream(t.Context(), cdc.Position{}, db.tables(d, "U", "t"))
	require.EqualError(t, err, `The publication "partly" lacks tables, and a standby cannot add them. Have an administrator run on the primary:
ALTER PUBLICATION "partly" ADD TABLE ONLY "public"."U";`)

	d = db.driver(func(c *config) { c.Advanced.Failover = d.server.major() >= 17 })
	if problems = d.Check(t.Context(), ids); d.server.major() >= 17 {
		require.Len(t, problems, 1)
		require.ErrorContains(t, problems[0], "Turn off advanced.failover.")
	} else {
		require.Empty(t, problems)
	}
}

// A standby's own list of transactions in progress is empty. What its chunks see is decided by the log.
func (p standbyPair) visibility(t *testing.T) {
	db := p.database(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t VALUES (1, 'old')")
	p.catchUp(t)
	d := db.driver()
	table := db.tables(d, "t")[0]
	s := db.open(d, table)
	open := db.transaction("UPDATE t SET a = 'new'")
	p.catchUp(t)
	plan, err := d.Plan(t.Context(), table) // no transaction that has ended is newer than the open one
	require.NoError(t, err)
	require.Len(t, plan.Unseen, 1)
	db.exec("INSERT INTO t VALUES (2, 'later')") // a higher identifier ends before
	p.catchUp(t)
	scan := func() *cdc.Scanned {
		scanned, err := d.Scan(t.Context(), cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 10, MaxBytes: 1 << 20}, func(cdc.Row) error { return nil })
		require.NoError(t, err)
		return scanned
	}
	before := scan()
	require.False(t, before.Snapshot.Sees(plan.Unseen[0]), "a chunk counts only if it sees all that was in progress")
	require.Equal(t, "transactions below "+string(plan.Unseen[0][1:])+", which were in progress on the primary when the backfill began, to end", d.Explain(t.Context(), plan.Unseen[0]))
	commit(t, open)
	p.catchUp(t)
	_, after := scanSeeing(t, d, table, plan)
	txns := map[string]cdc.TxnID{}
	require.NoError(t, s.Fence(t.Context(), after.High))
	for {
		ev, err := s.Next(t.Context(), time.Second)
		require.NoError(t, err)
		if ev.Op == cdc.Fence {
			break
		}
		if ev.Row != nil {
			txns[cdctest.Fields(t, ev.Row)] = ev.Txn
		}
	}
	for row, sees := range map[string]bool{`{"a":"later","id":2}`: true, `{"a":"new","id":1}`: false} {
		require.NotEmpty(t, txns[row])
		require.Equal(t, sees, before.Snapshot.Sees(txns[row]), row)
		require.True(t, after.Snapshot.Sees(txns[row]), row)
	}

	// One that is newer than all that have ended is in progress too.
	newest := db.transaction("INSERT INTO t VALUES (3, 'newest')")
	var xid string
	require.NoError(t, newest.QueryRow(t.Context(), "SELECT txid_current()::text").Scan(&xid))
	eventually(t, "the standby knows of it", func() bool { return p.standby.Exec(t, "SELECT age('3'::xid) + 3 > "+xid) == "t" })
	plan, err = d.Plan(t.Context(), table)
	require.NoError(t, err)
	require.False(t, scan().Snapshot.Sees(plan.Unseen[0]))
	commit(t, newest)
}

// Backfill and stream while the primary is written to, killed and resumed again and again.
func (p standbyPair) captures(t *testing.T) {
	db := p.database(t)
	writtenTables(db)
	p.catchUp(t)
	c := newCapture(t, db, frame.Proto)
	done := make(chan struct{})
	go func() {
		defer close(done)
		workload(t, db, 500)
	}()
	for finished := false; !finished; {
		left := 5 + rand.IntN(20)
		c.run(frame.Proto, func(*session.Transaction) bool {
			left--
			return left < 0
		})
		select {
		case <-done:
			finished = true
		default:
		}
	}
	c.run(frame.Proto, func(*session.Transaction) bool { return c.equals(db, "a", "b") })
}

func writtenTables(db *database) {
	db.cfg.Advanced.BackfillChunkRows, db.cfg.Advanced.BackfillWorkers = 200, 3
	db.exec("CREATE TABLE a (id int PRIMARY KEY, n int, big text)", "ALTER TABLE a ALTER big SET STORAGE EXTERNAL",
		"CREATE TABLE b (id int PRIMARY KEY, n int)",
		"INSERT INTO a SELECT g, 0, CASE WHEN g % 10 = 0 THEN repeat(g::text, 1000) END FROM generate_series(1, 2000) g",
		"INSERT INTO b SELECT g, 0 FROM generate_series(1, 5000) g")
}

// A fence of a chunk is passed at once where nothing happens, and lies behind everything that the chunk shows.
func (p standbyPair) fences(t *testing.T) {
	db := p.database(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	p.catchUp(t)
	d := db.driver()
	table := db.tables(d, "t")[0]
	s := db.open(d, table)
	plan, err := d.Plan(t.Context(), table)
	require.NoError(t, err)
	for id := range 5 {
		db.exec(fmt.Sprintf("INSERT INTO t VALUES (%d)", id))
		p.catchUp(t)
		var rows int
		scanned, err := d.Scan(t.Context(), cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 10, MaxBytes: 1 << 20}, func(cdc.Row) error {
			rows++
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, id+1, rows)
		started := time.Now()
		require.Equal(t, []string{fmt.Sprintf(`c t {"id":%d}`, id)}, s.passes(scanned.High))
		require.Less(t, time.Since(started), 5*time.Second)
	}
}

// A standby that replays again shows less than was captured: no chunk is read then, and no stream begins before it is where
// the capture is.
func (p standbyPair) goesBack(t *testing.T) {
	db := p.database(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
	p.catchUp(t)
	d := db.driver()
	table := db.tables(d, "t")[0]
	s := db.open(d, table)
	plan, err := d.Plan(t.Context(), table)
	require.NoError(t, err)
	s.close()

	out := &logBuffer{}
	d.log.Logger.SetOutput(out)
	end, err := parseLSN(db.exec("SELECT pg_current_wal_insert_lsn() + 100000"))
	require.NoError(t, err)
	at := s.Start()
	at.Cursor = cdc.Cursor(end.String())
	resumed := make(chan error, 1)
	go func() {
		s, err := d.Stream(t.Context(), at, []*cdc.Table{table})
		if err == nil {
			err = s.Close()
		}
		resumed <- err
	}()
	eventually(t, "the log says what is waited for", func() bool {
		return strings.Contains(out.String(), "waiting for the standby to replay its log up to "+end.String()+", where the capture goes on")
	})
	require.Empty(t, resumed)
	db.exec("INSERT INTO t SELECT generate_series(2, 3000)")
	p.catchUp(t)
	select {
	case err := <-resumed:
		require.NoError(t, err)
	case <-time.After(patience):
		require.Fail(t, "the stream did not begin")
	}

	d.floor.raise(end + 1<<30)
	_, err = d.Scan(t.Context(), cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 10, MaxBytes: 1 << 20}, func(cdc.Row) error { return nil })
	require.ErrorIs(t, err, cdc.ErrInterrupted)
	require.ErrorIs(t, err, errWentBack)
	_, err = d.Plan(t.Context(), table)
	require.ErrorIs(t, err, cdc.ErrInterrupted)
}

// Every row of a table without a key comes once, also of the transactions that are in progress when the slot is made.
func (p standbyPair) keyless(t *testing.T) {
	db := p.database(t)
	db.exec("CREATE TABLE t (a int)", "ALTER TABLE t REPLICA IDENTITY FULL", "INSERT INTO t VALUES (0)")
	p.catchUp(t)
	d := db.driver()
	table := db.tables(d, "t")[0]
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // something is in progress all the time
		defer close(done)
		var open *pgx.Conn
		for i := 0; ; i++ {
			next := db.transaction(fmt.Sprintf("INSERT INTO t VALUES (%d)", i*10+1), "SAVEPOINT s", fmt.Sprintf("INSERT INTO t VALUES (%d)", i*10+2))
			if open != nil {
				commit(t, open)
			}
			select {
			case <-stop:
				commit(t, next)
				return
			case <-time.After(30 * time.Millisecond):
			}
			open = next
		}
	}()
	s := db.open(d, table)
	close(stop)
	<-done
	p.catchUp(t)
	plan, err := d.Plan(t.Context(), table)
	require.NoError(t, err)
	rows, scanned := scanSeeing(t, d, table, plan)
	read := len(rows)
	for _, ev := range s.passes(scanned.High) {
		rows = append(rows, ev[len("c t "):])
	}
	require.NotZero(t, read)
	require.Greater(t, len(rows), read)
	var want []string
	for a := range strings.FieldsSeq(db.exec("SELECT a FROM t")) {
		want = append(want, `{"a":`+a+`}`)
	}
	require.ElementsMatch(t, want, rows)
}

// Every row of a table without a key comes once, also of transactions that were in progress when it was added, with savepoints.
func (p standbyPair) keylessAddedLater(t *testing.T) {
	db := p.database(t)
	db.exec("CREATE TABLE first (id int PRIMARY KEY)", "CREATE TABLE t (a int)", "ALTER TABLE t REPLICA IDENTITY FULL", "INSERT INTO t VALUES (1)",
		"CREATE PUBLICATION partly FOR TABLE first")
	db.cfg.Advanced.PublicationName = "partly"
	p.catchUp(t)
	d := db.driver()
	s := db.open(d, db.tables(d, "first")...)
	before := db.transaction("INSERT INTO t VALUES (2)") // its row is in no stream
	db.exec("ALTER PUBLICATION partly ADD TABLE t")
	beside := db.transaction("SAVEPOINT one", "INSERT INTO t VALUES (3)", "RELEASE one")
	p.catchUp(t)
	tables := db.tables(d, "first", "t")
	s.close()
	out := &logBuffer{}
	d.log.Logger.SetOutput(out)
	s = db.resume(d, s.Start(), tables...)
	db.exec("INSERT INTO t VALUES (10)")
	for deadline := time.Now().Add(patience); !strings.Contains(out.String(), "its capture waits for transactions below "); {
		require.True(t, time.Now().Before(deadline), "the log does not say what is waited for: %s", out)
		ev, err := s.Next(t.Context(), 50*time.Millisecond)
		require.NoError(t, err)
		require.Nil(t, ev.Row)
		require.True(t, s.joining(tables[1]))
	}
	across := db.transaction("SAVEPOINT one", "INSERT INTO t VALUES (5)", "RELEASE one")
	run(t, before, "INSERT INTO t VALUES (4)", "COMMIT")
	run(t, beside, "SAVEPOINT two", "UPDATE t SET a = 11 WHERE a = 10", "COMMIT")
	s.join(tables[1])
	run(t, across, "SAVEPOINT two", "INSERT INTO t VALUES (6)", "COMMIT")
	p.catchUp(t)
	plan, err := d.Plan(t.Context(), tables[1])
	require.NoError(t, err)
	rows, scanned := scanSeeing(t, d, tables[1], plan)
	for _, ev := range s.passes(scanned.High) {
		rows = append(rows, ev[len("c t "):])
	}
	require.ElementsMatch(t, []string{`{"a":1}`, `{"a":2}`, `{"a":3}`, `{"a":4}`, `{"a":5}`, `{"a":6}`, `{"a":11}`}, rows)
}

// A chunk that keeps the standby from replaying is cancelled, and read again with half as much.
func (p standbyPair) conflict(t *testing.T) {
	db := p.database(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 40000) g")
	p.catchUp(t)
	d := db.driver()
	table := db.tables(d, "t")[0]
	plan, err := d.Plan(t.Context(), table)
	require.NoError(t, err)
	var once sync.Once
	scan := func(locked bool) (rows int, err error) {
		_, err = d.Scan(t.Context(), cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 40000, MaxBytes: 1 << 30}, func(cdc.Row) error {
			rows++
			if locked {
				once.Do(func() {
					db.exec("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; INSERT INTO t VALUES (0); COMMIT")
					end := p.primary.Exec(t, "SELECT pg_current_wal_flush_lsn()")
					eventually(t, "the lock has come to the standby", func() bool {
						return p.standby.Exec(t, "SELECT pg_last_wal_receive_lsn() >= '"+end+"'") == "t"
					})
				})
			}
			return nil
		})
		return rows, err
	}
	_, err = scan(false) // learns how large rows are
	require.NoError(t, err)
	whole, err := scan(false)
	require.NoError(t, err)
	_, err = scan(true)
	require.ErrorIs(t, err, cdc.ErrInterrupted)
	require.ErrorContains(t, err, "conflict with recovery")
	p.catchUp(t)
	less, err := scan(false)
	require.NoError(t, err)
	require.Less(t, less, whole*3/4)
}

// A slot that the standby had to give up is named with its reason.
func (p standbyPair) slotGivenUp(t *testing.T) {
	db := p.database(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	p.catchUp(t)
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	s.close()
	// Without feedback the primary forgets what the slot needs.
	p.standby.Exec(t, "ALTER SYSTEM SET hot_standby_feedback = off", "SELECT pg_reload_conf()")
	eventually(t, "the slot is given up", func() bool {
		db.exec("CREATE TABLE x (id int)", "DROP TABLE x", "VACUUM pg_catalog.pg_class", "VACUUM pg_catalog.pg_attribute", "SELECT txid_current()")
		return p.standby.Exec(t, "SELECT conflicting FROM pg_replication_slots WHERE slot_name = '"+d.slot+"'") == "t"
	})
	_, err := d.Stream(t.Context(), s.Start(), db.tables(d, "t"))
	require.ErrorIs(t, err, cdc.ErrPositionLost)
	require.ErrorContains(t, err, "the primary has removed old rows of its catalog that decoding on the standby still needed. Set hot_standby_feedback = on on the standby, and primary_slot_name")
}

// A standby that crashes, and one that is promoted while it is captured from, go on: the stream, the backfill, and the next
// session.
func TestStandbyPromoted(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.sayRunning(t)
	db := p.database(t)
	writtenTables(db)
	p.catchUp(t)
	c := newCapture(t, db, frame.Proto)
	c.run(frame.Proto, func(tx *session.Transaction) bool { return tx != nil })
	between := *db // captured by another one, which is not running when it happens
	between.cfg.Advanced.SlotName += "_between"
	stopped := newCapture(t, &between, frame.JSON)
	stopped.run(frame.JSON, func(*session.Transaction) bool { return stopped.equals(db, "a", "b") })
	workload(t, db, 50)
	p.standby.Kill(t) // what it had replayed, and sent, it replays again
	p.standby.Start(t)
	c.run(frame.Proto, func(tx *session.Transaction) bool { return tx != nil })
	promoted := *db
	promoted.pg = p.standby
	once, written := sync.Once{}, make(chan struct{})
	c.run(frame.Proto, func(*session.Transaction) bool {
		once.Do(func() { // in the middle of the backfill, with the stream behind
			p.primary.Stop(t)
			p.standby.Promote(t)
			go func() {
				defer close(written)
				workload(t, &promoted, 100)
			}()
		})
		select {
		case <-written:
			return c.equals(&promoted, "a", "b")
		default:
			return false
		}
	})
	promoted.exec("UPDATE b SET n = -1 WHERE id < 100")
	c.run(frame.Proto, func(*session.Transaction) bool { return c.equals(&promoted, "a", "b") })
	stopped.run(frame.JSON, func(*session.Transaction) bool { return stopped.equals(&promoted, "a", "b") })
	require.Contains(t, string(c.state), `"timeline":2`)
}

// scanSeeing reads a table until the chunk sees what it must: other tests have transactions in progress too.
func scanSeeing(t *testing.T, d *driver, table *cdc.Table, plan *cdc.Plan) (rows []string, scanned *cdc.Scanned) {
	t.Helper()
	eventually(t, "what was in progress has ended", func() bool {
		var err error
		rows = nil
		scanned, err = d.Scan(t.Context(), cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 100_000, MaxBytes: 1 << 20}, func(row cdc.Row) error {
			rows = append(rows, cdctest.Fields(t, row))
			return nil
		})
		return err == nil && scanned.Snapshot.Sees(plan.Unseen[0])
	})
	return rows, scanned
}

// passes reads until the stream has passed a mark, and returns the events up to there as text.
func (s *testStream) passes(mark cdc.Mark) (out []string) {
	s.t.Helper()
	require.NoError(s.t, s.Fence(s.t.Context(), mark))
	for deadline := time.Now().Add(patience); ; {
		require.True(s.t, time.Now().Before(deadline), "the fence at %s was not passed; events: %q", mark, out)
		ev, err := s.Next(s.t.Context(), 50*time.Millisecond)
		require.NoError(s.t, err)
		switch ev.Op {
		case cdc.Fence:
			return out
		case cdc.Idle, cdc.Commit:
		default:
			out = append(out, s.text(ev))
		}
	}
}
