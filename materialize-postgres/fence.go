package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// fence is this session's row in the checkpoint table. The rows of a materialization never overlap: whoever opens a session
// takes its key range out of all rows, and puts a row of its own there with a higher fence. A session can commit only as
// long as its row is there with the fence that it was made with.
//
//	materialization │ key_begin │ key_end    │ fence │ checkpoint │ session
//	acme/orders     │ 0         │ 2147483647 │ 7     │ \x0a1f…    │ 4711 2026-03-01 10:00:00.123
//	acme/orders     │ 2147483648│ 4294967295 │ 7     │ \x0a1f…    │
type fence struct {
	c     *conn
	table string
	task  string
	keys  materialize.KeyRange
	value int64
}

// claim is a row of the checkpoint table.
type claim struct {
	begin, end uint64
	fence      int64
	checkpoint string
	session    string // that may still be writing; empty if there is none
}

// patience is how long a new session waits for one that is just committing, before it ends it.
const patience = 5 * time.Second

// ownSession names a server process beyond the reuse of its number.
const ownSession = `(SELECT pid || ' ' || backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())`

func newFence(c *conn, cfg config, env materialize.Env) *fence {
	return &fence{c: c, table: tableName{cfg.schema(), checkpointsTable}.sql(), task: env.Task, keys: env.Range}
}

