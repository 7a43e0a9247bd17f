package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// patience bounds every wait of the tests.
const patience = 60 * time.Second

// flavors runs a test against both servers.
func flavors(t *testing.T, test func(t *testing.T, flavor string)) {
	t.Helper()
	for _, flavor := range []string{mysqld.MySQL, mysqld.MariaDB} {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			test(t, flavor)
		})
	}
}

// database is a database of its own for one test, and how to reach it.
type database struct {
	t      testing.TB
	server *server.MySQLServer
	cfg    config
	name   string
}

// newDatabase makes a database on the server that all tests share.
func newDatabase(t testing.TB, flavor string) *database {
	t.Helper()
	return databaseOn(t, server.SharedMySQL(t, flavor))
}

var databases atomic.Int64

// databaseOn makes a database on a server.
func databaseOn(t testing.TB, s *server.MySQLServer) *database {
	t.Helper()
	db := &database{t: t, server: s, name: fmt.Sprintf("test_%d", databases.Add(1))}
	db.cfg = config{Address: s.Address(), User: mysqld.User, Password: schema.NewSecret(mysqld.Password), Databases: []string{db.name}}
	db.cfg.Advanced.MinRetention = "0s"
	require.NoError(t, db.cfg.Validate())
	admin := db.session("")
	require.NoError(t, admin.exec(t.Context(), "CREATE DATABASE "+db.name+" CHARACTER SET utf8mb4"))
	t.Cleanup(func() {
		// The test's context is over.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s, err := newDialer(db.cfg, testEnv(t).Log).open(ctx)
		if err != nil {
			return // the test has stopped its server
		}
		_ = s.exec(ctx, "DROP DATABASE IF EXISTS "+db.name)
		_ = s.close()
	})
	return db
}

// session opens a session of the test's own, in a database.
func (db *database) session(database string) *session {
	db.t.Helper()
	s, err := newDialer(db.cfg, testEnv(db.t).Log).open(db.t.Context())
	require.NoError(db.t, err)
	require.NoError(db.t, s.exec(db.t.Context(), "SET NAMES utf8mb4"))
	if database != "" {
		require.NoError(db.t, s.exec(db.t.Context(), "USE "+database))
	}
	db.t.Cleanup(func() { _ = s.close() })
	return s
}

// exec runs statements in the database, on one session.
func (db *database) exec(sql ...string) {
	db.t.Helper()
	s := db.session(db.name)
	for _, statement := range sql {
		require.NoError(db.t, s.exec(db.t.Context(), statement), statement)
	}
	require.NoError(db.t, s.close())
}

// driver opens the driver under test. Changes may change its configuration.
func (db *database) driver(changes ...func(*config)) *driver {
	db.t.Helper()
	cfg := db.cfg
	for _, change := range changes {
		change(&cfg)
	}
	require.NoError(db.t, cfg.Validate())
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

// tables discovers tables of the database.
func (db *database) tables(d *driver, names ...string) []*cdc.Table {
	db.t.Helper()
	var out []*cdc.Table
	for _, name := range names {
		found, err := d.Discover(db.t.Context(), cdc.TableID{Schema: db.name, Name: name})
		require.NoError(db.t, err)
		require.Len(db.t, found, 1, name)
		out = append(out, found[0])
	}
	return out
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
	return ts
}

// testStream is a stream whose events are read as text.
type testStream struct {
	t testing.TB
	d *driver
	cdc.Stream
	once   sync.Once
	cursor cdc.Cursor
}

func (s *testStream) close() { s.once.Do(func() { _ = s.Close() }) }

// fence waits until the stream has passed the log's present end, and returns the events up to there as text.
func (s *testStream) fence() []string {
	s.t.Helper()
	var out []string
	require.NoError(s.t, s.each(func(ev *cdc.Event) { out = append(out, s.text(ev)) }))
	return out
}

// each gives the events up to the log's present end to f, except those that are no change. It returns the stream's error.
func (s *testStream) each(f func(*cdc.Event)) error {
	s.t.Helper()
	var end place
	require.NoError(s.t, s.d.conns.with(s.t.Context(), func(q *session) (err error) {
		end, err = s.d.end(s.t.Context(), q)
		return err
	}))
	require.NoError(s.t, s.Fence(s.t.Context(), cdc.Mark(end.String())))
	for deadline := time.Now().Add(patience); ; {
		require.True(s.t, time.Now().Before(deadline), "the fence at %s was not passed", end)
		ev, err := s.Next(s.t.Context(), 50*time.Millisecond)
		if err != nil {
			return err
		}
		switch ev.Op {
		case cdc.Fence:
			return nil
		case cdc.Idle:
		case cdc.Commit:
			s.cursor = ev.Cursor
		default:
			f(ev)
		}
	}
}

// text is an event in a short notation.
func (s *testStream) text(ev *cdc.Event) string {
	s.t.Helper()
	return cdctest.EventText(s.t, ev)
}

// scanAll reads a whole table as a backfill does, chunk by chunk, and returns its rows and their keys.
func (db *database) scanAll(d *driver, t *cdc.Table, maxRows int) (rows []string, keys [][]byte) {
	db.t.Helper()
	return cdctest.ScanAll(db.t, d, t, maxRows)
}

// scanKeys reads rows of a table by their keys.
func (db *database) scanKeys(d *driver, t *cdc.Table, keys [][]byte) []string {
	db.t.Helper()
	return cdctest.ScanKeys(db.t, d, t, keys)
}
