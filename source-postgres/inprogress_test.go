package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// piecesDatabase is a database on a server that can send transactions in pieces.
func piecesDatabase(t *testing.T) *database {
	t.Helper()
	db := newDatabase(t)
	if db.pg.Major() < 14 {
		t.Skip("Postgres 14 is the first that sends transactions in pieces")
	}
	return db
}

// everything is all that the stream gives up to the log's present end, to the last detail.
func (s *testStream) everything() []string {
	s.t.Helper()
	var text string
	require.NoError(s.t, s.d.conns.with(s.t.Context(), func(conn *pgx.Conn) error {
		return conn.QueryRow(s.t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&text)
	}))
	at, err := parseLSN(text)
	require.NoError(s.t, err)
	require.NoError(s.t, s.Fence(s.t.Context(), s.d.mark(at)))
	var out []string
	changes := 0 // of the transaction at hand
	for deadline := time.Now().Add(3 * patience); ; {
		require.True(s.t, time.Now().Before(deadline), "the fence was not passed")
		ev, err := s.Next(s.t.Context(), 50*time.Millisecond)
		require.NoError(s.t, err)
		switch ev.Op {
		case cdc.Fence:
			require.False(s.t, s.Stream.(*stream).open, "a fence inside a transaction")
			return out
		case cdc.Idle:
		case cdc.Commit:
			s.cursor = ev.Cursor
			if changes == 0 {
				continue // some servers leave out empty transactions, unless they have sent a piece before they knew
			}
			changes = 0
			out = append(out, fmt.Sprintf("commit %s %s %s", ev.Txn, ev.Cursor, ev.CommitTime))
		default:
			changes++
			line := fmt.Sprintf("%s %s %s %s", s.text(ev), ev.Txn, ev.Mark, ev.CommitTime)
			for _, row := range []cdc.Row{ev.Row, ev.Before} {
				if row != nil {
					source, err := row.AppendSource(nil)
					require.NoError(s.t, err)
					line += fmt.Sprintf(" %s %v", source, row.(cdc.OversizedRow).Oversized())
				}
			}
			out = append(out, line)
		}
	}
}

// twoWays are two streams of the same tables: one that gets large transactions in pieces, and one that gets them whole.
type twoWays struct {
	t             *testing.T
	db            *database
	pieces, whole *testStream
}

func openTwoWays(t *testing.T, db *database, change func(*driver), names ...string) twoWays {
	t.Helper()
	open := func(choice string) *testStream {
		d := db.driver(func(c *config) {
			c.Advanced.StreamTransactions = choice
			c.Advanced.SlotName += "_" + choice
			c.Advanced.PublicationName = "pub"
		})
		change(d)
		return db.open(d, db.tables(d, names...)...)
	}
	w := twoWays{t: t, db: db, pieces: open(streamOn), whole: open(streamOff)}
	require.Nil(t, w.whole.Stream.(*stream).spool)
	pieces := w.pieces.Stream.(*stream)
	pieces.spool.limit = 100_000 // some of it goes to the file
	pieces.describeAgain = 0     // the one that gets them whole asks the catalog each time, too
	return w
}

// same reads both to the end and requires that they give the same. It returns how many events that were.
func (w twoWays) same(what string) int {
	w.t.Helper()
	whole, pieces := w.whole.everything(), w.pieces.everything()
	for i := range min(len(whole), len(pieces)) {
		require.True(w.t, whole[i] == pieces[i], "%s: event %d is\n%.500s\nand should be\n%.500s", what, i, pieces[i], whole[i])
	}
	require.Len(w.t, pieces, len(whole), what)
	st := w.pieces.Stream.(*stream)
	require.Empty(w.t, st.begun(), what)
	require.Zero(w.t, st.spool.kept.Load(), what)
	return len(whole)
}

// begun are the transactions of which something is kept. Others are in other databases of the server: it sends pieces of
// those too, without anything in them.
func (s *stream) begun() (xids []uint32) {
	for xid, p := range s.pieces {
		if p.bytes.size > 0 {
			xids = append(xids, xid)
		}
	}
	return xids
}

