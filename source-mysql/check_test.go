package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// check is everything that Check says, as one text.
func check(t *testing.T, d *driver, tables ...cdc.TableID) string {
	t.Helper()
	var out []string
	for _, err := range d.Check(t.Context(), tables) {
		out = append(out, err.Error())
	}
	return strings.Join(out, "\n")
}

// Check names everything that is wrong at once, with what to do.
func TestCheck(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		settings := map[string]string{"binlog-format": "MIXED", "binlog-row-image": "MINIMAL", "binlog-row-metadata": "MINIMAL"}
		if flavor == mysqld.MySQL {
			settings["gtid-mode"], settings["binlog-expire-logs-seconds"] = "OFF", "3600"
		} else {
			settings["expire-logs-days"] = "0.04"
		}
		db := databaseOn(t, server.MySQL(t, flavor, settings))
		db.exec("CREATE TABLE good (id INT PRIMARY KEY)", "CREATE TABLE keyless (id INT)", "CREATE TABLE old (id INT PRIMARY KEY) ENGINE = MyISAM", "CREATE VIEW v AS SELECT 1",
			"CREATE USER poor@'%' IDENTIFIED BY 'secret'", "GRANT SELECT ON "+db.name+".keyless TO poor@'%'")
		id := func(name string) cdc.TableID { return cdc.TableID{Schema: db.name, Name: name} }
		all := []cdc.TableID{id("good"), id("keyless"), id("old"), id("v"), id("nothing")}
		if flavor == mysqld.MySQL {
			db.cfg.Advanced.Position = positionGTID
		}
		said := check(t, db.driver(func(c *config) { c.Advanced.MinRetention = "" }), all...)
		want := []string{
			"binlog_format is MIXED. Have an administrator run SET GLOBAL binlog_format = ROW;", "The server keeps its binary log for ", "has the engine MyISAM", "is no table but a view",
			fmt.Sprintf("The table %s.nothing does not exist", db.name),
		}
		if flavor == mysqld.MySQL {
			want = append(want, "gtid_mode is \"OFF\"")
		}
		for _, text := range want {
			require.Contains(t, said, text)
		}
		said = check(t, db.driver(func(c *config) { c.User = "poor" }), all...)
		require.Contains(t, said, `User "poor" may not see where the server's binary log ends. Have an administrator run: GRANT `)
		require.Contains(t, said, `GRANT REPLICATION SLAVE ON *.* TO 'poor'@'%';`)
		require.Contains(t, said, `or user "poor" may not see it`)
		_, err := db.driver().Stream(t.Context(), cdc.Position{}, nil)
		if flavor == mysqld.MySQL {
			require.ErrorContains(t, err, "SET GLOBAL gtid_mode = ON")
			return
		}
		require.NoError(t, err)
	})
}

// A server that is as it should be has no problems, and foreign keys are told of.
func TestCheckGood(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE p (id INT PRIMARY KEY)", "CREATE TABLE c (id INT PRIMARY KEY, p INT, CONSTRAINT f FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE)")
		d := db.driver()
		c := cdc.TableID{Schema: db.name, Name: "c"}
		require.Empty(t, check(t, d, c, cdc.TableID{Schema: db.name, Name: "p"}))
		s, err := d.dialer.open(t.Context())
		require.NoError(t, err)
		warnings, err := d.cascades(t.Context(), s, []cdc.TableID{c})
		require.NoError(t, err)
		require.NoError(t, s.close())
		if flavor == mysqld.MySQL { // which logs them from 9.6 on
			require.Empty(t, warnings)
			return
		}
		require.Len(t, warnings, 1)
		require.Contains(t, warnings[0], "the foreign key f changes rows of "+db.name+".c when rows of p change (ON DELETE CASCADE")
	})
}

