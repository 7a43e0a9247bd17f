package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
)

// planned are the ranges of a plan.
func planned(t *testing.T, d *driver, table *cdc.Table) ([]scanRange, *cdc.Plan) {
	t.Helper()
	plan, err := d.Plan(t.Context(), table)
	require.NoError(t, err)
	var out []scanRange
	for _, r := range plan.Ranges {
		part, err := decodeRange(r)
		require.NoError(t, err)
		out = append(out, part)
	}
	return out, plan
}

// Every row is read exactly once, whatever the key is made of and however small the chunks are: by pages and by key.
func TestEveryRowOnce(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	const collation = `CREATE COLLATION german (provider = icu, locale = 'de-u-kn-true')`
	for name, c := range map[string]struct{ setup, columns, key, values string }{
		"integer":           {"", "k bigint", "k", "g"},
		"text":              {"", "k text", "k", "chr(65 + g % 57) || md5(g::text)"},
		"text, ICU":         {collation, "k text COLLATE german", "k", "CASE g % 3 WHEN 0 THEN 'ä' WHEN 1 THEN 'Z' ELSE 'z' END || g"},
		"enum":              {"CREATE TYPE e AS ENUM ('z', 'a', 'm')", "k e, l int", "k, l", "(ARRAY['z','a','m'])[1 + g % 3]::e, g"},
		"composite":         {"", "a text, b timestamptz, c numeric", "c, b, a", "'x' || g % 3, '2024-01-01'::timestamptz + g % 7 * interval '1.000001 s', g / 10.0"},
		"unusual names":     {"", `"select" int, "a ""b" int`, `"a ""b", "select"`, "g % 10, g"},
		"domain of an uuid": {"CREATE DOMAIN du AS uuid", "k du", "k", "md5(g::text)::uuid"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.setup != "" {
				db.exec(c.setup)
			}
			table := strings.NewReplacer(" ", "_", ",", "").Replace(name)
			db.exec(fmt.Sprintf(`CREATE TABLE %q (%s, big text, PRIMARY KEY (%s))`, table, c.columns, c.key),
				fmt.Sprintf(`INSERT INTO %q SELECT %s FROM generate_series(1, 500) g`, table, c.values))
			d := db.driver()
			byPages := db.tables(d, table)[0]
			pages, keys := db.scanAll(d, byPages, 37)
			ranges, plan := planned(t, d, byPages)
			require.Equal(t, d.server.major() >= 14, ranges[0].Pages)
			require.Equal(t, d.server.major() < 14, plan.Fixed)

			// An out-of-line value in the table makes it read by key.
			db.exec(fmt.Sprintf(`ALTER TABLE %q ALTER big SET STORAGE EXTERNAL`, table),
				fmt.Sprintf(`UPDATE %q SET big = repeat('x', 3000)`, table))
			ranges, plan = planned(t, d, byPages)
			require.False(t, ranges[0].Pages)
			require.True(t, plan.Fixed)
			rows, moreKeys := db.scanAll(d, byPages, 37)
			require.Len(t, pages, 500)
			require.Len(t, rows, 500)
			sortKeys(keys)
			sortKeys(moreKeys)
			require.Equal(t, keys, moreKeys)
			require.Len(t, slices.CompactFunc(keys, slices.Equal), 500)

			found := db.scanKeys(d, byPages, append(keys[:100:100], []byte(nil))[:100])
			require.Len(t, found, 100)
		})
	}
}

func sortKeys(keys [][]byte) { slices.SortFunc(keys, slices.Compare) }

