package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
)

// A table without a key that is added to a running stream has to be divided, row by row: what the backfill reads, and what the
// stream carries. Nothing but the transaction that wrote a row tells which it is. So a division is a snapshot, with the
// transactions that it does not see left to the stream, and it is right if these are true:
//
//   - whoever may have written to the table before it was published, whose changes the stream has only in part, is seen;
//   - every transaction whose changes the stream has left out is seen;
//   - nobody who is seen has built on what somebody wrote who is not seen, which is what makes it a snapshot;
//   - of every transaction, all subtransactions are on its side (rows carry their identifiers, and the server's notation of a
//     snapshot does not have them);
//   - no crash of the server can lose a transaction that is seen, and give its identifier to another one.
//
// While somebody who is not seen should be, the table joins: the stream leaves out its changes, and tries again.

// join is a table that is joining.
type join struct {
	waits   []cdc.TxnID // may have written to the table before it was published
	dropped []uint64    // wrote to it since; the stream has left them out
}

// note keeps a transaction whose changes are left out.
func (j *join) note(xid uint64) {
	if n := len(j.dropped); n == 0 || j.dropped[n-1] != xid {
		j.dropped = append(j.dropped, xid)
	}
}

// sees forgets what the division sees, and reports whether nothing is left.
func (j *join) sees(s *snapshot) bool {
	j.waits = slices.DeleteFunc(j.waits, s.Sees)
	j.dropped = slices.DeleteFunc(j.dropped, s.sees)
	return len(j.waits) == 0 && len(j.dropped) == 0
}

// joining are the tables of a stream that are joining.
type joining struct {
	tables  []*streamed
	running running
	next    time.Time // when to try again
	logAt   time.Time // when to say what is waited for
}

const (
	joinEvery    = 100 * time.Millisecond
	joinLogFirst = 2 * time.Second
	joinLog      = 30 * time.Second
)

// join begins to wait for those who write to the table.
func (s *stream) join(ctx context.Context, t *streamed) error {
	return s.d.conns.with(ctx, func(conn *pgx.Conn) error {
		now, err := s.d.takeSnapshot(ctx, conn)
		if err != nil {
			return err
		}
		found, err := s.d.readTables(ctx, conn, []cdc.TableID{t.id})
		if err != nil {
			return err
		}
		t.join = &join{}
		if len(found) > 0 {
			if t.join.waits, err = s.d.unseen(ctx, conn, found[0]); err != nil {
				return err
			}
		}
		if len(s.joining.tables) == 0 {
			s.joining = joining{running: running{from: now.xmin}, logAt: time.Now().Add(joinLogFirst)}
		}
		s.joining.tables = append(s.joining.tables, t)
		return nil
	})
}

// Joining implements cdc.Joiner.
func (s *stream) Joining(id cdc.TableID) bool {
	t := s.tables[id]
	return t != nil && t.join != nil
}

