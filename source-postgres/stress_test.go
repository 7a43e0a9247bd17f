package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/child"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

func TestMain(m *testing.M) {
	os.Exit(child.Main(m, 6, map[string]func(){child.Connector: main, "panics": panicking}))
}

// The stress of change capture: rows walk through everything that can happen to them, while the connector's process is
// killed every few seconds. SLUICE_STRESS=5m says how long, SLUICE_POSTGRES_MAJOR=17 against which server.
func TestStress(t *testing.T) {
	t.Parallel()
	b := suiteBackend()
	var db *database
	pieces := false // a slot that is made again counts anew
	b.Open = func(t testing.TB) cdctest.Database {
		t.Helper()
		db = databaseOn(t, server.Postgres(t, server.WithSetting("autovacuum_naptime", "1s")))
		t.Cleanup(func() {
			if !pieces {
				db.requirePieces(t)
			}
		})
		return stressDatabase{suiteDatabase{db}}
	}
	processes := 0
	b.AlterInTransaction = true
	b.Command = func(t testing.TB) *exec.Cmd {
		t.Helper()
		pieces = pieces || db.pg.Major() >= 14 && db.exec("SELECT sum(stream_txns) > 0 FROM pg_stat_replication_slots") == "t"
		cmd := connectorProcess(t)
		if processes++; processes%3 == 0 {
			cmd.Env = append(cmd.Env, "TMPDIR=/nowhere") // without a folder, transactions come whole
		}
		return cmd
	}
	cdctest.Stress(t, b)
}

// stressDatabase is a database on a server of its own.
type stressDatabase struct{ suiteDatabase }

// Disturb implements cdctest.Disturber.
func (s stressDatabase) Disturb(t testing.TB, rnd *rand.Rand) {
	t.Helper()
	tables := []string{"cdc_numbers", "cdc_texts", "cdc_pairs", "cdc_whole", "cdc_history"}
	table := tables[rnd.IntN(len(tables))]
	switch rnd.IntN(7) {
	case 0:
		// Rows without a key that move during a backfill come twice.
		s.Exec(t, "VACUUM FULL "+tables[rnd.IntN(4)])
	case 1:
		s.Exec(t, "VACUUM "+table)
	case 2:
		s.Exec(t, "CHECKPOINT")
	case 3:
		s.Exec(t, "SELECT pg_switch_wal()")
	case 4:
		s.stall(t, time.Duration(50+rnd.IntN(1200))*time.Millisecond)
	case 5:
		// Connections of the backfill come back by themselves.
		s.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sluice' AND backend_type = 'client backend' ORDER BY random() LIMIT 1")
	case 6:
		s.open(t, table, time.Duration(rnd.IntN(1000))*time.Millisecond)
	}
}

// stall has commits wait, after they were written to the log, for a standby that is not there: they are emitted, and no
// snapshot sees them.
func (s stressDatabase) stall(t testing.TB, d time.Duration) {
	t.Helper()
	set := func(value string) {
		s.Exec(t, fmt.Sprintf("ALTER SYSTEM SET synchronous_standby_names = '%s'", value))
		s.Exec(t, "SELECT pg_reload_conf()")
	}
	defer set("")
	set("nobody")
	<-time.After(d)
}

// open has a transaction open for a while that has written, and never commits.
func (s stressDatabase) open(t testing.TB, table string, d time.Duration) {
	t.Helper()
	conn := s.Connect(t)
	defer conn.Close(t)
	conn.Exec(t, "BEGIN")
	conn.Exec(t, "UPDATE "+table+" SET note = 'never' WHERE v < 0")
	conn.Exec(t, "SELECT txid_current()")
	<-time.After(d)
	conn.Exec(t, "ROLLBACK")
}
