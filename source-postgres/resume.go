package main

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

const startOver = "To begin anew, have every table of the capture backfilled again, which makes a new slot: raise the backfill counter of each of its bindings, and of the bindings that materialize them."

// resume makes sure that the log is the one that the position belongs to, and that it carries all tables. It returns the
// position with its identity renewed.
func (d *driver) resume(ctx context.Context, conn *pgconn.PgConn, sys system, id identity, from cdc.Position, tables []*cdc.Table) (cdc.Position, error) {
	cursor, err := parseLSN(string(from.Cursor))
	if err != nil {
		return from, err
	}
	if id.System == sys.id && id.Timeline != sys.timeline {
		if sys.forks, err = readForks(ctx, conn, sys.timeline); err != nil {
			return from, err
		}
	}
	var s *slot
	err = d.conns.with(ctx, func(conn *pgx.Conn) error {
		s, err = d.readSlot(ctx, conn)
		return err
	})
	if err != nil {
		return from, err
	}
	if err := d.checkResume(s, sys, id, cursor); err != nil {
		return from, err
	}
	if _, err := d.publish(ctx, tables); err != nil {
		return from, err
	}
	if err := d.keepFailover(ctx, conn, s); err != nil {
		return from, err
	}
	if id.Timeline != sys.timeline {
		id.Timeline, id.Restart = sys.timeline, "" // the copy of a slot may be behind the slot
	}
	id.Address = d.cfg.Address
	from.Identity, err = id.encode()
	return from, err
}

// checkResume compares what the server has with the position to resume from (hard cases 1 to 3 and 7). Nothing is ever
// skipped: whatever is not exactly as it was left is an error that says what happened. It wraps cdc.ErrPositionLost if the
// log is lost on what is surely the server that was captured; what may be another server, or an older copy of it, does not,
// because its rows must not get into the collections without being asked for.
func (d *driver) checkResume(s *slot, sys system, id identity, cursor lsn) error {
	if err := d.checkServerIdentity(s, sys, id, cursor); err != nil {
		return err
	}
	err := d.checkTimeline(s, sys, id, cursor)
	if err == nil {
		err = d.checkSlotState(s, cursor)
	}
	if errors.Is(err, cdc.ErrPositionLost) && id.Address != "" && id.Address != d.cfg.Address {
		return usererr.New(nil, "%s The address was %s before and is %s now, so this may be another copy of the server. Correct the address if that is wrong. %s",
			usererr.Message(err), id.Address, d.cfg.Address, startOver)
	}
	return err
}

// stopped is an error that everybody has to look at, whatever is to be done about lost slots.
func stopped(format string, args ...any) error {
	return usererr.New(nil, format+" "+startOver, args...)
}

// lost is an error that capturing everything anew heals.
func lost(format string, args ...any) error { return usererr.New(cdc.ErrPositionLost, format, args...) }

// checkServerIdentity is about what a wrong address or an older copy looks like.
func (d *driver) checkServerIdentity(s *slot, sys system, id identity, cursor lsn) error {
	restart, err := parseLSN(id.Restart)
	if err != nil {
		restart = 0 // unknown
	}
	now, err := parseLSN(s.restart)
	if err != nil {
		now = restart // there is no slot, or it was given up
	}
	same := id.Timeline == sys.timeline
	switch {
	case id.System != sys.id:
		return stopped("Another server answers at %s: the capture has been reading from system %s, this is system %s. Correct the address if that is wrong.", d.cfg.Address, id.System, sys.id)
	case id.Database != d.cfg.Database:
		return stopped("The capture has been reading from database %q, the configuration now says %q. Correct the configuration if that is wrong.", id.Database, d.cfg.Database)
	case id.Slot != d.slot:
		return stopped("The capture has been reading from slot %q, the configuration now says %q. Correct the configuration if that is wrong.", id.Slot, d.slot)
	case same && cursor > sys.position:
		return stopped("The server at %s is at %s, before the capture's position %s: it was restored from an older state.", d.cfg.Address, sys.position, cursor)
	case s.exists && (s.plugin != "pgoutput" || s.database != d.cfg.Database):
		return stopped("The replication slot %q is another one: it belongs to database %q and plugin %q. Drop it if nobody needs it, or choose another name in advanced.slotName.", d.slot, s.database, s.plugin)
	case same && now < restart:
		return stopped("The replication slot %q reaches back to %s, but had passed %s already: the server at %s was restored from an older state, and has gone on from there.", d.slot, now, restart, d.cfg.Address)
	}
	return nil
}

