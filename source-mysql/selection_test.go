package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// A backfill reads only rows for which the binding's condition is true; changes of all rows are captured.
func TestBackfillFilter(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 10), (2, 20), (3, 30)")
		d := db.driver()
		table := *db.tables(d, "a")[0]
		table.Selection.Filter = "v > 10 OR 1 = 2 -- and so on"
		require.Empty(t, d.CheckSelections(t.Context(), []*cdc.Table{&table}))
		rows, keys := db.scanAll(d, &table, 1)
		require.Equal(t, []string{`{"id":2,"v":20}`, `{"id":3,"v":30}`}, rows)
		s := db.open(d, &table)
		db.exec("UPDATE a SET v = v - 15", "DELETE FROM a WHERE id = 1")
		require.Len(t, s.fence(), 4)
		require.Len(t, db.scanKeys(d, &table, keys), 2, "rows that are read by key are not filtered")
		for filter, want := range map[string]string{
			"v >": "is not a condition that the server understands", "nothing = 1": "It was: nothing = 1", "1 = 1) OR (1 = 1": "is not a condition",
			"v, 2) OR NULLIF(v": "is not a condition", "1 = 1; DROP TABLE a": "is not a condition", "1 = 1 /*": "is not a condition", "1, 2": "is not a condition",
		} {
			bad := table
			bad.Selection.Filter = filter
			problems := d.CheckSelections(t.Context(), []*cdc.Table{&bad})
			require.Len(t, problems, 1, filter)
			require.ErrorContains(t, problems[0], "The backfillFilter of table "+db.name+".a ")
			require.ErrorContains(t, problems[0], want)
			_, err := d.Plan(t.Context(), &bad)
			require.ErrorContains(t, err, want)
		}
	})
}

// Columns that the server computes or hides are columns: both ways give the same.
func TestComputedAndInvisibleColumns(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, s INT AS (id + 1) STORED, v VARCHAR(9) AS (CONCAT('n', id)) VIRTUAL, h INT DEFAULT 5 INVISIBLE, KEY (v))")
		if flavor == mysqld.MySQL {
			db.exec("CREATE INDEX i ON a ((id * 2))")
		} else {
			db.exec("ALTER TABLE a ADD COLUMN l TEXT INVISIBLE UNIQUE")
		}
		d := db.driver()
		tables := db.tables(d, "a")
		s := db.open(d, tables...)
		db.exec("INSERT INTO a (id) VALUES (1)", "UPDATE a SET id = 2", "UPDATE a SET h = NULL")
		l := ""
		if flavor == mysqld.MariaDB {
			l = `"l":null,`
		}
		row := func(id int, h string) string {
			return fmt.Sprintf(`{"h":%s,"id":%d,%s"s":%d,"v":"n%d"}`, h, id, l, id+1, id)
		}
		require.Equal(t, []string{"c a " + row(1, "5"), "u a " + row(2, "5") + " before " + row(1, "5"), "u a " + row(2, "null") + " before " + row(2, "5")}, s.fence())
		rows, _ := db.scanAll(d, tables[0], 1)
		require.Equal(t, []string{row(2, "null")}, rows)
	})
}

// What foreign keys do to rows is in the log of newer servers; check and discovery warn of the others (hard case 42).
func TestCascades(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE p (id INT PRIMARY KEY)", "CREATE TABLE c (id INT PRIMARY KEY, p INT, CONSTRAINT f FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE)",
			"INSERT INTO p VALUES (1)", "INSERT INTO c VALUES (1, 1)")
		d := db.driver()
		tables := db.tables(d, "p", "c")
		s := db.open(d, tables...)
		warnings, err := d.cascadesOf(t, tables)
		require.NoError(t, err)
		db.exec("DELETE FROM p")
		events := s.fence()
		require.Contains(t, events, `d p before {"id":1}`)
		if len(warnings) == 0 {
			require.Contains(t, events, `d c before {"id":1,"p":1}`, "no warning, so the log has to have it")
			return
		}
		require.Len(t, events, 1)
		require.Contains(t, warnings[0], "this server does not log these changes: the collection will miss them")
	})
}

