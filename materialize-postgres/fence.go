package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// fence is this session's row in the checkpoint table. Whoever opens a session raises the fence of every row that its key
// range overlaps; a session can commit only as long as its row's fence is what it was when the session began.
//
//	materialization │ key_begin │ key_end    │ fence │ checkpoint
//	acme/orders     │ 0         │ 4294967295 │ 7     │ \x0a1f…
type fence struct {
	c     *conn
	table string
	task  string
	keys  materialize.KeyRange
	value int64
}

func newFence(c *conn, cfg config, env materialize.Env) *fence {
	return &fence{c: c, table: tableName{cfg.schema(), checkpointsTable}.sql(), task: env.Task, keys: env.Range}
}

// acquire locks out older sessions and returns the checkpoint to resume from. The rows' locks make concurrent sessions
// take their turns, each with a fence of its own; a commit that is under way is waited for.
func (f *fence) acquire(ctx context.Context) (cp materialize.Checkpoint, err error) {
	err = f.c.exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED")
	if err == nil {
		cp, err = f.locked(ctx)
	}
	if err == nil {
		err = f.c.exec(ctx, "COMMIT")
	}
	if err != nil {
		return nil, fmt.Errorf("taking over the checkpoint of %q: %w", f.task, err)
	}
	return cp, nil
}

func (f *fence) locked(ctx context.Context) (materialize.Checkpoint, error) {
	rows, err := f.c.rows(ctx, `UPDATE `+f.table+` SET fence = fence + 1
		WHERE materialization = $1 AND key_end >= $2 AND key_begin <= $3 RETURNING key_begin, key_end`, f.task, f.keys.Begin, f.keys.End)
	if err != nil {
		return nil, err
	}
	own := strconv.FormatUint(uint64(f.keys.Begin), 10) + "-" + strconv.FormatUint(uint64(f.keys.End), 10)
	for _, r := range rows {
		begin, _ := strconv.ParseUint(string(r[0]), 10, 32)
		end, _ := strconv.ParseUint(string(r[1]), 10, 32)
		inside := begin >= uint64(f.keys.Begin) && end <= uint64(f.keys.End)
		if inside && string(r[0])+"-"+string(r[1]) != own {
			return nil, usererr.New(nil, "The materialization %q was split into several instances before, and their positions cannot be joined into one. Start as many instances as before, or increase the backfill counters to start anew.", f.task)
		}
	}
	// A range that is new takes over from the narrowest one that covers it: that is the one it was split from.
	rows, err = f.c.rows(ctx, `INSERT INTO `+f.table+` AS c (materialization, key_begin, key_end, fence, checkpoint)
		SELECT $1::text, $2::bigint, $3::bigint, 1, COALESCE((
			SELECT checkpoint FROM `+f.table+` WHERE materialization = $1 AND key_begin <= $2 AND key_end >= $3
			ORDER BY key_end - key_begin LIMIT 1), '')
		ON CONFLICT (materialization, key_begin, key_end) DO UPDATE SET fence = c.fence + 1
		RETURNING fence, encode(checkpoint, 'hex')`, f.task, f.keys.Begin, f.keys.End)
	if err != nil {
		return nil, err
	}
	if f.value, err = strconv.ParseInt(string(rows[0][0]), 10, 64); err != nil {
		return nil, fmt.Errorf("reading the fence: %w", err)
	}
	return decodeHex(rows[0][1])
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
		return usererr.New(nil, "Another instance took over the materialization %q, so this one stops. Nothing of its last transaction was stored. If nobody restarted or changed the materialization, look for a second process that runs it.", f.task)
	}
	return nil
}

func decodeHex(text []byte) (materialize.Checkpoint, error) {
	out := make([]byte, 0, len(text)/2)
	for i := 0; i+1 < len(text); i += 2 {
		v, err := strconv.ParseUint(string(text[i:i+2]), 16, 8)
		if err != nil {
			return nil, fmt.Errorf("reading the checkpoint: %w", err)
		}
		out = append(out, byte(v))
	}
	return out, nil
}