// Whatever a transaction does, it comes in pieces exactly as it comes whole: values, order, positions, numbers.
func TestPiecesGiveWhatTheWholeGives(t *testing.T) {
	t.Parallel()
	db := piecesDatabase(t)
	db.exec(
		"CREATE TABLE t (id int PRIMARY KEY, a text, big text)", "ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
		"CREATE TABLE whole (LIKE t INCLUDING ALL)", "ALTER TABLE whole REPLICA IDENTITY FULL",
		"CREATE TABLE keyless (id int, a text)", "ALTER TABLE keyless REPLICA IDENTITY FULL",
		"CREATE TABLE p (id int, a text, PRIMARY KEY (id)) PARTITION BY HASH (id)",
		"CREATE TABLE p1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0)", "CREATE TABLE p2 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
		"CREATE TABLE other (id int PRIMARY KEY, a text)", "CREATE TABLE unpublished (id int, a text)", "CREATE TABLE small (id int PRIMARY KEY)",
	)
	filter := ""
	if db.pg.Major() >= 15 {
		db.exec("CREATE TABLE filtered (id int PRIMARY KEY, a text, secret text)", "CREATE TABLE listed (id int PRIMARY KEY, a text, secret text)")
		filter = ", listed (id, a), filtered WHERE (id % 2 = 0)"
	}
	db.exec("CREATE PUBLICATION pub FOR TABLE t, whole, keyless, p, other, small" + filter + db.viaRoot())
	names := []string{"t", "whole", "keyless", "p", "small"}
	if filter != "" {
		names = append(names, "listed", "filtered")
	}
	w := openTwoWays(t, db, func(d *driver) { d.maxRow = 200_000 }, names...)
	fill := func(table string, first, n int) string {
		return fmt.Sprintf("INSERT INTO %s (id, a) SELECT %d + g, repeat('x', 100) FROM generate_series(1, %d) g", table, first, n)
	}
	const n = 1500 // more than three times what the server keeps in memory
	type step = []string
	small := 0
	for _, c := range []struct {
		name string
		sql  step
	}{
		{"inserted, updated, deleted", step{fill("t", 0, n), fill("whole", 0, n), "UPDATE t SET a = 'y' || a", "UPDATE whole SET a = 'z' || a", "DELETE FROM t WHERE id > 100", "DELETE FROM whole WHERE id > 100"}},
		{"out-of-line values", step{"UPDATE t SET big = repeat('b', 5000)", "UPDATE whole SET big = repeat('b', 5000)", "UPDATE t SET a = 'c'", "UPDATE whole SET a = 'c'", "UPDATE t SET id = -id", "UPDATE whole SET id = -id"}},
		{"subtransactions", step{
			fill("t", 1000, n), "SAVEPOINT a", fill("t", 10_000, n), "SAVEPOINT b", fill("t", 20_000, n), "RELEASE b", fill("t", 30_000, n), "ROLLBACK TO a",
			fill("t", 40_000, n), "SAVEPOINT c", fill("whole", 10_000, n), "ROLLBACK TO c", fill("whole", 20_000, n), "RELEASE c", fill("p", 0, n),
		}},
		{"first change of a table in a subtransaction that is rolled back", step{
			"SAVEPOINT a", fill("p", 10_000, n), "ROLLBACK TO a", fill("p", 20_000, n), "SAVEPOINT b", "TRUNCATE keyless", fill("keyless", 0, n), "ROLLBACK TO b", fill("keyless", 10_000, n),
		}},
		{"many subtransactions, every other one rolled back", step{`DO $$ BEGIN FOR i IN 1..300 LOOP BEGIN
			INSERT INTO t SELECT 1000000 + i * 100 + g, repeat('s', 200) FROM generate_series(1, 10) g; IF i % 2 = 0 THEN RAISE 'no'; END IF;
			EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$`}},
		{"truncated", step{fill("t", 50_000, n), "TRUNCATE t, whole", fill("t", 0, n), "TRUNCATE p", fill("p", 0, n), fill("whole", 0, n)}},
		{"altered within", step{
			fill("t", 60_000, n), "ALTER TABLE t ADD n int DEFAULT 7", fill("t", 70_000, n), "ALTER TABLE t RENAME a TO aa", "ALTER TABLE t RENAME aa TO a", "ALTER TABLE t ALTER n TYPE text",
			fill("t", 80_000, n), "ALTER TABLE t DROP n", fill("t", 90_000, n),
		}},
		{"altered and rolled back", step{fill("whole", 60_000, n), "SAVEPOINT a", "ALTER TABLE whole ADD n int DEFAULT 7", fill("whole", 70_000, n), "ROLLBACK TO a", fill("whole", 80_000, n)}},
		{"rolled back", step{fill("t", 100_000, n), "ALTER TABLE t ADD m int", fill("t", 110_000, n), "ROLLBACK"}},
		{"after it", step{fill("t", 120_000, 3)}},
		{"rewritten", step{fill("p", 50_000, n), "ALTER TABLE p ALTER a TYPE varchar(300)", fill("p", 60_000, n)}},
		{"rows without a key", step{fill("keyless", 0, n), "UPDATE keyless SET a = 'k'", "DELETE FROM keyless WHERE id % 3 = 0"}},
		{"tables that are not captured", step{fill("other", 0, n), fill("unpublished", 0, n), fill("t", 130_000, 5), fill("other", 10_000, n), "TRUNCATE other"}},
		{"only tables that are not captured", step{fill("other", 0, n), fill("unpublished", 0, n)}},
		{"rows that are too large", step{
			fill("t", 140_000, n), "INSERT INTO t VALUES (150000, repeat('l', 150000), repeat('m', 190000)), (150001, 'small', repeat('m', 500000)), (150002, 'after', NULL)", fill("t", 160_000, n),
			"INSERT INTO whole VALUES (150001, 'small', repeat('m', 500000))", "UPDATE whole SET a = 'other' WHERE id = 150001", "INSERT INTO other VALUES (-1, repeat('m', 500000))",
			"SAVEPOINT a", "INSERT INTO t VALUES (150003, 'no', repeat('m', 500000))", fill("t", 170_000, n), "ROLLBACK TO a", "INSERT INTO t VALUES (150004, 'yes', repeat('m', 500000))",
		}},
		{"messages", step{fill("t", 180_000, n), "SELECT pg_logical_emit_message(true, 'sluice', repeat('m', 1000))", "SAVEPOINT a", "SELECT pg_logical_emit_message(true, 'sluice', 'x')", fill("t", 190_000, n), "SELECT pg_logical_emit_message(false, 'sluice', 'x')"}},
		{"lists and filters", step{"SELECT 1", "?" + fill("listed", 0, n), "?" + fill("filtered", 0, n), "?UPDATE filtered SET id = id + 10001", "?" + fill("listed", 10_000, n)}},
		{"a table put in the place of a captured one", step{fill("other", 20_000, n), fill("t", 200_000, n), "ALTER TABLE t RENAME TO was", "ALTER TABLE other RENAME TO t", fill("t", 30_000, n), fill("was", 210_000, n)}},
	} {
		conn := db.transaction()
		end := "COMMIT"
		for _, sql := range c.sql {
			if strings.HasPrefix(sql, "?") && filter == "" {
				continue
			}
			if sql == "ROLLBACK" {
				end = sql
				continue
			}
			_, err := conn.Exec(t.Context(), strings.TrimPrefix(sql, "?"))
			require.NoError(t, err, "%s: %s", c.name, sql)
			small++
			db.exec(fmt.Sprintf("INSERT INTO small VALUES (%d)", small)) // a small one in between
		}
		_, err := conn.Exec(t.Context(), end)
		require.NoError(t, err)
		require.NoError(t, conn.Close(t.Context()))
		require.NotZero(t, w.same(c.name), c.name)
	}
	db.spilledOrStreamed(w.pieces.d, "stream_txns")
	db.spilledOrStreamed(w.whole.d, "spill_txns")
}

