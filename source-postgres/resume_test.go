package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// verdict is a situation at the start of a capture that has been reading timeline 2 up to 0/500.
type verdict struct {
	slot slot
	sys  system
	id   identity
	cfg  config
}

func goodVerdict() verdict {
	return verdict{
		slot: slot{exists: true, plugin: "pgoutput", database: "db", confirmed: "0/480", restart: "0/400", status: "reserved"},
		sys:  system{id: "77", timeline: 2, position: 0x600},
		id:   identity{System: "77", Timeline: 2, Database: "db", Slot: "s", Created: "0/100", Address: "h:1", Restart: "0/400"},
		cfg:  config{Address: "h:1", Database: "db"},
	}
}

// promoted is the situation after a failover to a standby that has a copy of the slot.
func (v *verdict) promoted(end lsn, reason string) {
	v.sys.timeline, v.sys.forks = 3, []fork{{1, 0x80, ""}, {2, end, reason}}
	v.slot.synced = true
}

// What is the same log goes on; what is lost on the same server can be captured anew; what may be another server, or an older
// copy of it, stops the capture whatever is chosen (hard cases 1 to 3 and 7).
func TestResumeVerdicts(t *testing.T) {
	t.Parallel()
	const noTarget = "no recovery target specified"
	for name, c := range map[string]struct {
		change func(*verdict)
		want   string // empty: it goes on
		lost   bool
	}{
		"as it was left":                     {func(*verdict) {}, "", false},
		"nothing happened since":             {func(v *verdict) { v.slot.confirmed = "0/500" }, "", false},
		"the address changed":                {func(v *verdict) { v.cfg.Address = "other:1" }, "", false},
		"a state of an earlier version":      {func(v *verdict) { v.id.Address, v.id.Restart = "", "" }, "", false},
		"another server":                     {func(v *verdict) { v.sys.id = "78" }, "Another server answers at h:1: the capture has been reading from system 77, this is system 78. Correct the address if that is wrong.", false},
		"another database":                   {func(v *verdict) { v.cfg.Database = "b" }, `The capture has been reading from database "db", the configuration now says "b".`, false},
		"another slot":                       {func(v *verdict) { v.id.Slot = "before" }, `The capture has been reading from slot "before", the configuration now says "s".`, false},
		"restored":                           {func(v *verdict) { v.sys.position = 0x4ff }, "The server at h:1 is at 0/4FF, before the capture's position 0/500: it was restored from an older state.", false},
		"restored, and went on":              {func(v *verdict) { v.slot.restart = "0/3FF" }, `The replication slot "s" reaches back to 0/3FF, but had passed 0/400 already: the server at h:1 was restored from an older state, and has gone on from there.`, false},
		"an older timeline":                  {func(v *verdict) { v.sys.timeline, v.id.Timeline = 1, 2 }, "The server at h:1 is on timeline 1, which does not descend from timeline 2 that the capture has been reading: it is an older or another copy of the server.", false},
		"another branch":                     {func(v *verdict) { v.sys.timeline, v.sys.forks = 3, []fork{{1, 0x80, noTarget}} }, "which does not descend from timeline 2", false},
		"restored to a point in time":        {func(v *verdict) { v.promoted(0x4ff, "before 2026-01-01 00:00:00+00") }, "The server at h:1 was restored to an older state (before 2026-01-01 00:00:00+00): it left timeline 2 at 0/4FF, before the capture's position 0/500.", false},
		"another plugin":                     {func(v *verdict) { v.slot.plugin = "wal2json" }, `The replication slot "s" is another one: it belongs to database "db" and plugin "wal2json".`, false},
		"a slot of another database":         {func(v *verdict) { v.slot.database = "c" }, `it belongs to database "c" and plugin "pgoutput".`, false},
		"promoted, with the slot":            {func(v *verdict) { v.promoted(0x500, noTarget) }, "", false},
		"promoted, at another address":       {func(v *verdict) { v.promoted(0x500, noTarget); v.cfg.Address = "standby:1" }, "", false},
		"promoted, the copy is behind":       {func(v *verdict) { v.promoted(0x500, noTarget); v.slot.restart = "0/300" }, "", false},
		"promoted, without the last":         {func(v *verdict) { v.promoted(0x4ff, noTarget) }, "The server at h:1 was promoted when it had changes up to 0/4FF, but the capture has read up to 0/500: the server before it was ahead.", true},
		"promoted, another slot there":       {func(v *verdict) { v.promoted(0x500, noTarget); v.slot.synced = false }, `The server at h:1 was promoted, and its replication slot "s" is not a copy of the one that the capture has been reading: whether it is complete cannot be told.`, true},
		"promoted, no slot":                  {func(v *verdict) { v.promoted(0x500, noTarget); v.slot = slot{} }, `The server at h:1 was promoted, and has no replication slot "s".`, true},
		"promoted, the copy is ahead":        {func(v *verdict) { v.promoted(0x600, noTarget); v.slot.confirmed = "0/501" }, `The replication slot "s" begins at 0/501, but the capture has read only up to 0/500`, true},
		"promoted, the slot is its own":      {func(v *verdict) { v.promoted(0x500, noTarget); v.slot.synced, v.id.Standby = false, true }, "", false},
		"promoted while it was read":         {func(v *verdict) { v.promoted(0x450, noTarget); v.slot.synced, v.id.Standby = false, true }, "", false},
		"gone":                               {func(v *verdict) { v.slot = slot{} }, `The replication slot "s" is gone, and with it the changes since 0/500. Find out who dropped it.`, true},
		"gone, at another address":           {func(v *verdict) { v.slot = slot{}; v.cfg.Address = "copy:1" }, `The address was h:1 before and is copy:1 now, so this may be another copy of the server. Correct the address if that is wrong.`, false},
		"ahead":                              {func(v *verdict) { v.slot.confirmed = "0/501" }, `The replication slot "s" begins at 0/501, but the capture has read only up to 0/500: it was made again or read by somebody else, and the changes between are gone.`, true},
		"not finished":                       {func(v *verdict) { v.slot.confirmed = "" }, `The replication slot "s" was never completely created.`, true},
		"given up":                           {func(v *verdict) { v.slot.status, v.slot.restart = "lost", "" }, `The server has given up the replication slot "s": it held back more of the log than max_slot_wal_keep_size allows.`, true},
		"given up because nobody read it":    {func(v *verdict) { v.slot.reason = "idle_timeout" }, "nobody read it for longer than idle_replication_slot_timeout allows.", true},
		"given up with the level of the log": {func(v *verdict) { v.slot.reason = "wal_level_insufficient" }, "wal_level was below logical for a while", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := goodVerdict()
			c.change(&v)
			d := &driver{cfg: v.cfg, slot: "s"}
			err := d.checkResume(&v.slot, v.sys, v.id, 0x500)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			message := usererr.Message(err)
			require.Contains(t, message, c.want)
			if c.lost {
				require.ErrorIs(t, err, cdc.ErrPositionLost)
				return
			}
			require.NotErrorIs(t, err, cdc.ErrPositionLost)
			require.Contains(t, message, "To begin anew, have every table of the capture backfilled again")
		})
	}
}

