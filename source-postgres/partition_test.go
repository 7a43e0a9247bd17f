package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// A partition brings the rows that it had before it was attached: whether the table is read by pages or by its key, whether
// its changes are mentioned by the log, nobody writes to it, or nobody looks at that time. One that is detached takes its
// rows away, of which no log has deletes.
func TestPartitionsAttachedAndDetached(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 3000)
	for name, value := range map[string]string{"by pages": "small", "by key": big} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabaseFrom(t, 13)
			db.cfg.Advanced.RediscoverEvery = "1s"
			db.exec("CREATE TABLE p (id int PRIMARY KEY, a text, n int) PARTITION BY RANGE (id)", "ALTER TABLE p ALTER a SET STORAGE EXTERNAL",
				"CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)", "INSERT INTO p VALUES (1, '"+value+"')",
				"CREATE SCHEMA other")
			for _, part := range []string{"other.p2", "p3", "p4"} {
				db.exec("CREATE TABLE "+part+" (n int, id int PRIMARY KEY, gone int, a text)", "ALTER TABLE "+part+" ALTER a SET STORAGE EXTERNAL", "ALTER TABLE "+part+" DROP gone")
			}
			db.exec("INSERT INTO other.p2 VALUES (0, 21, '"+value+"'), (0, 22, '"+value+"')", "INSERT INTO p3 VALUES (0, 31, '"+value+"')", "INSERT INTO p4 VALUES (0, 41, '"+value+"')")
			row := func(id, n string) string { return `{"a":"` + value + `","id":` + id + `,"n":` + n + `}` }
			c := newCapture(t, db, frame.JSON)
			for i, b := range c.spec.Bindings {
				if b.ResourcePath[1] == "p" {
					c.spec.Bindings = c.spec.Bindings[i : i+1] // the others are partitions to be
					break
				}
			}
			c.until("p", row("1", "null"))
			db.exec("ALTER TABLE p ATTACH PARTITION other.p2 FOR VALUES FROM (20) TO (30)", "UPDATE p SET n = 7 WHERE id = 21")
			c.until("p", row("1", "null"), row("21", "7"), row("22", "0"))
			db.exec("ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (30) TO (40)")
			rows := []string{row("1", "null"), row("21", "7"), row("22", "0"), row("31", "0")}
			c.until("p", rows...)
			attached := false
			c.run(frame.JSON, func(*session.Transaction) bool {
				if !attached {
					attached = true
					db.exec("ALTER TABLE p ATTACH PARTITION p4 FOR VALUES FROM (40) TO (50)")
				}
				return len(c.rows["p"]) == 5 && c.live("p")
			})
			rows = append(rows, row("41", "0"))
			c.until("p", rows...)

			db.exec("ALTER TABLE p DETACH PARTITION p3", "INSERT INTO p VALUES (2)")
			rows = append(rows, `{"a":null,"id":2,"n":null}`)
			c.until("p", rows...)
			require.Contains(t, c.rows["p"], "31|", "nothing says that the row is gone")
			c.onTruncate("stop")
			db.exec("DROP TABLE p4")
			require.Equal(t, "Table public.p lost a part of its rows, which was detached or dropped. The rows it had are still in the collection. To go on, set onTruncate to ignore or backfill, "+
				"or backfill all tables of the capture into empty collections.", usererr.Message(c.fails(frame.JSON)))
		})
	}
}

// Of a table without a key, the rows of a partition that is made as one all come over the log; those of one that existed
// cannot be told from them.
func TestPartitionsOfKeylessTable(t *testing.T) {
	t.Parallel()
	db := newDatabaseFrom(t, 13)
	db.cfg.Advanced.RediscoverEvery = "1s"
	db.exec("CREATE TABLE p (id int) PARTITION BY RANGE (id)", "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)", "ALTER TABLE p1 REPLICA IDENTITY FULL",
		"ALTER TABLE p REPLICA IDENTITY FULL", "INSERT INTO p VALUES (1)")
	c := newCapture(t, db, frame.JSON)
	c.until("p", `{"id":1}`)
	db.exec("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (20) TO (30)", "INSERT INTO p VALUES (21)")
	c.until("p", `{"id":1}`, `{"id":21}`)
	db.exec("CREATE TABLE p3 (id int)", "INSERT INTO p3 VALUES (31)", "ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (30) TO (40)")
	err := c.fails(frame.JSON)
	require.ErrorContains(t, err, "public.p3 was attached to table public.p, which has no key: the rows that it had before cannot be told from those that came over the log since. Backfill the table into an empty collection.")
	require.Equal(t, []string{`{"id":1}`, `{"id":21}`}, c.texts("p"), "each row once")
}
