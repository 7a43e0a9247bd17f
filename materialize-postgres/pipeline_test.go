package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// storing opens a task of orders and brings its first transaction to where rows are stored.
func storing(t *testing.T, db database, r *sinktest.Runtime) *sinktest.Peer {
	t.Helper()
	r.MustApply()
	p := sinktest.Start(t, db.sinkCase(), r.Codec)
	require.NoError(t, r.Open(p))
	require.NotNil(t, p.MustCall(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}).GetAcknowledged())
	require.NotNil(t, p.MustCall(&materializepb.Request{Flush: &materializepb.Request_Flush{}}).GetFlushed())
	return p
}

func storeOrder(id int64, note string) *materializepb.Request {
	values := tuple.AppendString(tuple.AppendString(nil, "c"), note)
	return &materializepb.Request{Store: &materializepb.Request_Store{KeyPacked: tuple.AppendInt(nil, id), ValuesPacked: values}}
}

func startCommit(position int) *materializepb.Request {
	return &materializepb.Request{StartCommit: &materializepb.Request_StartCommit{RuntimeCheckpoint: sinktest.CheckpointAt(position)}}
}

// Keys of the next transaction are loaded into the destination while the commit of the one before is held back there. What
// they are joined with is what that commit stored.
func TestLoadingOverlapsTheCommit(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := storing(t, db, newTask(t, db, db.config(nil)))
	require.NoError(t, p.Send(storeOrder(7, "of the commit")))

	holder := db.connect(t)
	defer holder.close()
	require.NoError(t, holder.exec(t.Context(), "BEGIN; LOCK TABLE public.sluice_checkpoints_v1 IN EXCLUSIVE MODE"))
	require.NotNil(t, p.MustCall(startCommit(1)).GetStartedCommit())
	require.NoError(t, p.Send(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}))
	for id := range int64(100_000) { // more than what is sent at once
		require.NoError(t, p.Send(&materializepb.Request{Load: &materializepb.Request_Load{KeyPacked: tuple.AppendInt(nil, id)}}))
	}
	sessions := func() string {
		return db.exec(t, `SELECT string_agg(COALESCE(wait_event_type, '') || ': ' || query, '; ' ORDER BY query) FROM pg_stat_activity WHERE application_name = 'sluice acme/sink'`)
	}
	require.Eventually(t, func() bool {
		now := sessions()
		return strings.Contains(now, "Client: COPY pg_temp.sluice_keys_0") && strings.Contains(now, "Lock: UPDATE")
	}, 30*time.Second, 20*time.Millisecond, "keys are not copied beside the commit: %s", sessions())
	require.Empty(t, db.exec(t, "SELECT * FROM orders"), "the commit is held back")

	require.NoError(t, holder.exec(t.Context(), "ROLLBACK"))
	m, err := p.Next()
	require.NoError(t, err)
	require.NotNil(t, m.GetAcknowledged())
	require.NoError(t, p.Send(&materializepb.Request{Flush: &materializepb.Request_Flush{}}))
	m, err = p.Next()
	require.NoError(t, err)
	require.JSONEq(t, `{"id":7,"note":"of the commit","_meta":{"op":"c"}}`, string(m.GetLoaded().GetDocJson()))
	m, err = p.Next()
	require.NoError(t, err)
	require.NotNil(t, m.GetFlushed())
}

// New rows are copied straight into the table. Where it refuses some, those of the transaction are staged and merged, and
// the next transaction that meets none leads back to the direct way.
func TestNewRowsAreCopiedStraight(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.Log = nil
	r.MustApply()
	db.exec(t, "CREATE TABLE ways (n bigint GENERATED ALWAYS AS IDENTITY, way text)",
		`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.ways (way) VALUES (split_part(replace(current_query(), ''SAVEPOINT sluice;'', ''''), '' '', 1)); RETURN NULL; END'`,
		"CREATE TRIGGER note AFTER INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION note()")
	run := func(ids ...int) string {
		db.exec(t, "TRUNCATE ways")
		for _, id := range ids {
			r.Log = append(r.Log, sinktest.Change{Doc: fmt.Sprintf(`{"id":%d,"note":"ours"}`, id)})
		}
		r.Batch = len(ids)
		require.NoError(t, r.Run())
		return strings.ReplaceAll(db.exec(t, "SELECT way FROM ways ORDER BY n"), "\n", " ")
	}
	require.Equal(t, "COPY", run(1, 2, 3))

	// Somebody adds a row while the transaction that loaded its key goes on.
	r.Step = func(_ *sinktest.Peer, name string) {
		if name == "Flushed" {
			db.exec(t, "INSERT INTO orders VALUES (5, 'theirs') ON CONFLICT DO NOTHING", "TRUNCATE ways")
		}
	}
	require.Equal(t, "INSERT", run(4, 5, 6))
	r.Step = func(*sinktest.Peer, string) {}
	require.Equal(t, "COPY", run(7, 8))
	require.Equal(t, "1 2 3 4 5 6 7 8", strings.ReplaceAll(db.exec(t, "SELECT id FROM orders WHERE note = 'ours' ORDER BY id"), "\n", " "))
}