func TestConnectAdvice(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		for _, c := range []struct {
			change func(*config)
			want   string
		}{
			{func(c *config) { c.Password = schema.NewSecret("hunter2") }, "does not let the user \"admin\" in. Check user and password"},
			{func(c *config) { c.Address = "127.0.0.1:1" }, "cannot be reached"},
			{func(c *config) { c.SSLMode = "verify-full" }, ""},
		} {
			cfg := db.cfg
			c.change(&cfg)
			_, _, err := connect(t.Context(), testEnv(t), cfg)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "hunter2")
			require.NotContains(t, err.Error(), mysqld.Password)
		}
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	schema.CheckConfig[config](t)
	bad := config{Timezone: "Mars/Olympus", SSLMode: "maybe", Databases: []string{""}, Advanced: advanced{
		BackfillWorkers: 65, BackfillChunkRows: -1, StatementTimeout: "soon", SkipBackfills: []string{"t"}, RediscoverEvery: "1ms", OnTruncate: "cry", OnPositionLoss: "cry",
		ZeroDates: "cry", Position: "cry", ReadTimeout: "1s", StatusEvery: "x", MinRetention: "x", OnOversizedRow: "cry", Geometry: "cry",
	}}
	err := bad.Validate()
	require.Error(t, err)
	for _, text := range []string{
		"Enter the server's address", "Enter the name of the user", `The time zone "Mars/Olympus" is not known`, `The SSL mode "maybe" does not exist`, "A name in databases is empty",
		"between 0 and 64, not 65", "between 0 and 10000000, not -1", `The statement timeout "soon"`, `The entry "t" of skipBackfills`, `The rediscovery interval "1ms"`,
		`The choice "cry" of onTruncate does not exist. Choose from ignore, backfill, stop.`, `"cry" of onPositionLoss`, `"cry" of zeroDates`, `The choice "cry" of geometry does not exist. Choose from wkt, geojson.`, `"cry" of position`, `"cry" of onOversizedRow`,
		`The read timeout "1s"`, `The status interval "x"`, `The least log retention "x"`,
	} {
		require.Contains(t, err.Error(), text)
	}
}

// Dates that do not exist, and the zone of those that do (hard case 44).
func TestZeroDates(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, d DATE NOT NULL, t DATETIME(2))", "CREATE TABLE k (d DATE PRIMARY KEY)")
		for policy, want := range map[string]string{
			zeroNearest: `{"d":"0001-01-01","id":1,"t":"2024-06-30T22:00:00.50Z"}`,
			zeroNull:    `{"d":null,"id":1,"t":"2024-06-30T22:00:00.50Z"}`,
			zeroText:    `{"d":"0000-00-00","id":1,"t":"2024-07-01 00:00:00.50"}`,
		} {
			d := db.driver(func(c *config) { c.Advanced.ZeroDates, c.Timezone = policy, "Europe/Berlin" })
			tables := db.tables(d, "a", "k")
			s := db.open(d, tables...)
			db.exec("SET sql_mode = ''", "DELETE FROM a", "INSERT INTO a VALUES (1, 0, '2024-07-01 00:00:00.5')")
			events := s.fence()
			require.Equal(t, "c a "+want, events[len(events)-1])
			rows, _ := db.scanAll(d, tables[0], 10)
			require.Equal(t, []string{want}, rows)
			db.exec("SET sql_mode = ''", "DELETE FROM k", "INSERT INTO k VALUES ('2024-00-00')")
			err := s.each(func(ev *cdc.Event) {
				row := ev.Row
				if row == nil {
					row = ev.Before
				}
				_, err := row.AppendKey(nil)
				if policy == zeroText {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, "Set advanced.zeroDates to text")
				}
			})
			require.NoError(t, err)
		}
	})
}