// Several transactions write at once, with savepoints that are kept or rolled back: in pieces they give what they give whole.
func TestPiecesOfManyTransactions(t *testing.T) {
	t.Parallel()
	db := piecesDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "CREATE TABLE u (id int PRIMARY KEY, a text)", "ALTER TABLE u REPLICA IDENTITY FULL", "CREATE PUBLICATION pub FOR ALL TABLES")
	w := openTwoWays(t, db, func(*driver) {}, "t", "u")
	const writers = 8
	var wg sync.WaitGroup
	for i := range writers {
		conn := db.connect()
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 11))
			exec := func(sql string) {
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					t.Errorf("%s: %v", sql, err)
				}
			}
			for txn := range 12 {
				exec("BEGIN")
				depth := 0
				for range 1 + rnd.IntN(12) {
					table, first := []string{"t", "u"}[rnd.IntN(2)], i*1_000_000+txn*50_000+rnd.IntN(40_000)
					switch rnd.IntN(8) {
					case 0, 1:
						exec(fmt.Sprintf("SAVEPOINT s%d", depth))
						depth++
					case 2:
						if depth > 0 {
							exec(fmt.Sprintf("ROLLBACK TO s%d", rnd.IntN(depth)))
							exec("SAVEPOINT s0")
							depth = 1
						}
					case 3:
						exec(fmt.Sprintf("UPDATE %s SET a = a || 'u' WHERE id BETWEEN %d AND %d", table, i*1_000_000, i*1_000_000+txn*50_000))
					case 4:
						exec(fmt.Sprintf("DELETE FROM %s WHERE id BETWEEN %d AND %d", table, first, first+1000))
					default:
						exec(fmt.Sprintf("INSERT INTO %s SELECT %d + g, repeat('x', 90) FROM generate_series(1, %d) g ON CONFLICT DO NOTHING", table, first, rnd.IntN(600)))
					}
				}
				exec([]string{"COMMIT", "COMMIT", "ROLLBACK"}[rnd.IntN(3)])
			}
		})
	}
	wg.Wait()
	require.Greater(t, w.same("all"), 1000)
	db.spilledOrStreamed(w.pieces.d, "stream_txns")
}

