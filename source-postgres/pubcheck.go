package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// checkOptions is about a publication that is there: whether it sends all kinds of changes, and partitions under the names of
// their tables. It is looked at before every stream too, since what it leaves out is missing without a word.
func (d *driver) checkOptions(ctx context.Context, conn *pgx.Conn, p *publication, tables []cdc.TableID) ([]error, error) {
	if !p.exists {
		return nil, nil
	}
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, usererr.New(nil, format, args...)) }
	policy := cdc.TruncatePolicy(d.cfg.Advanced.OnTruncate)
	switch {
	case !p.changes:
		add("The publication %q leaves out some kinds of changes. Have its owner run: ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate');", d.publication, quoteIdent(d.publication))
	case !p.truncates && policy != "" && policy != cdc.TruncateIgnore:
		add("The publication %q leaves out truncations, which onTruncate is about. Have its owner run: ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate');", d.publication, quoteIdent(d.publication))
	}
	if p.viaRoot {
		return problems, nil
	}
	found, err := d.readTables(ctx, conn, tables)
	if err != nil {
		return nil, err
	}
	for _, t := range found {
		if t.root {
			add("The publication %q sends changes of %s under the names of its partitions. Have its owner run: ALTER PUBLICATION %s SET (publish_via_partition_root = true);",
				d.publication, t.id, quoteIdent(d.publication))
		}
	}
	return problems, nil
}

// mustSend refuses to stream from a publication that leaves something out.
func (d *driver) mustSend(ctx context.Context, conn *pgx.Conn, p *publication, tables []cdc.TableID) error {
	problems, err := d.checkOptions(ctx, conn, p, tables)
	if err != nil {
		return fmt.Errorf("checking publication %q: %w", d.publication, err)
	}
	return usererr.Join("", problems)
}