// joined gives the next table that has joined. It must be called between transactions.
func (s *stream) joined(ctx context.Context) (*cdc.Event, error) {
	j := &s.joining
	j.tables = slices.DeleteFunc(j.tables, func(t *streamed) bool { return t.join == nil }) // replaced by another one
	now := time.Now()
	if len(j.tables) == 0 || now.Before(j.next) {
		return nil, nil //nolint:nilnil // not now
	}
	division, err := s.divide(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	j.next = time.Now().Add(joinEvery)
	if division != nil {
		for _, t := range j.tables {
			if t.join.sees(division) {
				t.join, t.origin = nil, division
				s.event = cdc.Event{Op: cdc.Joined, Table: t.id, Origin: division.String()}
				j.next = now
				return &s.event, nil
			}
		}
	}
	if !now.Before(j.logAt) {
		j.logAt = now.Add(joinLog)
		s.explainJoin(ctx, j.tables[0], err)
	}
	return nil, nil //nolint:nilnil // somebody still writes
}

// explainJoin says what a table waits for. An error may pass, and if the server is gone, the stream will say so.
func (s *stream) explainJoin(ctx context.Context, t *streamed, err error) {
	what := "a moment at which nothing ends"
	switch {
	case len(t.join.waits) > 0:
		what = s.d.Explain(ctx, t.join.waits[0])
	case len(t.join.dropped) > 0:
		what = s.d.Explain(ctx, txnID(t.join.dropped[0]))
	}
	log := s.d.log.WithField("table", t.id.String())
	if err != nil {
		log = log.WithError(err)
	}
	log.Info("table has no key and was added while somebody wrote to it: its capture waits for " + what)
}

// running are the transactions and subtransactions in progress, of those below from; none of the others below it is.
type running struct {
	from uint64
	xids []uint64
}

const (
	// joinStep is how many identifiers one query looks up: with a transaction in progress that is old there may be many
	// millions, and the stream must not wait for that long.
	joinStep = 20_000
	// joinMost is how many transactions and subtransactions in progress may be kept in the state of a table.
	joinMost  = 10_000
	joinTries = 5
)

// divide looks for a division that is right for tables that wait for nobody in it; nil if there is none now. The log is not read
// meanwhile, for less than half a second.
func (s *stream) divide(ctx context.Context) (division *snapshot, err error) {
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = s.d.conns.with(short, func(conn *pgx.Conn) error {
		for range joinTries {
			found, end, err := s.d.lookTwice(short, conn, &s.joining.running)
			if err != nil {
				return err
			}
			if found == nil {
				continue
			}
			durable, err := s.d.untilDurable(short, conn, end)
			if durable {
				division = found
			}
			return err
		}
		return nil
	})
	return division, err
}

// lookTwice looks at the transactions in progress twice. If the two looks do not differ, nothing ended in between: so what
// was not in progress in the first one had ended, subtransactions with their transactions, before anything that began later
// could; and that is a snapshot. Otherwise it returns nil. What it has learned is kept either way, since what has ended does
// not begin again. It also returns the end of the log after that, or zero on a standby, which shows only what is durable.
func (d *driver) lookTwice(ctx context.Context, conn *pgx.Conn, r *running) (*snapshot, lsn, error) {
	look := d.lookSQL(r)
	results, err := conn.PgConn().Exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY; "+look+"; "+look+
		"; SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN '0/0' ELSE pg_catalog.pg_current_wal_insert_lsn()::text END; COMMIT").ReadAll()
	if err != nil {
		_, _ = conn.Exec(ctx, "ROLLBACK")
		return nil, 0, fmt.Errorf("reading the transactions in progress: %w", err)
	}
	first, xids, err := parseLook(results[1])
	if err != nil {
		return nil, 0, err
	}
	second, again, err := parseLook(results[2])
	if err != nil {
		return nil, 0, err
	}
	end, err := parseLSN(string(results[3].Rows[0][0]))
	if err != nil {
		return nil, 0, err
	}
	d.observe(second.xmax)
	to := max(r.from, min(r.from+joinStep, second.xmax))
	r.from, r.xids = to, again
	if first.xmax != second.xmax || to < second.xmax || len(xids) > joinMost || !slices.Equal(xids, again) {
		return nil, 0, nil
	}
	out := &snapshot{xmin: first.xmax, xmax: first.xmax, running: xids}
	if len(xids) > 0 {
		out.xmin = xids[0]
	}
	return out, end, nil
}

// lookSQL gives the snapshot, and which are in progress of those that were before and of those that have come.
func (d *driver) lookSQL(r *running) string {
	before := make([]string, len(r.xids))
	for i, xid := range r.xids {
		before[i] = strconv.FormatUint(xid, 10)
	}
	limit, status := "pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint", "pg_catalog.pg_xact_status(x::text::pg_catalog.xid8)"
	if d.server.major() < 13 {
		limit, status = "pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())", "pg_catalog.txid_status(x)"
	}
	return fmt.Sprintf("SELECT %s, ARRAY(SELECT x FROM (SELECT pg_catalog.unnest('{%s}'::bigint[]) AS x UNION ALL SELECT pg_catalog.generate_series(%d::bigint, least(%s, %d) - 1)) AS candidates WHERE %s = 'in progress' ORDER BY x)::text",
		d.snapshotFunction(), strings.Join(before, ","), r.from, limit, r.from+joinStep, status)
}

func parseLook(result *pgconn.Result) (*snapshot, []uint64, error) {
	s, err := parseSnapshot(string(result.Rows[0][0]))
	if err != nil {
		return nil, nil, err
	}
	var xids []uint64
	for text := range strings.SplitSeq(strings.Trim(string(result.Rows[0][1]), "{}"), ",") {
		if text == "" {
			continue
		}
		xid, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("reading the transactions in progress: %w", err)
		}
		xids = append(xids, xid)
	}
	return s, xids, nil
}

// untilDurable waits for a moment until the log is flushed up to a position.
func (d *driver) untilDurable(ctx context.Context, conn *pgx.Conn, end lsn) (bool, error) {
	const flushed = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN true ELSE pg_catalog.pg_current_wal_flush_lsn() >= $1::pg_catalog.pg_lsn END"
	for waited := time.Duration(0); ; waited += 5 * time.Millisecond {
		var is bool
		if err := conn.QueryRow(ctx, flushed, end.String()).Scan(&is); err != nil {
			return false, fmt.Errorf("reading how far the log is flushed: %w", err)
		}
		if is || waited >= 300*time.Millisecond {
			return is, nil
		}
		if waited == 0 {
			if _, err := conn.Exec(ctx, "SELECT pg_catalog.txid_current()"); err != nil { // see nudge
				return false, fmt.Errorf("having the log flushed: %w", err)
			}
		}
		if err := capture.Sleep(ctx, 5*time.Millisecond); err != nil {
			return false, err
		}
	}
}
