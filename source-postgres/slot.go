package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// createSlot makes the slot. It is a replication command and no function call, because a query would hold a snapshot, and
// with it back vacuum everywhere, for as long as the slot waits for older transactions. With exact, it also gives the
// snapshot that divides the transactions before the slot from those that it carries.
func (d *driver) createSlot(ctx context.Context, conn *pgconn.PgConn, exact bool) (start lsn, origin *snapshot, err error) {
	stop := d.watchWait(ctx, conn.PID())
	defer stop()
	d.opening.Store(conn.PID())
	defer d.opening.Store(0)
	if exact {
		if _, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").ReadAll(); err != nil {
			return 0, nil, fmt.Errorf("creating slot %q: %w", d.slot, err)
		}
	}
	results, err := conn.Exec(ctx, d.createSlotCommand(exact)).ReadAll()
	if err != nil {
		return 0, nil, d.createAdvice(err)
	}
	if start, err = parseLSN(string(results[0].Rows[0][1])); err != nil || !exact {
		return start, nil, err
	}
	results, err = conn.Exec(ctx, "SELECT "+d.snapshotFunction()+"; COMMIT").ReadAll()
	if err != nil {
		return 0, nil, fmt.Errorf("reading the snapshot of slot %q: %w", d.slot, err)
	}
	origin, err = parseSnapshot(string(results[0].Rows[0][0]))
	return start, origin, err
}

func (d *driver) createSlotCommand(exact bool) string {
	kind, export := "", "NOEXPORT_SNAPSHOT"
	if d.ephemeral {
		kind = "TEMPORARY "
	}
	if exact {
		export = "USE_SNAPSHOT"
	}
	if d.cfg.Advanced.Failover && !d.ephemeral {
		export = "(SNAPSHOT 'nothing', FAILOVER)"
		if exact {
			export = "(SNAPSHOT 'use', FAILOVER)"
		}
	}
	return "CREATE_REPLICATION_SLOT " + quoteIdent(d.slot) + " " + kind + "LOGICAL pgoutput " + export
}

// checkFailover says what keeps a slot from being copied to standbys.
func (d *driver) checkFailover() error {
	if d.cfg.Advanced.Failover && d.server.standby {
		return usererr.New(nil, "The server at %s is a standby, whose own slots cannot be copied to other standbys. Turn off advanced.failover.", d.cfg.Address)
	}
	if d.cfg.Advanced.Failover && d.server.major() < 17 {
		return usererr.New(nil, "Slots that are copied to standbys need Postgres 17; the server at %s has version %d. Turn off advanced.failover.", d.cfg.Address, d.server.major())
	}
	return nil
}

// keepFailover has a slot that was made without the option copied to standbys from now on. A slot that has it although it is
// not asked for is left alone: an administrator may have set it.
func (d *driver) keepFailover(ctx context.Context, conn *pgconn.PgConn, s *slot) error {
	if !d.cfg.Advanced.Failover || s.failover {
		return nil
	}
	return d.retryInUse(ctx, func() error {
		if _, err := conn.Exec(ctx, "ALTER_REPLICATION_SLOT "+quoteIdent(d.slot)+" (FAILOVER true)").ReadAll(); err != nil {
			return fmt.Errorf("having slot %q copied to standbys: %w", d.slot, err)
		}
		return nil
	})
}

func (d *driver) createAdvice(err error) error {
	switch sqlState(err) {
	case stateConfigLimit:
		return usererr.New(err, "The server has no replication slot left. Raise max_replication_slots there (it needs a restart), or drop slots that nobody reads: SELECT slot_name FROM pg_replication_slots WHERE NOT active;")
	case stateNoPrivilege:
		return usererr.New(err, "User %q may not create replication slots. Have an administrator run: ALTER ROLE %s REPLICATION;", d.cfg.User, quoteIdent(d.cfg.User))
	case stateNotReady:
		return usererr.New(err, "The server cannot decode its log: %s. Set wal_level = logical there and restart it.", serverMessage(err))
	}
	return fmt.Errorf("creating slot %q: %w", d.slot, err)
}

