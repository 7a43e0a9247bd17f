package e2e

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

const three = `CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE b (id integer PRIMARY KEY); CREATE TABLE c (id integer PRIMARY KEY);
	INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); INSERT INTO c VALUES (1)`

// What is wrong from the start is said by `sluice run` in one clear line for each attempt, without secrets.
func TestWrongFromTheStart(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, w *world, source, destination map[string]any)
		want  string // regular expression
	}{
		{"wrong password", set("source", "password", "wrong-secret"), `does not accept the password of user "postgres"`},
		{"wrong port", set("source", "address", "127.0.0.1:1"), `Nothing listens at 127\.0\.0\.1:1`},
		{"unknown host", set("source", "address", "nowhere.invalid"), `host name of the address nowhere\.invalid is not known`},
		{"unknown database", set("source", "database", "nothing"), `has no database "nothing"`},
		{"unknown field", set("source", "pasword", "x"), `pasword`},
		{"not allowed to replicate", func(t *testing.T, w *world, source, _ map[string]any) {
			t.Helper()
			w.login(t, source, "reader", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO %")
		}, `User "reader_\w+" may not replicate.*ALTER ROLE`},
		{"missing grant on one of three tables", func(t *testing.T, w *world, source, _ map[string]any) {
			t.Helper()
			w.login(t, source, "partial", "ALTER ROLE % REPLICATION; GRANT SELECT ON a, c TO %; GRANT CREATE ON DATABASE "+w.source.database+" TO %")
		}, `may not read table public\.b\b.*GRANT SELECT ON`},
		{"vanished table", func(t *testing.T, w *world, _, _ map[string]any) {
			t.Helper()
			w.source.exec(t, "DROP TABLE b")
		}, `table public\.b does not exist`},
		{"wrong password of the destination", set("destination", "password", "wrong-secret"), `refused user "postgres": the password is wrong`},
		{"destination is not there", set("destination", "address", "127.0.0.1:1"), `The server at 127\.0\.0\.1:1 cannot be reached`},
		{"destination is read-only", func(t *testing.T, w *world, _, _ map[string]any) {
			t.Helper()
			w.copy.exec(t, "ALTER DATABASE "+w.copy.database+" SET default_transaction_read_only = on")
		}, `destination is read-only`},
		{"destination has another's table", func(t *testing.T, w *world, _, _ map[string]any) {
			t.Helper()
			w.copy.exec(t, "CREATE TABLE b (id text)")
		}, `Table .*b.* exists already and was not created by this materialization`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, three)
			w.discover(t)
			source, destination := w.source.login(), w.copy.login()
			test.spoil(t, w, source, destination)
			capture, err := w.catalog.Capture()
			require.NoError(t, err)
			capture.Endpoint.Local.Config = source
			w.materialize(t, "e2e/trouble", destination, nil)
			w.start(t)
			w.complains(t, test.want)
			require.NotContains(t, w.log(), "wrong-secret")
			require.NotContains(t, w.log(), "goroutine ")
			require.NoError(t, w.sluice.Stop(), "a task that fails does not keep sluice from a clean stop")
		})
	}
}

// set spoils one member of a configuration.
func set(which, member, value string) func(*testing.T, *world, map[string]any, map[string]any) {
	return func(_ *testing.T, _ *world, source, destination map[string]any) {
		config := source
		if which == "destination" {
			config = destination
		}
		config[member] = value
	}
}

// login makes a role for this world's source and puts it into the configuration. % in SQL is the role's name.
func (w *world) login(t *testing.T, config map[string]any, role, sql string) {
	t.Helper()
	name := role + "_" + w.source.database
	w.source.exec(t, "CREATE ROLE "+name+" LOGIN PASSWORD 'wrong-secret'", strings.ReplaceAll(sql, "%", name))
	t.Cleanup(func() { w.source.exec(t, "DROP OWNED BY "+name, "DROP ROLE "+name) })
	maps.Copy(config, map[string]any{"user": name, "password": "wrong-secret"})
}

func TestServerWithoutLogicalLog(t *testing.T) {
	t.Parallel()
	bins := binaries(t)
	pg := server.Postgres(t, server.WithSetting("wal_level", "replica"))
	w := newWorldOn(t, bins, newSide(t, pg), newSide(t, pg), three)
	w.discover(t)
	w.start(t)
	w.complains(t, `wal_level is "replica".*ALTER SYSTEM SET wal_level = logical`)
}

