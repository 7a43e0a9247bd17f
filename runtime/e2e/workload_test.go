package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// The tables that the workload writes to: a number, a text and two columns as the key, rows that move between
// partitions, values out of line, and a table without a key whose every change must arrive exactly once: a trigger
// keeps the account.
const workloadTables = `
	CREATE TABLE numbered (id bigint PRIMARY KEY, n integer, amount numeric(14,3), at timestamptz, doc jsonb, note text);
	CREATE TABLE named (name text PRIMARY KEY, n integer, u uuid);
	CREATE TABLE paired (a integer, b text, v double precision, tags text[], PRIMARY KEY (a, b));
	CREATE TABLE regional (id integer, region text, n integer, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
	CREATE TABLE regional_north PARTITION OF regional FOR VALUES IN ('north');
	CREATE TABLE regional_south PARTITION OF regional FOR VALUES IN ('south');
	CREATE TABLE regional_rest PARTITION OF regional DEFAULT;
	CREATE TABLE wide (id integer PRIMARY KEY, n integer, big text, doc jsonb);
	ALTER TABLE wide ALTER COLUMN big SET STORAGE EXTERNAL, ALTER COLUMN doc SET STORAGE EXTERNAL;
	CREATE TABLE keyless (id integer, what text, amount numeric);
	ALTER TABLE keyless REPLICA IDENTITY FULL;
	CREATE TABLE account (op text, id integer, what text, amount numeric);
	CREATE FUNCTION keep_account() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF TG_OP = 'DELETE' THEN
			INSERT INTO account VALUES ('d', OLD.id, OLD.what, OLD.amount);
		ELSE
			INSERT INTO account VALUES (CASE TG_OP WHEN 'INSERT' THEN 'c' ELSE 'u' END, NEW.id, NEW.what, NEW.amount);
		END IF;
		RETURN NULL;
	END $$;
	CREATE TRIGGER keep_account AFTER INSERT OR UPDATE OR DELETE ON keyless FOR EACH ROW EXECUTE FUNCTION keep_account()`

// Rows that are there before anything runs, so that there is a backfill to interrupt. Those of the keyless table are never
// changed.
const workloadRows = `
	INSERT INTO numbered SELECT -i, i, i / 8.0, timestamptz '2024-01-01' + i * interval '1 second', jsonb_build_object('i', i), md5(i::text) FROM generate_series(1, 20000) AS i;
	INSERT INTO numbered SELECT i, i FROM generate_series(0, 1500, 2) AS i;
	INSERT INTO named SELECT 'old ' || i, i, md5(i::text)::uuid FROM generate_series(1, 3000) AS i;
	INSERT INTO paired SELECT i, 'old', i / 7.0, ARRAY[i::text] FROM generate_series(1, 3000) AS i;
	INSERT INTO regional SELECT i, (ARRAY['north', 'south', 'elsewhere'])[1 + i % 3], i FROM generate_series(0, 2999) AS i;
	INSERT INTO wide SELECT i, i, repeat(md5(i::text), 100), jsonb_build_object('x', repeat(md5(i::text), 90)) FROM generate_series(0, 299) AS i;
	INSERT INTO keyless SELECT -i, 'before', i FROM generate_series(1, 1000) AS i`

// keyed are the tables whose copy must equal them.
func keyed() []string { return []string{"numbered", "named", "paired", "regional", "wide"} }

type statement struct {
	SQL  string
	Args []any
}

// generator makes transactions of one worker. The same seed and worker make the same transactions, whatever the
// database does: statements do not depend on what is there, they hit or miss. Workers have rows of their own, but for
// one row that all fight for.
type generator struct {
	random  *rand.Rand
	worker  int
	workers int
	count   int
	language
}

// language is a workload in the words of one kind of database: statements on rows of this worker, one that changes many rows, and one on
// the row that all fight for, which may be nil.
type language struct {
	one   func(*generator) []statement
	bulk  func(*generator) statement
	fight func(*generator) statement
}

func newGenerator(seed uint64, worker, workers int, words language) *generator {
	return &generator{random: rand.New(rand.NewPCG(seed, uint64(worker))), worker: worker, workers: workers, language: words}
}

// inPostgres writes to the tables with keys, onlyKeyless to the one without.
var (
	inPostgres  = language{one: (*generator).onAny, bulk: (*generator).onMany, fight: (*generator).onShared}
	onlyKeyless = language{one: func(g *generator) []statement { return []statement{g.onKeyless()} }}
)

