package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// pair is a primary with a replica. Both are databases of one name: what is made at the first comes to the second.
type pair struct {
	primary, replica *database
}

func newPair(t *testing.T, flavor string, settings map[string]string) pair {
	t.Helper()
	primary := databaseOn(t, server.MySQL(t, flavor, nil))
	replica := *primary
	replica.server = server.MySQL(t, flavor, settings)
	replica.cfg.Address = replica.server.Address()
	host, port, _ := strings.Cut(primary.cfg.Address, ":")
	p := pair{primary, &replica}
	if flavor == mysqld.MySQL {
		p.exec("CHANGE REPLICATION SOURCE TO SOURCE_HOST = '"+host+"', SOURCE_PORT = "+port+", SOURCE_USER = '"+mysqld.User+"', SOURCE_PASSWORD = '"+mysqld.Password+
			"', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1", "START REPLICA")
	} else {
		p.exec("CHANGE MASTER TO MASTER_HOST = '"+host+"', MASTER_PORT = "+port+", MASTER_USER = '"+mysqld.User+"', MASTER_PASSWORD = '"+mysqld.Password+
			"', MASTER_USE_GTID = slave_pos", "START SLAVE")
	}
	p.exec("SET GLOBAL read_only = ON")
	p.caughtUp()
	return p
}

// exec runs statements on the replica, in no database.
func (p pair) exec(sql ...string) {
	p.replica.t.Helper()
	s := p.replica.session("")
	for _, statement := range sql {
		require.NoError(p.replica.t, s.exec(p.replica.t.Context(), statement), statement)
	}
	require.NoError(p.replica.t, s.close())
}

// caughtUp waits until the replica has all that the primary has.
func (p pair) caughtUp() {
	p.replica.t.Helper()
	query := "SELECT @@GLOBAL.gtid_executed"
	if p.primary.server.Flavor() == mysqld.MariaDB {
		query = "SELECT @@GLOBAL.gtid_current_pos"
	}
	want := p.primary.value(query)
	require.Eventually(p.replica.t, func() bool { return p.replica.value(query) == want }, patience, 20*time.Millisecond, "the replica does not catch up with %s", want)
}

// stop has the replica apply nothing any more.
func (p pair) stop() {
	p.exec(map[string]string{mysqld.MySQL: "STOP REPLICA", mysqld.MariaDB: "STOP SLAVE"}[p.replica.server.Flavor()])
}

// start has it go on.
func (p pair) start() {
	p.exec(map[string]string{mysqld.MySQL: "START REPLICA", mysqld.MariaDB: "START SLAVE"}[p.replica.server.Flavor()])
}

// promote makes the replica a primary.
func (p pair) promote() {
	p.stop()
	p.exec(map[string]string{mysqld.MySQL: "RESET REPLICA ALL", mysqld.MariaDB: "RESET SLAVE ALL"}[p.replica.server.Flavor()], "SET GLOBAL read_only = OFF")
}

// value is the one value of a query's one row.
func (db *database) value(sql string) string {
	db.t.Helper()
	s := db.session("")
	row, err := s.row(db.t.Context(), sql)
	require.NoError(db.t, err, sql)
	require.NoError(db.t, s.close())
	require.NotEmpty(db.t, row, sql)
	return row[0]
}
