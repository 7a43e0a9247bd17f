package main

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// The stress of change capture: rows walk through everything that can happen to them, while the connector's process is
// killed every few seconds, its connections are killed by the server, the log goes from file to file, and commits stall
// after they were written to the log. SLUICE_STRESS=5m says how long.
func TestStress(t *testing.T) {
	t.Parallel()
	positions(t, func(t *testing.T, flavor string, byFile bool) {
		b := suiteBackend(flavor)
		b.StressFor = 6 * time.Second
		b.Open = func(t testing.TB) cdctest.Database {
			t.Helper()
			return newStressDatabase(t, flavor, byFile)
		}
		cdctest.Stress(t, b)
	})
}

// captureUser is who the connector of a stress connects as, so that its connections are told from those of the test.
const captureUser = "sluice"

// stressDatabase is a database on a server of its own.
type stressDatabase struct {
	suiteDatabase
	staller staller
}

func newStressDatabase(t testing.TB, flavor string, byFile bool) stressDatabase {
	t.Helper()
	db := positionDatabase(t, flavor, byFile)
	admin := *db
	db.exec("CREATE USER "+captureUser+"@'%' IDENTIFIED BY '"+mysqld.Password+"'",
		"SET GLOBAL max_binlog_size = 1048576", "GRANT SELECT, PROCESS, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO "+captureUser+"@'%'")
	if flavor == mysqld.MariaDB {
		db.exec("GRANT BINLOG MONITOR ON *.* TO " + captureUser + "@'%'")
	}
	admin.cfg = db.cfg
	admin.cfg.User = captureUser
	return stressDatabase{suiteDatabase{&admin}, newStaller(db)}
}

// Exec implements cdctest.Database.
func (s stressDatabase) Exec(t testing.TB, sql string) { s.admin(t).Exec(t, sql) }

// Query implements cdctest.Database.
func (s stressDatabase) Query(t testing.TB, sql string) [][]*string { return s.admin(t).Query(t, sql) }

// admin is the database as its administrator has it.
func (s stressDatabase) admin(testing.TB) suiteDatabase { return suiteDatabase{s.staller.db} }

// Connect implements cdctest.Database. Sessions do not lock the gaps between rows: writers who hold different rows would
// wait for each other in a circle.
func (s stressDatabase) Connect(t testing.TB) cdctest.Session {
	t.Helper()
	conn := s.staller.db.session(s.db.name)
	require.NoError(t, conn.exec(t.Context(), "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"))
	return suiteSession{conn}
}

// Disturb implements cdctest.Disturber.
func (s stressDatabase) Disturb(t testing.TB, rnd *rand.Rand) {
	t.Helper()
	tables := []string{"cdc_numbers", "cdc_texts", "cdc_pairs", "cdc_whole"}
	table := tables[rnd.IntN(len(tables))]
	switch rnd.IntN(6) {
	case 0:
		s.Exec(t, "FLUSH BINARY LOGS")
	case 1:
		s.Exec(t, "ANALYZE TABLE "+table)
	case 2:
		s.Exec(t, "ALTER TABLE "+table+" ENGINE = InnoDB")
	case 3, 4:
		s.staller.stall(time.Duration(50+rnd.IntN(1200)) * time.Millisecond)
	case 5:
		// A connection of the connector's, at times that which the log comes on.
		for _, row := range s.Query(t, "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '"+captureUser+"' ORDER BY RAND() LIMIT 1") {
			conn := s.staller.db.session("")
			_ = conn.exec(t.Context(), "KILL "+*row[0]) // it may be gone
			_ = conn.close()
		}
	}
}