// What goes wrong between two runs.
func TestWrongAtTheSecondRun(t *testing.T) {
	t.Parallel()
	const slotOf = "(SELECT slot_name FROM pg_replication_slots WHERE database = current_database())"
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, w *world)
		want  string
	}{
		{"slot in use", func(t *testing.T, w *world) {
			t.Helper()
			w.occupySlot(t)
		}, `replication slot "\w+" is in use by another process`},
		{"slot gone", func(t *testing.T, w *world) {
			t.Helper()
			w.source.exec(t, "SELECT pg_drop_replication_slot("+slotOf+")")
			w.stopAtSlotLoss(t)
		}, `The replication slot "\w+" is gone, and with it the changes since`},
		{"slot made anew", func(t *testing.T, w *world) {
			t.Helper()
			name := w.source.exec(t, "SELECT "+slotOf)
			w.source.exec(t, "SELECT pg_drop_replication_slot('"+name+"')", "INSERT INTO a VALUES (1000)", "SELECT pg_create_logical_replication_slot('"+name+"', 'pgoutput')")
			w.stopAtSlotLoss(t)
		}, `The replication slot "\w+" begins at .* it was made again`},
		{"another server behind the address", func(t *testing.T, w *world) {
			t.Helper()
			other := newSide(t, server.Postgres(t))
			other.exec(t, three)
			config := w.source.login()
			config["address"], config["database"] = other.server.Address(), other.database
			w.catalog.Captures[w.captureName(t)].Endpoint.Local.Config = config
		}, `Another server answers at`},
		{"table locked in the destination", func(t *testing.T, w *world) {
			t.Helper()
			conn := w.copy.connect(t)
			_, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
			require.NoError(t, err)
		}, `locked by another session`},
		{"table dropped in the destination", func(t *testing.T, w *world) {
			t.Helper()
			w.copy.exec(t, "DROP TABLE a")
		}, `(Table .*a.* does not exist|Something is missing in the destination).*backfill counter`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, three)
			w.discover(t)
			w.materialize(t, "e2e/trouble", map[string]any{"hardDelete": true, "advanced": map[string]any{"lockTimeout": "1s"}}, nil)
			w.start(t)
			w.same(t, pairOf("a"), pairOf("b"), pairOf("c"))
			require.NoError(t, w.sluice.Stop())
			w.source.exec(t, "INSERT INTO a VALUES (2)")
			test.spoil(t, w)
			w.start(t)
			w.complains(t, test.want)
		})
	}
}

// After the slot was lost, a backfill of every table begins anew by itself, and what was written while nobody looked is in the
// destination, too; what was deleted is there until the advice is followed.
func TestBeginAnewAfterALostSlot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, itemsFill)
	w.discover(t)
	w.materialize(t, "e2e/anew", map[string]any{"hardDelete": true}, nil)
	w.start(t)
	w.same(t, pairOf("items"))
	require.NoError(t, w.sluice.Stop())
	w.source.exec(t, changeItems()...)
	w.source.exec(t, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
	w.source.exec(t, "UPDATE items SET name = 'later' WHERE id % 3 = 0")
	w.start(t)
	w.source.exec(t, "INSERT INTO items VALUES (200000, 'after')")
	w.copy.prints(t, "after", "SELECT name FROM items WHERE id = 200000")
	require.Regexp(t, `"eventType":"positionLost".*is gone.*Every table is backfilled again, and nothing is skipped.*raise the backfill counters`, w.log())
	w.copy.prints(t, w.source.exec(t, "SELECT count(*) FROM items WHERE name = 'later'"), "SELECT count(*) FROM items WHERE name = 'later'")
	w.copy.prints(t, "1", "SELECT count(*) FROM items WHERE id = 1") // deleted meanwhile
	require.NoError(t, w.sluice.Stop())

	w.catalog.Captures[w.captureName(t)].Bindings[0].Backfill++
	w.catalog.Materializations["e2e/anew"].Bindings[0].Backfill++
	w.start(t)
	w.same(t, pairOf("items"))
}

// stopAtSlotLoss has the capture stop with advice when its slot is lost.
func (w *world) stopAtSlotLoss(t *testing.T) {
	t.Helper()
	config := w.source.login()
	config["advanced"] = map[string]any{"onSlotLoss": "stop"}
	w.catalog.Captures[w.captureName(t)].Endpoint.Local.Config = config
}