// dropOld makes room for a new slot. A slot of that name is dropped only if it is this capture's: the comment on the
// publication says so, which is written before the slot is made, or the identity of the log that was lost. It is not if it
// decodes something else, or if another capture says that it is its own.
func (d *driver) dropOld(ctx context.Context, sys system, before *publication, was identity) error {
	return d.conns.with(ctx, func(conn *pgx.Conn) error {
		s, err := d.readSlot(ctx, conn)
		if err != nil || !s.exists {
			return err
		}
		remembered := was.System == sys.id && was.Database == d.cfg.Database && was.Slot == d.slot
		if d.server.standby && d.cfg.Advanced.SlotName == "" {
			remembered = true // the publication is somebody else's, but nobody else's slot has a name that is made of the capture's
		}
		if s.plugin != "pgoutput" || s.database != d.cfg.Database || before.comment != d.owner() && !remembered {
			return usererr.New(nil, "A replication slot %q exists already and was not made by this capture. Drop it if nobody needs it, SELECT pg_drop_replication_slot(%s); or choose another name in advanced.slotName.",
				d.slot, strings.TrimSpace(quoteLiteral(d.slot)))
		}
		if other, err := d.otherOwner(ctx, conn); err != nil || other != "" {
			if err == nil {
				err = usererr.New(nil, "The replication slot %q is also that of another capture, as the comment on publication %q says. Two captures cannot share a slot: choose another name in advanced.slotName.", d.slot, other)
			}
			return err
		}
		d.log.WithFields(logrus.Fields{"slot": d.slot, "confirmed": s.confirmed, "status": s.status, "reason": s.reason}).
			Warn("dropping the capture's slot: nothing goes on from it")
		return d.retryInUse(ctx, func() error { return d.dropSlot(ctx, conn) })
	})
}

// dropStatement drops a slot by its name and where it makes the server keep the log from.
const dropStatement = "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND coalesce(restart_lsn::text, '') = $2"

// dropSlot drops the slot as it is seen now, if there is one. The server carries out what a capture has sent that was killed meanwhile, and on a busy one that comes late: it
// must not hit the slot that the next instance has made of the same name, which begins at a later place of the log.
func (d *driver) dropSlot(ctx context.Context, conn *pgx.Conn) error {
	for {
		s, err := d.readSlot(ctx, conn)
		if err != nil || !s.exists {
			return err
		}
		dropped, err := conn.Exec(ctx, dropStatement, d.slot, s.restart)
		if err != nil || dropped.RowsAffected() > 0 {
			return err
		}
	}
}

// otherOwner is a publication of another capture that uses the same slot, if there is one.
func (d *driver) otherOwner(ctx context.Context, conn *pgx.Conn) (string, error) {
	var name string
	prefix, suffix := d.ownerParts()
	err := conn.QueryRow(ctx, `SELECT pubname FROM pg_catalog.pg_publication, pg_catalog.obj_description(oid, 'pg_publication') AS comment
		WHERE starts_with(comment, $1) AND right(comment, length($2)) = $2 AND comment <> $3 ORDER BY pubname LIMIT 1`, prefix, suffix, d.owner()).Scan(&name)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("looking for other captures of slot %q: %w", d.slot, err)
	}
	return name, nil
}

// inUsePatience is how long the reader before us may take to notice that it is gone.
const inUsePatience = 15 * time.Second

// retryInUse runs f until the slot is not in use by another process, for a while: a slot stays in use for a moment after
// its reader was killed, and during a rolling restart the old reader may still be there (hard case 13).
func (d *driver) retryInUse(ctx context.Context, f func() error) error {
	delay, deadline := 100*time.Millisecond, time.Now().Add(inUsePatience)
	for logged := false; ; logged = true {
		err := f()
		if sqlState(err) != stateInUse {
			return err
		}
		if time.Now().After(deadline) {
			return usererr.New(err, "The replication slot %q is in use by another process (%s). Stop the other reader, or, if it hangs, run SELECT pg_terminate_backend(pid) for it. Two captures cannot share a slot.",
				d.slot, serverMessage(err))
		}
		if !logged {
			d.log.WithField("slot", d.slot).Warn("waiting for another process to let go of the slot: " + serverMessage(err))
		}
		if err := capture.Sleep(ctx, delay); err != nil {
			return err
		}
		delay = min(2*delay, 2*time.Second)
	}
}

// watchWait says in the log what the creation of a slot waits for, until stop is called.
func (d *driver) watchWait(ctx context.Context, pid uint32) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for delay := 2 * time.Second; capture.Sleep(ctx, delay) == nil; delay = 30 * time.Second {
			if d.server.standby {
				d.log.WithField("slot", d.slot).Warn(waitOnStandby)
				continue
			}
			if what := d.blockers(ctx, pid); what != "" {
				d.log.WithField("slot", d.slot).Warn("creating the slot waits for transactions to end: " + what)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// What the creation of a slot on a standby waits for, which can only be seen on the primary.
const waitOnStandby = "creating the slot waits until the primary says which transactions are running there, and for those to end: " +
	"it says so every 15 seconds while something is written; to have it say so at once, run there: SELECT pg_log_standby_snapshot();"

// blockers describes the sessions that keep another one waiting.
func (d *driver) blockers(ctx context.Context, pid uint32) string {
	var what []string
	err := d.conns.with(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT format('process %s of user %s (%s), %s since %s', pid, usename, application_name, state, date_trunc('second', xact_start))
			FROM pg_catalog.pg_stat_activity WHERE pid = ANY(pg_catalog.pg_blocking_pids($1::int))`, int32(pid)) //nolint:gosec // process ids are positive
		if err != nil {
			return err
		}
		what, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return "" // it is only an explanation
	}
	return strings.Join(what, "; ")
}
