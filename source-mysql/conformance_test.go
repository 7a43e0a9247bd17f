package main

import (
	"encoding/json"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/child"
	testsession "github.com/sluicedata/sluice/sdk/testkit/session"
)

// The conformance suite of change capture: random writes, kills and changes of shape against real servers.
func TestConformance(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) { cdctest.Run(t, suiteBackend(flavor)) })
}

func suiteBackend(flavor string) cdctest.Backend {
	return cdctest.Backend{
		Open:    func(t testing.TB) cdctest.Database { return suiteDatabase{newDatabase(t, flavor)} },
		Command: connectorProcess,
	}
}

// connectorProcess is the connector as a process of its own.
func connectorProcess(t testing.TB) *exec.Cmd {
	t.Helper()
	return child.Self(t, child.Connector)
}

// suiteDatabase is a database as the suite uses it.
type suiteDatabase struct{ db *database }

func (s suiteDatabase) Connector() capture.Connector {
	return capture.New(cdc.New(spec(), connect))
}
func (s suiteDatabase) Namespace() string { return s.db.name }

func (s suiteDatabase) Config() json.RawMessage {
	cfg := s.db.cfg
	cfg.Advanced.BackfillChunkRows, cfg.Advanced.BackfillWorkers, cfg.Advanced.RediscoverEvery = 100, 3, "1s"
	return testsession.Config(s.db.t, cfg)
}

func (s suiteDatabase) Exec(t testing.TB, sql string) {
	t.Helper()
	conn := s.db.session(s.db.name)
	require.NoError(t, conn.exec(t.Context(), sql), sql)
	require.NoError(t, conn.close())
}

func (s suiteDatabase) Query(t testing.TB, sql string) (out [][]*string) {
	t.Helper()
	conn := s.db.session(s.db.name)
	require.NoError(t, conn.query(t.Context(), sql, nil, func(vals [][]byte) error {
		row := make([]*string, len(vals))
		for i, v := range vals {
			if v != nil {
				text := string(v)
				row[i] = &text
			}
		}
		out = append(out, row)
		return nil
	}))
	require.NoError(t, conn.close())
	return out
}

func (s suiteDatabase) Connect(t testing.TB) cdctest.Session {
	t.Helper()
	return suiteSession{s.db.session(s.db.name)}
}

type suiteSession struct{ conn *session }

func (x suiteSession) Exec(t testing.TB, sql string) {
	t.Helper()
	require.NoError(t, x.conn.exec(t.Context(), sql), sql)
}

func (x suiteSession) Close(testing.TB) { _ = x.conn.close() }
