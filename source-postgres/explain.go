package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// What a transaction in progress is doing. Identifiers of running transactions are unique in their lower 32 bits.
const queryTransaction = `
	SELECT format('process %s of user %s (%s), %s, begun %s ago', a.pid, a.usename, a.application_name, a.state,
			justify_interval(date_trunc('second', clock_timestamp() - a.xact_start))),
		coalesce(a.wait_event, '')
	FROM pg_catalog.pg_stat_activity a WHERE a.backend_xid::text = $1
	UNION ALL
	SELECT format('the prepared transaction %L of user %s, prepared at %s: commit or roll it back', p.gid, p.owner, p.prepared), ''
	FROM pg_catalog.pg_prepared_xacts p WHERE p.transaction::text = $1`

// Explain implements cdc.Waiter.
func (d *driver) Explain(ctx context.Context, txn cdc.TxnID) string {
	t, ok := parseTransaction(txn)
	if !ok {
		return ""
	}
	if t.below {
		return fmt.Sprintf("transactions below %d, which were in progress on the primary when the backfill began, to end", t.xid)
	}
	xid := t.xid
	var what, wait, standbys string
	err := d.conns.with(ctx, func(conn *pgx.Conn) error {
		row := conn.QueryRow(ctx, queryTransaction, strconv.FormatUint(uint64(uint32(xid)), 10)) //nolint:gosec // the lower half is meant
		if err := row.Scan(&what, &wait); err != nil {
			return fmt.Errorf("explaining transaction %s: %w", txn, err)
		}
		return conn.QueryRow(ctx, "SELECT current_setting('synchronous_standby_names')").Scan(&standbys)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Sprintf("transaction %s, which has ended", txn)
	case err != nil:
		return fmt.Sprintf("transaction %s", txn)
	case wait == "SyncRep":
		return fmt.Sprintf("transaction %s of %s: its commit waits for a synchronous standby (synchronous_standby_names = %q), which is missing or slow", txn, what, standbys)
	}
	return fmt.Sprintf("transaction %s of %s", txn, what)
}
