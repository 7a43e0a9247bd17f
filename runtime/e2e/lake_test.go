package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
)

// lakeTables are the tables of the workload with what makes a row of each: its key and a value that is often changed, in
// words that both databases understand and write alike.
func lakeTables() map[string]string {
	return map[string]string{
		"numbered": `concat_ws('|', id, n, note)`, "named": `concat_ws('|', name, n)`, "paired": `concat_ws('|', a, b)`,
		"regional": `concat_ws('|', id, region, n)`, "wide": `concat_ws('|', id, n, md5(big))`,
	}
}

// lake is one materialization into Parquet files.
type lake struct {
	name   string // of the materialization
	bucket string // where sluice sql reads them from, if a DuckDB that has its extensions would; else the folder
	folder string // where they are
}

// sameLake waits until the Parquet files make up the tables with keys. Files are read by a real DuckDB, the latest versions through
// what `sluice sql` prints.
func (w *world) sameLake(t *testing.T, l lake) {
	t.Helper()
	for table, row := range lakeTables() {
		w.sameSum(t, l, table, fmt.Sprintf(sums, row+` COLLATE "C"`, table), fmt.Sprintf(sums, row, table))
	}
}

// sums counts the lines, that rows are made into, of a table, and makes one figure of them.
const sums = `count(*) AS n, coalesce(md5(string_agg(line, chr(10) ORDER BY line)), '') AS sum FROM (SELECT %s AS line FROM %s) AS lines`

// sameSum waits until sums, of the source and of the lake, are equal.
func (w *world) sameSum(t *testing.T, l lake, what, postgres, duck string) {
	t.Helper()
	want, got := w.source.exec(t, "SELECT "+postgres), ""
	eventually(t, arrival, func() bool {
		sql, err := launch.DuckDB(t.Context(), w.bins, w.pipeline(), l.name)
		require.NoError(t, err)
		if l.bucket != "" {
			require.Contains(t, sql, l.bucket)
			sql = strings.ReplaceAll(sql, l.bucket, l.folder)
		}
		if _, err := duckdb.Run(t.Context(), "", "csv", sql); err != nil { // such as a table without files yet
			got = err.Error()
			return false
		}
		rows := duckdb.Query(t, "", "SET threads = 2;"+sql+";SELECT "+duck)
		got = fmt.Sprintf("%v|%v", rows[0]["n"], rows[0]["sum"])
		return got == want
	}, func() string { return fmt.Sprintf("%s in %s is %s, and %s in the source", what, l.name, got, want) })
}

// sameLakeAccount waits until the files have every change of the table without a key once.
func (w *world) sameLakeAccount(t *testing.T, l lake) {
	t.Helper()
	w.sameSum(t, l, "the account of the table without a key",
		fmt.Sprintf(sums, `concat_ws('|', op, id, what, amount) COLLATE "C"`, "account"),
		fmt.Sprintf(sums, `concat_ws('|', "_meta/op", id, what, amount)`, fmt.Sprintf(`(SELECT * FROM read_parquet('%s/keyless/v0000/**/*.parquet', union_by_name = true) WHERE id >= 0) AS keyless`, l.folder)))
	before := duckdb.Query(t, "", fmt.Sprintf(`SELECT count(*) AS n, count(DISTINCT id) AS ids FROM read_parquet('%s/keyless/v0000/**/*.parquet', union_by_name = true) WHERE id < 0`, l.folder))
	require.Equal(t, "1000|1000", fmt.Sprintf("%v|%v", before[0]["n"], before[0]["ids"]), "rows from before, each once")
}
