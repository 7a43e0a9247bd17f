package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// queryWalsender is what the server's process of a replication connection is doing. Its own user may see that.
const queryWalsender = `
	SELECT clock_timestamp(), a.pid IS NOT NULL, coalesce(a.wait_event_type, ''), coalesce(a.wait_event, ''), coalesce(r.sent_lsn::text, '')
	FROM (VALUES ($1::int)) AS v (pid)
	LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = v.pid
	LEFT JOIN pg_catalog.pg_stat_replication r ON r.pid = v.pid`

// queryOldest is the oldest open transaction that has written something, of any database: the server keeps its log from
// where that began, for every slot. Users without pg_read_all_stats do not see since when others' are open. What a session
// runs is not asked for: statements may hold data.
const queryOldest = `
	SELECT what, age FROM (
		SELECT format('process %s of user %s (%s), %s', pid, usename, application_name, coalesce(state, 'of unknown state')) AS what,
			coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8 AS age, pg_catalog.age(backend_xid) AS since
		FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid()
		UNION ALL
		SELECT format('the prepared transaction %L of user %s', gid, owner),
			extract(epoch FROM clock_timestamp() - prepared)::float8, pg_catalog.age(transaction)
		FROM pg_catalog.pg_prepared_xacts
	) t WHERE age = 0 OR age >= $1 ORDER BY since DESC LIMIT 1`

const (
	// oldAge is how old a transaction must be to be worth a word.
	oldAge = 5 * time.Second
	// catchUp is how long a report waits for the stream to reach the log's end of when it began.
	catchUp = time.Second
)

// Report implements cdc.Reporter.
func (d *driver) Report(ctx context.Context) (cdc.Report, error) {
	r := cdc.NewReport()
	s := d.live.Load()
	if s == nil {
		if pid := d.opening.Load(); pid != 0 {
			if what := d.blockers(ctx, pid); what != "" {
				r.Waits = "the replication slot can be made once older transactions have ended: " + what
			}
		}
	}
	held, err := d.retention(ctx)
	if err != nil {
		return r, err
	}
	r.LogEnd = held.End.String()
	switch {
	case held.Exists:
		r.RetainedBytes, r.ReserveBytes, r.LogStatus = held.Retained, held.Safe, held.Status
		if held.Flushed > 0 {
			r.Confirmed = held.Flushed.String()
		}
	case s != nil:
		r.LogStatus = "gone"
	}
	if err := d.lookAround(ctx, &r, s); err != nil {
		return r, err
	}
	if s != nil && s.spool != nil {
		r.SpooledBytes = s.spool.kept.Load()
	}
	if s != nil && held.End > 0 {
		received := s.reach(ctx, held.End)
		r.Received, r.AtEnd = received.String(), received >= held.End
		r.LagBytes = int64(max(held.End, received) - received) //nolint:gosec // of one log
	}
	return r, nil
}

// lookAround asks what other processes are doing.
func (d *driver) lookAround(ctx context.Context, r *cdc.Report, s *stream) error {
	var pid uint32
	if s != nil {
		pid = s.pid
	}
	return d.conns.with(ctx, func(conn *pgx.Conn) error {
		var exists bool
		var kind, event string
		err := conn.QueryRow(ctx, queryWalsender, int32(pid)).Scan(&r.Now, &exists, &kind, &event, &r.Sent) //nolint:gosec // process ids are positive
		if err != nil {
			return fmt.Errorf("asking what the server is doing: %w", err)
		}
		if s != nil {
			r.Waits, r.Busy = walsender(pid, exists, kind, event)
		}
		r.Processes = processes(pid, d.conns.others(conn))
		r.Oldest, r.OldestAge, err = oldest(ctx, conn, oldAge)
		return err
	})
}

// oldest describes the oldest transaction that is open for at least so long; empty if there is none.
func oldest(ctx context.Context, conn *pgx.Conn, atLeast time.Duration) (what string, age time.Duration, err error) {
	var seconds float64
	err = conn.QueryRow(ctx, queryOldest, atLeast.Seconds()).Scan(&what, &seconds)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", 0, fmt.Errorf("asking for the oldest transaction: %w", err)
	}
	return what, time.Duration(seconds * float64(time.Second)), nil
}

// processes lists the server's processes that work for us.
func processes(stream uint32, others []uint32) string {
	var b strings.Builder
	if stream != 0 {
		fmt.Fprintf(&b, "stream %d", stream)
	}
	slices.Sort(others)
	for i, pid := range others {
		switch {
		case i > 0:
		case b.Len() > 0:
			b.WriteString(", backfill")
		default:
			b.WriteString("backfill")
		}
		fmt.Fprintf(&b, " %d", pid)
	}
	return b.String()
}

// walsender says in words what the server's process of our stream waits for, or that it is busy. The names of what it may
// wait for: https://www.postgresql.org/docs/current/monitoring-stats.html#WAIT-EVENT-TABLE
func walsender(pid uint32, exists bool, kind, event string) (waits string, busy bool) {
	name := fmt.Sprintf("the server's process %d", pid)
	switch {
	case !exists:
		return fmt.Sprintf("the server has no process %d any more, which was ours", pid), false
	case strings.EqualFold(event, "WalSenderMain"), strings.EqualFold(event, "WalSenderWaitForWAL"):
		return name + " has nothing to send", false
	case event == "WalSenderWriteData":
		return name + " waits for us to take what it sends: the connection is slow or stalled", false
	case event == "WaitForStandbyConfirmation":
		return name + " waits for the standbys in synchronized_standby_slots to confirm", false
	case kind == "Lock":
		return name + " waits for a lock", false
	case event == "":
		return name + " is decoding the log", true
	}
	return fmt.Sprintf("%s is at work (%s)", name, event), true
}