// next is a transaction; with rollback it is to be rolled back.
func (g *generator) next() (transaction []statement, rollback bool) {
	g.count++
	if g.count%150 == 0 && g.bulk != nil {
		return []statement{g.bulk(g)}, g.random.IntN(4) == 0
	}
	for range 1 + g.random.IntN(5) {
		transaction = append(transaction, g.one(g)...)
	}
	if g.random.IntN(10) == 0 && g.fight != nil {
		transaction = append(transaction, g.fight(g))
	}
	return transaction, g.random.IntN(12) == 0
}

func (g *generator) onShared() statement {
	return statement{"UPDATE numbered SET n = n + 1, note = $1 WHERE id = 0", []any{fmt.Sprint(g.worker, " ", g.count)}}
}

func (g *generator) onMany() statement {
	from := 1_000_000*(g.worker+1) + 1000*g.random.IntN(3)
	if g.random.IntN(3) == 0 {
		return statement{"DELETE FROM numbered WHERE id BETWEEN $1 AND $2", []any{from, from + 1500}}
	}
	return statement{`INSERT INTO numbered SELECT i, i, 0.5, now(), '{}', 'bulk' FROM generate_series($1::int, $1::int + 1500) AS i
		ON CONFLICT (id) DO UPDATE SET n = numbered.n + 1`, []any{from}}
}

func (g *generator) onAny() []statement {
	switch g.random.IntN(6) {
	case 0, 1:
		return g.onNumbered()
	case 2:
		return []statement{g.onNamed()}
	case 3:
		return []statement{g.onPaired()}
	case 4:
		return []statement{g.onRegional()}
	}
	return []statement{g.onWide()}
}

// id is a number below most that belongs to this worker.
func (g *generator) id(most int) int { return g.random.IntN(most/g.workers)*g.workers + g.worker }

func (g *generator) onNumbered() []statement {
	id := 1 + g.id(1500)
	switch g.random.IntN(8) {
	case 0:
		return []statement{{"DELETE FROM numbered WHERE id = $1", []any{id}}}
	case 1: // another key for the row
		return []statement{{"UPDATE numbered SET id = $2 WHERE id = $1 AND NOT EXISTS (SELECT FROM numbered WHERE id = $2)", []any{id, 1 + g.id(1500)}}}
	case 2: // gone and back in one transaction
		return []statement{{"DELETE FROM numbered WHERE id = $1", []any{id}}, {"INSERT INTO numbered (id, note) VALUES ($1, 'back')", []any{id}}}
	case 3: // what is rolled back to a savepoint never happened
		return []statement{
			{"SAVEPOINT here", nil},
			{"UPDATE numbered SET n = -1, note = 'never' WHERE id = $1", []any{id}},
			{"ROLLBACK TO SAVEPOINT here", nil},
			{"UPDATE numbered SET amount = amount + 0.001 WHERE id = $1", []any{id}},
		}
	case 4:
		return []statement{{"UPDATE numbered SET doc = jsonb_build_object('count', $2::int, 'text', $3::text), at = at + interval '1 microsecond' WHERE id = $1", []any{id, g.count, g.text()}}}
	}
	return []statement{{`INSERT INTO numbered VALUES ($1, $2::int, $2::int / 16.0, timestamptz 'epoch' + $2::int * interval '1.000001 s', '{"new": [1, null, "x"]}', $3)
		ON CONFLICT (id) DO UPDATE SET n = excluded.n, note = excluded.note`, []any{id, g.random.IntN(1_000_000), g.text()}}}
}

// text is short, and likes characters that need care on the way.
func (g *generator) text() string {
	odd := []string{"", "plain", `quo"te`, `back\slash`, "new\nline", "tab\t", "ünï cödé", "🙂", "trailing ", "\u0001", "NULL", "it's"}
	return odd[g.random.IntN(len(odd))]
}

func (g *generator) onNamed() statement {
	name := fmt.Sprintf("%s %d", g.text(), g.id(400))
	switch g.random.IntN(5) {
	case 0:
		return statement{"DELETE FROM named WHERE name = $1", []any{name}}
	case 1:
		return statement{"UPDATE named SET name = $2 WHERE name = $1 AND NOT EXISTS (SELECT FROM named WHERE name = $2)", []any{name, fmt.Sprintf("%s %d", g.text(), g.id(400))}}
	}
	return statement{"INSERT INTO named VALUES ($1::text, $2, md5($1::text)::uuid) ON CONFLICT (name) DO UPDATE SET n = excluded.n, u = NULL", []any{name, g.count}}
}

