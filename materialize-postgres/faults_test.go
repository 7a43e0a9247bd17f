package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/fault"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

// A real deadlock, of which our session is the victim: the rows are gone with the transaction, so the session ends, and the next
// one repeats it.
func TestDeadlock(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.Log = r.Log[:2]
	r.MustApply()
	require.NoError(t, r.Run())
	for id := range 2 {
		r.Log = append(r.Log, sinktest.Change{Doc: fmt.Sprintf(`{"id":%d,"note":"ours"}`, id)})
	}
	// Who waits for this long looks for a deadlock, and is its victim. The other session never does.
	db.exec(t, "ALTER DATABASE "+db.name+" SET deadlock_timeout = '3s'")
	other, watch := db.connect(t), db.connect(t)
	defer other.close()
	defer watch.close()
	require.NoError(t, other.exec(t.Context(), "SET deadlock_timeout = '1h'; BEGIN; UPDATE public.orders SET note = 'theirs' WHERE id = 1"))
	done := make(chan error, 1)
	go func() {
		poll := time.NewTicker(20 * time.Millisecond)
		defer poll.Stop()
		for range poll.C {
			rows, err := watch.rows(t.Context(), "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
			if err != nil || len(rows) > 0 {
				break
			}
		}
		done <- other.exec(t.Context(), "UPDATE public.orders SET note = 'theirs' WHERE id = 0; COMMIT")
	}()
	require.ErrorContains(t, r.Run(), "Another session in the destination changed the same rows in another order (deadlock detected)")
	require.NoError(t, <-done)
	require.Equal(t, "theirs\ntheirs", db.exec(t, "SELECT note FROM orders ORDER BY id"), "nothing of the transaction is there")
	require.NoError(t, r.Run())
	r.RequireTable(t, 0, "orders", false)
}

// A serialization failure ends the session, and the next one repeats the transaction. Ours reads what is committed, whatever
// the database's default is, so the server itself finds none in it; others raise the same, such as triggers and servers that are Postgres
// in their protocol only. Here a trigger does so once: sequences are not rolled back.
func TestSerializationFailure(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.MustApply()
	db.exec(t, "ALTER DATABASE "+db.name+" SET default_transaction_isolation = 'serializable'", "CREATE SEQUENCE attempts",
		`CREATE FUNCTION once() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
			IF current_setting('transaction_isolation') <> 'read committed' THEN RAISE 'isolation %', current_setting('transaction_isolation'); END IF;
			IF nextval('public.attempts') = 1 THEN RAISE 'could not serialize access' USING ERRCODE = '40001'; END IF;
			RETURN NULL; END$$`,
		"CREATE TRIGGER once AFTER INSERT ON orders EXECUTE FUNCTION once()")
	require.ErrorContains(t, r.Run(), "Another session in the destination changed the same rows in another order (could not serialize access), so the server ended our transaction. Nothing of it was stored, and it will be repeated.")
	require.Equal(t, "0", db.exec(t, "SELECT count(*) FROM orders"))
	require.NoError(t, r.Run())
	r.RequireTable(t, 0, "orders", false)
}

// through is a task whose connections go through a proxy.
func through(t *testing.T, db database) (*sinktest.Runtime, *fault.Proxy) {
	t.Helper()
	proxy := fault.NewProxy(t, fmt.Sprintf("%s:%d", db.pg.Host(), db.pg.Port()))
	r := newTask(t, db, db.config(func(c map[string]any) {
		c["address"] = proxy.Address()
		c["advanced"] = map[string]any{"statementTimeout": "2s"}
	}))
	return r, proxy
}

// The network goes silent, at each point of a transaction: no statement waits for longer than its deadline, and a session that
// was left behind in the server, with rows of the transaction and perhaps the checkpoint's lock, keeps nobody waiting.
func TestSilentNetwork(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"Acknowledged", "Flushed", "StartCommit"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			r, proxy := through(t, db)
			r.MustApply()
			r.Step = func(_ *sinktest.Peer, name string) {
				if name == at {
					proxy.Freeze()
				}
			}
			require.ErrorContains(t, r.Run(), "The destination did not finish a statement within 2s")
			r.Step = func(*sinktest.Peer, string) {}
			r.Applied.ConfigJson = db.config(nil)
			start := time.Now()
			require.NoError(t, r.Run())
			require.Less(t, time.Since(start), 30*time.Second, "the session that was left behind is waited for")
			r.RequireTable(t, 0, "orders", false)
		})
	}
}