// A row that is new may need that another one changes first: a user's unique index, a foreign key from one of our tables to
// another. Within one transaction, that works in whatever order the rows come.
func TestNewRowsWaitForOthers(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.Log = []sinktest.Change{{Doc: `{"id":1,"note":"taken"}`}}
	r.MustApply()
	db.exec(t, "CREATE UNIQUE INDEX mine ON orders (note)")
	require.NoError(t, r.Run())
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":2,"note":"taken"}`}, sinktest.Change{Doc: `{"id":1,"note":"given up"}`})
	r.Batch = 2
	require.NoError(t, r.Run())
	require.Equal(t, "1|given up\n2|taken", db.exec(t, "SELECT id, note FROM orders ORDER BY id"))

	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":3,"note":"taken"}`})
	require.ErrorContains(t, r.Run(), "mine", "a row that cannot be stored is an error, not left out")
}

// COPY does not work for a table with row-level security that holds for its owner too.
func TestNewRowsWithRowSecurity(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	owner := db.name + "_owner"
	db.exec(t, "CREATE ROLE "+owner+" LOGIN PASSWORD 'secret'", "GRANT ALL ON SCHEMA public TO "+owner)
	t.Cleanup(func() { db.exec(t, "DROP OWNED BY "+owner, "DROP ROLE "+owner) })
	r := newTask(t, db, db.config(func(c map[string]any) { c["user"] = owner }))
	r.MustApply()
	db.exec(t, "ALTER TABLE orders ENABLE ROW LEVEL SECURITY", "ALTER TABLE orders FORCE ROW LEVEL SECURITY", "CREATE POLICY all_rows ON orders USING (true)")
	require.NoError(t, r.Run())
	require.Equal(t, "20", db.exec(t, "SELECT count(*) FROM orders"))
}

// A session that hangs after it has copied rows does not lock their keys for good.
func TestStalledTransactionEnds(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	cfg := db.config(func(c map[string]any) { c["advanced"] = map[string]any{"lockTimeout": "1s"} })
	r := newTask(t, db, cfg)
	p := storing(t, db, r)
	big := strings.Repeat("x", 600_000)
	for id := range int64(3) { // enough to be copied before the transaction is whole
		require.NoError(t, p.Send(storeOrder(id, big)))
	}
	alive := func(what string) string {
		return db.exec(t, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sluice acme/sink' AND datname = current_database()"+what)
	}
	require.Eventually(t, func() bool { return alive(" AND state = 'idle in transaction'") == "1" }, 30*time.Second, 5*time.Millisecond)
	require.Eventually(t, func() bool { return alive("") == "1" }, 30*time.Second, 20*time.Millisecond, "the connection that writes is still there")

	_, err := p.Call(startCommit(1))
	require.ErrorContains(t, err, "Look why the runtime stalls")
	r.Log, r.Position = r.Log[:2], 0
	require.NoError(t, r.Run())
	require.Equal(t, "2", db.exec(t, "SELECT count(*) FROM orders"))
}

// A table that refuses rows in the middle of a transaction keeps those that it took before; the rest is staged and merged, and
// all of it becomes visible at once.
func TestRefusalInTheMiddle(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := storing(t, db, newTask(t, db, db.config(nil)))
	db.exec(t, "INSERT INTO orders VALUES (10, 'theirs')")
	big := strings.Repeat("x", 400_000) // three rows make the first COPY, six the second
	for id := range int64(22) {
		require.NoError(t, p.Send(storeOrder(id, big)))
	}
	require.NotNil(t, p.MustCall(startCommit(1)).GetStartedCommit())
	require.NotNil(t, p.MustCall(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}).GetAcknowledged())
	require.Equal(t, "22|22|400000", db.exec(t, "SELECT count(*), count(DISTINCT id), min(length(note)) FROM orders"))
	direct := db.exec(t, "SELECT count(DISTINCT xmin::text) FROM orders WHERE id < 9")
	require.Equal(t, "2", direct, "each of the first two COPYs is a subtransaction of its own")
	require.Equal(t, "1", db.exec(t, "SELECT count(DISTINCT xmin::text) FROM orders WHERE id >= 9"), "the others were inserted by one statement")
}

// The more a transaction has copied, the larger its next COPY: a server keeps at hand 64 subtransactions of each session.
func TestCopiesGrow(t *testing.T) {
	t.Parallel()
	b, total := &batch{}, 0
	for ; b.copies < 64; b.copies++ {
		total += b.chunk()
	}
	require.Equal(t, 495<<20, total)
	require.Equal(t, 8<<20, b.chunk())
	b.take()
	require.Equal(t, 1<<20, b.chunk(), "of the next transaction")
}
