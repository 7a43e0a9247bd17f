package main

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// positions runs a test against both servers, with GTIDs and with places in the log for positions.
func positions(t *testing.T, test func(t *testing.T, flavor string, byFile bool)) {
	t.Helper()
	flavors(t, func(t *testing.T, flavor string) {
		for name, byFile := range map[string]bool{"GTIDs": false, "files": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, flavor, byFile)
			})
		}
	})
}

// positionDatabase is a database on a server of its own, which gives MySQL's transactions no GTIDs if positions are places.
func positionDatabase(t testing.TB, flavor string, byFile bool) *database {
	t.Helper()
	settings := map[string]string{}
	if byFile && flavor == mysqld.MySQL {
		settings["gtid-mode"], settings["enforce-gtid-consistency"] = "OFF", "OFF"
	}
	db := databaseOn(t, server.MySQL(t, flavor, settings))
	if byFile && flavor == mysqld.MariaDB {
		db.cfg.Advanced.Position = positionFile
	}
	return db
}

// A capture whose position is a place in the log goes on behind it: over files, with and without checksums, over a restart and a
// crash of the server; but at no other server, and in no other log.
func TestPositionsByFile(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := positionDatabase(t, flavor, true)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 1)")
		c := newCapture(t, db)
		require.NoError(t, c.run("s a 1 v=1"))
		require.Contains(t, string(c.state), `"cursor":"at binlog.`)
		db.exec("UPDATE a SET v = 2", "FLUSH BINARY LOGS", "SET GLOBAL binlog_checksum = NONE", "UPDATE a SET v = 3", "FLUSH BINARY LOGS")
		require.NoError(t, c.run("u a 1 v=3"))
		require.Equal(t, []string{"u a 1 v=2", "u a 1 v=3"}, c.docs)
		db.exec("UPDATE a SET v = 4")
		require.NoError(t, db.server.Stop())
		require.NoError(t, db.server.Start(t.Context()))
		db.exec("UPDATE a SET v = 5")
		require.NoError(t, c.run("u a 1 v=5"))
		require.Equal(t, []string{"u a 1 v=4", "u a 1 v=5"}, c.docs)
		require.NoError(t, db.server.Kill())
		require.NoError(t, db.server.Start(t.Context()))
		db.exec("UPDATE a SET v = 6")
		require.NoError(t, c.run("u a 1 v=6"))
		require.Equal(t, []string{"u a 1 v=6"}, c.docs)
	})
}

// What is wrong with a place is named; where the server is the right one, everything is captured anew.
func TestLostPlaces(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := positionDatabase(t, flavor, true)
		reset := map[string]string{mysqld.MySQL: "RESET BINARY LOGS AND GTIDS", mysqld.MariaDB: "RESET MASTER"}[flavor]
		db.exec(reset, "CREATE TABLE a (id INT PRIMARY KEY)") // so that the log begins with its first file, which another one will be called like
		d := db.driver()
		tables := db.tables(d, "a")
		s := db.open(d, tables...)
		start := s.Start()
		db.exec("INSERT INTO a VALUES (1)")
		require.Equal(t, []string{`c a {"id":1}`}, s.fence())
		at := s.position()
		require.Contains(t, string(at.Cursor), madeMark)
		s.close()
		lost := func(from cdc.Position, want string) {
			t.Helper()
			stream, err := d.Stream(t.Context(), from, tables)
			if err == nil {
				s := &testStream{t: t, d: d, Stream: stream}
				err = s.each(func(*cdc.Event) {})
				s.close()
			}
			require.ErrorIs(t, err, cdc.ErrPositionLost)
			require.Contains(t, usererr.Message(err), want)
		}
		p, _, err := parseCursor(at.Cursor, false)
		require.NoError(t, err)
		far := p
		far.place.at += 1 << 20
		lost(cdc.Position{Cursor: cdc.Cursor(far.text("")), Identity: at.Identity}, "has less of its binary log than was captured")
		for back := range uint64(20) { // bytes of the transaction's last event, taken for the head of one
			inside := p
			inside.place.at -= 1 + back
			lost(cdc.Position{Cursor: cdc.Cursor(inside.text("")), Identity: at.Identity}, "can read no event of its binary log at "+inside.place.String())
		}

		other := identity{Flavor: flavor, Server: "another"}
		_, err = d.Stream(t.Context(), cdc.Position{Cursor: at.Cursor, Identity: other.encode()}, tables)
		require.ErrorContains(t, err, "is not the one that was captured (another)")
		require.NotErrorIs(t, err, cdc.ErrPositionLost)

		db.exec("FLUSH BINARY LOGS", "INSERT INTO a VALUES (2)")
		eventuallyPurged(t, db)
		lost(start, "has thrown away a part of its binary log that was not captured yet: from binlog.000001:")
		s = db.open(d, tables...)
		db.exec("INSERT INTO a VALUES (3)")
		s.fence()
		later := s.position()
		s.close()
		require.Eventually(t, func() bool { return time.Now().Unix() > int64(p.made) }, time.Minute, 10*time.Millisecond, "files are told apart by the second in which they were made")
		db.exec(reset)
		lost(later, "has begun its binary log anew (RESET)")
		db.exec("INSERT INTO a VALUES (4), (5), (6), (7), (8), (9)", "INSERT INTO a VALUES (10)", "INSERT INTO a VALUES (11)")
		lost(at, "the file binlog.000001 is another one than was captured")
	})
}

