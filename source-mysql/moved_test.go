package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// transplant puts the files of a table in the place of those that another one has discarded.
func (db *database) transplant(from, to string) {
	db.t.Helper()
	folder := filepath.Join(db.server.DataDir(), db.name)
	s := db.session(db.name)
	require.NoError(db.t, s.exec(db.t.Context(), "FLUSH TABLES "+from+" FOR EXPORT"))
	for _, end := range []string{".ibd", ".cfg"} {
		content, err := os.ReadFile(filepath.Join(folder, from+end))
		require.NoError(db.t, err)
		path := filepath.Join(folder, to+end)
		require.NoError(db.t, os.WriteFile(path, content, 0o600))
		require.NoError(db.t, os.Chmod(path, 0o666)) // the server may be another user
	}
	require.NoError(db.t, s.exec(db.t.Context(), "UNLOCK TABLES"))
	require.NoError(db.t, s.close())
}

// Rows that come with a file are captured even where nothing becomes of those that went (onTruncate is ignore).
func TestImportedTablespace(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 1)", "CREATE TABLE x (id INT PRIMARY KEY, v INT)", "INSERT INTO x VALUES (2, 2)")
		d := db.driver()
		tables := db.tables(d, "a", "x")
		tables[1].Unread = true // only changes are captured of it
		s := db.open(d, tables...)
		db.exec("ALTER TABLE a DISCARD TABLESPACE")
		require.Equal(t, []string{"truncate a"}, s.fence())
		_, err := d.Scan(t.Context(), cdc.Chunk{Table: tables[0], Range: scanRange{Open: true}.encode(), MaxRows: 5, MaxBytes: 1 << 20}, func(cdc.Row) error { return nil })
		require.ErrorIs(t, err, cdc.ErrInterrupted)
		require.ErrorContains(t, err, "The table "+db.name+".a has no rows that could be read: its tablespace was discarded. Import another one (ALTER TABLE `"+db.name+"`.`a` IMPORT TABLESPACE), or leave the table out.")
		db.transplant("x", "a")
		db.exec("ALTER TABLE a IMPORT TABLESPACE")
		require.Equal(t, []string{"truncate a", "shape a (id int, v int) rescan true"}, s.fence())
		rows, _ := db.scanAll(d, tables[0], 5)
		require.Equal(t, []string{`{"id":2,"v":2}`}, rows)

		db.exec("ALTER TABLE x DISCARD TABLESPACE")
		db.transplant("a", "x")
		db.exec("ALTER TABLE x IMPORT TABLESPACE")
		require.Equal(t, []string{"truncate x", "truncate x"}, s.fence(), "where only changes are captured, these are none")
	})
}

// A table without a key to which rows come without a word for each is given up, by itself: to read it again would repeat what it had.
func TestRowsComeToKeylessTable(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE n (v INT) PARTITION BY RANGE (v) (PARTITION p VALUES LESS THAN (10), PARTITION q VALUES LESS THAN (20))", "CREATE TABLE x (v INT)",
			"CREATE TABLE a (id INT PRIMARY KEY, v INT)", "INSERT INTO n VALUES (1), (11)", "INSERT INTO x VALUES (12)", "INSERT INTO a VALUES (1, 1)")
		d := db.driver()
		tables := db.tables(d, "n", "a")
		s := db.open(d, tables...)
		s.join(tables[0])
		require.Empty(t, newVersions(t).scanSome(d, tables[0], 10))
		db.exec("INSERT INTO n VALUES (13)", "ALTER TABLE n EXCHANGE PARTITION q WITH TABLE x", "INSERT INTO n VALUES (14)", "INSERT INTO a VALUES (2, 2)")
		var events []string
		require.NoError(t, s.each(func(ev *cdc.Event) {
			events = append(events, s.text(ev))
			require.Equal(t, ev.Op == cdc.Drop, ev.Halt)
		}))
		require.Len(t, events, 4)
		require.Equal(t, []string{`c n {"v":13}`, "truncate n"}, events[:2])
		require.Regexp(t, `^drop n: Rows came to table `+db.name+`.n without a word for each in the log \(at \S+:\d+\): a partition or a tablespace was exchanged, converted or imported. `+
			`The table has no key, so they cannot be told from its other rows, and it is not captured any more. Backfill it into an empty collection; with a primary key, such rows are read and all goes on.$`, events[2])
		require.Equal(t, `c a {"id":2,"v":2}`, events[3], "others go on")
	})
}