// A large table is divided, by pages and by key, into ranges that are disjoint and complete.
func TestRangesAreDisjointAndComplete(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	const rows = 600_000
	db.exec("CREATE TABLE t (id bigint PRIMARY KEY, a text, big text)", "ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
		fmt.Sprintf("INSERT INTO t SELECT g * 7 %% 1000003, repeat('x', 100) FROM generate_series(1, %d) g", rows), "ANALYZE t")
	d := db.driver()
	table := db.tables(d, "t")[0]
	require.InDelta(t, rows, table.Rows, rows/10)
	ranges, _ := planned(t, d, table)
	require.Greater(t, len(ranges), 1)
	byPages := d.server.major() >= 14 // older servers are read by key
	for i, r := range ranges[1:] {
		require.Equal(t, ranges[i].To, r.From)
		require.Equal(t, ranges[i].UpTo, r.After)
	}
	require.Equal(t, byPages, ranges[len(ranges)-1].Open)
	all, keys := db.scanAll(d, table, 50_000)
	require.Len(t, all, rows)
	sortKeys(keys)
	require.Len(t, slices.CompactFunc(keys, slices.Equal), rows)

	db.exec("INSERT INTO t VALUES (-1, '', repeat('x', 3000))")
	ranges, _ = planned(t, d, table)
	require.Greater(t, len(ranges), 1)
	require.Equal(t, ranges[0].UpTo, ranges[1].After)
	_, keys = db.scanAll(d, table, 50_000)
	require.Len(t, keys, rows+1)
	sortKeys(keys)
	require.Len(t, slices.CompactFunc(keys, slices.Equal), rows+1)
}

// The server reads only the pages of the range.
func TestPagesAreScannedByRange(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id bigint PRIMARY KEY, a text)", "INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g")
	d := db.driver()
	plan := db.exec("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) SELECT id, a FROM ONLY t WHERE " + d.pagesCondition(100, 110))
	require.Regexp(t, "Tid (Range )?Scan", plan)
	if d.server.major() >= 14 {
		require.Regexp(t, `Buffers: shared hit=\d\d?\D`, plan, "not the whole table")
	}

	d.server.version = 130000
	plan = db.exec("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) SELECT id, a FROM ONLY t WHERE " + d.pagesCondition(100, 110))
	require.Contains(t, plan, "Tid Scan", "servers before 14")
	places := strings.TrimSpace(db.exec("SELECT count(*) FROM t WHERE (ctid::text::point)[0] < 100"))
	require.Equal(t, places, strings.TrimSpace(db.exec("SELECT count(*) FROM t WHERE "+d.pagesCondition(0, 100))))
}

// Wide rows make small chunks: memory is bounded by bytes, not by rows.
func TestChunksAreBoundedByBytes(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id bigint PRIMARY KEY, a text)", "ALTER TABLE t ALTER a SET STORAGE EXTERNAL",
		"INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 500) g",
		"INSERT INTO t SELECT g, repeat('x', 200000) FROM generate_series(501, 600) g")
	d := db.driver()
	table := db.tables(d, "t")[0]
	plan, err := d.Plan(t.Context(), table)
	require.NoError(t, err)
	r, total, interrupted := plan.Ranges[0], 0, 0
	for r != "" {
		bytes, rows := 0, 0
		scanned, err := d.Scan(t.Context(), cdc.Chunk{Table: table, Range: r, MaxRows: 10_000, MaxBytes: 1 << 20}, func(row cdc.Row) error {
			text, err := row.AppendFields(nil)
			bytes += len(text)
			rows++
			return err
		})
		require.LessOrEqual(t, bytes, 3<<20)
		if err != nil {
			require.ErrorIs(t, err, cdc.ErrInterrupted)
			interrupted++
			require.Less(t, interrupted, 20)
			continue
		}
		total += rows
		r = scanned.Rest
	}
	require.Equal(t, 600, total)
}

