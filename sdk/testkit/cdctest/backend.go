// Package cdctest is the conformance suite of change-capture connectors: it runs a connector built on package cdc against a
// real server, writes to it at random, stops and resumes the connector at random, and compares what the connector emitted,
// reduced by key, with what the tables hold.
package cdctest

import (
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"testing"
	"time"

	"github.com/sluicedata/sluice/sdk/capture"
)

// Backend is a connector and a real server of its kind. Open makes an empty database for one test, which is gone when the
// test ends.
type Backend struct {
	Open func(t testing.TB) Database
	// Big is a text that the server stores out of line, so that its log leaves it out of updates that do not change it;
	// it must be different for every seed. Nil if the server's log always has whole rows.
	Big func(seed uint64) string
	// LogWholeRows is a statement that has the log of a table without a key carry whole rows. Nil if it always does.
	LogWholeRows func(table string) string
	// Only names the parts of the suite to run, for a second round in other circumstances. All of them, if it is empty.
	Only []string
	// Command is the connector as a program that speaks the protocol, not started yet: for Stress, and for what only a process of its own
	// shows.
	Command func(t testing.TB) *exec.Cmd
	// AlterInTransaction says that changes of shape and truncations can be parts of transactions, and be rolled back.
	AlterInTransaction bool
	// StressFor is how long Stress writes if the environment does not say; 25 seconds if zero.
	StressFor time.Duration
}

// Database is one database. The suite writes plain SQL that Postgres and MySQL both understand: BIGINT, INTEGER and TEXT
// columns, names in lower case that need no quotes, PRIMARY KEY, ALTER TABLE … ADD COLUMN … DEFAULT. Its methods may be
// called from several goroutines; they fail the test when the server refuses.
type Database interface {
	// Connector is the connector under test: capture.New(cdc.New(…)).
	Connector() capture.Connector
	// Config is its endpoint configuration for this database, with small chunks and several workers, and with
	// rediscovery every second or so if that can be configured.
	Config() json.RawMessage
	// Namespace is the schema that unqualified tables are in.
	Namespace() string
	// Exec runs one statement by itself.
	Exec(t testing.TB, sql string)
	// Query returns rows as the server writes their values as text; null is nil.
	Query(t testing.TB, sql string) [][]*string
	// Connect opens a session of its own.
	Connect(t testing.TB) Session
}

// Session is one connection to the database. It is used by one goroutine.
type Session interface {
	// Exec runs one statement, which may be BEGIN, COMMIT, ROLLBACK, or one about a savepoint.
	Exec(t testing.TB, sql string)
	Close(t testing.TB)
}

// Disturber is an optional ability of a Database.
type Disturber interface {
	// Disturb makes something happen to the server that a capture must endure and that is over when it returns: rows are
	// moved about, a commit stalls, a connection of the connector's is lost. It is called now and then, beside the rest.
	Disturb(t testing.TB, rnd *rand.Rand)
}