// Three parts of the conformance suite with places for positions: what a backfill sees is told without GTIDs.
func TestConformanceByFile(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		b := suiteBackend(flavor)
		b.Open = func(t testing.TB) cdctest.Database { return suiteDatabase{positionDatabase(t, flavor, true)} }
		b.Only = []string{"killed at random", "changes of keys", "no key"}
		cdctest.Run(t, b)
	})
}

// A user who may not see open transactions is told so.
func TestOpenTransactionsNeedRights(t *testing.T) {
	t.Parallel()
	db := positionDatabase(t, mysqld.MySQL, true)
	db.exec("CREATE TABLE a (id INT PRIMARY KEY)", "CREATE USER poor@'%' IDENTIFIED BY '"+mysqld.Password+"'", "GRANT SELECT ON "+db.name+".* TO poor@'%'", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO poor@'%'")
	d := db.driver(func(c *config) { c.User = "poor" })
	tables := db.tables(d, "a")
	require.Contains(t, check(t, d, tables[0].ID), "GRANT PROCESS ON *.* TO 'poor'@'%';")
	db.open(d, tables...)
	plan, err := d.Plan(t.Context(), tables[0])
	require.NoError(t, err)
	_, err = d.Scan(t.Context(), cdc.Chunk{Table: tables[0], Range: plan.Ranges[0], MaxRows: 10, MaxBytes: 1 << 20}, func(cdc.Row) error { return nil })
	require.ErrorContains(t, err, "GRANT PROCESS ON *.* TO 'poor'@'%';")
}

// A place is settled once all have ended that were open when the log ended there.
func TestSettling(t *testing.T) {
	t.Parallel()
	at := func(n uint64) place { return place{"binlog.000001", n} }
	var x settling
	require.Equal(t, place{}, x.take(at(10), []string{"1", "2"}))
	require.Equal(t, place{}, x.take(at(20), []string{"2", "3"}))
	require.Equal(t, at(10), x.take(at(30), []string{"3"}), "1 and 2 have ended; 3 may be in the log before 20")
	require.Equal(t, at(10), x.take(at(40), []string{"3", "4"}))
	require.Equal(t, at(30), x.take(at(50), []string{"4"}))
	require.Equal(t, at(60), x.take(at(60), nil))
	open, fresh := pick([][]string{{"17", "5", "0"}, {"421", "6", "1"}, {"281474976710656", "7", "1"}}, "7", "1")
	require.True(t, fresh)
	require.Equal(t, []string{"17", "421"}, open)
	_, fresh = pick([][]string{{"281474976710656", "7", "0"}}, "7", "1")
	require.False(t, fresh)
}

// Events in files beyond 4 GiB, whose places the log says modulo 2³² (hard case 49); and a place there, which no server can be asked
// for, so that the file is read from its beginning.
func TestLargeFiles(t *testing.T) {
	t.Parallel()
	d := &driver{server: serverInfo{identity: identity{Server: "s"}}}
	event := func(typ binlog.Type, end uint64, body string) []byte {
		b := binary.LittleEndian.AppendUint32(nil, 1_700_000_000)
		b = append(b, byte(typ), 1, 0, 0, 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(19+len(body)))
		b = binary.LittleEndian.AppendUint32(b, uint32(end)) //nolint:gosec // modulo 2³², as the server does it
		return append(append(b, 0, 0), body...)
	}
	const gib4 = 1 << 32
	anonymous := strings.Repeat("\x00", 50)
	walk := func(s *stream) {
		t.Helper()
		for i, e := range [][]byte{
			event(binlog.Rotate, 0, string(binary.LittleEndian.AppendUint64(nil, 4))+"binlog.000007"), event(binlog.FormatDescription, 120, strings.Repeat("\x00", 90)),
			event(binlog.AnonymousGTID, gib4-300, anonymous), event(binlog.XID, gib4-10, "12345678"),
			event(binlog.AnonymousGTID, gib4+50, anonymous), event(binlog.XID, gib4+100, "12345678"),
			event(binlog.AnonymousGTID, 2*gib4-20, anonymous), event(binlog.XID, 2*gib4+20, "12345678"),
		} {
			require.NoError(t, s.handle(t.Context(), e), i)
		}
	}
	s := &stream{d: d, mapped: map[uint64]*mapping{}}
	s.done.position = position{byFile: true, place: place{"binlog.000007", 4}}
	require.Equal(t, place{"binlog.000007", 4}, s.from())
	walk(s)
	require.Equal(t, cdc.Cursor("at binlog.000007:8589934612 of 1700000000"), s.cursor())
	p, _, err := parseCursor(s.cursor(), false)
	require.NoError(t, err)

	s = &stream{d: d, mapped: map[uint64]*mapping{}}
	s.done.position = p
	s.done.place.at = gib4 + 100
	require.Equal(t, place{"binlog.000007", 4}, s.from())
	walk(s)
	require.Equal(t, uint64(2*gib4+20), s.done.place.at)
	require.Equal(t, cdc.TxnID("s binlog.000007:8589934572"), s.done.last, "what was captured is passed over")
	s.done.place.at = gib4 + 99
	s.from()
	require.ErrorIs(t, s.handle(t.Context(), event(binlog.XID, gib4+100, "12345678")), cdc.ErrPositionLost)
}