// Hard case 65. A commit that is flushed, and waits for a synchronous standby which is not there, is in the log and
// delivered, but no snapshot sees it: a chunk that is read then has the old row, and says that it does not see the
// transaction. The core leaves such rows to the stream (sdk/cdc).
func TestStalledCommit(t *testing.T) {
	t.Parallel()
	pg := postgresFor(t)
	db := databaseOn(t, pg)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t VALUES (1, 'old')")
	d := db.driver()
	table := db.tables(d, "t")[0]
	s := db.open(d, table)

	update := stall(t, db, "UPDATE t SET a = 'new'")
	var txn cdc.TxnID
	for txn == "" {
		ev, err := s.Next(t.Context(), patience)
		require.NoError(t, err)
		if ev.Op == cdc.Update {
			require.Equal(t, `u t {"a":"new","id":1}`, s.text(ev))
			txn = ev.Txn
		}
	}
	_, plan := planned(t, d, table)
	require.Equal(t, []cdc.TxnID{txn}, plan.Unseen, "it writes to the table and is not visible")
	chunk := cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 10, MaxBytes: 1 << 20}
	scan := func() (rows []string, sees bool) {
		scanned, err := d.Scan(t.Context(), chunk, func(row cdc.Row) error {
			rows = append(rows, cdctest.Fields(t, row))
			return nil
		})
		require.NoError(t, err)
		return rows, scanned.Snapshot.Sees(txn)
	}
	rows, sees := scan()
	require.Equal(t, []string{`{"a":"old","id":1}`}, rows)
	require.False(t, sees)
	require.Contains(t, d.Explain(t.Context(), txn), `its commit waits for a synchronous standby (synchronous_standby_names = "missing"), which is missing or slow`)

	update.release()
	rows, sees = scan()
	require.Equal(t, []string{`{"a":"new","id":1}`}, rows)
	require.True(t, sees)
	require.Contains(t, d.Explain(t.Context(), txn), "which has ended")
	_, plan = planned(t, d, table)
	require.Empty(t, plan.Unseen)
}

// A transaction that is in progress elsewhere holds no table up.
func TestUnseenAreWritersOnly(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (id int)",
		"CREATE TABLE p (id int) PARTITION BY LIST (id)", "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)", "ALTER TABLE p ADD PRIMARY KEY (id)")
	d := db.driver()
	tables := db.tables(d, "p", "t")
	elsewhere := db.transaction("INSERT INTO other VALUES (1)")
	reader := db.transaction("SELECT * FROM t", "INSERT INTO other VALUES (2)")
	_, plan := planned(t, d, tables[1])
	require.Empty(t, plan.Unseen)
	writer := db.transaction("SAVEPOINT a", "INSERT INTO t VALUES (1)", "RELEASE a", "INSERT INTO p1 VALUES (1)")
	var xid string
	require.NoError(t, writer.QueryRow(t.Context(), "SELECT txid_current()::text").Scan(&xid))
	for _, table := range tables {
		_, plan = planned(t, d, table)
		require.Equal(t, []cdc.TxnID{cdc.TxnID(xid)}, plan.Unseen, table.ID)
		require.Regexp(t, "^transaction "+xid+" of process [0-9]+ of user postgres", d.Explain(t.Context(), cdc.TxnID(xid)))
	}
	commit(t, writer)
	_, plan = planned(t, d, tables[1])
	require.Empty(t, plan.Unseen)
	commit(t, elsewhere)
	commit(t, reader)
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	s, err := parseSnapshot("10:20:12,14")
	require.NoError(t, err)
	for xid, want := range map[cdc.TxnID]bool{"9": true, "10": true, "12": false, "13": true, "14": false, "19": true, "20": false, "4294967306": false, "x": false} {
		require.Equal(t, want, s.Sees(xid), xid)
	}
	require.Equal(t, "10:20:12,14", s.String())
	for _, bad := range []string{"", "1:2", "a:2:", "1:b:", "1:2:c"} {
		_, err := parseSnapshot(bad)
		require.Error(t, err, bad)
	}
}

// Identifiers of 32 bits are extended by the nearest known one, also around the wrap.
func TestFullXID(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		near uint64
		xid  uint32
		want uint64
	}{
		{1000, 900, 900},
		{1000, 1100, 1100},
		{1<<32 + 10, 5, 1<<32 + 5},
		{1<<32 + 10, 1<<32 - 5, 1<<32 - 5},
		{1<<32 - 10, 5, 1<<32 + 5},
		{3<<32 + 1<<31, 1, 3<<32 + 1},
		{7<<32 + 100, 100, 7<<32 + 100},
	} {
		require.Equal(t, c.want, fullXID(c.near, c.xid), "%d near %d", c.xid, c.near)
	}
}
