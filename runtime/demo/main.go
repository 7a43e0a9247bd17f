// Command demo shows Sluice at work, from nothing to a proof, in under a minute:
//
//	a throw-away Postgres ── bin/source-postgres ── sluice ─┬─ bin/materialize-postgres ──── a second database
//	       ▲                        ▲                       └─ bin/materialize-s3-parquet ── a folder of Parquet files
//	  a busy little shop      killed once on the way
//
// It starts the server, fills a shop (shop.go), lets clerks work in it without a pause (clerks.go), runs the pipeline, kills
// the capture with SIGKILL, changes tables while they are being captured, and at the end compares the copy with the
// shop row by row. The exit code is 0 only if they are equal. Everything lives in temporary folders and is gone
// afterwards. If DuckDB is here it has the last word, over the Parquet files. With DEMO_KEEP=1 it stays up, for you to look around, until Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/server/cluster"
)

func main() {
	bins := flag.String("bin", "../bin", "folder with the built programs")
	orders := flag.Int("orders", 100_000, "orders in the shop when it opens")
	busy := flag.Duration("busy", 20*time.Second, "how long the clerks work while the pipeline runs")
	flag.Parse()
	folder, err := filepath.Abs(*bins) // the pipeline file, which names the programs, is elsewhere
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	d := &demo{
		bins: launch.Binaries(folder), orders: *orders, busy: *busy,
		keep: os.Getenv("DEMO_KEEP") == "1", story: newStory(os.Stdout),
	}
	err = d.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demo failed: %v\n", err)
		os.Exit(1)
	}
}

// demo is what the steps below share.
type demo struct {
	bins   launch.Binaries
	orders int
	busy   time.Duration
	keep   bool
	story  *story

	folder string            // temporary, holds everything but the server
	pg     *cluster.Postgres // holds both databases
	shop   *pgx.Conn         // to the source
	copied *pgx.Conn         // to the destination
}

// The two databases.
const (
	shopDatabase = "shop"
	copyDatabase = "warehouse"
)

// run is the whole demo, in order.
func (d *demo) run(ctx context.Context) (err error) {
	if err := d.bins.Check(); err != nil {
		return err
	}
	if d.folder, err = os.MkdirTemp("", "sluice-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.folder)) }()
	if err := d.startServer(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.pg.Close()) }()
	if err := d.openShop(ctx); err != nil {
		return err
	}
	sales, err := d.startClerks(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = sales.stop() }()
	pipeline, err := d.writePipeline(ctx)
	if err != nil {
		return err
	}
	if err := d.live(ctx, pipeline, sales); err != nil {
		return err
	}
	if !d.keep {
		d.story.tell("done: the server is stopped and everything removed; DEMO_KEEP=1 make demo stays up")
		return nil
	}
	return d.stayUp(ctx, pipeline)
}

func (d *demo) startServer(ctx context.Context) error {
	pg, err := cluster.Start(ctx, cluster.Options{Settings: map[string]string{"timezone": "UTC"}})
	if err != nil {
		return fmt.Errorf("starting a throw-away Postgres: %w", err)
	}
	d.pg = pg
	d.story.tell("started a throw-away Postgres %d on %s with wal_level=logical", pg.Major(), pg.Address())
	if _, err := pg.Exec(ctx, "postgres", "CREATE DATABASE "+shopDatabase, "CREATE DATABASE "+copyDatabase); err != nil {
		return err
	}
	if d.shop, err = pgx.Connect(ctx, pg.URL(shopDatabase)); err != nil {
		return err
	}
	d.copied, err = pgx.Connect(ctx, pg.URL(copyDatabase))
	return err
}

// writePipeline does what a user would: `sluice discover` writes the capture's part, and the materialization is added.
func (d *demo) writePipeline(ctx context.Context) (string, error) {
	catalog, err := launch.Discover(ctx, d.bins, launch.SourcePostgres, "demo/"+shopDatabase, d.login(shopDatabase), d.folder)
	if err != nil {
		return "", err
	}
	config := d.login(copyDatabase)
	config["hardDelete"] = true // a deleted row is deleted in the copy too, instead of being marked
	endpoint := launch.Endpoint{Local: launch.Local{
		Command: []string{d.bins.Path(launch.MaterializePostgres)}, Protobuf: true, Config: config,
	}}
	if err := catalog.Materialize("demo/"+copyDatabase, endpoint, nil); err != nil {
		return "", err
	}
	if err := catalog.Materialize(lakeTask, launch.Parquet(d.bins, d.lakeFolder(), "1s"), launch.IntoPath); err != nil {
		return "", err
	}
	file := filepath.Join(d.folder, "pipeline.yaml")
	d.story.tell("sluice discover found %d tables; wrote %s with a capture of them and two materializations", len(catalog.Collections), file)
	return file, catalog.Write(file)
}

