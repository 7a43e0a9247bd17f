package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// pair is a primary with a standby that can copy slots.
func pair(t *testing.T) (*database, *server.PostgresServer) {
	t.Helper()
	primary := server.Postgres(t, server.WithAtLeast(17))
	standby := server.Standby(t, primary, server.WithSetting("sync_replication_slots", "on"), server.WithSetting("primary_conninfo",
		fmt.Sprintf("host=%s port=%d user=postgres password=secret dbname=postgres", primary.Host(), primary.Port())))
	db := databaseOn(t, primary)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t SELECT g, 'old' FROM generate_series(1, 200) g")
	return db, standby
}

// synced writes a little, and reports whether the standby has a copy of the slot that would survive a promotion. That takes a
// capture that reads and acknowledges meanwhile: the standby cannot keep what the slot needed before the copy was made.
func synced(t *testing.T, db *database, standby *server.PostgresServer) bool {
	t.Helper()
	db.exec("UPDATE t SET a = a || '.' WHERE id = 200", "SELECT pg_log_standby_snapshot()")
	return standby.Exec(t, "SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = '"+db.cfg.Advanced.SlotName+"'") == "t"
}

// A capture goes on at the promoted standby, which has a copy of its slot, where it was at the one before: no row again, and
// none missing (hard case 2).
func TestFailover(t *testing.T) {
	t.Parallel()
	db, standby := pair(t)
	db.cfg.Advanced.Failover = true
	c := newCapture(t, db, frame.Proto)
	c.run(frame.Proto, func(*session.Transaction) bool { return c.equals(db, "t") })
	c.run(frame.Proto, func(tx *session.Transaction) bool { return tx == nil && synced(t, db, standby) })
	db.exec("UPDATE t SET a = 'seen' WHERE id = 1")
	c.run(frame.Proto, func(*session.Transaction) bool { return c.equals(db, "t") })
	db.exec("UPDATE t SET a = 'before' WHERE id = 2")
	standby.CatchUp(t, db.pg)
	db.pg.Kill(t)
	standby.Promote(t)

	promoted := &database{t: t, pg: standby, cfg: db.cfg, sessions: db.sessions}
	promoted.cfg.Address = standby.Address()
	promoted.exec("UPDATE t SET a = 'after' WHERE id = 3", "DELETE FROM t WHERE id = 4")
	c.spec.ConfigJson = session.Config(t, promoted.cfg)
	c.docs = 0
	c.run(frame.Proto, func(*session.Transaction) bool { return c.equals(promoted, "t") })
	require.NoError(t, c.ended)
	require.Equal(t, 2, c.docs, "the changes since, and nothing else")
	var state struct{ Shared cdc.Position }
	require.NoError(t, json.Unmarshal(c.state, &state))
	var id identity
	require.NoError(t, json.Unmarshal(state.Shared.Identity, &id))
	require.Equal(t, 2, id.Timeline)
	require.Equal(t, standby.Address(), id.Address)
	promoted.exec("UPDATE t SET a = 'later' WHERE id = 5")
	c.run(frame.Proto, func(*session.Transaction) bool { return c.equals(promoted, "t") })
	require.Equal(t, 3, c.docs)
}

// Where the slot was not copied, or the capture has read more than the promoted standby had, the log is lost: captured anew
// behind the same address, and stopped at another one.
func TestFailoverWithoutTheLog(t *testing.T) {
	t.Parallel()
	db, standby := pair(t)
	d := db.driver(func(c *config) { c.Advanced.Failover = true })
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	require.Equal(t, "t", strings.TrimSpace(db.exec("SELECT failover FROM pg_replication_slots WHERE slot_name = '"+d.slot+"'")))
	eventually(t, "the slot is copied", func() bool {
		s.fence()
		s.Ack(cdc.Cursor(s.Stream.(*stream).passed.String()))
		return synced(t, db, standby)
	})
	// The standby is cut off; the capture goes on.
	standby.Exec(t, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
	eventually(t, "the standby is cut off", func() bool {
		return standby.Exec(t, "SELECT count(*) FROM pg_stat_wal_receiver") == "0"
	})
	db.exec("UPDATE t SET a = 'only there' WHERE id = 1")
	require.NotEmpty(t, s.fence())
	s.Ack(s.cursor)
	s.close()
	position := cdc.Position{Cursor: s.cursor, Identity: s.Start().Identity}
	db.pg.Kill(t)
	standby.Promote(t)

	promoted := &database{t: t, pg: standby, cfg: db.cfg, sessions: db.sessions}
	promoted.cfg.Address = standby.Address()
	d = promoted.driver()
	_, err := d.Stream(t.Context(), position, tables)
	require.Contains(t, usererr.Message(err), "was promoted when it had changes up to ")
	require.Contains(t, usererr.Message(err), "The address was "+db.cfg.Address+" before and is "+standby.Address()+" now, so this may be another copy of the server.")
	require.NotErrorIs(t, err, cdc.ErrPositionLost)

	// The same, had the standby taken over the address.
	var id identity
	require.NoError(t, json.Unmarshal(position.Identity, &id))
	id.Address = standby.Address()
	position.Identity, err = id.encode()
	require.NoError(t, err)
	_, err = d.Stream(t.Context(), position, tables)
	require.ErrorIs(t, err, cdc.ErrPositionLost)
	require.Contains(t, usererr.Message(err), "the server before it was ahead.")

	promoted.exec("SELECT pg_drop_replication_slot('" + d.slot + "')")
	early := cdc.Position{Cursor: s.start(), Identity: position.Identity}
	_, err = d.Stream(t.Context(), early, tables)
	require.ErrorIs(t, err, cdc.ErrPositionLost)
	require.Contains(t, usererr.Message(err), "was promoted, and has no replication slot")
	promoted.exec("SELECT pg_create_logical_replication_slot('" + d.slot + "', 'pgoutput')")
	_, err = d.Stream(t.Context(), early, tables)
	require.ErrorIs(t, err, cdc.ErrPositionLost)
	require.Contains(t, usererr.Message(err), "is not a copy of the one that the capture has been reading")
	again := promoted.resume(d, cdc.Position{Identity: position.Identity}, tables...)
	promoted.exec("UPDATE t SET a = 'anew' WHERE id = 1")
	require.Equal(t, []string{`u t {"a":"anew","id":1}`}, again.fence())
}

// A slot that was made without the option is copied to standbys once the option is chosen; older servers cannot.
func TestFailoverOption(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	s.close()
	d.cfg.Advanced.Failover = true
	if d.server.major() < 17 {
		want := fmt.Sprintf("Slots that are copied to standbys need Postgres 17; the server at %s has version %d. Turn off advanced.failover.", db.cfg.Address, d.server.major())
		require.Contains(t, checkMessages(t, d, "t"), want)
		_, err := d.Stream(t.Context(), s.Start(), tables)
		require.Equal(t, want, usererr.Message(err))
		return
	}
	require.Empty(t, checkMessages(t, d, "t"))
	s = db.resume(d, s.Start(), tables...)
	require.Equal(t, "t", strings.TrimSpace(db.exec("SELECT failover FROM pg_replication_slots WHERE slot_name = '"+d.slot+"'")))
	d.cfg.Advanced.Failover = false
	s.close()
	db.resume(d, s.Start(), tables...)
	require.Equal(t, "t", strings.TrimSpace(db.exec("SELECT failover FROM pg_replication_slots WHERE slot_name = '"+d.slot+"'")), "an administrator may have set it")
}