// What is received of transactions that are open holds nothing back, moves nothing on, and is forgotten when the stream ends:
// whoever goes on from the last position gets all of it again, once.
func TestPiecesAreForgotten(t *testing.T) {
	t.Parallel()
	db := piecesDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "CREATE TABLE other (id int)")
	d := db.driver()
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	position := s.Start()
	open := db.transaction()
	insert := func(first int) {
		t.Helper()
		_, err := open.Exec(t.Context(), fmt.Sprintf("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(%d, %d) g", first, first+1999))
		require.NoError(t, err)
	}
	for round := range 3 {
		insert(1 + 2000*round)
		db.exec(fmt.Sprintf("INSERT INTO t VALUES (%d)", -1-round))
		require.Equal(t, []string{fmt.Sprintf(`c t {"a":null,"id":%d}`, -1-round)}, s.fence(), "fences pass, and others come")
		require.Len(t, s.Stream.(*stream).begun(), 1)
		r, err := d.Report(t.Context())
		require.NoError(t, err)
		require.Greater(t, r.SpooledBytes, int64(100_000))
		require.Equal(t, s.Stream.(*stream).spool.kept.Load(), r.SpooledBytes)
		// It moves on by keepalives, too.
		db.exec("INSERT INTO other SELECT generate_series(1, 1000)", "CHECKPOINT")
		for deadline := time.Now().Add(patience); ; {
			require.True(t, time.Now().Before(deadline))
			ev, err := s.Next(t.Context(), 100*time.Millisecond)
			require.NoError(t, err)
			require.NotEqual(t, cdc.Insert, ev.Op)
			if ev.Op == cdc.Idle && ev.Cursor != "" {
				position.Cursor = ev.Cursor
				s.Ack(ev.Cursor)
				break
			}
		}
		file := s.Stream.(*stream).spool.file
		s.close()
		require.ErrorIs(t, file.Close(), os.ErrClosed)
		s = db.resume(d, position, tables...)
	}
	insert(6001)
	commit(t, open)
	rows := s.fence()
	require.Len(t, rows, 8000)
	for i, row := range rows {
		require.Contains(t, row, fmt.Sprintf(`"id":%d}`, i+1))
	}

	// A stream that ends while it delivers has given no position beyond the one before.
	big := db.transaction("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(10001, 13000) g")
	position.Cursor = s.cursor
	commit(t, big)
	for n := 0; n < 1000; {
		ev, err := s.Next(t.Context(), patience)
		require.NoError(t, err)
		require.Empty(t, ev.Cursor)
		if ev.Op == cdc.Insert {
			n++
		}
	}
	s.close()
	s = db.resume(d, position, tables...)
	require.Len(t, s.fence(), 3000)
}

