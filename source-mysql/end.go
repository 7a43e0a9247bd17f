package main

import (
	"context"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// End implements cdc.Ender.
func (d *driver) End(ctx context.Context) (mark cdc.Mark, err error) {
	err = d.conns.with(ctx, func(s *session) error {
		end, err := d.end(ctx, s)
		mark = cdc.Mark(end.String())
		return err
	})
	return mark, err
}