func (g *generator) onPaired() statement {
	a, b := g.id(300), g.text()
	switch g.random.IntN(5) {
	case 0:
		return statement{"DELETE FROM paired WHERE a = $1 AND b = $2", []any{a, b}}
	case 1:
		return statement{"UPDATE paired SET a = a + 1000 * $2::int WHERE a = $1::int AND NOT EXISTS (SELECT FROM paired WHERE a = $1::int + 1000 * $2::int)", []any{a, 1 + g.random.IntN(5)}}
	}
	return statement{
		"INSERT INTO paired VALUES ($1, $2, $3, $4) ON CONFLICT (a, b) DO UPDATE SET v = paired.v + 0.1, tags = paired.tags[1:20] || excluded.tags",
		[]any{a, b, g.random.Float64(), []string{g.text(), g.text()}},
	}
}

func (g *generator) onRegional() statement {
	id, region := g.id(3000), []string{"north", "south", "east", "west"}[g.random.IntN(4)]
	switch g.random.IntN(5) {
	case 0:
		return statement{"DELETE FROM regional WHERE id = $1", []any{id}}
	case 1: // to another partition
		return statement{"UPDATE regional SET region = $2 WHERE id = $1 AND (SELECT count(*) FROM regional WHERE id = $1) = 1", []any{id, region}}
	}
	return statement{"INSERT INTO regional VALUES ($1, $2, $3) ON CONFLICT (id, region) DO UPDATE SET n = regional.n + 1", []any{id, region, g.count}}
}

func (g *generator) onWide() statement {
	id := g.id(300)
	switch g.random.IntN(8) {
	case 0:
		return statement{"DELETE FROM wide WHERE id = $1", []any{id}}
	case 1:
		return statement{"UPDATE wide SET big = $2 WHERE id = $1", []any{id, strings.Repeat(g.text()+"x", 3000+g.random.IntN(3000))}}
	case 2:
		return statement{"UPDATE wide SET big = NULL WHERE id = $1", []any{id}}
	case 3:
		return statement{"INSERT INTO wide VALUES ($1, $2::int, repeat('wide ', $2::int), '{}') ON CONFLICT (id) DO UPDATE SET doc = excluded.doc", []any{id, 1000 + g.random.IntN(1000)}}
	}
	return statement{"UPDATE wide SET n = n + 1 WHERE id = $1", []any{id}} // big and doc are not in the log
}

func (g *generator) onKeyless() statement {
	id := g.random.IntN(200)
	switch g.random.IntN(5) {
	case 0:
		return statement{"DELETE FROM keyless WHERE id = $1", []any{id}}
	case 1:
		return statement{"UPDATE keyless SET amount = amount + 0.5, what = $2 WHERE id = $1", []any{id, g.text()}}
	}
	return statement{"INSERT INTO keyless VALUES ($1, $2, $3)", []any{id, g.text(), g.count}}
}

// A writable is a database that writers write to.
type writable interface {
	// open opens a session. It may fail while the server is gone.
	open(ctx context.Context) (writing, error)
}

// writing is a session of a writer.
type writing interface {
	// execute runs a transaction. It returns errConflict if the server chose to roll it back, and any other error of a session that
	// is still open ends the test.
	execute(ctx context.Context, transaction []statement, rollback bool) error
	closed() bool
	close()
}

var errConflict = errors.New("rolled back by the server")

// writers run generators against the source until they are stopped.
type writers struct {
	source    writable
	seed      uint64
	pause     time.Duration // between two transactions of a worker
	cancel    context.CancelFunc
	group     *errgroup.Group
	committed atomic.Int64
}

const (
	writersAtOnce = 3
	writerName    = "e2e-writer" // of their sessions
)

// startWriters starts the workers that write to tables with keys, in the words of their database. Stop them with stop.
func startWriters(t testing.TB, source writable, words language, seed uint64, pause time.Duration) *writers {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	group, ctx := errgroup.WithContext(ctx)
	w := &writers{source: source, seed: seed, pause: pause, cancel: cancel, group: group}
	t.Cleanup(func() {
		w.cancel()
		if err := group.Wait(); err != nil {
			t.Errorf("writing to the source: %v", err)
		}
	})
	for worker := range writersAtOnce {
		group.Go(func() error { return w.run(ctx, newGenerator(seed, worker, writersAtOnce, words)) })
	}
	return w
}

