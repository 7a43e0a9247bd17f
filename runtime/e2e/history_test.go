package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// A table, its history and the list of its changes, from one capture: rows with values that are stored out of line and that
// changes leave out, several changes in one transaction, deletions, rows that come back, keys that change, and a kill.
func TestHistoryAndChangesOfATable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE people (id integer PRIMARY KEY, name text, bio text)`,
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