// checkTimeline is about a server that was promoted or restored since. What was read must be part of its history.
func (d *driver) checkTimeline(s *slot, sys system, id identity, cursor lsn) error {
	if id.Timeline == sys.timeline {
		return nil
	}
	left, descends := sys.forkOf(id.Timeline)
	if confirmed, err := parseLSN(s.confirmed); err == nil && id.Standby && descends && confirmed > sys.lastForkBefore(cursor) {
		return nil // the standby was promoted while it was read: its slot itself has gone on over the fork
	}
	switch {
	case !descends:
		return stopped("The server at %s is on timeline %d, which does not descend from timeline %d that the capture has been reading: it is an older or another copy of the server.", d.cfg.Address, sys.timeline, id.Timeline)
	case cursor > left.end && left.chosen():
		return stopped("The server at %s was restored to an older state (%s): it left timeline %d at %s, before the capture's position %s.", d.cfg.Address, left.reason, id.Timeline, left.end, cursor)
	case cursor > left.end:
		return lost("The server at %s was promoted when it had changes up to %s, but the capture has read up to %s: the server before it was ahead. (Its setting synchronized_standby_slots keeps captures from running ahead of standbys.)", d.cfg.Address, left.end, cursor)
	case s.exists && !s.synced && !id.Standby:
		return lost("The server at %s was promoted, and its replication slot %q is not a copy of the one that the capture has been reading: whether it is complete cannot be told.", d.cfg.Address, d.slot)
	case !s.exists:
		return lost("The server at %s was promoted, and has no replication slot %q. (From Postgres 17 on, advanced.failover has the slot copied to standbys.)", d.cfg.Address, d.slot)
	}
	return nil
}

// checkSlotState is about the slot itself.
func (d *driver) checkSlotState(s *slot, cursor lsn) error {
	switch {
	case !s.exists:
		return lost("The replication slot %q is gone, and with it the changes since %s. Find out who dropped it.", d.slot, cursor)
	case s.status == "lost" || s.reason != "":
		return lost("The server has given up the replication slot %q: %s", d.slot, whyGivenUp(s.reason))
	}
	confirmed, err := parseLSN(s.confirmed)
	if err != nil {
		return lost("The replication slot %q was never completely created.", d.slot)
	}
	if confirmed > cursor {
		return lost("The replication slot %q begins at %s, but the capture has read only up to %s: it was made again or read by somebody else, and the changes between are gone.", d.slot, confirmed, cursor)
	}
	return nil
}

// whyGivenUp explains an invalidation_reason, and what keeps it from happening again.
func whyGivenUp(reason string) string {
	switch reason {
	case "", "wal_removed":
		return "it held back more of the log than max_slot_wal_keep_size allows. Raise that setting, or keep the capture running."
	case "idle_timeout":
		return "nobody read it for longer than idle_replication_slot_timeout allows. Raise that setting, or keep the capture running."
	case "rows_removed", "conflict":
		return "the primary has removed old rows of its catalog that decoding on the standby still needed. Set hot_standby_feedback = on on the standby, and primary_slot_name, so that it holds while the standby is away."
	case "wal_level_insufficient":
		return "wal_level was below logical for a while, so the changes are not in the log."
	default:
		return "its invalidation_reason is " + reason + "."
	}
}