func (d *driver) cascadesOf(t *testing.T, tables []*cdc.Table) (warnings []string, err error) {
	t.Helper()
	ids := make([]cdc.TableID, len(tables))
	for i, table := range tables {
		ids[i] = table.ID
	}
	err = d.conns.with(t.Context(), func(s *session) error {
		warnings, err = d.cascades(t.Context(), s, ids)
		return err
	})
	return warnings, err
}

// Rows that leave a table at once, with their partition, are a truncation.
func TestPartitions(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p VALUES LESS THAN (10), PARTITION q VALUES LESS THAN (20), PARTITION r VALUES LESS THAN (30))",
			"CREATE TABLE x (id INT PRIMARY KEY)", "INSERT INTO a VALUES (1), (11), (21)")
		d := db.driver()
		s := db.open(d, db.tables(d, "a")...)
		for _, sql := range []string{"ALTER TABLE a TRUNCATE PARTITION p", "ALTER TABLE a DROP PARTITION p", "TRUNCATE a"} {
			db.exec(sql)
			require.Equal(t, []string{"truncate a"}, s.fence(), sql)
		}
		db.exec("ALTER TABLE a EXCHANGE PARTITION q WITH TABLE x")
		require.Equal(t, []string{"truncate a", "shape a (id int) rescan true"}, s.fence(), "it has got rows, too")
		db.exec("ALTER TABLE a ADD PARTITION (PARTITION s VALUES LESS THAN (40))", "ALTER TABLE a REORGANIZE PARTITION q, r INTO (PARTITION q VALUES LESS THAN (30))", "INSERT INTO a VALUES (31)")
		require.Equal(t, []string{`c a {"id":31}`}, s.fence())
	})
}

// Rows that come with a partition are captured even where nothing becomes of those that went (onTruncate is ignore).
func TestExchangedPartition(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id) (PARTITION p VALUES LESS THAN (10), PARTITION q VALUES LESS THAN (20))",
			"CREATE TABLE x (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 1), (11, 2)", "INSERT INTO x VALUES (12, 3)")
		c := newCapture(t, db)
		require.NoError(t, c.run("s a 1 v=1", "s a 11 v=2", "s x 12 v=3"))
		db.exec("ALTER TABLE a EXCHANGE PARTITION q WITH TABLE x", "UPDATE a SET v = 4 WHERE id = 12")
		require.NoError(t, c.run("s a 1 v=1", "s x 11 v=2", "u a 12 v=4"))
		require.NotContains(t, c.docs, "s a 11 v=2")
	})
}

// With another zone or another choice for dates that do not exist, columns have other values.
func TestForms(t *testing.T) {
	t.Parallel()
	berlin := config{Timezone: "Europe/Berlin"}
	for _, c := range []struct {
		typ, zero string
		zone      bool
		asKey     bool
		want      string
	}{
		{"int", zeroText, true, false, ""},
		{"date", "", true, false, ""},
		{"date", zeroNearest, false, false, ""},
		{"date", zeroNull, true, false, zeroNull},
		{"date", zeroNull, true, true, ""},
		{"datetime(3)", "", true, false, "@Europe/Berlin"},
		{"datetime", zeroNull, true, false, "null@Europe/Berlin"},
		{"datetime", zeroText, true, true, zeroText},
		{"timestamp", "", true, false, ""},
	} {
		cfg := config{}
		if c.zone {
			cfg = berlin
		}
		cfg.Advanced.ZeroDates = c.zero
		d, err := newDriver(testEnv(t), cfg)
		require.NoError(t, err)
		typ, err := parseType(c.typ)
		require.NoError(t, err)
		require.Equal(t, c.want, d.form(typ, c.asKey), "%+v", c)
	}
}