// Geometries as GeoJSON are what the server makes of them itself, in a backfill and in the log; to choose that later has the table read again.
func TestGeoJSON(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, g GEOMETRY NOT NULL, n POINT)")
		d := db.driver(func(c *config) { c.Advanced.Geometry = geoJSON })
		table := db.tables(d, "a")[0]
		require.Equal(t, geoJSON, table.Columns[1].Form)
		require.Empty(t, db.tables(db.driver(), "a")[0].Columns[1].Form, "so that it is read again when that changes")
		require.JSONEq(t, `{"type":"object"}`, string(table.Columns[1].Schema))
		require.JSONEq(t, `{"type":["object","null"]}`, string(table.Columns[2].Schema))
		s := db.open(d, table)
		for i, text := range []string{
			"POINT(1 -2.5)", "LINESTRING(0 0,1 1)", "POLYGON((0 0,4 0,4 4,0 0),(1 1,2 1,2 2,1 1))", "MULTIPOINT(1 2,3 4)", "MULTILINESTRING((0 0,1 1),(2 2,3 3,4 4))",
			"MULTIPOLYGON(((0 0,1 0,1 1,0 0)),((5 5,6 5,6 6,5 5)))", "GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,100000000 1),MULTIPOINT(1 2,3 4))", "GEOMETRYCOLLECTION EMPTY",
		} {
			db.exec(fmt.Sprintf("INSERT INTO a VALUES (%d, ST_GeomFromText('%s'), NULL)", i, text))
		}
		list, err := db.session(db.name).texts(t.Context(), "SELECT ST_AsGeoJSON(g) FROM a ORDER BY id")
		require.NoError(t, err)
		list[len(list)-1] = []string{`{"type":"GeometryCollection","geometries":[]}`} // some servers print no JSON for it
		rows, _ := db.scanAll(d, table, 10)
		require.Len(t, rows, len(list))
		for i, event := range s.fence() {
			want := fmt.Sprintf(`{"g":%s,"id":%d,"n":null}`, list[i][0], i)
			require.JSONEq(t, want, rows[i])
			require.JSONEq(t, want, strings.TrimPrefix(event, "c a "))
		}
	})
}

// Columns that are left out are in no shape, no row and no chunk.
func TestExcludedColumns(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, secret TEXT, v INT)", "INSERT INTO a VALUES (1, 'hidden', 1)")
		d := db.driver()
		table := *db.tables(d, "a")[0]
		table.Selection = cdc.Selection{Exclude: []string{"secret"}}
		table.Columns = append(table.Columns[:1:1], table.Columns[2])
		s := db.open(d, &table)
		db.exec("UPDATE a SET secret = 'other', v = 2", "ALTER TABLE a ADD COLUMN w INT", "DELETE FROM a WHERE id = 1")
		for _, event := range s.fence() {
			require.NotContains(t, event, "secret")
			require.NotContains(t, event, "hidden")
		}
		db.exec("ALTER TABLE a DROP COLUMN w", "INSERT INTO a VALUES (2, 'hidden', 1)")
		rows, _ := db.scanAll(d, &table, 10)
		require.Equal(t, []string{`{"id":2,"v":1}`}, rows)
	})
}

// A chunk is read again in the new shape if the table was altered since it was planned.
func TestScanAfterAlter(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 1), (2, 2)")
		d := db.driver()
		table := db.tables(d, "a")[0]
		rows, _ := db.scanAll(d, table, 10)
		require.Len(t, rows, 2)
		plan, err := d.Plan(t.Context(), table)
		require.NoError(t, err)
		scan := func() error {
			_, err := d.Scan(t.Context(), cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 10, MaxBytes: 1 << 20}, func(cdc.Row) error { return nil })
			return err
		}
		require.NoError(t, scan())
		db.exec("ALTER TABLE a MODIFY v VARCHAR(10)")
		require.ErrorIs(t, scan(), cdc.ErrReshaped)
		db.exec("ALTER TABLE a DROP COLUMN v")
		require.ErrorIs(t, scan(), cdc.ErrReshaped)
		db.exec("DROP TABLE a")
		require.ErrorIs(t, scan(), cdc.ErrRewritten)
	})
}