// acquire locks out older sessions and returns the checkpoint to resume from. Concurrent sessions take their turns, each
// with a fence of its own; a commit that is under way is waited for, but not for long. Older sessions are then ended in the
// server: they could not commit any more, and what they have stored so far would keep others from storing the same keys.
func (f *fence) acquire(ctx context.Context) (materialize.Checkpoint, error) {
	cp, old, err := f.take(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", patience.Milliseconds()))
	if server, ok := errors.AsType[*pgconn.PgError](err); ok && server.Code == codeLockNotAvailable {
		if old, err = f.overlapping(ctx, ""); err == nil {
			if err = f.end(ctx, old); err == nil {
				cp, old, err = f.take(ctx, "")
			}
		}
	}
	if err == nil {
		err = f.end(ctx, old)
	}
	if err != nil {
		return nil, fmt.Errorf("taking over the checkpoint of %q: %w", f.task, err)
	}
	return cp, nil
}

// take puts this session's row in the place of all that its range overlaps, and returns those.
func (f *fence) take(ctx context.Context, settings string) (cp materialize.Checkpoint, old []claim, err error) {
	err = f.c.inTransaction(ctx, func() error {
		if err := f.c.exec(ctx, settings); err != nil {
			return err
		}
		// Where there is no row yet, there is none to lock either.
		_, err := f.c.rows(ctx, "SELECT pg_advisory_xact_lock($1, hashtext($2))", applyLock>>32, f.task)
		if err != nil {
			return err
		}
		if old, err = f.overlapping(ctx, " FOR UPDATE"); err != nil {
			return err
		}
		cp, err = f.replace(ctx, old)
		return err
	})
	return cp, old, err
}

// overlapping lists the rows that the session's range overlaps, in the order of ranges.
func (f *fence) overlapping(ctx context.Context, lock string) ([]claim, error) {
	rows, err := f.c.rows(ctx, `SELECT key_begin, key_end, fence, encode(checkpoint, 'hex'), session FROM `+f.table+`
		WHERE materialization = $1 AND key_end >= $2 AND key_begin <= $3 ORDER BY key_begin`+lock, f.task, f.keys.Begin, f.keys.End)
	if err != nil {
		return nil, err
	}
	out := make([]claim, len(rows))
	for i, r := range rows {
		var problems [3]error
		out[i].begin, problems[0] = strconv.ParseUint(string(r[0]), 10, 32)
		out[i].end, problems[1] = strconv.ParseUint(string(r[1]), 10, 32)
		out[i].fence, problems[2] = strconv.ParseInt(string(r[2]), 10, 64)
		if err := errors.Join(problems[:]...); err != nil {
			return nil, fmt.Errorf("reading a checkpoint's row: %w", err)
		}
		out[i].checkpoint, out[i].session = string(r[3]), string(r[4])
	}
	return out, nil
}

// replace takes the session's range out of the old rows, which keep what is beside it. The range begins where the old rows
// were, if all of it was at the same position: what is new to the table is at the very beginning.
func (f *fence) replace(ctx context.Context, old []claim) (materialize.Checkpoint, error) {
	begin, end := uint64(f.keys.Begin), uint64(f.keys.End)
	own := claim{begin: begin, end: end}
	next, joined := begin, true
	for i, o := range old {
		own.fence = max(own.fence, o.fence)
		if i == 0 && o.begin <= begin {
			own.checkpoint = o.checkpoint
		}
		joined = joined && o.checkpoint == own.checkpoint && (o.begin <= next || own.checkpoint == "")
		next = o.end + 1
	}
	if !joined || (next <= end && own.checkpoint != "") {
		return nil, usererr.New(nil, "The materialization %q was split into several instances before, which stopped at different positions, so that one cannot go on for all of them. Start as many instances as before. Or start anew: increase all backfill counters, and delete the materialization's rows from %s.", f.task, f.table)
	}
	own.fence++
	for _, o := range old {
		_, err := f.c.rows(ctx, `DELETE FROM `+f.table+` WHERE materialization = $1 AND key_begin = $2 AND key_end = $3`, f.task, o.begin, o.end)
		if err != nil {
			return nil, err
		}
		beside := claim{fence: own.fence, checkpoint: o.checkpoint}
		if o.begin < begin {
			beside.begin, beside.end = o.begin, begin-1
			err = f.insert(ctx, beside, "NULL")
		}
		if o.end > end && err == nil {
			beside.begin, beside.end = end+1, o.end
			err = f.insert(ctx, beside, "NULL")
		}
		if err != nil {
			return nil, err
		}
	}
	f.value = own.fence
	if err := f.insert(ctx, own, ownSession); err != nil {
		return nil, err
	}
	return decodeHex([]byte(own.checkpoint))
}

func (f *fence) insert(ctx context.Context, row claim, session string) error {
	_, err := f.c.rows(ctx, `INSERT INTO `+f.table+` (materialization, key_begin, key_end, fence, checkpoint, session)
		VALUES ($1, $2, $3, $4, decode($5, 'hex'), `+session+`)`, f.task, row.begin, row.end, row.fence, row.checkpoint)
	return err
}

// end ends the server's side of sessions that were locked out. Whether they are there, or may be ended, does not matter: it
// only spares time.
func (f *fence) end(ctx context.Context, old []claim) error {
	for _, o := range old {
		if o.session == "" {
			continue
		}
		_, err := f.c.rows(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE pid || ' ' || backend_start = $1 AND pid <> pg_backend_pid()`, o.session)
		server, ok := errors.AsType[*pgconn.PgError](err)
		if err != nil && (!ok || server.Code != codeNoPrivilege) {
			return err
		}
	}
	return nil
}

// update stores the checkpoint in the open transaction, if this session is still the newest.
func (f *fence) update(ctx context.Context, cp materialize.Checkpoint) error {
	if cp == nil {
		cp = materialize.Checkpoint{}
	}
	rows, err := f.c.rows(ctx, `UPDATE `+f.table+` SET checkpoint = $1
		WHERE materialization = $2 AND key_begin = $3 AND key_end = $4 AND fence = $5 RETURNING 1`,
		[]byte(cp), f.task, f.keys.Begin, f.keys.End, f.value)
	if err != nil {
		return fmt.Errorf("storing the checkpoint: %w", err)
	}
	if len(rows) != 1 {
		return f.lost(nil)
	}
	return nil
}

func (f *fence) lost(cause error) error {
	return usererr.New(cause, "Another instance took over the materialization %q, so this one stops. Nothing is lost: the other one goes on from what was committed. If nobody restarted or changed the materialization, look for a second process that runs it.", f.task)
}

// why explains an error of a session whose connection was ended: by a successor, or by something else. It asks the server on
// a connection of its own; if that fails, too, the error stays what it was.
func (f *fence) why(ctx context.Context, cfg config, err error) error {
	if err == nil || f.value == 0 || !f.c.pg.IsClosed() {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, failed := connect(ctx, cfg, applicationName(f.task))
	if failed != nil {
		return err
	}
	defer c.close()
	rows, failed := c.rows(ctx, `SELECT 1 FROM `+f.table+` WHERE materialization = $1 AND key_begin = $2 AND key_end = $3 AND fence = $4`,
		f.task, f.keys.Begin, f.keys.End, f.value)
	if failed == nil && len(rows) == 0 {
		return f.lost(err)
	}
	return err
}

func decodeHex(text []byte) (materialize.Checkpoint, error) {
	out, err := hex.DecodeString(string(text))
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint: %w", err)
	}
	return out, nil
}