func (w *world) captureName(t *testing.T) string {
	t.Helper()
	for name := range w.catalog.Captures {
		return name
	}
	require.FailNow(t, "the catalog has no capture")
	return ""
}

// occupySlot reads the world's slot until the test ends, as another program would.
func (w *world) occupySlot(t *testing.T) {
	t.Helper()
	slot := w.source.exec(t, "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
	publication := w.source.exec(t, "SELECT pubname FROM pg_publication")
	conn, err := pgconn.Connect(t.Context(), w.source.server.URL(w.source.database)+"&replication=database")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT " + slot + " LOGICAL 0/0 (proto_version '1', publication_names '" + publication + "')"})
	require.NoError(t, conn.Frontend().Flush())
	message, err := conn.ReceiveMessage(t.Context())
	require.NoError(t, err)
	require.IsType(t, &pgproto3.CopyBothResponse{}, message)
}

// Two runtimes that run one materialization into one destination, as when a machine is restored from a copy while the old
// one still runs: the older one is locked out, and says so.
func TestTwoInstancesOfOneMaterialization(t *testing.T) {
	t.Parallel()
	w := newWorld(t, three)
	w.discover(t)
	w.materialize(t, "e2e/twice", nil, nil)
	w.start(t)
	w.same(t, softly(pairOf("a")))
	require.NoError(t, w.sluice.Stop())

	twin := newWorldOn(t, w.bins, w.source, w.copy)
	require.NoError(t, os.CopyFS(twin.data(), os.DirFS(w.data())))
	twin.catalog = &launch.Catalog{Collections: w.catalog.Collections, Materializations: w.catalog.Materializations}
	w.start(t)
	w.source.exec(t, "INSERT INTO a SELECT generate_series(2, 100)")
	w.same(t, softly(pairOf("a")))
	twin.start(t)
	eventually(t, arrival, func() bool {
		w.source.exec(t, "INSERT INTO a SELECT max(id) + 1 FROM a")
		return strings.Contains(w.log(), "took over")
	}, func() string { return "the older instance goes on" })
	w.complains(t, `Another instance took over the materialization "e2e/twice"`)
}

// Another runtime, with a log of its own, cannot know what the destination has.
func TestDestinationOfAnotherLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, three)
	w.discover(t)
	w.materialize(t, "e2e/mine", nil, nil)
	w.start(t)
	w.same(t, softly(pairOf("a")))
	require.NoError(t, w.sluice.Stop())
	require.NoError(t, os.RemoveAll(w.data()))
	w.start(t)
	w.complains(t, `positions .* of another log than the one in this data folder`)
}

// Two runtimes in one data folder would be two writers of one log.
func TestTwoRuntimesInOneFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, three)
	w.discover(t)
	w.materialize(t, "e2e/twice", nil, nil)
	first := w.start(t)
	w.same(t, softly(pairOf("a")))
	second := w.restart(t, launch.Options{})
	w.sluice = first
	eventually(t, arrival, func() bool {
		select {
		case <-second.Exited():
			return true
		default:
			return false
		}
	}, func() string { second.Kill(); return "the second sluice goes on" })
	require.Error(t, second.Err())
	require.Regexp(t, `data.*(in use|another sluice)`, w.log())
	require.NoError(t, first.Stop())
}

// line is one JSON line of a log.
type line struct {
	Level   string
	Message string
	Fields  struct{ Failures int }
}

// complains waits for the message that people see, and checks that each attempt says it once, and that it is one line or
// a numbered list of problems.
func (w *world) complains(t *testing.T, want string) {
	t.Helper()
	pattern := regexp.MustCompile("(?s)" + want)
	var matching []line
	attempts := 0
	eventually(t, arrival, func() bool {
		matching, attempts = nil, 0
		for text := range strings.Lines(w.log()) {
			var l line
			if json.Unmarshal([]byte(text), &l) != nil {
				continue
			}
			if l.Fields.Failures > 0 {
				attempts++
			}
			if pattern.MatchString(l.Message) {
				matching = append(matching, l)
			}
		}
		return len(matching) > 0
	}, func() string { return "nobody says " + want })
	for _, l := range matching {
		require.Equal(t, "error", l.Level, l.Message)
		if strings.Contains(l.Message, "\n") {
			require.Regexp(t, `(?m)^2\. `, l.Message, "several lines, but no list")
		}
	}
	require.LessOrEqual(t, len(matching), attempts+1, "said more than once an attempt: %v", matching)
}