// login is the part of a connector's configuration that both have in common.
func (d *demo) login(database string) map[string]any {
	return map[string]any{
		"address": d.pg.Address(), "database": database,
		"user": cluster.Superuser, "password": cluster.Password,
	}
}

// live runs the pipeline while the shop is busy, until the copy has everything.
func (d *demo) live(ctx context.Context, pipeline string, sales *clerks) error {
	sluice, err := d.startSluice(ctx, pipeline)
	if err != nil {
		return err
	}
	err = d.trouble(ctx, sluice, sales)
	if err == nil {
		err = d.catchUp(ctx, sluice)
	}
	if err == nil {
		err = d.queryLake(ctx, sluice, pipeline)
	}
	if stopErr := sluice.Stop(); err == nil {
		err = stopErr
	}
	d.story.resume()
	if err != nil {
		return fmt.Errorf("%w%s", err, d.lastWords())
	}
	d.story.tell("sluice stopped cleanly")
	return d.verdict(ctx, sales)
}

// startSluice runs the pipeline. A terminal shows the live table, and the demo is quiet meanwhile; otherwise what sluice logs
// goes to a file, and the demo tells what happens as it happens.
func (d *demo) startSluice(ctx context.Context, pipeline string) (*launch.Runtime, error) {
	log, err := os.OpenFile(d.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	opts := launch.Options{Binaries: d.bins, Pipeline: pipeline, Data: filepath.Join(d.folder, "data"), Stdout: log, Stderr: log}
	d.story.tell("started sluice run %s", filepath.Base(pipeline))
	if d.story.terminal {
		opts.Stdout, opts.Stderr = os.Stdout, os.Stderr
		d.story.pause()
	}
	return launch.Start(ctx, opts)
}

func (d *demo) logFile() string { return filepath.Join(d.folder, "sluice.log") }

// lastWords is the end of what sluice logged, for when something went wrong.
func (d *demo) lastWords() string {
	const most = 30
	text, err := os.ReadFile(d.logFile())
	if err != nil || len(text) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return "\nThe last lines of sluice's log:\n" + strings.Join(lines[max(0, len(lines)-most):], "\n")
}

// trouble happens while the clerks work: a crash and two changes of tables.
func (d *demo) trouble(ctx context.Context, sluice *launch.Runtime, sales *clerks) error {
	steps := []struct {
		after float64 // share of the busy time
		do    func(context.Context) error
	}{
		{0, func(ctx context.Context) error { return d.crash(ctx, sluice) }},
		{0.40, sales.addGiftCards},
		{0.60, sales.addPoints},
		{1.00, func(context.Context) error { return sales.stop() }},
	}
	began := time.Now()
	for _, step := range steps {
		at := began.Add(time.Duration(step.after * float64(d.busy)))
		select {
		case <-ctx.Done():
			return errors.New("interrupted")
		case <-sluice.Exited():
			return fmt.Errorf("sluice ended by itself: %w", sluice.Err())
		case <-time.After(time.Until(at)):
		}
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	d.story.tell("the clerks went home: %s", sales.summary())
	return nil
}

// crash kills the capture while it reads the rows that were there from the start.
func (d *demo) crash(ctx context.Context, sluice *launch.Runtime) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	table, rows, err := d.awaitRows(ctx, sluice)
	if err != nil {
		return err
	}
	pid, err := sluice.KillConnector(ctx, launch.SourcePostgres)
	if err != nil {
		return err
	}
	d.story.tell("killed the capture (SIGKILL to process %d) when the copy had %s %s", pid, thousands(rows), table)
	return nil
}

// awaitRows waits for the first rows in the copy, in whichever table they are.
func (d *demo) awaitRows(ctx context.Context, sluice *launch.Runtime) (table string, rows int, err error) {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		for _, table := range tables() {
			exists := false
			if err := d.copied.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", table).Scan(&exists); err != nil {
				return "", 0, err
			}
			if !exists {
				continue
			}
			if err := d.copied.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&rows); err != nil || rows > 0 {
				return strings.ReplaceAll(table, "_", " "), rows, err
			}
		}
		select {
		case <-ctx.Done():
			return "", 0, fmt.Errorf("waiting for the first rows in the copy: %w", ctx.Err())
		case <-sluice.Exited():
			return "", 0, fmt.Errorf("sluice ended by itself: %w", sluice.Err())
		case <-poll.C:
		}
	}
}
