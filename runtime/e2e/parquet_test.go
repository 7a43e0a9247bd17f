package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
)

// A table with values out of line, nulls of every kind, and a moving key.
const (
	notes     = `CREATE TABLE notes (id integer PRIMARY KEY, title text, body text, price numeric(12,2), seen timestamptz, tags text[], active boolean); ALTER TABLE notes ALTER COLUMN body SET STORAGE EXTERNAL`
	notesFill = `INSERT INTO notes SELECT i, 'note ' || i, CASE WHEN i % 5 > 0 THEN repeat(md5(i::text), 100) END, i / 7.0, timestamptz '2024-03-10 09:59:59.999999+00' + i * interval '1 minute', ARRAY['a', NULL, i::text], i % 3 = 0 FROM generate_series(1, 2000) AS i`
)

// changeNotes changes what is there in every way that leaves a trace of its own in the log.
func changeNotes() []string {
	return []string{
		"UPDATE notes SET price = price + 1 WHERE id % 4 = 0",                                                                   // leaves the body out
		"BEGIN; UPDATE notes SET title = NULL WHERE id % 6 = 0; UPDATE notes SET active = NOT active WHERE id % 12 = 0; COMMIT", // twice in a transaction
		"UPDATE notes SET body = NULL WHERE id % 9 = 0",
		"UPDATE notes SET tags = '{}' WHERE id % 9 < 2",
		"DELETE FROM notes WHERE id % 10 = 0",
		"INSERT INTO notes SELECT i, 'again' FROM generate_series(20, 2000, 20) AS i", // has nothing of what was deleted
		"UPDATE notes SET id = id + 10000 WHERE id % 11 = 0",
		"UPDATE notes SET title = 'moved' WHERE id > 10000",
	}
}

// What sluice sql prints makes of the files, in a real DuckDB, the table that the source has: while it changes, and after it
// was read anew. The view reads all files, the merged table those that are new.
func TestParquetIsTheTable(t *testing.T) {
	t.Parallel()
	duckdb.Need(t)
	w := newWorld(t, strings.Split(notes, "; ")...)
	w.source.exec(t, notesFill)
	folder := t.TempDir()
	w.discover(t)
	require.NoError(t, w.catalog.Materialize("e2e/lake", launch.Parquet(w.bins, folder, "0s"), launch.IntoPath))
	w.start(t)
	sql, err := launch.DuckDB(t.Context(), w.bins, w.pipeline(), "e2e/lake")
	require.NoError(t, err)
	db := filepath.Join(t.TempDir(), "lake.db")

	w.sameInDuckDB(t, db, sql)
	w.source.exec(t, changeNotes()...)
	w.sameInDuckDB(t, db, sql)

	capture, err := w.catalog.Capture()
	require.NoError(t, err)
	require.NoError(t, w.sluice.Stop())
	capture.Bindings[0].Backfill++
	w.start(t)
	w.source.exec(t, changeNotes()[:4]...)
	w.sameInDuckDB(t, db, sql)
	rows := duckdb.Query(t, db, `SELECT count(*) > 4000 AS all, count(DISTINCT "_meta/op") AS ops, min(len("_meta/source/loc")) AS loc FROM notes_history`)
	require.Equal(t, "map[all:true loc:3 ops:3]", fmt.Sprint(map[string]any(rows[0])))
	rows = duckdb.Query(t, db, "SELECT typeof(any_value(price)) AS type FROM notes")
	require.Equal(t, "DECIMAL(12,2)", rows[0]["type"])
	w.columnAdded(t)
}

// columnAdded adds a column while the pipeline runs: what is printed from then on has it, though the pipeline's file has not. A
// decimal that gets more digits begins new files, and loses none of them.
func (w *world) columnAdded(t *testing.T) {
	t.Helper()
	w.source.exec(t, "ALTER TABLE notes ADD COLUMN stars integer", "UPDATE notes SET stars = id % 5 WHERE id % 2 = 0",
		"ALTER TABLE notes ALTER COLUMN price TYPE numeric(17,5)", "UPDATE notes SET price = price * 1000 + 0.00001 * id WHERE id % 3 = 0")
	want := w.source.exec(t, "SELECT sum(stars) || ' in ' || count(stars) || ', ' || sum(price) || ' DECIMAL(17,5)' FROM notes")
	got := ""
	eventually(t, arrival, func() bool {
		sql, err := launch.DuckDB(t.Context(), w.bins, w.pipeline(), "e2e/lake", "--data", w.data())
		require.NoError(t, err)
		out, err := duckdb.Run(t.Context(), "", "jsonlines", sql+";SELECT sum(stars) || ' in ' || count(stars) || ', ' || sum(price) || ' ' || typeof(any_value(price)) AS stars FROM notes")
		got = string(out)
		if err != nil { // such as a column that is not there yet
			got = err.Error()
		}
		return strings.Contains(got, `"`+want+`"`)
	}, func() string { return "the new column has " + got + ", want " + want })
}

// sameInDuckDB waits until view and merged table are the source's table.
func (w *world) sameInDuckDB(t *testing.T, db, sql string) {
	t.Helper()
	want := w.source.exec(t, `SELECT count(*), md5(string_agg(concat_ws('|', id, coalesce(title, '-'), coalesce(md5(body), '-'), coalesce(price::text, '-'),
		coalesce((extract(epoch FROM seen) * 1000000)::bigint::text, '-'), coalesce(array_to_string(tags, ',', '?'), '-'), coalesce(active::text, '-')), E'\n' ORDER BY id)) FROM notes`)
	for _, view := range []string{"notes", "notes_merged_current"} {
		got := ""
		eventually(t, arrival, func() bool {
			if _, err := duckdb.Run(t.Context(), db, "csv", sql); err != nil {
				got = err.Error()
				return false
			}
			rows := duckdb.Query(t, db, fmt.Sprintf(`SELECT count(*) AS n, md5(string_agg(concat_ws('|', id, coalesce(title, '-'), coalesce(md5(body), '-'), coalesce(price::VARCHAR, '-'),
				coalesce(epoch_us(seen)::VARCHAR, '-'), coalesce(array_to_string(list_transform(tags::VARCHAR[], lambda x: coalesce(x, '?')), ','), '-'), coalesce(active::VARCHAR, '-')), chr(10) ORDER BY id)) AS sum FROM %s`, view))
			got = fmt.Sprintf("%v|%v", rows[0]["n"], rows[0]["sum"])
			return got == want
		}, func() string { return view + ": got " + got + ", want " + want })
	}
}
