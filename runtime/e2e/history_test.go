package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// A table, its history and the list of its changes, from one capture: rows with values that are stored out of line and that
// changes leave out, several changes in one transaction, deletions, rows that come back, keys that change, and a kill.
func TestHistoryAndChangesOfATable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE people (id integer PRIMARY KEY, name text, bio text NOT NULL)`,
		`ALTER TABLE people ALTER COLUMN bio SET STORAGE EXTERNAL`,
		`INSERT INTO people SELECT i, 'p' || i, repeat('long ', 2000) || i FROM generate_series(1, 20) AS i`)
	w.discover(t, "people")
	w.materialize(t, "e2e/now", map[string]any{"schema": "now", "hardDelete": true}, nil)
	w.materialize(t, "e2e/versions", map[string]any{"schema": "versions"}, func(_ string, b *launch.MaterializationBinding) bool {
		b.Resource["history"] = "scd2"
		return true
	})
	w.materialize(t, "e2e/changes", map[string]any{"schema": "changes"}, func(_ string, b *launch.MaterializationBinding) bool {
		b.Resource["deltaUpdates"] = true
		return true
	})
	w.start(t)
	w.copy.prints(t, "20|20|20", "SELECT (SELECT count(*) FROM now.people), (SELECT count(*) FROM versions.people), (SELECT count(*) FROM changes.people)")

	w.source.exec(t, `
		BEGIN; UPDATE people SET name = 'a' WHERE id = 1; UPDATE people SET name = 'b' WHERE id = 1; UPDATE people SET bio = 'short' WHERE id = 1; COMMIT;
		UPDATE people SET name = 'c' WHERE id = 1;
		DELETE FROM people WHERE id = 2; INSERT INTO people VALUES (2, 'back', 'new'); UPDATE people SET name = name WHERE id = 3;
		BEGIN; INSERT INTO people VALUES (50, 'x', repeat('long ', 2000)); UPDATE people SET name = 'y' WHERE id = 50; UPDATE people SET name = 'z' WHERE id = 50; COMMIT;
		BEGIN; INSERT INTO people VALUES (51, 'brief', 'x'); DELETE FROM people WHERE id = 51; COMMIT;
		DELETE FROM people WHERE id = 4; UPDATE people SET id = 60 WHERE id = 5`)
	w.sluice.Kill()
	w.source.exec(t, "UPDATE people SET name = 'late' WHERE id IN (1, 6)")
	w.restart(t, launch.Options{})
	w.same(t, in("now", "people"))
	current := in("versions", "people")
	current.Only = "is_current"
	w.same(t, current)

	// What a change of the key leaves out is read from the table and completes the row: that is its second version.
	require.Equal(t, strings.TrimSpace(`
