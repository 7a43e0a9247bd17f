package main

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// What is asked of the server does not grow with its tables, nor much with those that are captured: 510 tables, or as many as
// SLUICE_MANY_TABLES says.
func TestManyTables(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		tables := 510
		if n, err := strconv.Atoi(os.Getenv("SLUICE_MANY_TABLES")); err == nil {
			tables = n
		}
		settings := map[string]string{"innodb-file-per-table": "OFF", "innodb-flush-log-at-trx-commit": "0", "sync-binlog": "0"}
		db := databaseOn(t, server.MySQL(t, flavor, settings))
		admin := db.session(db.name)
		for i := range tables {
			require.NoError(t, admin.exec(t.Context(), fmt.Sprintf("CREATE TABLE t%05d (id INT PRIMARY KEY, a VARCHAR(20), b DATETIME, c DECIMAL(10,2), d TEXT, e INT, f INT, UNIQUE KEY (e))", i)))
		}
		questions := func() int {
			row, err := admin.row(t.Context(), "SHOW GLOBAL STATUS LIKE 'Questions'")
			require.NoError(t, err)
			n, err := strconv.Atoi(row[1])
			require.NoError(t, err)
			return n
		}
		d := db.driver()
		measure := func(what string, most int, f func()) {
			before, began := questions(), time.Now()
			f()
			asked := questions() - before - 1
			t.Logf("%s: %d statements, %v", what, asked, time.Since(began).Round(time.Millisecond))
			require.LessOrEqual(t, asked, most, what)
		}
		var found []*cdc.Table
		var ids []cdc.TableID
		measure("discover", 10, func() {
			var err error
			found, err = d.Discover(t.Context())
			require.NoError(t, err)
			require.Len(t, found, tables)
		})
		for _, f := range found {
			ids = append(ids, f.ID)
		}
		measure("discover again, those that are captured", 10, func() {
			again, err := d.Discover(t.Context(), ids...)
			require.NoError(t, err)
			require.Len(t, again, tables)
		})
		measure("check", 20, func() { require.Empty(t, d.Check(t.Context(), ids)) })
		logs := "REPLICATION CLIENT, PROCESS" // which say where the log ends
		if flavor == mysqld.MariaDB {
			logs = "BINLOG MONITOR"
		}
		db.exec("CREATE USER ofone@'%' IDENTIFIED BY '"+mysqld.Password+"'", "GRANT REPLICATION SLAVE, "+logs+" ON *.* TO ofone@'%'", "GRANT SELECT ON "+db.name+".* TO ofone@'%'")
		ofOne := db.driver(func(c *config) { c.User = "ofone" })
		measure("check by a user of the database", 25, func() { require.Empty(t, ofOne.Check(t.Context(), ids)) })
		db.exec("REVOKE SELECT ON "+db.name+".* FROM ofone@'%'", "GRANT SELECT ON "+db.name+".t00001 TO ofone@'%'", "GRANT INSERT ON "+db.name+".t00002 TO ofone@'%'")
		ofSome := db.driver(func(c *config) { c.User = "ofone" })
		said := check(t, ofSome, cdc.TableID{Schema: db.name, Name: "t00001"}, cdc.TableID{Schema: db.name, Name: "t00002"})
		require.NotContains(t, said, "t00001")
		require.Contains(t, said, "t00002")
		measure("start", 40, func() { db.open(d, found...).close() })
	})
}

// Only rights on a whole database, by its own name, are sure.
func TestGrantedDatabases(t *testing.T) {
	t.Parallel()
	granted := func(grants ...string) func(string) bool {
		return databasesOf(append(grants, "GRANT `reader`@`%` TO `me`@`%`"))
	}
	some := granted("GRANT USAGE ON *.* TO `me`@`%`", "GRANT INSERT, SELECT, UPDATE ON `shop`.* TO `me`@`%`", "GRANT ALL PRIVILEGES ON `a\\_b```.* TO `me`@`%`", "GRANT SELECT ON `x_y`.* TO `me`@`%`",
		"GRANT SELECT ON `orders`.`t` TO `me`@`%`", "GRANT SHOW VIEW, INSERT ON `seen`.* TO `me`@`%`")
	for name, want := range map[string]bool{"shop": true, "a_b`": true, "x_y": true, "xzy": false, "orders": false, "t": false, "seen": false, "": false} {
		require.Equal(t, want, some(name), name)
	}
	require.False(t, granted("GRANT SELECT ON `*`.* TO `me`@`%`")("any"))
	require.True(t, granted("GRANT SELECT, REPLICATION SLAVE ON *.* TO `me`@`%` WITH GRANT OPTION")("any"))
	require.True(t, granted("GRANT ALL PRIVILEGES ON *.* TO `me`@`%`")("any"))
	require.False(t, granted("GRANT SELECT ON *.* TO `me`@`%`", "REVOKE SELECT ON `shop`.* FROM `me`@`%`")("shop"))
}
