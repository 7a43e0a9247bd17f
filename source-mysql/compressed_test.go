package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// Columns that MariaDB keeps compressed have the same values from the log as from a scan, long enough to be compressed or not, whatever
// the log says of columns, and with rows that lack some.
func TestCompressedColumns(t *testing.T) {
	t.Parallel()
	for _, metadata := range []string{"FULL", "MINIMAL", "NO_LOG"} {
		t.Run(metadata, func(t *testing.T) {
			t.Parallel()
			db := databaseOn(t, server.MySQL(t, mysqld.MariaDB, map[string]string{"binlog-row-metadata": metadata}))
			db.exec(`CREATE TABLE a (id INT PRIMARY KEY, v TEXT COMPRESSED, short VARCHAR(254) COMPRESSED CHARACTER SET latin1, edge VARCHAR(255) COMPRESSED CHARACTER SET latin1,
				wide VARCHAR(2000) COMPRESSED, b BLOB COMPRESSED, bytes VARBINARY(300) COMPRESSED, c MEDIUMTEXT COMPRESSED)`)
			d := db.driver()
			table := db.tables(d, "a")[0]
			s := db.open(d, table)
			insert := func(id, length int) string {
				return fmt.Sprintf("INSERT INTO a VALUES (%[1]d, REPEAT('x', %[2]d), REPEAT('y', LEAST(%[2]d, 254)), REPEAT('z', LEAST(%[2]d, 255)), REPEAT('ä€', %[2]d), REPEAT(X'00FF', %[2]d), REPEAT(X'80', LEAST(%[2]d, 300)), REPEAT('12 ', %[2]d))", id, length)
			}
			db.exec(insert(1, 0), insert(2, 1), insert(3, 99), insert(4, 100), insert(5, 254), insert(6, 900), "INSERT INTO a (id) VALUES (7)",
				"SET SESSION column_compression_zlib_wrap = ON", insert(8, 500), "SET SESSION column_compression_zlib_level = 0", insert(9, 500))
			var want []string
			rows, _ := db.scanAll(d, table, 100)
			for _, row := range rows {
				want = append(want, "c a "+row)
			}
			var got []string
			require.NoError(t, s.each(func(ev *cdc.Event) {
				if ev.Row != nil {
					got = append(got, s.text(ev))
				}
			}))
			require.Len(t, got, len(want))
			for i := range want {
				require.True(t, want[i] == got[i], "row %d: %.2000s\nis, streamed: %.2000s", i, want[i], got[i])
			}
			db.exec("SET SESSION binlog_row_image = MINIMAL", "UPDATE a SET v = REPEAT('new', 200) WHERE id = 6")
			var changed string
			require.NoError(t, s.each(func(ev *cdc.Event) { changed = s.text(ev) }))
			require.Contains(t, changed, `"v":"newnewnew`)
		})
	}
}
