package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// identity says which log a cursor belongs to. It is cdc.Position.Identity.
type identity struct {
	System   string `json:"system"` // the cluster, made by initdb
	Timeline int    `json:"timeline"`
	Database string `json:"database"`
	Slot     string `json:"slot"`
	Created  string `json:"created"` // the log position at which the slot became usable
}

// system is the answer to IDENTIFY_SYSTEM.
type system struct {
	id       string
	timeline int
	position lsn
}

func identifySystem(ctx context.Context, conn *pgconn.PgConn) (system, error) {
	results, err := conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		return system{}, fmt.Errorf("identifying the server: %w", err)
	}
	row := results[0].Rows[0]
	s := system{id: string(row[0])}
	if _, err := fmt.Sscan(string(row[1]), &s.timeline); err != nil {
		return system{}, fmt.Errorf("identifying the server: reading its timeline: %w", err)
	}
	s.position, err = parseLSN(string(row[2]))
	return s, err
}

// slot is what the server says of a replication slot.
type slot struct {
	exists    bool
	plugin    string
	database  string
	temporary bool
	activePID int    // 0 if nobody reads it
	confirmed string // empty while it is being created
	status    string // wal_status; empty before version 13
	reason    string // why it was invalidated, from version 17 on
}

func (d *driver) readSlot(ctx context.Context, conn *pgx.Conn) (*slot, error) {
	status, reason := "''", "''"
	if d.server.major() >= 13 {
		status = "coalesce(wal_status, '')"
	}
	if d.server.major() >= 17 {
		reason = "coalesce(invalidation_reason, '')"
	}
	s := &slot{}
	err := conn.QueryRow(ctx, "SELECT true, coalesce(plugin, ''), coalesce(database, ''), temporary, coalesce(active_pid, 0), coalesce(confirmed_flush_lsn::text, ''), "+
		status+", "+reason+" FROM pg_catalog.pg_replication_slots WHERE slot_name = $1", d.slot).
		Scan(&s.exists, &s.plugin, &s.database, &s.temporary, &s.activePID, &s.confirmed, &s.status, &s.reason)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("reading slot %q: %w", d.slot, err)
	}
	return s, nil
}

const startOver = "To begin anew, have every table of the capture backfilled again, which makes a new slot: raise the backfill counter of each of its bindings, and of the bindings that materialize them."

// checkResume compares what the server has with the position to resume from. Nothing is ever skipped: whatever is not
// exactly as it was left stops the capture with what to do about it.
func (d *driver) checkResume(s *slot, sys system, id identity, cursor lsn) error {
	say := func(format string, args ...any) error { return usererr.New(nil, format+" "+startOver, args...) }
	switch {
	case id.System != sys.id:
		return say("Another server answers at %s: the capture has been reading from system %s, this is system %s. Correct the address if that is wrong.", d.cfg.Address, id.System, sys.id)
	case id.Database != d.cfg.Database:
		return say("The capture has been reading from database %q, the configuration now says %q. Correct the configuration if that is wrong.", id.Database, d.cfg.Database)
	case id.Slot != d.slot:
		return say("The capture has been reading from slot %q, the configuration now says %q. Correct the configuration if that is wrong.", id.Slot, d.slot)
	case id.Timeline != sys.timeline:
		return say("The server at %s was promoted or restored since: its timeline is %d and was %d. Whether its slot %q is complete cannot be told.", d.cfg.Address, sys.timeline, id.Timeline, d.slot)
	case !s.exists:
		return say("The replication slot %q is gone, and with it the changes since %s. Find out who dropped it.", d.slot, cursor)
	case s.plugin != "pgoutput" || s.database != d.cfg.Database:
		return say("The replication slot %q is another one: it belongs to database %q and plugin %q.", d.slot, s.database, s.plugin)
	case s.status == "lost" || s.reason != "":
		return say("The server has given up the replication slot %q (%s), because it fell too far behind. Raise max_slot_wal_keep_size there, or keep the capture running.", d.slot, reasonOr(s.reason))
	case cursor > sys.position:
		return say("The server at %s is at %s, before the capture's position %s: it was restored from an older state.", d.cfg.Address, sys.position, cursor)
	}
	confirmed, err := parseLSN(s.confirmed)
	if err != nil {
		return say("The replication slot %q was never completely created.", d.slot)
	}
	if confirmed > cursor {
		return say("The replication slot %q begins at %s, but the capture has read only up to %s: it was made again or read by somebody else, and the changes between are gone.", d.slot, confirmed, cursor)
	}
	return nil
}

func reasonOr(reason string) string {
	if reason == "" {
		return "wal_status is lost"
	}
	return reason
}

// createSlot makes the slot. It is a replication command and no function call, because a query would hold a snapshot, and
// with it back vacuum everywhere, for as long as the slot waits for older transactions. With exact, it also gives the
// snapshot that divides the transactions before the slot from those that it carries.
func (d *driver) createSlot(ctx context.Context, conn *pgconn.PgConn, exact bool) (start lsn, origin *snapshot, err error) {
	stop := d.watchWait(ctx, conn.PID())
	defer stop()
	kind, export := "", "NOEXPORT_SNAPSHOT"
	if d.ephemeral {
		kind = "TEMPORARY "
	}
	if exact {
		export = "USE_SNAPSHOT"
		if _, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").ReadAll(); err != nil {
			return 0, nil, fmt.Errorf("creating slot %q: %w", d.slot, err)
		}
	}
	results, err := conn.Exec(ctx, "CREATE_REPLICATION_SLOT "+quoteIdent(d.slot)+" "+kind+"LOGICAL pgoutput "+export).ReadAll()
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

// dropOld makes room for a new slot. A slot of that name is dropped only if this capture made it: that is what the comment
// on the publication says, which is written before the slot is made.
func (d *driver) dropOld(ctx context.Context, ours bool) error {
	return d.conns.with(ctx, func(conn *pgx.Conn) error {
		s, err := d.readSlot(ctx, conn)
		if err != nil || !s.exists {
			return err
		}
		if !ours {
			return usererr.New(nil, "A replication slot %q exists already and was not made by this capture. Drop it if nobody needs it, SELECT pg_drop_replication_slot(%s); or choose another name in advanced.slotName.",
				d.slot, strings.TrimSpace(quoteLiteral(d.slot)))
		}
		d.log.WithFields(logrus.Fields{"slot": d.slot, "confirmed": s.confirmed}).Warn("dropping the slot of an earlier run of this capture, whose state is gone")
		return d.retryInUse(ctx, func() error {
			_, err := conn.Exec(ctx, "SELECT pg_catalog.pg_drop_replication_slot($1)", d.slot)
			return err
		})
	})
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
			if what := d.blockers(ctx, pid); what != "" {
				d.log.WithField("slot", d.slot).Warn("creating the slot waits for transactions to end: " + what)
			}
		}
	}()
	return func() { cancel(); <-done }
}

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

// decodeIdentity reads what a position says about its log.
func decodeIdentity(p cdc.Position) (identity, lsn, error) {
	var id identity
	if err := json.Unmarshal(p.Identity, &id); err != nil {
		return id, 0, fmt.Errorf("reading the stored position: %w", err)
	}
	cursor, err := parseLSN(string(p.Cursor))
	return id, cursor, err
}