1|p1|10001|1|f
1|a|10001|2|f
1|b|10001|3|f
1|b|5|4|f
1|c|5|5|f
1|late|5|6|t
2|p2|10001|1|f
2|back|3|2|t
3|p3|10001|1|t
4|p4|10001|1|f
5|p5|10001|1|f
6|p6|10001|1|f
6|late|10001|2|t
50|x|10000|1|f
50|y|10000|2|f
50|z|10000|3|t
51|brief|1|1|f
60|p5||1|f
60|p5|10001|2|t`), w.copy.exec(t, `SELECT id, name, length(bio), version_number, is_current FROM versions.people WHERE id < 7 OR id > 20 ORDER BY id, version_number`))
	require.Equal(t, "0", w.copy.exec(t, `
		SELECT count(*) FROM versions.people v WHERE is_current = (valid_to IS NOT NULL) OR valid_from IS NULL AND "_meta/source/ts_ms" IS NOT NULL OR valid_to < valid_from OR
			version_number > 1 AND valid_from < (SELECT valid_to FROM versions.people b WHERE b.id = v.id AND b.version_number = v.version_number - 1)`))
	// The changes have all that happened, in the order of the log.
	require.Equal(t, "c|p1|t\nu|a|f\nu|b|f\nu|b|t\nu|c|t\nu|late|t", w.copy.exec(t, `
		SELECT "_meta/op", name, bio IS NOT NULL FROM changes.people WHERE id = 1 ORDER BY "_meta/source/loc" NULLS FIRST`))
}

// Values that are stored out of line, and that changes leave out, keep what they were: also where insertion, update and partial
// update of a row meet in one transaction, of the source or of the destination, and whether documents are stored whole or not.
func TestPartialUpdates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE pages (id integer PRIMARY KEY, title text, body text, extra text)`,
		`ALTER TABLE pages ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN extra SET STORAGE EXTERNAL`,
		`INSERT INTO pages SELECT i, 't' || i, repeat('body ', 2000) || i, NULL FROM generate_series(1, 50) AS i`)
	w.discover(t, "pages")
	w.materialize(t, "e2e/columns", map[string]any{"schema": "columns", "hardDelete": true}, nil)
	w.materialize(t, "e2e/documents", map[string]any{"schema": "documents", "hardDelete": true, "advanced": map[string]any{"storeDocument": true}}, nil)
	w.start(t)
	w.same(t, in("columns", "pages"), in("documents", "pages"))
	const changes = `
		INSERT INTO pages VALUES (%[1]d, 'new', repeat('new ', 3000), repeat('extra ', 2000));
		UPDATE pages SET title = 'named' WHERE id = %[1]d;
		UPDATE pages SET extra = NULL WHERE id = %[1]d;
		UPDATE pages SET title = 'named again' WHERE id IN (%[1]d, 7);
		UPDATE pages SET extra = repeat('late ', 2000) WHERE id = 8; UPDATE pages SET title = 'x' WHERE id = 8;
		DELETE FROM pages WHERE id = 9; INSERT INTO pages VALUES (9, 'back', NULL, repeat('back ', 2000)); UPDATE pages SET title = 'y' WHERE id = 9;
		UPDATE pages SET body = NULL WHERE id = 10; UPDATE pages SET title = 'z' WHERE id = 10;`
	w.source.exec(t, "BEGIN;"+fmt.Sprintf(changes, 100)+"COMMIT")
	w.same(t, in("columns", "pages"), in("documents", "pages"))
	w.source.exec(t, fmt.Sprintf(changes, 101))
	w.same(t, in("columns", "pages"), in("documents", "pages"))
	// What is stored in one session and changed in part in another is loaded back.
	require.NoError(t, w.sluice.Stop())
	w.source.exec(t, "UPDATE pages SET title = 'after' WHERE id IN (100, 101, 8, 9, 10, 20)")
	w.restart(t, launch.Options{})
	w.same(t, in("columns", "pages"), in("documents", "pages"))
	require.Equal(t, "50", w.copy.exec(t, `SELECT count(*) FROM documents.pages WHERE flow_document ->> 'body' = body`))
}

// Rows that changes replace are stored without a load, also where rows come again that are there, or changes come of rows that are not. What
// leaves something out is loaded. (The session that loads says COMMIT after a load, as the one that stores does after its transaction.)
func TestLoadsOnlyWhatItHasTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE pages (id integer PRIMARY KEY, title text, body text)`, `ALTER TABLE pages ALTER COLUMN body SET STORAGE EXTERNAL`,
		`INSERT INTO pages SELECT i, 't' || i, repeat('body ', 1000) || i FROM generate_series(1, 20) AS i`)
	w.discover(t, "pages")
	name := "e2e/unloaded_" + w.copy.database
	w.materialize(t, name, map[string]any{"hardDelete": true}, nil)
	w.start(t)
	w.same(t, pairOf("pages"))
	sessions := `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sluice ` + name + `' AND query = 'COMMIT'`
	change := func(sql string) {
		w.source.exec(t, sql)
		w.same(t, pairOf("pages"))
	}
	change("UPDATE pages SET body = title WHERE id < 5; INSERT INTO pages VALUES (30, 'a', 'b'); UPDATE pages SET title = 'c' WHERE id = 30")
	w.copy.exec(t, "DELETE FROM pages WHERE id = 1", "UPDATE pages SET title = 'by hand' WHERE id = 30", "INSERT INTO pages VALUES (31, 'by hand')")
	change("UPDATE pages SET title = 'd' WHERE id IN (1, 2); UPDATE pages SET title = 'e' WHERE id = 30; INSERT INTO pages VALUES (31, 'f', 'g')")
	w.copy.prints(t, "1", sessions)

	require.NoError(t, w.sluice.Stop())
	capture, err := w.catalog.Capture()
	require.NoError(t, err)
	capture.Bindings[0].Backfill++
	w.source.exec(t, "UPDATE pages SET title = 'late' WHERE id = 6")
	w.copy.exec(t, "UPDATE pages SET title = 'by hand' WHERE id = 7", "DELETE FROM pages WHERE id = 8")
	w.start(t)
	w.same(t, pairOf("pages"))
	w.copy.prints(t, "1", sessions)

	change("UPDATE pages SET title = 'without its body' WHERE id = 20")
	w.copy.prints(t, "2", sessions)
	require.NoError(t, w.sluice.Stop())
}