// startKeyless adds the worker that writes to the table without a key. Call it when that table's backfill is over: only
// then is every change a document of its own.
func (w *writers) startKeyless(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	stop := w.cancel
	w.cancel = func() { cancel(); stop() }
	w.group.Go(func() error { return w.run(ctx, newGenerator(w.seed, writersAtOnce, writersAtOnce+1, onlyKeyless)) })
}

// stop lets every worker finish the transaction at hand.
func (w *writers) stop(t testing.TB) {
	t.Helper()
	w.cancel()
	require.NoError(t, w.group.Wait(), "writing to the source")
}

func (w *writers) run(ctx context.Context, g *generator) error {
	var conn writing
	defer func() {
		if conn != nil {
			conn.close()
		}
	}()
	tick := time.NewTicker(w.pause)
	defer tick.Stop()
	var transaction []statement
	var rollback bool
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var err error
		if conn == nil || conn.closed() {
			if conn, err = w.source.open(ctx); err != nil {
				conn = nil
				continue // the server was killed, and comes back
			}
		}
		transaction, rollback = g.next()
		err = conn.execute(context.WithoutCancel(ctx), transaction, rollback)
		switch {
		case err == nil:
			w.committed.Add(1)
		case !conn.closed() && !errors.Is(err, errConflict):
			return fmt.Errorf("transaction %d of worker %d, %v: %w", g.count, g.worker, transaction, err)
		}
	}
}

// open implements writable.
func (s side) open(ctx context.Context) (writing, error) {
	conn, err := pgx.Connect(ctx, s.server.URL(s.database)+"&application_name="+writerName)
	if err != nil {
		return nil, err
	}
	return postgresWriting{conn}, nil
}

type postgresWriting struct{ conn *pgx.Conn }

func (p postgresWriting) closed() bool { return p.conn.IsClosed() }
func (p postgresWriting) close()       { _ = p.conn.Close(context.Background()) }

func (p postgresWriting) execute(ctx context.Context, transaction []statement, rollback bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tx, err := p.conn.Begin(ctx)
	if err != nil {
		return err
	}
	for _, s := range transaction {
		if _, err := tx.Exec(ctx, s.SQL, s.Args...); err != nil {
			return errors.Join(err, tx.Rollback(ctx))
		}
	}
	if rollback {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

// A seed decides everything, and different seeds, or workers, do different things.
func TestWorkloadIsDecidedByItsSeed(t *testing.T) {
	t.Parallel()
	transactions := func(seed uint64, worker int) string {
		var text strings.Builder
		g := newGenerator(seed, worker, 3, inPostgres)
		for range 500 {
			transaction, rollback := g.next()
			fmt.Fprintln(&text, transaction, rollback)
		}
		return text.String()
	}
	require.Equal(t, transactions(1, 0), transactions(1, 0))
	require.NotEqual(t, transactions(1, 0), transactions(2, 0))
	require.NotEqual(t, transactions(1, 0), transactions(1, 1))
}

// The workload runs without an error, touches all tables in all ways, and keeps its account of the keyless table.
func TestWorkload(t *testing.T) {
	t.Parallel()
	source := newSide(t, server.SharedPostgres(t))
	source.exec(t, workloadTables, "ALTER TABLE keyless DISABLE TRIGGER keep_account", workloadRows, "ALTER TABLE keyless ENABLE TRIGGER keep_account")
	w := startWriters(t, source, inPostgres, 7, time.Millisecond)
	w.startKeyless(t)
	for table, want := range map[string]string{
		"numbered": "n_tup_ins > 100 AND n_tup_upd > 100 AND n_tup_del > 50", "named": "n_tup_ins > 100 AND n_tup_upd > 50 AND n_tup_del > 10",
		"paired": "n_tup_ins > 100 AND n_tup_upd > 20 AND n_tup_del > 10", "regional_north": "n_tup_ins > 20 AND n_tup_del > 20",
		"wide": "n_tup_upd > 100 AND n_tup_del > 20", "keyless": "n_tup_ins > 100 AND n_tup_upd > 50 AND n_tup_del > 50",
	} {
		source.prints(t, "1", "SELECT count(*) FROM pg_stat_user_tables WHERE relname = '"+table+"' AND "+want)
	}
	w.stop(t)
	require.Positive(t, w.committed.Load())
	require.Equal(t, "0|0", source.exec(t, `
		SELECT (SELECT count(*) FROM keyless WHERE id >= 0) - (SELECT count(*) FROM account WHERE op = 'c') + (SELECT count(*) FROM account WHERE op = 'd'),
			(SELECT count(*) FROM keyless WHERE id < 0) - 1000`))
}
