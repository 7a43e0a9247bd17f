package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Transactions whose GTIDs have tags (MySQL 8.3 and newer) are captured, resumed behind, waited for, and named when they are lost.
func TestTaggedGTIDs(t *testing.T) {
	t.Parallel()
	p := newPair(t, mysqld.MySQL, nil)
	db := p.primary
	db.exec("CREATE TABLE a (id INT PRIMARY KEY)", "SET gtid_next = 'AUTOMATIC:before'", "INSERT INTO a VALUES (0)")
	d := db.driver()
	tables := db.tables(d, "a")
	s := db.open(d, tables...)
	require.Contains(t, string(s.Start().Cursor), ":before:1")
	db.exec("SET gtid_next = 'AUTOMATIC:some_tag'", "INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (2)", "SET gtid_next = 'AUTOMATIC:other'", "INSERT INTO a VALUES (3)")
	db.exec("INSERT INTO a VALUES (4)")
	var sources []string
	require.NoError(t, s.each(func(ev *cdc.Event) {
		text, err := ev.Row.AppendSource(nil)
		require.NoError(t, err)
		sources = append(sources, string(text))
	}))
	require.Len(t, sources, 4)
	require.Contains(t, sources[1], `"gtid":"`+d.server.identity.Server+`:some_tag:2"`)
	require.Contains(t, string(s.cursor), ":before:1:other:1:some_tag:1-2")
	rows, seen := db.scanOnce(d, tables[0])
	require.Len(t, rows, 5)
	require.True(t, seen.Sees(cdc.TxnID(d.server.identity.Server+":some_tag:2")))
	require.False(t, seen.Sees(cdc.TxnID(d.server.identity.Server+":some_tag:3")))
	at := s.position()
	s.close()
	db.exec("SET gtid_next = 'AUTOMATIC:some_tag'", "INSERT INTO a VALUES (5)")
	again := db.resume(d, at, tables...)
	require.Equal(t, []string{`c a {"id":5}`}, again.fence())
	p.caughtUp()
	replica := p.replica.resume(p.replica.driver(), at, tables...)
	require.Equal(t, []string{`c a {"id":5}`}, replica.fence(), "tags are the same on every server")
	again.close()
	db.exec("FLUSH BINARY LOGS")
	p.stop()
	eventuallyPurged(t, db)
	_, err := d.Stream(t.Context(), at, tables)
	require.ErrorIs(t, err, cdc.ErrPositionLost)
	require.Contains(t, usererr.Message(err), "the transactions "+d.server.identity.Server+":some_tag:3.")
}
