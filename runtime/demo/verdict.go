package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/runtime/e2e/compare"
	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// patience is how long the copy may take to catch up after the last change.
const patience = 45 * time.Second

// catchUp waits until the copy equals the shop, or patience is over; what is different then is for verdict to say.
func (d *demo) catchUp(ctx context.Context, sluice *launch.Runtime) error {
	began := time.Now()
	poll := time.NewTicker(500 * time.Millisecond)
	defer poll.Stop()
	for time.Since(began) < patience {
		results, err := d.compare(ctx)
		if err != nil && !errors.Is(err, compare.ErrShape) { // a table or column that has not arrived yet
			return err
		}
		if err == nil && differences(results) == 0 {
			d.story.tell("the copy caught up %.1f s after the last change", time.Since(began).Seconds())
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("interrupted")
		case <-sluice.Exited():
			return fmt.Errorf("sluice ended by itself: %w", sluice.Err())
		case <-poll.C:
		}
	}
	d.story.tell("the copy did not catch up within %s", patience)
	return nil
}

// verdict compares for good, now that nothing runs any more.
func (d *demo) verdict(ctx context.Context, sales *clerks) error {
	results, err := d.compare(ctx)
	if err != nil {
		return err
	}
	rows := 0
	for i, table := range tables() {
		d.story.tell("compared %-12s row by row: %s", table, results[i])
		rows += results[i].SourceRows
	}
	if n := differences(results); n > 0 {
		return fmt.Errorf("%d rows of the copy differ from the shop%s", n, d.lastWords())
	}
	d.story.tell("EQUAL: %s rows, after %s transactions, one crash and two ALTER TABLEs", thousands(rows), thousands(int(sales.transactions.Load())))
	return nil
}

func (d *demo) compare(ctx context.Context) ([]compare.Result, error) {
	var results []compare.Result
	for _, table := range tables() {
		ident := pgx.Identifier{"public", table}
		result, err := compare.Tables(ctx, d.shop, d.copied, compare.Pair{Source: ident, Destination: ident})
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

func differences(results []compare.Result) int {
	n := 0
	for _, r := range results {
		n += r.Differences
	}
	return n
}

// stayUp runs the pipeline again for the reader to play with, until Ctrl-C.
func (d *demo) stayUp(ctx context.Context, pipeline string) error {
	psql := func(database string) string {
		return fmt.Sprintf("PGPASSWORD=%s psql -h %s -p %d -U %s %s", d.login("")["password"], d.pg.Host(), d.pg.Port(), d.login("")["user"], database)
	}
	fmt.Fprintf(os.Stdout, `
Change something in the shop:
  %s
and see it arrive in the copy:
  %s
The pipeline: %s
Ctrl-C ends the demo and removes everything.

`, psql(shopDatabase), psql(copyDatabase), pipeline)
	sluice, err := d.startSluice(ctx, pipeline)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-sluice.Exited():
	}
	err = sluice.Stop()
	d.story.resume()
	d.story.tell("removed everything")
	return err
}
