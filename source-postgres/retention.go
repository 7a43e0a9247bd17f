package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// retention is what the replication slot holds back on the server.
type retention struct {
	Exists   bool
	Restart  lsn    // the server keeps its log from here on
	Flushed  lsn    // what we have confirmed; everything before it is durable downstream
	End      lsn    // the end of the server's log (of a standby: what it has replayed)
	Retained int64  // bytes of log between Restart and End, zero if the server has given them up
	Status   string // wal_status: reserved, extended, unreserved or lost; empty before version 13
	Safe     int64  // safe_wal_size: how many bytes the server may still write before the slot is in danger; -1 if there is no limit, or before version 13
}

// retention asks the server what the slot holds back. It is one look into shared memory, on a session of the pool: cheap
// enough for every few seconds, from any goroutine.
func (d *driver) retention(ctx context.Context) (retention, error) {
	status, safe := "''", "-1::bigint"
	if d.server.major() >= 13 {
		status, safe = "coalesce(wal_status, '')", "coalesce(safe_wal_size, -1)"
	}
	sql := `SELECT coalesce(restart_lsn::text, ''), coalesce(confirmed_flush_lsn::text, ''), e.lsn::text,
		greatest(coalesce(pg_catalog.pg_wal_lsn_diff(e.lsn, restart_lsn), 0), 0)::bigint, ` + status + `, ` + safe + `
		FROM pg_catalog.pg_replication_slots, (SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
			THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END AS lsn) e
		WHERE slot_name = $1`
	var r retention
	err := d.conns.with(ctx, func(conn *pgx.Conn) error {
		var restart, flushed, end string
		r = retention{Exists: true}
		err := conn.QueryRow(ctx, sql, d.slot).Scan(&restart, &flushed, &end, &r.Retained, &r.Status, &r.Safe)
		if errors.Is(err, pgx.ErrNoRows) {
			r = retention{Safe: -1}
			return nil
		}
		if err != nil {
			return err
		}
		for _, p := range []struct {
			text string
			at   *lsn
		}{{restart, &r.Restart}, {flushed, &r.Flushed}, {end, &r.End}} {
			if p.text == "" {
				continue // the slot is still being made, or was given up
			}
			if *p.at, err = parseLSN(p.text); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return retention{}, fmt.Errorf("reading what slot %q holds back: %w", d.slot, err)
	}
	return r, nil
}