// A description that came in pieces is in force for their rows, and the one that came last for what follows: the server sends
// none for a later transaction, if it has sent one since the table was changed last.
func TestDescriptionsInPieces(t *testing.T) {
	t.Parallel()
	db := piecesDatabase(t)
	if db.pg.Major() < 15 {
		t.Skip("no lists of columns before Postgres 15")
	}
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text, b text)", "CREATE PUBLICATION pub FOR TABLE t (id, a, b)")
	d := db.driver(func(c *config) { c.Advanced.PublicationName = "pub" })
	s := db.open(d, db.tables(d, "t")...)
	only := func() (out []string) {
		for _, line := range s.fence() {
			if !strings.HasPrefix(line, "shape") {
				out = append(out, line)
			}
		}
		return out
	}
	open := db.transaction("INSERT INTO t SELECT g, repeat('x', 100), 'b' FROM generate_series(1, 3000) g")
	require.Empty(t, only())
	require.Len(t, s.Stream.(*stream).begun(), 1, "its description and rows have come")
	db.exec("ALTER PUBLICATION pub SET TABLE t (id, a)", "INSERT INTO t VALUES (-1, 'a', 'b')")
	require.Equal(t, []string{`c t {"a":"a","id":-1}`}, only(), "the list has changed")
	commit(t, open)
	rows := only()
	require.Len(t, rows, 3000)
	require.Contains(t, rows[0], `"b":"b"`, "it was read by the list that it was sent by")
	db.exec("INSERT INTO t VALUES (-2, 'a', 'b')")
	require.Equal(t, []string{`c t {"a":"a","id":-2}`}, only(), "of which the server has sent the description already")

	// In the other order, it is the description in the pieces that the server relies on.
	open = db.transaction("INSERT INTO t SELECT g, repeat('x', 100), 'b' FROM generate_series(3001, 6000) g")
	db.exec("ALTER PUBLICATION pub SET TABLE t (id, b)")
	_, err := open.Exec(t.Context(), "INSERT INTO t SELECT g, repeat('x', 100), 'b' FROM generate_series(6001, 9000) g")
	require.NoError(t, err)
	commit(t, open)
	require.Len(t, only(), 6000)
	db.exec("INSERT INTO t VALUES (-3, 'a', 'b')")
	require.Equal(t, []string{`c t {"b":"b","id":-3}`}, only())
}

// Transactions in pieces bring the descriptions of their tables each, and the catalog is not asked about each of them.
func TestDescriptionsAreLookedUpOnce(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithAtLeast(14), server.WithSetting("log_statement", "all"))
	db := databaseOn(t, pg)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "CREATE TABLE u (id int PRIMARY KEY, a text)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t", "u")...)
	lookups := func() int { return strings.Count(pg.Log(), "WITH ORDINALITY AS c(t, m, n)") }
	before := lookups()
	const transactions, rows = 20, 1000
	for i := range transactions {
		fill := fmt.Sprintf("SELECT g, repeat('x', 100) FROM generate_series(%d, %d) g", i*rows, (i+1)*rows-1)
		db.exec("BEGIN; INSERT INTO t " + fill + "; INSERT INTO u " + fill + "; COMMIT")
	}
	began := time.Now()
	require.Len(t, s.fence(), 2*transactions*rows)
	db.spilledOrStreamed(d, "stream_txns")
	// Each table once, and again for every second that it takes.
	require.LessOrEqual(t, lookups()-before, 2*(1+int(time.Since(began)/describeAgain)))
	db.exec("ALTER TABLE t ADD n int", "BEGIN; INSERT INTO t SELECT g, 'a', 7 FROM generate_series(100001, 103000) g; COMMIT")
	got := s.fence()
	require.Len(t, got, 3001)
	require.Contains(t, got[0], "shape t", "another description is")
	require.Equal(t, `c t {"a":"a","id":100001,"n":7}`, got[1])
}

// A disk without room ends the capture and says so; without a folder, the server keeps what is large.
func TestPiecesWithoutRoom(t *testing.T) {
	t.Parallel()
	db := piecesDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	sp := s.Stream.(*stream).spool
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, sp.file.Close())
	sp.file, sp.limit = full, 100_000
	db.exec("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 3000) g")
	for err == nil {
		_, err = s.Next(t.Context(), patience)
	}
	require.Contains(t, usererr.Message(err), "There is no room for transactions that are still open on the server: so far they need 1 MiB in the folder for temporary files, "+os.TempDir())
	require.Contains(t, usererr.Message(err), "(no space left on device). Make room there,")
	s.close()

	d.tempDir = "/nowhere"
	var said strings.Builder
	d.log = logrus.NewEntry(&logrus.Logger{Out: &said, Formatter: &logrus.TextFormatter{}, Level: logrus.InfoLevel, ExitFunc: func(int) {}})
	s = db.resume(d, s.Start(), db.tables(d, "t")...)
	require.Len(t, s.fence(), 3000)
	require.Contains(t, said.String(), "there is no folder for temporary files")
	d.log.Logger.SetOutput(io.Discard)
}
