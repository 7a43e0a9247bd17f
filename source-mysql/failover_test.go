package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/fault"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// A capture goes on at the promoted replica, behind the same address, where it was at the primary: no row again, and none
// missing (hard case 33). What only the replica had comes as well, because it is in the tables now.
func TestFailover(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		p := newPair(t, flavor, nil)
		db := p.primary
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 1), (2, 2)")
		proxy := fault.NewProxy(t, db.cfg.Address)
		through := *db
		through.cfg.Address = proxy.Address()
		c := newCapture(t, &through)
		require.NoError(t, c.run("s a 1 v=1", "s a 2 v=2"))
		db.exec("UPDATE a SET v = 10 WHERE id = 1")
		require.NoError(t, c.run("u a 1 v=10"))
		require.Len(t, c.docs, 1)
		db.exec("UPDATE a SET v = 20 WHERE id = 2", "INSERT INTO a VALUES (3, 3)")
		p.caughtUp()
		require.NoError(t, db.server.Kill())
		p.promote()
		p.replica.exec("UPDATE a SET v = 30 WHERE id = 3", "DELETE FROM a WHERE id = 1")
		proxy.Retarget(p.replica.cfg.Address)
		require.NoError(t, c.run("d a 1 v=10"))
		require.Equal(t, []string{"u a 2 v=20", "c a 3 v=3", "u a 3 v=30", "d a 1 v=10"}, c.docs)
		p.replica.exec("INSERT INTO a VALUES (4, 4)")
		require.NoError(t, c.run("c a 4 v=4"))
		require.Len(t, c.docs, 1)
		require.Contains(t, string(c.state), p.replica.driver().server.identity.Server)
	})
}

// A capture that begins while the servers change roles: what is read of the tables before and after that fits together.
func TestFailoverDuringBackfill(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		p := newPair(t, flavor, nil)
		db := p.primary
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)")
		want := map[string]bool{}
		for i := range 20 {
			sql := "INSERT INTO a VALUES "
			for j := range 100 {
				id := i*100 + j
				if j > 0 {
					sql += ", "
				}
				sql += fmt.Sprintf("(%d, 1)", id)
				want[fmt.Sprintf("s a %d v=1", id)] = true
			}
			db.exec(sql)
		}
		db.cfg.Advanced.BackfillChunkRows, db.cfg.Advanced.BackfillWorkers = 50, 1
		p.replica.cfg.Advanced = db.cfg.Advanced
		c := newCapture(t, db)
		c.hasty = true
		require.NoError(t, c.run("s a 100 v=1"))
		before := c.docs
		require.Less(t, len(before), 1000, "the backfill is not done")
		p.caughtUp()
		require.NoError(t, db.server.Kill())
		p.promote()
		p.replica.exec("UPDATE a SET v = 2 WHERE id = 1999")
		c.reach(p.replica)
		c.hasty = false
		require.NoError(t, c.run("s a 1998 v=1", "u a 1999 v=2"))
		for _, doc := range append(before, c.docs...) {
			delete(want, doc)
		}
		delete(want, "s a 1999 v=1")
		require.Empty(t, want)
	})
}