// MariaDB makes tables of partitions, and partitions of tables.
func TestConvertedPartitions(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, mysqld.MariaDB)
	db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id) (PARTITION p VALUES LESS THAN (10), PARTITION q VALUES LESS THAN (20))",
		"CREATE TABLE x (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 1), (11, 2)", "INSERT INTO x VALUES (12, 3)")
	c := newCapture(t, db)
	require.NoError(t, c.run("s a 1 v=1", "s a 11 v=2", "s x 12 v=3"))
	db.exec("DROP TABLE x", "ALTER TABLE a CONVERT PARTITION q TO TABLE x", "INSERT INTO x VALUES (13, 4)")
	require.NoError(t, c.run("s x 11 v=2", "c x 13 v=4"))
	db.exec("ALTER TABLE a CONVERT TABLE x TO PARTITION q VALUES LESS THAN (20)", "UPDATE a SET v = 5 WHERE id = 1")
	require.NoError(t, c.run("s a 11 v=2", "s a 13 v=4", "u a 1 v=5"))
}

// Statements that give other values to rows without a word for each: the rows are read again.
func TestValuesWithoutAWord(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT, w INT)", "INSERT INTO a VALUES (1, 1, 2), (2, NULL, 3)",
			"CREATE TABLE g (id INT PRIMARY KEY, v INT AS (id + 1) STORED)", "INSERT INTO g (id) VALUES (1)")
		c := newCapture(t, db)
		require.NoError(t, c.run("s a 1 v=1", "s a 2 v=null", "s g 1 v=2"))
		db.exec("ALTER TABLE a RENAME COLUMN v TO o", "ALTER TABLE a RENAME COLUMN w TO v", "ALTER TABLE a RENAME COLUMN o TO w", "ALTER TABLE a MODIFY v INT AFTER id")
		require.NoError(t, c.run("s a 1 v=2", "s a 2 v=3"), "the columns are called as before, each as the other")
		db.exec("UPDATE a SET v = NULL WHERE id = 1")
		require.NoError(t, c.run("u a 1 v=null"))
		db.exec("SET sql_mode = ''", "ALTER TABLE a MODIFY v INT NOT NULL")
		require.NoError(t, c.run("s a 1 v=0", "s a 2 v=3"))
		db.exec("ALTER TABLE g MODIFY v INT AS (id + 7) STORED")
		require.NoError(t, c.run("s g 1 v=8"))
		db.exec("SET sql_mode = 'STRICT_TRANS_TABLES'", "ALTER TABLE a MODIFY v INT NULL", "ALTER TABLE a MODIFY v INT NOT NULL", "INSERT INTO a VALUES (5, 5, 5)")
		require.NoError(t, c.run("c a 5 v=5"))
		require.Equal(t, []string{"c a 5 v=5"}, c.docs, "in a strict session nothing can have become another value")
		if flavor == mysqld.MariaDB {
			d := db.driver()
			s := db.open(d, db.tables(d, "a")...)
			db.exec("UPDATE a SET v = 3", "ALTER IGNORE TABLE a ADD UNIQUE (v)")
			events := s.fence()
			require.Equal(t, []string{"truncate a", "shape a (id int, v int, w int) rescan true look"}, events[len(events)-2:])
			require.Equal(t, [][]string{{"1"}}, db.query("SELECT COUNT(*) FROM a"), "rows went")
		}
	})
}