// Connections break, wherever; so does a commit of which nobody learns whether it was made.
func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r, proxy := through(t, db)
	r.Batch = 3
	r.MustApply()
	messages, broken := 0, 0
	r.Step = func(_ *sinktest.Peer, _ string) {
		if messages++; messages%23 == 0 && broken < 6 {
			broken++
			proxy.Cut()
		}
	}
	for {
		err := r.Run()
		if err == nil {
			break
		}
		require.ErrorContains(t, err, "The connection to the destination broke. It will be opened again")
	}
	require.Positive(t, broken)
	r.RequireTable(t, 0, "orders", false)
}

// The connection breaks while the server takes rows, of which it keeps none, and still has the session.
func TestCopyThatBreaks(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r, proxy := through(t, db)
	r.Task.Bindings = append(r.Task.Bindings, sinktest.Binding{Collection: orders(), Resource: db.sinkCase().Resource("changes", true)})
	for id := range 20 {
		r.Log = append(r.Log, sinktest.Change{Binding: 1, Doc: fmt.Sprintf(`{"id":%d,"note":"n"}`, id)})
	}
	r.Batch = 40
	r.MustApply()
	holder := db.connect(t)
	defer holder.close()
	require.NoError(t, holder.exec(t.Context(), "BEGIN; LOCK TABLE public.changes IN ACCESS EXCLUSIVE MODE"))
	ended := make(chan error, 1)
	go func() { ended <- r.Run() }()
	const copying = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%changes%' AND wait_event_type = 'Lock'"
	db.waits(t, copying, "1")
	proxy.Retarget("127.0.0.1:1") // the server must not hear of it
	proxy.Cut()
	require.ErrorContains(t, <-ended, "The connection to the destination broke. It will be opened again")
	require.Equal(t, "1", db.exec(t, copying), "the session is still there")
	require.NoError(t, holder.exec(t.Context(), "COMMIT"))
	r.Applied.ConfigJson = db.config(nil)
	require.NoError(t, r.Run())
	require.Equal(t, "20|20", db.exec(t, "SELECT (SELECT count(*) FROM changes), (SELECT count(*) FROM orders)"))
}

// The connection breaks while the server commits, so nobody learns whether it did. It did, or did not: the position says so, and no change
// is appended twice, or missing.
func TestCommitWithoutAnswer(t *testing.T) {
	t.Parallel()
	for name, made := range map[string]bool{"made": true, "not made": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			r, proxy := through(t, db)
			r.Task.Bindings = append(r.Task.Bindings, sinktest.Binding{Collection: orders(), Resource: db.sinkCase().Resource("changes", true)})
			r.Log = r.Log[:0]
			for id := range 5 {
				r.Log = append(r.Log, sinktest.Change{Doc: fmt.Sprintf(`{"id":%d,"note":"n"}`, id)}, sinktest.Change{Binding: 1, Doc: fmt.Sprintf(`{"id":%d,"note":"n"}`, id)})
			}
			r.MustApply()
			// The trigger runs within COMMIT, and waits there for a lock.
			db.exec(t, "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END'",
				"CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON changes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()")
			holder := db.connect(t)
			defer holder.close()
			require.NoError(t, holder.exec(t.Context(), "SELECT pg_advisory_lock(1)"))
			ended := make(chan error, 1)
			go func() { ended <- r.Run() }()
			const committing = " FROM pg_stat_activity WHERE datname = current_database() AND query = 'COMMIT' AND wait_event_type = 'Lock'"
			db.waits(t, "SELECT count(*)"+committing, "1")
			proxy.Retarget("127.0.0.1:1") // the server must not hear that nobody waits any more
			proxy.Cut()
			require.ErrorContains(t, <-ended, "The connection to the destination broke. It will be opened again")
			r.Applied.ConfigJson = db.config(nil)
			position := "0"
			if made {
				position = "10"
			} else {
				require.Equal(t, "t", db.exec(t, "SELECT pg_terminate_backend(pid)"+committing))
			}
			require.NoError(t, holder.exec(t.Context(), "SELECT pg_advisory_unlock(1)"))
			db.waits(t, "SELECT count(*)"+committing, "0")
			r.Step = func(_ *sinktest.Peer, name string) {
				if name == "Opened" {
					require.Equal(t, position, fmt.Sprint(r.Position))
				}
			}
			require.NoError(t, r.Run())
			require.Equal(t, "5|5|5", db.exec(t, "SELECT count(*), count(DISTINCT id), (SELECT count(*) FROM orders) FROM changes"))
		})
	}
}