// A replica that lags behind the position is waited for, and named if it does not catch up; nothing is skipped.
func TestReplicaThatLags(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		p := newPair(t, flavor, nil)
		db := p.primary
		db.exec("CREATE TABLE a (id INT PRIMARY KEY)")
		p.caughtUp()
		d := db.driver()
		tables := db.tables(d, "a")
		s := db.open(d, tables...)
		p.stop()
		db.exec("INSERT INTO a VALUES (1)")
		require.Equal(t, []string{`c a {"id":1}`}, s.fence())
		at := cdc.Position{Cursor: s.cursor, Identity: s.Start().Identity}
		s.close()

		rd := p.replica.driver()
		rd.behindPatience = 300 * time.Millisecond
		_, err := rd.Stream(t.Context(), at, tables)
		require.ErrorIs(t, err, errBehind)
		require.NotErrorIs(t, err, cdc.ErrPositionLost)
		require.Contains(t, usererr.Message(err), "If it is a replica that lags behind, wait until it has them; if it was restored from a backup, backfill all tables.")
		rd.behindPatience = patience
		p.start() // it takes a while to connect
		db.exec("INSERT INTO a VALUES (2)")
		again := p.replica.resume(rd, at, tables...)
		p.caughtUp()
		require.Equal(t, []string{`c a {"id":2}`}, again.fence(), "the replica's own log has what came from the primary")
		again.close()

		// A user that may only read, of a server that may only be read.
		p.primary.exec("CREATE USER reader@'%' IDENTIFIED BY '"+mysqld.Password+"'", "GRANT SELECT ON "+db.name+".* TO reader@'%'", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO reader@'%'")
		p.caughtUp()
		if flavor == mysqld.MySQL {
			p.exec("SET GLOBAL super_read_only = ON")
		}
		reader := p.replica.driver(func(c *config) { c.User = "reader" })
		require.Empty(t, check(t, reader, tables[0].ID))
		rs := p.replica.resume(reader, again.position(), tables...)
		db.exec("DELETE FROM a WHERE id = 1")
		p.caughtUp()
		require.Equal(t, []string{`d a before {"id":1}`}, rs.fence())
		rows, _ := p.replica.scanAll(reader, tables[0], 10)
		require.Equal(t, []string{`{"id":2}`}, rows)
	})
}

// What a replica wrote by itself comes with its log; once that was thrown away, the position is lost, and it is named.
func TestErrantTransactions(t *testing.T) {
	t.Parallel()
	p := newPair(t, mysqld.MySQL, nil)
	db := p.primary
	db.exec("CREATE TABLE a (id INT PRIMARY KEY)")
	p.caughtUp()
	d := db.driver()
	tables := db.tables(d, "a")
	s := db.open(d, tables...)
	p.replica.exec("INSERT INTO a VALUES (100)") // an administrator may, though it is read-only
	db.exec("INSERT INTO a VALUES (1)")
	require.Equal(t, []string{`c a {"id":1}`}, s.fence())
	p.caughtUpBut()
	p.promote()
	rd := p.replica.driver()
	again := p.replica.resume(rd, s.position(), tables...)
	require.Equal(t, []string{`c a {"id":100}`}, again.fence())
	again.close()
	p.exec("FLUSH BINARY LOGS")
	eventuallyPurged(t, p.replica)
	_, err := rd.Stream(t.Context(), s.position(), tables)
	require.ErrorIs(t, err, cdc.ErrPositionLost)
	require.Contains(t, usererr.Message(err), "not captured yet: the transactions "+rd.server.identity.Server+":1.")
	p.replica.exec("INSERT INTO a VALUES (101)")
	require.Equal(t, []string{`c a {"id":101}`}, p.replica.resume(rd, again.position(), tables...).fence())
}

// caughtUpBut waits until the replica has the primary's last row.
func (p pair) caughtUpBut() {
	p.replica.t.Helper()
	require.Eventually(p.replica.t, func() bool { return p.replica.value("SELECT COUNT(*) FROM "+p.primary.name+".a") == "2" }, patience, 20*time.Millisecond)
}

// position is where the stream is.
func (s *testStream) position() cdc.Position {
	return cdc.Position{Cursor: s.cursor, Identity: s.Start().Identity}
}

// A replica that does not log what it receives would send nothing, for ever: it is refused.
func TestReplicaWithoutLog(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		p := newPair(t, flavor, map[string]string{map[string]string{mysqld.MySQL: "log-replica-updates", mysqld.MariaDB: "log-slave-updates"}[flavor]: "OFF"})
		p.primary.exec("CREATE TABLE a (id INT PRIMARY KEY)")
		p.caughtUp()
		p.stop() // also one that does not apply anything now
		d := p.replica.driver()
		require.Contains(t, check(t, d), "The server is a replica that does not log what it receives")
		_, err := d.Stream(t.Context(), cdc.Position{}, p.replica.tables(d, "a"))
		require.ErrorIs(t, err, errNoUpdates)
	})
}
