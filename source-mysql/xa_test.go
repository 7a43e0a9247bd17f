package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// xa is a distributed transaction of a session, without its end.
func xa(name string, sql ...string) []string {
	return append(append([]string{"XA START '" + name + "'"}, sql...), "XA END '"+name+"'", "XA PREPARE '"+name+"'")
}

// Distributed transactions come at their commit, whole, as changes of the commit's own transaction (hard case 52).
func TestDistributedTransactions(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		name := func(n string) string { return db.name + n }
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v TEXT)", "CREATE TABLE other (id INT PRIMARY KEY)")
		d := db.driver()
		tables := db.tables(d, "a")
		s := db.open(d, tables...)
		for _, holds := range []int{heldBytes, 0} { // in memory, or read again
			st, ok := s.Stream.(*stream)
			require.True(t, ok)
			st.holds = holds
			db.exec("DELETE FROM a", "DELETE FROM other")
			s.fence()
			db.exec(xa(name("1"), "INSERT INTO a VALUES (1, 'one')", "INSERT INTO other VALUES (1)", "UPDATE a SET v = 'uno' WHERE id = 1")...)
			db.exec(xa(name("2"), "INSERT INTO a VALUES (2, 'two')")...)
			db.exec(xa(name("3"), "INSERT INTO other VALUES (3)")...)
			db.exec("INSERT INTO a VALUES (3, 'three')")
			require.Equal(t, []string{`c a {"id":3,"v":"three"}`}, s.fence(), "nothing is emitted that is only prepared")
			db.exec("XA ROLLBACK '"+name("2")+"'", "XA COMMIT '"+name("1")+"'", "XA ROLLBACK '"+name("3")+"'")
			var txns []cdc.TxnID
			var events []string
			require.NoError(t, s.each(func(ev *cdc.Event) { events, txns = append(events, s.text(ev)), append(txns, ev.Txn) }))
			require.Equal(t, []string{`c a {"id":1,"v":"one"}`, `u a {"id":1,"v":"uno"} before {"id":1,"v":"one"}`}, events)
			require.Equal(t, txns[0], txns[1])
			require.Zero(t, st.held)
			require.Empty(t, st.prepared)
			db.exec("XA START '"+name("4")+"'", "INSERT INTO a VALUES (4, 'four')", "XA END '"+name("4")+"'", "XA COMMIT '"+name("4")+"' ONE PHASE")
			require.Equal(t, []string{`c a {"id":4,"v":"four"}`}, s.fence())
		}
	})
}

// What was prepared before a stream began is found in the log when it is committed.
func TestPreparedBefore(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		own := server.MySQL(t, flavor, map[string]string{"log-bin": "binlog"})
		db := databaseOn(t, own)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY)")
		db.exec(xa("early", "INSERT INTO a VALUES (1), (2)")...)
		d := db.driver()
		tables := db.tables(d, "a")
		s := db.open(d, tables...)
		db.exec("INSERT INTO a VALUES (3)", "FLUSH BINARY LOGS")
		require.Equal(t, []string{`c a {"id":3}`}, s.fence())
		db.exec("XA COMMIT 'early'")
		require.Equal(t, []string{`c a {"id":1}`, `c a {"id":2}`}, s.fence(), "prepared before the capture began, in another file")

		db.exec(xa("between", "DELETE FROM a WHERE id = 2")...)
		db.exec("INSERT INTO a VALUES (4)")
		require.Equal(t, []string{`c a {"id":4}`}, s.fence())
		stopped := cdc.Position{Cursor: s.cursor, Identity: s.Start().Identity}
		s.close()
		db.exec("XA COMMIT 'between'")
		again := db.resume(d, stopped, tables...)
		require.Equal(t, []string{`d a before {"id":2}`}, again.fence(), "the capture stopped between preparation and commit")
		again.close()

		db.exec(xa("lost", "DELETE FROM a WHERE id = 3")...)
		db.exec("FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
		eventuallyPurged(t, db)
		last := db.open(d, tables...)
		db.exec("XA COMMIT 'lost'")
		err := last.each(func(*cdc.Event) {})
		require.ErrorIs(t, err, cdc.ErrPositionLost)
		require.ErrorContains(t, err, fmt.Sprintf("The log has the commit of a distributed transaction (XA x'%x',x'',1, at ", "lost"))
		require.ErrorContains(t, err, "but not any more what it changed")
	})
}
