package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/compare"
	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/runtime/e2e/network"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/cluster"
)

// arrival is how long anything may take to arrive in a destination. It bounds failures; successes do not wait for it.
const arrival = 40 * time.Second

// side is one database.
type side struct {
	server   *server.PostgresServer
	database string
	address  string // where connectors find the server
}

func newSide(t testing.TB, pg *server.PostgresServer) side {
	t.Helper()
	return side{server: pg, database: pg.NewDatabase(t), address: pg.Address()}
}

// exec runs statements as the superuser and returns what they print.
func (s side) exec(t testing.TB, sql ...string) string {
	t.Helper()
	return s.server.ExecIn(t, s.database, sql...)
}

// connect opens a session that is closed when the test ends.
func (s side) connect(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.server.URL(s.database))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// login is what both connectors' configurations have in common.
func (s side) login() map[string]any {
	return map[string]any{
		"address": s.address, "database": s.database, "sslmode": "disable",
		"user": cluster.Superuser, "password": cluster.Password,
	}
}

// world is one pipeline between two databases, with its files.
type world struct {
	bins         launch.Binaries
	source, copy side
	folder       string
	catalog      *launch.Catalog
	name         string          // of its process, where several share the pipeline
	host         *network.Host   // where the process runs; nil is here
	sluice       *launch.Runtime // the last one started
}

// newWorld makes a source and a destination on the shared server, and runs SQL in the source.
func newWorld(t testing.TB, sql ...string) *world {
	t.Helper()
	bins := binaries(t)
	pg := server.SharedPostgres(t)
	return newWorldOn(t, bins, newSide(t, pg), newSide(t, pg), sql...)
}

func newWorldOn(t testing.TB, bins launch.Binaries, source, destination side, sql ...string) *world {
	t.Helper()
	w := &world{bins: bins, source: source, copy: destination, folder: t.TempDir()}
	if len(sql) > 0 {
		source.exec(t, sql...)
	}
	t.Cleanup(func() {
		if w.sluice != nil {
			w.sluice.Kill()
		}
		if t.Failed() {
			t.Logf("the end of what sluice logged:%s\n%s", w.name, w.lastLines(60))
		}
		if dir := os.Getenv("SLUICE_E2E_KEEP"); dir != "" {
			keep(t, w.logFile(), filepath.Join(dir, strings.ReplaceAll(t.Name()+w.name, "/", "_")+".log"))
		}
	})
	return w
}

// keep copies a log.
func keep(t testing.TB, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, text, 0o600))
}

// discover fills the catalog with a capture of the tables, or of all. Its name is the database's, since a server has the slots of
// all its databases.
func (w *world) discover(t testing.TB, tables ...string) {
	t.Helper()
	var err error
	w.catalog, err = launch.Discover(t.Context(), w.bins, launch.SourcePostgres, "e2e/"+w.source.database, w.source.login(), w.folder)
	require.NoError(t, err)
	if len(tables) > 0 {
		require.NoError(t, w.catalog.Keep(tables...))
	}
}

// materialize adds a materialization of everything that is captured; options are added to the endpoint's configuration,
// and change, which may be nil, may alter a binding or leave it out.
func (w *world) materialize(t testing.TB, name string, options map[string]any, change func(table string, b *launch.MaterializationBinding) bool) {
	t.Helper()
	require.NoError(t, w.catalog.Materialize(name, w.destination(options), change))
}

// destination is the endpoint of materialize-postgres into the copy.
func (w *world) destination(options map[string]any) launch.Endpoint {
	config := w.copy.login()
	maps.Copy(config, options)
	return launch.Endpoint{Local: launch.Local{Command: []string{w.bins.Path(launch.MaterializePostgres)}, Protobuf: true, Config: config}}
}

func (w *world) pipeline() string { return filepath.Join(w.folder, "pipeline.yaml") }
func (w *world) logFile() string  { return filepath.Join(w.folder, "sluice.log") }

// start writes the pipeline file and starts sluice on it.
func (w *world) start(t testing.TB) *launch.Runtime {
	t.Helper()
	require.NoError(t, w.catalog.Write(w.pipeline()))
	return w.restart(t, launch.Options{})
}

// restart starts sluice on the pipeline as it is; files and flags that opts leaves open are the world's.
func (w *world) restart(t testing.TB, opts launch.Options) *launch.Runtime {
	t.Helper()
	require.NoError(t, w.launch(opts))
	return w.sluice
}

// launch is restart where a test cannot be ended.
func (w *world) launch(opts launch.Options) error {
	log, err := os.OpenFile(w.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	opts.Binaries, opts.Pipeline, opts.Data = w.bins, w.pipeline(), w.data()
	opts.Stdout, opts.Stderr = log, log
	opts.Join = opts.Join || w.name != ""
	if w.host != nil {
		opts.Host = w.host.Command()
	}
	w.sluice, err = launch.Start(context.Background(), opts)
	return err
}

func (w *world) data() string { return filepath.Join(w.folder, "data") }

// log is everything that sluice wrote to its outputs so far.
func (w *world) log() string {
	text, err := os.ReadFile(w.logFile())
	if err != nil {
		return ""
	}
	return string(text)
}

func (w *world) lastLines(n int) string {
	lines := strings.Split(strings.TrimSpace(w.log()), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// pairOf is a table and its copy of the same name in the schema public.
func pairOf(table string) compare.Pair { return in("public", table) }

// in is a table and its copy of the same name in a schema of the destination.
func in(schema, table string) compare.Pair {
	return compare.Pair{Source: pgx.Identifier{"public", table}, Destination: pgx.Identifier{schema, table}}
}

// softly counts only the copy's rows that are not marked as deleted.
func softly(pair compare.Pair) compare.Pair {
	pair.Only = `"_meta/op" <> 'd'`
	return pair
}

// same waits until all pairs are equal.
func (w *world) same(t testing.TB, pairs ...compare.Pair) {
	t.Helper()
	source, destination := w.source.connect(t), w.copy.connect(t)
	for _, pair := range pairs {
		last := "it was not compared yet"
		eventually(t, arrival, func() bool {
			result, err := compare.Tables(t.Context(), source, destination, pair)
			if errors.Is(err, compare.ErrShape) {
				last = err.Error()
				return false
			}
			require.NoError(t, err)
			last = result.String()
			return result.Equal()
		}, func() string { return fmt.Sprintf("the copy of %v does not become equal: %s", pair.Source, last) })
	}
}

// eventually polls until ok, or fails the test with what explain says.
func eventually(t testing.TB, within time.Duration, ok func() bool, explain func() string) {
	t.Helper()
	deadline := time.After(within)
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-deadline:
			require.FailNow(t, "waited for "+within.String(), explain())
		case <-poll.C:
		}
	}
}

// prints waits until a query in a database prints what is wanted.
func (s side) prints(t testing.TB, want, sql string) {
	t.Helper()
	conn := s.connect(t)
	got := ""
	eventually(t, arrival, func() bool {
		rows, err := conn.Query(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		if err == nil {
			var lines []string
			lines, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
				var cells []string
				for _, v := range row.RawValues() {
					cells = append(cells, string(v))
				}
				return strings.Join(cells, "|"), nil
			})
			got = strings.Join(lines, "\n")
		}
		if err != nil { // such as a table that is not there yet
			got = err.Error()
		}
		return err == nil && got == want
	}, func() string { return fmt.Sprintf("%s\nprints %s\ninstead of %s", sql, got, want) })
}
