package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/child"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// The conformance suite of change capture: random writes, kills and changes of shape against a real server.
func TestConformance(t *testing.T) {
	t.Parallel()
	suite := suiteBackend()
	suite.Open = func(t testing.TB) cdctest.Database {
		db := newDatabase(t)
		t.Cleanup(func() {
			if strings.HasSuffix(t.Name(), "huge_transaction") {
				db.requirePieces(t)
			}
		})
		return suiteDatabase{db}
	}
	cdctest.Run(t, suite)
}

// Two parts of it, with transactions that come whole.
func TestConformanceWithoutPieces(t *testing.T) {
	t.Parallel()
	suite := suiteBackend()
	suite.Only = []string{"killed at random", "huge transaction"}
	suite.Open = func(t testing.TB) cdctest.Database {
		db := newDatabase(t)
		db.cfg.Advanced.StreamTransactions = streamOff
		return suiteDatabase{db}
	}
	cdctest.Run(t, suite)
}

// requirePieces makes sure that the capture has received transactions in pieces, where the server has that.
func (db *database) requirePieces(t testing.TB) {
	t.Helper()
	if db.pg.Major() >= 14 && !t.Failed() {
		eventually(t, "the server counts transactions in pieces", func() bool {
			return strings.TrimSpace(db.exec("SELECT sum(stream_txns) > 0 FROM pg_stat_replication_slots WHERE slot_name = '"+db.cfg.Advanced.SlotName+"'")) == "t"
		})
	}
}

// connectorProcess is the connector as a process of its own.
func connectorProcess(t testing.TB) *exec.Cmd {
	t.Helper()
	return child.Self(t, child.Connector)
}

func suiteBackend() cdctest.Backend {
	return cdctest.Backend{
		Command:      connectorProcess,
		Open:         func(t testing.TB) cdctest.Database { return suiteDatabase{newDatabase(t)} },
		LogWholeRows: func(table string) string { return "ALTER TABLE " + table + " REPLICA IDENTITY FULL" },
		Big: func(seed uint64) string {
			// It must not be compressible, or it would not be stored out of line.
			rng := rand.New(rand.NewPCG(seed, 1))
			text := make([]byte, 6000)
			for i := range text {
				text[i] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[rng.IntN(64)]
			}
			return string(text)
		},
	}
}

// suiteDatabase is a database as the suite uses it.
type suiteDatabase struct{ db *database }

func (s suiteDatabase) Connector() capture.Connector { return connector() }
func (s suiteDatabase) Namespace() string            { return "public" }

func (s suiteDatabase) Config() json.RawMessage {
	cfg := s.db.cfg
	cfg.Advanced.BackfillChunkRows, cfg.Advanced.BackfillWorkers, cfg.Advanced.RediscoverEvery = 100, 3, "1s"
	text := session.Config(s.db.t, cfg)
	return text
}

// with runs f with a session that ends after it.
func (s suiteDatabase) with(t testing.TB, f func(*pgx.Conn)) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.db.pg.URL(s.db.cfg.Database))
	require.NoError(t, err)
	defer conn.Close(context.Background())
	f(conn)
}

func (s suiteDatabase) Exec(t testing.TB, sql string) {
	t.Helper()
	s.with(t, func(conn *pgx.Conn) {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	})
}

func (s suiteDatabase) Query(t testing.TB, sql string) (out [][]*string) {
	t.Helper()
	s.with(t, func(conn *pgx.Conn) {
		results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
		require.NoError(t, err, sql)
		for _, row := range results[0].Rows {
			values := make([]*string, len(row))
			for i, v := range row {
				if v != nil {
					text := string(v)
					values[i] = &text
				}
			}
			out = append(out, values)
		}
	})
	return out
}

func (s suiteDatabase) Connect(t testing.TB) cdctest.Session {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.db.pg.URL(s.db.cfg.Database))
	require.NoError(t, err)
	return suiteSession{conn}
}

type suiteSession struct{ conn *pgx.Conn }

func (x suiteSession) Exec(t testing.TB, sql string) {
	t.Helper()
	_, err := x.conn.Exec(t.Context(), sql)
	require.NoError(t, err, sql)
}

func (x suiteSession) Close(t testing.TB) {
	t.Helper()
	require.NoError(t, x.conn.Close(context.Background()))
}
