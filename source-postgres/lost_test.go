package main

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// free waits until nobody reads the database's slot.
func (db *database) free() {
	db.t.Helper()
	eventually(db.t, "the slot is free", func() bool {
		return strings.TrimSpace(db.exec("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '"+db.cfg.Advanced.SlotName+"' AND active")) == "0"
	})
}

const drop, create, advance = "SELECT pg_drop_replication_slot('%')", "SELECT pg_create_logical_replication_slot('%', 'pgoutput')", "SELECT pg_replication_slot_advance('%', pg_current_wal_lsn())"

// ways in which a stopped capture can lose its log, and what happens meanwhile; % is the slot.
func waysToLose(change []string) map[string][]string {
	return map[string][]string{
		"dropped":                      append(append([]string{}, change...), drop),
		"dropped and made again":       append(append([]string{drop}, change...), create),
		"read by somebody else":        append(append([]string{}, change...), advance),
		"the publication was dropped":  append([]string{"DROP PUBLICATION ours"}, change...),
		"the publication and the slot": append([]string{"DROP PUBLICATION ours", drop}, change...),
	}
}

// losing is a capture that is up to date and stopped.
func losing(t *testing.T, db *database) *captured {
	t.Helper()
	db.cfg.Advanced.PublicationName = "ours"
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t SELECT g, 'old' FROM generate_series(1, 300) g")
	c := newCapture(t, db, frame.Proto)
	c.run(frame.Proto, func(*session.Transaction) bool { return c.equals(db, "t") })
	db.free()
	return c
}

var meanwhile = []string{"UPDATE t SET a = 'new' WHERE id BETWEEN 2 AND 9", "DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (1000, 'new')"}

// A log that is lost is healed by capturing everything anew, wherever the connector is killed meanwhile, and whatever of its
// last checkpoints the runtime has not kept. What was deleted in the part that is lost stays (hard cases 1, 7 and 9).
func TestLostLogIsHealed(t *testing.T) {
	t.Parallel()
	for name, sql := range waysToLose(meanwhile) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			c := losing(t, db)
			for _, s := range sql {
				db.exec(strings.ReplaceAll(s, "%", db.cfg.Advanced.SlotName))
			}
			healed(t, db, c)
		})
	}
	t.Run("given up by the server", func(t *testing.T) {
		t.Parallel()
		db := smallKeep(t)
		c := losing(t, db)
		db.exec(meanwhile...)
		givenUp(t, db, &driver{slot: db.cfg.Advanced.SlotName})
		healed(t, db, c)
	})
}

// cursor is the position in the committed state.
func (c *captured) cursor() string {
	c.t.Helper()
	var state struct{ Shared cdc.Position }
	require.NoError(c.t, json.Unmarshal(c.state, &state))
	return string(state.Shared.Cursor)
}

func healed(t *testing.T, db *database, c *captured) {
	t.Helper()
	for _, kept := range []bool{false, true, false} {
		// One transaction forgets the position, the next one has where the new log starts; neither has documents. Without them,
		// it is as if the connector had been killed after it made the new slot, and before the runtime kept that everything is to
		// be read again.
		last, forgotten := c.state, c.cursor() == ""
		c.run(frame.Proto, func(tx *session.Transaction) bool {
			if tx == nil {
				return false
			}
			require.Zero(t, len(tx.Documents))
			if c.cursor() == "" {
				forgotten = true
				return kept
			}
			return forgotten
		})
		if !kept {
			c.state = last
		} else {
			require.Empty(t, c.cursor())
		}
		db.exec("UPDATE t SET a = a || '.' WHERE id = 2")
	}
	same := func() bool {
		ghost := c.rows["t"]["1|"]
		delete(c.rows["t"], "1|")
		defer func() { c.rows["t"]["1|"] = ghost }()
		return c.equals(db, "t")
	}
	c.run(frame.Proto, func(*session.Transaction) bool { return same() })
	require.Equal(t, `"old"`, string(c.rows["t"]["1|"]["a"]), "no document says that the row is gone")
	db.exec("UPDATE t SET a = 'last' WHERE id = 3", "DELETE FROM t WHERE id = 4")
	c.run(frame.Proto, func(*session.Transaction) bool { return same() })
	require.Equal(t, "1", strings.TrimSpace(db.exec("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()")))
}

// Whoever wants to decide for themselves is told what happened and what to do, and nothing is touched.
func TestLostLogStops(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.cfg.Advanced.OnSlotLoss = onLossStop
	c := losing(t, db)
	db.exec("SELECT pg_drop_replication_slot('" + db.cfg.Advanced.SlotName + "')")
	state, rows := c.state, maps.Clone(c.rows["t"])
	err := c.fails(frame.Proto)
	require.Regexp(t, `The replication slot "`+db.cfg.Advanced.SlotName+`" is gone, and with it the changes since [0-9A-F]+/[0-9A-F]+\. Find out who dropped it\. `+
		`To begin anew, have every table of the capture backfilled again: raise the backfill counter of each of its bindings, and of the bindings that materialize them\.`, usererr.Message(err))
	require.Equal(t, string(state), string(c.state))
	require.Equal(t, rows, c.rows["t"])
	require.Equal(t, "0", strings.TrimSpace(db.exec("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()")))
}

// What a killed capture has sent may come late: it drops the slot that it meant, and not one that was made of the same name since.
func TestLateDrop(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	d := db.driver()
	count := func() string {
		return strings.TrimSpace(db.exec("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '" + d.slot + "'"))
	}
	create := func() { db.exec("SELECT pg_create_logical_replication_slot('" + d.slot + "', 'pgoutput')") }
	require.NoError(t, d.conns.with(t.Context(), func(conn *pgx.Conn) error {
		create()
		meant, err := d.readSlot(t.Context(), conn)
		require.NoError(t, err)
		require.NoError(t, d.dropSlot(t.Context(), conn))
		require.Equal(t, "0", count())
		create()
		_, err = conn.Exec(t.Context(), dropStatement, d.slot, meant.restart)
		require.NoError(t, err)
		require.Equal(t, "1", count())
		require.NoError(t, d.dropSlot(t.Context(), conn))
		return d.dropSlot(t.Context(), conn) // there is none
	}))
	require.Equal(t, "0", count())
}

// A slot that another capture says is its own is not dropped, although this capture has used it.
func TestContestedSlot(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	s.close()
	db.exec("CREATE PUBLICATION theirs", "COMMENT ON PUBLICATION theirs IS 'made by Sluice for the capture acme/other with the slot "+d.slot+"'")
	_, err := d.Stream(t.Context(), cdc.Position{Identity: s.Start().Identity}, tables)
	require.Equal(t, `The replication slot "`+d.slot+`" is also that of another capture, as the comment on publication "theirs" says. Two captures cannot share a slot: choose another name in advanced.slotName.`, usererr.Message(err))
	db.exec("DROP PUBLICATION theirs")
	again := db.resume(d, cdc.Position{Identity: s.Start().Identity}, tables...)
	require.NotEqual(t, s.Start().Cursor, again.Start().Cursor)
	var id identity
	require.NoError(t, json.Unmarshal(again.Start().Identity, &id))
	require.Equal(t, string(again.Start().Cursor), id.Created)
}
