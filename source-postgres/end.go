package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// End implements cdc.Ender: it is the place behind the commits of all that a snapshot sees which is taken now (see place).
func (d *driver) End(ctx context.Context) (mark cdc.Mark, err error) {
	place := placeOfPrimary
	if d.server.standby {
		place = placeOfStandby
	}
	err = d.conns.with(ctx, func(conn *pgx.Conn) error {
		results, err := conn.PgConn().Exec(ctx, "SELECT "+d.snapshotFunction()+place).ReadAll()
		if err != nil {
			return fmt.Errorf("reading the place in the log: %w", err)
		}
		mark, err = d.place(results[0].Rows[0][1:])
		return err
	})
	return mark, err
}
