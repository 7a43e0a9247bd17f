package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
)

// lakeTask is the materialization that writes Parquet files.
const lakeTask = "demo/lake"

func (d *demo) lakeFolder() string { return filepath.Join(d.folder, "lake") }

// queryLake makes tables of the Parquet files by what `sluice sql duckdb` prints, waits until they have the shop's rows, and asks
// them something. Without DuckDB it says where the files are.
func (d *demo) queryLake(ctx context.Context, sluice *launch.Runtime, pipeline string) error {
	if _, err := duckdb.Find(); err != nil {
		d.story.tell("wrote every change to Parquet files in %s (no DuckDB here to query them: scripts/services install duckdb)", d.lakeFolder())
		return nil
	}
	sql, err := launch.DuckDB(ctx, d.bins, pipeline, lakeTask)
	if err != nil {
		return err
	}
	want, err := d.shopCounts(ctx)
	if err != nil {
		return err
	}
	got, last := []string{}, error(nil)
	poll := time.NewTicker(time.Second)
	defer poll.Stop()
	for began := time.Now(); time.Since(began) < patience; {
		if got, last = d.lakeCounts(ctx, sql); last == nil && strings.Join(got, " ") == strings.Join(want, " ") {
			return d.tellLake(ctx)
		}
		select {
		case <-ctx.Done():
			return errors.New("interrupted")
		case <-sluice.Exited():
			return fmt.Errorf("sluice ended by itself: %w", sluice.Err())
		case <-poll.C:
		}
	}
	return fmt.Errorf("the Parquet files have %v rows of %v, the shop %v: %w", got, tables(), want, errors.Join(last, errors.New("they did not catch up")))
}

// shopCounts is how many rows the shop's tables have.
func (d *demo) shopCounts(ctx context.Context) ([]string, error) {
	var counts []string
	for _, table := range tables() {
		n := 0
		if err := d.shop.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			return nil, err
		}
		counts = append(counts, strconv.Itoa(n))
	}
	return counts, nil
}

// lakeCounts is how many the views over the Parquet files have.
func (d *demo) lakeCounts(ctx context.Context, sql string) ([]string, error) {
	var counts []string
	for _, table := range tables() {
		counts = append(counts, "(SELECT count(*) FROM "+table+")")
	}
	return d.query(ctx, sql+"SELECT "+strings.Join(counts, ", "))
}

// query runs statements in DuckDB and returns the last row that they print.
func (d *demo) query(ctx context.Context, sql string) ([]string, error) {
	out, err := duckdb.Run(ctx, filepath.Join(d.folder, "lake.db"), "csv", sql)
	if err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(strings.NewReader(string(out))).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, fmt.Errorf("reading what DuckDB prints: %w: %s", err, out)
	}
	return rows[len(rows)-1], nil
}

func (d *demo) tellLake(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(d.lakeFolder(), "*", "*", "*.parquet"))
	if err != nil {
		return err
	}
	size := int64(0)
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		size += info.Size()
	}
	changes, err := d.query(ctx, "SELECT count(*) FROM orders_history")
	if err != nil {
		return err
	}
	now, err := d.query(ctx, "SELECT count(*), max(id) FROM orders")
	if err != nil {
		return err
	}
	d.story.tell("DuckDB on %d Parquet files (%d kB), by sluice sql duckdb: %s changes of orders make %s orders, as in the shop", len(files), size>>10, changes[0], now[0])
	return nil
}