// A standby takes over that has not got everything: what it has is what counts, rows and position alike. Before it is promoted, it
// says that it cannot be written to.
func TestDestinationFailover(t *testing.T) {
	t.Parallel()
	primary := server.Postgres(t)
	db := database{primary, primary.NewDatabase(t)}
	standby := server.Standby(t, primary)
	r := newTask(t, db, db.config(nil))
	c := db.sinkCase()
	r.Task.Bindings = append(r.Task.Bindings, sinktest.Binding{Collection: orders(), Resource: c.Resource("changes", true)})
	for _, ch := range r.Log[:10] {
		r.Log = append(r.Log, sinktest.Change{Binding: 1, Doc: ch.Doc})
	}
	log := r.Log
	r.Log = log[:10]
	r.MustApply()
	require.NoError(t, r.Run())
	standby.CatchUp(t, primary)
	r.Applied.ConfigJson = database{standby, db.name}.config(nil)
	require.ErrorContains(t, r.Run(), "The destination is read-only: it is a standby")

	standby.Stop(t)
	r.Applied.ConfigJson = db.config(nil)
	r.Log = log[:25]
	require.NoError(t, r.Run())
	require.Equal(t, 25, r.Position)
	primary.Kill(t)
	standby.Start(t)
	standby.Promote(t)

	db.pg = standby
	r.Applied.ConfigJson = db.config(nil)
	r.Log = log
	r.Step = func(_ *sinktest.Peer, name string) {
		if name == "Opened" {
			require.Equal(t, 10, r.Position, "the promoted standby's own position counts")
		}
	}
	require.NoError(t, r.Run())
	require.Equal(t, "20|10", db.exec(t, "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM changes)"))
	require.Equal(t, "30", fmt.Sprint(r.Position))
}

// Checkpoints, keys and times are parameters: whatever they are, the server sees the same few statements (hard case 60).
func TestFewStatements(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithSetting("shared_preload_libraries", "pg_stat_statements"))
	db := database{pg, pg.NewDatabase(t)}
	db.exec(t, "CREATE EXTENSION pg_stat_statements")
	r := newTask(t, db, db.config(nil))
	r.Task.Bindings = append(r.Task.Bindings, sinktest.Binding{Collection: people(), Resource: []byte(`{"table":"people","history":"scd2"}`)})
	for i := range 20 {
		r.Log = append(r.Log, sinktest.Change{Binding: 1, Doc: fmt.Sprintf(`{"id":%d,"name":"n","grade":%d,"bio":"","_meta":{"op":"u","source":{"ts_ms":%d}}}`, i%3, i, i)})
	}
	r.Batch = 1
	r.MustApply()
	run := func() []string {
		require.NoError(t, r.Run())
		return strings.Split(db.exec(t, "SELECT DISTINCT query FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%' ORDER BY 1"), "\n")
	}
	run()
	r.Log = append(r.Log, r.Log...)
	first := run()
	r.Log = append(r.Log, r.Log...)
	require.Equal(t, first, run(), "80 transactions more, and no statement more")
	require.NotContains(t, strings.Join(first, "\n"), `\x`)
}