func TestTimelineHistory(t *testing.T) {
	t.Parallel()
	forks, err := parseForks("1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t16/B374D848\tat restore point \"x\"\n")
	require.NoError(t, err)
	require.Equal(t, []fork{{1, 0x3000148, "no recovery target specified"}, {2, 0x16B374D848, `at restore point "x"`}}, forks)
	require.False(t, forks[0].chosen())
	require.True(t, forks[1].chosen())
	for _, bad := range []string{"x\t0/1\ty", "1\tnowhere\ty", "1"} {
		_, err := parseForks(bad)
		require.Error(t, err, bad)
	}
}

// Whatever became of the slot while we were away is noticed on a real server.
func TestResumeErrors(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	other := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	s.close()
	resume := func() string {
		t.Helper()
		_, err := d.Stream(t.Context(), s.Start(), tables)
		require.Error(t, err)
		return usererr.Message(err)
	}
	var id identity
	require.NoError(t, json.Unmarshal(s.Start().Identity, &id))
	require.Equal(t, identity{
		System: strings.TrimSpace(db.exec("SELECT system_identifier FROM pg_control_system()")), Timeline: 1, Database: db.cfg.Database,
		Slot: d.slot, Created: string(s.Start().Cursor), Address: db.cfg.Address,
	}, id)

	db.exec("INSERT INTO t VALUES (1)")
	eventually(t, "somebody else reads the slot", func() bool {
		return db.exec("SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots WHERE slot_name = '"+d.slot+"' AND NOT active") != ""
	})
	require.Contains(t, resume(), `The replication slot "`+d.slot+`" begins at `)

	db.exec("SELECT pg_drop_replication_slot('" + d.slot + "')")
	require.Contains(t, resume(), `The replication slot "`+d.slot+`" is gone, and with it the changes since `+string(s.start()))

	db.exec("SELECT pg_create_logical_replication_slot('" + d.slot + "', 'pgoutput')")
	require.Contains(t, resume(), `The replication slot "`+d.slot+`" begins at `)

	db.exec("SELECT pg_drop_replication_slot('" + d.slot + "')")
	other.exec("SELECT pg_create_logical_replication_slot('" + d.slot + "', 'pgoutput')")
	require.Contains(t, resume(), `The replication slot "`+d.slot+`" is another one: it belongs to database "`+other.cfg.Database+`" and plugin "pgoutput".`)
	_, err := d.Stream(t.Context(), cdc.Position{Identity: s.Start().Identity}, tables)
	require.Contains(t, usererr.Message(err), "exists already and was not made by this capture", "what is somebody else's is not dropped")
}

// givenUp has the server give up the slot of a stopped capture.
func givenUp(t *testing.T, db *database, d *driver) {
	t.Helper()
	db.exec("CREATE TABLE IF NOT EXISTS waste (a text)")
	eventually(t, "the slot is lost", func() bool {
		db.exec("INSERT INTO waste SELECT repeat('x', 1000) FROM generate_series(1, 20000)", "SELECT pg_switch_wal()", "CHECKPOINT")
		return strings.TrimSpace(db.exec("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '"+d.slot+"'")) == "lost"
	})
}

// smallKeep is a server that gives up slots soon.
func smallKeep(t *testing.T) *database {
	t.Helper()
	return databaseOn(t, server.Postgres(t, server.WithAtLeast(13), server.WithSetting("max_slot_wal_keep_size", "1MB"),
		server.WithSetting("max_wal_size", "32MB"), server.WithSetting("min_wal_size", "32MB")))
}

// A slot that the server gave up is named, with the setting that limits it (hard case 7).
func TestSlotLost(t *testing.T) {
	t.Parallel()
	db := smallKeep(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	s.close()
	givenUp(t, db, d)
	_, err := d.Stream(t.Context(), s.Start(), tables)
	require.ErrorIs(t, err, cdc.ErrPositionLost)
	require.Equal(t, `The server has given up the replication slot "`+d.slot+`": it held back more of the log than max_slot_wal_keep_size allows. Raise that setting, or keep the capture running.`, usererr.Message(err))
}
