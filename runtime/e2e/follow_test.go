package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// Tables change while they are captured, and rows that are never touched again are right in the destination too.
func TestSchemaChangesArrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t,
		`CREATE TABLE shapes (id integer PRIMARY KEY, small integer, label text NOT NULL, old text, code integer)`,
		`INSERT INTO shapes SELECT i, i, 'shape ' || i, 'old', i FROM generate_series(1, 500) AS i`)
	w.discover(t)
	w.materialize(t, "e2e/shapes", map[string]any{"hardDelete": true}, nil)
	w.start(t)
	w.same(t, pairOf("shapes"))

	for _, change := range []struct{ name, alter, write string }{
		{"add a column", "ALTER TABLE shapes ADD COLUMN extra jsonb", `UPDATE shapes SET extra = '{"a": [1, 2]}' WHERE id % 5 = 0`},
		{"add a column with a default", "ALTER TABLE shapes ADD COLUMN grade integer NOT NULL DEFAULT 7", "UPDATE shapes SET grade = 8 WHERE id % 9 = 0"},
		{"widen an integer", "ALTER TABLE shapes ALTER COLUMN small TYPE bigint", "UPDATE shapes SET small = 5000000000 + id WHERE id % 3 = 0"},
		{"let a column be null", "ALTER TABLE shapes ALTER COLUMN label DROP NOT NULL", "UPDATE shapes SET label = NULL WHERE id % 4 = 0"},
		{"drop a column", "ALTER TABLE shapes DROP COLUMN old", "INSERT INTO shapes (id, label) VALUES (1001, 'without old')"},
		{"rename a column", "ALTER TABLE shapes RENAME COLUMN label TO title", "UPDATE shapes SET title = 'renamed' WHERE id % 6 = 0"},
		{"another type altogether", "ALTER TABLE shapes ALTER COLUMN code TYPE text USING 'code ' || code", "UPDATE shapes SET code = 'none' WHERE id % 8 = 0"},
	} {
		t.Run(change.name, func(t *testing.T) {
			w.source.exec(t, change.alter, change.write)
			w.same(t, pairOf("shapes"))
		})
	}
}

// Deletes either remove a row or mark it, and a row that comes back is back.
func TestDeletes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, itemsFill)
	w.discover(t)
	w.materialize(t, "e2e/soft", map[string]any{"schema": "soft"}, nil)
	w.materialize(t, "e2e/hard", map[string]any{"schema": "hard", "hardDelete": true}, nil)
	w.start(t)
	w.same(t, softly(in("soft", "items")), in("hard", "items"))
	w.source.exec(t, "DELETE FROM items WHERE id <= 10")
	w.copy.prints(t, "10|item 1", `SELECT count(*), min(name) FROM soft.items WHERE "_meta/op" = 'd'`)
	w.copy.prints(t, "2990", "SELECT count(*) FROM hard.items")
	w.same(t, softly(in("soft", "items")), in("hard", "items"))

	w.source.exec(t, "INSERT INTO items VALUES (5, 'back', NULL, NULL)", "BEGIN; INSERT INTO items VALUES (6, 'here'); DELETE FROM items WHERE id = 6; COMMIT",
		"UPDATE items SET id = 7 WHERE id = 11")
	w.same(t, softly(in("soft", "items")), in("hard", "items"))
	w.copy.prints(t, "5|back||\n7|item 11|3.67|t", `SELECT id, name, price::text, CASE WHEN seen IS NOT NULL THEN 't' END FROM hard.items WHERE id <= 11 ORDER BY id`)
	w.copy.prints(t, "9", `SELECT count(*) FROM soft.items WHERE "_meta/op" = 'd'`) // 1–4, 6, 8–11
}

// Both codecs carry the same, also mixed in one pipeline.
func TestCodecs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name            string
		capture, insert bool
	}{{"json", false, false}, {"proto and json", true, false}, {"json and proto", false, true}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, workloadTables, `
				INSERT INTO wide SELECT i, i, repeat('wide ', 2000), '{"a": "ü \" \\ \n"}' FROM generate_series(1, 20) AS i;
				INSERT INTO named VALUES (E'quo"te \\ \n 🙂', 1, md5('')::uuid), ('', 2, NULL);
				INSERT INTO paired VALUES (1, 'x', 1e300, ARRAY['a', NULL, 'c"d']), (2, '', 'NaN', '{}'), (3, 'y', '-Infinity', NULL)`)
			w.discover(t, "wide", "named", "paired")
			w.materialize(t, "e2e/codecs", map[string]any{"hardDelete": true}, nil)
			capture, err := w.catalog.Capture()
			require.NoError(t, err)
			capture.Endpoint.Local.Protobuf = test.capture
			w.catalog.Materializations["e2e/codecs"].Endpoint.Local.Protobuf = test.insert
			w.start(t)
			w.same(t, pairOf("wide"), pairOf("named"), pairOf("paired"))
			w.source.exec(t, "UPDATE wide SET n = n + 1", "DELETE FROM named WHERE n = 2", "UPDATE paired SET b = 'moved' WHERE a = 2")
			w.same(t, pairOf("wide"), pairOf("named"), pairOf("paired"))
			require.NoError(t, w.sluice.Stop())
		})
	}
}

// A table without a key is materialized as the list of its changes.
func TestKeylessTableAsChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE happenings (what text, n integer)`, `ALTER TABLE happenings REPLICA IDENTITY FULL`,
		`INSERT INTO happenings SELECT 'before', i % 10 FROM generate_series(1, 200) AS i`)
	w.discover(t)
	w.materialize(t, "e2e/happenings", nil, func(_ string, b *launch.MaterializationBinding) bool {
		b.Resource["deltaUpdates"] = true
		return true
	})
	w.start(t)
	w.copy.prints(t, "200", "SELECT count(*) FROM happenings")
	w.source.exec(t, "INSERT INTO happenings VALUES ('new', 1), ('new', 1)", "UPDATE happenings SET what = 'changed' WHERE n = 5", "DELETE FROM happenings WHERE n = 6")
	w.copy.prints(t, "c|before|200\nc|new|2\nd|before|20\nu|changed|20", `SELECT "_meta/op", what, count(*) FROM happenings GROUP BY 1, 2 ORDER BY 1, 2`)
	w.sluice.Kill()
	w.source.exec(t, "INSERT INTO happenings VALUES ('late', 1)")
	w.restart(t, launch.Options{})
	w.copy.prints(t, "c|before|200\nc|late|1\nc|new|2\nd|before|20\nu|changed|20", `SELECT "_meta/op", what, count(*) FROM happenings GROUP BY 1, 2 ORDER BY 1, 2`)
}
