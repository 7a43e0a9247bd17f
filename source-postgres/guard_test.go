package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// hurry has a driver's guard look often.
func hurry(d *driver, grace time.Duration) {
	d.guardTimes = guardTimes{look: 20 * time.Millisecond, grace: grace, again: time.Hour}
}

// until reads the stream until something holds, or it fails.
func (s *testStream) until(what string, holds func(*cdc.Event) bool) error {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		require.True(s.t, time.Now().Before(deadline), what)
		ev, err := s.Next(s.t.Context(), 20*time.Millisecond)
		if err != nil || holds(ev) {
			return err
		}
	}
}

// A slot that holds back more than the user wants is warned of, and then what the user chose is done.
func TestSlotLagLimit(t *testing.T) {
	t.Parallel()
	for choice, want := range map[string]string{onLagWarn: "", onLagStop: "The capture does not keep up", onLagDrop: "It was dropped to save the server's disk (advanced.onSlotLag)."} {
		t.Run(choice, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			db.exec("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (a text)")
			d := db.driver(func(c *config) { c.Advanced.MaxSlotLagBytes, c.Advanced.OnSlotLag = 2<<20, choice })
			hurry(d, 100*time.Millisecond)
			var out logBuffer
			log := logrus.New()
			log.SetOutput(&out)
			d.log = logrus.NewEntry(log)
			tables := db.tables(d, "t")
			s := db.open(d, tables...)
			db.exec("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 4000)")
			eventually(t, "a warning", func() bool {
				return strings.Contains(out.String(), "advanced.maxSlotLagBytes allows 2 MiB.") && strings.Contains(out.String(), "eventType=slotLag")
			})
			if choice == onLagWarn {
				db.exec("INSERT INTO t VALUES (1)")
				require.Len(t, s.fence(), 1, "it goes on")
				return
			}
			if choice == onLagDrop {
				// The server's disk is saved also while the reader is blocked.
				eventually(t, "the slot is dropped", func() bool {
					return strings.TrimSpace(db.exec("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '"+d.slot+"'")) == "0"
				})
			}
			err := s.until("the stream ends", func(*cdc.Event) bool { return false })
			require.Contains(t, usererr.Message(err), want)
			s.close()
			if choice == onLagStop {
				require.NotErrorIs(t, err, cdc.ErrPositionLost)
				require.Contains(t, usererr.Message(err), "SELECT pg_drop_replication_slot('"+d.slot+"');")
				return
			}
			require.ErrorIs(t, err, cdc.ErrPositionLost)
			db.exec("INSERT INTO t VALUES (1)")
			d.cfg.Advanced.OnSlotLag = onLagWarn
			again := db.resume(d, cdc.Position{Identity: s.Start().Identity}, tables...)
			require.Empty(t, again.fence())
		})
	}
}

// A capture that is catching up is left alone, however far it is behind.
func TestSlotLagCatchingUp(t *testing.T) {
	t.Parallel()
	log := logrus.New()
	log.SetOutput(&logBuffer{})
	d := &driver{guardTimes: defaultGuardTimes(), log: logrus.NewEntry(log)}
	d.cfg.Advanced.MaxSlotLagBytes, d.cfg.Advanced.OnSlotLag = 100, onLagDrop
	g := &guard{d: d}
	now := time.Unix(1_700_000_000, 0)
	look := func(retained int64) bool {
		now = now.Add(10 * time.Second)
		return g.limit(retention{Exists: true, Retained: retained}, now)
	}
	for retained := int64(10_000); retained > 100; retained -= 50 { // every look finds a little less
		require.False(t, look(retained), "%d bytes", retained)
		require.False(t, look(retained+20), "%d bytes, a moment later", retained)
	}
	require.False(t, look(100), "it is within the limit")
	require.True(t, g.warned.IsZero())
	for range 6 {
		require.False(t, look(101))
	}
	require.True(t, look(101), "a minute without progress")
}

// A heartbeat lets the slot of a server move where nothing else happens, and its log with it.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	db := databaseOn(t, postgresFor(t))
	db.exec("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
	d := db.driver(func(c *config) { c.Advanced.Heartbeat = "1s" })
	s := db.open(d, db.tables(d, "t")...)
	started, err := d.retention(t.Context())
	require.NoError(t, err)
	var cursors []lsn
	require.NoError(t, s.until("the position moves by heartbeats alone", func(ev *cdc.Event) bool {
		require.NotContains(t, []cdc.Op{cdc.Insert, cdc.Update, cdc.Delete}, ev.Op)
		if ev.Cursor != "" {
			cursors = append(cursors, mustLSN(t, string(ev.Cursor)))
			s.Ack(ev.Cursor)
		}
		return len(cursors) >= 2
	}))
	eventually(t, "the slot moves", func() bool {
		now, err := d.retention(t.Context())
		require.NoError(t, err)
		return now.Flushed >= cursors[1] && now.Flushed > started.Flushed
	})
	require.Equal(t, "1", strings.TrimSpace(db.exec("SELECT count(*) FROM t")))
}

// A copy of the server that is older than the capture is recognised: at once while it is behind the position, and, once it
// has gone on beyond it, by how far the slot had come (hard case 3). Nothing else about such a server differs.
func TestRestoredCopy(t *testing.T) {
	t.Parallel()
	db := databaseOn(t, postgresFor(t))
	db.exec("CREATE TABLE t (id serial PRIMARY KEY)")
	d := db.driver()
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	s.close()
	db.pg.Save(t)

	hurry(d, time.Hour)
	s = db.resume(d, s.Start(), tables...)
	position, start := s.Start(), mustLSN(t, string(s.start()))
	require.NoError(t, s.until("the identity notes how far the slot has come", func(ev *cdc.Event) bool {
		if ev.Op == cdc.Idle {
			db.exec("INSERT INTO t DEFAULT VALUES", "CHECKPOINT")
		}
		if ev.Cursor != "" {
			s.Ack(ev.Cursor)
			position.Cursor = ev.Cursor
		}
		if ev.Identity != nil {
			position.Identity = append(json.RawMessage{}, ev.Identity...)
		}
		var id identity
		require.NoError(t, json.Unmarshal(position.Identity, &id))
		restart, err := parseLSN(id.Restart)
		return err == nil && restart > start
	}))
	s.close()
	again := db.resume(d, position, tables...)
	again.close()

	db.pg.Restore(t)
	_, err := d.Stream(t.Context(), position, tables)
	require.Contains(t, usererr.Message(err), "before the capture's position "+string(position.Cursor)+": it was restored from an older state.")
	require.NotErrorIs(t, err, cdc.ErrPositionLost)
	cursor := mustLSN(t, string(position.Cursor))
	for mustLSN(t, db.exec("SELECT pg_current_wal_flush_lsn()")) <= cursor {
		db.exec("INSERT INTO t SELECT FROM generate_series(1, 1000)")
	}
	_, err = d.Stream(t.Context(), position, tables)
	require.Regexp(t, `The replication slot "`+d.slot+`" reaches back to .*, but had passed .* already: the server at .* was restored from an older state, and has gone on from there\.`, usererr.Message(err))
	require.NotErrorIs(t, err, cdc.ErrPositionLost)
}