// A table that gets another engine, or a history, ends, and is captured again when it is as before.
func TestEngineChanges(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, engine INT)", "INSERT INTO a VALUES (1, 1)")
		d := db.driver()
		s := db.open(d, db.tables(d, "a")...)
		db.exec("ALTER TABLE a ENGINE = InnoDB", "ALTER TABLE a MODIFY engine INT FIRST", "ALTER TABLE a MODIFY engine INT AFTER id", "INSERT INTO a VALUES (2, 2)")
		events := s.fence()
		require.Equal(t, `c a {"engine":2,"id":2}`, events[len(events)-1])
		db.exec("ALTER TABLE a ENGINE = MyISAM")
		require.Equal(t, []string{"drop a: The table " + db.name + ".a has the engine MyISAM, whose rows cannot be read as of one moment. Convert it: ALTER TABLE `" + db.name + "`.`a` ENGINE = InnoDB;"}, s.fence())
		db.exec("INSERT INTO a VALUES (7, 7)")
		require.Empty(t, s.fence())
		db.exec("ALTER TABLE a ENGINE = InnoDB", "INSERT INTO a VALUES (3, 3)")
		require.Equal(t, []string{"shape a (id int, engine int) rescan true", `c a {"engine":3,"id":3}`}, s.fence())
		if flavor == mysqld.MariaDB {
			db.exec("ALTER TABLE a ADD SYSTEM VERSIONING")
			db.exec("UPDATE a SET engine = 8", "UPDATE a SET engine = 9")
			events := s.fence()
			require.Contains(t, events[0], "drop a: The table "+db.name+".a keeps its history (WITH SYSTEM VERSIONING)")
			for _, ev := range events {
				require.NotContains(t, ev, `"engine":`, "versions of rows are no changes")
			}
			db.exec("ALTER TABLE a DROP SYSTEM VERSIONING", "INSERT INTO a VALUES (4, 4)")
			events = s.fence()
			require.Equal(t, "shape a (id int, engine int) rescan true", events[0])
			require.Equal(t, `c a {"engine":4,"id":4}`, events[len(events)-1])
		}
	})
}

// Rows that a table is made with are in the log as rows of the transaction that makes it, or the statement is, and the table is read.
func TestTableMadeOfQuery(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 1)")
		c := newCapture(t, db)
		require.NoError(t, c.run("s a 1 v=1"))
		db.exec("DROP TABLE a", "CREATE TABLE a (PRIMARY KEY (id)) SELECT 2 AS id, 3 AS v", "INSERT INTO a VALUES (4, 5)")
		require.NoError(t, c.run("c a 2 v=3", "c a 4 v=5"))
		db.exec("DROP TABLE a", "SET binlog_format = STATEMENT", "CREATE TABLE a (id INT PRIMARY KEY, v INT) SELECT 6 AS id, 7 AS v")
		require.NoError(t, c.run("s a 6 v=7"))
	})
}

// A database that the server leaves out of its log is refused.
func TestDatabasesWithoutLog(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		for setting, value := range map[string]string{"binlog-ignore-db": "gone", "binlog-do-db": "here"} {
			db := databaseOn(t, server.MySQL(t, flavor, map[string]string{setting: value}))
			db.exec("CREATE DATABASE gone", "CREATE TABLE gone.a (id INT PRIMARY KEY)", "CREATE DATABASE here", "CREATE TABLE here.a (id INT PRIMARY KEY)")
			db.cfg.Databases = []string{"gone", "here"}
			d := db.driver()
			open := func(name string) ([]error, error) {
				id := cdc.TableID{Schema: name, Name: "a"}
				tables, err := d.Discover(t.Context(), id)
				require.NoError(t, err)
				s, err := d.Stream(t.Context(), cdc.Position{}, tables)
				if err == nil {
					require.NoError(t, s.Close())
				}
				return d.Check(t.Context(), []cdc.TableID{id}), err
			}
			problems, err := open("here")
			require.NoError(t, err)
			require.Empty(t, problems)
			problems, err = open("gone")
			want := "The server leaves changes of some databases out of its binary log (gone): it has binlog_do_db or binlog_ignore_db set. " +
				"Have an administrator take these out of the server's configuration, and restart it; then backfill the tables."
			require.EqualError(t, err, want)
			require.Len(t, problems, 1)
			require.EqualError(t, problems[0], want)
		}
	})
}
